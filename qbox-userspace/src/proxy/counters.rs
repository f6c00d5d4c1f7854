//! What the proxy counts. Relaxed atomics: each number is right, no two are of the same instant.

use crate::durations::Tally;
use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Since the proxy was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were served.
    pub connections: Counter,
    /// Connections closed at once, since as many as allowed were open.
    pub over_limit: Counter,
    /// Requests passed on.
    pub passed: Counter,
    /// Requests passed on, of these, that the handler was to look at before and could not be shown: their body is too long, is coded,
    /// or did not come.
    pub unseen: Counter,
    /// Requests answered by the handler.
    pub taken: Counter,
    /// Connections of HTTP/2 with prior knowledge.
    pub http2: Counter,
    /// Connections copied through: TLS, another protocol, or the server spoke first.
    pub opaque: Counter,
    /// Connections copied through since their first line did not come in time, or their client's end came before the line's. Some
    /// might have been HTTP.
    pub undecided: Counter,
    /// Connections that left HTTP/1 by an upgrade or CONNECT.
    pub tunnels: Counter,
    /// From when a request's head was read to when it was written on, of those passed.
    pub relay: Tally,
    /// The errors.
    pub errors: Errors,
}

/// What went wrong, by kind.
#[derive(Debug, Default)]
pub struct Errors {
    /// The original destination (or, in explicit mode, the one that a request names) could not be reached.
    pub dial: Counter,
    /// 400: a head or body that two readers could take for different messages.
    pub malformed: Counter,
    /// 431 or 414: the head is too long.
    pub head_too_large: Counter,
    /// 413: the body of a request that would have been taken is too long.
    pub body_too_large: Counter,
    /// A response that can't be framed, or one that no request asked for. It was passed on; a trigger that followed on
    /// the same connection would have been answered with a reset.
    pub response: Counter,
    /// Streams of HTTP/2 that were refused, since as many as allowed were open on their connection.
    pub streams: Counter,
    /// The client broke the connection.
    pub client: Counter,
    /// The upstream broke the connection.
    pub upstream: Counter,
    /// Ended by the drain's deadline.
    pub aborted: Counter,
}
