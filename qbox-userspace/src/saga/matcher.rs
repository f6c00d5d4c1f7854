//! Is this request a saga's trigger, and what does this response say. Compares, and allocates only where a match needs it.

use super::fill;
use super::message::{Request, Response, Trigger};
use super::plan::{ResponseMatch, Segment, TriggerPattern};
use super::values::{Values, json_field, query_pairs};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::net::SocketAddr;

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

    /// The port; 80 where none is named.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The whole URL: `http://` and the host as sent, and the target.
    #[must_use]
    pub fn url(&self) -> String {
        let query = self.query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("http://{}{}{query}", self.authority, self.path)
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
                let holds = |(field, wanted): &(super::FieldPath, Value)| {
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
    captures(pattern, head.path, |name, segment| {
        let value = percent_decode_str(segment).decode_utf8_lossy().into_owned();
        path.push((name.to_owned(), value));
    });
    let mut headers = super::Headers::default();
    for (name, value) in head.fields.clone() {
        headers.push(name, Bytes::copy_from_slice(value));
    }
    let mut headers = headers.end_to_end();
    headers.remove("host");
    // It was met when the body was read.
    headers.remove("expect");
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
        depth,
    }
}

/// Whether any of these says what the response says. A value that is missing matches nothing; a body that was too long to
/// be kept neither.
pub(super) fn response_matches(any: &[ResponseMatch], response: &Response, values: &Values<'_>) -> bool {
    any.iter()
        .any(|one| response_matches_all_of(one, response, values))
}

fn response_matches_all_of(one: &ResponseMatch, response: &Response, values: &Values<'_>) -> bool {
    if one
        .status
        .as_ref()
        .is_some_and(|set| !set.contains(response.status))
    {
        return false;
    }
    let header = |(name, wanted): &(String, super::Template)| {
        let Ok(wanted) = values.text(wanted) else {
            return false;
        };
        let mut fields = response
            .headers
            .0
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        fields.any(|(_, value)| value.trim_ascii() == wanted.as_bytes())
    };
    if !one.headers.iter().all(header) {
        return false;
    }
    if (one.body.is_some() || !one.json.is_empty()) && response.truncated {
        return false;
    }
    let body = |wanted: &super::Template| {
        values
            .text(wanted)
            .is_ok_and(|wanted| wanted.as_bytes() == response.body)
    };
    if !one.body.as_ref().is_none_or(body) {
        return false;
    }
    one.json.iter().all(|(field, wanted)| {
        let found = json_field(&response.body, field);
        let wanted = fill::json_template(wanted, values);
        matches!((found, wanted), (Some(found), Ok(wanted)) if same(&found, &wanted))
    })
}

/// Splits the path and holds it against the pattern; `each` gets the captured segments, still encoded.
///
/// Segments compare decoded, so `/tr%69ps` is `/trips` (RFC 3986, 6.2.2.2); a `/` that was escaped stays inside its
/// segment. `/trips/7/` has one segment more than `/trips/7`, and is another path.
fn captures<'p>(pattern: &TriggerPattern, path: &'p str, mut each: impl FnMut(&str, &'p str)) -> bool {
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
            Segment::Capture(_) if segment.is_empty() => return false,
            Segment::Capture(name) => each(name, segment),
        }
    }
    segments.next().is_none()
}

/// `host[:port]` (RFC 3986, 3.2); user information is none of `http`'s (RFC 9110, 4.2.4).
fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    if authority.contains('@') {
        return None;
    }
    let (host, rest) = match authority.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match rest {
        "" | ":" => 80,
        rest => rest.strip_prefix(':')?.parse().ok()?,
    };
    (!host.is_empty()).then_some((host, port))
}

fn unbracketed(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

/// What is no number counts as none; what is greater than can be counted, as the most.
fn depth(value: &[u8]) -> Option<u8> {
    let digits = value.trim_ascii();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number
        .then(|| std::str::from_utf8(digits).ok()?.parse().ok())
        .map(|n| n.unwrap_or(u8::MAX))
}

/// Whether two JSON values are the same; numbers by value, so `1` is `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.as_f64().is_some() && a.as_f64() == b.as_f64()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}
