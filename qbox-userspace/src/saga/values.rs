//! What expressions are filled in from: a saga's messages so far, and the value that a [`Source`] has among them.
//!
//! A value is there or it isn't; what follows from a value that is missing is the filler's question (`fill`).

use super::expr::{Expr, FieldPath, MessagePart, Source, Template};
use super::id::{SagaId, StepId};
use super::message::{Headers, Request, Response, Trigger};
use super::plan::Plan;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// A step's transaction as far as it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exchange {
    /// The request that was sent last.
    pub request: Option<Arc<Request>>,
    /// The last whole response.
    pub response: Option<Arc<Response>>,
}

/// All that expressions of one saga can speak of at this moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    /// `saga.id`.
    pub saga: SagaId,
    /// The definition: `saga.name`, and the names of steps.
    pub plan: &'a Plan,
    /// The request that began it.
    pub trigger: &'a Trigger,
    /// One for each step, by [`StepId`].
    pub exchanges: &'a [Exchange],
    /// `saga.failed_step`.
    pub failed_step: Option<StepId>,
    /// `saga.outcome`: `committed`, `compensating`, `compensated` or `stuck`; `None` while it goes forward.
    pub outcome: Option<&'a str>,
}

/// Why something can't be filled in. Nothing is sent then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
    /// An expression has no value, and no default.
    #[error("`{0}` has no value")]
    NoValue(String),
    /// A value would end its line and begin another (RFC 9110, 5.5: CR, LF and NUL are never part of a field's value).
    #[error("the value of `{0}` has a line break or a NUL, which no header field can hold")]
    NotAField(String),
    /// A value would climb in the URL's path, or is empty where a segment is needed.
    #[error(
        "the value of `{0}` makes the path segment `{1}`, which a server would resolve away (RFC 3986, 5.2.4)"
    )]
    DotSegment(String, String),
}

/// One value, as it came.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found<'a> {
    Text(Cow<'a, str>),
    /// A body: perhaps no text at all.
    Bytes(&'a Bytes),
    Json(Value),
}

impl Found<'_> {
    /// As text: a JSON string as it is, other JSON as it is written; bytes that are not UTF-8 are not text.
    pub(super) fn into_text(self) -> Option<String> {
        match self {
            Found::Text(text) => Some(text.into_owned()),
            Found::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Found::Json(Value::String(text)) => Some(text),
            Found::Json(value) => Some(value.to_string()),
        }
    }

    /// As bytes.
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Found::Bytes(bytes) => bytes.clone(),
            Found::Text(text) => Bytes::from(text.into_owned()),
            Found::Json(Value::String(text)) => Bytes::from(text),
            Found::Json(value) => Bytes::from(value.to_string()),
        }
    }

    /// As JSON: what was read as JSON keeps its type, all else is a string.
    pub(super) fn into_json(self) -> Option<Value> {
        match self {
            Found::Json(value) => Some(value),
            other => other.into_text().map(Value::String),
        }
    }
}

impl<'a> Values<'a> {
    /// The expression's value, or its default.
    pub(super) fn find(&self, expr: &Expr) -> Option<Found<'a>> {
        let default = || expr.default.clone().map(|text| Found::Text(Cow::Owned(text)));
        self.source(&expr.source).or_else(default)
    }

    /// The template's text.
    ///
    /// # Errors
    /// [`Missing::NoValue`], with the first expression that has none.
    pub(super) fn text(&self, template: &Template) -> Result<String, Missing> {
        template.try_fill(|expr| self.expr_text(expr))
    }

    /// One expression's text.
    pub(super) fn expr_text(&self, expr: &Expr) -> Result<String, Missing> {
        let found = self.find(expr).and_then(Found::into_text);
        found.ok_or_else(|| Missing::NoValue(expr.text.clone()))
    }

    fn source(&self, source: &Source) -> Option<Found<'a>> {
        let owned = |text: String| Some(Found::Text(Cow::Owned(text)));
        match source {
            Source::Trigger(part) => self.trigger(part),
            Source::Request(step, part) => {
                let request = self.exchanges.get(step.index())?.request.as_deref()?;
                of_message(part, &request.headers, &request.body)
            }
            Source::Response(step, part) => {
                let response = self.exchanges.get(step.index())?.response.as_deref()?;
                match part {
                    MessagePart::Status => Some(Found::Json(response.status.into())),
                    MessagePart::Body | MessagePart::Json(_) if response.truncated => None,
                    part => of_message(part, &response.headers, &response.body),
                }
            }
            Source::SagaId => owned(self.saga.to_string()),
            Source::SagaName => Some(Found::Text(Cow::Borrowed(&self.plan.name))),
            Source::SagaFailedStep => {
                let step = self.plan.steps.get(self.failed_step?.index())?;
                Some(Found::Text(Cow::Borrowed(&step.name)))
            }
            Source::SagaOutcome => self.outcome.map(|text| Found::Text(Cow::Borrowed(text))),
        }
    }

    fn trigger(&self, part: &MessagePart) -> Option<Found<'a>> {
        let request = &self.trigger.request;
        match part {
            MessagePart::Method => Some(Found::Text(Cow::Borrowed(&request.method))),
            MessagePart::Url => Some(Found::Text(Cow::Borrowed(&request.url))),
            MessagePart::Path(name) => {
                let (_, value) = self.trigger.path.iter().find(|(n, _)| n == name)?;
                Some(Found::Text(Cow::Borrowed(value)))
            }
            MessagePart::Query(name) => {
                let (_, query) = request.url.split_once('?')?;
                query_pairs(query).find_map(|(n, value)| (n == *name).then_some(Found::Text(value)))
            }
            part => of_message(part, &request.headers, &request.body),
        }
    }
}

fn of_message<'a>(part: &MessagePart, headers: &'a Headers, body: &'a Bytes) -> Option<Found<'a>> {
    match part {
        MessagePart::Header(name) => {
            let value = std::str::from_utf8(headers.get(name)?).ok()?;
            Some(Found::Text(Cow::Borrowed(value)))
        }
        MessagePart::Body => Some(Found::Bytes(body)),
        MessagePart::Json(field) => json_field(body, field).map(Found::Json),
        // Parsing lets these stand only where they have a meaning, which is above.
        MessagePart::Method
        | MessagePart::Url
        | MessagePart::Path(_)
        | MessagePart::Query(_)
        | MessagePart::Status => None,
    }
}

/// The field of a body that is read as JSON; `None` if it is none, or has no such field.
pub(super) fn json_field(body: &[u8], field: &FieldPath) -> Option<Value> {
    let document: Value = serde_json::from_slice(body).ok()?;
    field.find(&document).cloned()
}

/// The pairs of a query as programs write them (the WHATWG URL Standard's application/x-www-form-urlencoded): `+` is a space.
/// What is no UTF-8 after decoding has U+FFFD in it, and so equals nothing that a file can ask for.
pub(super) fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decode(name), form_decode(value))
    })
}

fn form_decode(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
    } else {
        percent_decode_str(text).decode_utf8_lossy()
    }
}
