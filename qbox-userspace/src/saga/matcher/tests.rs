//! Which requests are a trigger, what is kept of them, and which responses match.

use super::*;
use crate::saga::fixture::{Fixture, get, pattern, response, template};
use crate::saga::plan::StatusSet;
use proptest::prelude::*;
use serde_json::json;

type Fields<'a> = &'a [(&'a str, &'a [u8])];

const HOST: (&str, &[u8]) = ("Host", b"trips:8080");

fn matches(pattern: &TriggerPattern, method: &str, target: &str, fields: Fields<'_>) -> bool {
    RequestHead::new(method, target, fields.iter().copied()).is_some_and(|head| match_head(pattern, &head))
}

fn place(target: &str, fields: Fields<'_>) -> Option<(String, u16)> {
    let head = RequestHead::new("GET", target, fields.iter().copied())?;
    Some((head.host().to_owned(), head.port()))
}

#[test]
fn the_method_compares_with_case_and_the_host_without() {
    assert!(matches(&pattern(), "POST", "/trips/7", &[HOST]));
    assert!(matches(
        &pattern(),
        "POST",
        "/trips/7",
        &[("hOST", b"TRIPS:8080")]
    ));
    assert!(!matches(&pattern(), "post", "/trips/7", &[HOST]));
    assert!(!matches(&pattern(), "PUT", "/trips/7", &[HOST]));
    assert!(!matches(
        &pattern(),
        "POST",
        "/trips/7",
        &[("Host", b"trips:8081")]
    ));
    assert!(!matches(
        &pattern(),
        "POST",
        "/trips/7",
        &[("Host", b"trips.evil:8080")]
    ));
    let any = TriggerPattern {
        method: None,
        ..pattern()
    };
    assert!(matches(&any, "BREW", "/trips/7", &[HOST]));
}

#[test]
fn the_host_and_its_port() {
    let host = |host: &'static str| place("/", &[("Host", host.as_bytes())]);
    assert_eq!(host("trips"), Some(("trips".to_owned(), 80)));
    assert_eq!(host("trips:"), Some(("trips".to_owned(), 80)));
    assert_eq!(host(" trips:81 "), Some(("trips".to_owned(), 81)));
    assert_eq!(host("[::1]:82"), Some(("::1".to_owned(), 82)));
    for bad in [
        "",
        ":80",
        "trips:+80",
        "trips:65536",
        "trips:8a",
        "a:b:80",
        "[::1",
        "[::1]x",
        "u@trips",
        "]",
        "a/b",
        "a?b",
        "a#b",
        "a b",
        "[a/b]",
        "[[::1]",
        "\u{fc}",
    ] {
        assert_eq!(host(bad), None, "{bad}");
    }
    let ipv6 = TriggerPattern {
        host: "[::1]".to_owned(),
        ..pattern()
    };
    assert!(matches(&ipv6, "POST", "/trips/7", &[("Host", b"[::1]:8080")]));
}

#[test]
fn a_target_with_a_host_goes_before_the_field() {
    let other: (&str, &[u8]) = ("Host", b"other");
    assert_eq!(
        place("http://trips:8080/a", &[other]),
        Some(("trips".to_owned(), 8080))
    );
    assert_eq!(place("HTTP://trips?a", &[]), Some(("trips".to_owned(), 80)));
    assert!(matches(
        &pattern(),
        "POST",
        "http://trips:8080/trips/7?a=b",
        &[other]
    ));
    assert!(!matches(&pattern(), "POST", "http://other:8080/trips/7", &[HOST]));
}

#[test]
fn without_one_host_nothing_matches() {
    assert_eq!(place("/", &[]), None);
    assert_eq!(place("/", &[HOST, HOST]), None);
    assert_eq!(place("*", &[HOST]), None);
    assert_eq!(place("trips:8080", &[HOST]), None);
    assert_eq!(place("https://trips/", &[HOST]), None);
    assert_eq!(place("/", &[("Host", b"\xff")]), None);
}

#[test]
fn paths_compare_segment_by_segment_once_decoded() {
    for target in [
        "/trips/7",
        "/tr%69ps/7",
        "/trips/7?x=/a/b",
        "/trips/a%2Fb",
        "/trips/...",
    ] {
        assert!(matches(&pattern(), "POST", target, &[HOST]), "{target}");
    }
    for target in [
        "/trips",
        "/trips/",
        "/trips/7/",
        "/trips//7",
        "//trips/7",
        "/Trips/7",
        "/trips%2F7",
        "/x/trips/7",
        "/trips/.",
        "/trips/..",
        "/trips/%2e%2E",
        "/trips/%ff",
        "/",
    ] {
        assert!(!matches(&pattern(), "POST", target, &[HOST]), "{target}");
    }
    let root = TriggerPattern {
        path: vec![Segment::Literal(String::new())],
        ..pattern()
    };
    assert!(matches(&root, "POST", "/", &[HOST]));
    assert!(matches(&root, "POST", "http://trips:8080", &[]));
    assert!(!matches(&root, "POST", "//", &[HOST]));
}

