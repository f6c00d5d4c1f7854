//! Sagas beside one another: unique names, and no two that one request could start without a `priority` that decides.
//!
//! Two triggers are told apart by host, port, method, path, or by a header, parameter, field or body that both name
//! with different values. Where nothing of that holds a request that matches both can be made up, so it is an error.
//! (A request could carry one header twice, with both values; the first one counts, so that is no overlap.)

use super::diagnostic::{Code, Diagnostic, Related, Severity};
use super::saga_file::SagaAt;
use crate::saga::{FieldPath, Segment, TriggerPattern};
use std::collections::HashMap;

/// Compares all sagas with one another.
pub(super) fn check(sagas: &[SagaAt]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut names: HashMap<&str, &SagaAt> = HashMap::new();
    // Only sagas of one host, port and length of path can meet: that keeps many files from being compared in pairs.
    let mut alike: HashMap<(&str, u16, usize), Vec<&SagaAt>> = HashMap::new();
    for saga in sagas {
        let plan = &saga.plan;
        if let Some(first) = names.get(plan.name.as_str()) {
            let message = format!("two sagas are named `{}`", plan.name);
            let help = "give each saga a name of its own: its journal and its keys go by it";
            found.push(finding(
                Code::DuplicateSaga,
                saga,
                saga.name_span.clone(),
                message,
                help,
                Related {
                    file: first.file.clone(),
                    span: first.name_span.clone(),
                    label: "the first one".to_owned(),
                },
            ));
        } else {
            names.insert(&plan.name, saga);
        }
        let trigger = &plan.trigger;
        let group = alike
            .entry((trigger.host.as_str(), trigger.port, trigger.path.len()))
            .or_default();
        if let Some(other) = group.iter().find(|other| overlap(&other.plan.trigger, trigger)) {
            let message = format!(
                "one request can start both `{}` and `{}`",
                other.plan.name, plan.name
            );
            let help = "give one of them a higher `priority`, or a header, parameter, method or field that tells them apart";
            found.push(finding(
                Code::Overlap,
                saga,
                saga.trigger_span.clone(),
                message,
                help,
                Related {
                    file: other.file.clone(),
                    span: other.trigger_span.clone(),
                    label: format!("`{}` matches the same request", other.plan.name),
                },
            ));
        }
        group.push(saga);
    }
    found
}

fn finding(
    code: Code,
    saga: &SagaAt,
    span: std::ops::Range<usize>,
    message: String,
    help: &str,
    related: Related,
) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code,
        file: saga.file.clone(),
        span: Some(span),
        message,
        label: String::new(),
        help: help.to_owned(),
        suggestion: None,
        related: vec![related],
    }
}

/// Whether a request can be thought of that matches both, and nothing says which goes first.
fn overlap(a: &TriggerPattern, b: &TriggerPattern) -> bool {
    a.priority == b.priority
        && a.host == b.host
        && a.port == b.port
        && (a.method.is_none() || b.method.is_none() || a.method == b.method)
        && a.path.len() == b.path.len()
        && a.path.iter().zip(&b.path).all(|(x, y)| segments_meet(x, y))
        && pairs_meet(&a.headers, &b.headers, str::eq_ignore_ascii_case)
        && pairs_meet(&a.query, &b.query, |x, y| x == y)
        && bodies_meet(a, b)
        && bodies_meet(b, a)
        && a.json.iter().all(|x| b.json.iter().all(|y| fields_meet(x, y)))
}

fn segments_meet(a: &Segment, b: &Segment) -> bool {
    match (a, b) {
        (Segment::Literal(a), Segment::Literal(b)) => a == b,
        (Segment::Capture(_), Segment::Literal(text)) | (Segment::Literal(text), Segment::Capture(_)) => {
            !text.is_empty()
        }
        (Segment::Capture(_), Segment::Capture(_)) => true,
    }
}

fn pairs_meet(a: &[(String, String)], b: &[(String, String)], same: fn(&str, &str) -> bool) -> bool {
    a.iter()
        .all(|(name, value)| b.iter().all(|(n, v)| !same(name, n) || value == v))
}

