//! URLs: a step's, whose path and query may hold expressions, and a trigger's, whose path may hold captures. Their scheme,
//! host and port hold neither: a message must never choose where Qbox sends. RFC 3986 says which characters may stand.

use super::diagnostic::Code;
use super::expressions::Context;
use super::walk::{Sink, Text};
use crate::saga::{Place, Scheme, Segment, UrlTemplate};
use std::ops::Range;

/// The longest URL, in bytes: what every server is to take (RFC 9110, 4.1, says 8,000 at least).
const LONGEST: usize = 8192;

const SHAPE: &str = "write it as http://HOST[:PORT]/PATH";

/// A URL cut into its parts. Ranges are of the text.
struct Cut {
    scheme: Scheme,
    authority: Range<usize>,
    path: Range<usize>,
    query: Option<Range<usize>>,
}

/// The characters outside of expressions: `None` for an expression as a whole, and its bytes.
fn tokens(text: &str) -> impl Iterator<Item = (Range<usize>, Option<char>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..)?;
        let start = at;
        if rest.starts_with("${") {
            at += rest.find('}').map_or(rest.len(), |n| n + 1);
            return Some((start..at, None));
        }
        let char = rest.chars().next()?;
        at += char.len_utf8();
        Some((start..at, Some(char)))
    })
}

fn cut(sink: &Sink, text: &Text<'_>) -> Option<Cut> {
    let bad = |range: Range<usize>, message: &str, help: &str| {
        sink.error(Code::Url, text.at(range), message, "", help);
        None
    };
    let value = text.value;
    let all = 0..value.len();
    if value.len() > LONGEST {
        let help = "servers read no longer one: send what is long in the body";
        return bad(0..0, &format!("a URL is longer than {LONGEST} bytes"), help);
    }
    let (scheme, start) = match value.split_once("://") {
        Some(("http", _)) => (Scheme::Http, 7),
        Some(("https", _)) => (Scheme::Https, 8),
        Some((before, _)) if before.contains("${") => {
            let range = 0..before.len();
            sink.error(
                Code::ExpressionPlace,
                text.at(range),
                "a URL's scheme takes no expression",
                "",
                SHAPE,
            );
            return None;
        }
        Some((before, _)) => {
            return bad(
                0..before.len(),
                &format!("`{before}` is not a scheme that Qbox speaks"),
                SHAPE,
            );
        }
        None => return bad(all, "a URL begins with its scheme", SHAPE),
    };
    let end = tokens(value)
        .filter(|(range, _)| range.start >= start)
        .find(|(_, char)| matches!(char, Some('/' | '?' | '#')))
        .map_or(value.len(), |(range, _)| range.start);
    let authority = start..end;
    let fragment = tokens(value).find(|(range, char)| range.start >= end && *char == Some('#'));
    if let Some((range, _)) = fragment {
        return bad(
            range.start..value.len(),
            "a fragment is never sent to a server",
            "take out the `#` and what follows",
        );
    }
    let mark = tokens(value)
        .find(|(range, char)| range.start >= end && *char == Some('?'))
        .map(|(r, _)| r.start);
    let path = end..mark.unwrap_or(value.len());
    let query = mark.map(|at| at + 1..value.len());
    Some(Cut {
        scheme,
        authority,
        path,
        query,
    })
}

/// Checks `host[:port]`; gives the host and the port, if one is named.
pub(super) fn authority<'t>(sink: &Sink, text: &Text<'t>) -> Option<(&'t str, Option<u16>)> {
    let value = text.value;
    let bad = |range: Range<usize>, message: &str, help: &str| {
        sink.error(Code::Url, text.at(range), message, "", help);
        None
    };
    if let Some((range, _)) = tokens(value).find(|(_, char)| char.is_none()) {
        let help = "write the host and the port out; a message must not choose where Qbox sends. \
                    Where several are possible, write a step for each, with `when`";
        let message = "a URL's host and port take no expression";
        sink.error(Code::ExpressionPlace, text.at(range), message, "", help);
        return None;
    }
    if let Some(at) = value.rfind('@') {
        return bad(
            0..at + 1,
            "a URL here carries no user name or password",
            "send an `authorization` header",
        );
    }
    let (host, port) = match value.rfind(':') {
        Some(at) if !value.ends_with(']') => (value.get(..at)?, value.get(at + 1..)),
        _ => (value, None),
    };
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let known = match v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        }
    };
    if !known {
        let message = format!("`{host}` is not a host");
        return bad(
            0..host.len(),
            &message,
            "write a name (letters, digits, `-`, `.`), an IPv4 address, or [IPv6]",
        );
    }
    let Some(digits) = port else {
        return Some((host, None));
    };
    match digits.parse::<u16>() {
        Ok(port) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Some((host, Some(port))),
        _ => {
            let range = host.len() + 1..value.len();
            bad(
                range,
                &format!("`{digits}` is not a port"),
                "write a number from 1 to 65535",
            )
        }
    }
}

