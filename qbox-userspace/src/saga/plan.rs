//! A saga's definition, checked: what the saga file says, with every name resolved and every default filled in.
//!
//! `config` makes it from TOML; nothing here reads a file. A plan is stored with the sagas that ran under it, so its
//! serialized form is a contract with the journal.

use super::derived::Derived;
use super::event::Direction;
use super::expr::{FieldPath, Template};
use super::id::StepId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// One saga file, checked. Invariants (config makes sure of them, the machine relies on them): step names are unique,
/// `after` has no cycle and names only steps of this plan, a sequential saga's steps are chained by `after`, there is at
/// most one pivot, a retriable step comes after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `name`.
    pub name: String,
    /// The whole forward phase; past it the saga turns to compensation.
    pub timeout: Duration,
    /// How long after compensation began the caller still waits for its end.
    pub reply_timeout: Duration,
    /// `mode`.
    pub mode: Mode,
    /// `on_recovery`.
    pub on_recovery: OnRecovery,
    /// `durability`. Not written where it is the default: a plan's hash stays what it was before there was this key.
    #[serde(default, skip_serializing_if = "Durability::is_default")]
    pub durability: Durability,
    /// `lock`: sagas whose value is the same run one after the other.
    pub lock: Option<Template>,
    /// `[trigger]`.
    pub trigger: TriggerPattern,
    /// `[[step]]`, in the order of the file.
    pub steps: Vec<Step>,
    /// `[reply.success]`; `None`: 200 and a JSON summary.
    pub reply_success: Option<ReplyPlan>,
    /// `[reply.failure]`; `None`: 502 and an RFC 9457 problem.
    pub reply_failure: Option<ReplyPlan>,
    /// What follows from all this. No part of the content.
    #[serde(skip)]
    pub derived: Derived,
}

/// `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The saga runs.
    Enforce,
    /// The trigger passes through unchanged, and what would be sent is recorded.
    Observe,
}

/// `on_recovery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRecovery {
    /// A saga that was running when Qbox died is compensated.
    Compensate,
    /// It goes on forward.
    Resume,
}

/// `durability`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Sagas survive Qbox.
    #[default]
    Disk,
    /// They are in memory alone, and end half-way when Qbox does.
    None,
}

impl Durability {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `[trigger]`: all that is given must match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriggerPattern {
    /// `None`: any method.
    pub method: Option<String>,
    /// Lower case, without a port.
    pub host: String,
    /// 80 where the URL names none.
    pub port: u16,
    /// The path, segment by segment: `/trips/{trip}` is `[Literal("trips"), Capture("trip")]`; `/` is `[Literal("")]`.
    pub path: Vec<Segment>,
    /// Query parameters that must be there with that value (decoded); others don't matter.
    pub query: Vec<(String, String)>,
    /// Fields that must be there with that value.
    pub headers: Vec<(String, String)>,
    /// The exact body.
    pub body: Option<String>,
    /// Fields of the body, read as JSON.
    pub json: Vec<(FieldPath, serde_json::Value)>,
    /// Higher goes first where two sagas can match one request.
    pub priority: i32,
    /// A key for callers that send no `Idempotency-Key`.
    pub dedupe: Option<Template>,
}

impl TriggerPattern {
    /// Its URL as it would stand in a file: parses back to the same host, port and path.
    #[must_use]
    pub fn url(&self) -> String {
        let mut url = format!("http://{}", self.host);
        if self.port != 80 {
            url.push_str(&format!(":{}", self.port));
        }
        for segment in &self.path {
            url.push('/');
            match segment {
                Segment::Literal(text) => url.extend(utf8_percent_encode(text, PATH_SEGMENT)),
                Segment::Capture(name) => url.push_str(&format!("{{{name}}}")),
            }
        }
        url
    }
}

/// Everything but unreserved characters, sub-delimiters, `:` and `@` (RFC 3986, 3.3).
const PATH_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// One segment of a trigger's path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Segment {
    /// Must be equal after percent-decoding; kept decoded.
    Literal(String),
    /// `{name}`: any one segment that is not empty.
    Capture(String),
}