#[test]
fn query_and_fields_must_be_there() {
    let pattern = TriggerPattern {
        query: vec![("na me".to_owned(), "J\u{fc}".to_owned())],
        headers: vec![("x-tenant".to_owned(), "acme".to_owned())],
        ..pattern()
    };
    let tenant: (&str, &[u8]) = ("X-Tenant", b" acme ");
    let asked = |target: &str, fields: Fields<'_>| matches(&pattern, "POST", target, fields);
    assert!(asked("/trips/7?a=1&na+me=x&na%20me=J%C3%BC", &[HOST, tenant]));
    assert!(asked(
        "/trips/7?na+me=J%c3%bc",
        &[("X-Tenant", b"other"), HOST, tenant]
    ));
    assert!(!asked("/trips/7", &[HOST, tenant]));
    assert!(!asked("/trips/7?na+me=J", &[HOST, tenant]));
    assert!(!asked("/trips/7?na+me=J%C3%BC", &[HOST]));
    assert!(!asked("/trips/7?na+me=J%C3%BC", &[HOST, ("X-Tenant", b"ACME")]));
}

#[test]
fn bodies() {
    let exact = TriggerPattern {
        body: Some("a b".to_owned()),
        ..pattern()
    };
    assert!(match_body(&exact, b"a b"));
    assert!(!match_body(&exact, b"a b "));
    assert!(match_body(&pattern(), b"\xff"));
    let json = TriggerPattern {
        json: vec![
            (FieldPath::parse("kind").unwrap(), json!("book")),
            (
                FieldPath::parse("seats.0").unwrap(),
                json!({ "row": 3.0, "window": null }),
            ),
        ],
        ..pattern()
    };
    assert!(match_body(
        &json,
        br#"{"kind":"book","seats":[{"window":null,"row":3}],"more":1}"#
    ));
    for body in [
        "",
        "no JSON",
        r#"{"kind":"book"}"#,
        r#"{"kind":"Book","seats":[{"window":null,"row":3}]}"#,
        r#"{"kind":"book","seats":[{"row":3}]}"#,
        r#"{"kind":"book","seats":[{"window":null,"row":"3"}]}"#,
    ] {
        assert!(!match_body(&json, body.as_bytes()), "{body}");
    }
    // Nested too deep to be read: no match, and no harm.
    assert!(!match_body(&json, "[".repeat(1_000_000).as_bytes()));
}

#[test]
fn numbers_compare_by_value() {
    let equal = |a: &str, b: &str| {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        same(&read(a), &read(b))
    };
    assert!(equal("1", "1.0"));
    assert!(equal("100", "1e2"));
    assert!(equal("-0.5", "-5e-1"));
    assert!(!equal("1", "true"));
    assert!(!equal("9007199254740993", "9007199254740992"));
    assert!(!equal("18446744073709551615", "18446744073709551614"));
}

#[test]
fn what_is_kept_of_a_trigger() {
    let fields: Fields<'_> = &[
        HOST,
        ("X-Tenant", b" acme\t"),
        ("Connection", b"close, X-Own"),
        ("x-own", b"1"),
        ("Transfer-Encoding", b"chunked"),
        ("Expect", b"100-continue"),
        ("X-Qbox-Depth", b"2"),
    ];
    let head = RequestHead::new("POST", "/trips/a%2Fb%20c?d=%41", fields.iter().copied()).unwrap();
    assert!(match_head(&pattern(), &head));
    let kept = trigger(&pattern(), &head, Bytes::from_static(b"body"), None);
    assert_eq!(kept.path, [("trip".to_owned(), "a/b c".to_owned())]);
    assert_eq!(kept.request.url, "http://trips:8080/trips/a%2Fb%20c?d=%41");
    let names: Vec<_> = kept
        .request
        .headers
        .0
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["X-Tenant", "X-Qbox-Depth"]);
    assert_eq!(kept.request.headers.get("x-tenant").unwrap(), "acme");
    assert_eq!((kept.depth, &kept.request.body[..]), (2, &b"body"[..]));
}

#[test]
fn depths() {
    for (value, wanted) in [
        ("0", 0),
        (" 7 ", 7),
        ("255", 255),
        ("256", 255),
        ("-1", 0),
        ("+1", 0),
        ("", 0),
        ("x", 0),
    ] {
        let fields = [HOST, ("x-qbox-depth", value.as_bytes())];
        let head = RequestHead::new("POST", "/trips/7", fields.into_iter()).unwrap();
        assert_eq!(
            trigger(&pattern(), &head, Bytes::new(), None).depth,
            wanted,
            "{value:?}"
        );
    }
}

fn anything() -> ResponseMatch {
    ResponseMatch {
        status: None,
        headers: Vec::new(),
        body: None,
        json: Vec::new(),
    }
}

