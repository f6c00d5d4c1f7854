//! One request and its answer on one connection (RFC 9112). Writing and reading go on at once, so that a service that
//! answers before it has read everything is heard. Keeps no time: the caller drops the future when time is up.

use super::body::{Chunk, Framing, Progress, Sink};
use super::client::Answer;
use super::slices::Slices;
use super::tls;
use crate::outbox::{Place, Tells};
use bytes::{Buf, Bytes, BytesMut};
use smol_str::SmolStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest answer head, in bytes, and the most fields in it.
const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 128;
/// How many interim (1xx) answers one request may draw.
const MAX_INTERIM: usize = 16;
/// How much of a body beyond the limit is read, so that the connection can be used again; past it the connection is closed.
const DRAIN: u64 = 256 * 1024;
/// The first read, and each of those that follow.
const FIRST_READ: usize = 2 * 1024;
const READ: usize = 16 * 1024;

/// Why there is no whole answer.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// The service closed without a word.
    #[error("the connection was closed before an answer")]
    Closed,
    /// It closed half-way.
    #[error("the connection was closed in the middle of the answer")]
    Half,
    /// Reset, or anything else the kernel says.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// Not HTTP/1.x.
    #[error("the answer is no HTTP: {0}")]
    Head(#[from] httparse::Error),
    /// HTTP, but not as RFC 9112 has it.
    #[error("the answer is malformed: {0}")]
    Malformed(&'static str),
}

impl Fault {
    /// The service has refused TLS, and so has read nothing of the request.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Io(error) if tls::is_refusal(error))
    }
}

/// Whether the connection may carry another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    /// No.
    No,
    /// Yes, while it has been idle for no longer than that (the service's `Keep-Alive: timeout`), where it says so.
    For(Option<Duration>),
}

/// A request as it goes out.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// Request line and fields, with the empty line.
    pub(super) head: Bytes,
    /// The body.
    pub(super) body: Bytes,
    /// The answer to HEAD has no body.
    pub(super) is_head: bool,
}

/// What requests go over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Its socket, if bytes go to that as they are.
    fn socket(&self) -> Option<&TcpStream>;
}

/// Sends `request` and reads the answer. `written` counts every byte that the kernel took, also when this future is dropped.
#[allow(unsafe_code)]
pub(super) async fn exchange<S: Stream>(
    stream: &mut S,
    request: &Prepared,
    body_limit: usize,
    written: &Arc<Place>,
) -> Result<(Answer, Reuse), Fault> {
    let parts = [&request.head, &request.body];
    // SAFETY: the stream is lent to this future, which has all that is put.
    let put = |socket| unsafe { written.put(socket, parts, Tells::Trouble) };
    let put = stream.socket().and_then(put);
    let (mut reading, mut writing) = tokio::io::split(stream);
    let write = async {
        let sent = match put {
            Some(put) => put.await?,
            None => 0,
        };
        let mut head = request.head.get(sent..).unwrap_or_default();
        let mut body = request
            .body
            .get(sent.saturating_sub(request.head.len())..)
            .unwrap_or_default();
        // Both in one call, and for a small request in one packet.
        while !head.is_empty() || !body.is_empty() {
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let count = writing.write_vectored(&parts).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written.add(count as u64);
            let of_head = count.min(head.len());
            head = &head[of_head..];
            body = &body[count - of_head..];
        }
        writing.flush().await
    };
    let read = read_answer(&mut reading, request.is_head, body_limit);
    tokio::pin!(write, read);
    tokio::select! {
        biased;
        sent = &mut write => {
            let answer = read.await;
            match (sent, answer) {
                (Ok(()), answer) => answer,
                // A service may answer (413, say) and close while we write: that is an answer.
                (Err(_), Ok((answer, _))) => Ok((answer, Reuse::No)),
                // Why it hung up, where it says so.
                (Err(_), Err(fault)) if fault.is_refusal() => Err(fault),
                (Err(error), Err(_)) => Err(Fault::Io(error)),
            }
        }
        early = &mut read => early.map(|(answer, _)| (answer, Reuse::No)),
    }
}

