//! `[trigger]`: the request that starts a saga.

use super::diagnostic::Code;
use super::expressions::Context;
use super::message;
use super::url;
use super::walk::{Node, Table};
use crate::saga::{Place, Segment, Template, TriggerPattern};
use std::collections::HashSet;

/// Reads the section and tells the context which captures its path has.
pub(super) fn trigger(context: &Context<'_>, node: &Node<'_>) -> Option<TriggerPattern> {
    let sink = context.sink;
    let table = node.table("[trigger]")?;
    let method = table.get("method").and_then(|n| message::method(sink, &n));
    let url = table
        .need("url", "url = \"http://HOST:PORT/PATH\"")
        .and_then(|n| n.text())
        .and_then(|text| url::trigger(sink, &text));
    if let Some(url) = &url {
        let captures = url.path.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(name.clone()),
            Segment::Literal(_) => None,
        });
        *context.captures.borrow_mut() = Some(captures.collect());
    }
    let headers = pairs(context, &table, "headers");
    let query = pairs(context, &table, "query");
    let body = table.get("body").and_then(|n| {
        let text = n.text()?;
        literal(context, &n).then(|| text.value.to_owned())
    });
    let json = table.get("json").map_or_else(Vec::new, |n| {
        message::fields(sink, &n, &[], &|value| {
            literal(context, value).then(|| message::literal_json(value))?
        })
    });
    if let (Some(_), Some(node)) = (&body, table.get("json")) {
        let message =
            "`body` is the whole body, so `json` beside it asks for nothing more, or for what can't be";
        let help = "keep `json` to match some fields, `body` to match one exact text";
        sink.error(Code::Conflict, node.key_span, message, "", help);
    }
    let priority = table
        .get("priority")
        .and_then(|n| i32::try_from(n.integer(-1_000_000, 1_000_000)?).ok());
    let dedupe = table.get("dedupe").and_then(|n| key(context, &n));
    table.finish();
    let url = url?;
    Some(TriggerPattern {
        method,
        host: url.host,
        port: url.port,
        path: url.path,
        query,
        headers,
        body,
        json,
        priority: priority.unwrap_or(0),
        dedupe,
    })
}

/// `dedupe`, `lock`: a text that differs from trigger to trigger.
pub(super) fn key(context: &Context<'_>, node: &Node<'_>) -> Option<Template> {
    let text = node.filled()?;
    let template = context.template(&text, Place::Trigger)?;
    if template.is_literal() {
        let message = format!("`{}` is the same for every trigger", node.key);
        let help = if node.key == "lock" {
            "every saga of this file waits for the one before; if that is not meant, write an expression: ${trigger.path.NAME}"
        } else {
            "the second trigger would get the first one's reply: write an expression, as ${trigger.json.order}"
        };
        context
            .sink
            .warning(Code::NoEffect, text.span, message, "no expression", help);
    }
    Some(template)
}

/// `headers`, `query`: what must be there, text by text.
fn pairs(context: &Context<'_>, table: &Table<'_>, key: &'static str) -> Vec<(String, String)> {
    let sink = context.sink;
    let Some(inner) = table.get(key).and_then(|n| n.table(format!("`{key}`"))) else {
        return Vec::new();
    };
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut names = HashSet::new();
    for entry in inner.entries() {
        if key == "headers" && !message::header_name(sink, entry.key, entry.key_span.clone()) {
            continue;
        }
        if key == "headers" && !names.insert(entry.key.to_ascii_lowercase()) {
            message::header_twice(sink, entry.key, entry.key_span.clone());
            continue;
        }
        let Some(text) = entry.text() else { continue };
        if key == "headers" && !message::header_value(sink, &text) {
            continue;
        }
        if literal(context, entry) {
            pairs.push((entry.key.to_owned(), text.value.to_owned()));
        }
    }
    pairs
}

/// Whether the value holds no expression; reports it if it does.
fn literal(context: &Context<'_>, node: &Node<'_>) -> bool {
    let toml::de::DeValue::String(value) = node.value else {
        return true;
    };
    if !value.contains("${") {
        return true;
    }
    let message = format!("`{}` in [trigger] takes no expression", node.key);
    let help = "nothing is known yet when a trigger is matched: write the text itself";
    context
        .sink
        .error(Code::ExpressionPlace, node.span.clone(), message, "", help);
    false
}
