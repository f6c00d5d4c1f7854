//! No value whatever changes a message's structure. Each property looks at the message as others would: an HTTP parser, a
//! JSON parser, and a server that decodes and resolves the URL's path far too eagerly.

use super::*;
use crate::saga::fixture::{Fixture, get, template};
use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use serde_json::json;

/// Text made of what is special somewhere, and of anything.
fn hostile() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        "\r\n",
        "\r",
        "\n",
        "\0",
        "\"",
        "'",
        "`",
        "/",
        "../",
        "..",
        ".",
        "./",
        "..\\",
        "\\",
        "?",
        "#",
        "@",
        ":",
        "%",
        "%2e",
        "%2F",
        "%00",
        "%25",
        "&",
        "=",
        "+",
        ";",
        ",",
        " ",
        "\t",
        "{",
        "}",
        "[",
        "]",
        "${saga.id}",
        "$${",
        "$",
        "<",
        ">",
        "|",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{202e}",
        "\u{feff}",
        "\u{ff0e}",
        "\u{fc}",
        "\u{1f600}",
        "//evil.example",
        "HTTP/1.1",
        "X-Evil: 1",
        "a",
        "7",
    ]);
    let piece = prop_oneof![3 => special.prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// Path and query of a URL of the fixture's host, taken apart by RFC 3986's delimiters alone.
fn parts(url: &str) -> (Vec<&str>, Vec<&str>) {
    let target = url
        .strip_prefix("http://hotel:8080/")
        .expect("the host is the file's");
    assert!(!target.contains('#'), "no fragment");
    let (path, query) = target.split_once('?').expect("a query");
    (path.split('/').collect(), query.split('&').collect())
}

/// The path as the most careless server sees it: decoded first, backslashes and parameters as some have them, then dot
/// segments resolved and empty ones merged.
fn resolved_carelessly(path: &str) -> Vec<String> {
    let decoded = percent_decode_str(path).decode_utf8_lossy().replace('\\', "/");
    let mut segments = Vec::new();
    for segment in decoded.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name.to_owned()),
        }
    }
    segments
}

proptest! {
    #[test]
    fn a_url_keeps_its_host_its_segments_and_its_pairs(value in hostile()) {
        let fixture = Fixture::with_value(&value);
        let template = get("/b/${trigger.path.trip}/x-${trigger.json.value}/c?p=${trigger.json.value}&q=1");
        match request(&template, &fixture.values()) {
            Ok(filled) => {
                let (path, query) = parts(&filled.url);
                prop_assert_eq!(path.len(), 4);
                prop_assert_eq!((path[0], path[3]), ("b", "c"));
                prop_assert_eq!(percent_decode_str(path[1]).decode_utf8().unwrap(), value.as_str());
                prop_assert_eq!(query.len(), 2);
                let pair = query[0].strip_prefix("p=").unwrap();
                prop_assert!(!pair.contains(['=', '+', ';']));
                prop_assert_eq!(percent_decode_str(pair).decode_utf8().unwrap(), value.as_str());
                let careless = resolved_carelessly(&path.join("/"));
                prop_assert_eq!(&careless[0], "b");
                prop_assert_eq!(careless.last().unwrap(), "c");
                // No segment of the file's own is resolved away, and the value's are between them.
                prop_assert!(careless.iter().any(|segment| segment.starts_with("x-")));
                prop_assert!(filled.url.bytes().all(|byte| byte.is_ascii_graphic()));
            }
            // Refused only for the reasons that the module gives.
            Err(Missing::EmptySegment(_)) => prop_assert!(value.is_empty()),
            Err(Missing::Climbs(..)) => prop_assert!(value.contains('.')),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn a_query_takes_every_value(value in hostile()) {
        let fixture = Fixture::with_value(&value);
        let filled = request(&get("/b?p=${trigger.json.value}&q=1"), &fixture.values()).unwrap();
        let (_, query) = filled.url.split_once('?').unwrap();
        let pairs: Vec<_> = crate::saga::values::query_pairs(query).collect();
        prop_assert_eq!(pairs, [("p".into(), value.as_str().into()), ("q".into(), "1".into())]);
    }

    #[test]
    fn a_head_keeps_its_fields(value in hostile()) {
        let fixture = Fixture::with_value(&value);
        let mut template = get("/");
        template.headers = vec![
            ("X-A".to_owned(), self::template("a${trigger.json.value}")),
            ("X-B".to_owned(), self::template("${trigger.headers.x-value}")),
            ("X-C".to_owned(), Template::literal("end")),
        ];
        match request(&template, &fixture.values()) {
            Ok(filled) => {
                let mut head = b"GET / HTTP/1.1\r\n".to_vec();
                for (name, value) in &filled.headers.0 {
                    head.extend_from_slice(name.as_bytes());
                    head.extend_from_slice(b": ");
                    head.extend_from_slice(value);
                    head.extend_from_slice(b"\r\n");
                }
                head.extend_from_slice(b"\r\n");
                let mut fields = [httparse::EMPTY_HEADER; 8];
                let mut parsed = httparse::Request::new(&mut fields);
                let length = parsed.parse(&head).unwrap();
                prop_assert_eq!(length, httparse::Status::Complete(head.len()));
                let read: Vec<_> = parsed.headers.iter().map(|field| (field.name, field.value)).collect();
                let with_a = format!("a{value}");
                prop_assert_eq!(read, [
                    ("X-A", with_a.as_bytes().trim_ascii()),
                    ("X-B", value.as_bytes().trim_ascii()),
                    ("X-C", b"end".as_slice()),
                ]);
            }
            Err(Missing::NotAField(_)) => prop_assert!(value.chars().any(|c| c.is_ascii_control())),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn json_keeps_its_shape(value in hostile()) {
        let fixture = Fixture::with_value(&value);
        let text = |text: &str| JsonTemplate::Text(template(text));
        let json = JsonTemplate::Object(vec![
            ("a".to_owned(), text("${trigger.json.value}")),
            ("b".to_owned(), JsonTemplate::Array(vec![text("<${trigger.path.trip}>"), text("end")])),
        ]);
        let template = RequestTemplate { body: BodyTemplate::Json(json), ..get("/") };
        let filled = request(&template, &fixture.values()).unwrap();
        let read: Value = serde_json::from_slice(&filled.body).unwrap();
        prop_assert_eq!(read, json!({ "a": value, "b": [format!("<{value}>"), "end"] }));
    }

    #[test]
    fn a_value_is_never_read_as_a_template(value in hostile()) {
        let fixture = Fixture::with_value(&value);
        let template = RequestTemplate {
            body: BodyTemplate::Text(template("<${trigger.json.value}|${trigger.path.trip}>")),
            ..get("/")
        };
        let filled = request(&template, &fixture.values()).unwrap();
        let wanted = format!("<{value}|{value}>");
        prop_assert_eq!(&filled.body[..], wanted.as_bytes());
    }

    #[test]
    fn a_reply_keeps_its_fields_and_its_shape(value in hostile()) {
        let fixture = Fixture::with_value(&value);
        let reply = super::reply(&ReplyTemplate {
            status: 200,
            headers: vec![("X-A".to_owned(), template("${trigger.json.value}"))],
            body: BodyTemplate::Json(JsonTemplate::Array(vec![JsonTemplate::Text(template("${trigger.path.trip}"))])),
        }, &fixture.values()).unwrap();
        prop_assert_eq!(reply.headers.0.len(), 2);
        prop_assert!(reply.headers.0.iter().all(|(_, value)| fits_field(value)));
        prop_assert_eq!(serde_json::from_slice::<Value>(&reply.body).unwrap(), json!([value]));
    }
}
