//! Any request, held against some triggers: the index finds what a look at each trigger finds, and the trigger that is kept of it has
//! captures that are one segment each.

use crate::Target;
use qbox::config::load_saga;
use qbox::gateway::{Definition, Index};
use qbox::saga::{self, RequestHead, match_body, match_head};
use std::sync::{Arc, LazyLock};

pub(crate) const TARGET: Target = Target {
    name: "matching",
    run,
    also: &[],
};

const TRIGGERS: [&str; 7] = [
    "method = \"POST\"\nurl = \"http://trips:8080/trips/{trip}\"",
    "method = \"PUT\"\nurl = \"http://trips:8080/trips/{trip}\"",
    "url = \"http://trips:8080/trips/7\"\npriority = 2\nheaders = { x-tenant = \"acme\" }",
    "url = \"http://trips:8080/trips/%2F/{a}\"\nquery = { dry = \"0\" }",
    "url = \"http://trips:8080/\"\nbody = \"x\"",
    "url = \"http://trips:8080/{a}/{b}\"\npriority = 1\njson = { kind.of = \"book\" }",
    "url = \"http://[::1]/trips/{trip}\"",
];

static SAGAS: LazyLock<(Vec<Definition>, Index)> = LazyLock::new(|| {
    let definition = |(number, trigger): (usize, &&str)| {
        let text = format!(
            "name = \"s{number}\"\n[trigger]\n{trigger}\n[[step]]\nname = \"a\"\nrequest = {{ method = \"GET\", url = \"http://b/\" }}\n"
        );
        Definition::new(Arc::new(load_saga(&text, "a.toml").unwrap().0)).unwrap()
    };
    let mut definitions: Vec<_> = TRIGGERS.iter().enumerate().map(definition).collect();
    definitions.sort_by_key(|definition| std::cmp::Reverse(definition.plan.trigger.priority));
    let index = Index::new(&definitions);
    (definitions, index)
});

/// As a client would send it, but for its faults: a line, fields, an empty line, a body.
fn run(bytes: &[u8]) {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or(bytes.len());
    let (head, body) = bytes.split_at(end);
    let body = body.get(4..).unwrap_or_default();
    let Ok(head) = std::str::from_utf8(head) else {
        return;
    };
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let fields: Vec<(&str, &[u8])> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim().as_bytes()))
        .collect();
    let Some(head) = RequestHead::new(method, target, fields.iter().copied()) else {
        return;
    };
    let (definitions, index) = &*SAGAS;
    let mut matching = definitions.iter().filter(|d| match_head(&d.plan.trigger, &head));
    assert_eq!(
        index.could_match(&head).is_some(),
        matching.clone().next().is_some()
    );
    let expected = matching.find(|d| match_body(&d.plan.trigger, body));
    let found = index.find(&head, body);
    assert_eq!(found.map(|d| &d.plan.name), expected.map(|d| &d.plan.name));
    if let Some(found) = found {
        let trigger = saga::trigger(
            &found.plan.trigger,
            &head,
            bytes::Bytes::copy_from_slice(body),
            None,
        );
        for (name, value) in &trigger.path {
            assert!(!matches!(value.as_str(), "" | "." | ".."), "{name} = {value:?}");
        }
    }
}
