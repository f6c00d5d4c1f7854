//! Message heads, read in place: where one ends, and the few facts of it that a relay needs. The bytes themselves are
//! never changed here. Pure; errors are [`Malformed`].

use super::detect::TrimCrlf;
use super::explicit::Route;
use super::framing::{self, Body, Malformed, lists};
use super::handler::{Head, Verdict};
use httparse::{EMPTY_HEADER, Header, Status};
use memchr::{memchr, memchr_iter};
use std::mem::MaybeUninit;

/// Fields in one head.
pub(super) const FIELDS: usize = 128;
/// Bytes of line ends before a request line: clients of old send one CRLF after a body (RFC 9112, 2.2).
const EMPTY_LINES: usize = 8;

/// Where a head ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At this byte, its empty line included.
    At(usize),
    /// Not in these bytes; look again from there when more have come.
    NotBefore(usize),
}

/// Finds the empty line. Any line end counts, so that a malformed head is found (and refused) rather than waited for.
pub(super) fn end(bytes: &[u8], from: usize) -> End {
    let lead = bytes.len() - bytes.trim_ascii_start_crlf().len();
    if lead > EMPTY_LINES {
        return End::At(lead);
    }
    let from = from.max(lead);
    for newline in memchr_iter(b'\n', bytes.get(from..).unwrap_or_default()) {
        let at = from + newline;
        match bytes.get(at + 1..).unwrap_or_default() {
            [b'\n', ..] => return End::At(at + 2),
            [b'\r', b'\n', ..] => return End::At(at + 3),
            [] | [b'\r'] => return End::NotBefore(at),
            _ => {}
        }
    }
    End::NotBefore(bytes.len())
}

/// A first line is whole in these bytes.
pub(super) fn has_line(bytes: &[u8]) -> bool {
    memchr(b'\n', bytes.trim_ascii_start_crlf()).is_some()
}

/// What a relay needs to know of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Bytes of the head.
    pub(super) len: usize,
    /// What follows it.
    pub(super) body: Body,
    /// A coding beside chunked is on the body.
    pub(super) coded: bool,
    /// HEAD: its response has no body.
    pub(super) head: bool,
    /// CONNECT: a 2xx opens a tunnel.
    pub(super) connect: bool,
    /// It asks to leave HTTP/1.
    pub(super) upgrade: bool,
    /// It waits for `100 Continue`.
    pub(super) expects: bool,
    /// HTTP/1.0.
    pub(super) http10: bool,
    /// The client wants the connection kept.
    pub(super) keep: bool,
    /// What the handler said.
    pub(super) verdict: Verdict,
    /// Where it goes; only in explicit mode.
    pub(super) route: Option<Route>,
}

/// A refused head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Answered with 400.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Answered with 431 (RFC 6585, 5).
    #[error("the request head has more than {FIELDS} fields")]
    Fields,
}

/// Reads a whole request head, asks `inspect` about it. With `explicit`, finds out where it goes, too.
///
/// # Errors
/// See [`Refused`].
pub(super) fn request(
    bytes: &[u8],
    explicit: bool,
    inspect: impl FnOnce(Head<'_>) -> Verdict,
) -> Result<Request, Refused> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(Status::Complete(len)) if len == bytes.len() => {}
        Ok(_) => return Err(Malformed::Head(httparse::Error::NewLine).into()),
        Err(httparse::Error::TooManyHeaders) => return Err(Refused::Fields),
        Err(error) => return Err(Malformed::Head(error).into()),
    }
    if has_bare_lf(bytes) {
        return Err(Malformed::BareLf.into());
    }
    let (method, target) = (
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
    );
    let headers: &[Header<'_>] = request.headers;
    let http10 = request.version == Some(0);
    let (body, coded) = framing::request(http10, headers)?;
    let facts = Facts::of(headers);
    if facts.hosts > 1 {
        return Err(Malformed::Hosts.into());
    }
    let connect = method == "CONNECT";
    // What follows a CONNECT belongs to the tunnel, or to the next request; a length would have a third reading.
    if connect && !body.is_done() {
        return Err(Malformed::ConnectBody.into());
    }
    let route = if explicit {
        Some(Route::of(method, target, facts.host)?)
    } else {
        None
    };
    Ok(Request {
        len: bytes.len(),
        body,
        coded,
        head: method == "HEAD",
        connect,
        upgrade: facts.upgrade && facts.connection_upgrade && !http10,
        expects: facts.expects && !http10,
        http10,
        keep: !facts.close && (!http10 || facts.keep_alive),
        verdict: inspect(Head {
            method,
            target: without_fragment(target),
            headers,
        }),
        route,
    })
}

