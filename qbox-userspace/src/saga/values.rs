//! What expressions are filled in from: a saga's messages so far, and the value that a [`Source`] has among them.
//!
//! A [`Lookup`] finds them. What follows from a value that is missing is the filler's choice: it is refused
//! ([`Missing`]), or empty. Knows nothing of where in a message a value goes (`fill`).

use super::expr::{Expr, FieldPath, MessagePart, Source, Template};
use super::id::{SagaId, StepId};
use super::message::{Headers, Request, Response, Trigger};
use super::plan::Plan;
use super::secrets::MARK;
use bytes::Bytes;
use percent_encoding::percent_decode;
use serde_json::Value;
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

/// A step's transaction as far as it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exchange {
    /// The request that was sent last; once one was answered as applied, that one.
    pub request: Option<Arc<Request>>,
    /// The last whole response; once one said applied, that one.
    pub response: Option<Arc<Response>>,
}

/// A body as JSON, once it was read as such; `None`: it is none. What it was made from tells it from another.
#[derive(Clone, Debug, Default)]
pub(super) struct Once(OnceLock<Option<Value>>);

/// All that expressions of one saga can speak of at this moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    /// `saga.id`.
    pub saga: SagaId,
    /// The definition: `saga.name`, and the names of steps.
    pub plan: &'a Plan,
    /// The request that began it.
    pub trigger: &'a Trigger,
    /// Its body as JSON, if it is any: read for the first message that asks, and kept for all.
    pub document: Option<&'a Once>,
    /// One for each step, by [`StepId`].
    pub exchanges: &'a [Exchange],
    /// `saga.failed_step`.
    pub failed_step: Option<StepId>,
    /// `saga.outcome`: in a reply where the saga stands, else `compensating`, or `None` while it goes forward.
    pub outcome: Option<&'a str>,
    /// Why a value that holds [`MARK`] is none: a restart found the messages without their secrets.
    pub gap: Option<&'a str>,
}

/// Why something can't be filled in. Nothing is sent then. Each names the expression as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
    /// An expression has no value that its place can take, and no default.
    #[error("`{0}` has no value")]
    NoValue(String),
    /// Its value was a secret, and a restart has not got it back. A default would be another value than the one that was sent.
    #[error("`{0}` has no value any more: {1}")]
    Hidden(String, String),
    /// A value would end its line and begin another, or is else no field's value (RFC 9110, 5.5).
    #[error(
        "the value of `{0}` has a line break, a NUL or another control character: no header field can hold it"
    )]
    NotAField(String),
    /// A value would climb in the URL's path: a server resolves the segment away (RFC 3986, 5.2.4).
    #[error("with the value of `{0}` the path segment `{1}` would climb in the URL's path")]
    Climbs(String, String),
    /// A whole segment of the URL's path would be empty: `DELETE /rooms/${id}` would be about all rooms.
    #[error("the value of `{0}` is empty, and a segment of the URL's path can't be")]
    EmptySegment(String),
}

/// One value, as it came.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found<'a> {
    Text(Cow<'a, str>),
    /// A body or a field's value: perhaps no text at all.
    Bytes(&'a Bytes),
    Json(Value),
}

impl Found<'_> {
    /// As text: a JSON string as it is, other JSON as it is written; bytes that are not UTF-8 are not text.
    fn into_text(self) -> Option<String> {
        match self {
            Found::Text(text) => Some(text.into_owned()),
            Found::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
            Found::Json(Value::String(text)) => Some(text),
            Found::Json(value) => Some(value.to_string()),
        }
    }

    /// Whether there is the mark of a secret in it.
    fn is_marked(&self) -> bool {
        match self {
            Found::Text(text) => text.contains(MARK),
            Found::Bytes(bytes) => is_marked(bytes),
            Found::Json(value) => is_marked_json(value),
        }
    }

    /// As bytes.
    fn into_bytes(self) -> Bytes {
        match self {
            Found::Bytes(bytes) => bytes.clone(),
            Found::Text(text) => Bytes::from(text.into_owned()),
            Found::Json(Value::String(text)) => Bytes::from(text),
            Found::Json(value) => Bytes::from(value.to_string()),
        }
    }

    /// As JSON: what was read as JSON keeps its type, all else is a string, a default too.
    fn into_json(self) -> Option<Value> {
        match self {
            Found::Json(value) => Some(value),
            other => other.into_text().map(Value::String),
        }
    }
}