struct AnswerHead {
    version: u8,
    status: u16,
    fields: Vec<(SmolStr, Bytes)>,
}

async fn read_answer<R: AsyncRead + Unpin>(
    reading: &mut R,
    is_head: bool,
    body_limit: usize,
) -> Result<(Answer, Reuse), Fault> {
    let mut buffer = BytesMut::new();
    let mut interim = 0;
    let mut head = loop {
        let head = read_head(reading, &mut buffer).await?;
        match head.status {
            101 => return Err(Fault::Malformed("it switches protocols unasked")),
            100..=199 if interim < MAX_INTERIM => interim += 1,
            200..=599 => break head,
            _ => return Err(Fault::Malformed("its status is none of HTTP's")),
        }
    };
    let (framing, certain) = framing(&head, is_head)?;
    let mut reuse = if certain { reuse(&head) } else { Reuse::No };
    let mut sink = Sink::new(body_limit);
    if let Some(mut framing) = framing {
        if framing.ends_with_connection() {
            reuse = Reuse::No;
        }
        loop {
            if framing.advance(&mut buffer, &mut sink)? == Progress::Done {
                break;
            }
            let known = match framing {
                Framing::Length(left) if sink.dropped > 0 => left,
                _ => 0,
            };
            if sink.dropped.saturating_add(known) > DRAIN {
                reuse = Reuse::No;
                break;
            }
            if fill(reading, &mut buffer).await? == 0 {
                if framing.ends_with_connection() {
                    break;
                }
                return Err(Fault::Half);
            }
        }
    }
    if !buffer.is_empty() {
        reuse = Reuse::No; // Something that nobody asked for: never to be taken for the next answer.
    }
    head.fields.retain(|(name, _)| !is_framing(name));
    let (body, truncated) = sink.finish();
    let answer = Answer {
        status: head.status,
        headers: head.fields,
        body,
        truncated,
    };
    Ok((answer, reuse))
}

async fn fill<R: AsyncRead + Unpin>(reading: &mut R, buffer: &mut BytesMut) -> Result<usize, Fault> {
    // Most answers are short.
    buffer.reserve(if buffer.capacity() == 0 { FIRST_READ } else { READ });
    Ok(reading.read_buf(buffer).await?)
}

async fn read_head<R: AsyncRead + Unpin>(
    reading: &mut R,
    buffer: &mut BytesMut,
) -> Result<AnswerHead, Fault> {
    loop {
        if !buffer.is_empty() {
            // To initialize them takes longer than to read a usual head.
            let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
            let mut response = httparse::Response::new(&mut []);
            let read = httparse::ParserConfig::default().parse_response_with_uninit_headers(
                &mut response,
                buffer,
                &mut fields,
            );
            if let httparse::Status::Complete(length) = read? {
                let values = Slices::of(buffer.get(..length).unwrap_or_default());
                let head = AnswerHead {
                    version: response.version.unwrap_or_default(),
                    status: response.code.unwrap_or_default(),
                    fields: response
                        .headers
                        .iter()
                        .map(|f| (SmolStr::new(f.name), values.get(f.value)))
                        .collect(),
                };
                buffer.advance(length);
                return Ok(head);
            }
        }
        if buffer.len() > MAX_HEAD {
            return Err(Fault::Malformed("its head is too long"));
        }
        let nothing_yet = buffer.is_empty();
        if fill(reading, buffer).await? == 0 {
            return Err(if nothing_yet { Fault::Closed } else { Fault::Half });
        }
    }
}

/// The fields that belong to the connection (RFC 9110, 7.6.1) or to the body's framing.
pub(super) fn is_framing(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|n| name.eq_ignore_ascii_case(n))
}

