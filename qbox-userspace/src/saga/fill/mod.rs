//! Templates to messages: the values are put in so that they can't change the message's structure.
//!
//! A value in a URL's path is one segment, in its query one value, in a header field part of one line, in JSON one
//! value; whatever characters it has. What could not be so is refused, and nothing is sent. Errors: [`Missing`].

mod url;

#[cfg(test)]
mod injection;
#[cfg(test)]
mod tests;

use crate::saga::expr::{Expr, Part, Template};
use crate::saga::id::SagaId;
use crate::saga::message::{Headers, Request, Trigger};
use crate::saga::plan::{BodyTemplate, Condition, JsonTemplate, Plan, ReplyTemplate, RequestTemplate, Test};
use crate::saga::reply::Reply;
use crate::saga::values::{Lookup, Missing, Values};
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::Value;

/// A text as one segment of a URL's path, or as one value of its query.
pub(in crate::saga) use url::escape;

const CONTENT_TYPE: &str = "Content-Type";

/// A step's own request, without the fields that Qbox adds to each.
///
/// # Errors
/// The first expression that has no value, or one that doesn't fit its place.
pub(in crate::saga) fn request(template: &RequestTemplate, values: &Values<'_>) -> Result<Request, Missing> {
    filled(template, &Lookup::strict(values))
}

/// The same with marks where secrets are hidden: not to be sent.
///
/// # Errors
/// As [`request`].
pub(in crate::saga) fn marked_request(
    template: &RequestTemplate,
    values: &Values<'_>,
) -> Result<Request, Missing> {
    filled(template, &Lookup::with_marks(values))
}

fn filled(template: &RequestTemplate, lookup: &Lookup<'_>) -> Result<Request, Missing> {
    let (headers, body) = message(&template.headers, &template.body, lookup)?;
    Ok(Request {
        method: template.method.clone(),
        url: url::url(&template.url, lookup)?,
        headers,
        body,
    })
}

/// A reply that the file gives; a value that is missing, or doesn't fit, is the empty string.
///
/// # Errors
/// [`Missing::Hidden`] alone.
pub(in crate::saga) fn reply(template: &ReplyTemplate, values: &Values<'_>) -> Result<Reply, Missing> {
    let (headers, body) = message(&template.headers, &template.body, &Lookup::lenient(values))?;
    Ok(Reply {
        status: template.status,
        headers,
        body,
    })
}

/// Whether a line of `when` holds. A value that is missing is not present, and equals nothing.
///
/// # Errors
/// [`Missing::Hidden`]: nobody knows.
pub(in crate::saga) fn condition(condition: &Condition, values: &Values<'_>) -> Result<bool, Missing> {
    let lookup = Lookup::strict(values);
    let is = |wanted: &dyn Fn(&String) -> bool| match lookup.template(&condition.value) {
        Ok(text) => Ok(wanted(&text)),
        Err(hidden @ Missing::Hidden(..)) => Err(hidden),
        Err(_) => Ok(false),
    };
    match &condition.test {
        Test::Equals(wanted) => is(&|text| text == wanted),
        Test::In(wanted) => is(&|text| wanted.contains(text)),
        Test::Present(wanted) => Ok(condition.value.exprs().all(|expr| lookup.has(expr)) == *wanted),
    }
}

/// The value of `lock` or `dedupe`; `None` where it has none, or is empty: all that leave the key empty have no key in
/// common. `gap` is [`super::Saga::gap`] of a saga that a restart has found.
#[must_use]
pub fn key(
    plan: &Plan,
    saga: SagaId,
    trigger: &Trigger,
    template: &Template,
    gap: Option<&str>,
) -> Option<String> {
    let values = Values {
        saga,
        plan,
        trigger,
        document: None,
        exchanges: &[],
        failed_step: None,
        outcome: None,
        gap,
    };
    let key = Lookup::strict(&values).template(template).ok();
    key.filter(|key| !key.is_empty())
}

