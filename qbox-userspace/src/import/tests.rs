//! Configurations of the original's shape, as it read them and as they come out.

use super::{Imported, import};
use crate::config::{Code, SourceFile, load_saga};
use crate::plan::Prospect;
use crate::saga::{RequestPlan, RetryOn, Segment, StepId};
use proptest::prelude::*;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

type Place = (Code, (usize, usize), String);

fn read(text: &str) -> Result<Vec<Imported>, Vec<Place>> {
    let file = SourceFile {
        name: "config.yaml".to_owned(),
        text: text.to_owned(),
    };
    import(&Arc::new(file)).map_err(|found| {
        let place = |d: &crate::config::Diagnostic| (d.code, d.line_column().unwrap(), d.message.clone());
        found.iter().map(place).collect()
    })
}

/// A middle service with an undoing saga of its own, in two documents, as the original's generator wrote them.
const TWO: &str = r#"
host: shop.svc
matchRequest:
  headers: {Begin: "yes"}
  method: GET
  url: http://localhost:3001/buy/
onAllSucceeded: {body: "stock: ${transaction[0].response.body}\nmail: ${transaction[1].response.body}\n", status-code: 200}
onAnyFailed: {body: "stock: ${transaction[0].response.body:-}\n", status-code: 500}
onMatchedRequest:
- method: POST
  url: http://stock.default.svc:9080/take/${parent.headers.Item}
  headers: {Kind: "${ROOT.headers.KIND:any}", X-Qbox-Status: begun}
  body: ${root.body}
  isSuccessIfReceives:
  - {status-code: 200, headers: {Content-type: text/plain}}
  - {status-code: 201}
  maxRetriesOnTimeout: 3
  timeout: 30
  onFailure:
  - method: POST
    url: http://stock.default.svc:9080/give/${root.headers.Item}
    headers: {Was: "${parent.response.headers.Took}"}
    isSuccessIfReceives: [{status-code: 200}]
    maxRetriesOnTimeout: 1
    timeout: 3
- method: PUT
  url: http://stock.default.svc:9080/mail
  isSuccessIfReceives: [{status-code: 200}]
  timeout: 2
  onFailure: []
---
host: shop.svc
matchRequest: {method: DELETE, url: shop.svc}
extra: &common
  url: mail.svc
  isSuccessIfReceives: [{status-code: 200}]
  timeout: 0
onMatchedRequest:
- <<: *common
  method: DELETE
  onFailure:
  - <<: *common
    method: PUT
"#;

/// As its first version had it: hosts alone for URLs, and a request where later an answer stood, which was never sent.
const FIRST: &str = r#"
host: desk.svc
matchRequest: {method: GET, url: qbox.desk.svc, headers: {Hey: begin}}
onMatchedRequest:
- method: POST
  url: books.svc
  headers: {own: "1"}
  timeout: 30
  maxRetriesOnTimeout: 3
  isSuccessIfReceives: [{status-code: 200}]
  onFailure:
  - {method: POST, url: books.svc, headers: {}, timeout: 30, isSuccessIfReceives: [{status-code: 200}]}
onAllSucceeded: {method: GET, url: desk.svc}
"#;

#[test]
fn its_first_versions_files_mean_what_they_did() {
    let found = read(FIRST).unwrap();
    let [saga] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(saga.plan.trigger.url(), "http://qbox.desk.svc/");
    assert_eq!(saga.plan.reply_success, None);
    let RequestPlan::Send(request) = &saga.plan.steps[0].request else {
        panic!("{:?}", saga.plan)
    };
    assert_eq!(
        (request.method.as_str(), request.url.to_string().as_str()),
        ("POST", "http://books.svc/")
    );
    let text = saga.text.replace("\n# ", " ");
    assert!(
        text.contains("here it is gone: onAllSucceeded (a request)."),
        "{text}"
    );
    // Neither the one nor the other.
    let neither = FIRST.replace(
        "onAllSucceeded: {method: GET, url: desk.svc}",
        "onAllSucceeded: {body: x}",
    );
    let missing = read(&neither).unwrap_err();
    assert!(missing[0].2.contains("`status-code` is missing"), "{missing:?}");
}

