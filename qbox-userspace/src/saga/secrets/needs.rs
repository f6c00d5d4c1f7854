//! What of its messages a plan can ask for: ever, and still after a restart.
//!
//! After a restart: compensations, probes and replies always; a transaction only where the saga goes on forward, or where another message
//! reads its request, which is put together again from what it was made of.

use super::Secrets;
use crate::saga::expr::{Expr, FieldPath, MessagePart, Source, Template};
use crate::saga::id::StepId;
use crate::saga::message::{Headers, Request, Response, Trigger};
use crate::saga::plan::{
    BodyTemplate, Kind, OnRecovery, Plan, ReplyPlan, ReplyTemplate, RequestPlan, RequestTemplate,
    ResponseMatch, Step,
};
use bytes::Bytes;

/// What Qbox itself reads of a trigger: what its trace is carried on from, in each message (W3C Trace Context), and the step that it
/// was sent for ([`Trigger::parent`]).
const ALWAYS: [&str; 4] = ["traceparent", "tracestate", "x-qbox-transactionid", "x-qbox-step"];

/// What a plan needs of its trigger and of each step's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub(super) trigger: Parts,
    /// By [`StepId`].
    pub(super) answers: Vec<Parts>,
    /// The transactions whose requests others read.
    pub(super) requests: Vec<StepId>,
}

/// Parts of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// All of it.
    pub(super) whole: bool,
    pub(super) url: bool,
    pub(super) body: bool,
    /// By name, as the file has them.
    pub(super) headers: Vec<String>,
    pub(super) query: Vec<String>,
    pub(super) fields: Vec<FieldPath>,
}

impl Parts {
    fn add(&mut self, part: &MessagePart) {
        match part {
            MessagePart::Header(name) => self.headers.push(name.clone()),
            MessagePart::Query(name) => self.query.push(name.clone()),
            MessagePart::Json(path) => self.fields.push(path.clone()),
            MessagePart::Body => self.body = true,
            MessagePart::Url => self.url = true,
            // Never hidden.
            MessagePart::Method | MessagePart::Path(_) | MessagePart::Status => {}
        }
    }

    fn headers(&self, all: &Headers, always: &[&str]) -> Headers {
        let named = self
            .headers
            .iter()
            .map(String::as_str)
            .chain(always.iter().copied());
        let is_read = |name: &str| named.clone().any(|known| known.eq_ignore_ascii_case(name));
        Headers(all.0.iter().filter(|(name, _)| is_read(name)).cloned().collect())
    }

    fn body(&self, body: &Bytes) -> Bytes {
        match self.body || !self.fields.is_empty() {
            true => body.clone(),
            false => Bytes::new(),
        }
    }

    /// Whether one of them is secret by its own name.
    fn name_secrets(&self, secrets: &Secrets) -> bool {
        self.headers.iter().any(|name| secrets.is_header(name))
            || self.query.iter().any(|name| secrets.is_query(name))
            || self.fields.iter().any(|path| secrets.is_field(&path.0))
    }
}

impl Needs {
    /// Of a plan, after a restart.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let goes_on =
            plan.on_recovery == OnRecovery::Resume || plan.steps.iter().any(|step| step.kind == Kind::Pivot);
        Self::find(plan, goes_on)
    }

    /// Of a plan, at any time.
    #[must_use]
    pub fn ever(plan: &Plan) -> Self {
        Self::find(plan, true)
    }

    fn find(plan: &Plan, goes_on: bool) -> Self {
        let mut found = Finder {
            plan,
            needs: Self {
                trigger: Parts::default(),
                answers: plan.steps.iter().map(|_| Parts::default()).collect(),
                requests: Vec::new(),
            },
            read: Vec::new(),
        };
        found.plan(goes_on);
        Self {
            requests: found.read.into_iter().map(|(step, _)| step).collect(),
            ..found.needs
        }
    }

    /// Whether a message reads the request of that step.
    pub(in crate::saga) fn request(&self, step: StepId) -> bool {
        self.requests.contains(&step)
    }

    /// The trigger as far as it is read, by messages or by Qbox itself for each of them.
    pub(in crate::saga) fn of_trigger(&self, trigger: &Trigger) -> Trigger {
        let parts = &self.trigger;
        if parts.whole {
            return trigger.clone();
        }
        let request = &trigger.request;
        let url = parts.url || !parts.query.is_empty();
        Trigger {
            request: Request {
                method: request.method.clone(),
                url: if url { request.url.clone() } else { String::new() },
                headers: parts.headers(&request.headers, &ALWAYS),
                body: parts.body(&request.body),
            },
            path: trigger.path.clone(),
            destination: trigger.destination,
            http2: trigger.http2,
            depth: trigger.depth,
        }
    }

    /// A step's answer as far as it is read.
    pub(in crate::saga) fn of_answer(&self, step: StepId, answer: &Response) -> Response {
        match self.answers.get(step.index()) {
            Some(parts) if !parts.whole => Response {
                status: answer.status,
                headers: parts.headers(&answer.headers, &[]),
                body: parts.body(&answer.body),
                truncated: answer.truncated,
            },
            _ => answer.clone(),
        }
    }

    /// Whether a secret is asked for by its name, or with the whole trigger. (That an answer which is passed on holds one
    /// nobody knows before it is there.)
    #[must_use]
    pub fn name_secrets(&self, secrets: &Secrets) -> bool {
        self.trigger.whole
            || self.trigger.name_secrets(secrets)
            || self.answers.iter().any(|parts| parts.name_secrets(secrets))
    }
}

