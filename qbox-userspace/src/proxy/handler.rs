//! What the proxy asks of whoever stands above it. The proxy relays; the handler may take a request for itself.

use super::Listener;
use crate::upstream::Via;
use bytes::Bytes;
use smol_str::SmolStr;
use std::future::Future;
use std::net::SocketAddr;

/// The head of a request, borrowed from the connection's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// As sent: `POST`.
    pub method: &'a str,
    /// The request target as sent: `/trips/7?x=1`, or absolute-form; without a fragment, which means nothing there.
    pub target: &'a str,
    /// The fields in order, names as sent.
    pub headers: &'a [httparse::Header<'a>],
}

/// What a handler says of a head alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No trigger could match: pass it on, body and all, as it comes.
    Pass,
    /// A trigger matches or could, depending on the body: read the body up to `max_body` bytes (more: 413, nothing is
    /// sent anywhere), then ask [`Handler::handle`].
    Take {
        /// Bytes.
        max_body: usize,
    },
    /// It will pass, but [`Handler::handle`] is to see it before, body and all. What can't be shown to it (a body that
    /// is longer, or has a second transfer coding) passes unseen.
    Look {
        /// Bytes.
        max_body: usize,
    },
}

/// A request that was taken, whole.
#[derive(Clone, Debug)]
pub struct Taken {
    /// As sent.
    pub method: String,
    /// As sent.
    pub target: String,
    /// The fields in order, names as sent, those that frame the body among them.
    pub headers: Vec<(SmolStr, Bytes)>,
    /// The body, its transfer coding taken off.
    pub body: Bytes,
    /// From where the connection came: to forward from the pod's own namespace.
    pub via: Via,
    /// Where the connection was going; `None` in explicit mode.
    pub destination: Option<SocketAddr>,
    /// It came over HTTP/2. (Its fields are as HTTP/1's would be: the authority is `host`.)
    pub http2: bool,
}

/// A handler's answer.
#[derive(Debug)]
pub enum Handled {
    /// Write this to the client.
    Reply(Reply),
    /// Pass the very bytes on. Somebody may want to hear what they are answered.
    Pass(Option<Listener>),
}

/// A response for the client; the proxy adds the framing (`Content-Length`, `Connection`) and `Date`.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    /// Fields in order, without framing.
    pub headers: Vec<(SmolStr, Bytes)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A problem (RFC 9457, 3) of no type of its own.
    #[must_use]
    pub fn problem(status: u16, title: Option<&str>, detail: &str) -> Self {
        let body =
            serde_json::json!({ "type": "about:blank", "status": status, "title": title, "detail": detail });
        let kind = Bytes::from_static(b"application/problem+json");
        Self {
            status,
            headers: vec![("Content-Type".into(), kind)],
            body: Bytes::from(body.to_string()),
        }
    }
}

/// Who decides which requests are taken.
pub trait Handler: Send + Sync + 'static {
    /// Looks at a head. Called for every request: it should allocate nothing.
    fn inspect(&self, head: Head<'_>) -> Verdict;

    /// Whether it may want to hear what requests are answered that go there. Where it may, responses of HTTP/2 are read from their
    /// connection's first one on, since each can depend on all before it; where it may not, nothing is read of them, and
    /// a [`Listener`] may hear [`Heard::Unreadable`](super::Heard::Unreadable).
    fn listens(&self, destination: Option<SocketAddr>) -> bool;

    /// Answers a request that was taken. The caller going away does not cancel what it started.
    fn handle(&self, request: Taken) -> impl Future<Output = Handled> + Send;
}
