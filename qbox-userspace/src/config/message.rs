//! The parts of messages that a saga file writes: methods, headers, bodies, JSON, statuses, and what a response is
//! compared with.

use super::diagnostic::Code;
use super::expressions::Context;
use super::url;
use super::walk::{Node, Sink, Table, Text};
use crate::saga::{
    BodyTemplate, FieldPath, JsonTemplate, Place, RequestTemplate, ResponseMatch, StatusSet, Template,
};
use std::collections::HashSet;
use std::ops::Range;
use toml::de::DeValue;

/// Headers that frame a message on its connection or name its target (RFC 9110, 7.6.1 and 7.2): Qbox writes them.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers that every request of a saga carries, beside all that begin with `x-qbox-`.
const OWN: &[&str] = &["idempotency-key", "traceparent"];

/// Whether Qbox itself writes a header of that name.
pub(super) fn is_reserved(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    FRAMING.contains(&lower.as_str()) || OWN.contains(&lower.as_str()) || lower.starts_with("x-qbox-")
}

/// A request with a method, a URL, headers and a body.
pub(super) fn request(context: &Context<'_>, node: &Node<'_>, place: Place) -> Option<RequestTemplate> {
    let table = node.table("this request")?;
    let method = table
        .need("method", "method = \"POST\"")
        .and_then(|n| method(context.sink, &n));
    let url = table
        .need("url", "url = \"http://HOST:PORT/PATH\"")
        .and_then(|n| n.text())
        .and_then(|text| url::template(context, &text, place));
    let headers = table
        .get("headers")
        .map_or_else(Vec::new, |n| headers(context, &n, place, true));
    let body = body(context, &table, place);
    table.finish();
    Some(RequestTemplate {
        method: method?,
        url: url?,
        headers,
        body,
    })
}

/// A method: a token (RFC 9110, 5.6.2), and not lower case by mistake.
pub(super) fn method(sink: &Sink, node: &Node<'_>) -> Option<String> {
    const KNOWN: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
    let text = node.text()?;
    let upper = text.value.to_ascii_uppercase();
    if http::Method::from_bytes(text.value.as_bytes()).is_err() {
        let message = format!("{:?} is not a method", text.value);
        sink.error(
            Code::Method,
            text.span,
            message,
            "",
            "write one word, as \"POST\"",
        );
        return None;
    }
    if text.value != upper && KNOWN.contains(&upper.as_str()) {
        let message = format!("`{}` is not `{upper}`: the case of a method matters", text.value);
        sink.unknown(Code::Method, text.span, message, &upper, &[&upper], |w| {
            format!("\"{w}\"")
        });
        return None;
    }
    Some(text.value.to_owned())
}

/// Whether `text` can be a header's name; reports it if not.
pub(super) fn header_name(sink: &Sink, name: &str, span: Range<usize>) -> bool {
    if http::HeaderName::from_bytes(name.as_bytes()).is_ok() {
        return true;
    }
    let help = "use letters, digits and `-`; expressions can stand in values only";
    sink.error(
        Code::HeaderName,
        span,
        format!("{name:?} is not a header's name"),
        "",
        help,
    );
    false
}

/// Reports a name that its table has already, in other letters.
pub(super) fn header_twice(sink: &Sink, name: &str, span: Range<usize>) {
    let message = format!("`{name}` stands here twice: names of headers match without case");
    sink.error(Code::HeaderName, span, message, "", "take one of them out");
}

/// Whether the text can be (a part of) a header's value: no control characters but the tab (RFC 9110, 5.5).
pub(super) fn header_value(sink: &Sink, text: &Text<'_>) -> bool {
    let Some((at, bad)) = text
        .value
        .char_indices()
        .find(|(_, c)| c.is_ascii_control() && *c != '\t')
    else {
        return true;
    };
    let message = format!("a header's value can't hold {bad:?}");
    let help = "one header is one line: take it out, or write a second header";
    sink.error(Code::HeaderValue, text.at(at..at + 1), message, "", help);
    false
}

/// A table of headers. `ours` tells a request from a reply: Qbox marks its requests itself.
fn headers(context: &Context<'_>, node: &Node<'_>, place: Place, ours: bool) -> Vec<(String, Template)> {
    let sink = context.sink;
    let Some(table) = node.table("`headers`") else {
        return Vec::new();
    };
    let mut headers: Vec<(String, Template)> = Vec::new();
    let mut names = HashSet::new();
    for entry in table.entries() {
        let (name, span) = (entry.key, entry.key_span.clone());
        let lower = name.to_ascii_lowercase();
        if !header_name(sink, name, span.clone()) {
            continue;
        }
        if !names.insert(lower.clone()) {
            header_twice(sink, name, span);
            continue;
        }
        if FRAMING.contains(&lower.as_str()) {
            let message = format!("`{name}` is written by Qbox itself");
            let help = "take it out: it follows from the URL and the body";
            sink.error(Code::ReservedHeader, span, message, "", help);
            continue;
        }
        if ours && (OWN.contains(&lower.as_str()) || lower.starts_with("x-qbox-")) {
            let message = format!("`{name}` is written by Qbox itself");
            let help = "take it out: every request carries it, the same over all attempts";
            sink.error(Code::ReservedHeader, span, message, "", help);
            continue;
        }
        let value = entry.text().filter(|text| header_value(sink, text));
        if let Some(value) = value.and_then(|text| context.template(&text, place)) {
            headers.push((name.to_owned(), value));
        }
    }
    headers
}

