//! Expressions: `${SOURCE.PART[.KEY][:DEFAULT]}`. Parsed once, when a saga file is loaded; filled in by `fill`.
//!
//! A [`Template`] that parsed names only steps that exist and parts that its place can have. Whether a value will be
//! there (a step that runs later has no response yet) is for the plan's check. Errors: [`ExprError`], with the place.

use super::expr_parse;
use super::id::StepId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// Text with expressions in it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template {
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    Text(String),
    Value(Expr),
}

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expr {
    /// Where its value comes from.
    pub source: Source,
    /// What it is when there is no value.
    pub default: Option<String>,
    /// As it stands in the file, for messages: `${trigger.json.guest}`.
    pub text: String,
}

/// Where a value comes from. `parent` and the aliases (`root`, `transaction[N]`) are resolved when parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The trigger.
    Trigger(MessagePart),
    /// A step's request.
    Request(StepId, MessagePart),
    /// A step's response.
    Response(StepId, MessagePart),
    /// `saga.id`.
    SagaId,
    /// `saga.name`.
    SagaName,
    /// `saga.failed_step`.
    SagaFailedStep,
    /// `saga.outcome`.
    SagaOutcome,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessagePart {
    /// `method` (trigger only).
    Method,
    /// `url` (trigger only).
    Url,
    /// `path.NAME` (trigger only).
    Path(String),
    /// `query.NAME` (trigger only).
    Query(String),
    /// `headers.NAME`.
    Header(String),
    /// `body`.
    Body,
    /// `json.FIELD`.
    Json(FieldPath),
    /// `status` (responses only).
    Status,
}

/// A place in a JSON document: `booking.id`, `seats.0.row`, or an RFC 6901 pointer. Empty: the whole document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldPath(pub Vec<String>);

/// What a template may speak of.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The names of the plan's steps, in order: [`StepId`] is the place in it.
    pub steps: &'a [String],
    /// Where the template stands.
    pub place: Place,
}

/// Where a template stands: what `parent` means there, and what has a value at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `dedupe`, `lock`: before any step. Only the trigger and `saga.name` are known.
    Trigger,
    /// A step's request, or its `when`. `parent` is the trigger.
    Request(StepId),
    /// A step's compensation. `parent` is the step's own request, `parent.response` its own response.
    Compensation(StepId),
    /// A step's probe. As [`Place::Compensation`].
    Probe(StepId),
    /// What a response is compared with (`success`, `refused`, `applied`). `parent` is the step's own request.
    Match(StepId),
    /// `[reply.*]`. `parent` is the trigger.
    Reply,
}

/// A template that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// The bytes of the text that it is about.
    pub range: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// How to mend it: "did you mean `steps.hotel`?".
    pub suggestion: Option<String>,
}

impl Template {
    /// Reads text. `$${` is a literal `${`; a `$` that no `{` follows is itself.
    ///
    /// # Errors
    /// An expression that isn't closed, or that names what doesn't exist or can't have a value in this place.
    pub fn parse(text: &str, scope: &Scope<'_>) -> Result<Self, ExprError> {
        expr_parse::template(text, scope)
    }

    /// Text without expressions: nothing in it is special.
    #[must_use]
    pub fn literal(text: impl Into<String>) -> Self {
        let text = text.into();
        let parts = if text.is_empty() {
            Vec::new()
        } else {
            vec![Part::Text(text)]
        };
        Self { parts }
    }

    /// Its expressions, in order.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Value(expr) => Some(expr),
        })
    }

    /// The text, with `value` asked for each expression.
    pub(super) fn try_fill<E>(&self, value: impl Fn(&Expr) -> Result<String, E>) -> Result<String, E> {
        self.parts.iter().try_fold(String::new(), |mut text, part| {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Value(expr) => text.push_str(&value(expr)?),
            }
            Ok(text)
        })
    }

    /// Whether it holds no expression.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.exprs().next().is_none()
    }

    /// The expression, if that is all there is.
    #[must_use]
    pub fn whole_expr(&self) -> Option<&Expr> {
        match self.parts.as_slice() {
            [Part::Value(expr)] => Some(expr),
            _ => None,
        }
    }
}

impl fmt::Display for Template {
    /// As it would stand in a file: parses back to the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace("${", "$${")),
            Part::Value(expr) => f.write_str(&expr.text),
        })
    }
}

impl FieldPath {
    /// Reads a field's path: keys of letters, digits, `_` and `-` with dots between them, or, where it begins with `/`,
    /// an RFC 6901 pointer. A number is also an array's index.
    ///
    /// # Errors
    /// An empty key, another character in a dotted key, or a `~` that neither `0` nor `1` follows. The range is of `text`.
    pub fn parse(text: &str) -> Result<Self, ExprError> {
        expr_parse::field(text, 0)
    }

    /// The value at this place.
    #[must_use]
    pub fn find<'a>(&self, document: &'a serde_json::Value) -> Option<&'a serde_json::Value> {
        self.0.iter().try_fold(document, |value, key| match value {
            serde_json::Value::Object(map) => map.get(key),
            // RFC 6901, section 4: an index has no leading zero.
            serde_json::Value::Array(items) if key == "0" || !key.starts_with('0') => key
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| key.parse().ok())
                .flatten()
                .and_then(|at: usize| items.get(at)),
            _ => None,
        })
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.iter().all(|key| expr_parse::is_plain_key(key)) {
            return f.write_str(&self.0.join("."));
        }
        self.0
            .iter()
            .try_for_each(|key| write!(f, "/{}", key.replace('~', "~0").replace('/', "~1")))
    }
}
