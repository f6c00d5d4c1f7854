//! What is sent and what the caller gets, word for word: expressions between steps, matchers, the headers of every request, forward.

use super::world::{World, answer, plan, probe, request, statuses, step, trigger};
use crate::saga::{
    AttemptEnd, BodyTemplate, Call, Condition, Direction, FieldPath, Headers, JsonTemplate, Kind, Place,
    Plan, ReplyPlan, ReplyTemplate, RequestPlan, Response, SagaState, Scope, Step, StepId, Template, Test,
    Trigger,
};
use bytes::Bytes;
use serde_json::{Value, json};

const T: Direction = Direction::Transaction;
const C: Direction = Direction::Compensation(0);
const ID: &str = "018f2c1e-7a5b-7c3d-8e9f-0a1b2c3d4e5f";

fn template(text: &str, place: Place) -> Template {
    let steps = ["hotel".to_owned(), "flight".to_owned()];
    let scope = Scope { steps: &steps, place };
    Template::parse(text, &scope).unwrap()
}

/// hotel, and flight after it.
fn two() -> Vec<Step> {
    vec![step("hotel", &[]), step("flight", &[0])]
}

fn with_headers(fields: &[(&str, &'static str)]) -> Trigger {
    let mut trigger = trigger();
    for (name, value) in fields {
        trigger.request.headers.push(*name, *value);
    }
    trigger
}

fn header(call: &Call, name: &str) -> Option<String> {
    let value = call.request.headers.get(name)?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

fn open(world: &World, at: usize) -> &Call {
    &world.open[at]
}

fn sent(template: &str, place: Place) -> RequestPlan {
    let mut request = request("POST", "flight", "/seats");
    request.body = BodyTemplate::Text(self::template(template, place));
    RequestPlan::Send(request)
}

#[test]
fn a_reply_combines_the_answers_of_its_steps() {
    let text = "{\"a\":${transaction[0].response.body},\"b\":${transaction[1].response.body},\"by\":\"${root.json.guest}\"}";
    let reply = |status| {
        Some(ReplyPlan::Send(ReplyTemplate {
            status,
            headers: vec![(
                "X-Trip".to_owned(),
                template("${trigger.path.trip}", Place::Reply),
            )],
            body: BodyTemplate::Text(template(text, Place::Reply)),
        }))
    };
    let plan = Plan {
        reply_success: reply(201),
        reply_failure: reply(409),
        ..plan(two())
    };
    let mut world = World::new(plan.clone(), trigger());
    world.answer(0, T, answer(200, "{\"room\":7}"));
    world.answer(1, T, answer(200, "[\"12A\"]"));
    let reply = world.reply().unwrap();
    assert_eq!(reply.status, 201);
    assert_eq!(reply.headers.get("x-trip").unwrap(), "7");
    assert_eq!(
        serde_json::from_slice::<Value>(&reply.body).unwrap(),
        json!({"a": {"room": 7}, "b": ["12A"], "by": "Ada"})
    );
    // In a reply a value that isn't there is the empty string.
    let mut world = World::new(plan, trigger());
    world.answer(0, T, AttemptEnd::NotSent("connection refused".to_owned()));
    let reply = world.reply().unwrap();
    assert_eq!(
        (reply.status, &reply.body[..]),
        (409, &b"{\"a\":,\"b\":,\"by\":\"Ada\"}"[..])
    );
}

#[test]
fn a_success_may_ask_for_a_header_or_an_exact_body() {
    let response = |field: &'static str, body: &'static str| {
        let mut headers = Headers::default();
        headers.push("x-state", field);
        AttemptEnd::Answered(Response {
            status: 200,
            headers,
            body: Bytes::from_static(body.as_bytes()),
            truncated: false,
        })
    };
    let place = Place::Match(StepId(0));
    let mut matches = statuses(&[(200, 299)], &[]);
    matches
        .headers
        .push(("X-State".to_owned(), template("booked", place)));
    matches.body = Some(template("done for ${trigger.json.guest}", place));
    let mut asking = step("hotel", &[]);
    asking.success = vec![matches];
    for (end, state) in [
        (response("booked", "done for Ada"), SagaState::Committed),
        (response("booked", "done for Bob"), SagaState::Compensating),
        (response("waiting", "done for Ada"), SagaState::Compensating),
        (answer(200, "done for Ada"), SagaState::Compensating),
    ] {
        let mut world = World::new(plan(vec![asking.clone()]), trigger());
        world.answer(0, T, end);
        assert_eq!(world.saga.state(), state);
    }
}

#[test]
fn a_step_reads_the_answer_of_the_one_before_it() {
    let mut steps = two();
    let mut request = request("POST", "flight", "/seats");
    let text = template("${steps.hotel.response.json.room}", Place::Request(StepId(1)));
    request.body = BodyTemplate::Json(JsonTemplate::Object(vec![(
        "room".to_owned(),
        JsonTemplate::Text(text),
    )]));
    steps[1].request = RequestPlan::Send(request);
    steps[1].compensations[0].request.body = BodyTemplate::Text(template(
        "${parent.body} ${parent.response.json.seat:none}",
        Place::Compensation(StepId(1)),
    ));
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(200, "{\"room\":7}"));
    assert_eq!(open(&world, 0).request.body, "{\"room\":7}");
    assert_eq!(
        header(open(&world, 0), "content-type").unwrap(),
        "application/json"
    );
    world.answer(1, T, AttemptEnd::TimedOut);
    assert_eq!(open(&world, 0).request.body, "{\"room\":7} none");
}

#[test]
fn a_step_whose_value_is_missing_is_never_sent_and_says_which() {
    let mut steps = two();
    steps[1].request = sent("${steps.hotel.response.json.room}", Place::Request(StepId(1)));
    steps[1].retry.attempts = Some(9);
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(200, "{}"));
    assert_eq!(world.names(), ["hotel!0"]);
    let flight = world.saga.steps().nth(1).unwrap();
    assert!(
        flight
            .cause
            .unwrap()
            .contains("${steps.hotel.response.json.room}"),
        "{flight:?}"
    );
    assert_eq!(world.saga.failed_step(), Some(StepId(1)));
    world.check_replay();
}

#[test]
fn a_compensation_may_use_what_the_probe_found() {
    let mut asked = step("hotel", &[]);
    asked.probe = Some(probe("hotel"));
    asked.compensations[0].request.body = BodyTemplate::Text(template(
        "${parent.response.json.id}",
        Place::Compensation(StepId(0)),
    ));
    let mut world = World::new(plan(vec![asked, step("flight", &[0])]), trigger());
    world.answer(0, T, AttemptEnd::TimedOut);
    world.answer(0, Direction::Probe, answer(200, "{\"id\":31}"));
    world.answer(1, T, answer(404, ""));
    assert_eq!(open(&world, 0).request.body, "31");
}

#[test]
fn a_compensation_is_one_of_a_saga_that_compensates_also_beside_a_stuck_step() {
    let mut steps = two();
    steps[1].compensations[0].retry.attempts = Some(1);
    steps[0].compensations[0].request.body =
        BodyTemplate::Text(template("${saga.outcome}", Place::Compensation(StepId(0))));
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, AttemptEnd::TimedOut);
    world.answer(1, C, answer(500, ""));
    assert_eq!(open(&world, 0).request.body, "compensating");
}

