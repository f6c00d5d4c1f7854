//! A saga's history as the API shows it: its events one by one, and what came of each step. All that an onlooker sees of an
//! event is drawn here, for `/api/v1/sagas/{id}` and for `/api/v1/events`.

use crate::runner::{Child, Detail, Happening, Line, Replied, Sent, Summary, What};
use crate::saga::{
    AttemptEnd, Class, Direction, Event, Headers, Kind, OperatorAction, Plan, SagaId, Step, StepId,
    Timestamp, excerpt,
};
use bytes::Bytes;
use serde::Serialize;
use std::collections::HashMap;

/// One saga with its history.
#[derive(Debug, Clone, Serialize)]
pub struct SagaView {
    /// As in the list.
    #[serde(flatten)]
    pub summary: Summary,
    /// The sagas that were begun for its steps, oldest first.
    pub children: Vec<Child>,
    /// Its steps, in the order of its file.
    pub steps: Vec<StepView>,
    /// What happened, in order.
    pub events: Vec<EventView>,
}

impl SagaView {
    /// From the runner's.
    #[must_use]
    pub fn new(detail: &Detail) -> Self {
        let plan: &Plan = &detail.plan;
        let mut began = HashMap::new();
        let mut events: Vec<EventView> = Vec::with_capacity(detail.events.len() + 1);
        let mut steps: Vec<StepView> = plan.steps.iter().map(|step| StepView::new(step, plan)).collect();
        for event in &detail.events {
            let mut view = EventView::new(event, plan, &detail.sent);
            match event {
                Event::Sending {
                    step,
                    direction,
                    attempt,
                    at,
                } => {
                    began.insert((*step, *direction, *attempt), *at);
                }
                Event::Ended {
                    step,
                    direction,
                    attempt,
                    at,
                    ..
                } => {
                    view.message(event);
                    let began = began.remove(&(*step, *direction, *attempt));
                    view.took_us = began.map(|began| micros(at.since(began)));
                }
                _ => {}
            }
            if let Some(step) = step_of(event).and_then(|step| steps.get_mut(step.index())) {
                step.learn(event, view.took_us);
            }
            events.push(view);
        }
        if let Some(replied) = detail.summary.replied {
            // The reply is no event of the journal's: it takes its place by its time.
            let place = events.partition_point(|e| e.at <= replied.at.0);
            events.insert(place, EventView::replied(replied));
        }
        for event in &mut events {
            event.offset_us = micros(Timestamp(event.at).since(detail.summary.arrived));
        }
        Self {
            summary: detail.summary.clone(),
            children: detail.children.clone(),
            steps,
            events,
        }
    }
}

fn micros(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn step_of(event: &Event) -> Option<StepId> {
    match event {
        Event::Skipped { step, .. }
        | Event::Sending { step, .. }
        | Event::Ended { step, .. }
        | Event::StepFailed { step, .. }
        | Event::Nested { step, .. }
        | Event::Undone { step, .. }
        | Event::Stuck { step, .. } => Some(*step),
        _ => None,
    }
}

/// What came of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// `compensatable`, `pivot` or `retriable`.
    pub kind: Kind,
    /// The steps that must be done first.
    pub after: Vec<String>,
    /// `pending`, `running`, `applied`, `not_applied`, `unknown`, `skipped`; then `undoing`, `undone` or `stuck`.
    pub state: &'static str,
    /// Transactions and probes that were sent.
    pub attempts: u32,
    /// Compensations that were sent.
    pub compensations: u32,
    /// Microseconds that its messages took, all together.
    pub took_us: u64,
}

impl StepView {
    fn new(step: &Step, plan: &Plan) -> Self {
        let before = step.after.iter().filter_map(|id| plan.steps.get(id.index()));
        Self {
            name: step.name.clone(),
            kind: step.kind,
            after: before.map(|step| step.name.clone()).collect(),
            state: "pending",
            attempts: 0,
            compensations: 0,
            took_us: 0,
        }
    }

    fn learn(&mut self, event: &Event, took_us: Option<u64>) {
        self.took_us = self.took_us.saturating_add(took_us.unwrap_or_default());
        match event {
            Event::Skipped { .. } => self.state = "skipped",
            Event::Sending {
                direction: Direction::Compensation(_) | Direction::Child(_),
                ..
            } => {
                self.state = "undoing";
                self.compensations += 1;
            }
            Event::Sending { .. } => {
                self.state = "running";
                self.attempts += 1;
            }
            Event::Ended {
                direction: Direction::Compensation(_) | Direction::Child(_),
                ..
            } => {}
            // The others are final only as its failure.
            Event::Ended {
                class: Class::Applied,
                ..
            } => self.state = "applied",
            Event::StepFailed { class, .. } => {
                self.state = match class {
                    Class::NotApplied => "not_applied",
                    Class::Unknown => "unknown",
                    Class::Applied => "applied",
                }
            }
            Event::Undone { .. } => self.state = "undone",
            Event::Stuck { .. } => self.state = "stuck",
            _ => {}
        }
    }
}

