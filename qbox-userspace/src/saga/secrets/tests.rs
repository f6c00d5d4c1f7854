//! What is hidden, what is not, and what can't be told.

use super::*;
use crate::saga::event::{Class, Direction};
use crate::saga::expr::FieldPath;
use crate::saga::fixture::{Fixture, headers, response};
use crate::saga::id::{PlanHash, SagaId, StepId, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

fn secrets() -> Secrets {
    Secrets::new(["X-Session"], ["password", "card.number"], ["token"])
}

fn shown(fields: &[(&str, &[u8])], body: &str) -> String {
    let mut response = response(200, fields, body.as_bytes());
    secrets().response(&mut response);
    String::from_utf8(response.body.to_vec()).unwrap()
}

#[test]
fn header_fields_go_by_name_without_case() {
    let mut shown = response(
        200,
        &[
            ("Set-Cookie", b"a=1"),
            ("set-cookie", b"b=2"),
            ("X-SESSION", b"s"),
            ("X-Other", b"o"),
        ],
        b"",
    );
    secrets().response(&mut shown);
    let mark = MARK.as_bytes();
    let expected = headers(&[
        ("Set-Cookie", mark),
        ("set-cookie", mark),
        ("X-SESSION", mark),
        ("X-Other", b"o"),
    ]);
    assert_eq!(shown.headers, expected);
}

#[test]
fn fields_are_found_at_any_depth_and_through_arrays() {
    let body = json!({
        "Password": "p", "guest": { "password": { "old": "p" } },
        "cards": [{ "card": { "number": 1234, "name": "n" } }, { "number": 5 }],
        "card": [{ "number": 7 }], "note": "password", "empty": { "password": null },
    });
    let shown: Value = serde_json::from_str(&shown(&[], &body.to_string())).unwrap();
    let expected = json!({
        "Password": MARK, "guest": { "password": MARK },
        "cards": [{ "card": { "number": MARK, "name": "n" } }, { "number": 5 }],
        "card": [{ "number": MARK }], "note": "password", "empty": { "password": null },
    });
    assert_eq!(shown, expected);
}

#[test]
fn a_body_without_secrets_is_shown_as_it_came() {
    for body in [
        "",
        "no car left",
        "{ \"room\" : 1e2 }",
        "{\"x\":\"password\"} ",
        "{\"broken\":",
    ] {
        assert_eq!(shown(&[], body), body);
    }
}

#[test]
fn a_form_is_looked_into() {
    let form = (
        "Content-Type",
        &b"application/x-www-form-urlencoded; charset=utf-8"[..],
    );
    assert_eq!(
        shown(&[form], "name=a&p%61ssword=b+c&token=1&x&%ff=2"),
        "name=a&p%61ssword=[redacted]&token=[redacted]&x&%ff=[redacted]"
    );
    // curl's `-d` says so of any body, and expressions read it as JSON all the same.
    for (document, seen) in [
        (" {\"password\": 1}", "{\"password\":\"[redacted]\"}"),
        ("[{\"password\": 1}]", "[{\"password\":\"[redacted]\"}]"),
        (
            "{\"passwor\": \"p%61ssword=x\"}",
            "{\"passwor\": \"p%61ssword=x\"}",
        ),
        ("{\"password\": 1", "[redacted]: 14 bytes"),
        ("[a]=1&p%61ssword=b", "[a]=1&p%61ssword=[redacted]"),
    ] {
        assert_eq!(shown(&[form], document), seen);
    }
}

#[test]
fn what_cannot_be_looked_into_is_not_shown() {
    assert_eq!(shown(&[], "{\"password\":\"cut of"), "[redacted]: 19 bytes");
    assert_eq!(shown(&[], "<password>x</password>"), "[redacted]: 22 bytes");
    assert_eq!(shown(&[], "{\"p\\u0061ssword\":"), "[redacted]: 17 bytes");
    assert_eq!(
        shown(&[("content-encoding", b"gzip")], "abc"),
        "[redacted]: 3 bytes"
    );
    let again = "[redacted]: 3 bytes";
    assert_eq!(shown(&[("content-encoding", b"gzip")], again), again);
    let mut binary = response(200, &[], b"\xff\x00");
    secrets().response(&mut binary);
    assert_eq!(binary.body, "[redacted]: 2 bytes");
    // An escaped name of a readable document is read.
    assert_eq!(
        shown(&[], "{\"p\\u0061ssword\":1}"),
        "{\"password\":\"[redacted]\"}"
    );
}

#[test]
fn without_names_of_fields_no_body_is_touched() {
    let mut any = response(200, &[], b"\xff{\"password\":1}");
    let before = any.clone();
    Secrets::new([], [], ["token"]).response(&mut any);
    assert_eq!(any, before);
}

#[test]
fn urls_lose_users_and_secret_parameters() {
    let shown = |url| secrets().url(url).into_owned();
    assert_eq!(shown("http://trips/a@b/7?dry=0"), "http://trips/a@b/7?dry=0");
    assert_eq!(
        shown("http://me:pw@trips:8080/7?a=1&Token=x&to%6ben=y&token"),
        "http://[redacted]@trips:8080/7?a=1&Token=[redacted]&to%6ben=[redacted]&token"
    );
    assert_eq!(shown("http://me@trips"), "http://[redacted]@trips");
}

/// JSON with secrets in it, each of which holds the mark of the test.
fn any_document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!("plain")),
        Just(json!(1.5)),
        Just(json!({ "password": "hunter2" })),
        Just(json!({ "card": { "number": ["hunter2", { "x": "hunter2" }], "name": "n" } })),
        Just(json!({ "number": 5, "Password": { "a": "hunter2" } })),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::hash_map("[a-c]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let field = prop::sample::select(vec![
        ("Authorization", "hunter2"),
        ("x-session", "s=hunter2"),
        ("Cookie", "a=hunter2"),
        ("X-Other", "plain"),
    ]);
    let body = prop_oneof![
        any_document().prop_map(|document| document.to_string()),
        any_document().prop_map(|document| format!("{document} password")),
        Just(String::new()),
        Just("text".to_owned()),
    ];
    let query = prop::sample::select(vec!["", "?a=1", "?token=hunter2&a=1"]);
    (prop::collection::vec(field, 0..5), body, query, any::<bool>()).prop_map(
        |(fields, body, query, of_trigger)| {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| (*name, value.as_bytes()))
                .collect();
            let answer = response(200, &fields, body.as_bytes());
            if !of_trigger {
                return Event::Ended {
                    step: StepId(0),
                    direction: Direction::Transaction,
                    attempt: 1,
                    end: AttemptEnd::Answered(answer),
                    class: Class::Applied,
                    at: Timestamp(1),
                    hidden: None,
                };
            }
            let mut trigger = Fixture::new("", b"").trigger;
            trigger.request.url = format!("http://trips/7{query}");
            trigger.request.headers = answer.headers;
            trigger.request.body = answer.body;
            Event::Began {
                schema: 1,
                saga: SagaId(7),
                plan: PlanHash([0; 32]),
                name: "x".to_owned(),
                seed: 0,
                trigger,
                at: Timestamp(1),
                hidden: None,
            }
        },
    )
}

