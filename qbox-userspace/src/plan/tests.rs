//! The saga of config/, and small ones with what is special, rehearsed.

use super::{How, Prospect, mermaid, read_request, svg};
use crate::config::{Answer, load_saga};
use crate::saga::{AttemptEnd, Direction, Headers, Plan, Response, SagaState, StepId, StepState};
use bytes::Bytes;
use std::fmt::Write;
use std::sync::Arc;

const BOOK_TRIP: &str = include_str!("../../../config/sagas/book-trip.toml");
const TRIGGER: &str = "POST http://trips.default.svc:8080/trips/7\n\n{ \"guest\": \"Ada\", \"nights\": 3 }\n";

fn read(text: &str) -> Arc<Plan> {
    Arc::new(load_saga(text, "saga.toml").unwrap().0)
}

fn prospect(saga: &str, trigger: Option<&str>, answers: &[Answer]) -> Prospect {
    let plan = read(saga);
    let trigger = trigger.map(|text| read_request(text).unwrap().trigger(&plan.trigger).unwrap());
    Prospect::new(plan, trigger, answers, None)
}

fn urls<'p>(sent: impl IntoIterator<Item = &'p super::Sent>) -> Vec<String> {
    let line = |sent: &super::Sent| format!("{} {} {}", sent.wave, sent.request.method, sent.request.url);
    sent.into_iter().map(line).collect()
}

fn answered(step: u16, status: u16, body: &str) -> Answer {
    Answer {
        step: StepId(step),
        direction: Direction::Transaction,
        end: AttemptEnd::Answered(Response {
            status,
            headers: Headers::default(),
            body: Bytes::from(body.to_owned()),
            truncated: false,
        }),
    }
}

#[test]
fn every_request_is_filled_in_from_the_trigger() {
    let found = prospect(BOOK_TRIP, Some(TRIGGER), &[]);
    assert!(found.is_clean());
    assert_eq!(
        urls(&found.forward.sent),
        [
            "1 PUT http://hotel.default.svc:8080/bookings/7",
            "1 PUT http://flight.default.svc:8080/bookings/7",
            "1 PUT http://car.default.svc:8080/bookings/7",
        ]
    );
    assert_eq!(
        &found.forward.sent[0].request.body[..],
        b"{\"guest\":\"Ada\",\"nights\":3}"
    );
    assert_eq!(found.forward.reply.as_ref().unwrap().status, 201);
}

