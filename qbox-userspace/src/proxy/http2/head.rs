//! A request's fields: are they a request (RFC 9113, 8.2 and 8.3), what is it, and how the [`Handler`](crate::proxy::Handler) sees it; and the
//! fields of an answer. Pure; a request that is none is [`Malformed`].

use super::super::handler::{Head, Reply, Verdict};
use super::super::head::{FIELDS, without_fragment};
use super::super::reply;
use super::hpack::{Field, Fields, put};
use crate::upstream::is_token;
use bytes::Bytes;
use httparse::{EMPTY_HEADER, Header};
use smol_str::SmolStr;
use std::str;
use std::time::SystemTime;

/// No request, or no trailers: what is answered with PROTOCOL_ERROR on its stream (RFC 9113, 8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed request: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// What a relay needs to know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// Empty for a plain CONNECT.
    pub(super) path: &'a str,
    pub(super) authority: Option<&'a str>,
    /// It can be a trigger: plain http, and no tunnel.
    plain: bool,
    /// The body's bytes, if it says.
    pub(super) length: Option<u64>,
    /// It waits for an interim response before it sends its body.
    pub(super) expects: bool,
    /// There is a `host` field.
    host: bool,
    /// There are more fields than are looked at.
    pub(super) many: bool,
}

/// Reads a request off its fields.
///
/// # Errors
/// What no server may take for a request, and no intermediary may pass on.
pub(super) fn request(fields: &Fields) -> Result<Request<'_>, Malformed> {
    let [mut method, mut scheme, mut path, mut authority, mut protocol] = [None; 5];
    let mut host: Option<&[u8]> = None;
    let mut length = None;
    let mut expects = false;
    let mut regular = 0;
    for field in fields.iter() {
        check(field)?;
        if field.name.starts_with(b":") {
            if regular > 0 {
                return Err(Malformed("a pseudo-header behind a field"));
            }
            let place = match field.name {
                b":method" => &mut method,
                b":scheme" => &mut scheme,
                b":path" => &mut path,
                b":authority" => &mut authority,
                b":protocol" => &mut protocol,
                _ => return Err(Malformed("an unknown pseudo-header")),
            };
            let value =
                str::from_utf8(field.value).map_err(|_| Malformed("a pseudo-header that is no text"))?;
            if value.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
                return Err(Malformed("white space or a control in a pseudo-header"));
            }
            if place.replace(value).is_some() {
                return Err(Malformed("a pseudo-header twice"));
            }
            continue;
        }
        regular += 1;
        match field.name {
            b"host" if host.replace(field.value).is_some() => return Err(Malformed("more than one host")),
            b"content-length" if length.replace(digits(field.value)?).is_some() => {
                return Err(Malformed("more than one content-length"));
            }
            b"expect" => expects |= field.value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
    }
    let method = method
        .filter(|method| !method.is_empty() && method.bytes().all(is_token))
        .ok_or(Malformed("no :method"))?;
    let tunnel = method == "CONNECT" && protocol.is_none();
    match (tunnel, scheme, path) {
        (true, None, None) if authority.is_some() => {}
        (true, ..) => return Err(Malformed("a CONNECT with more or less than an :authority")),
        (false, Some(scheme), Some(path)) => {
            let web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
            if path.is_empty() || (web && !path.starts_with('/') && !(path == "*" && method == "OPTIONS")) {
                return Err(Malformed("a :path without its slash"));
            }
            if web && authority.is_some_and(|authority| authority.contains('@')) {
                return Err(Malformed("a user in :authority"));
            }
        }
        (false, ..) => return Err(Malformed("no :scheme or no :path")),
    }
    if let (Some(authority), Some(host)) = (authority, host)
        && !same_host(authority.as_bytes(), host)
    {
        return Err(Malformed("a host other than :authority"));
    }
    Ok(Request {
        method,
        path: without_fragment(path.unwrap_or_default()),
        authority,
        plain: method != "CONNECT"
            && protocol.is_none()
            && scheme.is_some_and(|s| s.eq_ignore_ascii_case("http")),
        length,
        expects,
        host: host.is_some(),
        many: regular > FIELDS,
    })
}

/// Whether fields may be trailers.
///
/// # Errors
/// They may not.
pub(super) fn trailers(fields: &Fields) -> Result<(), Malformed> {
    for field in fields.iter() {
        check(field)?;
        if field.name.starts_with(b":") {
            return Err(Malformed("a pseudo-header in trailers"));
        }
    }
    Ok(())
}

