//! The streams that are Qbox's: a request is read, handed over, answered; or, if it passes after all, sent on late.

use super::super::Listener;
use super::super::handler::{Handled, Reply as Answer, Taken};
use super::super::reply::problem;
use super::frame::{self, Code, USUAL, flag, kind};
use super::head;
use super::hpack;
use super::relay::{Relay, Whither};
use super::stream::{Held, Reading, State, Stream};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;
use tokio::time::Instant;

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Reply {
    /// Its fields; empty once they are out.
    block: Vec<u8>,
    /// What is left of its body.
    body: Bytes,
}

/// A request that is sent on late.
#[derive(Debug)]
pub(super) struct Late {
    /// What the service still takes on the stream.
    pub(super) window: i64,
    /// As [`Out::debt`](super::relay::Out::debt), on the stream.
    pub(super) debt: u64,
    /// What of the body is not sent.
    pub(super) left: Bytes,
    /// The request ends with it.
    end: bool,
}

/// What Qbox has to do itself on a connection.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// For the handler.
    pub(super) taken: Vec<(u32, Taken)>,
    replying: VecDeque<u32>,
    late: VecDeque<u32>,
    /// Bytes of bodies that are kept.
    kept: usize,
    turned_away: bool,
    /// No stream is late before.
    next: Option<Instant>,
}

impl Own {
    /// The stream is over.
    pub(super) fn forget(&mut self, stream: &Stream) {
        self.kept = self.kept.saturating_sub(stream.kept());
    }

    pub(super) fn due(&self, streams: &HashMap<u32, Stream>) -> Option<Instant> {
        self.next.filter(|_| !streams.is_empty())
    }

    fn expect(&mut self, until: Instant) {
        self.next = Some(self.next.map_or(until, |next| next.min(until)));
    }
}

