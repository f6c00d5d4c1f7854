//! From the client to the upstream: detects, reads heads, asks the handler, passes the very bytes on.
//!
//! The buffer is scanned for as many messages as it holds, and what was understood is written at once. Awaited responses
//! are noted before their requests are written, so that no answer is early. Errors end as [`RequestEnd`].

mod answers;
mod named;
mod scan;
mod taken;

use super::buffer::Buffer;
use super::connection::{Failure, Link, State, Target, Upstream};
use super::explicit::Authority;
use super::head;
use super::inner::Phase as Life;
use super::sock::{Acknowledging, Cut};
use super::{Handler, orphan, sock};
use crate::outbox::Place;
use scan::{Phase, Scan};
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// How this direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestEnd {
    /// The client's FIN was passed on.
    Finished,
    /// The client is not listened to any more; the responses under way still go out.
    Stopped,
    /// The upstream takes no more bytes; what it still sends goes out first.
    UpstreamBroke,
    /// The last answer, one of Qbox's own, is written. `broken`: the upstream has half a message.
    Answered {
        /// The upstream is reset.
        broken: bool,
    },
    /// The client broke the connection.
    ClientBroke,
    /// Not HTTP, and the destination can't be reached: the client's connect fails, if late.
    Unreachable,
    /// There is no way on in which both sides understand the same: both are reset.
    Reset,
    /// Nothing was under way for a while, and the proxy drains; or nothing was ever asked for.
    Idle,
    /// The client speaks HTTP/2, and whether there is an upstream is known.
    Http2,
}

impl RequestEnd {
    /// The connection ends with it, whatever the other direction does.
    pub(super) fn at_once(self) -> bool {
        !matches!(
            self,
            Self::Finished | Self::Stopped | Self::UpstreamBroke | Self::Http2
        )
    }
}

/// What a read brought.
#[derive(Debug)]
enum Read {
    /// Bytes.
    Some,
    /// The client's FIN.
    End,
    /// The connection is broken.
    Broken,
    /// The other direction has turned the connection opaque.
    Opaque,
    /// Too late for a first line, or for the rest of a head.
    Late,
    /// Nothing is under way, the client knows that nothing more may be, and the proxy drains.
    Drained,
}

/// The direction's own state.
#[derive(Debug)]
pub(super) struct RequestSide<'a, H> {
    link: &'a Link<'a, H>,
    buffer: Buffer,
    phase: Phase,
    /// Known once something is to be sent to it.
    upstream: Option<Arc<TcpStream>>,
    /// Explicit mode: where the upstream connection goes.
    authority: Option<Authority>,
    /// A head that was read and asked about, whose turn has not come yet.
    parked: Option<Box<head::Request>>,
    /// The last request asked to leave HTTP/1.
    stalled: bool,
    /// A request said that it is the last: none that follows is to be processed (RFC 9112, 9.6). The service sees to that
    /// for what passes; here it is what Qbox would answer.
    last: bool,
    late: Option<Pin<Box<Sleep>>>,
    acknowledging: Acknowledging,
    /// For answers that are Qbox's own; made with the first one.
    outgoing: Option<Arc<Place>>,
    /// When the bytes came that are looked at, and whether a head is among those that are to be written.
    came: Instant,
    passes: bool,
}

impl<'a, H: Handler> RequestSide<'a, H> {
    pub(super) fn new(link: &'a Link<'a, H>, buffer: Buffer) -> Self {
        Self {
            link,
            buffer,
            phase: Phase::Detect,
            upstream: None,
            authority: None,
            parked: None,
            stalled: false,
            last: false,
            late: None,
            acknowledging: Acknowledging::default(),
            outgoing: None,
            came: Instant::now(),
            passes: false,
        }
    }

    /// Runs to the direction's end.
    pub(super) async fn run(mut self) -> RequestEnd {
        match self.serve().await {
            Ok(never) => match never {},
            Err(RequestEnd::Stopped) => self.ignore().await,
            Err(end) => end,
        }
    }

