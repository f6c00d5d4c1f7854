//! One HTTP/2 connection between its client and its service, without sockets: bytes come in, bytes to be written go out.
//!
//! It is no end of the connection. Frames pass as they came, so that windows, settings, pings, priorities, interim
//! responses, trailers, resets and GOAWAY are between client and service; responses are not even decoded, but where somebody may
//! want to hear their statuses ([`Responses`]). Only requests' fields are, to find the ones that the handler takes. For the streams of those Qbox is the server, and from then on
//!
//! - the service has not seen all blocks of fields, so requests that pass are written anew, in a form that needs no table;
//! - what Qbox sends to the client uses up a window that the service believes to be its own: [`Out::debt`];
//! - a request that is passed after all comes late, and gets a stream of its own with the service: [`Relay::shifted`].
//!
//! Memory is bounded: what waits to be written by [`HIGH`], streams and bodies by [`Limits`], a block by `Limits::head`.

use super::super::Counters;
use super::super::connection::Failure;
use super::super::handler::Taken;
use super::frame::{self, Code, Error, MAX_STREAM, flag, kind, setting};
use super::hpack::{self, Decoder, Fields};
use super::own::{Late, Own};
use super::responses::Responses;
use super::stream::Stream;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes that may wait to be written to one side before no more are taken from the other; what Qbox has to say itself
/// may double it.
pub(super) const HIGH: usize = 64 << 10;
/// Both ends' window for a whole connection, at first (RFC 9113, 6.9.2), and for a stream unless they say otherwise.
const WINDOW: i64 = 65_535;
/// Streams that the client has reset, on which the service may still say something.
const GONE: usize = 1024;
/// SETTINGS of the client that are not acknowledged.
const UNACKNOWLEDGED: usize = 64;
/// What Qbox's own ping says.
pub(super) const PING: &[u8; 8] = b"qboxping";

/// What one connection may ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of a request's fields.
    pub(super) head: usize,
    /// Streams that are open at once.
    pub(super) streams: usize,
    /// How often the longest body of a trigger is kept at once.
    pub(super) bodies: usize,
    /// How long more of a body may be waited for that the handler is to see; and, where an answer of Qbox's is due, for the
    /// service to begin.
    pub(super) wait: Duration,
    /// How long the client may take to hear that the connection is to end.
    pub(super) settle: Duration,
}

/// One side's incoming end: what waits to be written there, and what it takes.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) bytes: Vec<u8>,
    /// What Qbox has to say before the other side has begun: nothing may stand before its SETTINGS (RFC 9113, 3.4).
    early: Option<Vec<u8>>,
    /// DATA that it still takes on the whole connection.
    pub(super) window: i64,
    /// DATA that Qbox sent of its own accord: as much of what this side allows next is not passed on to the other side,
    /// which does not know of it. As long as there is any, DATA from the other side is held back if the window is too small.
    pub(super) debt: u64,
    /// What it takes on a new stream.
    pub(super) initial: i64,
}

impl Out {
    fn new(early: Option<Vec<u8>>) -> Self {
        Self {
            bytes: Vec::new(),
            early,
            window: WINDOW,
            debt: 0,
            initial: WINDOW,
        }
    }

    /// The other side may send more.
    pub(super) fn full(&self) -> bool {
        self.bytes.len() >= HIGH
    }

    /// Where Qbox's own frames go.
    pub(super) fn own(&mut self) -> &mut Vec<u8> {
        self.early.as_mut().unwrap_or(&mut self.bytes)
    }

    /// The other side has begun.
    pub(super) fn open(&mut self) {
        if let Some(early) = self.early.take() {
            self.bytes.extend_from_slice(&early);
        }
    }

    /// More than twice what may wait does.
    pub(super) fn overfull(&self) -> bool {
        self.bytes.len() + self.early.as_ref().map_or(0, Vec::len) >= 2 * HIGH
    }

    /// It takes more. Says how much of it the other side may know of.
    pub(super) fn credited(&mut self, bytes: u32) -> u32 {
        self.window += i64::from(bytes);
        repay(&mut self.debt, bytes)
    }
}

/// What is left of `bytes` once the debt is paid.
pub(super) fn repay(debt: &mut u64, bytes: u32) -> u32 {
    let paid = u32::try_from(*debt).unwrap_or(u32::MAX).min(bytes);
    *debt -= u64::from(paid);
    bytes - paid
}

