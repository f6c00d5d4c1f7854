//! What the targets that go through the real proxy share: sockets that stay from input to input, a listener in on one, and
//! writing in pieces. Errors are panics, as everywhere in this crate.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// What is read from a stream, noted.
pub(crate) struct Tap<S> {
    pub(crate) stream: S,
    pub(crate) seen: Arc<Mutex<Vec<u8>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.seen
            .lock()
            .unwrap()
            .extend_from_slice(&buffer.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A place for clients, and one for the service.
pub(crate) struct Rig {
    runtime: Runtime,
    front: TcpListener,
    pub(crate) service: TcpListener,
    pub(crate) places: [SocketAddr; 2],
}

impl Rig {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (front, service) = runtime.block_on(async {
            let listen = || TcpListener::bind("127.0.0.1:0");
            (listen().await.unwrap(), listen().await.unwrap())
        });
        let places = [front.local_addr().unwrap(), service.local_addr().unwrap()];
        Self {
            runtime,
            front,
            service,
            places,
        }
    }

    /// A client's end, and the end that Qbox is to serve.
    pub(crate) async fn connection(&self) -> (TcpStream, TcpStream, SocketAddr) {
        let client = TcpStream::connect(self.places[0]);
        let (client, accepted) = tokio::join!(client, self.front.accept());
        let (client, (accepted, peer)) = (client.unwrap(), accepted.unwrap());
        let _ = client.set_nodelay(true);
        (client, accepted, peer)
    }
}

/// Plays on the thread's rig.
pub(crate) fn with_rig(play: impl AsyncFnOnce(&Rig)) {
    thread_local! {
        static RIG: RefCell<Rig> = RefCell::new(Rig::new());
    }
    RIG.with_borrow(|rig| rig.runtime.block_on(play(rig)));
}

/// Writes pieces of `cuts` bytes; 0: all at once.
pub(crate) async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    cuts: u8,
    bytes: &[u8],
) -> std::io::Result<()> {
    let step = match cuts {
        0 => bytes.len().max(1),
        cuts => usize::from(cuts),
    };
    for part in bytes.chunks(step) {
        writer.write_all(part).await?;
        // Each piece is to be read on its own; where it is not, that is another input's case.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
