//! From the upstream to the client: connects, follows the responses' framing, passes the very bytes on.
//!
//! It reads responses only to know when each is over. What it can't read it still passes on, as bytes; a request
//! that the handler would take then ends the connection. Errors end as [`ResponseEnd`].

use super::buffer::Buffer;
use super::connection::{Failure, Link, State, Target, Upstream};
use super::explicit::leads_to;
use super::framing::Body;
use super::head::{self, End};
use super::inner::Phase as Life;
use super::sock::{Acknowledging, Cut};
use super::{Handler, Heard, http2, sock};
use crate::upstream::{dial, resolve};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a client may take nothing of what a service has sent that has then broken its connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// What a drain puts into the last response's head, before its own fields: some clients look at the first of a name alone.
const CLOSE: &[u8] = b"Connection: close\r\n";

/// A named place that no request is sent to.
#[derive(Debug, thiserror::Error)]
enum Closed {
    /// The listener itself.
    #[error("this is where the request came in")]
    Loop,
    /// [`Settings::private`](super::Settings::private).
    #[error("requests from elsewhere are not let in there")]
    Private,
}

impl Closed {
    fn status(&self) -> u16 {
        match self {
            Self::Loop => 508, // RFC 5842, 7.2.
            Self::Private => 403,
        }
    }
}

/// How this direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseEnd {
    /// The upstream's FIN was passed on.
    Finished,
    /// The upstream broke the connection.
    UpstreamBroke,
    /// The client takes no more bytes.
    ClientBroke,
    /// The connection is HTTP/2's.
    Left,
}

impl From<Cut> for ResponseEnd {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Reader => Self::ClientBroke,
            Cut::Writer => Self::UpstreamBroke,
        }
    }
}

/// What comes next in the upstream's bytes.
#[derive(Debug)]
enum Phase {
    /// A head; no empty line before this fresh byte.
    Head { searched: usize },
    /// A body.
    Body(Body),
}

/// What the scan of the buffer came to.
enum Scan {
    /// More bytes are needed.
    More,
    /// The client is the request side's.
    Hold,
    /// The next bytes, so many, are not for the client.
    Swallow(usize),
    /// The drain's own field goes here, before the head's other bytes, so many.
    Close(usize),
    /// Both ends leave HTTP/1.
    Tunnel,
    /// A response that nobody asked for.
    Unasked,
    /// No response that we could follow.
    Unreadable,
    /// Opaque already.
    Opaque,
}

enum Read {
    Some,
    End,
    Broken,
    Redial,
    Left,
}

/// The direction's own state.
#[derive(Debug)]
pub(super) struct ResponseSide<'a, H> {
    link: &'a Link<'a, H>,
    buffer: Buffer,
    phase: Phase,
    /// An end that might have spoken HTTP/2 first was waited for.
    waited: bool,
    /// What is copied may have urgent data in it.
    marked: bool,
    acknowledging: Acknowledging,
}

impl<'a, H: Handler> ResponseSide<'a, H> {
    pub(super) fn new(link: &'a Link<'a, H>, buffer: Buffer) -> Self {
        Self {
            link,
            buffer,
            phase: Phase::Head { searched: 0 },
            waited: false,
            marked: false,
            acknowledging: Acknowledging::default(),
        }
    }

    /// Runs to the direction's end.
    pub(super) async fn run(mut self) -> ResponseEnd {
        loop {
            let target = self
                .link
                .until(|state| match &state.upstream {
                    Upstream::Wanted(target) => {
                        let target = target.clone();
                        state.upstream = Upstream::Dialling;
                        Some(target)
                    }
                    _ => None,
                })
                .await;
            let dialled = self.dial(target).await;
            if self
                .link
                .peek(|state| matches!(state.upstream, Upstream::Shelved))
            {
                continue;
            }
            match dialled {
                Ok(upstream) => {
                    let upstream = Arc::new(upstream);
                    self.link
                        .update(|state| state.upstream = Upstream::Ready(Arc::clone(&upstream)));
                    if let Some(end) = self.relay(&upstream).await {
                        return end;
                    }
                    self.phase = Phase::Head { searched: 0 };
                    self.buffer.scan(usize::MAX);
                    self.buffer.written();
                    self.link.peek(|state| state.unasked = false);
                }
                Err(failure) => {
                    self.link.inner.counters.errors.dial.add();
                    tracing::debug!(peer = %self.link.from.peer, cause = %failure.cause, "no upstream");
                    self.link
                        .update(|state| state.upstream = Upstream::Failed(failure));
                }
            }
        }
    }

