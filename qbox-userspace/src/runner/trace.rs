//! A saga's spans: one of its own from its trigger to its end, and below it one for each attempt, whose id is the one that the request
//! itself named. Made of the saga's events, as they happen; the names are those of OpenTelemetry's semantic conventions for HTTP.
//!
//! What a person may not see is in none of them. No errors.

use crate::saga::{
    AttemptEnd, Call, Class, Direction, Event, Plan, Request, Saga, SagaState, Secrets, StepId, Timestamp,
    Trace, Trigger,
};
use crate::telemetry::{Attributes, Kind, Moments, Span, Spans};
use std::borrow::Cow;
use std::sync::Arc;

/// Moments that a saga's span tells of, at the most.
const MOMENTS: usize = 64;
/// Bytes of a text in a span.
const TEXT: usize = 1024;

/// The spans of one saga.
#[derive(Debug)]
pub(super) struct Traced {
    spans: Spans,
    trace: Trace,
    /// As text.
    id: String,
    state: String,
    since: Timestamp,
    /// It had ended, and is undone now.
    again: bool,
    open: Vec<Open>,
    moments: Moments,
    /// Of the trigger's own request.
    request: Attributes,
    answered: Option<u16>,
    cause: Option<String>,
}

/// An attempt in flight.
#[derive(Debug)]
struct Open {
    attempt: (StepId, Direction, u32),
    since: Timestamp,
    /// Its request, and its URL as people may see it.
    request: Option<(Arc<Request>, String)>,
}

impl Traced {
    /// For a saga that begins, goes on after a restart, or is taken back. `None`: its trace is not recorded.
    pub(super) fn new(
        spans: Option<&Spans>,
        saga: &Saga,
        since: Timestamp,
        again: bool,
    ) -> Option<Box<Self>> {
        let spans = spans?;
        let trace = saga.trace();
        trace.is_sampled().then(|| {
            Box::new(Self {
                spans: spans.clone(),
                trace,
                id: saga.id().to_string(),
                state: saga.trace_state(),
                since,
                again,
                open: Vec::new(),
                moments: Moments::default(),
                request: Attributes::default(),
                answered: None,
                cause: None,
            })
        })
    }

    /// An attempt's request, which is about to be sent, or was before a restart.
    pub(super) fn sends(&mut self, call: &Call, since: Timestamp, plan: &Plan, secrets: &Secrets) {
        let attempt = (call.step, call.direction, call.attempt);
        // No request, but the undoing of a nested saga.
        let child = matches!(call.direction, Direction::Child(_));
        let request = (!child).then(|| (Arc::clone(&call.request), secrets.url_of(plan, call)));
        match self.open.iter_mut().find(|open| open.attempt == attempt) {
            Some(open) => open.request = request,
            None => self.open.push(Open {
                attempt,
                since,
                request,
            }),
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
        match event {
            Event::Began { trigger, .. } => of_trigger(&mut self.request, plan, secrets, trigger),
            Event::Sending {
                step,
                direction,
                attempt,
                at,
            } => self.open.push(Open {
                attempt: (*step, *direction, *attempt),
                since: *at,
                request: None,
            }),
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
                // One that was given up has ended; that it was heard of after all is a moment of the saga's.
                match self.open.iter().position(|open| open.attempt == attempt) {
                    Some(place) => {
                        let open = self.open.swap_remove(place);
                        self.tell(saga, name(step), &open, (end, *class), *at);
                    }
                    None => self.moment(*at, "late answer", &[("qbox.step", name(step))]),
                }
            }
            Event::StepFailed { step, cause, at, .. } => {
                self.moment(
                    *at,
                    "step failed",
                    &[("qbox.step", name(step)), ("qbox.cause", cut(cause))],
                );
            }
            Event::Failed { step, cause, at } => {
                let cause = cut(cause);
                match step {
                    Some(step) => {
                        self.cause = Some(format!("{}: {cause}", name(step)));
                        self.moment(*at, "failed", &[("qbox.step", name(step)), ("qbox.cause", cause)]);
                    }
                    None => {
                        self.cause = Some(cause.to_owned());
                        self.moment(*at, "failed", &[("qbox.cause", cause)]);
                    }
                }
            }
            Event::Stuck { step, cause, at } => {
                self.moment(
                    *at,
                    "stuck",
                    &[("qbox.step", name(step)), ("qbox.cause", cut(cause))],
                );
            }
            Event::Skipped { step, at } => self.moment(*at, "skipped", &[("qbox.step", name(step))]),
            Event::Undone { step, at } => self.moment(*at, "undone", &[("qbox.step", name(step))]),
            Event::Nested { step, child, at } => {
                let child = child.to_string();
                self.moment(
                    *at,
                    "nested",
                    &[("qbox.step", name(step)), ("qbox.nested.id", &child)],
                );
            }
            Event::Compensating { at } => self.moment(*at, "compensating", &[]),
            Event::Revoked { at } => self.moment(*at, "revoked", &[]),
            Event::Recovered { at } => self.moment(*at, "recovered", &[]),
            Event::Decided { at, .. } => self.moment(*at, "operator decided", &[]),
            Event::RetryAt { .. }
            | Event::ReplyDue { .. }
            | Event::Committed { .. }
            | Event::Compensated { .. } => {}
        }
    }