    async fn serve(&mut self) -> Result<Infallible, RequestEnd> {
        loop {
            let scan = self.scan();
            if let Scan::Foreign = scan {
                return Err(self.foreign().await);
            }
            if let Scan::Http2 = scan {
                return Err(self.http2().await);
            }
            self.flush().await?;
            match scan {
                Scan::Flush | Scan::Foreign | Scan::Http2 => {}
                Scan::More => self.more().await?,
                Scan::Room => {
                    let most = self.link.inner.settings.pipeline;
                    self.link
                        .until_client(|s| (s.opaque || s.awaited.len() < most).then_some(()))
                        .await?;
                }
                Scan::Stall => {
                    self.stall().await?;
                    self.stalled = false;
                }
                Scan::Beyond => {
                    let left = self
                        .link
                        .until_client(|s| (s.opaque || s.awaited.is_empty()).then_some(s.opaque))
                        .await?;
                    if !left {
                        return Err(RequestEnd::Stopped);
                    }
                }
                // Boxed: rare, and larger than all the rest.
                Scan::Take(request, max_body) => Box::pin(self.take(*request, max_body)).await?,
                Scan::Connect(authority) => self.connect(authority).await?,
                Scan::Refuse(status, message) => return Err(self.refuse(status, &message).await),
                Scan::Opaque => return Err(self.copy().await),
                Scan::Malformed => return Err(self.malformed_body().await),
            }
        }
    }

    fn explicit(&self) -> bool {
        self.link.from.destination.is_none()
    }

    /// Writes what is pending.
    async fn flush(&mut self) -> Result<(), RequestEnd> {
        if self.buffer.pending().is_empty() {
            return Ok(());
        }
        let upstream = match self.upstream().await? {
            Ok(upstream) => upstream,
            Err(failure) => return Err(self.unreachable(&failure).await),
        };
        self.send(&upstream, self.buffer.pending()).await?;
        self.buffer.written();
        if std::mem::take(&mut self.passes) {
            self.link.inner.counters.relay.add(self.came.elapsed());
        }
        Ok(())
    }

    /// Writes to the upstream, as long as the client stands.
    async fn send(&self, upstream: &TcpStream, bytes: &[u8]) -> Result<(), RequestEnd> {
        // A client that breaks the connection takes back what was not delivered yet: no patience.
        let sent = sock::pass(upstream, bytes, Some(self.link.client), Duration::ZERO).await;
        sent.map_err(|cut| match cut {
            Cut::Reader => RequestEnd::UpstreamBroke,
            Cut::Writer => RequestEnd::ClientBroke,
        })
    }

    /// Waits for the answer on which it depends what the client says next. If it says nothing but that it ends, that is passed
    /// on.
    async fn stall(&mut self) -> Result<(), RequestEnd> {
        let answered = |state: &mut State| (state.opaque || state.awaited.is_empty()).then_some(());
        if !self.buffer.is_empty() {
            return self.link.until_client(answered).await;
        }
        let Self { link, buffer, .. } = self;
        let read = poll_fn(|context| match link.peek(answered) {
            Some(()) => Poll::Ready(None),
            None => buffer.poll_fill(link.client, context).map(Some),
        });
        match read.await {
            None => Ok(()),
            Some(Ok(0)) => Err(self.end().await),
            Some(Ok(_)) => self.link.until_client(answered).await,
            Some(Err(_)) => Err(RequestEnd::ClientBroke),
        }
    }