    /// Connects; a failure names the place and the cause.
    async fn dial(&self, target: Target) -> Result<TcpStream, Failure> {
        let limit = self.link.inner.settings.connect_timeout;
        let place = match &target {
            Target::Address(address) => address.to_string(),
            Target::Named(authority) => authority.to_string(),
        };
        let connecting = async {
            match target {
                Target::Address(address) => dial(&self.link.from.via, address).await,
                Target::Named(authority) => {
                    let hosts = &self.link.inner.hosts;
                    self.first_of(resolve(hosts, &authority.host, authority.port).await?)
                        .await
                }
            }
        };
        let failure = |status, cause: &dyn std::fmt::Display| Failure {
            status,
            cause: format!("can't connect to {place}: {cause}").into(),
        };
        let stream = match timeout(limit, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let closed = error.get_ref().and_then(|cause| cause.downcast_ref::<Closed>());
                let status = match closed {
                    Some(closed) => closed.status(),
                    None if error.kind() == io::ErrorKind::TimedOut => 504,
                    None => 502,
                };
                return Err(failure(status, &error));
            }
            Err(_) => return Err(failure(504, &format_args!("no answer within {limit:?}"))),
        };
        // The client's own probes end here.
        sock::keep_alive(&stream);
        Ok(stream)
    }

    async fn first_of(&self, addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            if self.link.from.listens.is_some_and(|own| leads_to(own, address)) {
                last = io::Error::other(Closed::Loop);
                continue;
            }
            let private = self.link.inner.settings.private;
            if private.is_some_and(|private| leads_to(private, address)) {
                last = io::Error::other(Closed::Private);
                continue;
            }
            match dial(&self.link.from.via, address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Relays what this upstream sends. `None`: the request side has left it.
    async fn relay(&mut self, upstream: &TcpStream) -> Option<ResponseEnd> {
        loop {
            match self.read(upstream).await {
                Read::Some => match self.pass_on(upstream).await {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(cut) => return Some(cut.into()),
                },
                Read::End => return self.end(Some(upstream)).await,
                Read::Broken => return self.end(None).await,
                Read::Redial => return None,
                Read::Left => return Some(self.leave()),
            }
        }
    }

    /// Waits until the client may be written to. `false`: the request side has left this upstream.
    async fn released(&self) -> bool {
        let released = |state: &mut State| match std::mem::take(&mut state.redial) {
            true => Some(false),
            false => (!state.held()).then_some(true),
        };
        self.link.until(released).await
    }

    async fn read(&mut self, upstream: &TcpStream) -> Read {
        let Self {
            link,
            buffer,
            acknowledging,
            ..
        } = self;
        let in_body = matches!(self.phase, Phase::Body(_));
        acknowledging.came();
        poll_fn(|context| {
            if link.peek(|state| std::mem::take(&mut state.redial)) {
                return Poll::Ready(Read::Redial);
            }
            if link.peek(|state| state.http2.is_some()) {
                return Poll::Ready(Read::Left);
            }
            let filled = buffer.poll_fill(upstream, context);
            if in_body && filled.is_pending() {
                acknowledging.poll(upstream, context);
            }
            filled.map(|result| match result {
                Ok(0) => Read::End,
                Ok(_) => Read::Some,
                Err(_) => Read::Broken,
            })
        })
        .await
    }

    /// Passes on what the buffer holds, but for half a head. `false`: the request side has left this upstream.
    async fn pass_on(&mut self, upstream: &TcpStream) -> Result<bool, Cut> {
        let counters = &self.link.inner.counters;
        loop {
            let link = self.link;
            // The scan notes under the same lock that the client is about to get a part of a response.
            let (scan, done) = link.peek(|state| self.scan(state));
            self.deliver(Some(upstream)).await?;
            if done > 0 {
                let started = matches!(self.phase, Phase::Body(_));
                link.update(|state| {
                    state.awaited.drain(..done.min(state.awaited.len()));
                    state.started = started;
                });
            }
            match scan {
                Scan::More => return Ok(true),
                Scan::Hold => {
                    if !self.released().await {
                        return Ok(false);
                    }
                }
                Scan::Swallow(count) => self.buffer.skip(count),
                Scan::Close(rest) => {
                    sock::pass(link.client, CLOSE, Some(upstream), PATIENCE).await?;
                    self.buffer.scan(rest);
                }
                Scan::Tunnel => {
                    counters.tunnels.add();
                    link.update(|state| (state.opaque, state.tunnel) = (true, true));
                }
                Scan::Unasked if !self.waited && http2::begins_http2(self.buffer.fresh()) => {
                    self.waited = true;
                    if self.http2_follows().await {
                        return Ok(true);
                    }
                }
                Scan::Unasked if !link.peek(|state| state.spoke) => {
                    // The server speaks first: no HTTP.
                    if link.go_opaque() {
                        counters.opaque.add();
                    }
                }
                Scan::Unasked | Scan::Unreadable => {
                    if link.update(State::lose) {
                        counters.errors.response.add();
                    }
                }
                Scan::Opaque => {
                    if !std::mem::replace(&mut self.marked, true) {
                        sock::inline_urgent(upstream);
                        self.buffer.marked();
                    }
                    if self.buffer.fresh().is_empty() {
                        return Ok(true);
                    }
                    self.buffer.scan(usize::MAX);
                }
            }
        }
    }

    /// Writes what is pending, as long as the client takes some of it or the upstream stands.
    async fn deliver(&mut self, upstream: Option<&TcpStream>) -> Result<(), Cut> {
        sock::pass(self.link.client, self.buffer.pending(), upstream, PATIENCE).await?;
        self.buffer.written();
        Ok(())
    }

    /// A server of HTTP/2 need not wait for its client (RFC 9113, 3.4). Whether the client speaks HTTP/2, too?
    async fn http2_follows(&self) -> bool {
        let known = self.link.until(|state| {
            let other = state.opaque || state.taking || state.redial || !state.awaited.is_empty();
            (other || state.http2.is_some()).then_some(state.http2.is_some())
        });
        let limit = self.link.inner.settings.detect_timeout;
        timeout(limit, known).await.unwrap_or(false)
    }

    /// Leaves what was read to [`http2`].
    fn leave(&mut self) -> ResponseEnd {
        let buffer = std::mem::replace(&mut self.buffer, Buffer::new(0));
        self.link.update(|state| state.unread = Some(buffer));
        ResponseEnd::Left
    }

    /// Understands as much of the buffer as it can; says how many responses it saw the end of.
    fn scan(&mut self, state: &mut State) -> (Scan, usize) {
        if state.held() {
            state.unasked = true;
            return (Scan::Hold, 0);
        }
        state.unasked = false;
        if state.opaque || state.lost {
            self.buffer.scan(usize::MAX);
            return (Scan::Opaque, 0);
        }
        let mut done = 0;
        loop {
            match &mut self.phase {
                Phase::Body(body) => {
                    match body.advance(self.buffer.fresh(), |_| {}) {
                        Ok(count) => self.buffer.scan(count),
                        Err(_) => return (Scan::Unreadable, done),
                    }
                    if !body.is_done() {
                        return (Scan::More, done);
                    }
                    self.phase = Phase::Head { searched: 0 };
                    done += 1;
                }
                Phase::Head { searched } => {
                    let fresh = self.buffer.fresh();
                    if fresh.is_empty() {
                        return (Scan::More, done);
                    }
                    let Some(awaited) = state.awaited.get(done) else {
                        // Decided once what is done is written, and the request side has seen it.
                        let scan = match (state.taking, done) {
                            (true, _) => Scan::Hold,
                            (false, 0) => Scan::Unasked,
                            (false, _) => Scan::Swallow(0),
                        };
                        return (scan, done);
                    };
                    if !head::may_be_response(fresh) {
                        return (Scan::Unreadable, done);
                    }
                    let limit = self.link.inner.settings.head;
                    let end = match head::end(fresh, *searched) {
                        End::At(end) if end <= limit => end,
                        End::NotBefore(next) if fresh.len() <= limit => {
                            *searched = next;
                            return (Scan::More, done);
                        }
                        End::At(_) | End::NotBefore(_) => return (Scan::Unreadable, done),
                    };
                    let head = fresh.get(..end).unwrap_or_default();
                    let Ok(response) = head::response(head, awaited.head) else {
                        // Whatever else it says, it may say that nobody leaves HTTP.
                        let stays = head::refuses_to_leave(head, awaited.connect);
                        if let Some(awaited) = state.awaited.get_mut(done) {
                            awaited.leaves &= !stays;
                        }
                        return (Scan::Unreadable, done);
                    };
                    let tunnel =
                        response.status == 101 || (awaited.connect && (200..300).contains(&response.status));
                    let swallow = response.status == 100 && awaited.swallow_continue;
                    if swallow {
                        if let Some(awaited) = state.awaited.get_mut(done) {
                            awaited.swallow_continue = false;
                        }
                        self.phase = Phase::Head { searched: 0 };
                        return (Scan::Swallow(end), done);
                    }
                    // A client that has heard it sends no further request on this connection: else one might be on its way
                    // when the drain ends it (RFC 9112, 9.6).
                    let last = self.link.phase() != Life::Running
                        && (response.keep && !tunnel && response.status >= 200)
                        && (!state.taking && state.awaited.len() == done + 1);
                    let line = head.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
                    let line = line.filter(|_| last);
                    self.buffer.scan(line.unwrap_or(end));
                    if (tunnel || response.status >= 200)
                        && let Some(listener) = state.awaited.get_mut(done).and_then(|a| a.listener.take())
                    {
                        listener.hear(Heard::Status(response.status));
                    }
                    if tunnel {
                        return (Scan::Tunnel, done + 1);
                    }
                    if response.status < 200 {
                        self.phase = Phase::Head { searched: 0 };
                        continue;
                    }
                    if let Some(awaited) = state.awaited.get_mut(done) {
                        awaited.leaves = false;
                    }
                    if done == 0 {
                        state.started = true;
                    }
                    state.closing |= last || !response.keep;
                    self.phase = Phase::Body(response.body);
                    if let Some(line) = line {
                        return (Scan::Close(end.saturating_sub(line)), done);
                    }
                }
            }
        }
    }

    /// Passes the end of the upstream (`None`: it is broken) on, and before it what it left half said. `None`: the request
    /// side has left it.
    async fn end(&mut self, upstream: Option<&TcpStream>) -> Option<ResponseEnd> {
        self.link.update(|state| state.upstream_ended = true);
        if !self.released().await {
            self.link.update(|state| state.upstream_ended = false);
            return None;
        }
        self.buffer.scan(usize::MAX);
        if let Err(cut) = self.deliver(upstream).await {
            return Some(cut.into());
        }
        if upstream.is_none() {
            return Some(ResponseEnd::UpstreamBroke);
        }
        self.link.update(State::lose);
        sock::finish(self.link.client);
        Some(ResponseEnd::Finished)
    }
}
