//! `[reply.success]`, `[reply.failure]`: what the caller gets.

use super::diagnostic::Code;
use super::expressions::Context;
use super::graph;
use super::message;
use super::walk::Node;
use crate::saga::{ReplyPlan, ReplyTemplate, StepId};

/// Reads `[reply]`: the reply of a committed saga, and of one that failed.
pub(super) fn replies(context: &Context<'_>, node: &Node<'_>) -> (Option<ReplyPlan>, Option<ReplyPlan>) {
    let Some(table) = node.table("[reply]") else {
        return (None, None);
    };
    let success = table.get("success").and_then(|n| reply(context, &n, 200));
    let failure = table.get("failure").and_then(|n| reply(context, &n, 502));
    table.finish();
    (success, failure)
}

fn reply(context: &Context<'_>, node: &Node<'_>, default_status: u16) -> Option<ReplyPlan> {
    let sink = context.sink;
    let table = node.table(format!("[reply.{}]", node.key))?;
    if table.is_empty() {
        let message = format!("[reply.{}] is empty", node.key);
        let help = "write `from = \"STEP\"`, or `status`, `headers`, `body` or `json`; without the section there is a default";
        sink.error(Code::Empty, table.span.clone(), message, "", help);
    }
    let from = table.get("from");
    let status = table.get("status");
    let headers = table.get("headers");
    let body = message::body(context, &table, crate::saga::Place::Reply);
    let others = ["status", "headers", "body", "json"];
    if let Some(from) = &from
        && let Some(other) = table.entries().iter().find(|e| others.contains(&e.key))
    {
        let message = format!(
            "`from` passes a response on unchanged, so `{}` can't stand beside it",
            other.key
        );
        let help = "keep `from` alone, or build the reply from `${steps.NAME.response.…}`";
        let mut finding = sink.draft(Code::Conflict, other.key_span.clone(), message);
        finding.help = help.to_owned();
        finding.related.push(super::diagnostic::Related {
            file: sink.file.clone(),
            span: from.key_span.clone(),
            label: "the response is passed on here".to_owned(),
        });
        sink.report(finding);
    }
    let status = status
        .and_then(|n| message::status(sink, &n))
        .unwrap_or(default_status);
    let headers = headers.map_or_else(Vec::new, |n| message::reply_headers(context, &n));
    table.finish();
    let Some(from) = from else {
        return Some(ReplyPlan::Send(ReplyTemplate {
            status,
            headers,
            body,
        }));
    };
    let text = from.text()?;
    let found = context.names.iter().position(|n| n == text.value);
    if found.is_none() {
        graph::unknown_step(sink, &context.names, &text);
    }
    found
        .and_then(|at| u16::try_from(at).ok())
        .map(|at| ReplyPlan::From(StepId(at)))
}