    /// The upstream connection, once it stands; or why it can't be had.
    ///
    /// # Errors
    /// The client has broken its own meanwhile.
    async fn upstream(&mut self) -> Result<Result<Arc<TcpStream>, Failure>, RequestEnd> {
        if let Some(upstream) = &self.upstream {
            return Ok(Ok(Arc::clone(upstream)));
        }
        if let Some(address) = self.link.from.destination {
            self.link.update(|state| {
                if matches!(state.upstream, Upstream::Shelved) {
                    state.upstream = Upstream::Wanted(Target::Address(address));
                }
            });
        }
        // What a program has said is for its service, even if it has gone. One that has said nothing wants nothing any more: where
        // nothing is captured its connect(2) would have ended with it.
        let silent = matches!(self.phase, Phase::Detect) && self.buffer.is_empty();
        let Link { client, from, .. } = *self.link;
        let gone = async {
            match silent {
                true => Box::pin(orphan::closed(client, &from.via)).await,
                false => pending().await,
            }
        };
        let connected = self.link.until_client(|state| match &state.upstream {
            Upstream::Ready(upstream) => Some(Ok(Arc::clone(upstream))),
            Upstream::Failed(failure) => Some(Err(failure.clone())),
            Upstream::None | Upstream::Shelved => Some(Err(Failure::nowhere())),
            Upstream::Wanted(_) | Upstream::Dialling => None,
        });
        let upstream = tokio::select! {
            biased;
            connected = connected => connected?,
            () = gone => return Err(RequestEnd::ClientBroke),
        };
        if let Ok(upstream) = &upstream {
            self.upstream = Some(Arc::clone(upstream));
        }
        Ok(upstream)
    }

    /// Reads on, and sees to what a read can bring but bytes.
    async fn more(&mut self) -> Result<(), RequestEnd> {
        let read = self.read().await;
        self.came = Instant::now();
        match read {
            Read::Some | Read::Opaque => Ok(()),
            Read::Broken => Err(RequestEnd::ClientBroke),
            Read::Drained => Err(RequestEnd::Idle),
            Read::End => Err(self.end().await),
            Read::Late => self.late().await,
        }
    }

    async fn read(&mut self) -> Read {
        let Self {
            link,
            buffer,
            phase,
            late,
            acknowledging,
            ..
        } = self;
        acknowledging.came();
        let settings = &link.inner.settings;
        let in_body = matches!(phase, Phase::Body(_));
        let detecting = matches!(phase, Phase::Detect);
        let was_empty = buffer.is_empty();
        let read = poll_fn(|context| {
            let (opaque, failed, idle, closing) = link.peek(|state| {
                let opaque = state.opaque && !in_body;
                (opaque, state.failed(), state.idle(), state.closing)
            });
            if opaque {
                return Poll::Ready(Read::Opaque);
            }
            if let Poll::Ready(result) = buffer.poll_fill(link.client, context) {
                return Poll::Ready(match result {
                    Ok(0) => Read::End,
                    Ok(_) => Read::Some,
                    Err(_) => Read::Broken,
                });
            }
            if in_body {
                acknowledging.poll(link.client, context);
                return Poll::Pending;
            }
            let draining = link.phase() != Life::Running;
            // The client knows: it has heard so with the last response.
            if idle && buffer.is_empty() && draining && closing {
                return Poll::Ready(Read::Drained);
            }
            let limit = match (detecting, buffer.is_empty()) {
                (true, false) => settings.detect_timeout,
                (false, false) => settings.head_timeout,
                // The service can't be reached; the client may still ask for a saga.
                (_, true) if failed => settings.detect_timeout,
                // A request may be on its way, and would be lost: the first of a new connection, or of a client in the middle of
                // many, which hears with its answer that it is the last.
                (_, true) if draining && idle => settings.detect_timeout,
                (_, true) => return Poll::Pending,
            };
            let late = late.get_or_insert_with(|| Box::pin(sleep(limit)));
            late.as_mut().poll(context).map(|()| Read::Late)
        })
        .await;
        if matches!(read, Read::Some) {
            if was_empty {
                *late = None; // it was for the silence
            }
            if detecting {
                link.peek(|state| state.spoke = true);
            }
        }
        read
    }

    /// Time is up.
    async fn late(&mut self) -> Result<(), RequestEnd> {
        let silent = self.buffer.is_empty() && !self.link.peek(|state| state.failed());
        if silent && self.link.phase() != Life::Running {
            return Err(RequestEnd::Idle);
        }
        let head = matches!(self.phase, Phase::Head { .. }) && !self.buffer.is_empty();
        if head || self.explicit() {
            return Err(self.refuse(408, "the request's head did not come in time").await);
        }
        if self.link.peek(|state| state.failed()) {
            return Err(RequestEnd::Unreachable);
        }
        if self.buffer.is_empty()
            && self.link.phase() != Life::Running
            && self.link.peek(|state| state.idle())
        {
            return Err(RequestEnd::Idle);
        }
        self.link.inner.counters.undecided.add();
        tracing::info!(
            peer = %self.link.from.peer,
            destination = ?self.link.from.destination,
            bytes = self.buffer.fresh().len(),
            "undecided whether this is HTTP: copied through"
        );
        self.link.go_opaque();
        Ok(())
    }