/// Headers of a reply.
pub(super) fn reply_headers(context: &Context<'_>, node: &Node<'_>) -> Vec<(String, Template)> {
    headers(context, node, Place::Reply, false)
}

/// `body` or `json`, not both.
pub(super) fn body(context: &Context<'_>, table: &Table<'_>, place: Place) -> BodyTemplate {
    let (body, json) = (table.get("body"), table.get("json"));
    if let (Some(_), Some(json)) = (&body, &json) {
        let message = format!("{} has both `body` and `json`", table.what);
        let help = "keep one: `json` for a JSON document, `body` for any other text";
        context
            .sink
            .error(Code::Conflict, json.key_span.clone(), message, "", help);
    }
    if let Some(json) = json {
        return self::json(context, &json, place).map_or(BodyTemplate::Empty, BodyTemplate::Json);
    }
    body.and_then(|n| n.text())
        .and_then(|text| context.template(&text, place))
        .map_or(BodyTemplate::Empty, BodyTemplate::Text)
}

/// A value as JSON, its strings as templates.
pub(super) fn json(context: &Context<'_>, node: &Node<'_>, place: Place) -> Option<JsonTemplate> {
    Some(match node.value {
        DeValue::String(_) => JsonTemplate::Text(context.template(&node.text()?, place)?),
        DeValue::Array(_) => {
            let items: Vec<Option<JsonTemplate>> = node
                .list("[ … ]")?
                .iter()
                .map(|n| json(context, n, place))
                .collect();
            let items = items.into_iter().collect::<Option<Vec<_>>>()?;
            if let Some(values) = items.iter().map(plain).collect::<Option<Vec<_>>>() {
                return Some(JsonTemplate::Value(values.into()));
            }
            JsonTemplate::Array(items)
        }
        DeValue::Table(_) => {
            let table = node.table("this object")?;
            let fields: Vec<Option<(String, JsonTemplate)>> = table
                .entries()
                .iter()
                .map(|n| Some((n.key.to_owned(), json(context, n, place)?)))
                .collect();
            let fields = fields.into_iter().collect::<Option<Vec<_>>>()?;
            let values = fields.iter().map(|(k, v)| Some((k.clone(), plain(v)?)));
            if let Some(values) = values.collect::<Option<serde_json::Map<_, _>>>() {
                return Some(JsonTemplate::Value(values.into()));
            }
            JsonTemplate::Object(fields)
        }
        _ => JsonTemplate::Value(scalar(node)?),
    })
}

/// The value, if it holds no string.
fn plain(template: &JsonTemplate) -> Option<serde_json::Value> {
    match template {
        JsonTemplate::Value(value) => Some(value.clone()),
        _ => None,
    }
}

/// A number or a boolean as JSON.
fn scalar(node: &Node<'_>) -> Option<serde_json::Value> {
    let value = match node.value {
        DeValue::Boolean(value) => Some((*value).into()),
        DeValue::Integer(_) => return node.integer(i64::MIN, i64::MAX).map(Into::into),
        DeValue::Float(number) => number
            .as_str()
            .replace('_', "")
            .parse()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map(Into::into),
        _ => None,
    };
    if value.is_none() {
        node.wrong_type(
            "a JSON value",
            "JSON has no dates and no `inf` or `nan`: write a string",
        );
    }
    value
}

/// A value as JSON, without expressions.
pub(super) fn literal_json(node: &Node<'_>) -> Option<serde_json::Value> {
    match node.value {
        DeValue::String(_) => Some(node.text()?.value.into()),
        DeValue::Array(_) => node.list("[ … ]")?.iter().map(literal_json).collect(),
        DeValue::Table(_) => node
            .table("this object")?
            .entries()
            .iter()
            .map(|n| Some((n.key.to_owned(), literal_json(n)?)))
            .collect::<Option<serde_json::Map<_, _>>>()
            .map(Into::into),
        _ => scalar(node),
    }
}

