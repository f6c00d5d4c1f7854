//! What is read, and what is refused, with the place and the hint.

use super::*;
use proptest::prelude::*;

fn steps() -> Vec<String> {
    ["hotel", "flight", "car"].map(str::to_owned).to_vec()
}

fn parse_at(text: &str, place: Place) -> Parsed<Template> {
    Template::parse(
        text,
        &Scope {
            steps: &steps(),
            place,
        },
    )
}

fn source(text: &str, place: Place) -> Source {
    parse_at(text, place)
        .unwrap()
        .whole_expr()
        .unwrap()
        .source
        .clone()
}

fn fails(text: &str, place: Place) -> (Range<usize>, String, Option<String>) {
    let e = parse_at(text, place).unwrap_err();
    (e.range, e.message, e.suggestion)
}

#[test]
fn sources_and_aliases() {
    let car = StepId(2);
    let request = Place::Request(car);
    assert_eq!(
        source("${trigger.method}", request),
        Source::Trigger(MessagePart::Method)
    );
    assert_eq!(
        source("${root.path.trip}", request),
        Source::Trigger(MessagePart::Path("trip".into()))
    );
    assert_eq!(
        source("${root.request.body}", request),
        Source::Trigger(MessagePart::Body)
    );
    assert_eq!(
        source("${transaction[1].response.status}", request),
        Source::Response(StepId(1), MessagePart::Status)
    );
    assert_eq!(
        source("${steps.hotel.request.headers.X-A.b}", request),
        Source::Request(StepId(0), MessagePart::Header("X-A.b".into()))
    );
    assert_eq!(
        source("${trigger.json./a~1b/~0/0}", request),
        Source::Trigger(MessagePart::Json(FieldPath(vec![
            "a/b".into(),
            "~".into(),
            "0".into()
        ])))
    );
    assert_eq!(
        source("${parent.body}", request),
        Source::Trigger(MessagePart::Body)
    );
    assert_eq!(
        source("${parent.body}", Place::Reply),
        Source::Trigger(MessagePart::Body)
    );
    assert_eq!(
        source("${parent.body}", Place::Match(car)),
        Source::Request(car, MessagePart::Body)
    );
    for place in [Place::Compensation(car), Place::Probe(car)] {
        assert_eq!(
            source("${parent.body}", place),
            Source::Request(car, MessagePart::Body)
        );
        assert_eq!(
            source("${parent.response.status}", place),
            Source::Response(car, MessagePart::Status)
        );
    }
}

#[test]
fn defaults_and_literals() {
    let template = parse_at("a$b$${c}${trigger.query.x:a:${b}d}", Place::Reply).unwrap();
    assert_eq!(template.parts[0], Part::Text("a$b${c}".into()));
    let expr = template.exprs().next().unwrap();
    assert_eq!(expr.default.as_deref(), Some("a:${b"));
    assert_eq!(expr.text, "${trigger.query.x:a:${b}");
    assert_eq!(template.parts[2], Part::Text("d}".into()));
    assert!(parse_at("$${x} costs $5", Place::Reply).unwrap().is_literal());
    assert_eq!(
        parse_at("${trigger.body:}", Place::Reply)
            .unwrap()
            .exprs()
            .next()
            .unwrap()
            .default
            .as_deref(),
        Some("")
    );
}

#[test]
fn errors_say_where_and_what_was_meant() {
    let request = Place::Request(StepId(2));
    assert_eq!(fails("x/${steps.hotle.response.body}", request).0, 10..15);
    assert_eq!(
        fails("${steps.hotle.response.body}", request).2.unwrap(),
        "did you mean `steps.hotel`?"
    );
    assert_eq!(
        fails("${triger.body}", request).2.unwrap(),
        "did you mean `trigger`?"
    );
    assert_eq!(
        fails("${saga.outcom}", request).2.unwrap(),
        "did you mean `saga.outcome`?"
    );
    assert_eq!(fails("ab${trigger.body", request).0, 2..16);
    assert_eq!(
        fails("${trigger.status}", request).1,
        "only a response has a `status`"
    );
    assert_eq!(
        fails("${steps.hotel.request.url}", request).1,
        "only the trigger has this part"
    );
    assert_eq!(
        fails("${trigger.json.a b}", request).2.unwrap(),
        "write the path as a pointer: `/a b`"
    );
    for bad in [
        "${}",
        "${trigger}",
        "${trigger.}",
        "${trigger.body.x}",
        "${trigger.path}",
        "${trigger.query.}",
        "${trigger.headers.a b}",
        "${trigger.json.}",
        "${trigger.json.a..b}",
        "${trigger.json./~2}",
        "${steps}",
        "${steps.}",
        "${steps.hotel}",
        "${steps.hotel.body}",
        "${steps.car.request.body}",
        "${transaction[3].request.body}",
        "${transaction[].request.body}",
        "${transaction[+1].request.body}",
        "${transaction[99999999].response.body}",
        "${saga}",
        "${saga.id.x}",
        "${parent}",
        "${parent.response.body}",
        "${parent.response}",
        "${é.x}",
        "${trigger.jsön}",
    ] {
        let e = parse_at(bad, request).unwrap_err();
        assert!(
            e.range.start <= e.range.end && e.range.end <= bad.len(),
            "{bad}: {e:?}"
        );
        assert!(bad.get(e.range.clone()).is_some(), "{bad}: {e:?}");
    }
    for (text, place) in [
        ("${steps.hotel.response.body}", Place::Trigger),
        ("${saga.id}", Place::Trigger),
        ("${parent.response.body}", Place::Reply),
        ("${steps.car.response.body}", Place::Match(StepId(2))),
    ] {
        parse_at(text, place).unwrap_err();
    }
}

proptest! {
    #[test]
    fn printing_is_stable(text in r"([a-z$ {}]|\$\{|\$\$\{|\$\{trigger\.body\}|\$\{steps\.car\.response\.json\.a-b\.0:x\$\}|é){0,12}") {
        if let Ok(once) = parse_at(&text, Place::Reply) {
            let printed = once.to_string();
            prop_assert_eq!(&printed, &text);
            prop_assert_eq!(parse_at(&printed, Place::Reply).unwrap(), once);
        }
    }

    #[test]
    fn any_text_parses_or_says_where(text in r"(\PC|\$\{|trigger|steps\.hotel\.|response|json|\.|:|\}|\[|/|~){0,20}") {
        if let Err(e) = parse_at(&text, Place::Compensation(StepId(0))) {
            prop_assert!(text.get(e.range.clone()).is_some(), "{:?} in {:?}", e, text);
        }
    }

    #[test]
    fn any_literal_prints_back(text in r"(\PC|\$\{|\$\$\{){0,20}") {
        let printed = Template::literal(text.clone()).to_string();
        prop_assert_eq!(parse_at(&printed, Place::Reply).unwrap(), Template::literal(text));
    }

    #[test]
    fn field_paths_print_back(keys in prop::collection::vec(r"[a-z0-9~/. -]{0,4}", 1..4)) {
        let path = FieldPath(keys);
        prop_assert_eq!(FieldPath::parse(&path.to_string()).unwrap(), path);
    }
}
