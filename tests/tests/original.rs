//! The cases of the original Qbox's own tests, with sagas of the same shape, and the forms of a saga file that they need.

use anyhow::{Context, Result};
use qbox_tests::{Act, Settings, World};
use serde_json::Value;

/// Two transactions, one after the other.
const SEQUENTIAL: &str = r#"
name = "two"
order = "sequential"
[trigger]
method = "POST"
url = "http://trips.default.svc:8080/trips/{trip}"
[[step]]
name = "hotel"
request = { method = "POST", url = "http://hotel.default.svc:8080/bookings/${trigger.path.trip}", body = "${trigger.body}" }
success = [SUCCESS]
[[step.compensate]]
request = { method = "DELETE", url = "http://hotel.default.svc:8080/bookings/${root.path.trip}" }
[[step]]
name = "flight"
request = { method = "POST", url = "http://flight.default.svc:8080/bookings/${trigger.path.trip}", body = "${transaction[0].response.body}" }
[[step.compensate]]
request = { method = "DELETE", url = "http://flight.default.svc:8080/bookings/${trigger.path.trip}" }
[reply.success]
status = 200
body = "${transaction[0].response.body}+${transaction[1].response.body}"
[reply.failure]
status = 500
body = "failed at ${saga.failed_step}"
"#;

const ANY_2XX: &str = r#"{ status = "2xx" }"#;
const URL: &str = "http://trips.default.svc:8080/trips/7";

fn two(success: &str) -> Result<World> {
    World::new(&Settings::saga(SEQUENTIAL.replace("SUCCESS", success)))
}

fn post(world: &World) -> Result<(u16, String)> {
    world.client.http(["-X", "POST", URL, "-d", "hello"])
}

#[test]
fn a_refused_first_transaction_sends_no_compensation() -> Result<()> {
    let world = two(ANY_2XX)?;
    for status in [403, 404] {
        world.service("hotel")?.when_booking(Act::Refuse(status));
        assert_eq!(post(&world)?, (500, "failed at hotel".to_owned()));
        assert_eq!(world.service("hotel")?.count("DELETE"), 0);
        assert!(world.service("flight")?.asked().is_empty(), "the second was sent");
    }
    Ok(())
}

#[test]
fn a_refused_second_transaction_compensates_the_first_alone() -> Result<()> {
    let world = two(ANY_2XX)?;
    world.service("flight")?.when_booking(Act::Refuse(404));
    assert_eq!(post(&world)?, (500, "failed at flight".to_owned()));
    assert_eq!(world.service("hotel")?.count("DELETE"), 1);
    assert_eq!(world.service("flight")?.count("DELETE"), 0);
    assert!(world.booked("7").is_empty());
    Ok(())
}

#[test]
fn reply_bodies_combine_those_of_the_transactions() -> Result<()> {
    let world = two(ANY_2XX)?;
    world
        .service("hotel")?
        .when_booking(Act::Answer(200, vec![], "room 12"));
    world
        .service("flight")?
        .when_booking(Act::Answer(201, vec![], "seat \"4A\""));
    assert_eq!(post(&world)?, (200, "room 12+seat \"4A\"".to_owned()));
    let hotel = world
        .service("hotel")?
        .asked()
        .pop()
        .context("hotel wasn't asked")?;
    assert_eq!(hotel.body, "hello");
    let flight = world
        .service("flight")?
        .asked()
        .pop()
        .context("flight wasn't asked")?;
    assert_eq!(flight.body, "room 12");
    Ok(())
}

