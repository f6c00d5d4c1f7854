//! `[[step]]`: one transaction, how it is judged, asked after and undone.

use super::diagnostic::Code;
use super::expressions::Context;
use super::graph::{self, Wait};
use super::message;
use super::retry::{COMPENSATION, PIVOT_PROBE, PROBE, RETRIABLE, STEP, retry};
use super::walk::{Node, Table, Text};
use crate::saga::{
    CompensateWhen, Compensation, Condition, Kind, Place, Probe, RequestPlan, ResponseMatch, StatusSet, Step,
    StepId, Test,
};
use std::ops::Range;
use std::time::Duration;
use toml::de::DeValue;

/// The default of every attempt's `timeout`.
pub(super) const ATTEMPT: Duration = Duration::from_secs(5);
/// The shortest `timeout`.
const SHORTEST: Duration = Duration::from_millis(1);

/// A step as read, with the places that later checks point at. What is wrong has a stand-in, and the sink knows.
pub(super) struct StepAt {
    /// `None` if something without a stand-in is wrong.
    pub(super) step: Option<Step>,
    pub(super) kind: Kind,
    pub(super) waits: Vec<Wait>,
    /// The `after` key.
    pub(super) after: Option<Range<usize>>,
    pub(super) name_span: Range<usize>,
    pub(super) kind_span: Range<usize>,
    pub(super) retry_span: Option<Range<usize>>,
    pub(super) timeout_span: Option<Range<usize>>,
    pub(super) has_probe: bool,
    pub(super) has_when: bool,
}

/// Reads a step whose name is known already.
pub(super) fn step(context: &Context<'_>, table: Table<'_>, id: StepId) -> StepAt {
    let sink = context.sink;
    let name = table.get("name");
    let name_span = name.map_or_else(|| table.span.clone(), |n| n.span);
    let kinds = [
        ("compensatable", Kind::Compensatable),
        ("pivot", Kind::Pivot),
        ("retriable", Kind::Retriable),
    ];
    let kind_node = table.get("kind");
    let kind_span = kind_node
        .as_ref()
        .map_or_else(|| name_span.clone(), |n| n.span.clone());
    let kind = kind_node
        .and_then(|n| n.choice(&kinds))
        .unwrap_or(Kind::Compensatable);
    let after = table.get("after");
    let names: Vec<Text<'_>> = after
        .as_ref()
        .map_or_else(Vec::new, |n| texts(n, "after = [\"hotel\"]"));
    let waits = graph::waits(sink, &context.names, &names);
    let when = table
        .get("when")
        .map_or_else(Vec::new, |n| conditions(context, &n, id));
    let request = table
        .need(
            "request",
            "request = { method = \"POST\", url = \"http://HOST/PATH\" }",
        )
        .and_then(|n| request(context, &n, id));
    let success = matches(context, &table, "success", Place::Match(id), false);
    let refused = matches(context, &table, "refused", Place::Match(id), true);
    let timeout = table.get("timeout");
    let timeout_span = timeout.as_ref().map(|n| n.span.clone());
    let retry_node = table.get("retry");
    let retry_span = retry_node.as_ref().map(|n| n.key_span.clone());
    let retry = retry(
        sink,
        retry_node.as_ref(),
        if kind == Kind::Retriable { RETRIABLE } else { STEP },
    );
    let probe_node = table.get("probe");
    let has_probe = probe_node.is_some();
    let probe = probe_node.and_then(|n| probe(context, &n, id, kind));
    let compensate = table.get("compensate");
    let compensate_key = compensate.as_ref().map(|n| n.key_span.clone());
    let compensations = compensate.map_or_else(Vec::new, |n| compensations(context, &n, id));
    let always = table.get("compensate_when");
    let when_words = [
        ("applied", CompensateWhen::Applied),
        ("always", CompensateWhen::Always),
    ];
    let compensate_when = always
        .as_ref()
        .and_then(|n| n.choice(&when_words))
        .unwrap_or(CompensateWhen::Applied);
    if let (Some(key), true) = (&compensate_key, kind != Kind::Compensatable) {
        let (message, help) = match kind {
            Kind::Pivot => (
                "a pivot is never undone: its compensation would never be sent",
                "take `compensate` out, or make the step \"compensatable\"",
            ),
            _ => (
                "a retriable step is never undone: its compensation would never be sent",
                "take `compensate` out, or put the step before the pivot as \"compensatable\"",
            ),
        };
        sink.error(Code::NeverUndone, key.clone(), message, "", help);
    }
    if let (Some(node), None) = (&always, &compensate_key) {
        let message = "`compensate_when` has no effect: the step has no compensation";
        sink.warning(
            Code::NoEffect,
            node.key_span.clone(),
            message,
            "",
            "write a [[step.compensate]], or take it out",
        );
    }
    table.finish();
    let step = request.map(|request| Step {
        name: context.name(id).to_owned(),
        kind,
        after: waits.iter().map(|w| w.on).collect(),
        when,
        request,
        success: success.unwrap_or_else(self::success),
        refused: refused.unwrap_or_else(self::refused),
        timeout: timeout.and_then(|n| n.duration(SHORTEST)).unwrap_or(ATTEMPT),
        retry,
        probe,
        compensations,
        compensate_when,
    });
    let has_when = step.as_ref().is_some_and(|s| !s.when.is_empty());
    StepAt {
        step,
        kind,
        waits,
        after: after.map(|n| n.key_span),
        name_span,
        kind_span,
        retry_span,
        timeout_span,
        has_probe,
        has_when,
    }
}