/// `json = { FIELD = value, … }`. A table as a value is more fields below that one, so that `a.b = 1`, `"a.b" = 1` and
/// `a = { b = 1 }` say the same.
pub(super) fn fields<T>(
    sink: &Sink,
    node: &Node<'_>,
    above: &[String],
    value: &dyn Fn(&Node<'_>) -> Option<T>,
) -> Vec<(FieldPath, T)> {
    let Some(table) = node.table("`json`") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in table.entries() {
        let below = match FieldPath::parse(entry.key) {
            Ok(path) => path,
            Err(error) => {
                let help = error
                    .suggestion
                    .unwrap_or_else(|| "write it as `booking.id` or `/booking/id`".to_owned());
                let message = format!("`{}` is not a field: {}", entry.key, error.message);
                sink.error(Code::FieldPath, entry.key_span.clone(), message, "", help);
                continue;
            }
        };
        let path: Vec<String> = above.iter().cloned().chain(below.0).collect();
        match entry.value {
            DeValue::Table(table) if !table.is_empty() => found.extend(fields(sink, entry, &path, value)),
            _ => found.extend(value(entry).map(|v| (FieldPath(path), v))),
        }
    }
    found
}

/// A list of response matches. `example` is what to write instead of an empty one; `None`: it may be empty.
pub(super) fn matches(
    context: &Context<'_>,
    node: &Node<'_>,
    place: Place,
    may_be_empty: bool,
) -> Option<Vec<ResponseMatch>> {
    let list = node.list(&format!("{} = [{{ status = \"2xx\" }}]", node.key))?;
    if list.is_empty() && !may_be_empty {
        let message = format!("`{}` is an empty list: no answer could ever match", node.key);
        let help = "write what matches, as [{ status = \"2xx\" }], or take the key out";
        context
            .sink
            .error(Code::Empty, node.span.clone(), message, "", help);
    }
    Some(
        list.iter()
            .filter_map(|element| response_match(context, element, place))
            .collect(),
    )
}

fn response_match(context: &Context<'_>, node: &Node<'_>, place: Place) -> Option<ResponseMatch> {
    let sink = context.sink;
    let table = node.table(format!("an entry of `{}`", node.key))?;
    if table.is_empty() {
        let help = "say what the answer must have: `status`, `headers`, `body` or `json`";
        sink.error(
            Code::Empty,
            node.span.clone(),
            "this matches every answer",
            "",
            help,
        );
    }
    let found = ResponseMatch {
        status: table.get("status").and_then(|n| status_set(sink, &n)),
        headers: table
            .get("headers")
            .map_or_else(Vec::new, |n| match_headers(context, &n, place)),
        body: table
            .get("body")
            .and_then(|n| n.text())
            .and_then(|text| context.template(&text, place)),
        json: table.get("json").map_or_else(Vec::new, |n| {
            fields(sink, &n, &[], &|value| json(context, value, place))
        }),
    };
    table.finish();
    Some(found)
}

/// Headers that an answer must have: any name.
fn match_headers(context: &Context<'_>, node: &Node<'_>, place: Place) -> Vec<(String, Template)> {
    let Some(table) = node.table("`headers`") else {
        return Vec::new();
    };
    let entries = table.entries().iter();
    entries
        .filter(|entry| header_name(context.sink, entry.key, entry.key_span.clone()))
        .filter_map(|entry| {
            let text = entry.text().filter(|text| header_value(context.sink, text))?;
            Some((entry.key.to_owned(), context.template(&text, place)?))
        })
        .collect()
}

/// `200`, `"2xx"`, or a list of such.
fn status_set(sink: &Sink, node: &Node<'_>) -> Option<StatusSet> {
    let nodes = match node.value {
        DeValue::Array(array) if array.is_empty() => {
            let help = "write a status, as 200 or \"2xx\", or take the key out";
            sink.error(
                Code::Empty,
                node.span.clone(),
                "`status` is an empty list",
                "",
                help,
            );
            return None;
        }
        DeValue::Array(_) => node.list("[200, \"3xx\"]")?,
        _ => vec![node.clone()],
    };
    let ranges: Vec<Option<(u16, u16)>> = nodes.iter().map(|n| status_range(sink, n)).collect();
    Some(StatusSet {
        ranges: ranges.into_iter().collect::<Option<_>>()?,
        except: Vec::new(),
    })
}

fn status_range(sink: &Sink, node: &Node<'_>) -> Option<(u16, u16)> {
    const HELP: &str = "write a number from 200 to 599, a class \"2xx\" to \"5xx\", or a list of such";
    match node.value {
        DeValue::Integer(_) => return status(sink, node).map(|status| (status, status)),
        DeValue::String(_) => {}
        _ => {
            node.wrong_type("a status", HELP);
            return None;
        }
    }
    let text = node.text()?;
    match text.value.as_bytes() {
        [class @ b'2'..=b'5', b'x', b'x'] => {
            let low = u16::from(class - b'0') * 100;
            return Some((low, low + 99));
        }
        _ => {
            let message = format!("`{}` is not a status", text.value);
            sink.error(Code::Status, text.span, message, "", HELP);
        }
    }
    None
}

/// One status that can be a final answer: 200 to 599.
pub(super) fn status(sink: &Sink, node: &Node<'_>) -> Option<u16> {
    const HELP: &str = "write a number from 200 to 599, without quotes";
    let DeValue::Integer(number) = node.value else {
        node.wrong_type("a status", HELP);
        return None;
    };
    let value = u16::from_str_radix(number.as_str(), number.radix()).ok();
    let value = value.filter(|status| (200..=599).contains(status));
    if value.is_none() {
        let message = format!("`{number}` is not the status of an answer");
        sink.error(Code::Status, node.span.clone(), message, "", HELP);
    }
    value
}