/// Whether a body that is exactly `a.body` can match what `b` asks of a body.
fn bodies_meet(a: &TriggerPattern, b: &TriggerPattern) -> bool {
    let Some(body) = &a.body else { return true };
    if b.body.as_ref().is_some_and(|other| other != body) {
        return false;
    }
    if b.json.is_empty() {
        return true;
    }
    let Ok(document) = serde_json::from_str(body) else {
        return false;
    };
    b.json
        .iter()
        .all(|(path, value)| path.find(&document) == Some(value))
}

/// Whether one document can hold both fields: one place has one value, and what has fields is no scalar.
fn fields_meet(a: &(FieldPath, serde_json::Value), b: &(FieldPath, serde_json::Value)) -> bool {
    let (short, long) = if a.0.0.len() <= b.0.0.len() {
        (a, b)
    } else {
        (b, a)
    };
    let Some(below) = long.0.0.strip_prefix(short.0.0.as_slice()) else {
        return true;
    };
    FieldPath(below.to_vec()).find(&short.1) == Some(&long.1)
}

#[cfg(test)]
mod tests {
    use super::super::load_saga;
    use super::overlap;
    use crate::saga::TriggerPattern;

    fn trigger(keys: &str) -> TriggerPattern {
        let url = if keys.contains("url") {
            ""
        } else {
            "url = \"http://a/x/{id}\"\n"
        };
        let text = format!(
            "name = \"x\"\n[trigger]\n{url}{keys}\n[[step]]\nname = \"one\"\nrequest = {{ method = \"GET\", url = \"http://b/\" }}\n"
        );
        load_saga(&text, "a.toml").unwrap().0.trigger
    }

    #[test]
    fn what_no_request_can_match_both_of_is_no_overlap() {
        for (a, b) in [
            ("method = \"PUT\"", "method = \"POST\""),
            ("headers = { x-a = \"1\" }", "headers = { X-A = \"2\" }"),
            ("query = { a = \"1\" }", "query = { a = \"2\" }"),
            ("json = { a.b = 1 }", "json = { \"/a/b\" = 2 }"),
            ("json = { a = 1 }", "json = { a.b = 1 }"),
            ("body = \"x\"", "body = \"y\""),
            ("body = \"x\"", "json = { a = 1 }"),
            ("body = '{\"a\":2}'", "json = { a = 1 }"),
            ("priority = 1", "priority = 2"),
            ("url = \"http://a/x/1\"", "url = \"http://a/x/2\""),
            ("url = \"http://a/x/\"", "url = \"http://a/x/{id}\""),
            ("url = \"http://a/x\"", "url = \"http://a/x/{id}\""),
            ("url = \"http://a:81/x\"", "url = \"http://a/x\""),
        ] {
            let (a_read, b_read) = (trigger(a), trigger(b));
            assert!(!overlap(&a_read, &b_read), "{a} | {b}");
            assert!(!overlap(&b_read, &a_read), "{b} | {a}");
        }
    }

    #[test]
    fn what_one_request_can_match_both_of_is() {
        for (a, b) in [
            ("", ""),
            ("method = \"PUT\"", ""),
            ("headers = { x-a = \"1\" }", "headers = { x-b = \"2\" }"),
            ("query = { a = \"1\" }", "query = { b = \"1\" }"),
            ("json = { a = 1 }", "json = { b = 2 }"),
            ("json = { a.b = 1 }", "json = { a.c = 1 }"),
            ("body = '{\"a\":1}'", "json = { a = 1 }"),
            ("body = \"x\"", ""),
            ("priority = 3", "priority = 3"),
            ("url = \"http://A/x/1\"", "url = \"http://a:80/x/{id}\""),
            ("url = \"http://a/x/%31\"", "url = \"http://a/x/1\""),
        ] {
            let (a_read, b_read) = (trigger(a), trigger(b));
            assert!(overlap(&a_read, &b_read), "{a} | {b}");
            assert!(overlap(&b_read, &a_read), "{b} | {a}");
        }
    }
}