/// `[[step]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `name`.
    pub name: String,
    /// `kind`.
    pub kind: Kind,
    /// The steps that must be done first.
    pub after: Vec<StepId>,
    /// All must hold, or the step is skipped.
    pub when: Vec<Condition>,
    /// What is sent.
    pub request: RequestPlan,
    /// Any of these: applied.
    pub success: Vec<ResponseMatch>,
    /// Any of these: certainly not applied. `success` is asked first.
    pub refused: Vec<ResponseMatch>,
    /// One attempt.
    pub timeout: Duration,
    /// `retry`; for a retriable step without end.
    pub retry: RetryPolicy,
    /// Asked when the outcome is unknown, before it is given up.
    pub probe: Option<Probe>,
    /// All are sent, in order. Empty: nothing to undo.
    pub compensations: Vec<Compensation>,
    /// `compensate_when`.
    pub compensate_when: CompensateWhen,
}

impl Step {
    /// One of its messages as the file has it. `None`: it has no such message, or that is the trigger, forwarded.
    #[must_use]
    pub fn template(&self, direction: Direction) -> Option<&RequestTemplate> {
        match (direction, &self.request) {
            (Direction::Transaction, RequestPlan::Send(request)) => Some(request),
            (Direction::Transaction, RequestPlan::Forward) => None,
            (Direction::Probe, _) => Some(&self.probe.as_ref()?.request),
            (Direction::Compensation(n), _) => Some(&self.compensations.get(usize::from(n))?.request),
            (Direction::Child(_), _) => None,
        }
    }
}

/// `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Undone if the saga fails.
    Compensatable,
    /// Once applied the saga is not undone.
    Pivot,
    /// After a pivot: retried until applied, never undone.
    Retriable,
}

/// `compensate_when`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompensateWhen {
    /// When applied or unknown.
    Applied,
    /// When not applied too (not when never begun).
    Always,
}

/// One line of `when`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// The value that is looked at.
    pub value: Template,
    /// What it must be.
    pub test: Test,
}

/// What a [`Condition`] asks of its value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Test {
    /// `equals`.
    Equals(String),
    /// `in`.
    In(Vec<String>),
    /// `present = true | false`.
    Present(bool),
}

/// `request`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestPlan {
    /// The trigger itself, unchanged, to its original destination.
    Forward,
    /// A request of the saga's own.
    Send(RequestTemplate),
}

/// A request with expressions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestTemplate {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: UrlTemplate,
    /// Values with expressions; CR, LF and NUL in a value are refused when it is filled in.
    pub headers: Vec<(String, Template)>,
    /// The body.
    pub body: BodyTemplate,
}

/// A URL whose path and query may hold expressions; scheme, host and port may not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UrlTemplate {
    /// The scheme.
    pub scheme: Scheme,
    /// `host` or `host:port`, as in the file.
    pub authority: String,
    /// `/path`; each value is percent-encoded as one segment.
    pub path: Template,
    /// What stands behind `?`; each value is percent-encoded as one query value.
    pub query: Option<Template>,
}

impl fmt::Display for UrlTemplate {
    /// As it would stand in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority, self.path)?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

/// The scheme of a step's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Port 80 where none is named.
    Http,
    /// Port 443 where none is named.
    Https,
}

/// The body of a request or a reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyTemplate {
    /// None.
    Empty,
    /// `body`.
    Text(Template),
    /// `json`, which also sets `Content-Type: application/json`.
    Json(JsonTemplate),
}

impl BodyTemplate {
    /// Shows `see` each text of it that may hold expressions, in order.
    pub fn each_text<'a>(&'a self, see: &mut impl FnMut(&'a Template)) {
        match self {
            Self::Empty => {}
            Self::Text(text) => see(text),
            Self::Json(json) => json.each_text(see),
        }
    }
}

impl JsonTemplate {
    /// Shows `see` each text of it that may hold expressions, in order.
    pub fn each_text<'a>(&'a self, see: &mut impl FnMut(&'a Template)) {
        match self {
            Self::Value(_) => {}
            Self::Text(text) => see(text),
            Self::Array(items) => items.iter().for_each(|item| item.each_text(see)),
            Self::Object(pairs) => pairs.iter().for_each(|(_, item)| item.each_text(see)),
        }
    }
}

