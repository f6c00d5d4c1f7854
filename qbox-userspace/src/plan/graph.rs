//! A saga's graph: as text, and as Mermaid's flowchart.

use crate::saga::{Kind, Plan, RequestPlan, Step, StepId};
use std::fmt::Write;

/// The trigger as one line.
pub(super) fn trigger(plan: &Plan) -> String {
    let method = plan.trigger.method.as_deref().unwrap_or("any method");
    format!("{method} {}", plan.trigger.url())
}

/// The step's request as one line.
fn request(step: &Step) -> String {
    match &step.request {
        RequestPlan::Forward => "the trigger itself, passed on".to_owned(),
        RequestPlan::Send(request) => format!("{} {}", request.method, request.url),
    }
}

/// The same, short enough for a box.
pub(super) fn short(step: &Step) -> String {
    match &step.request {
        RequestPlan::Forward => "forward".to_owned(),
        RequestPlan::Send(request) => format!("{} {}", request.method, request.url.authority),
    }
}

pub(super) fn kind(step: &Step) -> Option<&'static str> {
    match step.kind {
        Kind::Compensatable => None,
        Kind::Pivot => Some("pivot"),
        Kind::Retriable => Some("retriable"),
    }
}

fn name(plan: &Plan, step: StepId) -> &str {
    plan.steps
        .get(step.index())
        .map_or("?", |step| step.name.as_str())
}

/// Each step with what it waits for, what it sends and what undoes it.
#[must_use]
pub fn outline(plan: &Plan) -> String {
    let mut out = format!("{}: {}\n", plan.name, trigger(plan));
    let width = plan.steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
    for step in &plan.steps {
        let mut words: Vec<String> = kind(step).map(str::to_owned).into_iter().collect();
        if !step.after.is_empty() {
            let names: Vec<&str> = step.after.iter().map(|on| name(plan, *on)).collect();
            words.push(format!("after {}", names.join(", ")));
        }
        if !step.when.is_empty() {
            words.push("with conditions".to_owned());
        }
        let about = match words.is_empty() {
            true => String::new(),
            false => format!("  [{}]", words.join("; ")),
        };
        // Writing to a String does not fail.
        let _ = writeln!(out, "  {:width$}  {}{about}", step.name, request(step));
        for compensation in &step.compensations {
            let request = &compensation.request;
            let _ = writeln!(
                out,
                "  {:width$}  undone by {} {}",
                "", request.method, request.url
            );
        }
    }
    out
}

/// A flowchart that Mermaid draws, as GitHub and others do.
#[must_use]
pub fn mermaid(plan: &Plan) -> String {
    let mut out = format!("flowchart LR\n  trigger([\"{}\"])\n", escaped(&trigger(plan)));
    for (step, at) in plan.steps.iter().zip(0..) {
        let (open, close) = match step.kind {
            Kind::Compensatable => ("[", "]"),
            Kind::Pivot => ("{{", "}}"),
            Kind::Retriable => ("[[", "]]"),
        };
        let label = format!("{}<br/>{}", step.name, escaped(&short(step)));
        let _ = writeln!(out, "  s{at}{open}\"{label}\"{close}");
        if step.after.is_empty() {
            let _ = writeln!(out, "  trigger --> s{at}");
        }
        for on in &step.after {
            let _ = writeln!(out, "  s{} --> s{at}", on.0);
        }
    }
    out
}

/// Text in a Mermaid label: what could end it or mean something there is written by its number.
fn escaped(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || " -._~/:{}".contains(c);
    text.chars().fold(String::new(), |mut out, c| {
        match plain(c) {
            true => out.push(c),
            false => out.push_str(&format!("#{};", u32::from(c))),
        }
        out
    })
}