/// How the body ends (`None`: there is none), and whether that is beyond doubt (RFC 9112, 6.3).
fn framing(head: &AnswerHead, is_head: bool) -> Result<(Option<Framing>, bool), Fault> {
    if is_head || matches!(head.status, 204 | 304) {
        return Ok((None, true));
    }
    let mut codings = tokens(&head.fields, "transfer-encoding").peekable();
    let lengths = values(&head.fields, "content-length");
    if codings.peek().is_some() {
        // Both fields: the coding rules, and the connection is not trusted further.
        let certain = lengths.count() == 0 && head.version == 1;
        let chunked = codings.last().is_some_and(|t| t.eq_ignore_ascii_case(b"chunked"));
        return Ok(match (chunked, head.version) {
            (true, 1) => (Some(Framing::Chunked(Chunk::Size)), certain),
            (true, _) => return Err(Fault::Malformed("HTTP/1.0 with a transfer coding")),
            (false, _) => (Some(Framing::Close), false),
        });
    }
    let mut length = None;
    for value in lengths.flat_map(|v| v.split(|b| *b == b',')) {
        let text = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
        let parsed = match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u64>().ok(),
            false => None,
        };
        let parsed = parsed.ok_or(Fault::Malformed("its Content-Length is no number"))?;
        if length.is_some_and(|l| l != parsed) {
            return Err(Fault::Malformed("it has two different lengths"));
        }
        length = Some(parsed);
    }
    Ok(match length {
        Some(length) => (Some(Framing::Length(length)), true),
        None => (Some(Framing::Close), true),
    })
}

fn reuse(head: &AnswerHead) -> Reuse {
    let says = |word: &[u8]| tokens(&head.fields, "connection").any(|t| t.eq_ignore_ascii_case(word));
    if says(b"close") || (head.version == 0 && !says(b"keep-alive")) {
        return Reuse::No;
    }
    let timeout = tokens(&head.fields, "keep-alive").find_map(|token| {
        let text = std::str::from_utf8(token).ok()?;
        let (name, value) = text.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("timeout")
            .then_some(value.trim().parse().ok()?)
    });
    Reuse::For(timeout.map(Duration::from_secs))
}

fn values<'a>(fields: &'a [(SmolStr, Bytes)], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| &v[..])
}

