//! One client connection and its upstream: what the two directions share, and how they run and end together.
//!
//! Each direction is a future of its own, both polled by one task. They share [`State`] behind a lock that is never held
//! over an await; whoever changes it sets a flag, and the task polls both again. No wakers, no channels.
//! Errors end as counters and as what the peers see: FIN for FIN, RST for RST.

use super::buffer::Buffer;
use super::explicit::Authority;
use super::head;
use super::inner::{Inner, Phase};
use super::listener::Listener;
use super::request::{RequestEnd, RequestSide};
use super::response::{ResponseEnd, ResponseSide};
use super::{Handler, Origin, http2, sock};
use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A response that the client waits for, in the order of the requests (RFC 9112, 9.3.2).
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// Answers HEAD: no body.
    pub(super) head: bool,
    /// Answers CONNECT: a 2xx opens a tunnel.
    pub(super) connect: bool,
    /// Answers a request to leave HTTP/1: what the client sends next depends on it.
    pub(super) leaves: bool,
    /// We have sent `100 Continue` ourselves: the upstream's is one too many.
    pub(super) swallow_continue: bool,
    /// Somebody wants to hear its status.
    pub(super) listener: Option<Listener>,
}

impl Awaited {
    /// The response to `request`; `continued`: we have sent `100 Continue` ourselves.
    pub(super) fn to(request: &head::Request, continued: bool) -> Self {
        Self {
            head: request.head,
            connect: request.connect,
            leaves: request.upgrade || request.connect,
            swallow_continue: continued,
            listener: None,
        }
    }
}

/// Where the upstream connection stands.
#[derive(Clone, Debug)]
pub(super) enum Upstream {
    /// No request has named a place yet (explicit mode).
    None,
    /// To be connected.
    Wanted(Target),
    /// Being connected.
    Dialling,
    /// Connected.
    Ready(Arc<TcpStream>),
    /// Could not be connected.
    Failed(Failure),
    /// Not needed for now: see [`State::shelve`].
    Shelved,
}

/// Why there is no upstream.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// What an HTTP request that needs it is answered with.
    pub(super) status: u16,
    /// The place and the cause.
    pub(super) cause: Arc<str>,
}

impl Failure {
    /// No request has named a place.
    pub(super) fn nowhere() -> Self {
        Self {
            status: 502,
            cause: Arc::from("no destination"),
        }
    }
}

/// What to connect to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// The original destination.
    Address(SocketAddr),
    /// What a request names.
    Named(Authority),
}

/// What both directions see.
#[derive(Debug)]
pub(super) struct State {
    /// Responses that are due.
    pub(super) awaited: VecDeque<Awaited>,
    /// The upstream connection.
    pub(super) upstream: Upstream,
    /// Leave the present upstream: there will be another one, or none.
    pub(super) redial: bool,
    /// The client has sent something.
    pub(super) spoke: bool,
    /// Bytes are copied from here on, nothing is read from them.
    pub(super) opaque: bool,
    /// Opaque since both ends agreed to leave HTTP/1.
    pub(super) tunnel: bool,
    /// The request side owns the client's ear: once nothing is awaited, nothing of the upstream's goes out.
    pub(super) taking: bool,
    /// A response has said that the connection ends with it.
    pub(super) closing: bool,
    /// The responses can't be followed any more: they are copied. Requests are still read, since one that the handler
    /// takes must not pass.
    pub(super) lost: bool,
    /// The upstream has ended the connection, in either way.
    pub(super) upstream_ended: bool,
    /// The upstream has said something that nothing it was sent asks for, and it waits to be passed on.
    pub(super) unasked: bool,
    /// A part of the first awaited response is with the client.
    pub(super) started: bool,
    /// The request side ends the connection: nothing of the upstream's goes out.
    pub(super) aborting: bool,
    /// The client speaks HTTP/2: what it has said, and when. Both sides leave the connection to [`http2`].
    pub(super) http2: Option<(Buffer, Instant)>,
    /// What the upstream has said, left for [`http2`].
    pub(super) unread: Option<Buffer>,
}

impl State {
    fn new(upstream: Upstream) -> Self {
        Self {
            awaited: VecDeque::new(),
            upstream,
            redial: false,
            spoke: false,
            opaque: false,
            tunnel: false,
            taking: false,
            closing: false,
            lost: false,
            upstream_ended: false,
            unasked: false,
            started: false,
            aborting: false,
            http2: None,
            unread: None,
        }
    }

    /// The upstream's bytes wait.
    pub(super) fn held(&self) -> bool {
        self.aborting || (self.taking && self.awaited.is_empty())
    }

    /// Nothing is under way.
    pub(super) fn idle(&self) -> bool {
        self.awaited.is_empty() && (self.upstream_ended || !(self.lost || self.opaque))
    }

