//! A response's body, taken out of its framing (RFC 9112, 6.3 and 7.1). Bytes in, bytes out: no socket here.

use super::exchange::Fault;
use bytes::{Buf, Bytes, BytesMut};

/// The longest line of a chunk's size with its extensions, and of one trailer field.
const MAX_LINE: usize = 4 * 1024;
/// The trailer section in all; it is read and dropped.
const MAX_TRAILERS: usize = 16 * 1024;

/// How a body ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many further bytes.
    Length(u64),
    /// Where the chunks say.
    Chunked(Chunk),
    /// With the connection.
    Close,
}

/// What comes next in a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// A line with a size.
    Size,
    /// So many bytes of data.
    Data(u64),
    /// The line's end behind the data.
    DataEnd,
    /// Trailer fields, up to the empty line; so many bytes of them so far.
    Trailers(usize),
}

/// Whether the body is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All of it was read.
    Done,
    /// It goes on.
    More,
}

/// Keeps the first `limit` bytes, counts the rest.
#[derive(Debug)]
pub(super) struct Sink {
    kept: BytesMut,
    limit: usize,
    /// Bytes beyond the limit, read and dropped.
    pub(super) dropped: u64,
}

impl Sink {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            kept: BytesMut::new(),
            limit,
            dropped: 0,
        }
    }

    fn take(&mut self, from: &mut BytesMut, count: usize) {
        let keep = count.min(self.limit.saturating_sub(self.kept.len()));
        self.kept.extend_from_slice(&from[..keep]);
        from.advance(count);
        self.dropped = self.dropped.saturating_add((count - keep) as u64);
    }

    /// What was kept, and whether there was more.
    pub(super) fn finish(self) -> (Bytes, bool) {
        (self.kept.freeze(), self.dropped > 0)
    }
}

impl Framing {
    /// Takes what `buffer` holds of the body. At most a line's worth is left in it when [`Progress::More`] comes back.
    pub(super) fn advance(&mut self, buffer: &mut BytesMut, sink: &mut Sink) -> Result<Progress, Fault> {
        match self {
            Self::Length(left) => {
                take_some(left, buffer, sink);
                Ok(if *left == 0 {
                    Progress::Done
                } else {
                    Progress::More
                })
            }
            Self::Close => {
                let all = buffer.len();
                sink.take(buffer, all);
                Ok(Progress::More)
            }
            Self::Chunked(state) => state.advance(buffer, sink),
        }
    }

    /// Whether the end of the connection is the end of the body.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::Close)
    }
}

impl Chunk {
    fn advance(&mut self, buffer: &mut BytesMut, sink: &mut Sink) -> Result<Progress, Fault> {
        loop {
            match self {
                Self::Size => {
                    let Some(line) = take_line(buffer)? else {
                        return Ok(Progress::More);
                    };
                    *self = match chunk_size(&line)? {
                        0 => Self::Trailers(0),
                        size => Self::Data(size),
                    };
                }
                Self::Data(left) => {
                    take_some(left, buffer, sink);
                    if *left > 0 {
                        return Ok(Progress::More);
                    }
                    *self = Self::DataEnd;
                }
                Self::DataEnd => {
                    let Some(line) = take_line(buffer)? else {
                        return Ok(Progress::More);
                    };
                    if !line.is_empty() {
                        return Err(Fault::Malformed("a chunk is longer than its size"));
                    }
                    *self = Self::Size;
                }
                Self::Trailers(total) => {
                    let Some(line) = take_line(buffer)? else {
                        return Ok(Progress::More);
                    };
                    if line.is_empty() {
                        return Ok(Progress::Done);
                    }
                    *total += line.len();
                    if *total > MAX_TRAILERS {
                        return Err(Fault::Malformed("the trailers are too long"));
                    }
                }
            }
        }
    }
}

fn take_some(left: &mut u64, buffer: &mut BytesMut, sink: &mut Sink) {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    sink.take(buffer, count);
    *left -= count as u64;
}

/// A line without its CRLF. A bare LF is no line's end here: who reads it as one can be made to see two messages.
fn take_line(buffer: &mut BytesMut) -> Result<Option<BytesMut>, Fault> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        if buffer.len() > MAX_LINE {
            return Err(Fault::Malformed("a chunk's line is too long"));
        }
        return Ok(None);
    };
    if end > MAX_LINE || end == 0 || buffer[end - 1] != b'\r' {
        return Err(Fault::Malformed("a chunk's line is malformed"));
    }
    let mut line = buffer.split_to(end + 1);
    line.truncate(end - 1);
    Ok(Some(line))
}

fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    // What follows the digits is white space or an extension (RFC 9112, 7.1.1).
    let tail_fits = matches!(line.get(digits), None | Some(b';' | b' ' | b'\t'));
    let text = std::str::from_utf8(&line[..digits]).unwrap_or_default();
    match u64::from_str_radix(text, 16) {
        Ok(size) if digits <= 16 && tail_fits => Ok(size),
        _ => Err(Fault::Malformed("a chunk's size is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `step` and gives back (body, truncated, what is left).
    fn decode(
        mut framing: Framing,
        bytes: &[u8],
        step: usize,
        limit: usize,
    ) -> Result<(Bytes, bool, usize, Progress), Fault> {
        let (mut buffer, mut sink, mut last) = (BytesMut::new(), Sink::new(limit), Progress::More);
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            if last == Progress::More {
                last = framing.advance(&mut buffer, &mut sink)?;
            }
        }
        let (body, truncated) = sink.finish();
        Ok((body, truncated, buffer.len(), last))
    }

    #[test]
    fn chunks_come_out_whole_however_they_arrive() {
        let wire =
            b"4;x=\"y\"\r\nWiki\r\n6 \r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nA: b\r\nC: d\r\n\r\n";
        for step in 1..=wire.len() {
            let (body, truncated, left, last) =
                decode(Framing::Chunked(Chunk::Size), wire, step, 1000).unwrap();
            assert_eq!(&body[..], b"Wikipedia in \r\n\r\nchunks.", "in pieces of {step}");
            assert_eq!((truncated, left, last), (false, 0, Progress::Done));
        }
    }

    #[test]
    fn malformed_chunks_are_faults() {
        for wire in [
            &b"x\r\n"[..],
            b"\r\n",
            b"4\nWiki\n",
            b"-1\r\n",
            b"4\r\nWikipedia\r\n",
            b"11111111111111111\r\n",
            b"4,5\r\n",
        ] {
            assert!(
                decode(Framing::Chunked(Chunk::Size), wire, 1, 10).is_err(),
                "{wire:?}"
            );
        }
        let endless = vec![b'1'; MAX_LINE + 2];
        assert!(decode(Framing::Chunked(Chunk::Size), &endless, 100, 10).is_err());
        let trailers = [b"0\r\n".to_vec(), b"A: bbbbbbbbbb\r\n".repeat(2000)].concat();
        assert!(decode(Framing::Chunked(Chunk::Size), &trailers, 100, 10).is_err());
    }

    #[test]
    fn the_limit_keeps_the_front() {
        let (body, truncated, _, last) = decode(Framing::Length(10), b"0123456789", 3, 4).unwrap();
        assert_eq!((&body[..], truncated, last), (&b"0123"[..], true, Progress::Done));
        let (_, truncated, left, last) = decode(Framing::Length(4), b"0123next", 8, 4).unwrap();
        assert_eq!((truncated, left, last), (false, 4, Progress::Done));
        let (_, _, _, last) = decode(Framing::Close, b"0123", 8, 4).unwrap();
        assert_eq!(last, Progress::More);
    }
}
