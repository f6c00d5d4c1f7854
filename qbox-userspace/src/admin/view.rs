//! What the API shows: plain shapes, written by the server and read back by `qbox`'s own commands.

use crate::runner::{Calls, Detail, Health, Line, Summary};
use crate::saga::{AttemptEnd, Class, Direction, Event, Plan, StepId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How requests come to this Qbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Capture {
    /// The kernel turns the pods' sockets.
    Ebpf {
        /// The cgroup whose children are the pods.
        cgroup: String,
        /// The listeners' port.
        port: u16,
    },
    /// Clients send to a plain port.
    Explicit {
        /// Its address.
        listen: String,
    },
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its cgroup's name.
    pub name: String,
    /// The cgroup's directory.
    pub cgroup: String,
    /// A process in it, if one is known.
    pub pid: Option<u32>,
    /// The inode of its network namespace.
    pub netns: u64,
    /// Why it isn't captured, if it isn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status<'a> {
    /// This Qbox's version.
    pub version: &'a str,
    /// Its process.
    pub pid: u32,
    /// The API's TCP address.
    pub admin: String,
    /// How requests come here.
    pub capture: &'a Capture,
    /// How many pods are captured.
    pub pods: usize,
    /// How many can't be; `/api/v1/pods` says why.
    pub uncaptured: usize,
    /// How many sagas are defined.
    pub definitions: usize,
    /// The runner.
    pub sagas: Health,
    /// The calls to services.
    pub calls: Calls,
    /// Why it is not ready; empty: it is.
    pub amiss: Vec<String>,
}

/// One saga with its history.
#[derive(Debug, Clone, Serialize)]
pub struct SagaView {
    /// As in the list.
    #[serde(flatten)]
    pub summary: Summary,
    /// What happened, in order.
    pub events: Vec<EventView>,
}

impl SagaView {
    /// From the runner's.
    #[must_use]
    pub fn new(detail: &Detail) -> Self {
        let mut events: Vec<EventView> = detail.events.iter().map(|e| EventView::new(e, detail)).collect();
        if let Some(replied) = detail.summary.replied {
            // The reply is no event of the journal's: it takes its place by its time.
            let place = events.partition_point(|e| e.at <= replied.at.0);
            let view = EventView {
                at: replied.at.0,
                kind: "replied",
                status: Some(replied.status),
                text: format!("caller answered {}", replied.status),
                ..EventView::default()
            };
            events.insert(place, view);
        }
        for event in &mut events {
            let offset = Timestamp(event.at).since(detail.summary.arrived);
            event.offset_us = u64::try_from(offset.as_micros()).unwrap_or(u64::MAX);
        }
        Self {
            summary: detail.summary.clone(),
            events,
        }
    }
}

/// One event. Bodies and header values are not shown: they are the callers' business. URLs come without secrets.
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
    /// `transaction`, `probe` or `compensation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<&'static str>,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
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
    /// The event in plain words.
    pub text: String,
}

impl EventView {
    fn new(event: &Event, detail: &Detail) -> Self {
        let plan: &Plan = &detail.plan;
        let find = |step: StepId, direction: Direction| {
            let mut sent = detail.sent.iter();
            sent.find(|s| (s.step, s.direction) == (step, direction))
        };
        let sent = match event {
            Event::Sending { step, direction, .. } => find(*step, *direction),
            _ => None,
        };
        let text = Line { event, plan, sent }.to_string();
        let view = |kind, at: &Timestamp| Self {
            at: at.0,
            kind,
            text,
            ..Self::default()
        };
        let name = |step: &StepId| plan.steps.get(step.index()).map(|s| s.name.clone());
        let of = |direction: &Direction| {
            Some(match direction {
                Direction::Transaction => "transaction",
                Direction::Probe => "probe",
                Direction::Compensation(_) => "compensation",
            })
        };
        match event {
            Event::Began { trigger, at, .. } => Self {
                method: Some(trigger.request.method.clone()),
                url: Some(trigger.request.url.clone()),
                ..view("began", at)
            },
            Event::Skipped { step, at } => Self {
                step: name(step),
                ..view("skipped", at)
            },
            Event::Sending {
                step,
                direction,
                attempt,
                at,
            } => Self {
                step: name(step),
                direction: of(direction),
                attempt: Some(*attempt),
                method: sent.map(|s| s.method.clone()),
                url: sent.map(|s| s.url.clone()),
                ..view("sending", at)
            },
            Event::Ended {
                step,
                direction,
                attempt,
                end,
                class,
                at,
            } => Self {
                step: name(step),
                direction: of(direction),
                attempt: Some(*attempt),
                end: Some(match end {
                    AttemptEnd::NotSent(_) => "not_sent",
                    AttemptEnd::Held(_) => "held",
                    AttemptEnd::Answered(_) => "answered",
                    AttemptEnd::TimedOut => "timed_out",
                    AttemptEnd::Broken(_) => "broken",
                    AttemptEnd::Lost => "lost",
                }),
                status: match end {
                    AttemptEnd::Answered(response) => Some(response.status),
                    _ => None,
                },
                class: Some(*class),
                ..view("ended", at)
            },
            Event::RetryAt {
                step,
                direction,
                attempt,
                at,
                ..
            } => Self {
                step: name(step),
                direction: of(direction),
                attempt: Some(*attempt),
                ..view("retry_at", at)
            },
            Event::StepFailed { step, class, at, .. } => Self {
                step: name(step),
                class: Some(*class),
                ..view("step_failed", at)
            },
            Event::Failed { step, at, .. } => Self {
                step: step.as_ref().and_then(name),
                ..view("failed", at)
            },
            Event::Compensating { at } => view("compensating", at),
            Event::Undone { step, at } => Self {
                step: name(step),
                ..view("undone", at)
            },
            Event::Stuck { step, at, .. } => Self {
                step: name(step),
                ..view("stuck", at)
            },
            Event::Committed { at } => view("committed", at),
            Event::Compensated { at } => view("compensated", at),
            Event::ReplyDue { at, .. } => view("reply_due", at),
            Event::Decided { at, .. } => view("decided", at),
            Event::Recovered { at } => view("recovered", at),
        }
    }
}

/// A definition, as `/api/v1/definitions` lists it.
#[must_use]
pub fn definition(plan: &Plan, hash: &str) -> Value {
    let names = |ids: &[StepId]| -> Vec<&str> {
        let found = ids.iter().filter_map(|id| plan.steps.get(id.index()));
        found.map(|s| s.name.as_str()).collect()
    };
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|s| {
            json!({ "name": s.name, "kind": s.kind, "after": names(&s.after), "compensations": s.compensations.len() })
        })
        .collect();
    let trigger = &plan.trigger;
    json!({
        "name": plan.name,
        "hash": hash,
        "mode": plan.mode,
        "trigger": { "method": trigger.method, "host": trigger.host, "port": trigger.port, "path": trigger.path },
        "steps": steps,
    })
}
