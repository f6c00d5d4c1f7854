//! The original's configuration: its keys, as its schema had them.

use super::Findings;
use super::yaml::{Node, Value};
use crate::config::Code;
use std::collections::HashSet;
use std::ops::Range;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// One document.
#[derive(Debug)]
pub(super) struct Configuration {
    pub(super) span: Range<usize>,
    pub(super) host: At<String>,
    pub(super) trigger: Request,
    pub(super) transactions: Vec<Transaction>,
    pub(super) succeeded: Option<Response>,
    pub(super) failed: Option<Response>,
    /// Keys that it did not look at.
    pub(super) ignored: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: At<String>,
    pub(super) url: At<String>,
    pub(super) headers: Vec<(At<String>, At<String>)>,
    pub(super) body: Option<At<String>>,
}

#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: At<i64>,
    pub(super) headers: Vec<(At<String>, At<String>)>,
    pub(super) body: Option<At<String>>,
}

/// A transaction or a compensation.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) request: Request,
    pub(super) success: At<Vec<Response>>,
    /// Seconds.
    pub(super) timeout: At<i64>,
    pub(super) attempts: Option<At<i64>>,
    pub(super) undo: Vec<Transaction>,
}

/// Keys that the original did not look at, each once, in the order in which they stand.
#[derive(Default)]
struct Ignored {
    names: Vec<String>,
    seen: HashSet<String>,
}

impl Ignored {
    fn add(&mut self, name: &str) {
        if self.seen.insert(name.to_owned()) {
            self.names.push(name.to_owned());
        }
    }
}

const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "POST"];

/// Reads a document; what is missing or of another kind is reported.
pub(super) fn configuration(sink: &mut Findings, node: &Node) -> Option<Configuration> {
    let mut ignored = Ignored::default();
    let known = [
        "host",
        "matchRequest",
        "onMatchedRequest",
        "onAllSucceeded",
        "onAnyFailed",
    ];
    map(sink, node, "a configuration", &known, &mut ignored)?;
    let host = need(sink, node, "host").and_then(|host| text(sink, host, "host"));
    let trigger =
        need(sink, node, "matchRequest").and_then(|n| request(sink, n, "matchRequest", &[], &mut ignored));
    let transactions = need(sink, node, "onMatchedRequest").and_then(|list| {
        let items = items(sink, list, "onMatchedRequest")?;
        if items.is_empty() {
            let help = "a saga has at least one step";
            sink.error(
                Code::Unsayable,
                list.span.clone(),
                "`onMatchedRequest` is empty",
                help,
            );
        }
        let read: Vec<_> = items
            .iter()
            .map(|item| transaction(sink, item, true, &mut ignored))
            .collect();
        read.into_iter().collect::<Option<Vec<_>>>()
    });
    let mut reply = |key: &str, sink: &mut Findings| match node.get(key) {
        // In its first version this was a request, which it read and never sent.
        Some(node) if node.get("status-code").is_none() && node.get("url").is_some() => {
            ignored.add(&format!("{key} (a request)"));
            Some(None)
        }
        Some(node) if !node.is_null() => response(sink, node, key, &mut ignored).map(Some),
        _ => Some(None),
    };
    let (succeeded, failed) = (reply("onAllSucceeded", sink), reply("onAnyFailed", sink));
    Some(Configuration {
        span: node.span.clone(),
        host: host?,
        trigger: trigger?,
        transactions: transactions?,
        succeeded: succeeded?,
        failed: failed?,
        ignored: ignored.names,
    })
}

fn transaction(sink: &mut Findings, node: &Node, undone: bool, ignored: &mut Ignored) -> Option<Transaction> {
    let what = if undone {
        "a transaction"
    } else {
        "an entry of `onFailure`"
    };
    let mut known = vec!["timeout", "maxRetriesOnTimeout", "isSuccessIfReceives"];
    if undone {
        known.push("onFailure");
    }
    let request = request(sink, node, what, &known, ignored);
    let timeout = need(sink, node, "timeout").and_then(|n| number(sink, n, "timeout"));
    let attempts = match node.get("maxRetriesOnTimeout").filter(|n| !n.is_null()) {
        Some(n) => Some(number(sink, n, "maxRetriesOnTimeout")?),
        None => None,
    };
    let success = need(sink, node, "isSuccessIfReceives").and_then(|list| {
        let items = items(sink, list, "isSuccessIfReceives")?;
        if items.is_empty() {
            let message = "`isSuccessIfReceives` is empty: no answer was ever a success";
            sink.error(
                Code::Unsayable,
                list.span.clone(),
                message,
                "say which answer is one: [{status-code: 200}]",
            );
        }
        let read: Vec<_> = items
            .iter()
            .map(|item| response(sink, item, "an entry of `isSuccessIfReceives`", ignored))
            .collect();
        let value = read.into_iter().collect::<Option<Vec<_>>>()?;
        let span = list.span.clone();
        Some(At { value, span })
    });
    let undo = match undone {
        true => need(sink, node, "onFailure").and_then(|list| {
            let read: Vec<_> = items(sink, list, "onFailure")?
                .iter()
                .map(|item| transaction(sink, item, false, ignored))
                .collect();
            read.into_iter().collect::<Option<Vec<_>>>()
        }),
        false => Some(Vec::new()),
    };
    Some(Transaction {
        request: request?,
        success: success?,
        timeout: timeout?,
        attempts,
        undo: undo?,
    })
}

