//! A checked plan as a saga file: what [`super::load_saga`] reads back as the same plan. Keys that say no more than their default
//! are left out. Comments stand where they are told to.

use super::retry::{COMPENSATION, PIVOT_PROBE, PROBE, RETRIABLE, Retry, STEP};
use super::step;
use crate::saga::{
    BodyTemplate, CompensateWhen, Compensation, Condition, Durability, FieldPath, JsonTemplate, Kind, Mode,
    OnRecovery, Plan, Probe, ReplyPlan, RequestPlan, RequestTemplate, ResponseMatch, RetryOn, RetryPolicy,
    StatusSet, Step, StepId, Template, Test,
};
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;

/// Comments are broken so that no line is longer.
const WIDTH: usize = 110;

/// Where a comment stands: above what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// The file.
    Head,
    /// `[trigger]`.
    Trigger,
    /// A `[[step]]`.
    Step(StepId),
    /// Its Nth `[[step.compensate]]`.
    Compensation(StepId, u16),
    /// `[reply.success]`.
    Success,
    /// `[reply.failure]`.
    Failure,
}

/// A comment and its place.
pub type Comment = (Spot, String);

/// The plan as TOML. (JSON's null, which no file can hold, does not stand in a plan that was read from one.)
#[must_use]
pub fn print_saga(plan: &Plan, comments: &[Comment]) -> String {
    let mut out = Printer {
        out: String::new(),
        comments,
    };
    out.saga(plan);
    out.out
}

struct Printer<'a> {
    out: String,
    comments: &'a [Comment],
}

