//! What becomes of a booking when a participant refuses, is late, breaks off or isn't there: the ledgers agree with the
//! reply, and only what may have happened is compensated.

use anyhow::{Context, Result};
use qbox_tests::{Act, DEADLINE, Settings, World, wait_for};
use serde_json::Value;
use std::time::Duration;

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;

/// The saga of `config/` with patience for 400 ms an attempt.
fn impatient() -> Result<World> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    World::new(&Settings {
        linger: Some("20s"),
        ..Settings::saga(text.replace("timeout = \"2s\"", "timeout = \"400ms\""))
    })
}

/// The messages that a saga sent: `(step, direction)`.
fn sent(world: &World, reply: &Value) -> Result<Vec<(String, String)>> {
    let id = reply["saga"]
        .as_str()
        .with_context(|| format!("no saga id in {reply}"))?;
    let saga = wait_for("the saga's end", DEADLINE, || {
        let saga = world.qbox.admin().saga(id)?;
        Ok((saga["state"] == "compensated").then_some(saga))
    })?;
    let events = saga["events"].as_array().context("no events")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let sent = events.iter().filter(|event| event["kind"] == "sending");
    Ok(sent
        .map(|event| (text(&event["step"]), text(&event["direction"])))
        .collect())
}

/// Books trip 7, which has to fail at `failed`; says which steps were sent a compensation.
fn fails_at(world: &World, failed: &str) -> Result<Vec<String>> {
    let (status, reply) = world.book("7", WISH)?;
    assert_eq!(status, 502, "{reply}");
    assert_eq!(reply["booked"], false);
    assert_eq!(reply["failed"], failed);
    assert!(
        world.booked("7").is_empty(),
        "still booked: {:?}",
        world.booked("7")
    );
    let compensated = sent(world, &reply)?
        .into_iter()
        .filter(|(_, direction)| direction == "compensation");
    let mut steps: Vec<_> = compensated.map(|(step, _)| step).collect();
    steps.sort();
    steps.dedup();
    Ok(steps)
}

#[test]
fn a_refused_car_undoes_the_others_and_is_not_undone_itself() -> Result<()> {
    let world = World::book_trip()?;
    world.service("car")?.when_booking(Act::Refuse(409));
    assert_eq!(fails_at(&world, "car")?, ["flight", "hotel"]);
    assert_eq!(world.service("car")?.count("DELETE"), 0);
    let undo = world
        .service("hotel")?
        .asked()
        .pop()
        .context("hotel wasn't asked")?;
    assert_eq!(undo.method, "DELETE");
    assert_eq!(undo.header("x-qbox-message-type"), Some("COMPENSATION"));
    let key = undo.header("idempotency-key").unwrap_or_default();
    assert!(
        key.ends_with("/hotel/undo/0\"") || key.ends_with("/hotel/undo/1\""),
        "{key}"
    );
    Ok(())
}

#[test]
fn an_answer_after_the_timeout_is_compensated() -> Result<()> {
    let world = impatient()?;
    world
        .service("flight")?
        .when_booking(Act::ServeLate(Duration::from_millis(1500)));
    assert_eq!(fails_at(&world, "flight")?, ["car", "flight", "hotel"]);
    // It had booked, and was undone; and once more, as the late answer might have been that of a later booking.
    assert_eq!(world.service("flight")?.count("PUT"), 1);
    assert_eq!(world.service("flight")?.count("DELETE"), 2);
    Ok(())
}

#[test]
fn a_reset_after_the_request_was_read_is_compensated() -> Result<()> {
    let world = World::book_trip()?;
    world.service("flight")?.when_booking(Act::ServeAndReset);
    assert_eq!(fails_at(&world, "flight")?, ["car", "flight", "hotel"]);
    assert_eq!(world.service("flight")?.count("DELETE"), 1);
    Ok(())
}

#[test]
fn a_closed_port_is_not_compensated() -> Result<()> {
    let mut world = World::book_trip()?;
    world.service_mut("flight")?.close();
    assert_eq!(fails_at(&world, "flight")?, ["car", "hotel"]);
    Ok(())
}

#[test]
fn a_5xx_is_unknown_and_compensated() -> Result<()> {
    let world = World::book_trip()?;
    world
        .service("car")?
        .when_booking(Act::Answer(500, vec![], "half done"));
    assert_eq!(fails_at(&world, "car")?, ["car", "flight", "hotel"]);
    Ok(())
}

/// The hotel's step may be tried twice: the first attempt's reset is forgotten once the second is answered.
#[test]
fn a_retry_with_the_same_key_saves_the_booking() -> Result<()> {
    let world = impatient()?;
    let first = std::sync::atomic::AtomicBool::new(true);
    world.service("hotel")?.script(
        move |_| match first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            true => Act::ServeLate(Duration::from_secs(2)),
            false => Act::Serve,
        },
    );
    let (status, reply) = world.book("7", WISH)?;
    assert_eq!(status, 201, "{reply}");
    assert_eq!(world.booked("7"), ["hotel", "flight", "car"]);
    let asked = world.service("hotel")?.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].header("idempotency-key").is_some());
    assert_eq!(
        asked[0].header("idempotency-key"),
        asked[1].header("idempotency-key")
    );
    Ok(())
}

#[test]
fn a_caller_that_goes_away_changes_nothing() -> Result<()> {
    let world = World::book_trip()?;
    world
        .service("car")?
        .when_booking(Act::ServeLate(Duration::from_millis(700)));
    let url = "http://trips.default.svc:8080/trips/7";
    let gone = world
        .client
        .curl(["--max-time", "0.3", "-X", "POST", url, "-d", WISH])?;
    // curl's 28: "operation timeout".
    assert_eq!(gone.status.code(), Some(28), "{}", gone.stderr);
    wait_for("the saga to commit", DEADLINE, || {
        let sagas = world.qbox.admin().sagas()?;
        Ok(sagas
            .iter()
            .any(|saga| saga["state"] == "committed")
            .then_some(()))
    })?;
    assert_eq!(world.booked("7"), ["hotel", "flight", "car"]);
    Ok(())
}

#[test]
fn a_trigger_with_a_key_runs_once() -> Result<()> {
    let world = World::book_trip()?;
    let ask = |body: &str| {
        let url = "http://trips.default.svc:8080/trips/7";
        world
            .client
            .http(["-X", "POST", url, "-H", "Idempotency-Key: \"one\"", "-d", body])
    };
    let first = ask(WISH)?;
    assert_eq!(first.0, 201);
    assert_eq!(ask(WISH)?, first);
    assert_eq!(world.service("hotel")?.count("PUT"), 1);
    assert_eq!(ask("{\"guest\":\"Eve\"}")?.0, 422);
    assert_eq!(world.qbox.admin().sagas()?.len(), 1);
    Ok(())
}

#[test]
fn a_trigger_that_is_too_long_sends_nothing() -> Result<()> {
    let mut settings = Settings::saga(std::fs::read_to_string(
        qbox_tests::workspace().join(qbox_tests::BOOK_TRIP),
    )?);
    "[limits]\ntrigger_body = \"1KiB\"\n".clone_into(&mut settings.extra);
    let world = World::new(&settings)?;
    let (status, _) = world.book("7", &"x".repeat(1025))?;
    assert_eq!(status, 413);
    assert!(world.booked("7").is_empty() && world.service("hotel")?.asked().is_empty());
    let (status, _) = world.book("7", WISH)?;
    assert_eq!(status, 201);
    Ok(())
}