#[test]
fn a_success_may_ask_for_a_header() -> Result<()> {
    let world = two(r#"{ status = "2xx", headers = { x-booked = "yes" } }"#)?;
    world
        .service("hotel")?
        .when_booking(Act::Answer(200, vec![("X-Booked", "yes")], "ok"));
    assert_eq!(post(&world)?.0, 200);
    world
        .service("hotel")?
        .when_booking(Act::Answer(200, vec![("X-Booked", "no")], "ok"));
    assert_eq!(post(&world)?, (500, "failed at hotel".to_owned()));
    // An unexpected answer is no refusal: it may have been booked.
    assert_eq!(world.service("hotel")?.count("DELETE"), 1);
    Ok(())
}

#[test]
fn a_success_may_ask_for_an_exact_body() -> Result<()> {
    let world = two(r#"{ status = 200, body = "booked" }"#)?;
    world
        .service("hotel")?
        .when_booking(Act::Answer(200, vec![], "booked"));
    assert_eq!(post(&world)?.0, 200);
    world
        .service("hotel")?
        .when_booking(Act::Answer(200, vec![], "booked?"));
    assert_eq!(post(&world)?.0, 500);
    Ok(())
}

fn one_step(name: &str, path: &str, service: &str) -> String {
    format!(
        r#"
name = "{name}"
[trigger]
method = "POST"
url = "http://trips.default.svc:8080/{path}/{{id}}"
[[step]]
name = "only"
request = {{ method = "PUT", url = "http://{service}.default.svc:8080/bookings/${{trigger.path.id}}" }}
[[step.compensate]]
request = {{ method = "DELETE", url = "http://{service}.default.svc:8080/bookings/${{trigger.path.id}}" }}
"#
    )
}

#[test]
fn two_sagas_that_differ_by_their_url_only() -> Result<()> {
    let world = World::new(&Settings::sagas([
        one_step("rooms", "rooms", "hotel"),
        one_step("seats", "seats", "flight"),
    ]))?;
    for (path, id, booked) in [("rooms", "1", "hotel"), ("seats", "2", "flight")] {
        let url = format!("http://trips.default.svc:8080/{path}/{id}");
        let (status, body) = world.client.http(["-X", "POST", &url])?;
        assert_eq!(status, 200, "{body}");
        assert_eq!(world.booked(id), [booked]);
    }
    Ok(())
}

/// Without `[reply]`: RFC 9457's problem, which names the saga and the step.
#[test]
fn a_default_failure_is_a_problem_that_says_what_failed() -> Result<()> {
    let world = World::new(&Settings::saga(one_step("rooms", "rooms", "hotel")))?;
    world.service("hotel")?.when_booking(Act::Refuse(409));
    let url = "http://trips.default.svc:8080/rooms/1";
    let (status, body) = world.client.http(["-X", "POST", "-D", "/dev/stderr", url])?;
    assert_eq!(status, 502);
    let problem: Value = serde_json::from_str(&body)?;
    assert!(
        problem["title"].is_string() && body.contains("only") && body.contains("rooms"),
        "{body}"
    );
    Ok(())
}

/// The trigger itself goes to its own service, as the last step, and that service's answer is the reply.
#[test]
fn a_step_may_forward_the_trigger() -> Result<()> {
    let world = World::new(&Settings::saga(
        r#"
name = "forwarding"
[trigger]
method = "POST"
url = "http://trips.default.svc:8080/trips/{trip}"
[[step]]
name = "hotel"
request = { method = "PUT", url = "http://hotel.default.svc:8080/bookings/${trigger.path.trip}" }
[[step.compensate]]
request = { method = "DELETE", url = "http://hotel.default.svc:8080/bookings/${trigger.path.trip}" }
[[step]]
name = "trips"
kind = "pivot"
after = ["hotel"]
request = "forward"
[reply.success]
from = "trips"
"#,
    ))?;
    let words = ["-X", "POST", URL, "-H", "X-Own: kept", "-d", "hello"];
    let (status, body) = world.client.http(words)?;
    assert_eq!(status, 201, "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body)?["service"], "trips");
    let trigger = world
        .service("trips")?
        .asked()
        .pop()
        .context("trips wasn't asked")?;
    assert_eq!(
        (trigger.target.as_str(), trigger.body.as_str()),
        ("/trips/7", "hello")
    );
    assert_eq!(trigger.header("x-own"), Some("kept"));
    assert_eq!(trigger.header("x-qbox-step"), Some("trips"));

    world.service("trips")?.when_booking(Act::Refuse(403));
    let (status, _) = world
        .client
        .http(["-X", "POST", "http://trips.default.svc:8080/trips/8"])?;
    assert_eq!(status, 502);
    assert_eq!(world.service("hotel")?.ledger(), ["7"]);
    Ok(())
}

/// `after`: the flight is asked for only once the hotel is applied, and undone before it.
#[test]
fn after_orders_transactions_and_compensations() -> Result<()> {
    let step = |name: &str, after: &str| {
        format!(
            r#"
[[step]]
name = "{name}"
after = [{after}]
request = {{ method = "PUT", url = "http://{name}.default.svc:8080/bookings/${{trigger.path.trip}}" }}
[[step.compensate]]
request = {{ method = "DELETE", url = "http://{name}.default.svc:8080/bookings/${{trigger.path.trip}}" }}
"#
        )
    };
    let trigger = "name = \"chain\"\n[trigger]\nmethod = \"POST\"\nurl = \"http://trips.default.svc:8080/trips/{trip}\"\n";
    let steps = [
        step("hotel", ""),
        step("flight", "\"hotel\""),
        step("car", "\"flight\""),
    ];
    let world = World::new(&Settings::saga(format!("{trigger}{}", steps.concat())))?;
    world.service("car")?.when_booking(Act::Refuse(409));
    let (status, _) = world.client.http(["-X", "POST", URL])?;
    assert_eq!(status, 502);
    let sagas = world.qbox.admin().sagas()?;
    let id = sagas[0]["id"].as_str().context("no id")?;
    let saga = world.qbox.admin().saga(id)?;
    let events = saga["events"].as_array().context("no events")?;
    let sent = events.iter().filter(|event| event["kind"] == "sending");
    let order: Vec<_> = sent
        .map(|event| format!("{} {}", event["direction"], event["step"]))
        .collect();
    assert_eq!(
        order.join(", ").replace('"', ""),
        "transaction hotel, transaction flight, transaction car, compensation flight, compensation hotel"
    );
    Ok(())
}