    /// The responses can't be followed any more. Says whether that is new.
    pub(super) fn lose(&mut self) -> bool {
        if self.opaque || self.lost {
            return false;
        }
        // Has the client left HTTP/1, too? Then its bytes can't be followed either.
        if self.awaited.iter().any(|awaited| awaited.leaves) {
            self.opaque = true;
        } else {
            self.lost = true;
        }
        self.awaited.clear();
        true
    }

    /// Gives an upstream back that nothing was sent to, while a request is taken. A service that serves one connection
    /// at a time would wait for that request's first byte, and be deaf to the very saga that the request starts.
    pub(super) fn shelve(&mut self) {
        if !matches!(self.upstream, Upstream::None) {
            self.redial = matches!(self.upstream, Upstream::Ready(_));
            self.upstream = Upstream::Shelved;
        }
    }

    /// The upstream, if it is connected.
    pub(super) fn ready(&self) -> Option<Arc<TcpStream>> {
        match &self.upstream {
            Upstream::Ready(upstream) => Some(Arc::clone(upstream)),
            _ => None,
        }
    }

    /// The upstream could not be connected.
    pub(super) fn failed(&self) -> bool {
        matches!(self.upstream, Upstream::Failed(_))
    }
}

/// What both directions hold.
#[derive(Debug)]
pub(super) struct Link<'a, H> {
    pub(super) inner: &'a Inner<H>,
    pub(super) from: &'a Origin,
    pub(super) client: &'a TcpStream,
    state: Mutex<State>,
    changed: AtomicBool,
}

impl<H> Link<'_, H> {
    /// Where it is in its life.
    pub(super) fn phase(&self) -> Phase {
        self.inner.phase_of(&self.from.left)
    }

    /// Looks at the state, or changes what only the caller's own side reads.
    pub(super) fn peek<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state, and has the other direction look at it.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = self.peek(change);
        self.changed.store(true, Ordering::Relaxed);
        result
    }

    /// Waits until the other direction has brought about what is asked for.
    pub(super) async fn until<R>(&self, mut ready: impl FnMut(&mut State) -> Option<R>) -> R {
        poll_fn(|_| match self.peek(&mut ready) {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        })
        .await
    }

    /// As [`Link::until`], for the request side, which does not read the client meanwhile. The client breaking the connection
    /// is heard all the same.
    pub(super) async fn until_client<R>(
        &self,
        mut ready: impl FnMut(&mut State) -> Option<R>,
    ) -> Result<R, RequestEnd> {
        let mut broken = pin!(sock::broken(self.client));
        poll_fn(|context| match self.peek(&mut ready) {
            Some(result) => Poll::Ready(Ok(result)),
            None => {
                let broken = broken.as_mut().poll(context);
                broken.map(|()| Err(RequestEnd::ClientBroke))
            }
        })
        .await
    }

    /// Notes a response that becomes due.
    pub(super) fn await_response(&self, awaited: Awaited) {
        let leaves = awaited.leaves;
        let lost = self.peek(|state| {
            if !state.lost {
                state.awaited.push_back(awaited);
            }
            state.lost
        });
        if lost && leaves {
            self.go_opaque();
        }
    }

    /// From here on bytes are copied. Says whether that is new.
    pub(super) fn go_opaque(&self) -> bool {
        self.update(|state| !std::mem::replace(&mut state.opaque, true))
    }
}

/// How a connection ended.
enum End {
    /// The request side decided.
    Request(RequestEnd),
    /// The response side decided.
    Response(ResponseEnd),
    /// Both directions came to their end; how the request side did.
    Both(RequestEnd),
    /// The drain's deadline.
    Aborted,
    /// The client speaks HTTP/2.
    Http2,
}

/// Serves the connection to its end.
pub(super) async fn run<H: Handler>(inner: &Inner<H>, open: u64, client: TcpStream, from: &Origin) {
    let upstream = match from.destination {
        Some(address) => Upstream::Wanted(Target::Address(address)),
        None => Upstream::None,
    };
    let link = Link {
        inner,
        from,
        client: &client,
        state: Mutex::new(State::new(upstream)),
        changed: AtomicBool::new(false),
    };
    let mut end = both(&link, open).await;
    if let End::Http2 = end {
        // Boxed: it is larger than all the rest.
        end = Box::pin(serve_http2(&link, open)).await;
    }
    let upstream = link.peek(|state| state.ready());
    let reset_upstream = || {
        if let Some(upstream) = &upstream {
            sock::reset_on_close(upstream);
        }
    };
    let errors = &inner.counters.errors;
    match end {
        End::Both(RequestEnd::Finished) | End::Request(RequestEnd::Idle) => {}
        End::Both(RequestEnd::Stopped) | End::Request(RequestEnd::Answered { broken: false }) => {
            sock::linger(&client).await;
        }
        End::Request(RequestEnd::Answered { broken: true }) => {
            reset_upstream();
            sock::linger(&client).await;
        }
        End::Request(RequestEnd::ClientBroke) => {
            errors.client.add();
            reset_upstream();
        }
        End::Response(ResponseEnd::ClientBroke) => {
            errors.client.add();
            reset_upstream();
            sock::reset_on_close(&client);
        }
        End::Response(_) | End::Both(RequestEnd::UpstreamBroke) => {
            errors.upstream.add();
            sock::reset_on_close(&client);
        }
        End::Request(RequestEnd::Unreachable) => sock::reset_on_close(&client),
        End::Request(_) | End::Both(_) | End::Http2 => {
            reset_upstream();
            sock::reset_on_close(&client);
        }
        End::Aborted => {
            errors.aborted.add();
            reset_upstream();
            sock::reset_on_close(&client);
        }
    }
}