fn check(field: Field<'_>) -> Result<(), Malformed> {
    let name = field.name.strip_prefix(b":").unwrap_or(field.name);
    if name.is_empty()
        || !name
            .iter()
            .all(|byte| is_token(*byte) && !byte.is_ascii_uppercase())
    {
        return Err(Malformed("a field's name that is none"));
    }
    if field.value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Err(Malformed("a line's end in a value"));
    }
    let white = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if white(field.value.first()) || white(field.value.last()) {
        return Err(Malformed("white space around a value"));
    }
    match name {
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
            Err(Malformed("a field of HTTP/1's connections"))
        }
        b"te" if !field.value.eq_ignore_ascii_case(b"trailers") => {
            Err(Malformed("te with more than trailers"))
        }
        _ => Ok(()),
    }
}

fn digits(value: &[u8]) -> Result<u64, Malformed> {
    let malformed = Malformed("a content-length that is no number");
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(malformed);
    }
    str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(malformed)
}

/// Without case, and with or without the default port.
fn same_host(one: &[u8], other: &[u8]) -> bool {
    let bare = |host: &'_ [u8]| host.strip_suffix(b":80").unwrap_or(host).to_ascii_lowercase();
    one.eq_ignore_ascii_case(other) || bare(one) == bare(other)
}