/// `success` of a step that doesn't say it.
pub(super) fn success() -> Vec<ResponseMatch> {
    vec![status(&[(200, 299)], &[])]
}

/// `refused` of a step that doesn't say it.
pub(crate) fn refused() -> Vec<ResponseMatch> {
    vec![status(&[(400, 499)], &[408, 429])]
}

/// `applied` of a probe that doesn't say it.
pub(super) fn applied() -> Vec<ResponseMatch> {
    success()
}

/// `refused` of a probe that doesn't say it.
pub(super) fn gone() -> Vec<ResponseMatch> {
    vec![status(&[(404, 404), (410, 410)], &[])]
}

/// `success` of a compensation that doesn't say it: nothing to undo is undone.
pub(super) fn undone() -> Vec<ResponseMatch> {
    vec![status(&[(200, 299), (404, 404), (410, 410)], &[])]
}

/// A match of statuses alone.
fn status(ranges: &[(u16, u16)], except: &[u16]) -> ResponseMatch {
    ResponseMatch {
        status: Some(StatusSet {
            ranges: ranges.to_vec(),
            except: except.to_vec(),
        }),
        headers: Vec::new(),
        body: None,
        json: Vec::new(),
    }
}

fn matches(
    context: &Context<'_>,
    table: &Table<'_>,
    key: &'static str,
    place: Place,
    may_be_empty: bool,
) -> Option<Vec<ResponseMatch>> {
    message::matches(context, &table.get(key)?, place, may_be_empty)
}

/// A list of strings.
fn texts<'a>(node: &Node<'a>, example: &str) -> Vec<Text<'a>> {
    node.list(example)
        .unwrap_or_default()
        .iter()
        .filter_map(Node::text)
        .collect()
}

/// `"forward"`, or a request.
fn request(context: &Context<'_>, node: &Node<'_>, id: StepId) -> Option<RequestPlan> {
    match node.value {
        DeValue::String(_) => node.choice(&[("forward", ())]).map(|()| RequestPlan::Forward),
        DeValue::Table(table) if table.iter().any(|(key, _)| key.get_ref() == "forward") => {
            let message = "`forward` sends the trigger as it came: nothing can stand beside it";
            let help = "write request = \"forward\", or a whole request with `method` and `url`";
            context
                .sink
                .error(Code::Conflict, node.span.clone(), message, "", help);
            None
        }
        DeValue::Table(_) => message::request(context, node, Place::Request(id)).map(RequestPlan::Send),
        _ => {
            node.wrong_type(
                "a request",
                "write { method = \"POST\", url = \"http://HOST/PATH\" }, or \"forward\"",
            );
            None
        }
    }
}