    /// Reads bytes of a body that is not passed on as it comes, or bytes of which nothing is known.
    async fn read_bytes(&mut self) -> io::Result<usize> {
        let Self { link, buffer, .. } = self;
        poll_fn(|context| buffer.poll_fill(link.client, context)).await
    }

    /// Passes the client's FIN on, and before it what it left half said.
    async fn end(&mut self) -> RequestEnd {
        let unused = |state: &mut State| matches!(state.upstream, Upstream::None | Upstream::Shelved);
        if self.link.peek(unused) {
            return RequestEnd::Idle;
        }
        if matches!(self.phase, Phase::Detect) && !self.buffer.is_empty() {
            self.link.inner.counters.undecided.add();
        }
        match self.copied().await {
            Ok(upstream) => {
                sock::finish(&upstream);
                RequestEnd::Finished
            }
            Err(end) => end,
        }
    }

    /// Copies what the buffer holds, whatever it is. The upstream.
    async fn copied(&mut self) -> Result<Arc<TcpStream>, RequestEnd> {
        self.buffer.scan(usize::MAX);
        let Ok(upstream) = self.upstream().await? else {
            return Err(RequestEnd::Unreachable);
        };
        self.send(&upstream, self.buffer.pending()).await?;
        self.buffer.written();
        Ok(upstream)
    }

    /// Drops what the client says, but its end, until the upstream has ended.
    async fn ignore(&mut self) -> RequestEnd {
        loop {
            self.buffer.scan(usize::MAX);
            self.buffer.written();
            let Self { link, buffer, .. } = self;
            let read = poll_fn(|context| match link.peek(|state| state.upstream_ended) {
                true => Poll::Ready(None),
                false => buffer.poll_fill(link.client, context).map(Some),
            });
            match read.await {
                Some(Ok(0)) => return self.end().await,
                Some(Ok(_)) => {}
                Some(Err(_)) => return RequestEnd::ClientBroke,
                None => return RequestEnd::Stopped,
            }
        }
    }

    /// Leaves the connection to [`http2`](super::http2).
    async fn http2(&mut self) -> RequestEnd {
        if self.explicit() {
            self.link.inner.counters.errors.malformed.add();
            let answer = super::http2::http_1_1_required();
            return match sock::write_all(self.link.client, &answer).await {
                Ok(()) => RequestEnd::Answered { broken: false },
                Err(_) => RequestEnd::ClientBroke,
            };
        }
        let buffer = std::mem::replace(&mut self.buffer, Buffer::new(0));
        let came = self.came;
        self.link.update(|state| state.http2 = Some((buffer, came)));
        // Why there is none is told there.
        match self.upstream().await {
            Ok(_) => RequestEnd::Http2,
            Err(end) => end,
        }
    }

    async fn foreign(&mut self) -> RequestEnd {
        if self.explicit() {
            self.link.inner.counters.errors.malformed.add();
            return self.refuse(400, "this is no HTTP/1 request").await;
        }
        if self.link.go_opaque() {
            self.link.inner.counters.opaque.add();
        }
        self.copy().await
    }

    /// Copies bytes to the end.
    async fn copy(&mut self) -> RequestEnd {
        // In explicit mode what follows could be meant for any other place.
        if self.explicit() && !self.link.peek(|state| state.tunnel) {
            return RequestEnd::Stopped;
        }
        sock::inline_urgent(self.link.client);
        self.buffer.marked();
        loop {
            let upstream = match self.copied().await {
                Ok(upstream) => upstream,
                Err(end) => return end,
            };
            match self.read_bytes().await {
                Ok(0) => {
                    sock::finish(&upstream);
                    return RequestEnd::Finished;
                }
                Ok(_) => {}
                Err(_) => return RequestEnd::ClientBroke,
            }
        }
    }
}