fn any_parts() -> impl Strategy<Value = needs::Parts> {
    let field = prop::sample::select(vec!["a.password", "b", "a.0.card.number", "c.x"]);
    let header = prop::sample::select(vec!["authorization", "X-Session", "x-other"]);
    let flags = [any::<bool>(), any::<bool>(), any::<bool>()];
    (
        flags,
        prop::collection::vec(field, 0..3),
        prop::collection::vec(header, 0..3),
    )
        .prop_map(|([whole, url, body], fields, headers)| needs::Parts {
            whole,
            url,
            body,
            headers: headers.into_iter().map(str::to_owned).collect(),
            query: Vec::new(),
            fields: fields
                .into_iter()
                .map(|path| FieldPath::parse(path).unwrap())
                .collect(),
        })
}

proptest! {
    /// Whatever a plan needs: nothing secret is recorded in the clear, what is needed comes back, and people see the same
    /// of both.
    #[test]
    fn what_is_recorded_holds_no_secret_and_gives_back_what_is_needed(event in any_event(), parts in any_parts()) {
        let secrets = secrets();
        let needs = Needs { trigger: parts.clone(), answers: vec![parts.clone()], requests: Vec::new() };
        let clear = serde_json::to_string(&event).unwrap();
        let Some(Apart { event: recorded, needed }) = secrets.apart(&needs, &event) else {
            prop_assert!(!clear.contains("hunter2"), "{clear}");
            return Ok(());
        };
        let text = serde_json::to_string(&recorded).unwrap();
        prop_assert!(!text.contains("hunter2"), "{text}");
        prop_assert_eq!(&serde_json::from_str::<Event>(&text).unwrap(), &recorded);
        let mut again = recorded;
        if let Some(needed) = &needed {
            whole(&mut again, needed).unwrap();
        }
        let (before, after) = (message_of(&event), message_of(&again));
        if parts.whole {
            prop_assert_eq!(&again, &event);
        }
        if parts.body {
            prop_assert_eq!(&after.2, &before.2);
        }
        if parts.url {
            prop_assert_eq!(&after.0, &before.0);
        }
        for name in &parts.headers {
            prop_assert_eq!(after.1.get(name), before.1.get(name));
        }
        let read = |body: &Bytes, path: &FieldPath| {
            path.find(&serde_json::from_slice(body).unwrap_or_default()).cloned()
        };
        for path in &parts.fields {
            prop_assert_eq!(read(&after.2, path), read(&before.2, path));
        }
        let shown = |event| message_of(&secrets.event(event));
        prop_assert_eq!(shown(&again), shown(&event));
    }
}

/// URL, fields and body.
fn message_of(event: &Event) -> (String, Headers, Bytes) {
    match event.clone() {
        Event::Began { trigger, .. } => {
            let request = trigger.request;
            (request.url, request.headers, request.body)
        }
        Event::Ended {
            end: AttemptEnd::Answered(response),
            ..
        } => (String::new(), response.headers, response.body),
        other => panic!("{other:?}"),
    }
}
