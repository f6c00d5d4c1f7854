//! Frames of the client's: most pass as they are; requests are looked at, and those that the handler takes stay here.

use super::super::Verdict;
use super::super::handler::Head;
use super::super::reply::problem;
use super::frame::{self, Code, Error, HEADER, LONGEST, MAX_STREAM, flag, kind, setting};
use super::head;
use super::hpack::{self, Fields};
use super::relay::{Block, Relay, Took, Whither};
use super::stream::{Reading, State, Stream};
use tokio::time::Instant;

/// What a connection's client side asks of those above.
pub(super) struct Above<'a, I> {
    /// [`Handler::inspect`](crate::proxy::Handler::inspect).
    pub(super) inspect: &'a I,
    pub(super) whither: &'a Whither,
    pub(super) now: Instant,
}

impl Relay<'_> {
    /// Takes as many of the client's frames as may be.
    ///
    /// # Errors
    /// The connection can't go on.
    pub(super) fn client<I>(&mut self, bytes: &[u8], above: &Above<'_, I>) -> Result<Took, Error>
    where
        I: Fn(Head<'_>) -> Verdict,
    {
        let mut used = 0;
        loop {
            let full = self.up.as_ref().is_some_and(|up| up.full()) || self.down.overfull();
            if full {
                return Ok(Took::Held(used));
            }
            let rest = bytes.get(used..).unwrap_or_default();
            if self.raw {
                if let Some(up) = &mut self.up {
                    up.bytes.extend_from_slice(rest);
                }
                return Ok(Took::All(bytes.len()));
            }
            let Some(head) = frame::Head::read(rest) else {
                return Ok(Took::All(used));
            };
            if head.len > LONGEST {
                return Err(Error::size("a frame is longer than was agreed"));
            }
            let Some(payload) = rest.get(HEADER..HEADER + head.len) else {
                return Ok(Took::All(used));
            };
            if !self.client_frame(head, payload, above)? {
                return Ok(Took::Held(used));
            }
            used += HEADER + head.len;
        }
    }

    /// `false`: the frame has to wait.
    fn client_frame<I>(
        &mut self,
        head: frame::Head,
        payload: &[u8],
        above: &Above<'_, I>,
    ) -> Result<bool, Error>
    where
        I: Fn(Head<'_>) -> Verdict,
    {
        if !self.client_open {
            if head.kind != kind::SETTINGS || head.has(flag::ACK) {
                return Err(Error::protocol("the first frame is not SETTINGS"));
            }
            self.client_open = true;
        }
        if let Some(block) = &self.client_block
            && (head.kind != kind::CONTINUATION || head.stream != block.stream)
        {
            return Err(Error::protocol("a block of fields is interrupted"));
        }
        // Streams that the service began, by a promise: the client can't send on them.
        let promised = head.stream.is_multiple_of(2);
        let idle = !promised && head.stream > self.last_client;
        match head.kind {
            kind::DATA if promised || idle => Err(Error::protocol("DATA on a stream that is not open")),
            kind::DATA => self.client_data(head, payload, above),
            kind::HEADERS if promised => Err(Error::protocol("HEADERS on a stream that is not the client's")),
            kind::HEADERS => {
                let late = self.streams.get(&head.stream).map(|stream| &stream.state);
                if matches!(late, Some(State::Late(late)) if !late.left.is_empty()) {
                    return Ok(false); // trailers wait for the body
                }
                let mut fields = frame::unpad(head, payload)?;
                let mut lead = Vec::new();
                if head.has(flag::PRIORITY) {
                    let parts = fields.split_at_checked(5);
                    let (priority, rest) = parts.ok_or(Error::size("a priority is too short"))?;
                    lead = priority.to_vec();
                    fields = rest;
                }
                self.client_block = Some(Block {
                    kind: head.kind,
                    stream: head.stream,
                    flags: head.flags & (flag::END_STREAM | flag::PRIORITY),
                    lead,
                    fields: fields.to_vec(),
                });
                self.client_block_ends(head, above)
            }
            kind::CONTINUATION => {
                let block = self.client_block.as_mut();
                let block = block.ok_or(Error::protocol("CONTINUATION without HEADERS"))?;
                block.fields.extend_from_slice(payload);
                if payload.is_empty() && !head.has(flag::END_HEADERS) {
                    return Err(Error::new(Code::EnhanceYourCalm, "an empty CONTINUATION"));
                }
                self.client_block_ends(head, above)
            }
            kind::PRIORITY | kind::PRIORITY_UPDATE => {
                // Advice (RFC 9113, 5.3); once streams have other numbers it would be about others.
                if !self.shifted {
                    self.pass_up(head, payload);
                }
                Ok(true)
            }
            kind::RST_STREAM => {
                if head.len != 4 {
                    return Err(Error::size("RST_STREAM has four bytes"));
                }
                if head.stream == 0 || idle {
                    return Err(Error::protocol("RST_STREAM on a stream that is not open"));
                }
                if promised {
                    self.pass_up(head, payload);
                } else {
                    self.pass_up_on(head, payload);
                    self.close(head.stream);
                }
                Ok(true)
            }
            kind::SETTINGS => self.client_settings(head, payload),
            kind::PUSH_PROMISE => Err(Error::protocol("a client promises nothing")),
            kind::PING => {
                if head.stream != 0 {
                    return Err(Error::protocol("PING on a stream"));
                }
                if head.len != 8 {
                    return Err(Error::size("PING has eight bytes"));
                }
                if head.has(flag::ACK) && self.awaits_ping(payload) {
                    self.heard();
                } else if self.up.is_some() {
                    self.pass_up(head, payload);
                } else if !head.has(flag::ACK) {
                    frame::put(&mut self.down.bytes, kind::PING, flag::ACK, 0, payload);
                }
                Ok(true)
            }
            kind::WINDOW_UPDATE => self.client_credit(head, payload, idle, promised),
            _ if head.stream == 0 || promised => {
                self.pass_up(head, payload);
                Ok(true)
            }
            _ => {
                self.pass_up_on(head, payload);
                Ok(true)
            }
        }
    }

    /// Passes a frame as it is.
    fn pass_up(&mut self, head: frame::Head, payload: &[u8]) {
        if let Some(up) = &mut self.up {
            frame::put(&mut up.bytes, head.kind, head.flags, head.stream, payload);
        }
    }

    /// Passes a frame on a stream that the service knows; drops others.
    fn pass_up_on(&mut self, mut head: frame::Head, payload: &[u8]) {
        if let Some(stream) = self.streams.get(&head.stream)
            && stream.up > 0
        {
            head.stream = stream.up;
            self.pass_up(head, payload);
        }
    }

    fn client_data<I>(
        &mut self,
        mut head: frame::Head,
        payload: &[u8],
        above: &Above<'_, I>,
    ) -> Result<bool, Error> {
        let id = head.stream;
        let end = head.has(flag::END_STREAM);
        let body = frame::unpad(head, payload)?;
        let Some(stream) = self.streams.get_mut(&id) else {
            // It was on its way when the stream ended. The service does not see it, so it can't count it.
            frame::credit(self.down.own(), 0, head.len.try_into().unwrap_or(0));
            return Ok(true);
        };
        if stream.client_done {
            return Err(Error::new(Code::StreamClosed, "DATA behind a request's end"));
        }
        if matches!(&stream.state, State::Late(late) if !late.left.is_empty()) {
            return Ok(false);
        }
        let first = !matches!(self.sent, [sent, _] if sent > 0);
        if first && let Some(length) = &mut stream.length {
            let left = length.checked_sub(body.len() as u64);
            match left.filter(|left| !end || *left == 0) {
                Some(left) => *length = left,
                None => {
                    frame::credit(self.down.own(), 0, head.len.try_into().unwrap_or(0));
                    self.stream_error(id, Code::Protocol);
                    return Ok(true);
                }
            }
        }
        if stream.up == 0 {
            self.read_more(id, body, head.len, end, above.whither, above.now);
            return Ok(true);
        }
        let late = match &mut stream.state {
            State::Late(late) => Some(&mut **late),
            _ => None,
        };
        head.stream = stream.up;
        let Some(up) = &mut self.up else {
            return Ok(true);
        };
        let [sent, _] = &mut self.sent;
        if !Self::pass_data(up, late, sent, head, payload) {
            // The length was counted once for the whole frame.
            if first
                && *sent == 0
                && let Some(length) = &mut stream.length
            {
                *length += body.len() as u64;
            }
            return Ok(false);
        }
        if end {
            self.client_said_all(id);
        }
        Ok(true)
    }

    fn client_settings(&mut self, head: frame::Head, payload: &[u8]) -> Result<bool, Error> {
        if head.stream != 0 {
            return Err(Error::protocol("SETTINGS on a stream"));
        }
        if head.has(flag::ACK) {
            if head.len != 0 {
                return Err(Error::size("an acknowledgement of SETTINGS is empty"));
            }
            self.pass_up(head, payload);
            return Ok(true);
        }
        if !head.len.is_multiple_of(6) {
            return Err(Error::size("SETTINGS has six bytes each"));
        }
        let mut passed = Vec::with_capacity(payload.len());
        let mut table = None;
        for (name, value) in frame::settings(payload) {
            let mut value = value;
            match name {
                setting::INITIAL_WINDOW_SIZE if value > MAX_STREAM => {}
                setting::INITIAL_WINDOW_SIZE => {
                    let more = i64::from(value) - self.down.initial;
                    self.down.initial += more;
                    for stream in self.streams.values_mut() {
                        stream.window += more;
                    }
                }
                setting::HEADER_TABLE_SIZE => {
                    self.responses.allow(value);
                    table = Some(table.map_or(value, |least: u32| least.min(value)))
                }
                setting::MAX_FRAME_SIZE => value = value.min(LONGEST as u32),
                _ => {}
            }
            frame::put_setting(&mut passed, name, value);
        }
        self.note_settings(table)?;
        if self.up.is_some() {
            self.pass_up(head, &passed);
        } else {
            frame::put(&mut self.down.bytes, kind::SETTINGS, flag::ACK, 0, &[]);
            self.acknowledged();
        }
        Ok(true)
    }

    fn client_credit(
        &mut self,
        mut head: frame::Head,
        payload: &[u8],
        idle: bool,
        promised: bool,
    ) -> Result<bool, Error> {
        if head.len != 4 {
            return Err(Error::size("WINDOW_UPDATE has four bytes"));
        }
        let more = frame::word(payload)? & MAX_STREAM;
        if head.stream == 0 {
            let known = self.down.credited(more);
            if known > 0 || more == 0 {
                self.pass_up(head, &known.to_be_bytes());
            }
        } else if idle {
            return Err(Error::protocol("WINDOW_UPDATE on a stream that is not open"));
        } else if promised {
            self.pass_up(head, payload);
        } else if let Some(stream) = self.streams.get_mut(&head.stream) {
            stream.window += i64::from(more);
            if stream.up > 0 {
                head.stream = stream.up;
                self.pass_up(head, payload);
            }
        }
        Ok(true)
    }

    fn client_block_ends<I>(&mut self, head: frame::Head, above: &Above<'_, I>) -> Result<bool, Error>
    where
        I: Fn(Head<'_>) -> Verdict,
    {
        let limit = self.limits.head;
        let len = self.client_block.as_ref().map_or(0, |block| block.fields.len());
        if len > limit {
            self.counters.errors.head_too_large.add();
            return Err(Error::new(Code::EnhanceYourCalm, "a block of fields is too long"));
        }
        if !head.has(flag::END_HEADERS) {
            return Ok(true);
        }
        let Some(block) = self.client_block.take() else {
            return Ok(true);
        };
        let mut fields = std::mem::take(&mut self.fields);
        let changed = self
            .decoder
            .read(&block.fields, limit, &mut fields)
            .map_err(|_| Error::new(Code::Compression, "a block of fields can't be read"))?;
        let result = self.client_fields(&block, &mut fields, changed, above);
        self.fields = fields;
        result.map(|()| true)
    }

    /// A block of the client's is read. `changed`: the service has to see it, or its table is another one from now on.
    fn client_fields<I>(
        &mut self,
        block: &Block,
        fields: &mut Fields,
        changed: bool,
        above: &Above<'_, I>,
    ) -> Result<(), Error>
    where
        I: Fn(Head<'_>) -> Verdict,
    {
        let id = block.stream;
        if id <= self.last_client {
            return self.client_trailers(block, fields, changed, above);
        }
        self.last_client = id;
        let end = block.flags & flag::END_STREAM != 0;
        let mut stream = Stream {
            up: 0,
            client_done: end,
            server_done: false,
            length: None,
            head: false,
            window: self.down.initial,
            listener: None,
            state: State::Passed,
        };
        if id > self.serves {
            self.unseen(changed);
            return Ok(());
        }
        if self.streams.len() >= self.limits.streams {
            self.unseen(changed);
            self.counters.errors.streams.add();
            self.reset_client(id, Code::Refused);
            return Ok(());
        }
        let request = match head::request(fields) {
            Ok(request) => request,
            // Cut off, it may lack what it needs; it is too long in any case.
            Err(_) if fields.over() => return self.too_large(id, stream, changed),
            Err(malformed) => {
                tracing::debug!(%malformed, "reset");
                self.unseen(changed);
                self.stream_error(id, Code::Protocol);
                return Ok(());
            }
        };
        if fields.over() || request.many {
            return self.too_large(id, stream, changed);
        }
        if end && request.length.is_some_and(|length| length > 0) {
            self.unseen(changed);
            self.stream_error(id, Code::Protocol);
            return Ok(());
        }
        stream.length = request.length;
        stream.head = request.method == "HEAD";
        let expects = request.expects;
        let (max_body, look) = match head::verdict(&request, fields, above.inspect) {
            Verdict::Take { max_body } => (max_body, false),
            Verdict::Look { max_body } => (max_body, true),
            Verdict::Pass => {
                self.pass_request(id, stream, block, fields, changed);
                return Ok(());
            }
        };
        self.unseen(changed);
        if look && self.up.is_none() {
            self.streams.insert(id, stream);
            self.unreachable(id);
            return Ok(());
        }
        if !look && request.length.is_some_and(|length| length > max_body as u64) {
            self.counters.errors.body_too_large.add();
            self.streams.insert(id, stream);
            let detail = format!("the body of a request that starts a saga is over {max_body} bytes");
            self.answer(id, &problem(413, &detail));
            return Ok(());
        }
        let reading = Reading {
            fields: std::mem::take(fields),
            body: Vec::new(),
            max_body,
            look,
            expects,
            until: above.now + self.limits.wait,
        };
        self.read_request(id, above.whither, stream, reading);
        Ok(())
    }

    /// The service does not see a block.
    fn unseen(&mut self, changed: bool) {
        if changed && self.apart.is_none() {
            self.apart = Some(false);
        }
    }

    fn too_large(&mut self, id: u32, stream: Stream, changed: bool) -> Result<(), Error> {
        self.unseen(changed);
        self.counters.errors.head_too_large.add();
        let limit = self.limits.head;
        self.streams.insert(id, stream);
        self.answer(
            id,
            &problem(
                431,
                &format!("the request's fields are over {limit} bytes, or too many"),
            ),
        );
        Ok(())
    }

    fn pass_request(&mut self, id: u32, mut stream: Stream, block: &Block, fields: &Fields, changed: bool) {
        if self.up.is_none() {
            self.unseen(changed);
            self.streams.insert(id, stream);
            self.unreachable(id);
            return;
        }
        let Some(up_id) = self.assign(id) else {
            self.unseen(changed);
            self.reset_client(id, Code::Refused);
            return;
        };
        stream.up = up_id;
        self.streams.insert(id, stream);
        self.counters.passed.add();
        self.passing += 1;
        self.pass_block(up_id, block, fields);
    }

    /// Passes a block as it came, or written anew once the service's table is another one.
    fn pass_block(&mut self, up_id: u32, block: &Block, fields: &Fields) {
        let (mut flags, mut lead) = (block.flags, &block.lead[..]);
        if self.shifted {
            (flags, lead) = (flags & !flag::PRIORITY, &[]);
        }
        let Some(up) = &mut self.up else {
            return;
        };
        let Some(told) = &mut self.apart else {
            frame::block(&mut up.bytes, block.kind, flags, up_id, lead, &block.fields);
            return;
        };
        let mut anew = Vec::with_capacity(256);
        if !std::mem::replace(told, true) {
            hpack::put_no_table(&mut anew);
        }
        for field in fields.iter() {
            hpack::put(&mut anew, field);
        }
        frame::block(&mut up.bytes, block.kind, flags, up_id, lead, &anew);
    }

    fn client_trailers<I>(
        &mut self,
        block: &Block,
        fields: &Fields,
        changed: bool,
        above: &Above<'_, I>,
    ) -> Result<(), Error> {
        let id = block.stream;
        let Some(stream) = self.streams.get_mut(&id) else {
            self.unseen(changed);
            return Ok(()); // on its way when the stream ended
        };
        if stream.client_done {
            return Err(Error::new(Code::StreamClosed, "HEADERS behind a request's end"));
        }
        let up_id = stream.up;
        let ends = block.flags & flag::END_STREAM != 0;
        if !ends || stream.length.is_some_and(|left| left > 0) || head::trailers(fields).is_err() {
            self.unseen(changed);
            self.stream_error(id, Code::Protocol);
        } else if fields.over() {
            self.unseen(changed);
            self.counters.errors.head_too_large.add();
            self.stream_error(id, Code::EnhanceYourCalm);
        } else if up_id > 0 {
            self.pass_block(up_id, block, fields);
            self.client_said_all(id);
        } else {
            self.unseen(changed);
            self.read_more(id, &[], 0, true, above.whither, above.now);
        }
        Ok(())
    }
}
