//! What is printed is read back as the same plan, whatever the file says.

use super::{Comment, Spot, print_saga, quoted};
use crate::config::load_saga;
use crate::saga::StepId;
use proptest::prelude::*;
use std::fmt::Write;

/// Any text; where a template stands, with expressions in it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z]{1,6}", "\\PC{0,12}", any::<String>()]
}

/// Literal pieces and expressions that have a value everywhere. A `$` right before an expression is another expression's
/// escape, so none stands there.
fn template() -> impl Strategy<Value = String> {
    let expr = prop::sample::select(vec![
        "${trigger.body}",
        "${root.json.a.b:x}",
        "${trigger.json./a~1b/0}",
        "${trigger.query.page:1}",
        "${trigger.headers.X-A:}",
        "${saga.name}",
    ]);
    let literal = text().prop_map(|text| text.replace("${", "$${").trim_end_matches('$').to_owned());
    prop::collection::vec(prop_oneof![literal, expr.prop_map(str::to_owned)], 0..4)
        .prop_map(|parts| parts.concat())
}

/// A header's value: no control characters.
fn field() -> impl Strategy<Value = String> {
    template().prop_map(|text| text.replace(|c: char| c.is_ascii_control() && c != '\t', ""))
}

/// Any JSON; `keys` are its objects'.
fn json(keys: &'static str) -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>()
            .prop_filter("JSON has no such number", |n| n.is_finite())
            .prop_map(|n| format!("{n:?}")),
        template().prop_map(|text| quoted(&text)),
    ];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::btree_map(keys, inner, 0..4).prop_map(|map| {
                let pairs: Vec<_> = map
                    .iter()
                    .map(|(key, value)| format!("{} = {value}", quoted(key)))
                    .collect();
                format!("{{ {} }}", pairs.join(", "))
            }),
        ]
    })
}

fn duration() -> impl Strategy<Value = String> {
    (1..100_u32, prop::sample::select(vec!["ms", "s", "m", "h"]))
        .prop_map(|(n, unit)| format!("\"{n}{unit}\""))
}

fn retry() -> impl Strategy<Value = String> {
    let causes = prop::sample::subsequence(
        vec![
            "\"any\"",
            "\"connect\"",
            "\"timeout\"",
            "\"reset\"",
            "\"5xx\"",
            "\"429\"",
            "503",
        ],
        1..4,
    );
    let keys = (
        prop::option::of(1..9_u32),
        prop::option::of(causes),
        prop::option::of(duration()),
        any::<bool>(),
    );
    keys.prop_map(|(attempts, on, most, backoff)| {
        let mut pairs = Vec::new();
        pairs.extend(attempts.map(|n| format!("attempts = {n}")));
        pairs.extend(on.map(|on| format!("on = [{}]", on.join(", "))));
        pairs.extend(most.map(|most| format!("max_elapsed = {most}")));
        pairs.extend(backoff.then(|| "backoff = \"7ms..3m\"".to_owned()));
        format!("retry = {{ {} }}\n", pairs.join(", "))
    })
}

fn matches(key: &'static str) -> impl Strategy<Value = String> {
    let status = prop::sample::select(vec!["200", "\"2xx\"", "[404, 410]", "[\"3xx\", 201]"]);
    let one = (
        status,
        prop::option::of(field()),
        prop::option::of(template()),
        prop::option::of(json("[a-z]{1,3}")),
    )
        .prop_map(|(status, header, body, json)| {
            let mut pairs = vec![format!("status = {status}")];
            pairs.extend(header.map(|value| format!("headers = {{ x-a = {} }}", quoted(&value))));
            pairs.extend(body.map(|body| format!("body = {}", quoted(&body))));
            pairs.extend(json.map(|json| format!("json = {{ \"/a~1b/0\" = {json}, c.d = 1 }}")));
            format!("{{ {} }}", pairs.join(", "))
        });
    prop::collection::vec(one, 1..3).prop_map(move |all| format!("{key} = [{}]\n", all.join(", ")))
}

fn request() -> impl Strategy<Value = String> {
    let body = prop_oneof![
        Just(String::new()),
        template().prop_map(|body| format!(", body = {}", quoted(&body))),
        json("\\PC{0,5}").prop_map(|json| format!(", json = {json}")),
    ];
    let url = prop::sample::select(vec![
        "http://a:81",
        "http://A.b/x/${trigger.path.id}/y?q=${trigger.query.q:}&r=1",
        "http://[::1]/%7B",
    ]);
    (url, prop::option::of(field()), body).prop_map(|(url, header, body)| {
        let header = header.map_or_else(String::new, |value| {
            format!(", headers = {{ X-a = {} }}", quoted(&value))
        });
        format!(
            "request = {{ method = \"PUT\", url = {}{header}{body} }}\n",
            quoted(url)
        )
    })
}

/// Any of these keys, or not.
fn some(key: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::option::of(key).prop_map(Option::unwrap_or_default)
}