#[test]
fn a_step_whose_condition_does_not_hold_is_skipped_and_those_after_it_run() {
    let mut steps = two();
    let mut when = |value: &str, test| {
        steps[0].when = vec![Condition {
            value: template(value, Place::Request(StepId(0))),
            test,
        }];
        steps[1].request = sent("${steps.hotel.response.body:none}", Place::Request(StepId(1)));
        World::new(plan(steps.clone()), trigger())
    };
    let mut world = when("${trigger.json.guest}", Test::In(vec!["Bob".to_owned()]));
    assert_eq!(world.names(), ["flight"]);
    assert_eq!(open(&world, 0).request.body, "none");
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Committed);
    let world = when("${trigger.json.guest}", Test::Equals("Ada".to_owned()));
    assert_eq!(world.names(), ["hotel"]);
    let world = when("${trigger.headers.x-none}", Test::Present(true));
    assert_eq!(world.names(), ["flight"]);
}

#[test]
fn every_request_says_whose_it_is() {
    let mut asked = step("hotel", &[]);
    asked.probe = Some(probe("hotel"));
    asked.compensations.push(asked.compensations[0].clone());
    let mut world = World::new(plan(vec![asked]), trigger());
    world.answer(0, T, AttemptEnd::TimedOut);
    world.answer(0, Direction::Probe, AttemptEnd::NotSent("no route".to_owned()));
    world.run(|call| {
        answer(
            if call.direction == Direction::Probe {
                500
            } else {
                200
            },
            "",
        )
    });
    let all = |name: &str| -> Vec<_> {
        let mut seen: Vec<_> = world.sent.iter().map(|call| header(call, name)).collect();
        seen.dedup();
        seen.into_iter().map(Option::unwrap_or_default).collect()
    };
    assert_eq!(all("x-qbox-transactionid"), [ID]);
    assert_eq!(
        all("x-qbox-message-type"),
        ["TRANSACTION", "PROBE", "COMPENSATION"]
    );
    assert_eq!(all("x-qbox-step"), ["hotel"]);
    assert_eq!(all("x-qbox-depth"), ["1"]);
    let key = |end: &str| format!("\"{ID}/hotel{end}\"");
    assert_eq!(
        all("idempotency-key"),
        [key(""), String::new(), key("/undo/0"), key("/undo/1")]
    );
    // Nothing else, and each once.
    let names: Vec<_> = world.sent[0]
        .request
        .headers
        .0
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "X-Qbox-TransactionID",
            "X-Qbox-Message-Type",
            "X-Qbox-Step",
            "X-Qbox-Depth",
            "traceparent",
            "Idempotency-Key"
        ]
    );
}

