//! Where a message's body ends (RFC 9112, 6.3), read strictly: a head that two readers could frame differently is an
//! error, never a guess. Pure. Errors say which rule a head broke.

use super::chunk::{ChunkError, ChunkScanner};
use httparse::Header;

/// A body on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Bytes that are still to come.
    Length(u64),
    /// Chunked, up to its last CRLF.
    Chunked(ChunkScanner),
    /// Up to the end of the connection (responses only).
    UntilClose,
}

impl Body {
    /// No body.
    pub(super) const NONE: Self = Self::Length(0);

    /// Nothing more of it is to come.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(scanner) => scanner.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Says how many of the bytes belong to the body; hands the content to `data`.
    ///
    /// # Errors
    /// No chunked body.
    pub(super) fn advance(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, ChunkError> {
        match self {
            Self::Length(left) => {
                let here = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= here as u64;
                data(input.get(..here).unwrap_or_default());
                Ok(here)
            }
            Self::Chunked(scanner) => scanner.advance(input, data),
            Self::UntilClose => {
                data(input);
                Ok(input.len())
            }
        }
    }
}

/// Why a head is refused; shown to the client in the 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// httparse's verdict: the request line, a name (a space before its colon, a folded line) or a value (a bare CR).
    #[error("malformed request head: {0}")]
    Head(httparse::Error),
    /// RFC 9112, 2.2.
    #[error("a line of the head ends in LF without CR")]
    BareLf,
    /// RFC 9112, 6.3.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// RFC 9112, 6.3.
    #[error("invalid, repeated or contradicting Content-Length")]
    Length,
    /// RFC 9112, 6.3.
    #[error("Transfer-Encoding that does not end in one chunked")]
    Coding,
    /// RFC 9112, 6.1.
    #[error("Transfer-Encoding in HTTP/1.0")]
    CodingInHttp10,
    /// RFC 9110, 9.3.6.
    #[error("CONNECT with a body")]
    ConnectBody,
    /// RFC 9112, 3.2.
    #[error("more than one Host")]
    Hosts,
    /// RFC 9112, 3.2; only where the destination is read from it.
    #[error("no Host")]
    NoHost,
    /// A target or Host that names no place to connect to.
    #[error("the request's authority is no host and port")]
    Authority,
}

/// What the framing fields of a head say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fields {
    length: Option<u64>,
    /// The length is said more than once, each time the same.
    repeated: bool,
    coding: Coding,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    /// No Transfer-Encoding.
    #[default]
    None,
    /// Chunked alone.
    Chunked,
    /// Others, then chunked.
    OthersThenChunked,
    /// Others, not chunked at the end.
    Others,
}

fn fields(headers: &[Header<'_>]) -> Result<Fields, Malformed> {
    let mut found = Fields::default();
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            for item in header.value.split(|byte| *byte == b',') {
                let value = decimal(trim(item)).ok_or(Malformed::Length)?;
                match found.length.replace(value) {
                    Some(other) if other != value => return Err(Malformed::Length),
                    Some(_) => found.repeated = true,
                    None => {}
                }
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // Folded (responses only): not every reader unfolds.
            if header.value.contains(&b'\n') {
                return Err(Malformed::Coding);
            }
            for item in header.value.split(|byte| *byte == b',') {
                let item = trim(item);
                if item.is_empty() {
                    return Err(Malformed::Coding);
                }
                let chunked = item.eq_ignore_ascii_case(b"chunked");
                found.coding = match (found.coding, chunked) {
                    (Coding::None, true) => Coding::Chunked,
                    (Coding::Others, true) => Coding::OthersThenChunked,
                    (Coding::None | Coding::Others, false) => Coding::Others,
                    // Nothing comes after chunked, itself included.
                    (Coding::Chunked | Coding::OthersThenChunked, _) => return Err(Malformed::Coding),
                };
            }
        }
    }
    if found.length.is_some() && found.coding != Coding::None {
        return Err(Malformed::LengthAndCoding);
    }
    Ok(found)
}

/// A request's body, and whether a coding beside chunked is on it.
///
/// # Errors
/// See [`Malformed`].
pub(super) fn request(http10: bool, headers: &[Header<'_>]) -> Result<(Body, bool), Malformed> {
    let fields = fields(headers)?;
    if http10 && fields.coding != Coding::None {
        return Err(Malformed::CodingInHttp10);
    }
    // A list of equal values may be refused or replaced by one, but not forwarded (RFC 9110, 8.6); and the bytes of a
    // request are never changed here.
    if fields.repeated {
        return Err(Malformed::Length);
    }
    match fields.coding {
        Coding::None => Ok((Body::Length(fields.length.unwrap_or(0)), false)),
        Coding::Chunked => Ok((Body::Chunked(ChunkScanner::new()), false)),
        Coding::OthersThenChunked => Ok((Body::Chunked(ChunkScanner::new()), true)),
        Coding::Others => Err(Malformed::Coding),
    }
}

/// A final response's body. `bodiless`: it answers HEAD.
///
/// # Errors
/// See [`Malformed`].
pub(super) fn response(
    http10: bool,
    status: u16,
    bodiless: bool,
    headers: &[Header<'_>],
) -> Result<Body, Malformed> {
    let fields = fields(headers)?;
    if http10 && fields.coding != Coding::None {
        return Err(Malformed::CodingInHttp10);
    }
    if bodiless || status == 204 || status == 304 {
        return Ok(Body::NONE);
    }
    Ok(match (fields.coding, fields.length) {
        (Coding::Chunked | Coding::OthersThenChunked, _) => Body::Chunked(ChunkScanner::new()),
        (Coding::None, Some(length)) => Body::Length(length),
        (Coding::None | Coding::Others, _) => Body::UntilClose,
    })
}

/// Only digits; at most 2^63.
fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 18 {
        return None;
    }
    bytes.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'9' => Some(value * 10 + u64::from(byte - b'0')),
        _ => None,
    })
}