impl Printer<'_> {
    /// One line; writing to a String does not fail.
    fn line(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.out, "{key} = {value}");
    }

    fn header(&mut self, spot: Spot, header: &str) {
        self.out.push('\n');
        self.comment(spot);
        let _ = writeln!(self.out, "{header}");
    }

    fn comment(&mut self, spot: Spot) {
        for (_, text) in self.comments.iter().filter(|(at, _)| *at == spot) {
            let mut line = "#".to_owned();
            // A control character would end the comment.
            for word in text.split(|c: char| c == ' ' || c.is_control()) {
                if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > WIDTH {
                    let _ = writeln!(self.out, "{line}");
                    "#".clone_into(&mut line);
                }
                line.push(' ');
                line.push_str(word);
            }
            let _ = writeln!(self.out, "{line}");
        }
    }

    fn saga(&mut self, plan: &Plan) {
        self.comment(Spot::Head);
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.line("name", &quoted(&plan.name));
        let chain = is_chain(plan);
        if chain {
            self.line("order", "\"sequential\"");
        }
        if plan.timeout != Duration::from_secs(60) {
            self.line("timeout", &duration(plan.timeout));
        }
        if plan.reply_timeout != Duration::from_secs(30) {
            self.line("reply_timeout", &duration(plan.reply_timeout));
        }
        if plan.mode == Mode::Observe {
            self.line("mode", "\"observe\"");
        }
        if plan.on_recovery == OnRecovery::Resume {
            self.line("on_recovery", "\"resume\"");
        }
        if plan.durability == Durability::None {
            self.line("durability", "\"none\"");
        }
        if let Some(lock) = &plan.lock {
            self.line("lock", &template(lock));
        }
        self.trigger(plan);
        for (step, id) in plan.steps.iter().zip((0u16..).map(StepId)) {
            self.step(plan, step, id, chain);
        }
        for (reply, spot, header) in [
            (&plan.reply_success, Spot::Success, "[reply.success]"),
            (&plan.reply_failure, Spot::Failure, "[reply.failure]"),
        ] {
            if let Some(reply) = reply {
                self.header(spot, header);
                self.reply(plan, reply);
            }
        }
    }

    fn trigger(&mut self, plan: &Plan) {
        let trigger = &plan.trigger;
        self.header(Spot::Trigger, "[trigger]");
        if let Some(method) = &trigger.method {
            self.line("method", &quoted(method));
        }
        self.line("url", &quoted(&trigger.url()));
        for (key, pairs) in [("query", &trigger.query), ("headers", &trigger.headers)] {
            if !pairs.is_empty() {
                let pairs = pairs.iter().map(|(name, value)| (key_of(name), quoted(value)));
                self.line(key, &inline(pairs));
            }
        }
        if let Some(body) = &trigger.body {
            self.line("body", &quoted(body));
        }
        if !trigger.json.is_empty() {
            let pairs = trigger
                .json
                .iter()
                .map(|(field, json)| (field_of(field), value(json)));
            self.line("json", &inline(pairs));
        }
        if trigger.priority != 0 {
            self.line("priority", &trigger.priority.to_string());
        }
        if let Some(dedupe) = &trigger.dedupe {
            self.line("dedupe", &template(dedupe));
        }
    }

    fn step(&mut self, plan: &Plan, step: &Step, id: StepId, chain: bool) {
        self.header(Spot::Step(id), "[[step]]");
        self.line("name", &quoted(&step.name));
        match step.kind {
            Kind::Compensatable => {}
            Kind::Pivot => self.line("kind", "\"pivot\""),
            Kind::Retriable => self.line("kind", "\"retriable\""),
        }
        if !step.after.is_empty() && !chain {
            let names = step.after.iter().filter_map(|on| plan.steps.get(on.index()));
            self.line("after", &list(names.map(|step| quoted(&step.name))));
        }
        if !step.when.is_empty() {
            self.line("when", &list(step.when.iter().map(condition)));
        }
        match &step.request {
            RequestPlan::Forward => self.line("request", "\"forward\""),
            RequestPlan::Send(sent) => self.line("request", &request(sent)),
        }
        self.matches("success", &step.success, &step::success());
        self.matches("refused", &step.refused, &step::refused());
        self.timeout(step.timeout);
        let defaults = match step.kind {
            Kind::Retriable => RETRIABLE,
            _ => STEP,
        };
        self.retry(&step.retry, defaults);
        if step.compensate_when == CompensateWhen::Always {
            self.line("compensate_when", "\"always\"");
        }
        if let Some(probe) = &step.probe {
            self.probe(probe, step.kind);
        }
        for (compensation, number) in step.compensations.iter().zip(0..) {
            self.header(Spot::Compensation(id, number), "[[step.compensate]]");
            self.compensation(compensation);
        }
    }

    fn probe(&mut self, probe: &Probe, kind: Kind) {
        self.out.push_str("\n[step.probe]\n");
        self.line("request", &request(&probe.request));
        self.matches("applied", &probe.applied, &step::applied());
        self.matches("refused", &probe.refused, &step::gone());
        self.timeout(probe.timeout);
        self.retry(
            &probe.retry,
            if kind == Kind::Pivot { PIVOT_PROBE } else { PROBE },
        );
    }

    fn compensation(&mut self, compensation: &Compensation) {
        self.line("request", &request(&compensation.request));
        self.matches("success", &compensation.success, &step::undone());
        self.timeout(compensation.timeout);
        self.retry(&compensation.retry, COMPENSATION);
        if compensation.needs_response {
            self.line("needs_response", "true");
        }
    }

    fn timeout(&mut self, timeout: Duration) {
        if timeout != step::ATTEMPT {
            self.line("timeout", &duration(timeout));
        }
    }

    fn matches(&mut self, key: &str, any: &[ResponseMatch], default: &[ResponseMatch]) {
        if any != default {
            self.line(key, &list(any.iter().map(response_match)));
        }
    }

    fn retry(&mut self, policy: &RetryPolicy, defaults: Retry) {
        let mut pairs = Vec::new();
        if let Some(most) = policy.max_elapsed {
            pairs.push(("max_elapsed".to_owned(), duration(most)));
        }
        let attempts = match policy.max_elapsed {
            Some(_) => None,
            None => defaults.attempts,
        };
        if let Some(number) = policy.attempts.filter(|_| policy.attempts != attempts) {
            pairs.push(("attempts".to_owned(), number.to_string()));
        }
        if policy.on != defaults.on {
            pairs.push(("on".to_owned(), list(policy.on.iter().map(cause))));
        }
        if (policy.backoff_min, policy.backoff_max) != defaults.backoff {
            let range = format!("{}..{}", span(policy.backoff_min), span(policy.backoff_max));
            pairs.push(("backoff".to_owned(), quoted(&range)));
        }
        if !pairs.is_empty() {
            self.line("retry", &inline(pairs));
        }
    }

    fn reply(&mut self, plan: &Plan, reply: &ReplyPlan) {
        match reply {
            ReplyPlan::From(step) => {
                let name = plan.steps.get(step.index()).map_or("", |step| step.name.as_str());
                self.line("from", &quoted(name));
            }
            ReplyPlan::Send(reply) => {
                self.line("status", &reply.status.to_string());
                if !reply.headers.is_empty() {
                    self.line("headers", &templates(&reply.headers));
                }
                if let Some((key, text)) = body(&reply.body) {
                    self.line(&key, &text);
                }
            }
        }
    }
}

/// Whether every step waits for the one before it and for no other.
fn is_chain(plan: &Plan) -> bool {
    plan.steps.len() > 1
        && plan
            .steps
            .iter()
            .zip(0u16..)
            .all(|(step, at)| match at.checked_sub(1) {
                Some(before) => step.after == [StepId(before)],
                None => step.after.is_empty(),
            })
}

