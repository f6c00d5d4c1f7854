//! Answers that Qbox writes itself: a handler's reply, and the proxy's own problems. Adds the framing and `Date`;
//! lets no field through that would break either. No errors: a field that can't be sent is left out and logged.

use super::handler::Reply;
use crate::upstream::is_token;
use http::StatusCode;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Answers `Expect: 100-continue`.
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What the request says of its answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms {
    /// It was HEAD: no body.
    pub(super) head: bool,
    /// It was HTTP/1.0.
    pub(super) http10: bool,
    /// The connection ends after the answer.
    pub(super) close: bool,
}

/// One of the proxy's own answers.
pub(super) fn problem(status: u16, detail: &str) -> Reply {
    let title = StatusCode::from_u16(status)
        .ok()
        .and_then(|code| code.canonical_reason());
    Reply::problem(status, title, detail)
}

/// The bytes of an answer, `now` for its Date (RFC 9110, 6.6.1).
pub(super) fn serialize(reply: &Reply, terms: Terms, now: SystemTime) -> Vec<u8> {
    let status = match reply.status {
        status @ 200..=599 => status,
        status => {
            tracing::warn!(status, "a reply's status can't be sent; 500 goes instead");
            500
        }
    };
    let mut out = Vec::with_capacity(256 + reply.body.len());
    let reason = StatusCode::from_u16(status)
        .ok()
        .and_then(|code| code.canonical_reason())
        .unwrap_or_default();
    // Writing to a Vec does not fail.
    let _ = write!(out, "HTTP/1.1 {status} {reason}\r\n");
    let mut dated = false;
    for (name, value) in &reply.headers {
        if framing(name) {
            continue;
        }
        if name.is_empty() || !name.bytes().all(is_token) || value.iter().any(|byte| unsendable(*byte)) {
            tracing::warn!(%name, "a reply's field can't be sent; left out");
            continue;
        }
        dated |= name.eq_ignore_ascii_case("date");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    // 204 and 304 have no body, and the former no length (RFC 9110, 8.6).
    let bodiless = matches!(status, 204 | 304);
    // A reply to HEAD without a body does not know how long the one to GET would be (RFC 9110, 8.6).
    let unknown = terms.head && reply.body.is_empty();
    if !bodiless && !unknown {
        let _ = write!(out, "Content-Length: {}\r\n", reply.body.len());
    }
    if !dated {
        let _ = write!(out, "Date: {}\r\n", imf_fixdate(now));
    }
    if terms.close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if terms.http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !bodiless && !terms.head {
        out.extend_from_slice(&reply.body);
    }
    out
}

/// Fields about this connection and the body's framing: the proxy's own business (RFC 9110, 7.6.1).
pub(super) fn framing(name: &str) -> bool {
    [
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "trailer",
    ]
    .iter()
    .any(|own| name.eq_ignore_ascii_case(own))
}

/// Control characters but HTAB (RFC 9110, 5.5).
pub(super) fn unsendable(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7). Before 1970: 1970, and beyond 9999: 9999, as far as that form goes.
pub(super) fn imf_fixdate(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    httpdate::fmt_http_date(UNIX_EPOCH + since.min(LAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(seconds: u64) -> String {
        imf_fixdate(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn dates() {
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(date(4_107_542_399), "Sun, 28 Feb 2100 23:59:59 GMT");
        assert_eq!(date(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
        assert_eq!(date(1 << 40), "Fri, 31 Dec 9999 23:59:59 GMT");
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(imf_fixdate(before), date(0));
    }

    fn written(reply: &Reply, terms: Terms) -> String {
        String::from_utf8(serialize(reply, terms, UNIX_EPOCH)).unwrap()
    }

    #[test]
    fn frames_a_reply() {
        let reply = Reply {
            status: 201,
            headers: vec![
                ("X-A".into(), "1".into()),
                ("x-a".into(), "2".into()),
                ("Transfer-Encoding".into(), "chunked".into()),
                ("X-Evil".into(), "a\r\nSet-Cookie: b".into()),
                ("bad name".into(), "v".into()),
            ],
            body: "hello".into(),
        };
        assert_eq!(
            written(&reply, Terms::default()),
            "HTTP/1.1 201 Created\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 5\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nhello"
        );
        let head = written(
            &reply,
            Terms {
                head: true,
                close: true,
                ..Terms::default()
            },
        );
        assert!(head.contains("Content-Length: 5\r\n") && head.ends_with("Connection: close\r\n\r\n"));
        let old = written(
            &reply,
            Terms {
                http10: true,
                ..Terms::default()
            },
        );
        assert!(old.contains("Connection: keep-alive\r\n"));
    }

    #[test]
    fn a_length_that_is_not_known_is_not_said() {
        let head = Terms {
            head: true,
            ..Terms::default()
        };
        assert!(
            !written(
                &Reply {
                    status: 200,
                    ..Reply::default()
                },
                head
            )
            .contains("Length")
        );
        let get = written(
            &Reply {
                status: 200,
                ..Reply::default()
            },
            Terms::default(),
        );
        assert!(get.contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn odd_statuses() {
        let reply = |status| Reply {
            status,
            headers: Vec::new(),
            body: "x".into(),
        };
        let empty = written(&reply(204), Terms::default());
        assert!(!empty.contains("Length") && empty.ends_with("\r\n\r\n"));
        assert!(written(&reply(99), Terms::default()).starts_with("HTTP/1.1 500 "));
        assert!(written(&reply(299), Terms::default()).starts_with("HTTP/1.1 299 \r\n"));
    }
}