/// A target as servers read one that has a fragment, which none should (RFC 9112, 3.2): it names the same without.
pub(super) fn without_fragment(target: &str) -> &str {
    target.split('#').next().unwrap_or(target)
}

/// Reads a request head again, for the handler that takes it: method, target, fields.
pub(super) fn with_request<R>(bytes: &[u8], read: impl FnOnce(Head<'_>) -> R) -> Option<R> {
    let mut fields = [EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(bytes).ok()?;
    Some(read(Head {
        method: request.method?,
        target: without_fragment(request.path?),
        headers: request.headers,
    }))
}

/// What a relay needs to know of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// 100 to 999.
    pub(super) status: u16,
    /// What follows the head, if it is a final one.
    pub(super) body: Body,
    /// The server keeps the connection.
    pub(super) keep: bool,
}

/// Reads a whole response head. `bodiless`: it answers HEAD.
///
/// # Errors
/// It can't be framed with certainty.
pub(super) fn response(bytes: &[u8], bodiless: bool) -> Result<Response, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // Its framing is the same for every reader (a folded length has none), so it can be followed (RFC 9112, 5.2).
    config.allow_obsolete_multiline_headers_in_responses(true);
    match config.parse_response_with_uninit_headers(&mut response, bytes, &mut fields) {
        Ok(Status::Complete(len)) if len == bytes.len() => {}
        Ok(_) => return Err(Malformed::Head(httparse::Error::NewLine)),
        Err(error) => return Err(Malformed::Head(error)),
    }
    if has_bare_lf(bytes) {
        return Err(Malformed::BareLf);
    }
    let status = response.code.unwrap_or_default();
    let http10 = response.version == Some(0);
    let interim = (100..200).contains(&status);
    let body = if interim {
        Body::NONE
    } else {
        framing::response(http10, status, bodiless, response.headers)?
    };
    let facts = Facts::of(response.headers);
    let keep = !facts.close && (!http10 || facts.keep_alive) && body != Body::UntilClose;
    Ok(Response { status, body, keep })
}

/// A response can still begin with these bytes.
pub(super) fn may_be_response(bytes: &[u8]) -> bool {
    const PREFIX: &[u8] = b"HTTP/1.";
    let len = PREFIX.len().min(bytes.len());
    bytes.get(..len) == PREFIX.get(..len)
}

#[derive(Debug, Default)]
struct Facts<'a> {
    host: Option<&'a [u8]>,
    hosts: u32,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade: bool,
    expects: bool,
}

impl<'a> Facts<'a> {
    fn of(headers: &[Header<'a>]) -> Self {
        let mut facts = Self::default();
        for Header { name, value } in headers {
            // Lengths first: most fields end here.
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => {
                    facts.host = Some(value);
                    facts.hosts += 1;
                }
                6 if name.eq_ignore_ascii_case("expect") => facts.expects |= lists(value, "100-continue"),
                7 if name.eq_ignore_ascii_case("upgrade") => facts.upgrade = true,
                10 if name.eq_ignore_ascii_case("connection") => {
                    facts.close |= lists(value, "close");
                    facts.keep_alive |= lists(value, "keep-alive");
                    facts.connection_upgrade |= lists(value, "upgrade");
                }
                _ => {}
            }
        }
        facts
    }
}

