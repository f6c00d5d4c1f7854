//! Messages made up for a dry run: a trigger that a plan matches, and answers that its matches ask for.
//!
//! What an expression reads of a made-up message is the expression's own name (`trigger.json.guest`), so that a request
//! shows where each of its values comes from. Pure, and without errors: what can't be made up is `None`.

use super::event::Direction;
use super::expr::{Expr, MessagePart, Source, Template};
use super::fill;
use super::id::StepId;
use super::machine::Saga;
use super::matcher::response_matches;
use super::message::{Headers, Request, Response, Trigger};
use super::plan::{
    BodyTemplate, JsonTemplate, Plan, ReplyPlan, RequestPlan, RequestTemplate, ResponseMatch, Segment,
};
use super::values::{Lookup, Values};
use bytes::Bytes;
use serde_json::{Map, Value};

/// Statuses that are tried first, since they look like what people's services answer.
const USUAL: [u16; 4] = [200, 201, 409, 404];

/// A request that the plan's trigger matches. Its captures and what expressions read of it are named after themselves.
#[must_use]
pub fn sample_trigger(plan: &Plan) -> Trigger {
    let pattern = &plan.trigger;
    let mut path = Vec::new();
    let mut url = format!("http://{}", pattern.host);
    if pattern.port != 80 {
        url.push_str(&format!(":{}", pattern.port));
    }
    for segment in &pattern.path {
        url.push('/');
        match segment {
            Segment::Literal(text) => url.push_str(&fill::escape(text)),
            Segment::Capture(name) => {
                let value = format!("trigger.path.{name}");
                url.push_str(&fill::escape(&value));
                path.push((name.clone(), value));
            }
        }
    }
    let read: Vec<(&MessagePart, String)> = plan
        .exprs()
        .into_iter()
        .filter_map(|expr| match &expr.source {
            Source::Trigger(part) => Some((part, plain_name(expr))),
            _ => None,
        })
        .collect();
    let mut query = pattern.query.clone();
    let mut sample = Sample::default();
    for (part, name) in read {
        match part {
            MessagePart::Query(key) if !query.iter().any(|(k, _)| k == key) => {
                query.push((key.clone(), name))
            }
            _ => sample.read(part, name),
        }
    }
    for (number, (key, value)) in query.iter().enumerate() {
        url.push(if number == 0 { '?' } else { '&' });
        url.push_str(&format!("{}={}", fill::escape(key), fill::escape(value)));
    }
    for (name, value) in &pattern.headers {
        sample.header(name, Bytes::from(value.clone()));
    }
    for (field, value) in &pattern.json {
        put(&mut sample.json, &field.0, value.clone());
    }
    let (headers, body) = sample.message(pattern.body.clone().map(Bytes::from));
    Trigger {
        request: Request {
            method: pattern.method.clone().unwrap_or_else(|| "POST".to_owned()),
            url,
            headers,
            body,
        },
        path,
        destination: None,
        http2: false,
        depth: 0,
    }
}

impl Saga {
    /// An answer to that message which counts as success: the step is applied, found applied, or undone.
    #[must_use]
    pub fn sample_success(&self, step: StepId, direction: Direction) -> Option<Response> {
        let of = self.plan().steps.get(step.index())?;
        let any = match direction {
            Direction::Transaction => &of.success,
            Direction::Probe => &of.probe.as_ref()?.applied,
            Direction::Compensation(n) => &of.compensations.get(usize::from(n))?.success,
            // It is no message.
            Direction::Child(_) => return None,
        };
        let read = match direction {
            Direction::Compensation(_) | Direction::Child(_) => None,
            // A probe's answer can stand for its transaction's.
            Direction::Transaction | Direction::Probe => Some(step),
        };
        self.sample(any, &[], read)
    }

    /// An answer by which the step's transaction is certainly not applied. None: no answer says so.
    #[must_use]
    pub fn sample_refusal(&self, step: StepId) -> Option<Response> {
        let of = self.plan().steps.get(step.index())?;
        self.sample(&of.refused, &of.success, None)
    }

    /// An answer that one of `any` matches and none of `but`; with what expressions read of it, if it is that step's.
    fn sample(&self, any: &[ResponseMatch], but: &[ResponseMatch], read: Option<StepId>) -> Option<Response> {
        let values = self.values();
        any.iter().find_map(|one| {
            let statuses = USUAL.into_iter().chain(200..=599);
            let fits = |status: &u16| one.status.as_ref().is_none_or(|set| set.contains(*status));
            let mut made = statuses.filter(fits).filter_map(|status| {
                let response = sample_of(self.plan(), one, status, read, &values)?;
                let found = response_matches(std::slice::from_ref(one), &response, &values)
                    && !response_matches(but, &response, &values);
                found.then_some(response)
            });
            made.next()
        })
    }
}

fn sample_of(
    plan: &Plan,
    one: &ResponseMatch,
    status: u16,
    read: Option<StepId>,
    values: &Values<'_>,
) -> Option<Response> {
    let lookup = Lookup::strict(values);
    let mut sample = Sample::default();
    for expr in plan.exprs() {
        if let Source::Response(step, part) = &expr.source
            && Some(*step) == read
        {
            let name = plan.steps.get(step.index()).map_or("", |step| step.name.as_str());
            sample.read(part, canonical(name, part));
        }
    }
    for (name, value) in &one.headers {
        sample.header(name, fill::text_body(value, &lookup).ok()?);
    }
    for (field, value) in &one.json {
        put(&mut sample.json, &field.0, fill::json(value, &lookup).ok()?);
    }
    let body = match &one.body {
        Some(body) => Some(fill::text_body(body, &lookup).ok()?),
        None => None,
    };
    let (headers, body) = sample.message(body);
    Some(Response {
        status,
        headers,
        body,
        truncated: false,
    })
}

