//! What each expression is worth, and what follows where it is worth nothing.

use super::*;
use crate::saga::fixture::{Fixture, get, template};
use crate::saga::plan::Test;
use proptest::prelude::*;
use serde_json::json;

fn text(fixture: &Fixture, text: &str) -> Result<String, Missing> {
    Lookup::strict(&fixture.values()).template(&template(text))
}

fn url(fixture: &Fixture, target: &str) -> Result<String, Missing> {
    request(&get(target), &fixture.values()).map(|request| request.url)
}

fn with_body(body: BodyTemplate) -> RequestTemplate {
    RequestTemplate { body, ..get("/") }
}

fn json_text(text: &str) -> JsonTemplate {
    JsonTemplate::Text(template(text))
}

#[test]
fn every_source_and_part() {
    let fixture = Fixture::new(
        r#"{"guest":"Ana","seats":[{"row":3}],"a/b":true,"none":null,"n":1.50}"#,
        br#"{"room":{"no":12,"name":"Sea"}}"#,
    );
    for (expr, wanted) in [
        ("${trigger.method}", "POST"),
        ("${root.path.trip}", "7"),
        ("${trigger.query.dry}", "0"),
        ("${trigger.query.name}", "J\u{fc}rgen K"),
        ("${trigger.headers.x-tenant}", "acme"),
        ("${trigger.json.guest}", "Ana"),
        ("${trigger.json.seats.0.row}", "3"),
        ("${trigger.json.seats}", r#"[{"row":3}]"#),
        ("${trigger.json./a~1b}", "true"),
        ("${trigger.json.none}", "null"),
        ("${steps.hotel.request.headers.X-SENT}", "yes"),
        ("${steps.hotel.request.json.nights}", "2"),
        ("${steps.hotel.request.body}", r#"{"nights":2}"#),
        ("${steps.hotel.response.status}", "201"),
        ("${transaction[0].response.headers.x-room}", "12"),
        ("${steps.hotel.response.json.room}", r#"{"no":12,"name":"Sea"}"#),
        ("${saga.id}", "00000000-0000-0000-0000-000000000007"),
        (
            "${saga.name}/${saga.failed_step}/${saga.outcome}",
            "book-trip/flight/compensated",
        ),
        (
            "a ${trigger.path.trip} $${b} ${trigger.json.no:none: at all}",
            "a 7 ${b} none: at all",
        ),
    ] {
        assert_eq!(text(&fixture, expr).as_deref(), Ok(wanted), "{expr}");
    }
}

#[test]
fn a_missing_value_is_named() {
    let fixture = Fixture::new("no JSON", b"{}");
    for expr in [
        "${trigger.json.guest}",
        "${trigger.path.other}",
        "${trigger.query.other}",
        "${trigger.query.bad}",
        "${trigger.headers.other}",
        "${trigger.headers.x-latin}",
        "${steps.hotel.response.json.room}",
        "${steps.flight.request.body}",
        "${steps.flight.response.status}",
    ] {
        assert_eq!(
            text(&fixture, &format!("a{expr}")),
            Err(Missing::NoValue(expr.to_owned()))
        );
        let default = format!("{}:d}}", expr.trim_end_matches('}'));
        assert_eq!(text(&fixture, &default).as_deref(), Ok("d"), "{default}");
    }
}

#[test]
fn what_was_cut_off_has_no_value() {
    let mut fixture = Fixture::new("", br#"{"room":1}"#);
    let mut answer = fixture.exchanges[0].response.as_deref().unwrap().clone();
    answer.truncated = true;
    fixture.exchanges[0].response = Some(std::sync::Arc::new(answer));
    assert!(text(&fixture, "${steps.hotel.response.body}").is_err());
    assert!(text(&fixture, "${steps.hotel.response.json.room}").is_err());
    assert_eq!(text(&fixture, "${steps.hotel.response.status}").unwrap(), "201");
}

#[test]
fn bytes_that_are_no_text_stay_as_they_are_in_bodies_and_fields() {
    let fixture = Fixture::new(&b"\xff\x00\xfe"[..], b"");
    let whole = with_body(BodyTemplate::Text(template("${trigger.body}")));
    assert_eq!(
        &request(&whole, &fixture.values()).unwrap().body[..],
        b"\xff\x00\xfe"
    );
    let mut partly = with_body(BodyTemplate::Text(template("<${trigger.body}>")));
    partly.headers = vec![("X-Name".to_owned(), template("${trigger.headers.x-latin}"))];
    let filled = request(&partly, &fixture.values()).unwrap();
    assert_eq!(&filled.body[..], b"<\xff\x00\xfe>");
    assert_eq!(&filled.headers.get("x-name").unwrap()[..], b"caf\xe9");
    // JSON can't hold them.
    let json = with_body(BodyTemplate::Json(json_text("${trigger.body}")));
    assert_eq!(
        request(&json, &fixture.values()),
        Err(Missing::NoValue("${trigger.body}".to_owned()))
    );
}

#[test]
fn json_keeps_a_whole_expressions_type_and_quotes_the_rest() {
    let fixture = Fixture::new(
        r#"{"n":2,"price":0.1,"big":18446744073709551615,"odd":51.24817837550540,"ok":true,"nil":null,"list":[1,"a"],"s":"a\"b"}"#,
        b"{}",
    );
    let object = [
        ("n", "${trigger.json.n}"),
        ("price", "${trigger.json.price}"),
        ("big", "${trigger.json.big}"),
        ("odd", "${trigger.json.odd}"),
        ("ok", "${trigger.json.ok}"),
        ("nil", "${trigger.json.nil}"),
        ("list", "${trigger.json.list}"),
        ("s", "${trigger.json.s}"),
        ("status", "${steps.hotel.response.status}"),
        ("header", "${steps.hotel.response.headers.x-room}"),
        ("partly", "n is ${trigger.json.n}, s is ${trigger.json.s}"),
        ("default", "${trigger.json.none:1}"),
        ("${saga.id}", "keys are literal"),
    ];
    let object = object.map(|(key, value)| (key.to_owned(), json_text(value)));
    let template = with_body(BodyTemplate::Json(JsonTemplate::Object(object.into())));
    let filled = request(&template, &fixture.values()).unwrap();
    let wanted = r#"{"n":2,"price":0.1,"big":18446744073709551615,"odd":51.2481783755054,"ok":true,"nil":null,"list":[1,"a"],"s":"a\"b","status":201,"header":"12","partly":"n is 2, s is a\"b","default":"1","${saga.id}":"keys are literal"}"#;
    assert_eq!(std::str::from_utf8(&filled.body).unwrap(), wanted);
    assert_eq!(filled.headers.get("content-type").unwrap(), "application/json");
}

#[test]
fn the_files_own_content_type_goes_before_jsons() {
    let fixture = Fixture::new("", b"");
    let mut template = with_body(BodyTemplate::Json(JsonTemplate::Value(json!([1]))));
    template.headers = vec![(
        "content-TYPE".to_owned(),
        Template::literal("application/vnd.x+json"),
    )];
    let filled = request(&template, &fixture.values()).unwrap();
    assert_eq!(filled.headers.0.len(), 1);
    assert_eq!(
        filled.headers.get("Content-Type").unwrap(),
        "application/vnd.x+json"
    );
}

#[test]
fn a_field_has_no_line_break_and_no_space_at_its_ends() {
    for bad in ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "a\x7fb", "\r\n"] {
        let fixture = Fixture::with_value(bad);
        let mut template = get("/");
        template.headers = vec![("X-A".to_owned(), self::template("${trigger.json.value}"))];
        assert_eq!(
            request(&template, &fixture.values()),
            Err(Missing::NotAField("${trigger.json.value}".to_owned())),
            "{bad:?}"
        );
    }
    let fixture = Fixture::with_value(" \ta\tb ");
    let mut template = get("/");
    template.headers = vec![("X-A".to_owned(), self::template("${trigger.json.value}"))];
    let filled = request(&template, &fixture.values()).unwrap();
    assert_eq!(filled.headers.get("x-a").unwrap(), "a\tb");
}

#[test]
fn a_value_is_one_segment_or_one_query_value() {
    for (value, escaped) in [
        ("7", "7"),
        ("a b", "a%20b"),
        ("AC/DC", "AC%2FDC"),
        ("a?b#c", "a%3Fb%23c"),
        ("x@evil:80", "x%40evil%3A80"),
        ("100%", "100%25"),
        ("%2e%2e", "%252e%252e"),
        ("a+b&c=d", "a%2Bb%26c%3Dd"),
        ("\u{fc}", "%C3%BC"),
        ("...", "..."),
        ("a..b", "a..b"),
        ("a\0\r\n", "a%00%0D%0A"),
    ] {
        let fixture = Fixture::with_value(value);
        let filled = url(&fixture, "/b/${trigger.path.trip}/c?q=${trigger.path.trip}");
        assert_eq!(filled, Ok(format!("http://hotel:8080/b/{escaped}/c?q={escaped}")));
    }
}

#[test]
fn a_value_that_climbs_is_refused() {
    let climbing = [
        ".", "..", "../admin", "a/../b", "/..", "a\\..\\b", "..\\", "./a", "..;a=1/b", "a/..;",
    ];
    for value in climbing {
        let refused = url(&Fixture::with_value(value), "/b/${trigger.path.trip}");
        assert!(
            matches!(refused, Err(Missing::Climbs(..))),
            "{value:?}: {refused:?}"
        );
    }
    // Together with what the file writes beside it, escaped or not.
    for target in ["/b/.${trigger.path.trip}", "/b/%2e${trigger.path.trip}/c"] {
        let refused = url(&Fixture::with_value("."), target);
        assert!(matches!(refused, Err(Missing::Climbs(..))), "{target}");
    }
    // In a query they mean nothing.
    let filled = url(&Fixture::with_value("../a"), "/b?q=${trigger.path.trip}");
    assert_eq!(filled.as_deref(), Ok("http://hotel:8080/b?q=..%2Fa"));
}

#[test]
fn a_segment_is_empty_only_if_the_file_says_that_it_may_be() {
    let fixture = Fixture::with_value("");
    for target in [
        "/b/${trigger.path.trip}",
        "/b/${trigger.path.trip}/c",
        "/${trigger.path.trip:x}",
    ] {
        let refused = url(&fixture, target);
        assert!(matches!(refused, Err(Missing::EmptySegment(_))), "{target}");
    }
    assert_eq!(
        url(&fixture, "/b/${trigger.query.none:}").as_deref(),
        Ok("http://hotel:8080/b/")
    );
    assert_eq!(
        url(&fixture, "/b/n${trigger.path.trip}?q=${trigger.path.trip}").as_deref(),
        Ok("http://hotel:8080/b/n?q=")
    );
    // What the file itself writes is sent as it is.
    assert_eq!(
        url(&fixture, "/a//b/?").as_deref(),
        Ok("http://hotel:8080/a//b/?")
    );
}

#[test]
fn a_reply_has_nothing_where_a_value_is_missing_or_unfit() {
    let fixture = Fixture::with_value("a\r\nb");
    let reply = super::reply(
        &ReplyTemplate {
            status: 503,
            headers: vec![
                ("X-A".to_owned(), template("<${trigger.json.value}>")),
                ("X-B".to_owned(), template("${trigger.json.none}")),
                ("X-C".to_owned(), template("${saga.outcome}")),
            ],
            body: BodyTemplate::Json(JsonTemplate::Array(vec![
                json_text("${trigger.json.none}"),
                json_text("<${trigger.json.none}>"),
                json_text("${trigger.json.none:d}"),
                json_text("${trigger.json.value}"),
            ])),
        },
        &fixture.values(),
    )
    .unwrap();
    assert_eq!(reply.status, 503);
    let values = ["X-A", "X-B", "X-C"].map(|name| reply.headers.get(name).unwrap().clone());
    assert_eq!(values, ["<>", "", "compensated"]);
    assert_eq!(&reply.body[..], br#"["","<>","d","a\r\nb"]"#);
}

#[test]
fn conditions() {
    let fixture = Fixture::new(&br#"{"fly":"yes","n":1}"#[..], b"{}");
    let holds = |value: &str, test: Test| {
        let value = template(value);
        super::condition(&Condition { value, test }, &fixture.values()).unwrap()
    };
    let list = || Test::In(vec!["yes".to_owned(), "1".to_owned()]);
    assert!(holds("${trigger.json.fly}", Test::Equals("yes".to_owned())));
    assert!(!holds("${trigger.json.fly}", Test::Equals("Yes".to_owned())));
    assert!(holds("${trigger.json.n}", list()));
    assert!(!holds("${trigger.json.none}", list()));
    assert!(!holds("${trigger.json.none}", Test::Equals(String::new())));
    assert!(holds("${trigger.json.none}", Test::Present(false)));
    assert!(holds("${trigger.json.fly}", Test::Present(true)));
    assert!(!holds("${trigger.json.fly}", Test::Present(false)));
    // A field that is no text is there all the same.
    assert!(holds("${trigger.headers.x-latin}", Test::Present(true)));
}

#[test]
fn a_key_that_is_empty_is_none() {
    let fixture = Fixture::with_value("");
    let key = |text: &str| super::key(&fixture.plan, SagaId(1), &fixture.trigger, &template(text), None);
    assert_eq!(key("${trigger.json.value}"), None);
    assert_eq!(key("${trigger.json.none}"), None);
    assert_eq!(
        key("trip-${trigger.headers.x-tenant}").as_deref(),
        Some("trip-acme")
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    /// To the last digit of a number, and with its keys in their order.
    #[test]
    fn json_comes_through_as_it_was(value in any_json()) {
        let fixture = Fixture::new(json!({ "value": value }).to_string(), b"{}");
        let whole = with_body(BodyTemplate::Json(json_text("${trigger.json.value}")));
        let filled = request(&whole, &fixture.values()).unwrap();
        prop_assert_eq!(std::str::from_utf8(&filled.body).unwrap(), value.to_string());
        let text = text(&fixture, "${trigger.json.value}").unwrap();
        prop_assert_eq!(text, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
}
