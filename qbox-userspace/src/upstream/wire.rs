//! A connection to a service, in the clear or under TLS.

use super::exchange::Stream;
use super::tls::Tls;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Either. Dropping it closes it.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    /// And the generation of what it was made under.
    Tls(Box<TlsStream<TcpStream>>, u64),
}

impl Wire {
    /// Whether it is as one would be made now.
    pub(super) fn is_as(&self, tls: Option<&Tls>) -> bool {
        match self {
            Self::Plain(_) => tls.is_none(),
            Self::Tls(_, generation) => tls.is_some_and(|tls| tls.generation == *generation),
        }
    }

    /// Neither closed by the other side nor with bytes that nobody asked for.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut one = [0];
        match self {
            Self::Plain(stream) => {
                matches!(stream.try_read(&mut one), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(stream, _) => {
                let (tcp, session) = stream.get_mut();
                let held = session.process_new_packets();
                let nothing_held = held.is_ok_and(|held| held.plaintext_bytes_to_read() == 0);
                let mut one = [std::mem::MaybeUninit::uninit()];
                // Only looked at: what comes is a record, and belongs to the session.
                let coming = socket2::SockRef::from(&*tcp).peek(&mut one);
                nothing_held && matches!(coming, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
            }
        }
    }
}

impl Stream for Wire {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(..) => None,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream, _) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_head_and_its_body_leave_in_one_call() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut wire = Wire::Plain(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        assert!(wire.is_write_vectored());
        let parts = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        assert_eq!(wire.write_vectored(&parts).await.unwrap(), 8);
        // As the exchange has it.
        let (_reading, mut writing) = tokio::io::split(wire);
        assert_eq!(writing.write_vectored(&parts).await.unwrap(), 8);
    }
}