struct Finder<'a> {
    plan: &'a Plan,
    needs: Needs,
    /// The requests whose parts were looked at: each once.
    read: Vec<(StepId, MessagePart)>,
}

impl<'a> Finder<'a> {
    fn plan(&mut self, goes_on: bool) {
        let plan = self.plan;
        self.templates(&plan.lock);
        for step in &plan.steps {
            self.step(step, goes_on);
        }
        for reply in [&plan.reply_success, &plan.reply_failure].into_iter().flatten() {
            match reply {
                ReplyPlan::From(step) => self.answer(*step, |parts| parts.whole = true),
                ReplyPlan::Send(ReplyTemplate { headers, body, .. }) => {
                    self.templates(headers.iter().map(|(_, value)| value));
                    self.body(body);
                }
            }
        }
    }

    fn step(&mut self, step: &'a Step, goes_on: bool) {
        self.templates(step.when.iter().map(|condition| &condition.value));
        if goes_on {
            match &step.request {
                RequestPlan::Forward => self.needs.trigger.whole = true,
                RequestPlan::Send(request) => self.request(request),
            }
            self.matches(&step.success);
            self.matches(&step.refused);
        }
        if let Some(probe) = &step.probe {
            self.request(&probe.request);
            self.matches(&probe.applied);
            self.matches(&probe.refused);
        }
        for compensation in &step.compensations {
            self.request(&compensation.request);
            self.matches(&compensation.success);
        }
    }

    fn request(&mut self, request: &'a RequestTemplate) {
        self.templates([&request.url.path]);
        self.templates(&request.url.query);
        self.templates(request.headers.iter().map(|(_, value)| value));
        self.body(&request.body);
    }

    fn body(&mut self, body: &'a BodyTemplate) {
        body.each_text(&mut |text| self.templates([text]));
    }

    fn matches(&mut self, any: &'a [ResponseMatch]) {
        for one in any {
            self.templates(one.headers.iter().map(|(_, value)| value));
            self.templates(&one.body);
            for (_, json) in &one.json {
                json.each_text(&mut |text| self.templates([text]));
            }
        }
    }

    fn templates(&mut self, templates: impl IntoIterator<Item = &'a Template>) {
        for template in templates {
            template.exprs().for_each(|expr| self.expr(expr));
        }
    }

    fn expr(&mut self, expr: &'a Expr) {
        match &expr.source {
            Source::Trigger(part) => self.needs.trigger.add(part),
            Source::Response(step, part) => self.answer(*step, |parts| parts.add(part)),
            Source::Request(step, part) => self.part_of(*step, part),
            Source::SagaId | Source::SagaName | Source::SagaFailedStep | Source::SagaOutcome => {}
        }
    }

    fn answer(&mut self, step: StepId, add: impl FnOnce(&mut Parts)) {
        if let Some(parts) = self.needs.answers.get_mut(step.index()) {
            add(parts);
        }
    }

    /// A part of a step's request is what it was made of.
    fn part_of(&mut self, step: StepId, part: &MessagePart) {
        let read = (step, part.clone());
        if self.read.contains(&read) {
            return;
        }
        self.read.push(read);
        let plan = self.plan;
        match plan.steps.get(step.index()).map(|step| &step.request) {
            Some(RequestPlan::Forward) => self.needs.trigger.add(part),
            Some(RequestPlan::Send(request)) => match part {
                MessagePart::Header(name) => {
                    let named = request
                        .headers
                        .iter()
                        .filter(|(n, _)| n.eq_ignore_ascii_case(name));
                    self.templates(named.map(|(_, value)| value));
                }
                _ => self.body(&request.body),
            },
            None => {}
        }
    }
}