/// A block of fields that is being put together.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: u8,
    pub(super) stream: u32,
    pub(super) flags: u8,
    pub(super) lead: Vec<u8>,
    pub(super) fields: Vec<u8>,
}

/// How far taking frames got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// As far as the bytes go; so many of them.
    All(usize),
    /// So many bytes; the rest has to wait until something else is done.
    Held(usize),
}

/// How the drain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// The client was told that GOAWAY will come.
    Told(Instant),
    /// GOAWAY was sent.
    Gone,
}

/// The connection.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    pub(super) counters: &'a Counters,
    pub(super) limits: Limits,
    pub(super) down: Out,
    /// `None`: there is no service, or none any more.
    pub(super) up: Option<Out>,
    /// Why.
    pub(super) failure: Option<Failure>,
    pub(super) streams: HashMap<u32, Stream>,
    /// The client's streams by the service's, once they differ.
    by_up: HashMap<u32, u32>,
    /// Streams have other identifiers with the service than with the client.
    pub(super) shifted: bool,
    gone: VecDeque<(u32, u32)>,
    pub(super) last_client: u32,
    pub(super) last_up: u32,
    pub(super) decoder: Decoder,
    pub(super) fields: Fields,
    /// The service's table is not what the client thinks. `Some(true)`: it has been told to keep none.
    pub(super) apart: Option<bool>,
    pub(super) client_block: Option<Block>,
    pub(super) upstream_block: Option<Block>,
    /// The client's first SETTINGS were there.
    pub(super) client_open: bool,
    /// The client has the server's first SETTINGS.
    pub(super) down_open: bool,
    /// What the service says is no HTTP/2: its bytes are copied.
    pub(super) raw: bool,
    /// Of the payload of the DATA frame that is next, so much has passed; up and down.
    pub(super) sent: [usize; 2],
    /// For each of the client's SETTINGS that are not acknowledged: the least table size.
    unacknowledged: VecDeque<Option<u32>>,
    /// The table size that holds at the client.
    table: u32,
    /// The client expects its next block to begin with this table size, or a smaller one (RFC 7541, 4.2).
    pub(super) shrunk: Option<u32>,
    /// GOAWAY told the client that streams above this one are not served.
    pub(super) serves: u32,
    leaving: Leaving,
    /// Requests' heads that pass and have not been counted yet.
    pub(super) passing: u32,
    /// The service should have begun by then.
    hello: Instant,
    pub(super) own: Own,
    pub(super) responses: Responses,
}

impl<'a> Relay<'a> {
    /// `failure`: there is no service.
    pub(super) fn new(
        counters: &'a Counters,
        limits: Limits,
        failure: Option<Failure>,
        responses: Responses,
    ) -> Self {
        let mut relay = Self {
            counters,
            limits,
            down: Out::new(Some(Vec::new())),
            up: None,
            failure: None,
            streams: HashMap::new(),
            by_up: HashMap::new(),
            shifted: false,
            gone: VecDeque::new(),
            last_client: 0,
            last_up: 0,
            decoder: Decoder::new(),
            fields: Fields::default(),
            apart: None,
            client_block: None,
            upstream_block: None,
            client_open: false,
            down_open: false,
            raw: false,
            sent: [0, 0],
            unacknowledged: VecDeque::new(),
            table: hpack::TABLE,
            shrunk: None,
            serves: MAX_STREAM,
            leaving: Leaving::No,
            passing: 0,
            hello: Instant::now() + limits.wait,
            own: Own::default(),
            responses,
        };
        match failure {
            None => {
                let mut up = Out::new(None);
                up.bytes.extend_from_slice(frame::PREFACE);
                relay.up = Some(up);
            }
            Some(failure) => {
                relay.failure = Some(failure);
                relay.open_alone();
            }
        }
        relay
    }

    /// The server's first SETTINGS, when there is no service to send them.
    fn open_alone(&mut self) {
        let count = |limit| u32::try_from(limit).unwrap_or(u32::MAX);
        let mut settings = Vec::new();
        frame::put_setting(
            &mut settings,
            setting::MAX_CONCURRENT_STREAMS,
            count(self.limits.streams),
        );
        frame::put_setting(
            &mut settings,
            setting::MAX_HEADER_LIST_SIZE,
            count(self.limits.head),
        );
        frame::put(&mut self.down.bytes, kind::SETTINGS, 0, 0, &settings);
        self.opened();
    }