fn message(
    fields: &[(String, Template)],
    body: &BodyTemplate,
    lookup: &Lookup<'_>,
) -> Result<(Headers, Bytes), Missing> {
    // With room for what Qbox adds.
    let mut headers = Headers(Vec::with_capacity(fields.len() + 8));
    for (name, value) in fields {
        headers.push(name.as_str(), field_value(value, lookup)?);
    }
    let body = match body {
        BodyTemplate::Empty => Bytes::new(),
        BodyTemplate::Text(template) => text_body(template, lookup)?,
        BodyTemplate::Json(template) => {
            // Unless the file says another.
            if headers.get(CONTENT_TYPE).is_none() {
                headers.push(CONTENT_TYPE, "application/json");
            }
            let mut body = Vec::with_capacity(128);
            write_json(template, lookup, &mut body)?;
            Bytes::from(body)
        }
    };
    Ok((headers, body))
}

/// A field's value: each expression's on its own is checked, so that the message names the one at fault. White space at
/// its ends is no part of it (RFC 9110, 5.5).
fn field_value(template: &Template, lookup: &Lookup<'_>) -> Result<Bytes, Missing> {
    let value = concat(template, |expr| {
        let value = lookup.bytes(expr)?;
        match fits_field(&value) {
            true => Ok(value),
            false => lookup.unfit(Missing::NotAField(expr.text.clone())),
        }
    })?;
    Ok(value.slice_ref(value.trim_ascii()))
}

/// RFC 9110, 5.5: visible characters, spaces, tabs and what is beyond ASCII.
fn fits_field(value: &[u8]) -> bool {
    !value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
}

/// A body of text; values that are not UTF-8 stay as they are.
///
/// # Errors
/// A value that is missing.
pub(in crate::saga) fn text_body(template: &Template, lookup: &Lookup<'_>) -> Result<Bytes, Missing> {
    concat(template, |expr| lookup.bytes(expr))
}

/// The template's parts one behind the other. One whole expression is not copied.
fn concat(template: &Template, value: impl Fn(&Expr) -> Result<Bytes, Missing>) -> Result<Bytes, Missing> {
    if let Some(expr) = template.whole_expr() {
        return value(expr);
    }
    let mut bytes = BytesMut::new();
    for part in &template.parts {
        match part {
            Part::Text(text) => bytes.extend_from_slice(text.as_bytes()),
            Part::Value(expr) => bytes.extend_from_slice(&value(expr)?),
        }
    }
    Ok(bytes.freeze())
}

/// JSON: one whole expression keeps its value's type, other text is a string, keys are as the file has them. A number
/// is what a 64-bit integer or double can hold of it (RFC 8259, section 6).
///
/// # Errors
/// A value that is missing.
pub(in crate::saga) fn json(template: &JsonTemplate, lookup: &Lookup<'_>) -> Result<Value, Missing> {
    let mut text = Vec::new();
    write_json(template, lookup, &mut text)?;
    // It was written by the same library.
    Ok(serde_json::from_slice(&text).unwrap_or_default())
}

/// The same as text, without a document of it in between.
fn write_json(template: &JsonTemplate, lookup: &Lookup<'_>, to: &mut Vec<u8>) -> Result<(), Missing> {
    match template {
        JsonTemplate::Value(value) => write(value, to),
        JsonTemplate::Text(template) => match template.whole_expr() {
            Some(expr) => write(&lookup.json(expr)?, to),
            None => write(&lookup.template(template)?, to),
        },
        JsonTemplate::Array(items) => {
            to.push(b'[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    to.push(b',');
                }
                write_json(item, lookup, to)?;
            }
            to.push(b']');
        }
        JsonTemplate::Object(pairs) => {
            to.push(b'{');
            for (number, (key, item)) in pairs.iter().enumerate() {
                if number > 0 {
                    to.push(b',');
                }
                write(key, to);
                to.push(b':');
                write_json(item, lookup, to)?;
            }
            to.push(b'}');
        }
    }
    Ok(())
}

fn write(value: &impl Serialize, to: &mut Vec<u8>) {
    // Text and values can always be written, and memory takes all of it.
    let _ = serde_json::to_writer(to, value);
}