#[test]
fn responses() {
    let fixture = Fixture::new(r#"{"guest":"Ana","n":2}"#, b"{}");
    let answer = response(
        201,
        &[("X-A", b"1"), ("x-a", b" acme ")],
        br#"{"guest":"Ana","n":2.0,"list":[1]}"#,
    );
    let says = |one: ResponseMatch| response_matches(&[one], &answer, &fixture.values());
    let status = |low, high, except: &[u16]| ResponseMatch {
        status: Some(StatusSet {
            ranges: vec![(low, high)],
            except: except.to_vec(),
        }),
        ..anything()
    };
    assert!(says(anything()));
    assert!(says(status(200, 299, &[])));
    assert!(!says(status(200, 299, &[201])));
    let header = |name: &str, value: &str| ResponseMatch {
        headers: vec![(name.to_owned(), template(value))],
        ..anything()
    };
    assert!(says(header("X-a", "${trigger.headers.x-tenant}")));
    assert!(says(header("X-a", "1")));
    assert!(!says(header("X-a", "2")));
    assert!(!says(header("X-B", "")));
    assert!(!says(header("X-a", "${trigger.json.none}")));
    let body = |text: &str| ResponseMatch {
        body: Some(template(text)),
        ..anything()
    };
    assert!(says(body(
        r#"{"guest":"${trigger.json.guest}","n":2.0,"list":[1]}"#
    )));
    assert!(!says(body("${trigger.body}")));
    let json = |field: &str, wanted: JsonTemplate| ResponseMatch {
        json: vec![(FieldPath::parse(field).unwrap(), wanted)],
        ..anything()
    };
    let text = |text: &str| JsonTemplate::Text(template(text));
    assert!(says(json("guest", text("${trigger.json.guest}"))));
    assert!(says(json("n", text("${trigger.json.n}"))));
    assert!(!says(json("n", text("2"))));
    assert!(says(json(
        "list",
        JsonTemplate::Array(vec![JsonTemplate::Value(json!(1.0))])
    )));
    assert!(!says(json("none", JsonTemplate::Value(Value::Null))));
    // All of one, or any of several.
    let both = ResponseMatch {
        headers: header("x-a", "2").headers,
        ..status(200, 299, &[])
    };
    assert!(!says(both.clone()));
    assert!(response_matches(
        &[both, status(201, 201, &[])],
        &answer,
        &fixture.values()
    ));
    assert!(!response_matches(&[], &answer, &fixture.values()));
}

#[test]
fn a_body_that_was_cut_off_matches_nothing() {
    let fixture = Fixture::new("", b"{}");
    let mut answer = response(200, &[], b"ok");
    let body = [ResponseMatch {
        body: Some(template("ok")),
        ..anything()
    }];
    assert!(response_matches(&body, &answer, &fixture.values()));
    answer.truncated = true;
    assert!(!response_matches(&body, &answer, &fixture.values()));
    assert!(response_matches(&[anything()], &answer, &fixture.values()));
}

proptest! {
    /// What one Qbox fills into a path, another one captures again.
    #[test]
    fn filled_then_captured_is_the_same(value in any::<String>()) {
        let fixture = Fixture::with_value(&value);
        if let Ok(request) = fill::request(&get("/trips/${trigger.path.trip}?v=${trigger.path.trip}"), &fixture.values()) {
            let target = request.url.strip_prefix("http://hotel:8080").unwrap();
            let fields = [HOST];
            let head = RequestHead::new("POST", target, fields.into_iter()).unwrap();
            let asks = TriggerPattern { query: vec![("v".to_owned(), value.clone())], ..pattern() };
            prop_assert!(match_head(&asks, &head));
            let kept = trigger(&asks, &head, Bytes::new(), None);
            prop_assert_eq!(&kept.path[0].1, &value);
        }
    }

    /// No head makes it panic, and the URL that is kept of a match names the same place.
    #[test]
    fn any_head_at_all(target in "[/%?#@:.a-z0-9\\[\\]]{0,24}|\\PC{0,12}|http://\\PC{0,12}", host in "\\PC{0,12}|[a-z:0-9\\[\\]]{0,9}") {
        let fields = [("host", host.as_bytes())];
        if let Some(head) = RequestHead::new("POST", &target, fields.into_iter()) {
            let pattern = TriggerPattern {
                host: head.host().to_owned(), port: head.port(),
                path: vec![Segment::Capture("trip".to_owned())], ..pattern()
            };
            if match_head(&pattern, &head) {
                let kept = trigger(&pattern, &head, Bytes::new(), None);
                prop_assert_eq!(&kept.request.url, &head.url());
                prop_assert_eq!(kept.path.len(), 1);
                let url = kept.request.url.clone();
                let again = RequestHead::new("POST", &url, [].into_iter()).unwrap();
                prop_assert!(match_head(&pattern, &again));
            }
        }
    }
}