/// Serves an HTTP/2 connection to its end.
async fn serve_http2<H: Handler>(link: &Link<'_, H>, open: u64) -> End {
    let head = link.inner.settings.head;
    let (upstream, from_client, from_upstream) = link.peek(|state| {
        let upstream = match &state.upstream {
            Upstream::Ready(upstream) => Ok(Arc::clone(upstream)),
            Upstream::Failed(failure) => Err(failure.clone()),
            _ => Err(Failure::nowhere()),
        };
        (upstream, state.http2.take(), state.unread.take())
    });
    let (from_client, came) = from_client.unwrap_or_else(|| (Buffer::new(head), Instant::now()));
    let begun = http2::Begun {
        client: link.client,
        upstream,
        from_client,
        came,
        from_upstream: from_upstream.unwrap_or_else(|| Buffer::new(head)),
    };
    match http2::run(link.inner, open, link.from, begun).await {
        http2::End::Finished => End::Both(RequestEnd::Finished),
        http2::End::Left => End::Request(RequestEnd::Answered { broken: false }),
        http2::End::Refused => End::Request(RequestEnd::Answered { broken: true }),
        http2::End::ClientBroke => End::Request(RequestEnd::ClientBroke),
        http2::End::UpstreamBroke => End::Response(ResponseEnd::UpstreamBroke),
        http2::End::Aborted => End::Aborted,
    }
}

/// Polls both directions until the connection is over.
async fn both<H: Handler>(link: &Link<'_, H>, open: u64) -> End {
    let head = link.inner.settings.head;
    let mut request = pin!(RequestSide::new(link, Buffer::new(head)).run());
    let mut response = pin!(ResponseSide::new(link, Buffer::new(head)).run());
    // Which end nobody reads from any more, since it has finished, may still break.
    let mut client_breaks = pin!(sock::broken(link.client));
    let mut upstream_breaks = pin!(async {
        match link.peek(|state| state.ready()) {
            Some(upstream) => sock::broken(&upstream).await,
            None => pending().await,
        }
    });
    let mut watched: Option<Waker> = None;
    let (mut request_end, mut response_end) = (None, None);
    poll_fn(|context| {
        if !watched
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            link.inner.set_waker(open, context.waker());
            watched = Some(context.waker().clone());
        }
        loop {
            if link.phase() == Phase::Aborting {
                return Poll::Ready(End::Aborted);
            }
            if request_end.is_none()
                && let Poll::Ready(end) = request.as_mut().poll(context)
            {
                if end.at_once() {
                    return Poll::Ready(End::Request(end));
                }
                request_end = Some(end);
            }
            if response_end.is_none()
                && let Poll::Ready(end) = response.as_mut().poll(context)
            {
                if !matches!(end, ResponseEnd::Finished | ResponseEnd::Left) {
                    return Poll::Ready(End::Response(end));
                }
                response_end = Some(end);
            }
            if request_end == Some(RequestEnd::Http2)
                && (response_end.is_some() || link.peek(|state| state.failed()))
            {
                return Poll::Ready(End::Http2);
            }
            if let (Some(end), Some(_)) = (request_end, response_end) {
                return Poll::Ready(End::Both(end));
            }
            if !link.changed.swap(false, Ordering::Relaxed) {
                break;
            }
        }
        let deaf = matches!(
            request_end,
            Some(RequestEnd::Finished | RequestEnd::UpstreamBroke)
        );
        if deaf && client_breaks.as_mut().poll(context).is_ready() {
            return Poll::Ready(End::Request(RequestEnd::ClientBroke));
        }
        let deaf = response_end == Some(ResponseEnd::Finished);
        if deaf && upstream_breaks.as_mut().poll(context).is_ready() {
            return Poll::Ready(End::Response(ResponseEnd::UpstreamBroke));
        }
        Poll::Pending
    })
    .await
}