/// Without SP and HTAB at the ends: a vertical tab is no white space here (RFC 9110, 5.6.3).
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// `value` holds `token` in its comma-separated list, without case.
pub(super) fn lists(value: &[u8], token: &str) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|item| trim(item).eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers<'a>(list: &[(&'a str, &'a str)]) -> Vec<Header<'a>> {
        list.iter()
            .map(|(name, value)| Header {
                name,
                value: value.as_bytes(),
            })
            .collect()
    }

    #[test]
    fn requests() {
        const CL: &str = "Content-Length";
        const TE: &str = "transfer-Encoding";
        let chunked = || Body::Chunked(ChunkScanner::new());
        for (list, expected) in [
            (&[][..], Ok((Body::NONE, false))),
            (&[(CL, "0")], Ok((Body::NONE, false))),
            (&[(CL, "42")], Ok((Body::Length(42), false))),
            (&[(CL, "42"), (CL, "42")], Err(Malformed::Length)),
            (&[(CL, "42, 42")], Err(Malformed::Length)),
            (&[(CL, "42"), (CL, "43")], Err(Malformed::Length)),
            (&[(CL, "42, 43")], Err(Malformed::Length)),
            (&[(CL, "+42")], Err(Malformed::Length)),
            (&[(CL, "-1")], Err(Malformed::Length)),
            (&[(CL, "0x10")], Err(Malformed::Length)),
            (&[(CL, "")], Err(Malformed::Length)),
            (&[(CL, "4 2")], Err(Malformed::Length)),
            (&[(CL, "42,")], Err(Malformed::Length)),
            (&[(CL, "99999999999999999999")], Err(Malformed::Length)),
            (&[(TE, "chunked")], Ok((chunked(), false))),
            (&[(TE, " ChunkeD\t")], Ok((chunked(), false))),
            (&[(TE, "gzip, chunked")], Ok((chunked(), true))),
            (&[(TE, "gzip"), (TE, "chunked")], Ok((chunked(), true))),
            (&[(TE, "gzip")], Err(Malformed::Coding)),
            (&[(TE, "identity")], Err(Malformed::Coding)),
            (&[(TE, "chunked, gzip")], Err(Malformed::Coding)),
            (&[(TE, "chunked, chunked")], Err(Malformed::Coding)),
            (&[(TE, "chunked"), (TE, "identity")], Err(Malformed::Coding)),
            (&[(TE, "xchunked")], Err(Malformed::Coding)),
            (&[(TE, "\x0bchunked")], Err(Malformed::Coding)),
            (&[(TE, "\"chunked\"")], Err(Malformed::Coding)),
            (&[(TE, "chunked;q=1")], Err(Malformed::Coding)),
            (&[(TE, "")], Err(Malformed::Coding)),
            (&[(TE, "chunked,")], Err(Malformed::Coding)),
            (&[(TE, "chunked"), (CL, "5")], Err(Malformed::LengthAndCoding)),
            (&[(CL, "5"), (TE, "gzip")], Err(Malformed::LengthAndCoding)),
        ] {
            assert_eq!(request(false, &headers(list)), expected, "{list:?}");
        }
        assert_eq!(
            request(true, &headers(&[(TE, "chunked")])),
            Err(Malformed::CodingInHttp10)
        );
    }

    #[test]
    fn responses() {
        let length = headers(&[("content-length", "5")]);
        let chunked = headers(&[("transfer-encoding", "chunked")]);
        assert_eq!(response(false, 200, false, &length), Ok(Body::Length(5)));
        assert_eq!(response(false, 200, true, &length), Ok(Body::NONE));
        // A response is not refused for it: its client sees what the service has said.
        let repeated = headers(&[("content-length", "5, 5"), ("content-length", "5")]);
        assert_eq!(response(false, 200, false, &repeated), Ok(Body::Length(5)));
        assert_eq!(response(false, 304, false, &length), Ok(Body::NONE));
        assert_eq!(response(false, 204, false, &chunked), Ok(Body::NONE));
        assert_eq!(
            response(false, 200, false, &chunked),
            Ok(Body::Chunked(ChunkScanner::new()))
        );
        assert_eq!(
            response(true, 200, false, &chunked),
            Err(Malformed::CodingInHttp10)
        );
        assert_eq!(response(true, 200, false, &[]), Ok(Body::UntilClose));
        let coded = headers(&[("transfer-encoding", "gzip")]);
        assert_eq!(response(false, 200, false, &coded), Ok(Body::UntilClose));
    }

    #[test]
    fn tokens_in_lists() {
        assert!(lists(b"keep-alive, Upgrade", "upgrade"));
        assert!(!lists(b"keep-alive, upgraded", "upgrade"));
    }
}