/// Whether there is the mark of a secret in it.
pub(super) fn is_marked(bytes: &[u8]) -> bool {
    bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes())
}

/// As deep as it was read.
fn is_marked_json(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(MARK),
        Value::Array(items) => items.iter().any(is_marked_json),
        Value::Object(map) => map.values().any(is_marked_json),
        _ => false,
    }
}

/// A body, and what it is as JSON, if it is any.
type Document<'a> = (&'a Bytes, Option<Rc<Value>>);

/// Finds values for one filling, which reads each body as JSON at most once.
#[derive(Debug)]
pub(super) struct Lookup<'a> {
    values: Values<'a>,
    empty_if_missing: bool,
    /// Marks are passed on as if they were values: what is filled in is looked into and not sent.
    with_marks: bool,
    /// The bodies that were asked for, told apart by address; at most two per step and the trigger's.
    documents: RefCell<Vec<Document<'a>>>,
}

impl<'a> Lookup<'a> {
    /// A value that is missing is an error.
    pub(super) fn strict(values: &Values<'a>) -> Self {
        Self {
            values: *values,
            empty_if_missing: false,
            with_marks: false,
            documents: RefCell::default(),
        }
    }

    /// A value that is missing is the empty string; one that is hidden is an error even so.
    pub(super) fn lenient(values: &Values<'a>) -> Self {
        Self {
            empty_if_missing: true,
            ..Self::strict(values)
        }
    }

    /// A value that is missing is an error, one that is hidden is its mark.
    pub(super) fn with_marks(values: &Values<'a>) -> Self {
        Self {
            with_marks: true,
            ..Self::strict(values)
        }
    }

    /// Whether there is a value, or a default for it.
    pub(super) fn has(&self, expr: &Expr) -> bool {
        expr.default.is_some() || self.source(&expr.source).is_some()
    }

    /// The expression as text.
    pub(super) fn text(&self, expr: &Expr) -> Result<String, Missing> {
        self.read(expr, Found::into_text)
    }

    /// The expression as bytes.
    pub(super) fn bytes(&self, expr: &Expr) -> Result<Bytes, Missing> {
        self.read(expr, |found| Some(found.into_bytes()))
    }

    /// The expression as JSON.
    pub(super) fn json(&self, expr: &Expr) -> Result<Value, Missing> {
        self.read(expr, Found::into_json)
    }

    /// The template's text.
    pub(super) fn template(&self, template: &Template) -> Result<String, Missing> {
        template.try_fill(|expr| self.text(expr))
    }

    /// What follows from a value that doesn't fit its place.
    pub(super) fn unfit(&self, why: Missing) -> Result<Bytes, Missing> {
        match self.empty_if_missing {
            true => Ok(Bytes::new()),
            false => Err(why),
        }
    }

    /// The value, else the default: also where the value is there but is none of that kind (a body that is no text).
    fn read<T>(&self, expr: &Expr, read: impl Fn(Found<'a>) -> Option<T>) -> Result<T, Missing> {
        let fixed = |text: &str| read(Found::Text(Cow::Owned(text.to_owned())));
        let found = self.source(&expr.source);
        if let Some(why) = self.values.gap.filter(|_| !self.with_marks)
            && found.as_ref().is_some_and(Found::is_marked)
        {
            return Err(Missing::Hidden(expr.text.clone(), why.to_owned()));
        }
        found
            .and_then(&read)
            .or_else(|| expr.default.as_deref().and_then(fixed))
            .or_else(|| self.empty_if_missing.then_some("").and_then(fixed))
            .ok_or_else(|| Missing::NoValue(expr.text.clone()))
    }

    fn source(&self, source: &Source) -> Option<Found<'a>> {
        let values = &self.values;
        match source {
            Source::Trigger(part) => self.trigger(part),
            Source::Request(step, part) => {
                let request = values.exchanges.get(step.index())?.request.as_deref()?;
                self.message(part, &request.headers, &request.body)
            }
            Source::Response(step, part) => {
                let response = values.exchanges.get(step.index())?.response.as_deref()?;
                match part {
                    MessagePart::Status => Some(Found::Json(response.status.into())),
                    MessagePart::Body | MessagePart::Json(_) if response.truncated => None,
                    part => self.message(part, &response.headers, &response.body),
                }
            }
            Source::SagaId => Some(Found::Text(Cow::Owned(values.saga.to_string()))),
            Source::SagaName => Some(Found::Text(Cow::Borrowed(&values.plan.name))),
            Source::SagaFailedStep => {
                let step = values.plan.steps.get(values.failed_step?.index())?;
                Some(Found::Text(Cow::Borrowed(&step.name)))
            }
            Source::SagaOutcome => values.outcome.map(|text| Found::Text(Cow::Borrowed(text))),
        }
    }