impl Relay<'_> {
    /// Reads a request whose fields are there.
    pub(super) fn read_request(&mut self, id: u32, whither: &Whither, mut stream: Stream, reading: Reading) {
        let (expects, done) = (reading.expects && !stream.client_done, stream.client_done);
        self.own.expect(reading.until);
        stream.state = State::Reading(Box::new(reading));
        self.streams.insert(id, stream);
        if done {
            self.hand_over(id, whither);
        } else if expects && self.down_open {
            self.go_on(id);
        }
    }

    /// Tells the client to send the body (RFC 9110, 10.1.1).
    fn go_on(&mut self, id: u32) {
        let mut block = self.new_block();
        hpack::put(
            &mut block,
            hpack::Field {
                name: b":status",
                value: b"100",
                never: false,
            },
        );
        frame::block(&mut self.down.bytes, kind::HEADERS, 0, id, &[], &block);
    }

    /// The start of a block for the client.
    fn new_block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        if let Some(size) = self.shrunk {
            hpack::put_size(&mut block, size as usize);
        }
        block
    }

    /// The client has the server's first SETTINGS: what had to wait for them goes out.
    pub(super) fn opened(&mut self) {
        self.down_open = true;
        self.down.open();
        let waits = |stream: &Stream| matches!(&stream.state, State::Reading(reading) if reading.expects && reading.body.is_empty());
        let expecting: Vec<u32> = (self.streams.iter())
            .filter(|(_, stream)| waits(stream))
            .map(|(id, _)| *id)
            .collect();
        for id in expecting {
            self.go_on(id);
        }
    }

    /// More of a body that is read. `size`: of the frame, which the windows count whole.
    pub(super) fn read_more(
        &mut self,
        id: u32,
        data: &[u8],
        size: usize,
        end: bool,
        whither: &Whither,
        now: Instant,
    ) {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        frame::credit(self.down.own(), 0, size);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.client_done |= end;
        let State::Reading(reading) = &mut stream.state else {
            self.close_if_done(id);
            return;
        };
        let (max_body, look) = (reading.max_body, reading.look);
        reading.until = now + self.limits.wait;
        reading.body.extend_from_slice(data);
        let length = reading.body.len();
        self.own.kept += data.len();
        // What passes late all the same is a debt, so that the service's window is kept to.
        if !end && (look || length <= max_body) {
            frame::credit(self.down.own(), id, size);
        }
        if length > max_body && look {
            self.pass_unseen(id);
        } else if length > max_body {
            self.counters.errors.body_too_large.add();
            let detail = format!("the body of a request that starts a saga is over {max_body} bytes");
            self.answer(id, &problem(413, &detail));
        } else if self.own.kept > max_body.saturating_mul(self.limits.bodies) {
            if look {
                self.pass_unseen(id);
            } else {
                let mut answer = problem(
                    503,
                    "too many bodies are being read on this connection; try again",
                );
                answer.headers.push(("Retry-After".into(), "1".into()));
                self.answer(id, &answer);
            }
        } else if end {
            self.hand_over(id, whither);
        }
    }

    /// The request is whole.
    pub(super) fn hand_over(&mut self, id: u32, whither: &Whither) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let State::Reading(reading) = &mut stream.state else {
            return;
        };
        let fields = std::mem::take(&mut reading.fields);
        let body = Bytes::from(std::mem::take(&mut reading.body));
        if let Ok(request) = head::request(&fields) {
            self.own.taken.push((
                id,
                Taken {
                    method: request.method.to_owned(),
                    target: request.path.to_owned(),
                    headers: head::taken_fields(&request, &fields),
                    body: body.clone(),
                    via: whither.via.clone(),
                    destination: whither.destination,
                    http2: true,
                },
            ));
        }
        stream.state = State::Handling(Box::new(Held { fields, body }));
    }

    /// The handler has answered.
    pub(super) fn handled(&mut self, id: u32, handled: Handled) {
        // The client may have left; what it started goes on.
        let state = self.streams.get(&id).map(|stream| &stream.state);
        if !matches!(state, Some(State::Handling(_))) {
            return;
        }
        match handled {
            Handled::Reply(answer) => {
                self.counters.taken.add();
                self.answer(id, &answer);
            }
            Handled::Pass(listener) => self.pass_late(id, listener),
        }
    }

    /// Answers a stream that is Qbox's.
    pub(super) fn answer(&mut self, id: u32, answer: &Answer) {
        let mut block = self.new_block();
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        self.own.kept = self.own.kept.saturating_sub(stream.kept());
        head::answer(answer, stream.head, SystemTime::now(), &mut block);
        let body = match head::has_body(answer, stream.head) {
            true => answer.body.clone(),
            false => Bytes::new(),
        };
        stream.state = State::Replying(Box::new(Reply { block, body }));
        self.own.replying.push_back(id);
    }

    /// Sends a request on that the handler was to look at, and could not be shown.
    fn pass_unseen(&mut self, id: u32) {
        self.counters.unseen.add();
        self.pass_late(id, None);
    }

    /// Sends a request on that was read, and as much of it as was.
    fn pass_late(&mut self, id: u32, listener: Option<Listener>) {
        if self.up.is_none() {
            self.unreachable(id);
            return;
        }
        let Some(up_id) = self.assign(id) else {
            self.close(id);
            self.reset_client(id, Code::Refused);
            return;
        };
        let (Some(stream), Some(up)) = (self.streams.get_mut(&id), &mut self.up) else {
            return;
        };
        let (fields, left) = match &mut stream.state {
            State::Reading(reading) => (
                std::mem::take(&mut reading.fields),
                Bytes::from(std::mem::take(&mut reading.body)),
            ),
            State::Handling(held) => (std::mem::take(&mut held.fields), held.body.clone()),
            _ => return,
        };
        self.counters.passed.add();
        let end = stream.client_done;
        let mut block = Vec::new();
        if self.apart != Some(true) {
            hpack::put_no_table(&mut block);
            self.apart = Some(true);
        }
        for field in fields.iter() {
            hpack::put(&mut block, field);
        }
        let flags = if end && left.is_empty() {
            flag::END_STREAM
        } else {
            0
        };
        frame::block(&mut up.bytes, kind::HEADERS, flags, up_id, &[], &block);
        // What the client takes on the stream beyond what it takes on any.
        let granted = u32::try_from(stream.window - self.down.initial).unwrap_or(0);
        frame::credit(&mut up.bytes, up_id, granted);
        up.debt += left.len() as u64;
        stream.up = up_id;
        stream.listener = listener;
        if !left.is_empty() {
            self.own.late.push_back(id);
        }
        stream.state = State::Late(Box::new(Late {
            window: up.initial,
            debt: left.len() as u64,
            left,
            end,
        }));
    }

    /// A stream is over: what was not sent of a late request is not.
    pub(super) fn drop_late(&mut self, stream: &Stream) {
        let (State::Late(late), Some(up)) = (&stream.state, &mut self.up) else {
            return;
        };
        if late.left.is_empty() {
            return;
        }
        frame::reset(&mut up.bytes, stream.up, Code::No);
        let unsent = late.left.len() as u64;
        let paid = unsent.saturating_sub(up.debt);
        up.debt = up.debt.saturating_sub(unsent);
        frame::credit(self.down.own(), 0, u32::try_from(paid).unwrap_or(0));
    }

    /// A request was answered that there is no service.
    pub(super) fn turned_away(&self) -> bool {
        self.own.turned_away
    }

    /// A request that passes has nowhere to go.
    pub(super) fn unreachable(&mut self, id: u32) {
        self.own.turned_away = true;
        let answer = match &self.failure {
            Some(failure) => problem(failure.status, &failure.cause),
            None => problem(502, "no destination"),
        };
        self.answer(id, &answer);
    }

    /// An answer is on its way whose client still waits for it.
    pub(super) fn replies(&self) -> bool {
        self.own.replying.iter().any(|id| self.streams.contains_key(id))
    }

    /// Writes as much as may be of what is Qbox's to say. Says whether that was anything.
    pub(super) fn pump(&mut self) -> bool {
        let mut wrote = false;
        if self.speaks() {
            for _ in 0..self.own.replying.len() {
                if let Some(id) = self.own.replying.pop_front() {
                    wrote |= self.pump_reply(id);
                }
            }
        }
        for _ in 0..self.own.late.len() {
            if let Some(id) = self.own.late.pop_front() {
                wrote |= self.pump_late(id);
            }
        }
        wrote
    }

    fn pump_reply(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let State::Replying(reply) = &mut stream.state else {
            return false;
        };
        let mut wrote = false;
        if !reply.block.is_empty() && !self.down.full() {
            let flags = if reply.body.is_empty() {
                flag::END_STREAM
            } else {
                0
            };
            let block = std::mem::take(&mut reply.block);
            frame::block(&mut self.down.bytes, kind::HEADERS, flags, id, &[], &block);
            wrote = true;
        }
        while reply.block.is_empty() && !reply.body.is_empty() && !self.down.full() {
            let takes = usize::try_from(self.down.window.min(stream.window)).unwrap_or(0);
            let now = reply.body.len().min(takes).min(USUAL);
            if now == 0 {
                break;
            }
            let part = reply.body.split_to(now);
            let flags = if reply.body.is_empty() {
                flag::END_STREAM
            } else {
                0
            };
            frame::put(&mut self.down.bytes, kind::DATA, flags, id, &part);
            let bytes = i64::try_from(now).unwrap_or(i64::MAX);
            self.down.window -= bytes;
            stream.window -= bytes;
            if self.up.is_some() {
                self.down.debt += now as u64;
            }
            wrote = true;
        }
        if !reply.block.is_empty() || !reply.body.is_empty() {
            self.own.replying.push_back(id);
            return wrote;
        }
        // It is answered whatever else the client would say (RFC 9113, 8.1).
        if !stream.client_done {
            frame::reset(&mut self.down.bytes, id, Code::No);
        }
        self.close(id);
        true
    }

    fn pump_late(&mut self, id: u32) -> bool {
        let (Some(stream), Some(up)) = (self.streams.get_mut(&id), &mut self.up) else {
            return false;
        };
        let up_id = stream.up;
        let State::Late(late) = &mut stream.state else {
            return false;
        };
        let mut wrote = false;
        while !late.left.is_empty() && !up.full() {
            let takes = usize::try_from(up.window.min(late.window)).unwrap_or(0);
            let now = late.left.len().min(takes).min(USUAL);
            if now == 0 {
                break;
            }
            let part = late.left.split_to(now);
            let last = late.left.is_empty() && late.end;
            let flags = if last { flag::END_STREAM } else { 0 };
            frame::put(&mut up.bytes, kind::DATA, flags, up_id, &part);
            let bytes = i64::try_from(now).unwrap_or(i64::MAX);
            up.window -= bytes;
            late.window -= bytes;
            self.own.kept = self.own.kept.saturating_sub(now);
            wrote = true;
        }
        if !late.left.is_empty() {
            self.own.late.push_back(id);
        }
        wrote
    }

    /// The client says no more: of the requests that are being read none becomes whole. Half a trigger goes nowhere.
    pub(super) fn client_ended(&mut self) {
        let reading = |(id, stream): (&u32, &Stream)| match &stream.state {
            State::Reading(reading) => Some((*id, reading.look)),
            _ => None,
        };
        let halves: Vec<(u32, bool)> = self.streams.iter().filter_map(reading).collect();
        for (id, look) in halves {
            if look {
                self.pass_unseen(id);
            } else {
                self.close(id);
            }
        }
    }

    /// Sees to the requests that have not come in time.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.own.next.is_none_or(|next| next > now) {
            return;
        }
        self.own.next = None;
        let mut late = Vec::new();
        for (id, stream) in &self.streams {
            if let State::Reading(reading) = &stream.state {
                if reading.until <= now {
                    late.push((*id, reading.look));
                } else {
                    self.own.expect(reading.until);
                }
            }
        }
        for (id, look) in late {
            if look {
                self.pass_unseen(id);
            } else {
                self.answer(id, &problem(408, "the request's body did not come in time"));
            }
        }
    }
}