    /// Both directions' frames are still followed, and Qbox may say something itself.
    pub(super) fn speaks(&self) -> bool {
        self.down_open && !self.raw
    }

    /// A stream's number with the service, for a request that passes now. `None`: there is none left.
    pub(super) fn assign(&mut self, stream: u32) -> Option<u32> {
        let up = if !self.shifted && stream > self.last_up {
            stream
        } else {
            if !self.shifted {
                self.shifted = true;
                let passed = self.streams.iter().filter(|(_, stream)| stream.up > 0);
                self.by_up = passed.map(|(id, stream)| (stream.up, *id)).collect();
            }
            self.last_up.checked_add(2).filter(|up| *up <= MAX_STREAM)?
        };
        if self.shifted {
            self.by_up.insert(up, stream);
        }
        self.last_up = up;
        Some(up)
    }

    /// The client's number of a stream of the service's that is open.
    pub(super) fn client_of(&self, up: u32) -> Option<u32> {
        if self.shifted {
            self.by_up.get(&up).copied()
        } else {
            let passed = |stream: &&Stream| stream.up == up;
            self.streams.get(&up).filter(passed).map(|_| up)
        }
    }

    /// The same of one that is over: what is said on it must still pass, since it may change the client's table.
    pub(super) fn client_of_gone(&self, up: u32) -> Option<u32> {
        if !self.shifted {
            return Some(up);
        }
        let found = self.gone.iter().find(|(gone, _)| *gone == up);
        found.map(|(_, client)| *client)
    }