/// Two that differ by the URL of their triggers alone, values from the caller's headers and from the step's own request, and both replies
/// made of both answers.
#[test]
fn two_that_differ_by_their_url_only() {
    let step = |host: &str, of: &str| {
        format!(
            "- method: GET\n  url: http://{host}.svc/put/${{{of}.headers.Book-Id}}\n  headers: {{MY_OWN: \"${{parent.headers.BOOK-ID}}\", OTHER: LIFE}}\n  \
             timeout: 30\n  maxRetriesOnTimeout: 3\n  isSuccessIfReceives: [{{status-code: 200, headers: {{Content-type: text/plain}}}}]\n  \
             onFailure:\n  - method: GET\n    url: http://{host}.svc/back/${{root.headers.Book-Id}}\n    \
             headers: {{IS: \"${{parent.headers.OTHER}}\", NOT: \"${{parent.headers.NONE:la}}\"}}\n    timeout: 3\n    \
             maxRetriesOnTimeout: 1\n    isSuccessIfReceives: [{{status-code: 200}}]\n"
        )
    };
    let document = |url: &str| {
        let body = "\"shelf: ${transaction[0].response.body} card: ${transaction[1].response.body}\"";
        format!(
            "host: desk.svc\nmatchRequest: {{method: GET, url: \"{url}\", headers: {{Begin: \"True\"}}}}\nonMatchedRequest:\n{}{}\
             onAllSucceeded: {{status-code: 200, body: {body}}}\nonAnyFailed: {{status-code: 500, body: {body}}}\n",
            step("shelf", "parent"),
            step("card", "root")
        )
    };
    let text = format!(
        "{}---\n{}",
        document("http://localhost:3001/"),
        document("http://localhost:3001/other")
    );
    let found = read(&text).unwrap();
    let urls: Vec<_> = found.iter().map(|saga| saga.plan.trigger.url()).collect();
    assert_eq!(urls, ["http://localhost:3001/", "http://localhost:3001/other"]);
    let request = "GET http://localhost:3001/other\nBegin: True\nBook-Id: 12\n\n";
    let plan = Arc::new(found[1].plan.clone());
    let trigger = crate::plan::read_request(request)
        .unwrap()
        .trigger(&plan.trigger)
        .unwrap();
    let prospect = Prospect::new(Arc::clone(&plan), Some(trigger), &[], None);
    let sent: Vec<_> = prospect
        .forward
        .sent
        .iter()
        .map(|sent| sent.request.url.as_str())
        .collect();
    assert_eq!(sent, ["http://shelf.svc/put/12", "http://card.svc/put/12"]);
    let reply = prospect.forward.reply.unwrap();
    assert_eq!(
        (reply.status, &reply.body[..]),
        (
            200,
            &br#"shelf: "steps.shelf.response.body" card: "steps.card.response.body""#[..]
        )
    );
    // Of the second nobody knows: both are undone, the last one first.
    let undone = &prospect.failures[3].run;
    let undone: Vec<_> = undone.compensations().map(|sent| &sent.request).collect();
    let urls: Vec<_> = undone.iter().map(|request| request.url.as_str()).collect();
    assert_eq!(urls, ["http://card.svc/back/12", "http://shelf.svc/back/12"]);
    let field = |name: &str| undone[0].headers.get(name).map(|value| value.to_vec());
    assert_eq!(
        (field("is"), field("not")),
        (Some(b"LIFE".to_vec()), Some(b"la".to_vec()))
    );
}

