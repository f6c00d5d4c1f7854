//! Reading and writing a socket through a shared reference, so that both directions of a connection can write to the
//! client. Knows no protocol. Errors are the socket's own.

use socket2::{SockRef, TcpKeepalive};
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Reads what is there. `Ok(0)` is the peer's end (or an empty `buffer`). `marked`: there may be urgent data.
pub(super) fn poll_read(
    stream: &TcpStream,
    context: &mut Context<'_>,
    buffer: &mut [u8],
    marked: bool,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(context))?;
        let mut got = None;
        let tried = stream.try_io(Interest::READABLE, || {
            let count = rustix::io::read(stream, &mut *buffer)?;
            got = Some(count);
            // Less than asked for: the kernel has no more, so the readiness is cleared here, which saves the read(2)
            // that would only say so (epoll(7), edge-triggered). Before urgent data it stops, too, and there is more.
            if !marked && count > 0 && count < buffer.len() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match (got, tried) {
            (Some(count), _) => return Poll::Ready(Ok(count)),
            (None, Err(error)) if retry(&error) => {}
            (None, Err(error)) => return Poll::Ready(Err(error)),
            (None, Ok(())) => {}
        }
    }
}

/// Writes all of `bytes`.
pub(super) async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = poll_fn(|context| poll_write(stream, context, bytes)).await?;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}

/// Why bytes that one end sent did not all come to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Whom they are for takes no more.
    Reader,
    /// Who sent them has broken its connection.
    Writer,
}

/// Writes all of `bytes`, which are `writer`'s (`None`: it has broken its connection already). Nobody reads from it as long
/// as `stream` takes nothing; that it breaks is heard all the same, and `patience` is how long `stream` may then go on to
/// take nothing.
pub(super) async fn pass(
    stream: &TcpStream,
    mut bytes: &[u8],
    writer: Option<&TcpStream>,
    patience: Duration,
) -> Result<(), Cut> {
    let mut breaks = pin!(async {
        if let Some(writer) = writer {
            broken(writer).await;
        }
    });
    let mut is_broken = false;
    while !bytes.is_empty() {
        // Boxed: rare, and larger than all the rest.
        let mut late: Option<Pin<Box<Sleep>>> = None;
        let written = poll_fn(|context| {
            if let Poll::Ready(done) = poll_write(stream, context, bytes) {
                return Poll::Ready(done.map_err(|_| Cut::Reader));
            }
            if !is_broken {
                ready!(breaks.as_mut().poll(context));
                is_broken = true;
            }
            if patience.is_zero() {
                return Poll::Ready(Err(Cut::Writer));
            }
            let late = late.get_or_insert_with(|| Box::pin(sleep(patience)));
            late.as_mut().poll(context).map(|()| Err(Cut::Writer))
        });
        let written = written.await?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Waits until the connection is broken: a RST has come, or the kernel has given the peer up. An orderly end is none. What
/// the peer had sent before can still be read.
pub(super) async fn broken(stream: &TcpStream) {
    // epoll(7) tells it unasked, and no read takes that back. An error of its own: the runtime ends, and so does all.
    let _ = stream.ready(Interest::ERROR).await;
}

/// For how long the rest of a message has to be missing. One that sends without a pause is not asked of the kernel for each part: that
/// took 17 µs of 64 KiB.
const MISSED: Duration = Duration::from_millis(1);

/// Has the kernel acknowledge what was read of a message whose rest doesn't come (TCP_QUICKACK, tcp(7)), which it else may do 40 ms later,
/// together with what is sent next: nothing is, to one that is amid a message. Its sender may be waiting for that: for room, or to
/// send more at once; and then sends the last segment again, some milliseconds later (RFC 8985, 7).
#[derive(Debug, Default)]
pub(super) struct Acknowledging {
    timer: Option<Pin<Box<Sleep>>>,
    missing: Missing,
}

/// Whether the rest of a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Missing {
    #[default]
    No,
    /// The timer runs.
    Yes,
    /// For as long as that takes: the kernel was asked.
    Long,
}

impl Acknowledging {
    /// More has come.
    pub(super) fn came(&mut self) {
        self.missing = Missing::No;
    }

    /// Nothing has come now. `context` is woken when it is time to ask again.
    pub(super) fn poll(&mut self, stream: &TcpStream, context: &mut Context<'_>) {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(MISSED)));
        if self.missing == Missing::No {
            timer.as_mut().reset(Instant::now() + MISSED);
            self.missing = Missing::Yes;
        }
        if self.missing == Missing::Yes && timer.as_mut().poll(context).is_ready() {
            self.missing = Missing::Long;
            // Without it, all goes on as the kernel sees fit.
            let _ = rustix::net::sockopt::set_tcp_quickack(stream, true);
        }
    }
}

/// Whether nothing has come that nobody has read: no byte, no end, no reset.
pub(super) fn is_silent(stream: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let peeked = SockRef::from(stream).peek(&mut byte);
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Writes what the socket takes now.
pub(super) fn poll_write(
    stream: &TcpStream,
    context: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(context))?;
        match stream.try_write(bytes) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Err(error) if retry(&error) => {}
            done => return Poll::Ready(done),
        }
    }
}

fn retry(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Has the kernel find out when the peer is gone without a word: each minute of silence, then four times 15 s.
pub(super) fn keep_alive(stream: &TcpStream) {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    // Without it the connection is served all the same.
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes.with_retries(4));
}

/// Has urgent data (TCP's, as FTP and telnet have it) come among the other, at its place; else a read passes over it. If that
/// can't be, one byte of it is lost.
pub(super) fn inline_urgent(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_out_of_band_inline(true);
}

/// Sends FIN: nothing more will be written. A socket that is already gone needs none.
pub(super) fn finish(stream: &TcpStream) {
    let _ = SockRef::from(stream).shutdown(Shutdown::Write);
}

/// Makes the socket's close a RST (SO_LINGER of 0, socket(7)).
pub(super) fn reset_on_close(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Sends FIN, then reads what the peer still sends, so that it gets our last answer before any RST (RFC 9112, 9.6).
/// Ends with the peer's FIN, after a second, or after 1 MiB.
pub(super) async fn linger(stream: &TcpStream) {
    const TIME: Duration = Duration::from_secs(1);
    const BYTES: usize = 1 << 20;
    finish(stream);
    let mut scratch = vec![0; 4096];
    let mut left = BYTES;
    let _ = tokio::time::timeout(TIME, async {
        while left > 0 {
            match poll_fn(|context| poll_read(stream, context, &mut scratch, false)).await {
                Ok(0) | Err(_) => break,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    })
    .await;
}