#[test]
fn the_triggers_trace_goes_on() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let trace = |fields: &[(&str, &'static str)]| {
        let world = World::new(
            plan(vec![step("hotel", &[]), step("flight", &[])]),
            with_headers(fields),
        );
        let parents = [0, 1].map(|at| header(open(&world, at), "traceparent").unwrap());
        assert_ne!(parents[0], parents[1], "each attempt is a span of its own");
        assert_eq!(parents[0][..36], parents[1][..36], "in one trace");
        (parents[0].clone(), header(open(&world, 0), "tracestate"))
    };
    let (parent, state) = trace(&[
        (
            "Traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ),
        ("tracestate", "congo=t61"),
    ]);
    assert_eq!((&parent[..36], &parent[52..]), (&*format!("00-{TRACE}-"), "-00"));
    assert!(!parent.contains("b7ad6b7169203331"));
    assert_eq!(state.unwrap(), "congo=t61");
    // A later version is read as this one; what is no trace is none.
    let (parent, _) = trace(&[(
        "traceparent",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    )]);
    assert_eq!(&parent[..36], format!("00-{TRACE}-"));
    for wrong in [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd-01",
        "",
    ] {
        let (parent, state) = trace(&[("traceparent", wrong), ("tracestate", "congo=t61")]);
        assert!(!parent.contains(TRACE), "{wrong}: {parent}");
        assert_eq!((parent.len(), state), (55, None));
    }
}

#[test]
fn the_files_own_headers_stay_but_for_qboxs() {
    let mut steps = two();
    let mut own = request("PUT", "hotel", "/bookings/7");
    let literal = |name: &str, value| (name.to_owned(), Template::literal(value));
    own.headers = vec![
        literal("X-Room", "12"),
        literal("IDEMPOTENCY-KEY", "mine"),
        literal("x-qbox-step", "other"),
    ];
    steps[0].request = RequestPlan::Send(own);
    let world = World::new(plan(steps), trigger());
    let headers = &open(&world, 0).request.headers;
    assert_eq!(headers.get("x-room").unwrap(), "12");
    assert_eq!(headers.get("x-qbox-step").unwrap(), "hotel");
    let keys = headers
        .0
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("idempotency-key"));
    assert_eq!(
        keys.map(|(_, value)| value.clone()).collect::<Vec<_>>(),
        [format!("\"{ID}/hotel\"")]
    );
}