#[test]
fn each_document_is_a_saga_that_means_the_same() {
    let found = read(TWO).unwrap();
    let names: Vec<_> = found.iter().map(|saga| saga.name.as_str()).collect();
    assert_eq!(names, ["shop", "shop-2"]);
    let plan = &found[0].plan;
    assert_eq!(
        (plan.trigger.host.as_str(), plan.trigger.port),
        ("localhost", 3001)
    );
    let literal = |text: &str| Segment::Literal(text.to_owned());
    assert_eq!(plan.trigger.path, [literal("buy"), literal("")]);
    let names: Vec<_> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["stock", "stock-2"]);
    assert_eq!(plan.steps[1].after, [StepId(0)], "one after the other");
    let RequestPlan::Send(first) = &plan.steps[0].request else {
        panic!("{plan:?}")
    };
    assert_eq!(
        first.url.to_string(),
        "http://stock.default.svc:9080/take/${trigger.headers.Item:}"
    );
    // Qbox's own headers are its own.
    assert_eq!(first.headers.len(), 1);
    assert_eq!(first.headers[0].1.to_string(), "${trigger.headers.KIND:any}");
    let retry = &plan.steps[0].retry;
    assert_eq!(
        (retry.attempts, &retry.on[..]),
        (Some(3), &[RetryOn::Timeout][..])
    );
    // Three times thirty seconds and two have to fit.
    assert_eq!(plan.timeout, Duration::from_secs(92));
    let undo = &plan.steps[0].compensations[0];
    assert_eq!(undo.retry.attempts, Some(1));
    assert_eq!(
        undo.request.headers[0].1.to_string(),
        "${parent.response.headers.Took:}"
    );
    let text = found[0].text.replace("\n# ", " ");
    for part in [
        "Stricter than the original",
        "listened here itself",
        "the saga is stuck",
        "${steps.stock-2.response.body:}",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let second = &found[1];
    assert_eq!(second.plan.trigger.url(), "http://shop.svc/");
    assert_eq!(second.plan.steps[0].compensations[0].request.method, "PUT");
    assert_eq!(second.plan.steps[0].timeout, Duration::from_secs(5));
    assert_eq!(second.plan.steps[0].compensations[0].retry.attempts, None);
    for part in [
        "Without http:// the original never matched",
        "is gone: extra.",
        "Tried until it is undone",
    ] {
        assert!(second.text.contains(part), "{part}: {}", second.text);
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let good = "host: a\nmatchRequest: {method: GET, url: http://a/}\nonMatchedRequest:\n- {method: GET, url: http://b/, timeout: 1, isSuccessIfReceives: [{status-code: 200}], onFailure: []}\n";
    assert!(read(good).is_ok());
    for (from, to, code, place) in [
        ("host: a", "host: [a", Code::NotYaml, None),
        ("host: a\n", "", Code::NotOriginal, None),
        (
            "method: GET, url: http://a/",
            "method: OPTIONS, url: http://a/",
            Code::NotOriginal,
            Some((2, 24)),
        ),
        ("timeout: 1", "timeout: \"1\"", Code::NotOriginal, Some((4, 42))),
        ("timeout: 1", "timeout: -1", Code::NotOriginal, Some((4, 42))),
        (
            "status-code: 200",
            "status-code: 100",
            Code::Unsayable,
            Some((4, 81)),
        ),
        ("[{status-code: 200}]", "[]", Code::Unsayable, None),
        (
            "http://b/",
            "\"http://${root.headers.H}/\"",
            Code::Unsayable,
            Some((4, 22)),
        ),
        (
            "url: http://a/",
            "url: https://a/",
            Code::Unsayable,
            Some((2, 34)),
        ),
        ("http://b/", "http://b/a b", Code::Unsayable, None),
        ("onFailure: []", "onFailure: {}", Code::NotOriginal, None),
        ("host: a", "host: &a [*a]", Code::NotYaml, None),
    ] {
        let text = good.replacen(from, to, 1);
        let found = read(&text).unwrap_err();
        assert_eq!(found[0].0, code, "{text} {found:?}");
        if let Some(place) = place {
            assert_eq!(found[0].1, place, "{text} {found:?}");
        }
    }
    assert_eq!(read("").unwrap_err()[0].0, Code::NotOriginal);
}

/// Nine aliases of nine aliases of nine … : refused before it is there.
#[test]
fn aliases_of_aliases_are_bounded() {
    let mut text = "a0: &a0 [x, x]\n".to_owned();
    for n in 1..30 {
        let above = format!("*a{}, ", n - 1).repeat(9);
        let _ = writeln!(text, "a{n}: &a{n} [{above}x]");
    }
    assert_eq!(read(&text).unwrap_err()[0].0, Code::NotYaml);
    assert_eq!(read(&"- x\n".repeat(100_001)).unwrap_err()[0].0, Code::TooLarge);
    assert_eq!(read(&"[".repeat(100_000)).unwrap_err()[0].0, Code::NotYaml);
}

/// YAML's double-quoted text.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn text(parts: &'static [&'static str]) -> impl Strategy<Value = String> {
    let literal = "[ -~]{0,8}".prop_map(|text| text.replace('$', "S"));
    let part = prop_oneof![
        literal,
        prop::sample::select(parts.to_vec()).prop_map(str::to_owned)
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

const REQUEST: &[&str] = &[
    "${parent.headers.A}",
    "${root.body:x}",
    "${ROOT.headers.b-C:}",
    "${transaction[0].response.body}",
    "${nothing}",
];
const UNDO: &[&str] = &[
    "${parent.headers.A}",
    "${parent.response.body:x}",
    "${parent.response.headers.Y}",
    "${root.body}",
];
const ANSWER: &[&str] = &["${parent.headers.A}", "${root.headers.B:1}", "${parent.body}"];
const REPLY: &[&str] = &[
    "${transaction[0].response.body}",
    "${transaction[9].response.headers.X:none}",
    "${root.headers.B}",
    "${parent.body}",
];

fn pairs(key: &'static str, value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::option::of(value)
        .prop_map(move |value| value.map_or_else(String::new, |value| format!("{key}: {}, ", quoted(&value))))
}

fn message(parts: &'static [&'static str], path: &'static [&'static str]) -> impl Strategy<Value = String> {
    let method = prop::sample::select(vec!["GET", "HEAD", "PUT", "PATCH", "DELETE", "POST"]);
    let host = prop::sample::select(vec!["http://stock.svc:9080", "http://mail", "ship.default.svc"]);
    let path = prop::collection::vec(prop_oneof![Just("x"), prop::sample::select(path.to_vec())], 0..3);
    let header = text(parts).prop_map(|value| format!("headers: {{A: {}}}, ", quoted(&value)));
    (
        method,
        host,
        path,
        prop::option::of(header),
        pairs("body", text(parts)),
    )
        .prop_map(|(method, host, path, header, body)| {
            let path: String = path.iter().map(|part| format!("/{part}")).collect();
            format!(
                "method: {method}, url: {}, {}{body}",
                quoted(&format!("{host}{path}")),
                header.unwrap_or_default()
            )
        })
}