    fn trigger(&self, part: &MessagePart) -> Option<Found<'a>> {
        let trigger = self.values.trigger;
        let request = &trigger.request;
        match part {
            MessagePart::Method => Some(Found::Text(Cow::Borrowed(&request.method))),
            MessagePart::Url => Some(Found::Text(Cow::Borrowed(&request.url))),
            MessagePart::Path(name) => {
                let (_, value) = trigger.path.iter().find(|(n, _)| n == name)?;
                Some(Found::Text(Cow::Borrowed(value)))
            }
            MessagePart::Query(name) => {
                let (_, query) = request.url.split_once('?')?;
                query_pairs(query).find_map(|(n, value)| (n == *name).then_some(Found::Text(value)))
            }
            part => self.message(part, &request.headers, &request.body),
        }
    }

    fn message(&self, part: &MessagePart, headers: &'a Headers, body: &'a Bytes) -> Option<Found<'a>> {
        match part {
            MessagePart::Header(name) => headers.get(name).map(Found::Bytes),
            MessagePart::Body => Some(Found::Bytes(body)),
            MessagePart::Json(field) => self.field(body, field).map(Found::Json),
            // Parsing lets these stand only where they have a meaning, which is above.
            MessagePart::Method
            | MessagePart::Url
            | MessagePart::Path(_)
            | MessagePart::Query(_)
            | MessagePart::Status => None,
        }
    }

    /// The field of a body that is read as JSON; `None` if it is none, or has no such field.
    fn field(&self, body: &'a Bytes, field: &FieldPath) -> Option<Value> {
        let read = || serde_json::from_slice(body).ok();
        let of_trigger = std::ptr::eq(body, &raw const self.values.trigger.request.body);
        if let (true, Some(Once(document))) = (of_trigger, self.values.document) {
            return self.field_of(document.get_or_init(read).as_ref(), body, field);
        }
        let mut documents = self.documents.borrow_mut();
        let known = documents.iter().find(|(known, _)| std::ptr::eq(*known, body));
        let document = match known {
            Some((_, document)) => document.clone(),
            None => {
                let document = read().map(Rc::new);
                documents.push((body, document.clone()));
                document
            }
        };
        self.field_of(document.as_deref(), body, field)
    }

    fn field_of(&self, document: Option<&Value>, body: &Bytes, field: &FieldPath) -> Option<Value> {
        if self.values.gap.is_none() {
            return field.find(document?).cloned();
        }
        let Some(document) = document else {
            return is_marked(body).then(|| Value::from(MARK));
        };
        // A field within one that is hidden is hidden.
        let within = (0..field.0.len()).filter_map(|end| Some(FieldPath(field.0.get(..end)?.to_vec())));
        let hidden = within
            .filter_map(|outer| outer.find(document))
            .find(|value| *value == MARK);
        hidden.or_else(|| field.find(document)).cloned()
    }
}

/// The pairs of a query as programs write them (the WHATWG URL Standard's application/x-www-form-urlencoded): `+` is a
/// space. A pair that is not UTF-8 when decoded is left out: two such could otherwise look the same.
pub(super) fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((form_decode(name)?, form_decode(value)?))
        })
}

pub(super) fn form_decode(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        let decoded = percent_decode(spaced.as_bytes()).decode_utf8().ok()?;
        Some(Cow::Owned(decoded.into_owned()))
    } else {
        percent_decode(text.as_bytes()).decode_utf8().ok()
    }
}
