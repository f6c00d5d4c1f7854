//! HTTP/2's frames (RFC 9113, 4 and 6), as far as a relay reads and writes them. Pure; what can't be read is an error of
//! the connection, as an [`Error`] with its code (RFC 9113, 7).

/// What a client sends first (RFC 9113, 3.4).
pub(in crate::proxy) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's header.
pub(super) const HEADER: usize = 9;
/// The longest payload that is passed. Both ends are told so by the other's SETTINGS_MAX_FRAME_SIZE, lowered on its way:
/// a frame is then whole in a buffer before any of it is passed, and what Qbox itself sends fits in between.
pub(super) const LONGEST: usize = 32 << 10;
/// The longest payload that every end takes (RFC 9113, 4.2).
pub(super) const USUAL: usize = 16 << 10;

/// Frame types (RFC 9113, 6; RFC 9218, 7.1).
pub(super) mod kind {
    pub(in crate::proxy::http2) const DATA: u8 = 0;
    pub(in crate::proxy::http2) const HEADERS: u8 = 1;
    pub(in crate::proxy::http2) const PRIORITY: u8 = 2;
    pub(in crate::proxy::http2) const RST_STREAM: u8 = 3;
    pub(in crate::proxy::http2) const SETTINGS: u8 = 4;
    pub(in crate::proxy::http2) const PUSH_PROMISE: u8 = 5;
    pub(in crate::proxy::http2) const PING: u8 = 6;
    pub(in crate::proxy::http2) const GOAWAY: u8 = 7;
    pub(in crate::proxy::http2) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::proxy::http2) const CONTINUATION: u8 = 9;
    pub(in crate::proxy::http2) const PRIORITY_UPDATE: u8 = 16;
}

/// Flags of frames.
pub(super) mod flag {
    /// Of SETTINGS and PING.
    pub(in crate::proxy::http2) const ACK: u8 = 1;
    pub(in crate::proxy::http2) const END_STREAM: u8 = 1;
    pub(in crate::proxy::http2) const END_HEADERS: u8 = 4;
    pub(in crate::proxy::http2) const PADDED: u8 = 8;
    pub(in crate::proxy::http2) const PRIORITY: u8 = 32;
}

/// Error codes (RFC 9113, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::proxy) enum Code {
    No = 0,
    Protocol = 1,
    Internal = 2,
    StreamClosed = 5,
    FrameSize = 6,
    Refused = 7,
    Compression = 9,
    EnhanceYourCalm = 11,
    Http11Required = 13,
}

/// The connection can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(super) struct Error {
    /// What GOAWAY says.
    pub(super) code: Code,
    /// For people.
    pub(super) what: &'static str,
}

impl Error {
    pub(super) const fn new(code: Code, what: &'static str) -> Self {
        Self { code, what }
    }

    pub(super) const fn protocol(what: &'static str) -> Self {
        Self::new(Code::Protocol, what)
    }

    pub(super) const fn size(what: &'static str) -> Self {
        Self::new(Code::FrameSize, what)
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the payload.
    pub(super) len: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// `None`: more bytes are needed.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, i, j, k, l, ..] = bytes else {
            return None;
        };
        Some(Self {
            len: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind,
            flags,
            stream: u32::from_be_bytes([i, j, k, l]) & MAX_STREAM,
        })
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        let [.., a, b, c] = self.len.to_be_bytes();
        out.extend_from_slice(&[a, b, c, self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The highest stream identifier, and what GOAWAY names first when a server is about to go (RFC 9113, 6.8).
pub(super) const MAX_STREAM: u32 = 0x7fff_ffff;

/// Writes a frame.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    Head {
        len: payload.len(),
        kind,
        flags,
        stream,
    }
    .write(out);
    out.extend_from_slice(payload);
}

/// Writes a RST_STREAM.
pub(super) fn reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    put(out, kind::RST_STREAM, 0, stream, &(code as u32).to_be_bytes());
}