fn answers(parts: &'static [&'static str]) -> impl Strategy<Value = String> {
    let one = (200..600_u16, pairs("body", text(parts)))
        .prop_map(|(status, body)| format!("{{{body}status-code: {status}}}"));
    prop::collection::vec(one, 1..3).prop_map(|all| format!("isSuccessIfReceives: [{}], ", all.join(", ")))
}

fn times() -> impl Strategy<Value = String> {
    (0..100_u32, prop::option::of(0..5_u32)).prop_map(|(timeout, tries)| {
        let tries = tries.map_or_else(String::new, |tries| format!("maxRetriesOnTimeout: {tries}, "));
        format!("timeout: {timeout}, {tries}")
    })
}

/// What the original's schema let pass, and what its coordinator could send.
fn configuration() -> impl Strategy<Value = String> {
    let undo = (
        message(UNDO, &["${root.headers.A:1}"]),
        answers(&["${root.headers.B:1}"]),
        times(),
    )
        .prop_map(|(message, answers, times)| format!("{{{message}{answers}{times}}}"));
    let transaction = (
        message(REQUEST, &["${parent.headers.A:1}"]),
        answers(ANSWER),
        times(),
        prop::collection::vec(undo, 0..3),
    )
        .prop_map(|(message, answers, times, undo)| {
            format!("{{{message}{answers}{times}onFailure: [{}]}}", undo.join(", "))
        });
    let reply = |key: &'static str| {
        let one = (200..600_u16, pairs("body", text(REPLY)));
        prop::option::of(one).prop_map(move |one| {
            one.map_or_else(String::new, |(status, body)| {
                format!("{key}: {{{body}status-code: {status}}}\n")
            })
        })
    };
    let trigger = (
        prop::sample::select(vec!["GET", "POST"]),
        prop::sample::select(vec![
            "http://localhost:3001/add/",
            "http://shop.svc/buy?a=1&b=x%20y",
            "qbox.me.svc",
        ]),
        pairs("body", "[a-z]{0,5}"),
    );
    (trigger, prop::collection::vec(transaction, 1..5), reply("onAllSucceeded"), reply("onAnyFailed")).prop_map(
        |((method, url, body), transactions, done, failed)| {
            format!(
                "host: me.svc\nmatchRequest: {{method: {method}, {body}url: {}}}\nonMatchedRequest: [{}]\n{done}{failed}",
                quoted(url),
                transactions.join(",\n  ")
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Fit to run, and clean when it is rehearsed: every request can be filled in, and the saga commits.
    #[test]
    fn what_the_original_took_is_imported_checked_and_rehearsed(first in configuration(), second in configuration()) {
        let text = format!("{first}---\n{second}");
        let found = read(&text).map_err(|found| TestCaseError::fail(format!("{found:?}\n{text}")))?;
        prop_assert_eq!(found.len(), 2);
        for saga in found {
            let (plan, _) = load_saga(&saga.text, "a.toml").map_err(|found| TestCaseError::fail(format!("{found:?}\n{}", saga.text)))?;
            prop_assert_eq!(&plan, &saga.plan);
            let prospect = Prospect::new(Arc::new(plan), None, &[], None);
            prop_assert!(prospect.is_clean(), "{}\n{}", saga.text, prospect.text());
        }
    }

    /// No text stops it but with findings.
    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\n{}\\[\\]:&*!|>-]{0,200}") {
        let _ = read(&text);
    }
}

/// docs/cookbook/migration.md shows both.
#[test]
fn the_cookbooks_configuration_becomes_the_cookbooks_saga() {
    let found = read(include_str!("../../../config/examples/original.yaml")).unwrap();
    assert_eq!(found[0].text, include_str!("../../../config/examples/desk.toml"));
}
