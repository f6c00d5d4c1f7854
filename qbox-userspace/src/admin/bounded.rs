//! A listener that serves so many connections at once and no more, each only while its client goes on: more wait in the
//! kernel's queue.

use axum::serve::Listener;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections of one listener at once.
const CONNECTIONS: usize = 64;
/// How long a client may be silent: send nothing, and take nothing that is sent to it.
const SILENCE: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Bounded<L> {
    listener: L,
    room: Arc<Semaphore>,
}

impl<L> Bounded<L> {
    pub(super) fn new(listener: L) -> Self {
        Self {
            listener,
            room: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }
}

impl<L: Listener> Listener for Bounded<L>
where
    L::Io: Unpin,
{
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // It is never closed; if it were, nobody would have to be kept out.
        let permit = Arc::clone(&self.room).acquire_owned().await.ok();
        let (io, address) = self.listener.accept().await;
        let connection = Connection {
            io,
            silence: Box::pin(sleep(SILENCE)),
            _permit: permit,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// One of them.
pub(super) struct Connection<S> {
    io: S,
    silence: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    /// The connection itself.
    pub(super) fn get_ref(&self) -> &S {
        &self.io
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.io).poll_read(context, buffer) {
            self.silence.as_mut().reset(Instant::now() + SILENCE);
            return Poll::Ready(result);
        }
        ready!(self.silence.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes));
        // Who takes what it has asked for is not silent: it may follow events for as long as it likes.
        self.silence.as_mut().reset(Instant::now() + SILENCE);
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn so_many_and_no_more() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut bounded = Bounded::new(listener);
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = TcpStream::connect(address).await.unwrap();
            held.push((client, bounded.accept().await));
        }
        let _one_more = TcpStream::connect(address).await.unwrap();
        let next = bounded.accept();
        tokio::pin!(next);
        assert!(std::future::poll_fn(|c| Poll::Ready(next.as_mut().poll(c).is_pending())).await);
        held.pop();
        tokio::time::timeout(SILENCE, next).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_not_waited_for() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut connection = Connection {
            io: near,
            silence: Box::pin(sleep(SILENCE)),
            _permit: None,
        };
        let mut byte = [0];
        tokio::time::advance(SILENCE / 2).await;
        far.write_all(b"x").await.unwrap();
        connection.read_exact(&mut byte).await.unwrap();
        let asked = Instant::now();
        let error = connection.read_exact(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(asked.elapsed() >= SILENCE);
    }
}