/// One event. In the history of one saga each message is shown with its fields and the beginning of its body; elsewhere only the
/// beginning of the body of an answer that failed. Secrets never are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EventView {
    /// Microseconds since 1970.
    pub at: u64,
    /// Microseconds since the trigger came.
    pub offset_us: u64,
    /// The event's name: `sending`, `ended`, …; `replied` for the answer to the caller.
    pub kind: &'static str,
    /// The step's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// `transaction`, `probe`, `compensation`, or `child`: the undoing of a saga that began for the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<&'static str>,
    /// Which of the step's compensations, from 1; for a compensation alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensation: Option<u32>,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The saga that begins for the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// The method of the trigger or of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The URL of the trigger or of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// How the attempt ended: `answered`, `not_sent`, `held`, `timed_out`, `broken` or `lost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<&'static str>,
    /// The answer's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// `applied`, `unknown` or `not_applied`; of a compensation, `applied` is undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// Microseconds that the attempt took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    /// The fields of the request or the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// How the body of the request or the answer begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Bytes of that body that are kept, if they are more than is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<usize>,
    /// When the next attempt is due, in microseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<u64>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Which operator decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// What: `retry`, `skip`, `resolve`, `compensate`, `pause` or `resume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<&'static str>,
    /// The operator's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The event in plain words.
    pub text: String,
}

/// Something that happened to one of all sagas.
#[derive(Debug, Clone, Serialize)]
pub(super) struct HappeningView {
    /// To which saga.
    #[serde(serialize_with = "as_text")]
    pub saga: SagaId,
    /// Its plan's name.
    pub name: String,
    /// What.
    #[serde(flatten)]
    pub event: EventView,
}

