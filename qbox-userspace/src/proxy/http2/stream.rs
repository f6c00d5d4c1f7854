//! One stream as a relay knows it. Knows no frames.

use super::super::Listener;
use super::hpack::Fields;
use super::own::{Late, Reply};
use bytes::Bytes;
use tokio::time::Instant;

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// Its number with the service; 0: the service knows nothing of it.
    pub(super) up: u32,
    /// The client has said all.
    pub(super) client_done: bool,
    /// The service has, or Qbox in its place.
    pub(super) server_done: bool,
    /// Bytes of the request's body that are to come by its content-length.
    pub(super) length: Option<u64>,
    /// It was HEAD.
    pub(super) head: bool,
    /// What the client takes on it of what Qbox itself sends.
    pub(super) window: i64,
    /// Somebody wants to hear the service's status.
    pub(super) listener: Option<Listener>,
    pub(super) state: State,
}

/// Whose it is.
#[derive(Debug)]
pub(super) enum State {
    /// The service's.
    Passed,
    /// The service's, but its request was read before; what was read goes out as the service takes it.
    Late(Box<Late>),
    /// Qbox's: the request is being read.
    Reading(Box<Reading>),
    /// Qbox's: the handler has it.
    Handling(Box<Held>),
    /// Qbox's: it is being answered.
    Replying(Box<Reply>),
}

/// A request that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    pub(super) max_body: usize,
    /// It passes in any case.
    pub(super) look: bool,
    /// The client waits for 100 before it sends the body.
    pub(super) expects: bool,
    /// When it is too late for more.
    pub(super) until: Instant,
}

/// A request that was read.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) fields: Fields,
    pub(super) body: Bytes,
}

impl Stream {
    /// Bytes of a body that are kept.
    pub(super) fn kept(&self) -> usize {
        match &self.state {
            State::Reading(reading) => reading.body.len(),
            State::Handling(held) => held.body.len(),
            State::Late(late) => late.left.len(),
            State::Passed | State::Replying(_) => 0,
        }
    }
}