fn has_bare_lf(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = memchr(b'\n', rest) {
        if at == 0 || rest.get(at - 1) != Some(&b'\r') {
            return true;
        }
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    false
}

/// Whether a response's head that can't be read has a status by which nobody leaves HTTP/1 (RFC 9110, 7.8 and 9.3.6).
/// `connect`: it answers CONNECT.
pub(super) fn refuses_to_leave(head: &[u8], connect: bool) -> bool {
    match head {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            _,
            b' ',
            class,
            _,
            _,
            b' ' | b'\r',
            ..,
        ] => matches!(class, b'3'..=b'5') || (*class == b'2' && !connect),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Request, Refused> {
        request(text.as_bytes(), false, |_| Verdict::Pass)
    }

    #[test]
    fn finds_the_end_at_any_split() {
        let text = b"\r\nGET / HTTP/1.1\r\na: b\r\n\r\nrest";
        let whole = text.len() - 4;
        let mut from = 0;
        for len in 0..=text.len() {
            match end(&text[..len], from) {
                End::At(at) => {
                    assert_eq!((at, len >= whole), (whole, true));
                }
                End::NotBefore(next) => {
                    assert!(len < whole);
                    from = next;
                }
            }
        }
        assert_eq!(end(b"GET / HTTP/1.1\n\nx", 0), End::At(16));
        assert_eq!(end(b"\n\n\n\n\n\n\n\n\n", 0), End::At(9));
    }

    #[test]
    fn a_fragment_names_nothing() {
        for (sent, names) in [
            ("/take/7#x", "/take/7"),
            ("/a?b#c?d#e", "/a?b"),
            ("http://a/b#", "http://a/b"),
        ] {
            let text = format!("POST {sent} HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut seen = Vec::new();
            request(text.as_bytes(), false, |head| {
                seen.push(head.target.to_owned());
                Verdict::Pass
            })
            .unwrap();
            seen.extend(with_request(text.as_bytes(), |head| head.target.to_owned()));
            assert_eq!(seen, [names, names]);
        }
    }

    #[test]
    fn facts_of_a_request() {
        let get = read("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(get.keep && !get.upgrade && !get.expects && get.body == Body::NONE);
        let old = read("GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(!old.keep);
        assert!(
            read("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n")
                .unwrap()
                .keep
        );
        let ws = read("GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert!(ws.unwrap().upgrade);
        let put = read("PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").unwrap();
        assert!(put.expects && put.body == Body::Length(3));
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        for fields in [
            "Host: a\r\nHost: b\r\n",
            "Host : a\r\n",
            "Host: a\r\n folded\r\n",
            " Host: a\r\n",
            "Host: a\rb\r\n",
            "Host: a\nX: b\r\n",
            "Host: a\0b\r\n",
            "Ho st: a\r\n",
            "no colon\r\n",
            ": empty\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
        ] {
            assert!(
                read(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).is_err(),
                "{fields:?}"
            );
        }
        let many = "a: b\r\n".repeat(FIELDS + 1);
        assert_eq!(
            read(&format!("GET / HTTP/1.1\r\n{many}\r\n")),
            Err(Refused::Fields)
        );
        assert!(read("GET  / HTTP/1.1\r\n\r\n").is_err());
        assert!(read("GET / HTTP/1.1\n\r\n").is_err());
    }

    #[test]
    fn responses() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        let read = response(head, false).unwrap();
        assert_eq!((read.status, read.body, read.keep), (200, Body::Length(5), true));
        assert_eq!(response(head, true).unwrap().body, Body::NONE);
        assert!(!response(b"HTTP/1.1 200 OK\r\n\r\n", false).unwrap().keep);
        assert!(
            !response(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false)
                .unwrap()
                .keep
        );
        assert!(response(b"HTTP/1.1 200 OK\nContent-Length: 5\n\n", false).is_err());
        let folded = response(
            b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\n",
            false,
        );
        assert_eq!(folded.unwrap().body, Body::Length(5));
        for field in ["Content-Length: 5\r\n 5", "Transfer-Encoding: gzip,\r\n chunked"] {
            let head = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
            assert!(response(head.as_bytes(), false).is_err(), "{field:?}");
        }
        assert!(may_be_response(b"HT") && may_be_response(b"HTTP/1.1 2") && !may_be_response(b"ICY 200"));
    }
}
