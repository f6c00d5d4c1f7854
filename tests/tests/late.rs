//! Services that do what they were asked for when Qbox has given it up, and undone it: what Qbox still hears is undone again.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, DEADLINE, Qbox, Settings, World, binary, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;

/// The saga of `config/` with patience for 400 ms an attempt, whose caller is told the outcome.
fn settings(linger: &'static str) -> Result<Settings> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    let text = text.replace("timeout = \"2s\"", "timeout = \"400ms\"").replace(
        "booked = false,",
        "booked = false, outcome = \"${saga.outcome}\",",
    );
    Ok(Settings {
        linger: Some(linger),
        ..Settings::saga(text)
    })
}

/// A world whose flight is booked, and answers, that long after it was asked; and what the caller of trip 7 was told.
fn late(settings: &Settings, after: Duration) -> Result<(World, Value)> {
    let world = World::new(settings)?;
    world.service("flight")?.when_booking(Act::ServeAfter(after));
    let (status, reply) = world.book("7", WISH)?;
    assert_eq!((status, &reply["failed"]), (502, &Value::from("flight")));
    Ok((world, reply))
}

fn state(world: &World, reply: &Value) -> Result<Value> {
    let id = reply["saga"].as_str().context("no saga id")?;
    Ok(world.qbox.admin().saga(id)?["state"].clone())
}

fn ends(world: &World, reply: &Value) -> Result<()> {
    wait_for("the saga's end", DEADLINE, || {
        Ok((state(world, reply)? == "compensated").then_some(()))
    })
}

/// The keys of the flight's compensations, without the saga's id.
fn undo_keys(world: &World) -> Result<Vec<String>> {
    let asked = world.service("flight")?.asked();
    let undone = asked.iter().filter(|asked| asked.method == "DELETE");
    let keys = undone.filter_map(|asked| asked.header("idempotency-key")?.split_once('/'));
    Ok(keys
        .map(|(_, key)| key.trim_end_matches('"').to_owned())
        .collect())
}

/// The steps whose late answers the saga waits for, as the API has it; where there are any, the terminal and the metrics say so too.
fn waits_for(world: &World, reply: &Value) -> Result<Vec<String>> {
    let id = reply["saga"].as_str().context("no saga id")?;
    let saga = world.qbox.admin().saga(id)?;
    let Some(steps) = saga["listening"]["steps"].as_array() else {
        return Ok(Vec::new());
    };
    let shown = Command::new(binary()?)
        .args(["sagas", "show", id])
        .env("QBOX_ADMIN_SOCKET", world.qbox.socket())
        .output()?;
    let shown = String::from_utf8(shown.stdout)?;
    let metrics = world.qbox.admin().get("/metrics")?.body;
    // It may have ended since.
    if world.qbox.admin().saga(id)?["listening"].is_object() {
        ensure!(
            shown.contains("  waits   only for a late answer of flight, until "),
            "{shown}"
        );
        ensure!(metrics.contains("qbox_sagas_listening 1\n"), "{metrics}");
    }
    let names = steps.iter().filter_map(Value::as_str);
    Ok(names.map(str::to_owned).collect())
}

fn lingering(world: &World) -> Result<Value> {
    Ok(world.qbox.admin().json("/api/v1/status")?["calls"]["lingering"].clone())
}

#[test]
fn a_success_after_the_compensation_is_undone_again() -> Result<()> {
    let (world, reply) = late(&settings("60s")?, Duration::from_secs(3))?;
    // The caller need not wait for what may come, and is not told that it was the end.
    assert_eq!(reply["outcome"], "compensating");
    if world.service("flight")?.ledger().is_empty() {
        assert_eq!(
            state(&world, &reply)?,
            "compensating",
            "it waits for what may be heard"
        );
        assert_eq!(lingering(&world)?, 1);
        assert_eq!(waits_for(&world, &reply)?, ["flight"]);
    }
    ends(&world, &reply)?;
    assert_eq!(undo_keys(&world)?, ["flight/undo/0", "flight/undo/0/1"]);
    assert!(
        world.booked("7").is_empty(),
        "still booked: {:?}",
        world.booked("7")
    );
    assert_eq!(lingering(&world)?, 0);
    Ok(())
}

#[test]
fn a_service_that_never_answers_is_not_waited_for_without_end() -> Result<()> {
    let (world, reply) = late(&settings("500ms")?, Duration::from_secs(600))?;
    ends(&world, &reply)?;
    assert_eq!(undo_keys(&world)?, ["flight/undo/0"]);
    assert_eq!(lingering(&world)?, 0);
    Ok(())
}

/// What is done when nobody listens is the service's own to refuse: docs/guarantees.md.
#[test]
fn without_lingering_what_comes_late_is_left_behind() -> Result<()> {
    let (world, reply) = late(&settings("0s")?, Duration::from_secs(2))?;
    assert_eq!(reply["outcome"], "compensated");
    wait_for("the late booking", DEADLINE, || {
        Ok(world.service("flight")?.has("7").then_some(()))
    })?;
    assert_eq!(state(&world, &reply)?, "compensated");
    assert_eq!(undo_keys(&world)?, ["flight/undo/0"]);
    Ok(())
}

#[test]
fn a_restart_ends_what_only_waits_for_a_late_answer() -> Result<()> {
    let settings = settings("600s")?;
    let (mut world, reply) = late(&settings, Duration::from_secs(600))?;
    assert_eq!(state(&world, &reply)?, "compensating");
    assert_eq!(waits_for(&world, &reply)?, ["flight"]);
    world.qbox.stop(Signal::KILL)?;
    world.qbox = Qbox::start(&world.node, &settings)?;
    ends(&world, &reply)?;
    Ok(())
}
