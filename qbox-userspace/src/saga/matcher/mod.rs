//! Is this request a saga's trigger, and what does this response say. Compares, and allocates only where a match needs it.
//! Nothing here fails: what can't be read doesn't match, and a request that doesn't match passes on unchanged.

#[cfg(test)]
mod tests;

use crate::saga::expr::{FieldPath, Template};
use crate::saga::fill;
use crate::saga::message::{Headers, Request, Response, Trigger, end_to_end};
use crate::saga::plan::{JsonTemplate, ResponseMatch, Segment, TriggerPattern};
use crate::saga::values::{Lookup, Values, query_pairs};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::{Number, Value};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::SocketAddr;
use std::str::FromStr;

/// The nesting of sagas (see `X-Qbox-Depth` in the saga file's reference).
const DEPTH: &str = "x-qbox-depth";

/// A request's head, taken apart as far as triggers ask for it. `I` gives the fields, names as sent.
#[derive(Clone, Debug)]
pub struct RequestHead<'a, I> {
    method: &'a str,
    /// `host` or `host:port`, as sent.
    authority: &'a str,
    host: &'a str,
    port: u16,
    path: &'a str,
    query: Option<&'a str>,
    fields: I,
}

impl<'a, I> RequestHead<'a, I>
where
    I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
{
    /// Takes a head apart. The target's own host goes before the field `Host` (RFC 9112, 3.2.2).
    ///
    /// `None` where no trigger could match: no host or more than one is named, the target is `*` or an authority
    /// (CONNECT), or of another scheme than `http`.
    #[must_use]
    pub fn new(method: &'a str, target: &'a str, fields: I) -> Option<Self> {
        let (authority, target) = if target.starts_with('/') {
            let mut hosts = fields
                .clone()
                .filter(|(name, _)| name.eq_ignore_ascii_case("host"));
            let (_, host) = hosts.next()?;
            if hosts.next().is_some() {
                return None;
            }
            (std::str::from_utf8(host).ok()?.trim(), target)
        } else {
            let (scheme, rest) = target.split_once("://")?;
            if !scheme.eq_ignore_ascii_case("http") {
                return None;
            }
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            rest.split_at(end)
        };
        let (host, port) = host_and_port(authority)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Some(Self {
            method,
            authority,
            host,
            port,
            path: if path.is_empty() { "/" } else { path },
            query,
            fields,
        })
    }

    /// The host as sent, an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// The method, as sent.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The path's segments, as sent: one for each `/`.
    pub fn segments(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a, I> {
        self.path.strip_prefix('/').unwrap_or(self.path).split('/')
    }

    /// The values of every field of that name, without the white space around them.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |(field, value): (&'a str, &'a [u8])| {
            field.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
        };
        self.fields.clone().filter_map(named)
    }

    /// The port; 80 where none is named.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The whole URL: `http://` and the host as sent, and the target.
    #[must_use]
    pub fn url(&self) -> String {
        let query = self.query.map_or(["", ""], |query| ["?", query]);
        ["http://", self.authority, self.path, query[0], query[1]].concat()
    }
}

/// Whether a trigger matches as far as a head goes: everything but its body.
#[must_use]
pub fn match_head<'a, I>(pattern: &TriggerPattern, head: &RequestHead<'a, I>) -> bool
where
    I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
{
    // RFC 9110: a method compares with case (9.1), a host without (4.2.3).
    pattern
        .method
        .as_deref()
        .is_none_or(|method| method == head.method)
        && pattern.port == head.port
        && unbracketed(&pattern.host).eq_ignore_ascii_case(head.host)
        && captures(pattern, head.path, |_, _| ())
        && pattern.query.iter().all(|(name, value)| {
            let mut pairs = query_pairs(head.query.unwrap_or_default());
            pairs.any(|(n, v)| n == *name && v == *value)
        })
        && pattern.headers.iter().all(|(name, value)| {
            let mut fields = head.fields.clone();
            fields.any(|(n, v)| n.eq_ignore_ascii_case(name) && v.trim_ascii() == value.as_bytes())
        })
}

/// Whether a trigger's `body` and `json` match.
#[must_use]
pub fn match_body(pattern: &TriggerPattern, body: &[u8]) -> bool {
    pattern
        .body
        .as_ref()
        .is_none_or(|wanted| wanted.as_bytes() == body)
        && (pattern.json.is_empty() || {
            let document: Option<Value> = serde_json::from_slice(body).ok();
            document.is_some_and(|document| {
                let holds = |(field, wanted): &(FieldPath, Value)| {
                    field.find(&document).is_some_and(|value| same(value, wanted))
                };
                pattern.json.iter().all(holds)
            })
        })
}

/// What a saga keeps of a request that matched `pattern`.
#[must_use]
pub fn trigger<'a, I>(
    pattern: &TriggerPattern,
    head: &RequestHead<'a, I>,
    body: Bytes,
    destination: Option<SocketAddr>,
) -> Trigger
where
    I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
{
    let mut path = Vec::new();
    captures(pattern, head.path, |name, value| {
        path.push((name.to_owned(), value.into_owned()));
    });
    let headers = kept(head.fields.clone());
    let depth = headers.get(DEPTH).and_then(|value| depth(value)).unwrap_or(0);
    Trigger {
        request: Request {
            method: head.method.to_owned(),
            url: head.url(),
            headers,
            body,
        },
        path,
        destination,
        http2: false,
        depth,
    }
}

