//! One record: a trigger, what its saga would have sent, what the trigger was answered. Without secrets, and bounded.

use crate::plan;
use crate::saga::{
    AttemptEnd, EXCERPT, Plan, PlanHash, Request, SagaId, Secrets, StepId, Timestamp, excerpt,
};
use serde::{Serialize, Serializer};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// About how many bytes of one saga's requests are kept.
const LONGEST: usize = 256 << 10;
/// What a record takes beside its texts.
const OVERHEAD: usize = 256;

/// What a service answered a trigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    #[default]
    Pending,
    /// With this status.
    Status(u16),
    /// With a status that could not be read.
    Unreadable,
    /// The service gave no answer.
    None,
}

impl Answer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Status(_) | Self::Unreadable => "answered",
            Self::None => "unanswered",
        }
    }
}

/// A record, as a list shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sighting {
    /// Its own, and that of the saga that would have begun.
    #[serde(serialize_with = "as_text")]
    pub id: SagaId,
    /// The saga's name.
    pub name: String,
    /// The hash of its definition.
    #[serde(serialize_with = "as_text")]
    pub definition: PlanHash,
    /// When the trigger came.
    pub arrived: Timestamp,
    /// The trigger's method.
    pub method: String,
    /// The trigger's URL.
    pub url: String,
    /// `answered` by the service that the trigger went to, `unanswered`, or `pending`.
    pub answer: &'static str,
    /// The status that it was answered with, if that could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Microseconds from the trigger to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    /// Where the saga would have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Why it is not known what the saga would have done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unrehearsed: Option<String>,
}

fn as_text<T: std::fmt::Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// A whole record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// As in the list.
    #[serde(flatten)]
    pub sighting: Sighting,
    /// The trigger's fields.
    pub headers: Vec<(String, String)>,
    /// How the trigger's body begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Bytes of that body, if they are more than is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<usize>,
    /// What the saga would have done; none: it is being rehearsed, or `unrehearsed` says why.
    pub rehearsal: Option<Rehearsed>,
}

/// What a saga would have done, every service agreeing to everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rehearsed {
    /// Every request, in order.
    pub sent: Vec<WouldSend>,
    /// Requests behind these that there was no room for.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// Where each step would have ended, in the order of the file.
    pub steps: Vec<StepEnd>,
    /// Where the saga would have ended.
    pub state: &'static str,
    /// What the caller would have got.
    pub reply: Option<WouldReply>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A request that would have been sent. Its fields are named as in a saga's history.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WouldSend {
    /// Requests of one wave can be under way at once.
    pub wave: usize,
    /// The step's name.
    pub step: String,
    /// `transaction`, `probe` or `compensation`.
    pub direction: &'static str,
    /// Which of the step's compensations, from 1; for a compensation alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensation: Option<u32>,
    /// From 1.
    pub attempt: u32,
    /// It is the trigger itself, passed on.
    pub forward: bool,
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The fields.
    pub headers: Vec<(String, String)>,
    /// How the body begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Bytes of that body, if they are more than is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<usize>,
    /// The status that it is taken to be answered with; none: no answer that could be made up is a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assumed: Option<u16>,
}

/// Where a step would have ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepEnd {
    /// Its name.
    pub name: String,
    /// `applied`, `refused`, `unknown`, `skipped`, `pending`.
    pub state: &'static str,
    /// Of its compensation: `none`, `pending`, `undone`, `stuck`.
    pub compensation: &'static str,
    /// Why it would have failed or been stuck: an expression without a value, for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// An answer that the caller would have got.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WouldReply {
    /// Its status.
    pub status: u16,
    /// How its body begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl Rehearsed {
    /// Of a run; what it was made of holds no secrets but those that the saga's own file has, which `secrets` names.
    #[must_use]
    pub fn new(plan: &Plan, run: &plan::Rehearsal, secrets: &Secrets) -> Self {
        let name = |step: StepId| plan.steps.get(step.index()).map_or("?", |step| &step.name);
        let mut sent = Vec::new();
        let mut bytes = 0;
        for one in &run.sent {
            let request = secrets.shown_request(&one.request);
            let (direction, compensation) = one.direction.told();
            let (body, body_bytes) = excerpt(&request.body);
            let would = WouldSend {
                wave: one.wave,
                step: name(one.step).to_owned(),
                direction,
                compensation,
                attempt: one.attempt,
                forward: one.forward,
                method: request.method,
                url: request.url,
                headers: request.headers.texts(),
                body,
                body_bytes,
                assumed: match &one.end {
                    AttemptEnd::Answered(response) => Some(response.status),
                    _ => None,
                },
            };
            bytes += would.bytes();
            if bytes > LONGEST {
                break;
            }
            sent.push(would);
        }
        let steps = plan.steps.iter().zip(&run.steps).map(|(step, end)| StepEnd {
            name: step.name.clone(),
            state: end.state.as_str(),
            compensation: end.undo.as_str(),
            cause: end.cause.clone(),
        });
        let reply = run.reply.as_ref().map(|reply| {
            let headers = &reply.headers;
            WouldReply {
                status: reply.status,
                body: excerpt(&secrets.shown_body(headers, &reply.body)).0,
            }
        });
        Self {
            left_out: run.sent.len() - sent.len(),
            sent,
            steps: steps.collect(),
            state: run.state.as_str(),
            reply,
        }
    }

    fn bytes(&self) -> usize {
        let steps = self.steps.iter().map(|step| {
            let cause = step.cause.as_ref().map_or(0, String::len);
            OVERHEAD + step.name.len() + cause
        });
        let sent = self.sent.iter().map(WouldSend::bytes);
        sent.chain(steps).sum::<usize>() + EXCERPT
    }
}