    /// The stream is over.
    pub(super) fn close(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            self.own.forget(&stream);
            self.drop_late(&stream);
            if stream.up > 0 {
                self.by_up.remove(&stream.up);
                if !stream.server_done {
                    self.gone.push_back((stream.up, id));
                    if self.gone.len() > GONE {
                        self.gone.pop_front();
                    }
                }
            }
        }
    }

    /// The stream is over, if both ends have said all.
    pub(super) fn close_if_done(&mut self, id: u32) {
        if self
            .streams
            .get(&id)
            .is_some_and(|s| s.client_done && s.server_done)
        {
            self.close(id);
        }
    }

    /// Ends a stream as malformed on both sides (RFC 9113, 5.4.2 and 8.1.1).
    pub(super) fn stream_error(&mut self, id: u32, code: Code) {
        self.counters.errors.malformed.add();
        if let (Some(stream), Some(up)) = (self.streams.get(&id), &mut self.up)
            && stream.up > 0
        {
            frame::reset(&mut up.bytes, stream.up, code);
        }
        self.close(id);
        self.reset_client(id, code);
    }

    /// Tells the client alone.
    pub(super) fn reset_client(&mut self, id: u32, code: Code) {
        frame::reset(self.down.own(), id, code);
    }

    /// The client has sent SETTINGS that the service will acknowledge; `table`: the least size of a table in them.
    ///
    /// # Errors
    /// Too many are not acknowledged.
    pub(super) fn note_settings(&mut self, table: Option<u32>) -> Result<(), Error> {
        if self.unacknowledged.len() >= UNACKNOWLEDGED {
            return Err(Error::new(Code::EnhanceYourCalm, "too many SETTINGS"));
        }
        self.unacknowledged.push_back(table);
        Ok(())
    }

    /// The oldest of the client's SETTINGS are acknowledged to it.
    pub(super) fn acknowledged(&mut self) {
        if let Some(Some(table)) = self.unacknowledged.pop_front() {
            if table < self.table {
                self.shrunk = Some(self.shrunk.map_or(table, |least| least.min(table)));
            }
            self.table = table;
        }
    }

    /// Begins to end the connection: no new streams, once the client has heard of it.
    pub(super) fn leave(&mut self, now: Instant) {
        if self.leaving != Leaving::No {
            return;
        }
        self.leaving = Leaving::Told(now + self.limits.settle);
        if self.speaks() && self.serves == MAX_STREAM {
            let out = &mut self.down.bytes;
            frame::goaway(out, MAX_STREAM, Code::No, "");
            frame::put(out, kind::PING, 0, 0, PING);
        }
    }

    /// The client has answered a ping of Qbox's own.
    pub(super) fn heard(&mut self) {
        if matches!(self.leaving, Leaving::Told(_)) {
            self.leaving = Leaving::Gone;
            self.stop_serving(Code::No, "");
        }
    }

    /// Whether this is the answer to Qbox's own ping.
    pub(super) fn awaits_ping(&self, payload: &[u8]) -> bool {
        self.leaving != Leaving::No && payload == PING
    }

    /// GOAWAY: what has come is served, and nothing else.
    pub(super) fn stop_serving(&mut self, code: Code, what: &str) {
        let last = self.last_client.min(self.serves);
        self.serves = last;
        if self.speaks() {
            frame::goaway(&mut self.down.bytes, last, code, what);
        }
    }

    /// The connection was to end, and nothing is under way on it any more.
    pub(super) fn has_left(&self) -> bool {
        self.leaving == Leaving::Gone && self.streams.is_empty()
    }

    /// Streams on which Qbox owes an answer.
    pub(super) fn owes(&self) -> bool {
        self.streams.values().any(|stream| stream.up == 0)
    }

    /// The service is gone while Qbox still owes answers: what passed is over, and nothing new begins.
    pub(super) fn lose(&mut self, failure: Failure) {
        self.up = None;
        self.failure = Some(failure);
        let passed: Vec<u32> = (self.streams.iter())
            .filter(|(_, stream)| stream.up > 0)
            .map(|(id, _)| *id)
            .collect();
        for id in passed {
            self.close(id);
            self.reset_client(id, Code::Internal);
        }
        if !self.down_open {
            self.open_alone();
        }
        self.stop_serving(Code::No, "the service has closed the connection");
        self.leaving = Leaving::Gone;
    }

    /// The client has said what makes no sense.
    pub(super) fn refuse(&mut self, error: Error) {
        if !self.down_open && !self.raw {
            self.open_alone();
        }
        self.stop_serving(error.code, error.what);
    }

    /// When the service is late with its first SETTINGS, behind which an answer of Qbox's waits.
    pub(super) fn due_hello(&self) -> Option<Instant> {
        let waits = self.up.is_some() && !self.down_open && !self.raw && self.replies();
        waits.then_some(self.hello)
    }

    /// The earliest moment at which something is late.
    pub(super) fn due(&self) -> Option<Instant> {
        let leaving = match self.leaving {
            Leaving::Told(by) => Some(by),
            _ => None,
        };
        let own = self.own.due(&self.streams);
        own.into_iter().chain(leaving).chain(self.due_hello()).min()
    }

    /// Sees to what is late.
    pub(super) fn tick(&mut self, now: Instant) {
        if let Leaving::Told(by) = self.leaving
            && by <= now
        {
            self.heard();
        }
        self.expire(now);
    }

    /// Passes DATA on, or as much of it as may be. `false`: the rest waits.
    pub(super) fn pass_data(
        out: &mut Out,
        late: Option<&mut Late>,
        sent: &mut usize,
        head: frame::Head,
        payload: &[u8],
    ) -> bool {
        let left = payload.get(*sent..).unwrap_or_default();
        let mut most = left.len();
        let fits = |window: i64| usize::try_from(window).unwrap_or(0);
        if out.debt > 0 {
            most = most.min(fits(out.window));
        }
        if let Some(late) = &late
            && late.debt > 0
        {
            most = most.min(fits(late.window));
        }
        let whole = most == left.len();
        if !whole && (most == 0 || head.has(flag::PADDED)) {
            return false;
        }
        let last = if whole { u8::MAX } else { !flag::END_STREAM };
        frame::put(
            &mut out.bytes,
            kind::DATA,
            head.flags & last,
            head.stream,
            left.get(..most).unwrap_or_default(),
        );
        let bytes = i64::try_from(most).unwrap_or(i64::MAX);
        out.window -= bytes;
        if let Some(late) = late {
            late.window -= bytes;
        }
        *sent = if whole { 0 } else { *sent + most };
        whole
    }

    /// Requests that are to be handed to the handler.
    pub(super) fn taken(&mut self) -> Vec<(u32, Taken)> {
        std::mem::take(&mut self.own.taken)
    }

    /// The client's last word on a stream that passes.
    pub(super) fn client_said_all(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.client_done = true;
        }
        self.close_if_done(id);
    }

    /// The service's last word on a stream.
    pub(super) fn server_said_all(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.server_done = true;
        }
        self.close_if_done(id);
    }
}

/// Where a request was going, for those who take it.
#[derive(Clone, Debug)]
pub(super) struct Whither {
    pub(super) via: crate::upstream::Via,
    pub(super) destination: Option<SocketAddr>,
}