/// The fields that a trigger keeps, their values as parts of one text: all are kept and passed on together.
fn kept<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> Headers {
    let passed_on = end_to_end(fields.clone());
    // What was expected was met when the body was read.
    let is_kept = |name: &str| {
        passed_on(name) && !name.eq_ignore_ascii_case("host") && !name.eq_ignore_ascii_case("expect")
    };
    let fields = fields.map(|(name, value)| (name, value.trim_ascii()));
    let kept: Vec<_> = fields.filter(|(name, _)| is_kept(name)).collect();
    let mut text = Vec::with_capacity(kept.iter().map(|(_, value)| value.len()).sum());
    kept.iter().for_each(|(_, value)| text.extend_from_slice(value));
    let mut text = Bytes::from(text);
    let part = |(name, value): (&str, &[u8])| (name.into(), text.split_to(value.len()));
    Headers(kept.into_iter().map(part).collect())
}

/// Whether any of these says what the response says. A value that is missing matches nothing; a body that was too long to
/// be kept neither.
pub(in crate::saga) fn response_matches(
    any: &[ResponseMatch],
    response: &Response,
    values: &Values<'_>,
) -> bool {
    let lookup = Lookup::strict(values);
    let document = OnceCell::new();
    let document = || -> Option<&Value> {
        let read = || serde_json::from_slice(&response.body).ok();
        document.get_or_init(read).as_ref()
    };
    any.iter()
        .any(|one| all_of_it_matches(one, response, &lookup, document))
}

fn all_of_it_matches<'d>(
    one: &ResponseMatch,
    response: &Response,
    lookup: &Lookup<'_>,
    document: impl Fn() -> Option<&'d Value>,
) -> bool {
    let status = one.status.as_ref();
    if !status.is_none_or(|set| set.contains(response.status)) {
        return false;
    }
    if (one.body.is_some() || !one.json.is_empty()) && response.truncated {
        return false;
    }
    let header = |(name, wanted): &(String, Template)| {
        fill::text_body(wanted, lookup).is_ok_and(|wanted| {
            let mut fields = response.headers.0.iter();
            fields.any(|(n, value)| n.eq_ignore_ascii_case(name) && value.trim_ascii() == wanted.trim_ascii())
        })
    };
    let body =
        |wanted: &Template| fill::text_body(wanted, lookup).is_ok_and(|wanted| wanted == response.body);
    let field = |(field, wanted): &(FieldPath, JsonTemplate)| {
        let found = document().and_then(|document| field.find(document));
        found.is_some_and(|found| fill::json(wanted, lookup).is_ok_and(|wanted| same(found, &wanted)))
    };
    one.headers.iter().all(header) && one.body.as_ref().is_none_or(body) && one.json.iter().all(field)
}

/// Splits the path and holds it against the pattern; `each` gets the captured segments, decoded.
///
/// Segments compare decoded, so `/tr%69ps` is `/trips` (RFC 3986, 6.2.2.2); a `/` that was escaped stays inside its
/// segment. `/trips/7/` has one segment more than `/trips/7`, and is another path; so is `//trips/7`. A capture takes no
/// segment that is empty, that is `.` or `..` (it means another path, RFC 3986, 5.2.4), or that is not UTF-8 when decoded
/// (two such could look the same in a key).
fn captures<'p>(pattern: &TriggerPattern, path: &'p str, mut each: impl FnMut(&str, Cow<'p, str>)) -> bool {
    let Some(path) = path.strip_prefix('/') else {
        return false;
    };
    let mut segments = path.split('/');
    for wanted in &pattern.path {
        let Some(segment) = segments.next() else {
            return false;
        };
        match wanted {
            Segment::Literal(text) => {
                if !percent_decode_str(segment).eq(text.bytes()) {
                    return false;
                }
            }
            Segment::Capture(name) => match percent_decode_str(segment).decode_utf8() {
                Ok(value) if !matches!(&*value, "" | "." | "..") => each(name, value),
                _ => return false,
            },
        }
    }
    segments.next().is_none()
}

/// `host[:port]` (RFC 3986, 3.2); user information is none of `http`'s (RFC 9110, 4.2.4).
fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    // RFC 3986, 3.2.2. `:` stands in an address in brackets alone.
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
    let (host, rest, well_formed) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            (host, rest, host.bytes().all(|byte| in_name(byte) || byte == b':'))
        }
        None => {
            let (host, rest) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (host, rest, host.bytes().all(in_name))
        }
    };
    let port = match rest {
        "" | ":" => 80,
        // `parse` alone would take `+80`.
        rest => number(rest.strip_prefix(':')?.as_bytes())??,
    };
    (well_formed && !host.is_empty()).then_some((host, port))
}

fn unbracketed(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}

/// What is no number counts as none; what is greater than can be counted, as the most.
fn depth(value: &[u8]) -> Option<u8> {
    number(value.trim_ascii()).map(|n| n.unwrap_or(u8::MAX))
}

/// Digits and nothing else; `Some(None)` where they are more than `T` can hold.
fn number<T: FromStr>(digits: &[u8]) -> Option<Option<T>> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok())
}

/// Whether two JSON values are the same; numbers by value, so `1` is `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Integers compare exactly: as doubles, those past 2^53 would run into each other.
fn same_number(a: &Number, b: &Number) -> bool {
    match (a.is_f64(), b.is_f64()) {
        (false, false) => a == b,
        _ => a.as_f64() == b.as_f64(),
    }
}