/// Reports the first character that RFC 3986 (3.3, 3.4) does not allow here.
fn characters(sink: &Sink, text: &Text<'_>, extra: &str) -> bool {
    for (range, char) in tokens(text.value) {
        let Some(char) = char else { continue };
        let known = match char {
            '%' => text
                .value
                .get(range.end..range.end + 2)
                .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit())),
            '{' | '}' => extra.contains(char),
            // `$${` is a literal `${` in a template, which a URL can't hold.
            _ => char.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/".contains(char) || extra.contains(char),
        };
        if known {
            continue;
        }
        let (message, help) = match char {
            '%' => (
                "in a URL `%` begins an escape of two hexadecimal digits".to_owned(),
                "write `%25` for `%`".to_owned(),
            ),
            '{' | '}' => (
                format!("`{char}` can't stand in this URL"),
                "captures stand in the trigger's URL; here write ${trigger.path.NAME}".to_owned(),
            ),
            _ => {
                let escape: String = char.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
                (
                    format!("{char:?} can't stand in a URL as it is"),
                    format!("write `{escape}`"),
                )
            }
        };
        sink.error(Code::Url, text.at(range), message, "", help);
        return false;
    }
    true
}

/// A URL that Qbox sends to.
pub(super) fn template(context: &Context<'_>, text: &Text<'_>, place: Place) -> Option<UrlTemplate> {
    let sink = context.sink;
    let cut = cut(sink, text)?;
    let path = text.part(cut.path.clone());
    let query = cut.query.map(|range| text.part(range));
    // Each is looked at even if another one is wrong: all mistakes are to be named at once.
    let host = authority(sink, &text.part(cut.authority.clone()));
    let path_fits = characters(sink, &path, "");
    let query_fits = query.as_ref().is_none_or(|q| characters(sink, q, "?"));
    let path = match path.value {
        "" => Some(crate::saga::Template::literal("/")),
        _ => context.template(&path, place),
    };
    let query = query.map(|query| context.template(&query, place));
    if host.is_none() || !path_fits || !query_fits {
        return None;
    }
    Some(UrlTemplate {
        scheme: cut.scheme,
        authority: text.value.get(cut.authority)?.to_owned(),
        path: path?,
        query: match query {
            Some(query) => Some(query?),
            None => None,
        },
    })
}

/// A trigger's URL: its host, port and path.
pub(super) struct TriggerUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: Vec<Segment>,
}

/// The URL of `[trigger]`.
pub(super) fn trigger(sink: &Sink, text: &Text<'_>) -> Option<TriggerUrl> {
    if let Some((range, _)) = tokens(text.value).find(|(_, char)| char.is_none()) {
        let help =
            "nothing is known yet when a trigger is matched: write {name} to capture a segment of the path";
        sink.error(
            Code::ExpressionPlace,
            text.at(range),
            "a trigger's `url` takes no expression",
            "",
            help,
        );
        return None;
    }
    let cut = cut(sink, text)?;
    if matches!(cut.scheme, Scheme::Https) {
        let help = "write http://; what a pod encrypts itself can't be read on its way";
        sink.error(
            Code::HttpsTrigger,
            text.at(0..5),
            "a trigger's `url` can't be https",
            "",
            help,
        );
        return None;
    }
    if let Some(query) = cut.query {
        let help = "say which parameters must be there with `query = { NAME = \"VALUE\" }`";
        sink.error(
            Code::Url,
            text.at(query.start - 1..query.end),
            "a trigger's `url` has no query",
            "",
            help,
        );
        return None;
    }
    let (host, port) = authority(sink, &text.part(cut.authority))?;
    let path = text.part(cut.path);
    if !characters(sink, &path, "{}") {
        return None;
    }
    Some(TriggerUrl {
        host: host.to_ascii_lowercase(),
        port: port.unwrap_or(80),
        path: segments(sink, &path)?,
    })
}

fn segments(sink: &Sink, path: &Text<'_>) -> Option<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut at = 1;
    for raw in path.value.strip_prefix('/').unwrap_or_default().split('/') {
        let span = path.at(at..at + raw.len());
        at += raw.len() + 1;
        let bad = |message: String, help: &str| {
            sink.error(Code::Url, span.clone(), message, "", help);
            None
        };
        let segment = match raw.strip_prefix('{').and_then(|r| r.strip_suffix('}')) {
            Some(name)
                if name.is_empty()
                    || !name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) =>
            {
                return bad(
                    format!("`{name}` is not a name for a capture"),
                    "use letters, digits, `_` and `-`",
                );
            }
            Some(name)
                if segments
                    .iter()
                    .any(|s| matches!(s, Segment::Capture(c) if c == name)) =>
            {
                return bad(
                    format!("this path captures `{name}` twice"),
                    "give each capture its own name",
                );
            }
            Some(name) => Segment::Capture(name.to_owned()),
            None if raw.contains(['{', '}']) => {
                return bad(
                    "a capture is a whole segment of the path".to_owned(),
                    "write it as /{name}/",
                );
            }
            None => match percent_encoding::percent_decode_str(raw).decode_utf8() {
                Ok(decoded) => Segment::Literal(decoded.into_owned()),
                Err(_) => {
                    return bad(
                        format!("the escapes of `{raw}` are not UTF-8"),
                        "escape the bytes of UTF-8",
                    );
                }
            },
        };
        segments.push(segment);
    }
    Some(segments)
}