/// What a message is to hold.
#[derive(Default)]
struct Sample {
    headers: Headers,
    json: Value,
    /// What `….body` is if it is no JSON.
    text: Option<String>,
}

impl Sample {
    fn header(&mut self, name: &str, value: Bytes) {
        self.headers.remove(name);
        self.headers.push(name, value);
    }

    /// An expression reads this part.
    fn read(&mut self, part: &MessagePart, name: String) {
        match part {
            MessagePart::Header(header) => self.header(header, Bytes::from(name)),
            MessagePart::Json(field) if !field.0.is_empty() => {
                put(&mut self.json, &field.0, Value::String(name))
            }
            MessagePart::Body | MessagePart::Json(_) => self.text = Some(name),
            MessagePart::Method
            | MessagePart::Url
            | MessagePart::Path(_)
            | MessagePart::Query(_)
            | MessagePart::Status => {}
        }
    }

    fn message(mut self, body: Option<Bytes>) -> (Headers, Bytes) {
        if let Some(body) = body {
            return (self.headers, body);
        }
        if self.json.is_null() {
            let text = self.text.map(|text| Value::String(text).to_string());
            return (self.headers, Bytes::from(text.unwrap_or_default()));
        }
        if self.headers.get("Content-Type").is_none() {
            self.headers.push("Content-Type", "application/json");
        }
        (self.headers, Bytes::from(self.json.to_string()))
    }
}

/// Puts a value where the path leads; what stands in its way gives way to an object.
fn put(document: &mut Value, path: &[String], value: Value) {
    let Some((key, below)) = path.split_first() else {
        if !document.is_object() {
            *document = value;
        }
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    if let Some(map) = document.as_object_mut() {
        put(map.entry(key.as_str()).or_insert(Value::Null), below, value);
    }
}

/// An expression's text without its braces and its default.
fn plain_name(expr: &Expr) -> String {
    let text = expr.text.trim_start_matches("${").trim_end_matches('}');
    match &expr.default {
        Some(default) => text
            .strip_suffix(default.as_str())
            .map_or(text, |text| text.trim_end_matches(':')),
        None => text,
    }
    .to_owned()
}

/// The name of a part of a step's answer, whatever the file calls it.
fn canonical(step: &str, part: &MessagePart) -> String {
    let part = match part {
        MessagePart::Header(name) => format!("headers.{name}"),
        MessagePart::Json(field) if field.0.is_empty() => "json".to_owned(),
        MessagePart::Json(field) => format!("json.{field}"),
        MessagePart::Status => "status".to_owned(),
        _ => "body".to_owned(),
    };
    format!("steps.{step}.response.{part}")
}

impl Plan {
    /// Every expression of the plan, in the order of the file.
    #[must_use]
    pub fn exprs(&self) -> Vec<&Expr> {
        let mut found = Vec::new();
        found.extend(
            self.lock
                .iter()
                .chain(&self.trigger.dedupe)
                .flat_map(Template::exprs),
        );
        for step in &self.steps {
            found.extend(step.when.iter().flat_map(|condition| condition.value.exprs()));
            if let RequestPlan::Send(request) = &step.request {
                of_request(request, &mut found);
            }
            of_matches(&step.success, &mut found);
            of_matches(&step.refused, &mut found);
            if let Some(probe) = &step.probe {
                of_request(&probe.request, &mut found);
                of_matches(&probe.applied, &mut found);
                of_matches(&probe.refused, &mut found);
            }
            for compensation in &step.compensations {
                of_request(&compensation.request, &mut found);
                of_matches(&compensation.success, &mut found);
            }
        }
        for reply in [&self.reply_success, &self.reply_failure].into_iter().flatten() {
            if let ReplyPlan::Send(reply) = reply {
                found.extend(reply.headers.iter().flat_map(|(_, value)| value.exprs()));
                of_body(&reply.body, &mut found);
            }
        }
        found
    }
}

fn of_request<'p>(request: &'p RequestTemplate, found: &mut Vec<&'p Expr>) {
    found.extend(request.url.path.exprs());
    found.extend(request.url.query.iter().flat_map(Template::exprs));
    found.extend(request.headers.iter().flat_map(|(_, value)| value.exprs()));
    of_body(&request.body, found);
}

fn of_matches<'p>(matches: &'p [ResponseMatch], found: &mut Vec<&'p Expr>) {
    for one in matches {
        found.extend(one.headers.iter().flat_map(|(_, value)| value.exprs()));
        found.extend(one.body.iter().flat_map(Template::exprs));
        one.json.iter().for_each(|(_, value)| of_json(value, found));
    }
}

fn of_body<'p>(body: &'p BodyTemplate, found: &mut Vec<&'p Expr>) {
    match body {
        BodyTemplate::Empty => {}
        BodyTemplate::Text(text) => found.extend(text.exprs()),
        BodyTemplate::Json(json) => of_json(json, found),
    }
}

fn of_json<'p>(json: &'p JsonTemplate, found: &mut Vec<&'p Expr>) {
    match json {
        JsonTemplate::Value(_) => {}
        JsonTemplate::Text(text) => found.extend(text.exprs()),
        JsonTemplate::Array(items) => items.iter().for_each(|item| of_json(item, found)),
        JsonTemplate::Object(pairs) => pairs.iter().for_each(|(_, item)| of_json(item, found)),
    }
}
