//! What is legal and yet probably not meant.

use super::diagnostic::Code;
use super::graph::Graph;
use super::step::StepAt;
use super::walk::Sink;
use crate::saga::{Kind, RequestPlan, RetryOn, Step, StepId};
use std::time::Duration;

/// Looks at each step among the others.
pub(super) fn warn(sink: &Sink, steps: &[StepAt], graph: &Graph, saga_timeout: Duration) {
    for (at, id) in steps.iter().zip((0u16..).map(StepId)) {
        let Some(step) = &at.step else { continue };
        undone(sink, at, step, id, steps, graph);
        retried(sink, at, step);
        if step.timeout > saga_timeout
            && let Some(span) = &at.timeout_span
        {
            let message = format!(
                "one attempt of `{}` may take longer than the whole saga",
                step.name
            );
            let help = "shorten it, or lengthen the saga's `timeout` (default 60s)";
            sink.warning(Code::Timeouts, span.clone(), message, "", help);
        }
        endless(sink, at, step);
        if let (Kind::Compensatable | Kind::Pivot, Some(1), Some(span)) =
            (step.kind, step.retry.attempts, &at.retry_span)
        {
            let message = format!("`{}` is tried once, so its `retry` has no effect", step.name);
            sink.warning(
                Code::NoEffect,
                span.clone(),
                message,
                "",
                "write `attempts = 3`, or take `retry` out",
            );
        }
    }
}

/// A limit where none is heeded.
fn endless(sink: &Sink, at: &StepAt, step: &Step) {
    if let (Kind::Retriable, Some(span)) = (step.kind, &at.retry_span) {
        let (limit, out) = match (step.retry.attempts, step.retry.max_elapsed) {
            (Some(attempts), _) => (format!("{attempts} times"), "take `attempts` out"),
            (None, Some(most)) => (format!("for {most:?}"), "take `max_elapsed` out"),
            (None, None) => return,
        };
        let message = format!("`{}` is retried until it is applied, not {limit}", step.name);
        sink.warning(Code::NoEffect, span.clone(), message, "", out);
    }
}

/// The method, if it is a request of the saga's own.
fn method(step: &Step) -> Option<&str> {
    match &step.request {
        RequestPlan::Send(request) => Some(&request.method),
        RequestPlan::Forward => None,
    }
}

/// A step that changes something, can't be undone, and may be done when another one fails.
fn undone(sink: &Sink, at: &StepAt, step: &Step, id: StepId, steps: &[StepAt], graph: &Graph) {
    let harmless = method(step).is_some_and(|m| matches!(m, "GET" | "HEAD" | "OPTIONS"));
    if step.kind != Kind::Compensatable || harmless || !step.compensations.is_empty() {
        return;
    }
    let other = steps
        .iter()
        .zip((0u16..).map(StepId))
        .find(|(s, other)| *other != id && s.kind != Kind::Retriable && !graph.is_upstream(*other, id));
    let Some(other) = other.and_then(|(s, _)| s.step.as_ref()) else {
        return;
    };
    let message = format!(
        "`{}` has no compensation: it stays done if `{}` fails",
        step.name, other.name
    );
    let help = "write a [[step.compensate]], or put the step last, or make it the pivot";
    sink.warning(Code::NothingUndone, at.name_span.clone(), message, "", help);
}

/// A request that is sent again although it may have been applied, with a method that isn't idempotent (RFC 9110, 9.2.2).
fn retried(sink: &Sink, at: &StepAt, step: &Step) {
    let (Some(method), Some(span)) = (
        method(step).filter(|m| matches!(*m, "POST" | "PATCH")),
        &at.retry_span,
    ) else {
        return;
    };
    let unknown = |on: &RetryOn| !matches!(on, RetryOn::Connect | RetryOn::Status(..=499));
    if step.retry.attempts != Some(1) && step.retry.on.iter().any(unknown) {
        let message = format!(
            "`{}` may be applied twice: a {method} is sent again after an unknown outcome",
            step.name
        );
        let help = "make sure that the service heeds `Idempotency-Key`, use PUT with an id, or retry on \"connect\" and \"429\" alone";
        sink.warning(Code::UnsafeRetry, span.clone(), message, "", help);
    }
}
