//! A saga's spans: one of its own from its trigger to its end, and below it one for each attempt, whose id is the one that the request
//! itself named. Made of the saga's events, as they happen; the names are those of OpenTelemetry's semantic conventions for HTTP.
//!
//! What a person may not see is in none of them. No errors.

use crate::saga::{AttemptEnd, Call, Class, Direction, Event, Plan, Saga, Secrets, StepId, Timestamp, Trace};
use crate::telemetry::{Attribute, Kind, Span, Spans, Value};
use std::borrow::Cow;

/// Moments that a saga's span tells of, at the most.
const MOMENTS: usize = 64;
/// Bytes of a text in a span.
const TEXT: usize = 1024;

/// The spans of one saga.
pub(super) struct Traced {
    spans: Spans,
    trace: Trace,
    state: String,
    since: Timestamp,
    /// It had ended, and is undone now.
    again: bool,
    open: Vec<Open>,
    moments: Vec<(u64, &'static str, Vec<Attribute>)>,
    /// Of the trigger's own request.
    request: Vec<Attribute>,
    answered: Option<u16>,
    cause: Option<String>,
}

/// An attempt in flight.
struct Open {
    attempt: (StepId, Direction, u32),
    since: Timestamp,
    /// What is known of its request.
    request: Vec<Attribute>,
    method: String,
}

impl Traced {
    /// For a saga that begins, goes on after a restart, or is taken back. `None`: its trace is not recorded.
    pub(super) fn new(
        spans: Option<&Spans>,
        saga: &Saga,
        since: Timestamp,
        again: bool,
    ) -> Option<Box<Self>> {
        let (spans, trace) = (spans?, saga.trace());
        trace.is_sampled().then(|| {
            Box::new(Self {
                spans: spans.clone(),
                trace,
                state: saga.trace_state(),
                since,
                again,
                open: Vec::new(),
                moments: Vec::new(),
                request: Vec::new(),
                answered: None,
                cause: None,
            })
        })
    }

    /// An attempt's request, which is about to be sent, or was before a restart.
    pub(super) fn sends(&mut self, call: &Call, since: Timestamp, plan: &Plan, secrets: &Secrets) {
        let attempt = (call.step, call.direction, call.attempt);
        let place = self.open.iter().position(|open| open.attempt == attempt);
        let place = place.unwrap_or_else(|| {
            self.open.push(Open::new(attempt, since));
            self.open.len() - 1
        });
        if let (Some(open), false) = (
            self.open.get_mut(place),
            matches!(call.direction, Direction::Child(_)),
        ) {
            let url = secrets.url_of(plan, call);
            open.request = vec![text("http.request.method", call.request.method.clone())];
            open.request.extend(server(&url));
            open.request.push(text("url.full", cut(url)));
            open.method.clone_from(&call.request.method);
        }
    }

    /// What has just happened. The saga stands behind all of it.
    pub(super) fn learn(&mut self, saga: &Saga, plan: &Plan, secrets: &Secrets, events: &[Event]) {
        for event in events {
            self.see(saga, plan, secrets, event);
        }
    }

    fn see(&mut self, saga: &Saga, plan: &Plan, secrets: &Secrets, event: &Event) {
        let name = |step: &StepId| {
            plan.steps
                .get(step.index())
                .map_or("?", |step| step.name.as_str())
        };
        let step = |step: &StepId| text("qbox.step", name(step).to_owned());
        match event {
            Event::Began { trigger, .. } => self.request = of_trigger(plan, secrets, trigger),
            Event::Sending {
                step,
                direction,
                attempt,
                at,
            } => self.open.push(Open::new((*step, *direction, *attempt), *at)),
            Event::Ended {
                step,
                direction,
                attempt,
                end,
                class,
                at,
                ..
            } => {
                let attempt = (*step, *direction, *attempt);
                // One that was given up is ended; that it was heard of after all is a moment of the saga's.
                match self.open.iter().position(|open| open.attempt == attempt) {
                    Some(place) => {
                        let open = self.open.swap_remove(place);
                        let span = self.span_of(saga, name(step), open, (end, *class), *at);
                        self.spans.tell(span);
                    }
                    None => self.moment(*at, "late answer", vec![text("qbox.step", name(step).to_owned())]),
                }
            }
            Event::StepFailed {
                step: of, cause, at, ..
            } => {
                self.moment(
                    *at,
                    "step failed",
                    vec![step(of), text("qbox.cause", cut(cause.clone()))],
                );
            }
            Event::Failed { step: of, cause, at } => {
                let mut known: Vec<_> = of.iter().map(step).collect();
                known.push(text("qbox.cause", cut(cause.clone())));
                self.cause = Some(match of {
                    Some(of) => cut(format!("{}: {cause}", name(of))),
                    None => cut(cause.clone()),
                });
                self.moment(*at, "failed", known);
            }
            Event::Stuck { step: of, cause, at } => {
                self.moment(
                    *at,
                    "stuck",
                    vec![step(of), text("qbox.cause", cut(cause.clone()))],
                );
            }
            Event::Skipped { step: of, at } => self.moment(*at, "skipped", vec![step(of)]),
            Event::Undone { step: of, at } => self.moment(*at, "undone", vec![step(of)]),
            Event::Nested { step: of, child, at } => {
                self.moment(
                    *at,
                    "nested",
                    vec![step(of), text("qbox.nested.id", child.to_string())],
                );
            }
            Event::Compensating { at } => self.moment(*at, "compensating", Vec::new()),
            Event::Revoked { at } => self.moment(*at, "revoked", Vec::new()),
            Event::Recovered { at } => self.moment(*at, "recovered", Vec::new()),
            Event::Decided { at, .. } => self.moment(*at, "operator decided", Vec::new()),
            Event::RetryAt { .. }
            | Event::ReplyDue { .. }
            | Event::Committed { .. }
            | Event::Compensated { .. } => {}
        }
    }

