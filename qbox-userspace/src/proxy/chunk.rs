//! The chunked transfer coding (RFC 9112, 7.1), scanned as it comes, at any split. Strict, since what one reader takes
//! for the end of a body another must not take for its middle: CRLF alone ends a line, sizes are bare hex digits,
//! extensions and trailers are bounded. Pure; its error means that the bytes are no chunked body.

use crate::upstream::is_token;

/// Hex digits of a chunk's size: up to 2^60 - 1 bytes.
const DIGITS: u8 = 15;
/// Bytes of one chunk's extensions.
const EXTENSIONS: u32 = 4096;
/// Bytes of the trailer section.
const TRAILERS: u32 = 64 << 10;

/// The bytes are no chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body")]
pub(super) struct ChunkError;

/// Where in the body the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size {
        value: u64,
        digits: u8,
    },
    /// White space behind the size: an extension follows, or (as old servers pad) the line's end.
    Padding {
        count: u32,
    },
    Extension {
        count: u32,
    },
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    LineStart,
    Name,
    Value,
    LineLf,
    EndLf,
    Done,
}

/// The scanner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkScanner {
    at: At,
    size: u64,
    trailers: u32,
}

impl ChunkScanner {
    /// Before the first chunk.
    pub(super) fn new() -> Self {
        Self {
            at: At::Size { value: 0, digits: 0 },
            size: 0,
            trailers: 0,
        }
    }

    /// The last CRLF has been seen.
    pub(super) fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Reads on; hands each run of data to `data`. Says how many bytes belonged to the body: all of them, unless it
    /// is done.
    ///
    /// # Errors
    /// The bytes are no chunked body; the scanner is of no further use.
    pub(super) fn advance(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, ChunkError> {
        let mut position = 0;
        while let Some(&byte) = input.get(position) {
            self.at = match self.at {
                At::Done => return Ok(position),
                At::Data { left } => {
                    let rest = input.get(position..).unwrap_or_default();
                    let here = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    data(rest.get(..here).unwrap_or_default());
                    position += here;
                    match left - here as u64 {
                        0 => self.at = At::DataCr,
                        left => self.at = At::Data { left },
                    }
                    continue;
                }
                at => self.step(at, byte)?,
            };
            position += 1;
        }
        Ok(position)
    }

    fn step(&mut self, at: At, byte: u8) -> Result<At, ChunkError> {
        Ok(match (at, byte) {
            (At::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == DIGITS {
                    return Err(ChunkError);
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                At::Size {
                    value: value * 16 + digit,
                    digits: digits + 1,
                }
            }
            (At::Size { digits: 0, .. }, _) => return Err(ChunkError),
            (At::Size { value, .. }, b'\r') => At::SizeLf { value },
            (At::Size { value, .. }, b';') => {
                self.size = value;
                At::Extension { count: 1 }
            }
            (At::Size { value, .. }, b' ' | b'\t') => {
                self.size = value;
                At::Padding { count: 1 }
            }
            (At::Padding { count }, b' ' | b'\t') if count < EXTENSIONS => At::Padding { count: count + 1 },
            (At::Padding { count }, b';') => At::Extension { count: count + 1 },
            (At::Padding { .. }, b'\r') => At::SizeLf { value: self.size },
            (At::Extension { .. }, b'\r') => At::SizeLf { value: self.size },
            (At::Extension { count }, b'\t' | b' '..=b'~' | 0x80..) if count < EXTENSIONS => {
                At::Extension { count: count + 1 }
            }
            (At::SizeLf { value: 0 }, b'\n') => At::LineStart,
            (At::SizeLf { value }, b'\n') => At::Data { left: value },
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size { value: 0, digits: 0 },
            (At::LineStart, b'\r') => At::EndLf,
            (At::EndLf, b'\n') => At::Done,
            (At::LineLf, b'\n') => At::LineStart,
            (At::Name, b':') => self.trailer(At::Value)?,
            (At::LineStart | At::Name, _) if is_token(byte) => self.trailer(At::Name)?,
            (At::Value, b'\r') => At::LineLf,
            (At::Value, b'\t' | b' '..=b'~' | 0x80..) => self.trailer(At::Value)?,
            _ => return Err(ChunkError),
        })
    }

    fn trailer(&mut self, next: At) -> Result<At, ChunkError> {
        self.trailers += 1;
        if self.trailers > TRAILERS {
            Err(ChunkError)
        } else {
            Ok(next)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(parts: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), ChunkError> {
        let mut scanner = ChunkScanner::new();
        let (mut body, mut used) = (Vec::new(), 0);
        for part in parts {
            used += scanner.advance(part, |data| body.extend_from_slice(data))?;
        }
        Ok((body, used, scanner.is_done()))
    }

    const BODY: &[u8] = b"5\r\nhello\r\n0A;a=b;c=\"d e\"\r\n0123456789\r\n000\r\nX-Sum: 1\r\ny:\r\n\r\n";

    #[test]
    fn at_every_split() {
        for cut in 0..=BODY.len() {
            let (body, used, done) = decode(&[&BODY[..cut], &BODY[cut..], b"GET /"]).unwrap();
            assert_eq!(
                (&body[..], used, done),
                (&b"hello0123456789"[..], BODY.len(), true),
                "{cut}"
            );
        }
        let bytes: Vec<&[u8]> = BODY.chunks(1).collect();
        assert_eq!(decode(&bytes).unwrap().0, b"hello0123456789");
    }

    #[test]
    fn refuses_what_readers_differ_on() {
        for bytes in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b" 5\r\n",
            b"5 5\r\n",
            b"5 \tx\r\n",
            b"5 \n",
            b"5\n",
            b"5\r5",
            b"5;a\nb",
            b"5;a\rb",
            b"1\r\nab",
            b"1\r\na\n",
            b"1\r\na\rb",
            b"1000000000000000\r\n",
            b"0\r\n x: folded\r\n\r\n",
            b"0\r\nname : v\r\n\r\n",
            b"0\r\nname\r\n\r\n",
            b"0\r\nname: a\nb: c\r\n\r\n",
            b"0\r\n\n",
            b"0\n\n",
        ] {
            assert!(decode(&[bytes]).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn bounds_extensions_and_trailers() {
        let long = vec![b'a'; 70_000];
        assert!(decode(&[b"5;", &long]).is_err());
        assert!(decode(&[b"0\r\nx:", &long]).is_err());
    }
}