impl WouldSend {
    fn bytes(&self) -> usize {
        let body = self.body.as_ref().map_or(0, String::len);
        OVERHEAD + self.step.len() + self.method.len() + self.url.len() + lengths(&self.headers) + body
    }
}

fn lengths(headers: &[(String, String)]) -> usize {
    let fields = headers.iter().map(|(name, value)| 64 + name.len() + value.len());
    fields.sum()
}

/// A record that is still being filled.
#[derive(Debug)]
pub(super) struct Entry {
    begun: Sighting,
    filled: Mutex<Filled>,
}

#[derive(Debug, Default)]
struct Filled {
    answer: Answer,
    took: Option<Duration>,
    headers: Vec<(String, String)>,
    body: Option<String>,
    body_bytes: Option<usize>,
    rehearsal: Option<Rehearsed>,
    why: Option<String>,
}

impl Entry {
    pub(super) fn new(
        id: SagaId,
        name: &str,
        definition: PlanHash,
        arrived: Timestamp,
        method: &str,
        url: String,
    ) -> Self {
        Self {
            begun: Sighting {
                id,
                name: name.to_owned(),
                definition,
                arrived,
                method: method.to_owned(),
                url,
                answer: Answer::Pending.as_str(),
                status: None,
                took_us: None,
                state: None,
                unrehearsed: None,
            },
            filled: Mutex::default(),
        }
    }

    fn look<R>(&self, look: impl FnOnce(&mut Filled) -> R) -> R {
        look(&mut self.filled.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn id(&self) -> SagaId {
        self.begun.id
    }

    pub(super) fn name(&self) -> &str {
        &self.begun.name
    }

    /// About what it takes before it is filled.
    pub(super) fn bytes(&self) -> usize {
        2 * OVERHEAD + self.begun.name.len() + self.begun.method.len() + self.begun.url.len()
    }

    pub(super) fn answered(&self, answer: Answer, took: Duration) {
        self.look(|filled| (filled.answer, filled.took) = (answer, Some(took)));
    }

    /// What the saga would have done stays unknown.
    pub(super) fn lacks(&self, why: String) {
        self.look(|filled| filled.why = Some(why));
    }

    /// Says by how many bytes it has grown.
    pub(super) fn fill(&self, trigger: &Request, rehearsal: Option<Rehearsed>, why: Option<String>) -> usize {
        let headers = trigger.headers.texts();
        let (body, body_bytes) = excerpt(&trigger.body);
        let bytes = lengths(&headers) + EXCERPT + rehearsal.as_ref().map_or(0, Rehearsed::bytes);
        self.look(|filled| {
            filled.headers = headers;
            (filled.body, filled.body_bytes) = (body, body_bytes);
            (filled.rehearsal, filled.why) = (rehearsal, why);
        });
        bytes
    }

    pub(super) fn sighting(&self) -> Sighting {
        self.look(|filled| self.drawn(filled))
    }

    fn drawn(&self, filled: &Filled) -> Sighting {
        Sighting {
            answer: filled.answer.as_str(),
            status: match filled.answer {
                Answer::Status(status) => Some(status),
                _ => None,
            },
            took_us: filled
                .took
                .map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            state: filled.rehearsal.as_ref().map(|rehearsal| rehearsal.state),
            unrehearsed: filled.why.clone(),
            ..self.begun.clone()
        }
    }

    pub(super) fn record(&self) -> Record {
        self.look(|filled| Record {
            sighting: self.drawn(filled),
            headers: filled.headers.clone(),
            body: filled.body.clone(),
            body_bytes: filled.body_bytes,
            rehearsal: filled.rehearsal.clone(),
        })
    }
}