/// What the handler says of a request. It sees what an HTTP/1 server would: the authority as `host`.
pub(super) fn verdict(
    request: &Request<'_>,
    fields: &Fields,
    inspect: impl FnOnce(Head<'_>) -> Verdict,
) -> Verdict {
    if !request.plain {
        return Verdict::Pass;
    }
    let mut headers = [EMPTY_HEADER; FIELDS + 1];
    let mut count = 0;
    let host = request
        .authority
        .filter(|_| !request.host)
        .map(|authority| Header {
            name: "host",
            value: authority.as_bytes(),
        });
    let regular = fields.iter().filter_map(|field| {
        let name = str::from_utf8(field.name)
            .ok()
            .filter(|name| !name.starts_with(':'))?;
        Some(Header {
            name,
            value: field.value,
        })
    });
    for (place, header) in headers.iter_mut().zip(host.into_iter().chain(regular)) {
        *place = header;
        count += 1;
    }
    inspect(Head {
        method: request.method,
        target: request.path,
        headers: headers.get(..count).unwrap_or_default(),
    })
}

/// The fields of a request that is taken, as HTTP/1 would have them: the authority as `host`, and one `cookie`
/// (RFC 9113, 8.2.3 and 8.3.1).
pub(super) fn taken_fields(request: &Request<'_>, fields: &Fields) -> Vec<(SmolStr, Bytes)> {
    let mut out: Vec<(SmolStr, Bytes)> = Vec::with_capacity(fields.len());
    if let (Some(authority), false) = (request.authority, request.host) {
        out.push(("host".into(), Bytes::copy_from_slice(authority.as_bytes())));
    }
    let cookies: Vec<&[u8]> = fields
        .iter()
        .filter(|field| field.name == b"cookie")
        .map(|field| field.value)
        .collect();
    let mut cookies = Some(cookies.join(&b"; "[..]));
    for field in fields.iter().filter(|field| !field.name.starts_with(b":")) {
        let name = SmolStr::new(String::from_utf8_lossy(field.name));
        if field.name != b"cookie" {
            out.push((name, Bytes::copy_from_slice(field.value)));
        } else if let Some(cookies) = cookies.take() {
            out.push((name, cookies.into()));
        }
    }
    out
}

/// Whether an answer has a body.
pub(super) fn has_body(answer: &Reply, head: bool) -> bool {
    !head && !matches!(answer.status, 204 | 304) && !answer.body.is_empty()
}

/// The block of an answer's fields, `now` for its date. `head`: it answers HEAD.
pub(super) fn answer(answer: &Reply, head: bool, now: SystemTime, out: &mut Vec<u8>) {
    let status = match answer.status {
        status @ 200..=599 => status,
        status => {
            tracing::warn!(status, "a reply's status can't be sent; 500 goes instead");
            500
        }
    };
    let mut field = |name: &[u8], value: &[u8]| {
        put(
            out,
            Field {
                name,
                value,
                never: false,
            },
        );
    };
    field(b":status", status.to_string().as_bytes());
    let mut dated = false;
    for (name, value) in &answer.headers {
        if reply::framing(name) || name.eq_ignore_ascii_case("proxy-connection") {
            continue;
        }
        if name.is_empty() || !name.bytes().all(is_token) || value.iter().any(|byte| reply::unsendable(*byte))
        {
            tracing::warn!(%name, "a reply's field can't be sent; left out");
            continue;
        }
        dated |= name.eq_ignore_ascii_case("date");
        field(name.to_ascii_lowercase().as_bytes(), value.trim_ascii());
    }
    // As in HTTP/1: no length where there is no body, or where it is not known (RFC 9110, 8.6).
    let unsaid = matches!(status, 204 | 304) || (head && answer.body.is_empty());
    if !unsaid {
        field(b"content-length", answer.body.len().to_string().as_bytes());
    }
    if !dated {
        field(b"date", reply::imf_fixdate(now).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::hpack::Decoder;
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut block = Vec::new();
        for (name, value) in list {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            put(
                &mut block,
                Field {
                    name,
                    value,
                    never: false,
                },
            );
        }
        let mut fields = Fields::default();
        Decoder::new().read(&block, 1 << 16, &mut fields).unwrap();
        fields
    }

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/x"),
        (":authority", "trips:80"),
    ];

    /// RFC 9113, 8.2 and 8.3; what would be read otherwise by a server of HTTP/1 that stands behind.
    #[test]
    fn what_is_no_request() {
        assert!(request(&fields(&GET)).is_ok());
        for more in [
            &[("Upper", "v")][..],
            &[("a b", "v")],
            &[("", "v")],
            &[("a:", "v")],
            &[("x", "a\r\nb: c")],
            &[("x", "a\nb")],
            &[("x", "a\0b")],
            &[("x", " a")],
            &[("x", "a\t")],
            &[("connection", "close")],
            &[("keep-alive", "1")],
            &[("proxy-connection", "close")],
            &[("transfer-encoding", "chunked")],
            &[("upgrade", "h2c")],
            &[("te", "gzip")],
            &[("te", "trailers, gzip")],
            &[("host", "other")],
            &[("host", "trips"), ("host", "trips")],
            &[("content-length", "x")],
            &[("content-length", "+1")],
            &[("content-length", "")],
            &[("content-length", "1, 1")],
            &[("content-length", "1"), ("content-length", "1")],
            &[("x", "y"), (":path", "/y")],
            &[(":path", "/y")],
            &[(":status", "200")],
            &[(":unknown", "1")],
        ] {
            let list: Vec<_> = GET.iter().chain(more).copied().collect();
            assert!(request(&fields(&list)).is_err(), "{more:?}");
        }
        for missing in 0..3 {
            let mut list = GET.to_vec();
            list.remove(missing);
            assert!(request(&fields(&list)).is_err(), "{missing}");
        }
        for (at, value) in [
            (0, ""),
            (0, "GET /"),
            (2, ""),
            (2, "x"),
            (2, "*"),
            (2, "/a b"),
            (2, "/a\x7f"),
            (3, "user@trips"),
            (3, "trips\t"),
        ] {
            let mut list = GET.to_vec();
            list[at].1 = value;
            assert!(request(&fields(&list)).is_err(), "{value:?}");
        }
    }

    #[test]
    fn what_is_one() {
        for more in [
            &[("te", "trailers")][..],
            &[("host", "Trips")],
            &[("content-length", "007")],
            &[("cookie", "a=1"), ("cookie", "b=2")],
            &[("x", ""), ("x", "\u{e9}")],
        ] {
            let list: Vec<_> = GET.iter().chain(more).copied().collect();
            assert!(request(&fields(&list)).is_ok(), "{more:?}");
        }
        let connect = [(":method", "CONNECT"), (":authority", "a:1")];
        assert!(request(&fields(&connect)).is_ok());
        assert!(request(&fields(&connect[..1])).is_err());
        let extended = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/chat"),
            (":authority", "a"),
        ];
        assert!(request(&fields(&extended)).is_ok());
        let options = [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*")];
        assert!(request(&fields(&options)).is_ok());
    }

    #[test]
    fn the_handler_sees_it_as_http_1() {
        let mut list = GET.to_vec();
        list.extend([("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("x", "2")]);
        let fields = fields(&list);
        let request = request(&fields).unwrap();
        verdict(&request, &fields, |head| {
            assert_eq!((head.method, head.target), ("GET", "/x"));
            assert_eq!(head.headers[0].name, "host");
            assert_eq!(head.headers[0].value, b"trips:80");
            Verdict::Pass
        });
        let taken = taken_fields(&request, &fields);
        let lines: Vec<_> = taken
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
            .collect();
        assert_eq!(lines, ["host: trips:80", "cookie: a=1; b=2", "x: 1", "x: 2"]);
    }

    #[test]
    fn only_plain_http_is_shown() {
        let shown = |list: &[(&str, &str)]| {
            let fields = fields(list);
            let mut shown = false;
            verdict(&request(&fields).unwrap(), &fields, |_| {
                shown = true;
                Verdict::Pass
            });
            shown
        };
        assert!(shown(&GET));
        assert!(!shown(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/x")
        ]));
        assert!(!shown(&[(":method", "CONNECT"), (":authority", "a:1")]));
    }
}