fn request(
    sink: &mut Findings,
    node: &Node,
    what: &str,
    more: &[&str],
    ignored: &mut Ignored,
) -> Option<Request> {
    let known: Vec<&str> = ["method", "url", "headers", "body"]
        .iter()
        .chain(more)
        .copied()
        .collect();
    map(sink, node, what, &known, ignored)?;
    let method = need(sink, node, "method").and_then(|n| text(sink, n, "method"));
    if let Some(method) = method
        .as_ref()
        .filter(|method| !METHODS.contains(&method.value.as_str()))
    {
        let message = format!("`{}` was no method to the original", method.value);
        sink.error(
            Code::NotOriginal,
            method.span.clone(),
            message,
            format!("it knew {}", METHODS.join(", ")),
        );
        return None;
    }
    let url = need(sink, node, "url").and_then(|n| text(sink, n, "url"));
    let headers = headers(sink, node);
    let body = body(sink, node);
    Some(Request {
        method: method?,
        url: url?,
        headers: headers?,
        body: body?,
    })
}

fn response(sink: &mut Findings, node: &Node, what: &str, ignored: &mut Ignored) -> Option<Response> {
    // Its own tests have a `url` there.
    map(
        sink,
        node,
        what,
        &["status-code", "headers", "body", "url"],
        ignored,
    )?;
    let status = need(sink, node, "status-code").and_then(|n| number(sink, n, "status-code"));
    if let Some(status) = status
        .as_ref()
        .filter(|status| !(200..=599).contains(&status.value))
    {
        let message = format!("{} is not the status of an answer", status.value);
        sink.error(
            Code::Unsayable,
            status.span.clone(),
            message,
            "an answer has 200 to 599",
        );
        return None;
    }
    let headers = headers(sink, node);
    let body = body(sink, node);
    Some(Response {
        status: status?,
        headers: headers?,
        body: body?,
    })
}

/// `headers`; none where the key is missing.
fn headers(sink: &mut Findings, node: &Node) -> Option<Vec<(At<String>, At<String>)>> {
    let Some(node) = node.get("headers").filter(|n| !n.is_null()) else {
        return Some(Vec::new());
    };
    let Value::Map(pairs) = &node.value else {
        wrong(sink, node, "headers", "a map of names and values");
        return None;
    };
    let read: Vec<_> = pairs
        .iter()
        .map(|(name, value)| {
            Some((
                text(sink, name, "a header's name")?,
                text(sink, value, "a header's value")?,
            ))
        })
        .collect();
    read.into_iter().collect()
}

/// `body`; the empty one asked for nothing and sent nothing.
#[allow(clippy::option_option)] // None: wrong; Some(None): not there
fn body(sink: &mut Findings, node: &Node) -> Option<Option<At<String>>> {
    let Some(node) = node.get("body").filter(|n| !n.is_null()) else {
        return Some(None);
    };
    let body = text(sink, node, "body")?;
    Some(Some(body).filter(|body| !body.value.is_empty()))
}

/// Whether it is a map; its keys that the original did not look at are remembered.
fn map(sink: &mut Findings, node: &Node, what: &str, known: &[&str], ignored: &mut Ignored) -> Option<()> {
    let Value::Map(pairs) = &node.value else {
        wrong(sink, node, what, "a map");
        return None;
    };
    for (key, _) in pairs {
        if let Value::Scalar { text, .. } = &key.value
            && !known.contains(&text.as_str())
            && text != "<<"
        {
            ignored.add(text);
        }
    }
    Some(())
}

fn need<'n>(sink: &mut Findings, node: &'n Node, key: &str) -> Option<&'n Node> {
    let found = node.get(key).filter(|value| !value.is_null());
    if found.is_none() {
        let start = node.span.start;
        let message = format!("`{key}` is missing here");
        sink.error(
            Code::NotOriginal,
            start..start,
            message,
            format!("the original needed `{key}`"),
        );
    }
    found
}

fn items<'n>(sink: &mut Findings, node: &'n Node, key: &str) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(items) => Some(items),
        _ => {
            wrong(sink, node, key, "a list");
            None
        }
    }
}

fn text(sink: &mut Findings, node: &Node, key: &str) -> Option<At<String>> {
    match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => Some(At {
            value: text.clone(),
            span: node.span.clone(),
        }),
        _ => {
            wrong(sink, node, key, "a text");
            None
        }
    }
}

fn number(sink: &mut Findings, node: &Node, key: &str) -> Option<At<i64>> {
    let value = match &node.value {
        Value::Scalar { text, plain: true } => text.parse().ok().filter(|number: &i64| *number >= 0),
        _ => None,
    };
    if value.is_none() {
        wrong(sink, node, key, "a whole number, not negative and without quotes");
    }
    value.map(|value| At {
        value,
        span: node.span.clone(),
    })
}

fn wrong(sink: &mut Findings, node: &Node, what: &str, expected: &str) {
    let start = node.span.start;
    let span = match &node.value {
        Value::Scalar { .. } => node.span.clone(),
        // A whole block underlined shows nothing.
        _ => start..start,
    };
    let help = "see what the original's configuration looks like in docs/migration.md";
    sink.error(
        Code::NotOriginal,
        span,
        format!("{what} must be {expected}"),
        help,
    );
}