/// The members of a comma-separated field, over all its lines.
fn tokens<'a>(fields: &'a [(SmolStr, Bytes)], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    values(fields, name)
        .flat_map(|v| v.split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Stream for tokio::io::DuplexStream {
        fn socket(&self) -> Option<&TcpStream> {
            None
        }
    }

    async fn answer(wire: &[u8], limit: usize) -> Result<(Answer, Reuse), Fault> {
        let whole = read_answer(&mut &wire[..], false, limit).await;
        for step in [1, 7] {
            let mut pieces = tokio_pieces(wire, step);
            let again = read_answer(&mut pieces, false, limit).await;
            match (&whole, &again) {
                (Ok(a), Ok(b)) => assert_eq!(a.0, b.0, "in pieces of {step}"),
                (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
                _ => panic!("{whole:?} but in pieces {again:?}"),
            }
        }
        whole
    }

    /// `wire` as a reader that gives `step` bytes a time.
    fn tokio_pieces(wire: &[u8], step: usize) -> impl AsyncRead + Unpin {
        struct Pieces(Vec<u8>, usize, usize);
        impl AsyncRead for Pieces {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                into: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                let this = self.get_mut();
                let end = (this.2 + this.1).min(this.0.len());
                into.put_slice(&this.0[this.2..end]);
                this.2 = end;
                std::task::Poll::Ready(Ok(()))
            }
        }
        Pieces(wire.to_vec(), step, 0)
    }

    #[tokio::test]
    async fn keeps_names_and_order_and_drops_framing() {
        let wire = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nX-B: 1\r\nx-a: 2\r\nContent-Length: 2\r\n\
            X-B: 3\r\nConnection: keep-alive\r\nKeep-Alive: timeout=7, max=9\r\n\r\nhi";
        let (answer, reuse) = answer(wire, 10).await.unwrap();
        let names: Vec<_> = answer.headers.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
        assert_eq!(names, [("X-B", &b"1"[..]), ("x-a", b"2"), ("X-B", b"3")]);
        assert_eq!(
            (answer.status, &answer.body[..], answer.truncated),
            (200, &b"hi"[..], false)
        );
        assert_eq!(reuse, Reuse::For(Some(Duration::from_secs(7))));
    }

    #[tokio::test]
    async fn framings_and_reuse() {
        let reuse =
            |wire: &'static str| async move { answer(wire.as_bytes(), 10).await.map(|(a, r)| (a.body, r)) };
        let (body, r) = reuse("HTTP/1.1 200 OK\r\n\r\nto the end").await.unwrap();
        assert_eq!((&body[..], r), (&b"to the end"[..], Reuse::No));
        let (body, r) = reuse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
            .await
            .unwrap();
        assert_eq!((&body[..], r), (&b"hi"[..], Reuse::For(None)));
        let both =
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        assert_eq!(reuse(both).await.unwrap().1, Reuse::No);
        assert_eq!(
            reuse("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap()
                .1,
            Reuse::No
        );
        assert_eq!(
            reuse("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n")
                .await
                .unwrap()
                .1,
            Reuse::For(None)
        );
        let close = "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(reuse(close).await.unwrap().1, Reuse::No);
        assert_eq!(
            reuse("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore")
                .await
                .unwrap()
                .1,
            Reuse::No
        );
    }

    #[tokio::test]
    async fn half_answers_are_faults() {
        for (wire, fault) in [
            ("", "the connection was closed before an answer"),
            (
                "HTTP/1.1 20",
                "the connection was closed in the middle of the answer",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
                "the connection was closed in the middle of the answer",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
                "the connection was closed in the middle of the answer",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
                "the answer is malformed: it has two different lengths",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
                "the answer is malformed: its Content-Length is no number",
            ),
            (
                "HTTP/1.1 101 Switching\r\n\r\n",
                "the answer is malformed: it switches protocols unasked",
            ),
            ("SSH-2.0-x\r\n", "the answer is no HTTP: invalid HTTP version"),
        ] {
            assert_eq!(
                answer(wire.as_bytes(), 10).await.unwrap_err().to_string(),
                fault,
                "{wire}"
            );
        }
    }

    #[tokio::test]
    async fn long_bodies_are_cut_and_much_longer_ones_not_read() {
        let short = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec(),
            vec![b'x'; 1000],
        ]
        .concat();
        let (a, reuse) = answer(&short, 10).await.unwrap();
        assert_eq!((a.body.len(), a.truncated, reuse), (10, true, Reuse::For(None)));
        let long = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n".to_vec(),
            vec![b'x'; 100],
        ]
        .concat();
        let (a, reuse) = answer(&long, 10).await.unwrap();
        assert_eq!((a.body.len(), a.truncated, reuse), (10, true, Reuse::No));
    }

    #[tokio::test]
    async fn an_answer_ahead_of_the_whole_request_is_heard() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let (mut read, mut write) = tokio::io::split(theirs);
        let peer = tokio::spawn(async move {
            let mut some = [0; 10];
            read.read_exact(&mut some).await.unwrap();
            write
                .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap();
            (read, write)
        });
        let request = Prepared {
            head: Bytes::from_static(b"POST / HTTP/1.1\r\n\r\n"),
            body: Bytes::from(vec![0; 100_000]),
            is_head: false,
        };
        let written = Arc::new(Place::default());
        let (answer, reuse) = exchange(&mut ours, &request, 10, &written).await.unwrap();
        assert_eq!((answer.status, reuse), (413, Reuse::No));
        assert!((10..1000).contains(&written.taken()));
        drop(peer.await.unwrap());
    }
}