    fn moment(&mut self, at: Timestamp, what: &'static str, known: Vec<Attribute>) {
        if self.moments.len() < MOMENTS {
            self.moments.push((at.0, what, known));
        }
    }

    /// Its callers were answered so.
    pub(super) fn answered(&mut self, status: u16) {
        self.answered = Some(status);
    }

    fn span_of(
        &self,
        saga: &Saga,
        step: &str,
        open: Open,
        (end, class): (&AttemptEnd, Class),
        at: Timestamp,
    ) -> Span {
        let (id, direction, attempt) = open.attempt;
        let (what, kind) = match direction {
            Direction::Transaction => ("transaction", Kind::Client),
            Direction::Probe => ("probe", Kind::Client),
            Direction::Compensation(_) => ("compensation", Kind::Client),
            Direction::Child(_) => ("compensation", Kind::Internal),
        };
        let name = match (direction, open.method.as_str()) {
            (Direction::Child(_), _) | (_, "") => format!("{step} {what}"),
            (Direction::Transaction, method) => format!("{method} {step}"),
            (_, method) => format!("{method} {step} {what}"),
        };
        let mut attributes = open.request;
        let (status, error): (Option<u16>, Option<Cow<'static, str>>) = match end {
            AttemptEnd::Answered(answer) => {
                let failed = class != Class::Applied;
                (
                    Some(answer.status),
                    failed.then(|| answer.status.to_string().into()),
                )
            }
            AttemptEnd::NotSent(_) => (None, Some("not_sent".into())),
            AttemptEnd::Held(_) => (None, Some("held_back".into())),
            AttemptEnd::TimedOut => (None, Some("timeout".into())),
            AttemptEnd::Broken(_) => (None, Some("broken".into())),
            AttemptEnd::Lost => (None, Some("restart".into())),
        };
        let why = match end {
            AttemptEnd::Answered(answer) => format!("answered {}", answer.status),
            AttemptEnd::NotSent(why) | AttemptEnd::Held(why) | AttemptEnd::Broken(why) => why.clone(),
            AttemptEnd::TimedOut => "no answer in time".to_owned(),
            AttemptEnd::Lost => "Qbox was restarted while it was in flight".to_owned(),
        };
        if let (Some(status), true) = (status, kind == Kind::Client) {
            attributes.push(number("http.response.status_code", u32::from(status)));
        }
        let failed = error.is_some().then(|| cut(why));
        attributes.extend(error.map(|error| ("error.type", Value::Text(error))));
        if attempt > 1 && kind == Kind::Client {
            attributes.push(number("http.request.resend_count", attempt - 1));
        }
        attributes.extend([
            text("qbox.saga.id", saga.id().to_string()),
            text("qbox.saga.name", saga.plan().name.clone()),
            text("qbox.step", step.to_owned()),
            word("qbox.direction", what),
            number("qbox.attempt", attempt),
            word(
                "qbox.outcome",
                match class {
                    Class::Applied => "applied",
                    Class::NotApplied => "not_applied",
                    Class::Unknown => "unknown",
                },
            ),
        ]);
        if let Direction::Child(n) = direction {
            attributes.extend(
                saga.child(id, n)
                    .map(|child| text("qbox.nested.id", child.to_string())),
            );
        }
        Span {
            trace: (self.trace.id, self.trace.flags),
            state: self.state.clone(),
            id: saga.span(id, direction, attempt),
            parent: Some(self.trace.span),
            kind,
            name,
            time: (open.since.0, at.0.max(open.since.0)),
            failed,
            attributes,
            moments: Vec::new(),
        }
    }