fn request(request: &RequestTemplate) -> String {
    let mut pairs = vec![
        ("method".to_owned(), quoted(&request.method)),
        ("url".to_owned(), quoted(&request.url.to_string())),
    ];
    if !request.headers.is_empty() {
        pairs.push(("headers".to_owned(), templates(&request.headers)));
    }
    pairs.extend(body(&request.body));
    inline(pairs)
}

fn body(body: &BodyTemplate) -> Option<(String, String)> {
    match body {
        BodyTemplate::Empty => None,
        BodyTemplate::Text(text) => Some(("body".to_owned(), template(text))),
        BodyTemplate::Json(json) => Some(("json".to_owned(), self::json(json))),
    }
}

fn condition(condition: &Condition) -> String {
    let (key, test) = match &condition.test {
        Test::Equals(text) => ("equals", quoted(text)),
        Test::In(texts) => ("in", list(texts.iter().map(|text| quoted(text)))),
        Test::Present(present) => ("present", present.to_string()),
    };
    inline([
        ("value".to_owned(), template(&condition.value)),
        (key.to_owned(), test),
    ])
}

fn response_match(one: &ResponseMatch) -> String {
    let mut pairs = Vec::new();
    if let Some(set) = &one.status {
        pairs.push(("status".to_owned(), statuses(set)));
    }
    if !one.headers.is_empty() {
        pairs.push(("headers".to_owned(), templates(&one.headers)));
    }
    if let Some(body) = &one.body {
        pairs.push(("body".to_owned(), template(body)));
    }
    if !one.json.is_empty() {
        let fields = one
            .json
            .iter()
            .map(|(field, value)| (field_of(field), json(value)));
        pairs.push(("json".to_owned(), inline(fields)));
    }
    inline(pairs)
}

fn statuses(set: &StatusSet) -> String {
    let mut words = Vec::new();
    for (low, high) in &set.ranges {
        match (low % 100, high - low) {
            (_, 0) => words.push(low.to_string()),
            (0, 99) => words.push(format!("\"{}xx\"", low / 100)),
            _ => words.extend((*low..=*high).map(|status| status.to_string())),
        }
    }
    match words.as_slice() {
        [word] => word.clone(),
        _ => list(words),
    }
}

fn cause(on: &RetryOn) -> String {
    match on {
        RetryOn::Any => "\"any\"".to_owned(),
        RetryOn::Connect => "\"connect\"".to_owned(),
        RetryOn::Timeout => "\"timeout\"".to_owned(),
        RetryOn::Reset => "\"reset\"".to_owned(),
        RetryOn::Status5xx => "\"5xx\"".to_owned(),
        RetryOn::Status(status) => format!("\"{status}\""),
    }
}

fn templates(pairs: &[(String, Template)]) -> String {
    inline(pairs.iter().map(|(name, value)| (key_of(name), template(value))))
}

fn template(template: &Template) -> String {
    quoted(&template.to_string())
}

fn json(json: &JsonTemplate) -> String {
    match json {
        JsonTemplate::Value(json) => value(json),
        JsonTemplate::Text(text) => template(text),
        JsonTemplate::Array(items) => list(items.iter().map(self::json)),
        JsonTemplate::Object(pairs) => {
            inline(pairs.iter().map(|(key, item)| (key_of(key), self::json(item))))
        }
    }
}

fn value(json: &Value) -> String {
    match json {
        Value::Null => quoted("null"),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) if number.is_f64() => format!("{:?}", number.as_f64().unwrap_or_default()),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => list(items.iter().map(value)),
        Value::Object(map) => inline(map.iter().map(|(key, item)| (key_of(key), value(item)))),
    }
}

fn field_of(field: &FieldPath) -> String {
    key_of(&field.to_string())
}

/// A key, bare where TOML lets it be.
fn key_of(key: &str) -> String {
    match !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    {
        true => key.to_owned(),
        false => quoted(key),
    }
}

fn inline(pairs: impl IntoIterator<Item = (String, String)>) -> String {
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    match pairs.is_empty() {
        true => "{}".to_owned(),
        false => format!("{{ {} }}", pairs.join(", ")),
    }
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().collect();
    format!("[{}]", items.join(", "))
}

/// A basic string on one line (TOML 1.0: all controls but the tab must be escaped).
fn quoted(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn duration(duration: Duration) -> String {
    quoted(&span(duration))
}

/// The largest unit that says it in a whole number.
fn span(duration: Duration) -> String {
    let all = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let unit = units
        .into_iter()
        .find(|(factor, _)| all > 0 && all.is_multiple_of(*factor));
    match unit {
        Some((factor, unit)) => format!("{}{unit}", all / factor),
        None => format!("{all}ms"),
    }
}

#[cfg(test)]
#[path = "print_tests.rs"]
mod tests;
