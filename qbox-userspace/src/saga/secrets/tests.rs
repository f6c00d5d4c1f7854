//! What is hidden, what is not, and what can't be told.

use super::*;
use crate::saga::fixture::{headers, response};
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