    /// The saga has ended.
    pub(super) fn end(&mut self, saga: &Saga, now: Timestamp) {
        let plan = saga.plan();
        let outcome = saga.state();
        let committed = outcome == crate::saga::SagaState::Committed;
        let mut attributes = std::mem::take(&mut self.request);
        if attributes.is_empty() && !self.again {
            // Behind a restart: as its file says.
            attributes.extend(server(&plan.trigger.url()));
        }
        attributes.push(text("http.route", route(plan)));
        if let Some(status) = self.answered.filter(|_| !self.again) {
            attributes.push(number("http.response.status_code", u32::from(status)));
        }
        if !committed {
            attributes.push(match self.answered {
                Some(status @ 500..) => text("error.type", status.to_string()),
                _ => word("error.type", "compensated"),
            });
        }
        attributes.extend([
            text("qbox.saga.id", saga.id().to_string()),
            text("qbox.saga.name", plan.name.clone()),
            word("qbox.saga.outcome", outcome.as_str()),
        ]);
        let failed_step = saga.failed_step().and_then(|step| plan.steps.get(step.index()));
        attributes.extend(failed_step.map(|step| text("qbox.saga.failed_step", step.name.clone())));
        if let Some(parent) = saga.trigger().parent() {
            attributes.push(text("qbox.parent.id", parent.saga.to_string()));
            attributes.push(text("qbox.parent.step", parent.step));
        }
        let (kind, name) = match self.again {
            true => (Kind::Internal, format!("{} taken back", plan.name)),
            false => (Kind::Server, format!("{} saga", plan.name)),
        };
        self.spans.tell(Span {
            trace: (self.trace.id, self.trace.flags),
            state: std::mem::take(&mut self.state),
            id: self.trace.span,
            parent: self.trace.parent,
            kind,
            name,
            time: (self.since.0, now.0.max(self.since.0)),
            failed: (!committed).then(|| self.cause.take().unwrap_or_else(|| "compensated".to_owned())),
            attributes,
            moments: std::mem::take(&mut self.moments),
        });
    }
}

impl Open {
    fn new(attempt: (StepId, Direction, u32), since: Timestamp) -> Self {
        Self {
            attempt,
            since,
            request: Vec::new(),
            method: String::new(),
        }
    }
}

fn of_trigger(plan: &Plan, secrets: &Secrets, trigger: &crate::saga::Trigger) -> Vec<Attribute> {
    let url = secrets.url(&trigger.request.url);
    let mut known = vec![
        text("http.request.method", cut(trigger.request.method.clone())),
        word("url.scheme", "http"),
    ];
    known.extend(server(&plan.trigger.url()));
    let target = url.split_once("://").map_or("", |(_, rest)| rest);
    let target = target.find('/').and_then(|at| target.get(at..)).unwrap_or("/");
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    known.push(text("url.path", cut(path.to_owned())));
    known.extend(query.map(|query| text("url.query", cut(query.to_owned()))));
    known
}

/// The template that the trigger's path fits, which is one of few.
fn route(plan: &Plan) -> String {
    let url = plan.trigger.url();
    let path = url
        .split_once("://")
        .and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..)));
    path.unwrap_or("/").to_owned()
}

/// `server.address` and `server.port` of a URL.
fn server(url: &str) -> Vec<Attribute> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Vec::new();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = authority
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let (host, port) = port.unwrap_or((authority, if scheme == "https" { 443 } else { 80 }));
    vec![
        text("server.address", cut(host.to_owned())),
        number("server.port", u32::from(port)),
    ]
}

fn text(name: &'static str, value: String) -> Attribute {
    (name, Value::Text(value.into()))
}

fn word(name: &'static str, value: &'static str) -> Attribute {
    (name, Value::Text(value.into()))
}

fn number(name: &'static str, value: u32) -> Attribute {
    (name, Value::Number(value.into()))
}

/// No text is longer than a collector may like.
fn cut(mut text: String) -> String {
    if text.len() > TEXT {
        let end = (0..=TEXT)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}
