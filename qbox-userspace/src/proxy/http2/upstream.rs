//! Frames of the service's: they pass, with the client's numbers of their streams. Their fields are read at most
//! (`responses.rs`), never changed.

use super::frame::{self, Code, Error, HEADER, LONGEST, MAX_STREAM, flag, kind, setting};
use super::relay::{Block, HIGH, Out, Relay, Took, repay};
use super::stream::State;

/// Bytes of the fields' table that a service may offer its client: Qbox keeps one, too.
const TABLE: u32 = 64 << 10;
/// Bytes of a block of a response's fields; more if `limits.head` is more.
const BLOCK: usize = 256 << 10;

impl Relay<'_> {
    /// Takes as many of the service's frames as may be.
    ///
    /// # Errors
    /// The connection to the service can't go on.
    pub(super) fn upstream(&mut self, bytes: &[u8]) -> Result<Took, Error> {
        let mut used = 0;
        loop {
            let full = self.down.full() || self.up.as_ref().is_some_and(Out::overfull);
            if full {
                return Ok(Took::Held(used));
            }
            let rest = bytes.get(used..).unwrap_or_default();
            if self.raw {
                let most = rest.len().min(HIGH);
                self.down
                    .bytes
                    .extend_from_slice(rest.get(..most).unwrap_or_default());
                used += most;
                if used == bytes.len() {
                    return Ok(Took::All(used));
                }
                continue;
            }
            let Some(head) = frame::Head::read(rest) else {
                return Ok(Took::All(used));
            };
            if !self.down_open && !begins(head) {
                // The client is to see what it would see.
                self.raw = true;
                self.counters.opaque.add();
                continue;
            }
            if head.len > LONGEST {
                return Err(Error::size("a frame is longer than was agreed"));
            }
            let Some(payload) = rest.get(HEADER..HEADER + head.len) else {
                return Ok(Took::All(used));
            };
            if !self.upstream_frame(head, payload)? {
                return Ok(Took::Held(used));
            }
            used += HEADER + head.len;
        }
    }

    /// What is left when the service has ended: less than a frame.
    pub(super) fn upstream_rest(&mut self, bytes: &[u8]) {
        if self.raw || !self.down_open {
            self.down.bytes.extend_from_slice(bytes);
        }
    }

    /// `false`: the frame has to wait.
    fn upstream_frame(&mut self, head: frame::Head, payload: &[u8]) -> Result<bool, Error> {
        if let Some(block) = &self.upstream_block
            && (head.kind != kind::CONTINUATION || head.stream != block.stream)
        {
            return Err(Error::protocol("a block of fields is interrupted"));
        }
        match head.kind {
            kind::DATA => return self.upstream_data(head, payload),
            kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION => self.upstream_fields(head, payload)?,
            kind::SETTINGS => self.upstream_settings(head, payload)?,
            kind::GOAWAY => self.upstream_leaves(payload)?,
            kind::WINDOW_UPDATE => self.upstream_credit(head, payload)?,
            kind::RST_STREAM => {
                if self.pass_down_on(head, payload)
                    && let Some(id) = self.client_of(head.stream)
                {
                    self.server_said_all(id);
                    self.close(id);
                }
            }
            _ => {
                self.pass_down_on(head, payload);
            }
        }
        Ok(true)
    }

    fn pass_down(&mut self, head: frame::Head, payload: &[u8]) {
        frame::put(&mut self.down.bytes, head.kind, head.flags, head.stream, payload);
    }

    /// Passes a frame on a stream that is open, or on none, or on one that the service has promised.
    fn pass_down_on(&mut self, mut head: frame::Head, payload: &[u8]) -> bool {
        if !head.stream.is_multiple_of(2) {
            match self.client_of(head.stream) {
                Some(id) => head.stream = id,
                None => return false,
            }
        }
        self.pass_down(head, payload);
        true
    }

    fn upstream_data(&mut self, mut head: frame::Head, payload: &[u8]) -> Result<bool, Error> {
        if head.stream == 0 {
            return Err(Error::protocol("DATA on no stream"));
        }
        let promised = head.stream.is_multiple_of(2);
        let id = if promised {
            Some(head.stream)
        } else {
            self.client_of(head.stream)
        };
        let Some(id) = id else {
            if let Some(up) = &mut self.up {
                frame::credit(&mut up.bytes, 0, head.len.try_into().unwrap_or(0));
            }
            return Ok(true);
        };
        head.stream = id;
        let [_, sent] = &mut self.sent;
        if !Self::pass_data(&mut self.down, None, sent, head, payload) {
            return Ok(false);
        }
        if head.has(flag::END_STREAM) && !promised {
            self.server_said_all(id);
        }
        Ok(true)
    }

    fn upstream_fields(&mut self, head: frame::Head, payload: &[u8]) -> Result<(), Error> {
        if head.kind == kind::CONTINUATION {
            let block = self.upstream_block.as_mut();
            let block = block.ok_or(Error::protocol("CONTINUATION without HEADERS"))?;
            block.fields.extend_from_slice(payload);
        } else {
            let mut fields = frame::unpad(head, payload)?;
            let mut lead = Vec::new();
            let skip = match head.kind {
                kind::PUSH_PROMISE => 4,
                _ if head.has(flag::PRIORITY) => 5,
                _ => 0,
            };
            let parts = fields.split_at_checked(skip);
            let (before, rest) = parts.ok_or(Error::size("a block of fields is too short"))?;
            // A response's priority says nothing to a client (RFC 9113, 5.3.2).
            if head.kind == kind::PUSH_PROMISE {
                lead = before.to_vec();
            }
            fields = rest;
            self.upstream_block = Some(Block {
                kind: head.kind,
                stream: head.stream,
                flags: match head.kind {
                    kind::HEADERS => head.flags & flag::END_STREAM,
                    _ => 0,
                },
                lead,
                fields: fields.to_vec(),
            });
        }
        let len = self.upstream_block.as_ref().map_or(0, |block| block.fields.len());
        if len > BLOCK.max(self.limits.head) {
            return Err(Error::new(Code::EnhanceYourCalm, "a block of fields is too long"));
        }
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        let Some(block) = self.upstream_block.take() else {
            return Ok(());
        };
        let open = match block.stream.is_multiple_of(2) {
            true => Some(block.stream),
            false => self.client_of(block.stream),
        };
        // Of one that is over it must pass all the same: the client's table depends on it.
        self.hear(&block, open);
        let id = open.or_else(|| self.client_of_gone(block.stream));
        let id = id.ok_or(Error::protocol("HEADERS on a stream that nobody knows"))?;
        frame::block(
            &mut self.down.bytes,
            block.kind,
            block.flags,
            id,
            &block.lead,
            &block.fields,
        );
        self.shrunk = None;
        if block.flags & flag::END_STREAM != 0 && open.is_some() {
            self.server_said_all(id);
        }
        Ok(())
    }

    /// Tells who listens on a stream what it is answered.
    fn hear(&mut self, block: &Block, stream: Option<u32>) {
        let stream = stream.and_then(|id| self.streams.get_mut(&id));
        let awaited = stream.filter(|stream| stream.listener.is_some() && block.kind == kind::HEADERS);
        let Some(heard) = self.responses.read(&block.fields, awaited.is_some()) else {
            return;
        };
        if let Some(listener) = awaited.and_then(|stream| stream.listener.take()) {
            listener.hear(heard);
        }
    }

    fn upstream_settings(&mut self, head: frame::Head, payload: &[u8]) -> Result<(), Error> {
        if head.has(flag::ACK) {
            self.pass_down(head, payload);
            self.acknowledged();
            return Ok(());
        }
        if !head.len.is_multiple_of(6) {
            return Err(Error::size("SETTINGS has six bytes each"));
        }
        let limit = u32::try_from(self.limits.head).unwrap_or(u32::MAX);
        let mut passed = Vec::with_capacity(payload.len() + 6);
        let mut said = self.down_open;
        for (name, value) in frame::settings(payload) {
            let mut value = value;
            match name {
                setting::INITIAL_WINDOW_SIZE if value <= MAX_STREAM => {
                    let more = self.up.as_ref().map_or(0, |up| i64::from(value) - up.initial);
                    if let Some(up) = &mut self.up {
                        up.initial += more;
                    }
                    for stream in self.streams.values_mut() {
                        if let State::Late(late) = &mut stream.state {
                            late.window += more;
                        }
                    }
                }
                setting::HEADER_TABLE_SIZE => {
                    value = value.min(TABLE);
                    self.decoder.allow(value);
                }
                setting::MAX_FRAME_SIZE => value = value.min(LONGEST as u32),
                setting::MAX_HEADER_LIST_SIZE => {
                    value = value.min(limit);
                    said = true;
                }
                _ => {}
            }
            frame::put_setting(&mut passed, name, value);
        }
        // A longer list is answered 431: the client may as well know.
        if !said {
            frame::put_setting(&mut passed, setting::MAX_HEADER_LIST_SIZE, limit);
        }
        self.pass_down(head, &passed);
        if !self.down_open {
            self.opened();
        }
        Ok(())
    }

    /// The service takes more.
    fn upstream_credit(&mut self, mut head: frame::Head, payload: &[u8]) -> Result<(), Error> {
        let mut more = frame::word(payload)? & MAX_STREAM;
        if head.stream == 0 {
            let known = self.up.as_mut().map_or(more, |up| up.credited(more));
            if known > 0 || more == 0 {
                self.pass_down(head, &known.to_be_bytes());
            }
            return Ok(());
        }
        if !head.stream.is_multiple_of(2) {
            let Some(id) = self.client_of(head.stream) else {
                return Ok(());
            };
            head.stream = id;
            if let Some(State::Late(late)) = self.streams.get_mut(&id).map(|stream| &mut stream.state) {
                late.window += i64::from(more);
                more = repay(&mut late.debt, more);
                if more == 0 {
                    return Ok(());
                }
            }
        }
        self.pass_down(head, &more.to_be_bytes());
        Ok(())
    }

    /// GOAWAY: in the client's numbers, and so that no stream which Qbox answers is taken for one that nobody serves.
    fn upstream_leaves(&mut self, payload: &[u8]) -> Result<(), Error> {
        let said = frame::word(payload)? & MAX_STREAM;
        let rest = payload.get(4..).unwrap_or_default();
        if said == MAX_STREAM {
            let last = self.serves;
            self.put_goaway(last, rest);
            return Ok(());
        }
        let served = |up: u32| up == 0 || up <= said;
        let open = self.streams.iter().filter(|(_, stream)| served(stream.up));
        let open = open.map(|(id, _)| *id).max().unwrap_or(0);
        let last = match (self.shifted, said >= self.last_up) {
            (false, _) => said.max(open),
            (true, true) => self.last_client,
            (true, false) => open,
        };
        self.serves = last.min(self.serves);
        let last = self.serves;
        self.put_goaway(last, rest);
        // Those in between that the service does not serve may be sent again (RFC 9113, 8.7).
        let refused: Vec<u32> = (self.streams.iter())
            .filter(|(id, stream)| **id <= last && !served(stream.up))
            .map(|(id, _)| *id)
            .collect();
        for id in refused {
            self.close(id);
            self.reset_client(id, Code::Refused);
        }
        Ok(())
    }

    fn put_goaway(&mut self, last: u32, rest: &[u8]) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend_from_slice(rest);
        frame::put(&mut self.down.bytes, kind::GOAWAY, 0, 0, &payload);
    }
}

/// Whether a server's HTTP/2 can begin with this frame (RFC 9113, 3.4).
pub(in crate::proxy) fn begins_http2(bytes: &[u8]) -> bool {
    frame::Head::read(bytes).is_some_and(begins)
}

fn begins(head: frame::Head) -> bool {
    head.kind == kind::SETTINGS
        && head.flags == 0
        && head.stream == 0
        && head.len <= LONGEST
        && head.len.is_multiple_of(6)
}