fn step(number: usize) -> impl Strategy<Value = String> {
    let timeout = || duration().prop_map(|d| format!("timeout = {d}\n"));
    let when = prop::sample::select(vec![
        "when = [{ value = \"${trigger.json.a}\", equals = \"\\\"x\" }]\n",
        "when = [{ value = \"a\", in = [\"a\", \"b\"] }, { value = \"${saga.name}\", present = false }]\n",
    ]);
    let first = (
        request(),
        some(matches("success")),
        some(matches("refused")),
        some(timeout()),
        some(retry()),
        some(when.prop_map(str::to_owned)),
    );
    let undo = (
        request(),
        some(matches("success")),
        some(timeout()),
        some(retry()),
    );
    let probe = (
        request(),
        some(matches("applied")),
        some(matches("refused")),
        some(timeout()),
        some(retry()),
    );
    let after = match number {
        0 => Just("").boxed(),
        _ => prop::sample::select(vec!["", "after = [\"s0\"]\n"]).boxed(),
    };
    (
        first,
        prop::collection::vec(undo, 0..3),
        prop::option::of(probe),
        after,
        any::<bool>(),
    )
        .prop_map(
            move |((request, success, refused, timeout, retry, when), undo, probe, after, always)| {
                let mut text = format!(
                    "[[step]]\nname = \"s{number}\"\n{after}{request}{success}{refused}{timeout}{retry}{when}"
                );
                if always {
                    text.push_str("compensate_when = \"always\"\n");
                }
                if let Some((request, applied, refused, timeout, retry)) = probe {
                    let _ = write!(text, "[step.probe]\n{request}{applied}{refused}{timeout}{retry}");
                }
                for (request, success, timeout, retry) in undo {
                    let _ = write!(text, "[[step.compensate]]\n{request}{success}{timeout}{retry}");
                }
                text
            },
        )
}

fn saga() -> impl Strategy<Value = String> {
    let top = prop::sample::subsequence(
        vec![
            "timeout = \"90s\"\n",
            "reply_timeout = \"0s\"\n",
            "mode = \"observe\"\n",
            "on_recovery = \"resume\"\n",
            "durability = \"none\"\n",
            "lock = \"${trigger.path.id}\"\n",
        ],
        0..=6,
    );
    let trigger = prop::sample::subsequence(
        vec![
            "method = \"PATCH\"\n",
            "headers = { x-a = \"1 \\\" 2\" }\n",
            "query = { \"a b\" = \"\\\\\" }\n",
            "priority = -3\n",
            "dedupe = \"${trigger.json.order}\"\n",
        ],
        0..=5,
    );
    let body = prop_oneof![
        Just(String::new()),
        "[a-z\"\\\\\n]{0,8}".prop_map(|body| format!("body = {}\n", quoted(&body))),
        Just("json = { a.b = 1, \"/c~1d/0\" = \"x\", e = { f = [1, { g = 2.5 }] } }\n".to_owned()),
    ];
    let reply = prop_oneof![
        Just("from = \"s0\"\n".to_owned()),
        (
            200..600_u16,
            some(field().prop_map(|value| format!("headers = {{ X-b = {} }}\n", quoted(&value)))),
            json("\\PC{0,5}")
        )
            .prop_map(|(status, headers, json)| format!("status = {status}\n{headers}json = {json}\n")),
    ];
    let steps = (step(0), step(1), step(2));
    (top, trigger, body, steps, prop::option::of(reply), any::<bool>()).prop_map(
        |(top, trigger, body, (one, two, three), reply, forward)| {
            let mut text = format!(
                "name = \"any\"\n{}[trigger]\nurl = \"http://H:8080/x/%2F/{{id}}/%7Bno%7D\"\n{}{body}{one}{two}{three}",
                top.concat(),
                trigger.concat()
            );
            if forward {
                text.push_str("[[step]]\nname = \"p\"\nkind = \"pivot\"\nafter = [\"s0\", \"s1\", \"s2\"]\nrequest = \"forward\"\n");
                text.push_str("[[step]]\nname = \"r\"\nkind = \"retriable\"\nafter = [\"p\"]\nrequest = { method = \"GET\", url = \"http://r/\" }\n");
            }
            if let Some(reply) = reply {
                let _ = write!(text, "[reply.success]\n{reply}[reply.failure]\n{reply}");
            }
            text
        },
    )
}

proptest! {
    #[test]
    fn printed_and_read_again_it_is_the_same_and_prints_the_same(text in saga()) {
        let (plan, _) = load_saga(&text, "any.toml").map_err(|found| TestCaseError::fail(format!("{found:#?}\n{text}")))?;
        let printed = print_saga(&plan, &[]);
        let (again, _) = load_saga(&printed, "printed.toml").map_err(|found| TestCaseError::fail(format!("{found:#?}\n{printed}")))?;
        prop_assert_eq!(&again, &plan, "{}", printed);
        prop_assert_eq!(print_saga(&again, &[]), printed);
    }

    /// Whatever a comment says, it changes nothing.
    #[test]
    fn comments_are_only_comments(comment in any::<String>()) {
        let text = include_str!("../../../config/sagas/book-trip.toml");
        let (plan, _) = load_saga(text, "book-trip.toml").unwrap();
        let spots = [Spot::Head, Spot::Trigger, Spot::Step(StepId(1)), Spot::Compensation(StepId(1), 0), Spot::Success, Spot::Failure];
        let comments: Vec<Comment> = spots.map(|spot| (spot, comment.clone())).into();
        prop_assert_eq!(load_saga(&print_saga(&plan, &comments), "a.toml").unwrap().0, plan);
    }
}

#[test]
fn what_is_printed_is_as_people_write_it() {
    let text = "name = \"two\"\norder = \"sequential\"\n\n[trigger]\nmethod = \"POST\"\nurl = \"http://a/x/{id}\"\n\n\
                # first\n[[step]]\nname = \"one\"\nrequest = { method = \"PUT\", url = \"http://b/${trigger.path.id}\" }\n\
                timeout = \"2s\"\nretry = { attempts = 3 }\n\n[[step.compensate]]\nrequest = { method = \"DELETE\", url = \"http://b/\" }\n\n\
                [[step]]\nname = \"two\"\nrequest = { method = \"PUT\", url = \"http://c/\" }\n\n[reply.success]\nstatus = 200\n";
    let (plan, _) = load_saga(text, "two.toml").unwrap();
    assert_eq!(
        print_saga(&plan, &[(Spot::Step(StepId(0)), "first".to_owned())]),
        text
    );
}