#[test]
fn a_refused_step_undoes_the_others_and_an_unknown_one_itself_too() {
    let found = prospect(BOOK_TRIP, Some(TRIGGER), &[]);
    let car = |how| {
        let failure = found
            .failures
            .iter()
            .find(|f| f.step == StepId(2) && f.how == how);
        urls(failure.unwrap().run.compensations())
    };
    let two = [
        "DELETE http://hotel.default.svc:8080/bookings/7",
        "DELETE http://flight.default.svc:8080/bookings/7",
    ];
    let waves = |lines: Vec<String>| {
        let (wave, rest): (Vec<_>, Vec<_>) = lines.iter().map(|line| line.split_once(' ').unwrap()).unzip();
        assert!(
            wave.windows(2).all(|pair| pair[0] == pair[1]),
            "at once: {lines:?}"
        );
        rest.iter().map(|&line| line.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(waves(car(How::Refused)), two);
    let three = waves(car(How::Unknown));
    assert_eq!((three.len(), &three[..2]), (3, &two.map(str::to_owned)[..]));
    let text = found.text();
    assert!(
        text.contains("If `car` is refused (answers 409), it undoes:"),
        "{text}"
    );
    assert!(
        text.contains("If nobody knows what became of `car`, it undoes:"),
        "{text}"
    );
}

/// What has no value in the trigger is what the machine says of it, and the saga is not clean.
#[test]
fn a_trigger_without_a_value_that_is_needed_is_a_finding() {
    let trigger = "POST http://trips.default.svc:8080/trips/7\n\n{}";
    let found = prospect(BOOK_TRIP, Some(trigger), &[]);
    assert!(!found.is_clean());
    assert_eq!(found.forward.steps[0].state, StepState::Refused);
    assert!(
        found.text().contains("`${trigger.json.guest}` has no value"),
        "{}",
        found.text()
    );
}

#[test]
fn without_a_trigger_one_is_made_up_whose_values_name_themselves() {
    let found = prospect(BOOK_TRIP, None, &[]);
    assert!(found.made_up && found.is_clean(), "{}", found.text());
    let first = &found.forward.sent[0].request;
    assert_eq!(
        first.url,
        "http://hotel.default.svc:8080/bookings/trigger.path.trip"
    );
    assert!(String::from_utf8_lossy(&first.body).contains("\"guest\":\"trigger.json.guest\""));
}

const CHAIN: &str = r#"
name = "chain"
[trigger]
url = "http://a/x/{id}"
method = "PUT"
headers = { x-tenant = "acme" }
query = { dry = "0" }
json = { kind.of = "book" }
[[step]]
name = "one"
request = { method = "POST", url = "http://one/rooms?of=${trigger.query.who}" }
success = [{ status = 204, headers = { x-ok = "yes" }, json = { state = "${trigger.json.state}" } }]
refused = []
[[step.compensate]]
request = { method = "DELETE", url = "http://one/rooms/${parent.response.json.room.id:none}" }
[step.probe]
request = { method = "GET", url = "http://one/rooms" }
[[step]]
name = "two"
after = ["one"]
when = [{ value = "${trigger.headers.x-two}", present = true }]
request = { method = "POST", url = "http://two/seats/${steps.one.response.json.room.id}" }
[[step]]
name = "three"
kind = "pivot"
after = ["two"]
request = "forward"
[[step]]
name = "four"
kind = "retriable"
after = ["three"]
request = { method = "POST", url = "http://four/" }
[reply.success]
from = "three"
"#;

#[test]
fn made_up_answers_are_what_the_matches_ask_for() {
    let found = prospect(CHAIN, None, &[]);
    assert!(found.is_clean(), "{}", found.text());
    assert_eq!(
        urls(&found.forward.sent),
        [
            "1 POST http://one/rooms?of=trigger.query.who",
            "2 POST http://two/seats/steps.one.response.json.room.id",
            "3 PUT http://a/x/trigger.path.id?dry=0&who=trigger.query.who",
            "4 POST http://four/",
        ]
    );
    assert!(found.forward.sent[2].forward);
    // One can't be refused by an answer, so it is by none; the pivot is not rehearsed as unknown, the retriable not at all.
    let failures: Vec<_> = found.failures.iter().map(|f| (f.step.0, f.how)).collect();
    let expected = [
        (0, How::Refused),
        (0, How::Unknown),
        (1, How::Refused),
        (1, How::Unknown),
        (2, How::Refused),
    ];
    assert_eq!(failures, expected);
    let unknown = &found.failures[1].run;
    assert!(unknown.sent.iter().any(|sent| sent.direction == Direction::Probe));
    assert_eq!(urls(unknown.compensations()).len(), 1, "{}", found.text());
}

#[test]
fn answers_that_are_given_are_taken_one_for_each_attempt() {
    let saga = BOOK_TRIP.replace("timeout = \"30s\"     #", "timeout = \"60s\" #");
    let answers = [
        answered(0, 503, ""),
        answered(0, 201, ""),
        answered(2, 409, "no car"),
    ];
    let found = prospect(&saga, Some(TRIGGER), &answers);
    assert_eq!(found.forward.state, SagaState::Compensated);
    let hotel: Vec<_> = found
        .forward
        .sent
        .iter()
        .filter(|s| s.step == StepId(0))
        .collect();
    assert!(found.text().contains("→ 409 no car"), "{}", found.text());
    // The retry that waits is dropped when the car is refused; the hotel may be booked, so it is undone.
    assert_eq!(hotel.last().unwrap().direction, Direction::Compensation(0));
}

#[test]
fn what_goes_on_without_end_is_cut_and_said() {
    let undo = Answer {
        direction: Direction::Compensation(0),
        ..answered(0, 500, "")
    };
    let found = prospect(BOOK_TRIP, Some(TRIGGER), &[answered(2, 409, ""), undo]);
    assert_eq!(
        found.forward.endless,
        Some((StepId(0), Direction::Compensation(0)))
    );
    assert!(found.text().contains("And so on"), "{}", found.text());
}

#[test]
fn a_request_that_is_no_trigger_is_told_why() {
    let plan = read(CHAIN);
    let why = |text: &str| {
        read_request(text)
            .unwrap()
            .trigger(&plan.trigger)
            .unwrap_err()
            .join("; ")
    };
    let all = "PUT http://a/x/1?dry=0\nX-Tenant: acme\n\n{\"kind\":{\"of\":\"book\"}}";
    assert!(read_request(all).unwrap().trigger(&plan.trigger).is_ok());
    for (from, to, part) in [
        ("PUT", "POST", "the method is POST, not PUT"),
        (
            "http://a/x/1",
            "http://a/y/1",
            "the URL is http://a/y/1?dry=0, not http://a/x/{id}",
        ),
        ("dry=0", "dry=1", "the query has no `dry` that is \"0\""),
        ("acme", "other", "there is no header `x-tenant` that is \"acme\""),
        (
            "book",
            "read",
            "the body, read as JSON, has no `kind.of` that is \"book\"",
        ),
    ] {
        assert_eq!(why(&all.replacen(from, to, 1)), part);
    }
    assert!(why("PUT /x/1").contains("no http URL"));
}

#[test]
fn the_graph_as_mermaid_and_as_a_drawing() {
    let plan = read(CHAIN);
    let drawn = mermaid(&plan);
    for line in [
        "  trigger --> s0",
        "  s0 --> s1",
        "  s2{{\"three<br/>forward\"}}",
        "  s3[[\"four<br/>POST four\"]]",
    ] {
        assert!(drawn.lines().any(|l| l == line), "{drawn}");
    }
    let drawn = svg(&plan);
    assert!(drawn.contains("<svg") && drawn.contains("</svg>"), "{drawn}");
    for text in ["one", "two", "three (pivot)", "four (retriable)"] {
        assert!(drawn.contains(&format!(">{text}<")), "{text}: {drawn}");
    }
}

/// As many steps as a saga can have, each behind some others: drawn, and in the time of a blink.
#[test]
fn the_largest_graph_is_drawn_too() {
    let mut text = "name = \"large\"\n[trigger]\nurl = \"http://a/\"\n".to_owned();
    for step in 0..256_usize {
        let after: Vec<String> = [step / 2, step / 3, step.saturating_sub(7)]
            .into_iter()
            .filter(|on| *on < step)
            .map(|on| format!("\"s{on}\""))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let _ = writeln!(
            text,
            "[[step]]\nname = \"s{step}\"\nafter = [{}]\nrequest = {{ method = \"PUT\", url = \"http://s{step}/\" }}",
            after.join(", ")
        );
    }
    assert!(svg(&read(&text)).contains(">s255<"));
}

/// The cookbook's: nothing to say of any, and each commits. The imported one is what its YAML becomes.
#[test]
fn every_example_is_fit_to_run_and_clean() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    let mut count = 0;
    for path in std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let (plan, warnings) = load_saga(&text, "example.toml").unwrap();
            assert_eq!(warnings, [], "{}", path.display());
            let found = Prospect::new(Arc::new(plan), None, &[], None);
            assert!(found.is_clean(), "{}", found.text());
            count += 1;
        }
    }
    assert_eq!(count, 5);
}