    fn moment(&mut self, at: Timestamp, what: &str, known: &[(&str, &str)]) {
        if self.moments.count < MOMENTS {
            self.moments.add(at.0, what, known);
        }
    }

    /// Its callers were answered so.
    pub(super) fn answered(&mut self, status: u16) {
        self.answered = Some(status);
    }

    /// An attempt has ended.
    fn tell(&self, saga: &Saga, step: &str, open: &Open, (end, class): (&AttemptEnd, Class), at: Timestamp) {
        let (id, direction, attempt) = open.attempt;
        let (what, suffix) = match direction {
            Direction::Transaction => ("transaction", ""),
            Direction::Probe => ("probe", " probe"),
            Direction::Compensation(_) | Direction::Child(_) => ("compensation", " compensation"),
        };
        let kind = match direction {
            Direction::Child(_) => Kind::Internal,
            _ => Kind::Client,
        };
        let method = open.request.as_ref().map(|(request, _)| cut(&request.method));
        let name = match method {
            Some(method) => [method, " ", step, suffix],
            None => [step, " ", what, ""],
        };
        let mut span = Span::new(
            (self.trace.id, self.trace.flags),
            (saga.span(id, direction, attempt), Some(self.trace.span)),
            kind,
            &name,
            (open.since.0, at.0.max(open.since.0)),
        );
        span.state(&self.state);
        let known = span.known();
        if let Some((request, url)) = &open.request {
            known.text("http.request.method", cut(&request.method));
            server(known, url);
            known.text("url.full", cut(url));
        }
        let (error, why): (Cow<'static, str>, &str) = match end {
            AttemptEnd::Answered(answer) => {
                if kind == Kind::Client {
                    known.number("http.response.status_code", u32::from(answer.status));
                }
                let said = match class {
                    Class::Applied => Cow::Borrowed(""),
                    _ => Cow::Owned(answer.status.to_string()),
                };
                (said, "")
            }
            AttemptEnd::NotSent(why) => ("not_sent".into(), why),
            AttemptEnd::Held(why) => ("held_back".into(), why),
            AttemptEnd::TimedOut => ("timeout".into(), "no answer in time"),
            AttemptEnd::Broken(how) => ("broken".into(), how),
            AttemptEnd::Lost => ("restart".into(), "Qbox was restarted while it was in flight"),
        };
        if !error.is_empty() {
            known.text("error.type", &error);
        }
        if attempt > 1 && kind == Kind::Client {
            known.number("http.request.resend_count", attempt - 1);
        }
        known.text("qbox.saga.id", &self.id);
        known.text("qbox.saga.name", &saga.plan().name);
        known.text("qbox.step", step);
        known.text("qbox.direction", what);
        known.number("qbox.attempt", attempt);
        known.text(
            "qbox.outcome",
            match class {
                Class::Applied => "applied",
                Class::NotApplied => "not_applied",
                Class::Unknown => "unknown",
            },
        );
        if let Direction::Child(n) = direction
            && let Some(child) = saga.child(id, n)
        {
            known.text("qbox.nested.id", &child.to_string());
        }
        match (error.is_empty(), why) {
            (true, _) => {}
            (false, "") => span.failed(&format!("answered {error}")),
            (false, why) => span.failed(cut(why)),
        }
        self.spans.tell(&span);
    }