/// `when`: each entry a value and one test.
fn conditions(context: &Context<'_>, node: &Node<'_>, id: StepId) -> Vec<Condition> {
    const EXAMPLE: &str = "when = [{ value = \"${trigger.json.fly}\", equals = \"yes\" }]";
    let sink = context.sink;
    let list = node.list(EXAMPLE).unwrap_or_default();
    let mark = context.mark();
    let mut found = Vec::new();
    for element in &list {
        let Some(table) = element.table("this condition") else {
            continue;
        };
        let value = table
            .need("value", "value = \"${trigger.json.FIELD}\"")
            .and_then(|n| n.text())
            .and_then(|text| context.template(&text, Place::Request(id)));
        let equals = table.get("equals");
        let one_of = table.get("in");
        let present = table.get("present");
        let tests = [&equals, &one_of, &present].into_iter().flatten().count();
        let span = element.span.clone();
        if tests == 0 {
            let help = "write `equals = \"yes\"`, `in = [\"yes\", \"true\"]` or `present = true`";
            sink.error(Code::MissingKey, span, "this condition has no test", "", help);
        } else if tests > 1 {
            sink.error(
                Code::Conflict,
                span,
                "this condition has more than one test",
                "",
                "write one entry for each",
            );
        }
        let test = if let Some(node) = equals {
            node.text().map(|text| Test::Equals(text.value.to_owned()))
        } else if let Some(node) = one_of {
            let texts = texts(&node, "in = [\"yes\", \"true\"]");
            if node.value.as_array().is_some_and(|a| a.is_empty()) {
                let help = "write the values that will do: in = [\"yes\"]";
                sink.error(
                    Code::Empty,
                    node.span.clone(),
                    "`in` is an empty list: nothing is in it",
                    "",
                    help,
                );
            }
            Some(Test::In(texts.iter().map(|t| t.value.to_owned()).collect()))
        } else {
            present.and_then(|node| node.boolean().map(Test::Present))
        };
        table.finish();
        if let (Some(value), Some(test)) = (value, test) {
            found.push(Condition { value, test });
        }
    }
    context.may_lack_from(mark);
    found
}

/// `[step.probe]`.
fn probe(context: &Context<'_>, node: &Node<'_>, id: StepId, kind: Kind) -> Option<Probe> {
    let table = node.table("[step.probe]")?;
    let place = Place::Probe(id);
    let request = table
        .need(
            "request",
            "request = { method = \"GET\", url = \"http://HOST/PATH\" }",
        )
        .and_then(|n| message::request(context, &n, place));
    // What the probe's answer is compared with may speak of the same as the probe itself.
    let applied = matches(context, &table, "applied", place, false);
    let refused = matches(context, &table, "refused", place, true);
    let timeout = table.get("timeout").and_then(|n| n.duration(SHORTEST));
    let defaults = if kind == Kind::Pivot { PIVOT_PROBE } else { PROBE };
    let retry = retry(context.sink, table.get("retry").as_ref(), defaults);
    table.finish();
    Some(Probe {
        request: request?,
        applied: applied.unwrap_or_else(self::applied),
        refused: refused.unwrap_or_else(gone),
        timeout: timeout.unwrap_or(ATTEMPT),
        retry,
    })
}

/// `[[step.compensate]]`.
fn compensations(context: &Context<'_>, node: &Node<'_>, id: StepId) -> Vec<Compensation> {
    if matches!(node.value, DeValue::Table(_)) {
        node.wrong_type(
            "a list",
            "write [[step.compensate]], with two brackets: there can be several",
        );
        return Vec::new();
    }
    let list = node.list("[[step.compensate]]").unwrap_or_default();
    if list.is_empty() && matches!(node.value, DeValue::Array(_)) {
        let help = "write a [[step.compensate]], or take the key out";
        context.sink.error(
            Code::Empty,
            node.span.clone(),
            "`compensate` is an empty list",
            "",
            help,
        );
    }
    list.iter()
        .filter_map(|element| compensation(context, element, id))
        .collect()
}

fn compensation(context: &Context<'_>, node: &Node<'_>, id: StepId) -> Option<Compensation> {
    let table = node.table("this compensation")?;
    let mark = context.mark();
    let request = table
        .need(
            "request",
            "request = { method = \"DELETE\", url = \"http://HOST/PATH\" }",
        )
        .and_then(|n| message::request(context, &n, Place::Compensation(id)));
    let needs = table.get("needs_response");
    let needs_response = needs.as_ref().and_then(Node::boolean).unwrap_or(false);
    if needs_response && !context.may_lack_from(mark) {
        let span = needs.map_or_else(|| table.span.clone(), |n| n.key_span);
        let message = "`needs_response` has no effect: nothing here speaks of the step's response";
        context
            .sink
            .warning(Code::NoEffect, span, message, "", "take it out");
    }
    let success = matches(context, &table, "success", Place::Compensation(id), false);
    let timeout = table.get("timeout").and_then(|n| n.duration(SHORTEST));
    let retry = retry(context.sink, table.get("retry").as_ref(), COMPENSATION);
    table.finish();
    Some(Compensation {
        request: request?,
        success: success.unwrap_or_else(undone),
        timeout: timeout.unwrap_or(ATTEMPT),
        retry,
        needs_response,
    })
}