/// JSON whose strings may hold expressions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JsonTemplate {
    /// A value without expressions: number, boolean, null (and what holds only such).
    Value(serde_json::Value),
    /// A string: one whole expression keeps its value's JSON type, otherwise it is a JSON string.
    Text(Template),
    /// An array.
    Array(Vec<JsonTemplate>),
    /// An object, its keys in the file's order.
    Object(Vec<(String, JsonTemplate)>),
}

/// One line of `success`, `refused` or `applied`: all that is given must match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResponseMatch {
    /// `None`: any.
    pub status: Option<StatusSet>,
    /// Fields that must be there with that value.
    pub headers: Vec<(String, Template)>,
    /// The exact body.
    pub body: Option<Template>,
    /// Fields of the body, read as JSON.
    pub json: Vec<(FieldPath, JsonTemplate)>,
}

/// Which status codes: `200`, `"2xx"`, `[404, 410]`, `["2xx", 404]`, and the default refusal, "4xx less 408 and 429".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusSet {
    /// Inclusive ranges.
    pub ranges: Vec<(u16, u16)>,
    /// Taken out again.
    pub except: Vec<u16>,
}

impl StatusSet {
    /// Whether `status` is in the set.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.ranges
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&status))
            && !self.except.contains(&status)
    }
}

/// `[step.probe]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub request: RequestTemplate,
    /// Any of these: the step is applied.
    pub applied: Vec<ResponseMatch>,
    /// Any of these: it is not.
    pub refused: Vec<ResponseMatch>,
    /// One attempt.
    pub timeout: Duration,
    /// How often it is asked again while it gives no clear answer.
    pub retry: RetryPolicy,
}

/// `[[step.compensate]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compensation {
    /// What is sent.
    pub request: RequestTemplate,
    /// Any of these: undone. Default 2xx, 404 and 410.
    pub success: Vec<ResponseMatch>,
    /// One attempt.
    pub timeout: Duration,
    /// `retry`; by default without end.
    pub retry: RetryPolicy,
    /// `needs_response`: without the step's response the step is stuck rather than a request with a hole sent.
    pub needs_response: bool,
}

/// `retry`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first one too; `None`: without end.
    pub attempts: Option<u32>,
    /// What is retried.
    pub on: Vec<RetryOn>,
    /// The ceiling of the first wait; doubled for each further one.
    pub backoff_min: Duration,
    /// The ceiling of every wait.
    pub backoff_max: Duration,
    /// No further attempt begins later than this after the first; `None`: however late. (Left out where it is none, so that a
    /// plan that doesn't use it has the hash that it always had.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_elapsed: Option<Duration>,
}

/// A cause for another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryOn {
    /// Whatever is not a success, a refusal too: how a compensation and a retriable step are retried by default.
    Any,
    /// Never sent: DNS, refused, no route.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke after the first byte was written.
    Reset,
    /// Any 5xx.
    Status5xx,
    /// One status.
    Status(u16),
}

/// `[reply.success]`, `[reply.failure]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplyPlan {
    /// `from`: that step's response, unchanged.
    From(StepId),
    /// Put together here.
    Send(ReplyTemplate),
}

/// A reply with expressions; a value that is missing is the empty string.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplyTemplate {
    /// The status.
    pub status: u16,
    /// Values with expressions.
    pub headers: Vec<(String, Template)>,
    /// The body.
    pub body: BodyTemplate,
}

impl Plan {
    /// The step of that name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<StepId> {
        self.steps
            .iter()
            .position(|s| s.name == name)
            .and_then(|at| u16::try_from(at).ok())
            .map(StepId)
    }

    /// Whether a request's body must be read before it is known whether the trigger matches.
    #[must_use]
    pub fn trigger_reads_body(&self) -> bool {
        self.trigger.body.is_some() || !self.trigger.json.is_empty()
    }
}
