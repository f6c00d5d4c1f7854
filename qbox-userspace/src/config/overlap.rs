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
    // Only sagas of one host, port, length of path and priority can meet.
    let mut alike: HashMap<(&str, u16, usize, i32), Group> = HashMap::new();
    for (at, saga) in sagas.iter().enumerate() {
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
        let place = (
            trigger.host.as_str(),
            trigger.port,
            trigger.path.len(),
            trigger.priority,
        );
        let group = alike.entry(place).or_default();
        let meets = |other: &usize| {
            sagas
                .get(*other)
                .is_some_and(|other| overlap(&other.plan.trigger, trigger))
        };
        let first = group.candidates(trigger).into_iter().filter(meets).min();
        if let Some(other) = first.and_then(|first| sagas.get(first)) {
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
        group.push(at, trigger);
    }
    found
}

/// Triggers of one place, kept so that many files need not be compared in pairs: each is compared with those alone
/// that agree with it in every text that both ask for.
#[derive(Default)]
struct Group<'a> {
    alike: Vec<Alike<'a>>,
}

/// Triggers of one shape.
struct Alike<'a> {
    shape: Shape<'a>,
    members: Vec<(usize, Texts<'a>)>,
    /// For triggers of other shapes, by the slots that they share with this one: members by their texts there.
    tables: HashMap<Vec<bool>, HashMap<Texts<'a>, Vec<usize>>>,
}

/// What a trigger asks for, slot by slot: the path's segments, the method, its first header and its first parameter.
/// `None`: anything will do.
type Texts<'a> = Vec<Option<&'a str>>;

/// Which slots have texts, and whose texts they are.
#[derive(PartialEq, Eq)]
struct Shape<'a> {
    filled: Vec<bool>,
    /// In lower case.
    header: Option<String>,
    parameter: Option<&'a str>,
}

impl<'a> Shape<'a> {
    fn of(trigger: &'a TriggerPattern) -> (Self, Texts<'a>) {
        let segments = trigger.path.iter().map(|segment| match segment {
            Segment::Literal(text) => Some(text.as_str()),
            Segment::Capture(_) => None,
        });
        let (header, parameter) = (trigger.headers.first(), trigger.query.first());
        let value = |pair: Option<&'a (String, String)>| pair.map(|(_, value)| value.as_str());
        let texts: Texts<'_> = segments
            .chain([trigger.method.as_deref(), value(header), value(parameter)])
            .collect();
        let shape = Self {
            filled: texts.iter().map(Option::is_some).collect(),
            header: header.map(|(name, _)| name.to_ascii_lowercase()),
            parameter: parameter.map(|(name, _)| name.as_str()),
        };
        (shape, texts)
    }

    /// The slots in which texts of both must be equal, or no request matches both.
    fn shared(&self, other: &Self) -> Vec<bool> {
        let mut both: Vec<bool> = self
            .filled
            .iter()
            .zip(&other.filled)
            .map(|(a, b)| *a && *b)
            .collect();
        if let [.., header, parameter] = both.as_mut_slice() {
            *header &= self.header == other.header;
            *parameter &= self.parameter == other.parameter;
        }
        both
    }
}

/// The texts of those slots alone.
fn of_slots<'a>(texts: &Texts<'a>, slots: &[bool]) -> Texts<'a> {
    texts
        .iter()
        .zip(slots)
        .map(|(text, kept)| text.filter(|_| *kept))
        .collect()
}

impl<'a> Group<'a> {
    /// Those that the trigger may overlap with.
    fn candidates(&mut self, trigger: &'a TriggerPattern) -> Vec<usize> {
        let (shape, texts) = Shape::of(trigger);
        let mut found = Vec::new();
        for alike in &mut self.alike {
            let slots = shape.shared(&alike.shape);
            let members = &alike.members;
            let table = alike.tables.entry(slots.clone()).or_insert_with(|| {
                let mut table: HashMap<_, Vec<usize>> = HashMap::new();
                for (at, texts) in members {
                    table.entry(of_slots(texts, &slots)).or_default().push(*at);
                }
                table
            });
            found.extend(table.get(&of_slots(&texts, &slots)).into_iter().flatten());
        }
        found
    }

    fn push(&mut self, at: usize, trigger: &'a TriggerPattern) {
        let (shape, texts) = Shape::of(trigger);
        let known = self.alike.iter().position(|alike| alike.shape == shape);
        let known = known.unwrap_or_else(|| {
            self.alike.push(Alike {
                shape,
                members: Vec::new(),
                tables: HashMap::new(),
            });
            self.alike.len() - 1
        });
        let Some(alike) = self.alike.get_mut(known) else {
            return;
        };
        for (slots, table) in &mut alike.tables {
            table.entry(of_slots(&texts, slots)).or_default().push(at);
        }
        alike.members.push((at, texts));
    }
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
    use super::super::diagnostic::SourceFile;
    use super::super::load_saga;
    use super::super::saga_file::SagaAt;
    use super::{check, overlap};
    use crate::saga::TriggerPattern;
    use proptest::prelude::*;
    use std::sync::Arc;

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

    /// Any few of the above, and mixtures of them.
    fn keys() -> impl Strategy<Value = String> {
        let url = prop::sample::select(vec![
            "",
            "url = \"http://a/x/1\"",
            "url = \"http://a/{y}/1\"",
            "url = \"http://a/x/\"",
        ]);
        let key = |key: &'static str, values: Vec<&'static str>| {
            prop::option::of(prop::sample::select(values))
                .prop_map(move |value| value.map_or_else(String::new, |value| format!("{key} = {value}")))
        };
        let method = key("method", vec!["\"PUT\"", "\"POST\""]);
        let headers = key(
            "headers",
            vec![
                "{ x-a = \"1\" }",
                "{ X-A = \"2\" }",
                "{ x-b = \"1\", x-a = \"2\" }",
            ],
        );
        let query = key("query", vec!["{ a = \"1\" }", "{ a = \"2\" }", "{ b = \"1\" }"]);
        let json = key("json", vec!["{ a = 1 }", "{ a = 2 }", "{ b = 1 }"]);
        let priority = key("priority", vec!["1", "2"]);
        (url, method, headers, query, json, priority).prop_map(
            |(url, method, headers, query, json, priority)| {
                [url.to_owned(), method, headers, query, json, priority].join("\n")
            },
        )
    }

    proptest! {
        /// What is found without comparing in pairs is what comparing in pairs finds.
        #[test]
        fn no_pair_is_missed(all in prop::collection::vec(keys(), 2..9)) {
            let sagas: Vec<SagaAt> = all.iter().zip(0..).map(|(keys, number)| {
                let mut plan = load_saga("name = \"x\"\n[trigger]\nurl = \"http://a/x/{id}\"\n[[step]]\nname = \"one\"\nrequest = { method = \"GET\", url = \"http://b/\" }\n", "a.toml").unwrap().0;
                plan.name = format!("s{number}");
                plan.trigger = trigger(keys);
                let file = Arc::new(SourceFile { name: plan.name.clone(), text: String::new() });
                SagaAt { plan, file, name_span: 0..0, trigger_span: 0..0 }
            }).collect();
            let mut expected = Vec::new();
            for (at, saga) in sagas.iter().enumerate() {
                let first = sagas[..at].iter().find(|other| overlap(&other.plan.trigger, &saga.plan.trigger));
                expected.extend(first.map(|first| (first.plan.name.clone(), saga.plan.name.clone())));
            }
            let found: Vec<_> = check(&sagas).iter().map(|finding| (finding.related[0].file.name.clone(), finding.file.name.clone())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