    /// The saga has ended.
    pub(super) fn end(&self, saga: &Saga, now: Timestamp) {
        let plan = saga.plan();
        let outcome = saga.state();
        let (kind, what) = match self.again {
            true => (Kind::Internal, " taken back"),
            false => (Kind::Server, " saga"),
        };
        let mut span = Span::new(
            (self.trace.id, self.trace.flags),
            (self.trace.span, self.trace.parent),
            kind,
            &[&plan.name, what],
            (self.since.0, now.0.max(self.since.0)),
        );
        span.state(&self.state);
        span.knows(&self.request);
        let known = span.known();
        let url = plan.trigger.url();
        if self.request.is_empty() && !self.again {
            // Behind a restart: as its file says.
            server(known, &url);
        }
        // The template that the trigger's path fits, which is one of few.
        known.text("http.route", target(&url));
        if let Some(status) = self.answered.filter(|_| !self.again) {
            known.number("http.response.status_code", u32::from(status));
        }
        known.text("qbox.saga.id", &self.id);
        known.text("qbox.saga.name", &plan.name);
        known.text("qbox.saga.outcome", outcome.as_str());
        if let Some(step) = saga.failed_step().and_then(|step| plan.steps.get(step.index())) {
            known.text("qbox.saga.failed_step", &step.name);
        }
        if let Some(parent) = saga.trigger().parent() {
            known.text("qbox.parent.id", &parent.saga.to_string());
            known.text("qbox.parent.step", &parent.step);
        }
        if outcome != SagaState::Committed {
            match self.answered {
                Some(status @ 500..) => known.text("error.type", &status.to_string()),
                _ => known.text("error.type", "compensated"),
            }
            span.failed(self.cause.as_deref().unwrap_or("compensated"));
        }
        span.moments(&self.moments);
        self.spans.tell(&span);
    }
}

fn of_trigger(known: &mut Attributes, plan: &Plan, secrets: &Secrets, trigger: &Trigger) {
    known.text("http.request.method", cut(&trigger.request.method));
    known.text("url.scheme", "http");
    server(known, &plan.trigger.url());
    let url = secrets.url(&trigger.request.url);
    let target = target(&url);
    match target.split_once('?') {
        Some((path, query)) => {
            known.text("url.path", cut(path));
            known.text("url.query", cut(query));
        }
        None => known.text("url.path", cut(target)),
    }
}

/// A URL's path and query.
fn target(url: &str) -> &str {
    let behind = url.split_once("://").map_or("", |(_, behind)| behind);
    behind.find('/').and_then(|at| behind.get(at..)).unwrap_or("/")
}

/// `server.address` and `server.port` of a URL.
fn server(known: &mut Attributes, url: &str) {
    let Some((scheme, behind)) = url.split_once("://") else {
        return;
    };
    let authority = behind.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = authority
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let (host, port) = port.unwrap_or((authority, if scheme == "https" { 443 } else { 80 }));
    known.text("server.address", cut(host));
    known.number("server.port", u32::from(port));
}

/// No text is longer than a collector may like.
fn cut(text: &str) -> &str {
    if text.len() <= TEXT {
        return text;
    }
    let end = (0..=TEXT)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    text.get(..end).unwrap_or_default()
}
