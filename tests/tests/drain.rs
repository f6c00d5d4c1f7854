//! SIGTERM while sagas run: those that can't end within the grace are the journal's, and their callers are told so.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, DEADLINE, Qbox, Settings, World, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;
const TRIP: &str = "http://trips.default.svc:8080/trips/7";
const KEY: &str = "Idempotency-Key: \"trip-7\"";
const ALL: [&str; 3] = ["hotel", "flight", "car"];
/// As the tests' qbox.toml has it.
const GRACE: Duration = Duration::from_secs(2);

/// The saga of `config/`, with patience for a minute an attempt.
fn settings() -> Result<Settings> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    let text = text.replace("timeout = \"2s\"", "timeout = \"60s\"");
    Ok(Settings::saga(
        text.replace("timeout = \"30s\"", "timeout = \"90s\""),
    ))
}

/// Books while the car, which has booked, doesn't answer; then does `stop`. Gives what the caller heard.
fn stopped_half_way(stop: impl FnOnce(&mut World) -> Result<()>) -> Result<(World, String)> {
    let mut world = World::new(&settings()?)?;
    world
        .service("car")?
        .when_booking(Act::ServeLate(Duration::from_secs(120)));
    let caller = world
        .client
        .command("curl")
        .args(["-sS", "-i", "-X", "POST", TRIP, "-d", WISH, "-H", KEY])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    wait_for("all three to have booked", DEADLINE, || {
        Ok((world.booked("7") == ALL).then_some(()))
    })?;
    stop(&mut world)?;
    let heard = String::from_utf8(caller.wait_with_output()?.stdout)?;
    Ok((world, heard))
}

/// Starts Qbox again, and waits until the saga that was left is undone. Gives its id.
fn taken_up(world: &mut World) -> Result<String> {
    world.service("car")?.script(|_| Act::Serve);
    world.qbox = Qbox::start(&world.node, &settings()?)?;
    world.qbox.wait_for_pod(world.client.name())?;
    let saga = wait_for("the saga to be undone", DEADLINE, || {
        let sagas = world.qbox.admin().sagas()?;
        Ok(sagas.into_iter().find(|saga| saga["state"] == "compensated"))
    })?;
    assert!(world.booked("7").is_empty(), "{:?}", world.booked("7"));
    let words = ["-X", "POST", TRIP, "-d", WISH, "-H", KEY];
    let (status, body) = world.client.http(words)?;
    let reply: Value = serde_json::from_str(&body)?;
    assert_eq!((status, &reply["saga"]), (502, &saga["id"]), "the key finds it");
    assert_eq!(world.service("hotel")?.count("PUT"), 1, "nothing is booked again");
    Ok(saga["id"].as_str().context("no id")?.to_owned())
}

#[test]
fn a_saga_that_outlasts_the_grace_is_taken_up_by_the_next_start() -> Result<()> {
    let (mut world, heard) = stopped_half_way(|world| {
        let began = Instant::now();
        world.qbox.signal(Signal::TERM)?;
        // No new saga begins: what would be a trigger goes to the service itself.
        wait_for("a trigger to pass", GRACE, || {
            let (_, answer) = world.book("8", WISH)?;
            Ok((answer["service"] == "trips").then_some(()))
        })?;
        // Which changes nothing: it is only waited for.
        let status = world.qbox.stop(Signal::CONT)?;
        let took = began.elapsed();
        ensure!(status.success(), "{status}: {}", world.qbox.log());
        ensure!(
            took >= GRACE - Duration::from_millis(300),
            "the saga was not waited for: {took:?}"
        );
        ensure!(took < GRACE * 3, "the grace is over: {took:?}");
        Ok(())
    })?;
    let id = taken_up(&mut world)?;
    ensure!(
        heard.starts_with("HTTP/1.1 503 ") && heard.to_lowercase().contains(&id),
        "the caller was told: {heard}"
    );
    ensure!(!heard.to_lowercase().contains("retry-after"), "{heard}");
    Ok(())
}

#[test]
fn a_second_sigterm_ends_it_at_once_and_loses_nothing() -> Result<()> {
    let (mut world, heard) = stopped_half_way(|world| {
        world.qbox.signal(Signal::TERM)?;
        wait_for("the drain", DEADLINE, || {
            Ok(world.qbox.log().contains("stopping").then_some(()))
        })?;
        let began = Instant::now();
        let status = world.qbox.stop(Signal::TERM)?;
        ensure!(!status.success(), "it has not ended what it had begun");
        ensure!(began.elapsed() < GRACE, "{:?}", began.elapsed());
        let log = world.qbox.log();
        ensure!(log.contains("the next start takes it up"), "{log}");
        Ok(())
    })?;
    assert_eq!(heard, "");
    taken_up(&mut world)?;
    Ok(())
}
