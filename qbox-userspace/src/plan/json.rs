//! A prospect for machines. docs/tools.md has the fields.

use super::text::{end, name};
use super::{How, Prospect, Rehearsal, mermaid, outline};
use crate::saga::{Direction, Headers, Kind, Request};
use serde_json::{Value, json};

impl Prospect {
    /// `name`, `steps`, `outline`, `mermaid`, `trigger`, `made_up`, `forward` and `failures`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let steps = self.plan.steps.iter().map(|step| {
            let after: Vec<&str> = step.after.iter().map(|on| name(&self.plan, *on)).collect();
            let kind = match step.kind {
                Kind::Compensatable => "compensatable",
                Kind::Pivot => "pivot",
                Kind::Retriable => "retriable",
            };
            json!({ "name": step.name, "kind": kind, "after": after, "compensations": step.compensations.len() })
        });
        let failures = self.failures.iter().map(|failure| {
            let how = match failure.how {
                How::Refused => "refused",
                How::Unknown => "unknown",
            };
            json!({ "step": name(&self.plan, failure.step), "how": how, "run": self.run(&failure.run) })
        });
        json!({
            "name": self.plan.name,
            "steps": steps.collect::<Vec<_>>(),
            "outline": outline(&self.plan),
            "mermaid": mermaid(&self.plan),
            "trigger": request(&self.trigger.request),
            "made_up": self.made_up,
            "forward": self.run(&self.forward),
            "failures": failures.collect::<Vec<_>>(),
        })
    }

    fn run(&self, run: &Rehearsal) -> Value {
        let sent = run.sent.iter().map(|sent| {
            json!({
                "wave": sent.wave,
                "step": name(&self.plan, sent.step),
                "message": message(sent.direction),
                "attempt": sent.attempt,
                "forward": sent.forward,
                "request": request(&sent.request),
                "end": end(&sent.end),
                "made_up": sent.made_up,
            })
        });
        let steps = self.plan.steps.iter().zip(&run.steps).map(|(step, end)| {
            json!({
                "name": step.name,
                "state": end.state.as_str(),
                "compensation": end.undo.as_str(),
                "cause": end.cause,
            })
        });
        let reply = run.reply.as_ref().map(|reply| {
            json!({
                "status": reply.status,
                "headers": headers(&reply.headers),
                "body": String::from_utf8_lossy(&reply.body),
            })
        });
        json!({
            "sent": sent.collect::<Vec<_>>(),
            "steps": steps.collect::<Vec<_>>(),
            "state": run.state.as_str(),
            "reply": reply,
            "endless": run.endless.map(|(step, direction)| json!({
                "step": name(&self.plan, step), "message": message(direction),
            })),
        })
    }
}

fn message(direction: Direction) -> String {
    match direction {
        Direction::Transaction => "request".to_owned(),
        Direction::Probe => "probe".to_owned(),
        Direction::Compensation(0) => "compensate".to_owned(),
        Direction::Compensation(n) => format!("compensate.{n}"),
        Direction::Child(n) => format!("nested.{n}"),
    }
}

fn request(request: &Request) -> Value {
    json!({
        "method": request.method,
        "url": request.url,
        "headers": headers(&request.headers),
        "body": String::from_utf8_lossy(&request.body),
    })
}

fn headers(headers: &Headers) -> Value {
    let pairs = headers.0.iter();
    pairs
        .map(|(name, value)| json!([name, String::from_utf8_lossy(value)]))
        .collect()
}