#[test]
fn forward_is_the_trigger_itself() {
    let mut steps = two();
    steps[1].request = RequestPlan::Forward;
    steps[1].kind = Kind::Pivot;
    let mut trigger = with_headers(&[("X-Qbox-TransactionID", "a parent's"), ("Cookie", "a=b")]);
    trigger.depth = 3;
    let mut world = World::new(plan(steps.clone()), trigger.clone());
    assert!(!open(&world, 0).forward);
    world.answer(0, T, answer(200, ""));
    let call = open(&world, 0);
    assert!(call.forward);
    assert_eq!(
        (&call.request.method, &call.request.url, &call.request.body),
        (
            &trigger.request.method,
            &trigger.request.url,
            &trigger.request.body
        )
    );
    assert_eq!(header(call, "cookie").unwrap(), "a=b");
    assert_eq!(header(call, "content-type").unwrap(), "application/json");
    assert_eq!(header(call, "x-qbox-transactionid").unwrap(), ID);
    assert_eq!(header(call, "x-qbox-depth").unwrap(), "4");
    assert_eq!(
        header(call, "idempotency-key").unwrap(),
        format!("\"{ID}/flight\"")
    );
    // A caller's own key stays its own.
    trigger.request.headers.push("Idempotency-Key", "\"order-9\"");
    let mut world = World::new(plan(steps), trigger);
    world.answer(0, T, answer(200, ""));
    assert_eq!(header(open(&world, 0), "idempotency-key").unwrap(), "\"order-9\"");
}

#[test]
fn a_reply_from_a_step_is_its_answer_unchanged() {
    let plan = Plan {
        reply_success: Some(ReplyPlan::From(StepId(1))),
        ..plan(two())
    };
    let response = |truncated| {
        let mut headers = Headers::default();
        for (name, value) in [
            ("Set-Cookie", "a"),
            ("Connection", "x-hop"),
            ("X-Hop", "1"),
            ("Set-Cookie", "b"),
        ] {
            headers.push(name, value);
        }
        Response {
            status: 203,
            headers,
            body: Bytes::from_static(b"{ \"id\" :1}"),
            truncated,
        }
    };
    let mut world = World::new(plan.clone(), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, AttemptEnd::Answered(response(false)));
    let reply = world.reply().unwrap();
    assert_eq!((reply.status, &reply.body[..]), (203, &b"{ \"id\" :1}"[..]));
    let fields: Vec<_> = reply
        .headers
        .0
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .collect();
    assert_eq!(fields, [("Set-Cookie", &b"a"[..]), ("Set-Cookie", b"b")]);
    // An answer that wasn't kept whole can't be passed on as if it were.
    let mut world = World::new(plan, trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, AttemptEnd::Answered(response(true)));
    assert_eq!(world.reply().unwrap().status, 200);
}

#[test]
fn without_a_reply_of_its_own_a_saga_tells_what_happened() {
    let mut world = World::new(plan(two()), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, answer(409, "full"));
    world.answer(0, C, answer(200, ""));
    let reply = world.reply().unwrap();
    assert_eq!(reply.status, 502);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["saga"], ID);
    assert_eq!(body["outcome"], "compensated");
    assert_eq!(body["failed_step"], "flight");
    assert_eq!(body["answer"], json!({"status": 409, "body": "full"}));
    assert_eq!(
        body["compensations"],
        json!({"hotel": "undone", "flight": "none"})
    );
    assert!(FieldPath::parse("detail").unwrap().find(&body).is_some());
    let mut world = World::new(plan(two()), trigger());
    world.run(|_| answer(200, ""));
    let body: Value = serde_json::from_slice(&world.reply().unwrap().body).unwrap();
    assert_eq!(body["steps"], json!({"hotel": "applied", "flight": "applied"}));
}
