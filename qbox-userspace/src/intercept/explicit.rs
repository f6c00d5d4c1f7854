//! Explicit mode: a plain listening port, to which clients send what they would have sent to a service. No eBPF, no root.

use super::accept::{BACKLOG, Task, accept};
use super::raised;
use crate::netns;
use socket2::Domain;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

/// A connection to the explicit port. Where it is going, the request must say.
#[derive(Debug)]
pub struct ExplicitAccepted {
    /// The connection.
    pub stream: TcpStream,
    /// The client.
    pub peer: SocketAddr,
    /// Where the port is, as [`Listener::address`].
    pub listens: SocketAddr,
}

/// Takes the connections. It must not block: it runs on the acceptor's task.
pub type ExplicitSink = Arc<dyn Fn(ExplicitAccepted) + Send + Sync>;

/// The port, open until this is dropped.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    _task: Task,
}

impl Listener {
    /// Where it listens, with the port that the kernel chose if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Listens on `address`, inside a tokio runtime, and hands each connection to `sink`.
///
/// # Errors
/// The address is in use or not this machine's.
pub fn listen(address: SocketAddr, sink: ExplicitSink) -> io::Result<Listener> {
    raised::files();
    let socket = netns::tcp_socket(Domain::for_address(address))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    let work = accept(listener, format!("explicit {address}"), move |stream, peer| {
        sink(ExplicitAccepted {
            stream,
            peer,
            listens: address,
        });
    });
    Ok(Listener {
        address,
        _task: Task::spawn(work),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_arrive_until_it_is_dropped() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let sink: ExplicitSink = Arc::new(move |accepted| drop(sender.try_send(accepted)));
        let listener = listen(([127, 0, 0, 1], 0).into(), sink).unwrap();
        let client = TcpStream::connect(listener.address()).await.unwrap();
        let accepted = receiver.recv().await.unwrap();
        assert_eq!(accepted.peer, client.local_addr().unwrap());
        assert_eq!(accepted.listens, listener.address());
        let address = listener.address();
        drop(listener);
        tokio::task::yield_now().await;
        assert!(TcpStream::connect(address).await.is_err());
    }
}