fn as_text<S: serde::Serializer>(id: &SagaId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

impl HappeningView {
    /// From the runner's.
    #[must_use]
    pub(super) fn new(happening: &Happening) -> Self {
        let plan: &Plan = &happening.plan;
        let mut event = match &happening.what {
            What::Event(event) => EventView::new(event, plan, &[]),
            What::Replied(replied) => EventView::replied(*replied),
        };
        event.offset_us = micros(Timestamp(event.at).since(happening.arrived));
        Self {
            saga: happening.saga,
            name: plan.name.clone(),
            event,
        }
    }
}

impl EventView {
    fn replied(replied: Replied) -> Self {
        Self {
            at: replied.at.0,
            kind: "replied",
            status: Some(replied.status),
            text: format!("caller answered {}", replied.status),
            ..Self::default()
        }
    }

    /// Of one attempt.
    fn attempt(plan: &Plan, step: StepId, direction: Direction, attempt: u32) -> Self {
        let (word, compensation) = direction.told();
        Self {
            step: plan.steps.get(step.index()).map(|s| s.name.clone()),
            direction: Some(word),
            compensation,
            attempt: Some(attempt),
            ..Self::default()
        }
    }

    /// What is known of `event` alone, but for its place in time. `sent` are the requests that are known.
    fn new(event: &Event, plan: &Plan, sent: &[Sent]) -> Self {
        let sent = match event {
            Event::Sending { step, direction, .. } => {
                sent.iter().find(|s| (s.step, s.direction) == (*step, *direction))
            }
            _ => None,
        };
        let text = Line { event, plan, sent }.to_string();
        let name = |step: &StepId| plan.steps.get(step.index()).map(|s| s.name.clone());
        let view = match event {
            Event::Began { trigger, at, .. } => Self {
                at: at.0,
                kind: "began",
                method: Some(trigger.request.method.clone()),
                url: Some(trigger.request.url.clone()),
                ..Self::default()
            },
            Event::Skipped { step, at } => Self {
                at: at.0,
                kind: "skipped",
                step: name(step),
                ..Self::default()
            },
            Event::Sending {
                step,
                direction,
                attempt,
                at,
            } => Self {
                at: at.0,
                kind: "sending",
                method: sent.map(|s| s.method.clone()),
                url: sent.map(|s| s.url.clone()),
                ..Self::attempt(plan, *step, *direction, *attempt)
            }
            .carrying(sent.map(|s| (&s.headers, &s.body))),
            Event::Ended {
                step,
                direction,
                attempt,
                end,
                class,
                at,
                hidden: _,
            } => Self {
                at: at.0,
                kind: "ended",
                class: Some(*class),
                ..Self::attempt(plan, *step, *direction, *attempt)
            }
            .with(end, *class),
            Event::RetryAt {
                step,
                direction,
                attempt,
                due,
                at,
            } => Self {
                at: at.0,
                kind: "retry_at",
                due: Some(due.0),
                ..Self::attempt(plan, *step, *direction, *attempt)
            },
            Event::StepFailed {
                step,
                class,
                cause,
                at,
            } => Self {
                at: at.0,
                kind: "step_failed",
                step: name(step),
                class: Some(*class),
                cause: Some(cause.clone()),
                ..Self::default()
            },
            Event::Failed { step, cause, at } => Self {
                at: at.0,
                kind: "failed",
                step: step.as_ref().and_then(name),
                cause: Some(cause.clone()),
                ..Self::default()
            },
            Event::Undone { step, at } => Self {
                at: at.0,
                kind: "undone",
                step: name(step),
                ..Self::default()
            },
            Event::Stuck { step, cause, at } => Self {
                at: at.0,
                kind: "stuck",
                step: name(step),
                cause: Some(cause.clone()),
                ..Self::default()
            },
            Event::Decided { operator, at } => {
                let (action, step) = decided(&operator.action);
                Self {
                    at: at.0,
                    kind: "decided",
                    step: step.as_ref().and_then(name),
                    who: Some(operator.who.clone()),
                    why: Some(operator.why.clone()),
                    action: Some(action),
                    ..Self::default()
                }
            }
            Event::Nested { step, child, at } => Self {
                at: at.0,
                kind: "nested",
                step: name(step),
                child: Some(child.to_string()),
                ..Self::default()
            },
            Event::Revoked { at } => Self::bare("revoked", *at),
            Event::Compensating { at } => Self::bare("compensating", *at),
            Event::Committed { at } => Self::bare("committed", *at),
            Event::Compensated { at } => Self::bare("compensated", *at),
            Event::ReplyDue { at } => Self::bare("reply_due", *at),
            Event::Recovered { at } => Self::bare("recovered", *at),
        };
        Self { text, ..view }
    }

    fn bare(kind: &'static str, at: Timestamp) -> Self {
        Self {
            at: at.0,
            kind,
            ..Self::default()
        }
    }

    /// How the attempt ended.
    fn with(mut self, end: &AttemptEnd, class: Class) -> Self {
        let (word, cause) = match end {
            AttemptEnd::NotSent(cause) => ("not_sent", Some(cause.clone())),
            AttemptEnd::Held(cause) => ("held", Some(cause.clone())),
            AttemptEnd::Answered(_) => ("answered", None),
            AttemptEnd::TimedOut => ("timed_out", None),
            AttemptEnd::Broken(how) => ("broken", Some(how.clone())),
            AttemptEnd::Lost => ("lost", None),
        };
        self.end = Some(word);
        self.cause = cause;
        if let AttemptEnd::Answered(response) = end {
            self.status = Some(response.status);
            if class != Class::Applied {
                (self.body, self.body_bytes) = excerpt(&response.body);
            }
        }
        self
    }

    /// An answer whole, as far as it is shown at all.
    fn message(&mut self, event: &Event) {
        if let Event::Ended {
            end: AttemptEnd::Answered(response),
            ..
        } = event
        {
            self.carries(&response.headers, &response.body);
        }
    }

    fn carries(&mut self, headers: &Headers, body: &Bytes) {
        self.headers = headers.texts();
        (self.body, self.body_bytes) = excerpt(body);
    }

    fn carrying(mut self, message: Option<(&Headers, &Bytes)>) -> Self {
        if let Some((headers, body)) = message {
            self.carries(headers, body);
        }
        self
    }
}

fn decided(action: &OperatorAction) -> (&'static str, Option<StepId>) {
    match action {
        OperatorAction::Retry(step) => ("retry", *step),
        OperatorAction::Skip(step) => ("skip", Some(*step)),
        OperatorAction::Resolve => ("resolve", None),
        OperatorAction::Compensate => ("compensate", None),
        OperatorAction::Pause => ("pause", None),
        OperatorAction::Resume => ("resume", None),
    }
}
