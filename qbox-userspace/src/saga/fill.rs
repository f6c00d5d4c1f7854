//! Templates to messages: the values are put in so that they can't change the message's structure.
//!
//! A value in a URL's path is one segment, in its query one value, in a header field part of one line, in JSON one
//! value; whatever characters it has. What could not be so is refused, and nothing is sent. Errors: [`Missing`].

use super::expr::{Expr, Template};
use super::id::SagaId;
use super::message::{Headers, Request, Trigger};
use super::plan::{
    BodyTemplate, Condition, JsonTemplate, Plan, ReplyTemplate, RequestTemplate, Scheme, Test, UrlTemplate,
};
use super::reply::Reply;
use super::values::{Missing, Values};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use std::convert::Infallible;

/// All but RFC 3986's unreserved characters (section 2.3) is escaped: no other character is safe in every place.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

const CONTENT_TYPE: &str = "Content-Type";

/// A step's own request, without the fields that Qbox adds to each.
///
/// # Errors
/// The first expression that has no value, or one that doesn't fit its place.
pub(super) fn request(template: &RequestTemplate, values: &Values<'_>) -> Result<Request, Missing> {
    let mut headers = Headers::default();
    for (name, value) in &template.headers {
        headers.push(name.as_str(), field_value(value, values)?);
    }
    let body = match &template.body {
        BodyTemplate::Empty => Bytes::new(),
        BodyTemplate::Text(text) => bytes(text, values)?,
        BodyTemplate::Json(json) => {
            name_json(&mut headers);
            Bytes::from(self::json(json, &|text| json_value(text, values))?.to_string())
        }
    };
    Ok(Request {
        method: template.method.clone(),
        url: url(&template.url, values)?,
        headers,
        body,
    })
}

/// A reply that the file gives; a value that is missing, or doesn't fit, is the empty string.
pub(super) fn reply(template: &ReplyTemplate, values: &Values<'_>) -> Reply {
    let text = |template: &Template| {
        let filled =
            template.try_fill(|expr| Ok::<_, Infallible>(values.expr_text(expr).unwrap_or_default()));
        filled.unwrap_or_else(|never| match never {})
    };
    let mut headers = Headers::default();
    for (name, value) in &template.headers {
        let filled = value.try_fill(|expr| {
            let text = values.expr_text(expr).ok().filter(|text| fits_field(text));
            Ok::<_, Infallible>(text.unwrap_or_default())
        });
        headers.push(name.as_str(), filled.unwrap_or_else(|never| match never {}));
    }
    let body = match &template.body {
        BodyTemplate::Empty => Bytes::new(),
        BodyTemplate::Text(template) => match template.whole_expr() {
            Some(_) => bytes(template, values).unwrap_or_default(),
            None => Bytes::from(text(template)),
        },
        BodyTemplate::Json(json) => {
            name_json(&mut headers);
            let value = |template: &Template| {
                let whole = template.whole_expr().map(|_| json_value(template, values));
                Ok(whole
                    .and_then(Result::ok)
                    .unwrap_or_else(|| Value::String(text(template))))
            };
            Bytes::from(self::json(json, &value).unwrap_or_default().to_string())
        }
    };
    Reply {
        status: template.status,
        headers,
        body,
    }
}

/// Whether a line of `when` holds. A value that is missing is not present, and equals nothing.
pub(super) fn condition(condition: &Condition, values: &Values<'_>) -> bool {
    let value = values.text(&condition.value).ok();
    match &condition.test {
        Test::Equals(wanted) => value.as_ref() == Some(wanted),
        Test::In(wanted) => value.is_some_and(|value| wanted.contains(&value)),
        Test::Present(wanted) => value.is_some() == *wanted,
    }
}

/// The value of `lock` or `dedupe`; `None` where it has none.
#[must_use]
pub fn key(plan: &Plan, saga: SagaId, trigger: &Trigger, template: &Template) -> Option<String> {
    let values = Values {
        saga,
        plan,
        trigger,
        exchanges: &[],
        failed_step: None,
        outcome: None,
    };
    values.text(template).ok()
}

/// A value that a match asks for: one whole expression keeps its JSON type.
///
/// # Errors
/// [`Missing::NoValue`]: nothing matches it then.
pub(super) fn json_template(template: &JsonTemplate, values: &Values<'_>) -> Result<Value, Missing> {
    json(template, &|text| json_value(text, values))
}

/// `Content-Type: application/json`, unless the file says another.
fn name_json(headers: &mut Headers) {
    if headers.get(CONTENT_TYPE).is_none() {
        headers.push(CONTENT_TYPE, "application/json");
    }
}

fn url(template: &UrlTemplate, values: &Values<'_>) -> Result<String, Missing> {
    let escaped = |expr: &Expr| {
        let text = values.expr_text(expr)?;
        Ok(utf8_percent_encode(&text, ESCAPED).to_string())
    };
    let path = template.path.try_fill(escaped)?;
    if let Some(expr) = template.path.exprs().next() {
        // `.` needs no escape and has none that servers agree on: an escaped one is resolved by many as if it were not.
        let climbs = |segment: &&str| matches!(&*percent_decode_str(segment).decode_utf8_lossy(), "." | "..");
        if let Some(segment) = path.split('/').find(climbs) {
            return Err(Missing::DotSegment(expr.text.clone(), segment.to_owned()));
        }
    }
    let scheme = match template.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let mut url = format!("{scheme}://{}{path}", template.authority);
    if let Some(query) = &template.query {
        url.push('?');
        url.push_str(&query.try_fill(escaped)?);
    }
    Ok(url)
}

/// A field's value: each expression's on its own is checked, so that the message names the one at fault.
fn field_value(template: &Template, values: &Values<'_>) -> Result<String, Missing> {
    template.try_fill(|expr| {
        let text = values.expr_text(expr)?;
        match fits_field(&text) {
            true => Ok(text),
            false => Err(Missing::NotAField(expr.text.clone())),
        }
    })
}

/// RFC 9110, 5.5: visible characters, spaces, tabs and what is beyond ASCII.
fn fits_field(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t')
}

/// A body of text: what is not UTF-8 stays as it is.
fn bytes(template: &Template, values: &Values<'_>) -> Result<Bytes, Missing> {
    if let Some(expr) = template.whole_expr() {
        let found = values
            .find(expr)
            .ok_or_else(|| Missing::NoValue(expr.text.clone()))?;
        return Ok(found.into_bytes());
    }
    values.text(template).map(Bytes::from)
}

fn json_value(template: &Template, values: &Values<'_>) -> Result<Value, Missing> {
    match template.whole_expr() {
        Some(expr) => {
            let found = values.find(expr).and_then(super::values::Found::into_json);
            found.ok_or_else(|| Missing::NoValue(expr.text.clone()))
        }
        None => values.text(template).map(Value::String),
    }
}

fn json(
    template: &JsonTemplate,
    text: &impl Fn(&Template) -> Result<Value, Missing>,
) -> Result<Value, Missing> {
    Ok(match template {
        JsonTemplate::Value(value) => value.clone(),
        JsonTemplate::Text(template) => text(template)?,
        JsonTemplate::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| json(item, text))
                .collect::<Result<_, _>>()?,
        ),
        JsonTemplate::Object(pairs) => {
            let filled = pairs
                .iter()
                .map(|(key, item)| Ok((key.clone(), json(item, text)?)));
            Value::Object(filled.collect::<Result<_, Missing>>()?)
        }
    })
}