/// Writes a WINDOW_UPDATE; none for 0.
pub(super) fn credit(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    if bytes > 0 {
        put(out, kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }
}

/// Writes a GOAWAY.
pub(super) fn goaway(out: &mut Vec<u8>, last: u32, code: Code, what: &str) {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend_from_slice(&(code as u32).to_be_bytes());
    payload.extend_from_slice(what.as_bytes());
    put(out, kind::GOAWAY, 0, 0, &payload);
}

/// Writes a block of fields as HEADERS or PUSH_PROMISE and as many CONTINUATIONs as it needs. `lead` stands before the
/// fields: the priority, or the promised stream.
pub(super) fn block(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, lead: &[u8], fields: &[u8]) {
    let (mut first, mut rest) = fields.split_at(fields.len().min(USUAL - lead.len()));
    let end = |rest: &[u8]| if rest.is_empty() { flag::END_HEADERS } else { 0 };
    Head {
        len: lead.len() + first.len(),
        kind,
        flags: flags | end(rest),
        stream,
    }
    .write(out);
    out.extend_from_slice(lead);
    out.extend_from_slice(first);
    while !rest.is_empty() {
        (first, rest) = rest.split_at(rest.len().min(USUAL));
        put(out, kind::CONTINUATION, end(rest), stream, first);
    }
}

/// The payload without its padding (RFC 9113, 6.1).
///
/// # Errors
/// There is more padding than payload.
pub(super) fn unpad(head: Head, payload: &[u8]) -> Result<&[u8], Error> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    payload
        .split_first()
        .and_then(|(padding, rest)| rest.get(..rest.len().checked_sub(usize::from(*padding))?))
        .ok_or(Error::protocol("a frame is nothing but padding"))
}

/// The first four bytes.
///
/// # Errors
/// There are fewer.
pub(super) fn word(payload: &[u8]) -> Result<u32, Error> {
    match payload {
        &[a, b, c, d, ..] => Ok(u32::from_be_bytes([a, b, c, d])),
        _ => Err(Error::size("a frame is too short")),
    }
}

/// Settings that a relay reads (RFC 9113, 6.5.2).
pub(super) mod setting {
    pub(in crate::proxy::http2) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in crate::proxy::http2) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in crate::proxy::http2) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in crate::proxy::http2) const MAX_FRAME_SIZE: u16 = 5;
    pub(in crate::proxy::http2) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The settings of a SETTINGS frame, in order.
pub(super) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload.chunks_exact(6).map(|six| match six {
        &[a, b, c, d, e, f] => (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])),
        _ => (0, 0),
    })
}

/// Adds a setting to a payload.
pub(super) fn put_setting(payload: &mut Vec<u8>, name: u16, value: u32) {
    payload.extend_from_slice(&name.to_be_bytes());
    payload.extend_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_is_written() {
        let head = Head {
            len: 0x01_02_03,
            kind: kind::HEADERS,
            flags: flag::END_HEADERS,
            stream: 0x0102_0304,
        };
        let mut bytes = Vec::new();
        head.write(&mut bytes);
        assert_eq!(bytes, [1, 2, 3, 1, 4, 1, 2, 3, 4]);
        assert_eq!(Head::read(&bytes), Some(head));
        assert_eq!(Head::read(&bytes[..8]), None);
        // The reserved bit means nothing.
        bytes[5] |= 0x80;
        assert_eq!(Head::read(&bytes), Some(head));
    }

    #[test]
    fn padding() {
        let head = |flags| Head {
            len: 0,
            kind: kind::DATA,
            flags,
            stream: 1,
        };
        assert_eq!(unpad(head(0), b"\x02abc"), Ok(&b"\x02abc"[..]));
        assert_eq!(unpad(head(flag::PADDED), b"\x02abc"), Ok(&b"a"[..]));
        assert_eq!(unpad(head(flag::PADDED), b"\x03abc"), Ok(&b""[..]));
        assert!(unpad(head(flag::PADDED), b"\x04abc").is_err());
        assert!(unpad(head(flag::PADDED), b"").is_err());
    }

    #[test]
    fn a_long_block_is_continued() {
        let mut out = Vec::new();
        block(
            &mut out,
            kind::HEADERS,
            flag::END_STREAM,
            5,
            &[9; 5],
            &vec![7; 40_000],
        );
        let mut heads = Vec::new();
        let mut rest = &out[..];
        while let Some(head) = Head::read(rest) {
            heads.push((head.kind, head.flags, head.len));
            rest = &rest[HEADER + head.len..];
        }
        assert_eq!(heads, [(1, 1, USUAL), (9, 0, USUAL), (9, 4, 40_005 - 2 * USUAL)]);
    }
}
