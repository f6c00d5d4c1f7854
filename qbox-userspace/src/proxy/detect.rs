//! Is it HTTP? Looks at the first line that a client sends, and takes nothing for HTTP that is not surely HTTP/1 or HTTP/2's preface:
//! a connection taken for opaque passes unharmed (its requests are no triggers, and it is counted), one taken wrongly
//! for HTTP would be broken. Pure; no errors.

use super::http2::PREFACE;
use crate::upstream::is_token;
use memchr::memchr;

/// The longest method that we take for one: registered ones have up to 17 bytes (`UPDATEREDIRECTREF`).
const METHOD: usize = 32;

/// What the first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detected {
    /// An HTTP/1.0 or 1.1 request line (RFC 9112, 3).
    Http1,
    /// HTTP/2's preface (RFC 9113, 3.4).
    Http2,
    /// TLS, or any other protocol.
    Foreign,
    /// Too short to tell.
    Undecided,
}

/// Looks at the bytes read so far.
pub(super) fn detect(bytes: &[u8]) -> Detected {
    if bytes.starts_with(PREFACE) {
        return Detected::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return Detected::Undecided;
    }
    // Empty lines before a request line are ignored (RFC 9112, 2.2).
    let line = bytes.trim_ascii_start_crlf();
    let Some(&first) = line.first() else {
        return if bytes.len() > 8 {
            Detected::Foreign
        } else {
            Detected::Undecided
        };
    };
    if !is_token(first) {
        return Detected::Foreign; // TLS's 0x16 among them
    }
    let method = line.iter().position(|byte| !is_token(*byte));
    match method {
        None if line.len() <= METHOD => return Detected::Undecided,
        Some(end) if end <= METHOD && line.get(end) == Some(&b' ') => {}
        _ => return Detected::Foreign,
    }
    let (line, whole) = match memchr(b'\n', line) {
        Some(end) => (line.get(..end).unwrap_or_default(), true),
        None => (line, false),
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
        return Detected::Foreign;
    }
    match whole {
        false => Detected::Undecided,
        true if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") => Detected::Http1,
        true => Detected::Foreign,
    }
}

/// Leading line ends, taken off.
pub(super) trait TrimCrlf {
    /// Without the CR and LF bytes it starts with.
    fn trim_ascii_start_crlf(&self) -> &Self;
}

impl TrimCrlf for [u8] {
    fn trim_ascii_start_crlf(&self) -> &Self {
        let lead = self
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        self.get(lead..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_requests() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "\r\nGET / HTTP/1.1\r\n",
            "POST http://a/b HTTP/1.0\r\nHost",
            "CONNECT a:1 HTTP/1.1\r\n",
            "M-SEARCH * HTTP/1.1\r\n",
            "GET / HTTP/1.1\n",
        ] {
            assert_eq!(detect(line.as_bytes()), Detected::Http1, "{line:?}");
        }
    }

    #[test]
    fn other_protocols() {
        for bytes in [
            &b"\x16\x03\x01\x02\x00"[..],
            b"\x16",
            b"PRI * HTTP/2.0\r\n\r\nSN",
            b"PING\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"EHLO example.org\r\n",
            b"get key\r\n",
            b"\0\0\0\x08",
            b"GET / HTTP/1.1 \r\n",
            b"GET /\r\n",
            b"GET / HTTP/1.2\r\n",
            b"GET \x01",
            b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
            b"averylongwordthatisnomethodofanyprotocol",
            b"\r\n\r\n\r\n\r\n\r\n",
        ] {
            assert_eq!(
                detect(bytes),
                Detected::Foreign,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn http_2() {
        for end in 0..PREFACE.len() {
            assert_eq!(detect(&PREFACE[..end]), Detected::Undecided, "{end}");
        }
        assert_eq!(detect(PREFACE), Detected::Http2);
        assert_eq!(detect(&[PREFACE, b"\0\0\0"].concat()), Detected::Http2);
    }

    #[test]
    fn every_prefix_of_a_request_line_is_undecided() {
        let line = b"OPTIONS * HTTP/1.1\r\n";
        for end in 0..line.len() {
            assert_eq!(detect(&line[..end]), Detected::Undecided, "{end}");
        }
        assert_eq!(detect(line), Detected::Http1);
    }
}
