//! The operator's hand on the real binary: what is stuck stays stuck over SIGKILL with its cause, and the commands get it out.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, Asked, DEADLINE, Qbox, Settings, World, binary, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const WISH: &str = r#"{"guest":"Ada"}"#;

/// The saga of `config/`, whose compensations are tried twice.
fn settings(top: &str) -> Result<Settings> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    let twice = "[[step.compensate]]\nretry = { attempts = 2, backoff = \"1ms..20ms\" }\n";
    let text = text.replace("[[step.compensate]]\n", twice);
    Ok(Settings::saga(format!("{top}\n{text}")))
}

fn kill_and_start_again(world: &mut World, settings: &Settings) -> Result<()> {
    world.qbox.stop(Signal::KILL)?;
    world.qbox = Qbox::start(&world.node, settings)?;
    world.qbox.wait_for_pod(world.client.name())
}

/// What a command ended with, and what it said on both outputs.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

fn sagas(world: &World, words: &[&str]) -> Result<Said> {
    let mut command = Command::new(qbox_tests::binary()?);
    command.arg("sagas").args(words);
    command.arg("--socket").arg(world.qbox.socket());
    command.env("USER", "ada").env_remove("SUDO_USER");
    let ended = command.stdin(Stdio::null()).output()?;
    Ok(Said {
        code: ended.status.code(),
        out: String::from_utf8(ended.stdout)?,
        error: String::from_utf8(ended.stderr)?,
    })
}

/// The car says no, and the hotel can't be cancelled.
fn break_down(world: &World) -> Result<()> {
    world.service("car")?.when_booking(Act::Refuse(409));
    world
        .service("hotel")?
        .script(|asked| match asked.method.as_str() {
            "DELETE" => Act::Refuse(500),
            _ => Act::Serve,
        });
    Ok(())
}

/// Books, and gives the id of the saga, which is stuck.
fn stuck(world: &World, trip: &str) -> Result<String> {
    let (status, reply) = world.book(trip, WISH)?;
    assert_eq!((status, &reply["booked"]), (502, &Value::Bool(false)), "{reply}");
    let id = reply["saga"].as_str().context("no saga")?.to_owned();
    settles(world, &id, "stuck")?;
    Ok(id)
}

fn settles(world: &World, id: &str, state: &str) -> Result<Value> {
    wait_for(&format!("saga {id} to be {state}"), DEADLINE, || {
        let saga = world.qbox.admin().saga(id)?;
        Ok((saga["state"] == state).then_some(saga))
    })
}

/// The decisions in a saga's history.
fn decisions(saga: &Value) -> Vec<&str> {
    let events = saga["events"].as_array().into_iter().flatten();
    let decided = events.filter(|event| event["kind"] == "decided");
    decided.filter_map(|event| event["text"].as_str()).collect()
}

#[test]
fn stuck_survives_a_kill_and_a_retry_gets_it_out() -> Result<()> {
    let settings = settings("")?;
    let mut world = World::new(&settings)?;
    break_down(&world)?;
    let id = stuck(&world, "7")?;
    let before = settles(&world, &id, "stuck")?;
    assert_eq!(before["stuck"][0]["step"], "hotel", "{before:#}");
    assert_eq!(before["stuck"][0]["last"], "answered 500");
    assert_eq!(world.service("hotel")?.count("DELETE"), 2);

    kill_and_start_again(&mut world, &settings)?;
    let after = settles(&world, &id, "stuck")?;
    assert_eq!(after["stuck"], before["stuck"]);
    assert_eq!(
        world.service("hotel")?.count("DELETE"),
        2,
        "it waits for a person"
    );
    let listed = sagas(&world, &["list", "--state", "stuck"])?;
    assert!(listed.out.contains(&id), "{listed:?}");

    let early = sagas(&world, &["resume", &id, "--reason", "why not"])?;
    assert_eq!(early.code, Some(1), "{early:?}");
    assert!(early.error.contains("it is not paused"), "{early:?}");
    for wrong in [
        &["retry", &id][..],
        &["skip", &id, "--reason", "x"],
        &["retry", &id, "--step", "hotels", "--reason", "x"],
        &["pause", &id, "--step", "hotel", "--reason", "x"],
    ] {
        assert_eq!(sagas(&world, wrong)?.code, Some(2), "{wrong:?}");
    }

    world.service("hotel")?.script(|_| Act::Serve);
    let retried = sagas(&world, &["retry", &id, "--reason", "hotel is up", "--json"])?;
    assert_eq!(retried.code, Some(0), "{retried:?}");
    let told: Value = serde_json::from_str(&retried.out)?;
    assert_eq!(told["id"], *id);
    let ended = settles(&world, &id, "compensated")?;
    assert_eq!(decisions(&ended), ["ada decided: retry (hotel is up)"]);
    assert!(world.booked("7").is_empty(), "{:?}", world.booked("7"));
    let late = sagas(&world, &["retry", &id, "--reason", "again"])?;
    assert_eq!(late.code, Some(1));
    assert!(late.error.contains("it is compensated"), "{late:?}");
    Ok(())
}

#[test]
fn what_was_settled_by_hand_is_skipped_and_says_why() -> Result<()> {
    let settings = settings("")?;
    let mut world = World::new(&settings)?;
    break_down(&world)?;
    let id = stuck(&world, "7")?;
    let why = "cancelled by phone";
    let skipped = sagas(&world, &["skip", &id, "--step", "hotel", "--reason", why])?;
    assert_eq!(skipped.code, Some(0), "{skipped:?}");
    assert!(skipped.out.contains("it is compensated now"), "{skipped:?}");
    // What was acknowledged holds.
    kill_and_start_again(&mut world, &settings)?;
    let saga = settles(&world, &id, "compensated")?;
    assert_eq!(decisions(&saga), ["ada decided: skip hotel (cancelled by phone)"]);
    let shown = sagas(&world, &["show", &id])?;
    assert!(shown.out.contains("ada decided: skip hotel"), "{shown:?}");
    assert_eq!(world.service("hotel")?.count("DELETE"), 2);
    Ok(())
}

#[test]
fn a_pause_holds_over_a_kill() -> Result<()> {
    let settings = settings("on_recovery = \"resume\"")?;
    let mut world = World::new(&settings)?;
    world
        .service("car")?
        .when_booking(Act::ServeLate(Duration::from_secs(60)));
    let id = thread::scope(|scope| {
        let caller = scope.spawn(|| world.book("7", WISH));
        let id = wait_for("the car to be asked", DEADLINE, || {
            let asked = world.service("car")?.count("PUT") > 0;
            let sagas = world.qbox.admin().sagas()?;
            Ok(sagas.first().filter(|_| asked).cloned())
        })?;
        let id = id["id"].as_str().context("no id")?.to_owned();
        let paused = sagas(&world, &["pause", &id, "--reason", "to look"])?;
        assert_eq!(paused.code, Some(0), "{paused:?}");
        world.qbox.signal(Signal::KILL)?;
        drop(caller.join());
        anyhow::Ok(id)
    })?;
    world.service("car")?.script(|_| Act::Serve);
    kill_and_start_again(&mut world, &settings)?;
    let saga = settles(&world, &id, "running")?;
    assert_eq!(saga["paused"], true, "{saga:#}");
    let asked = world.service("car")?.count("PUT");
    let resumed = sagas(&world, &["resume", &id, "--reason", "seen enough"])?;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    let saga = settles(&world, &id, "committed")?;
    assert_eq!(decisions(&saga).len(), 2, "{saga:#}");
    assert!(
        world.service("car")?.count("PUT") > asked,
        "it was sent again, once resumed"
    );
    assert_eq!(world.booked("7"), ["hotel", "flight", "car"]);
    Ok(())
}

#[test]
fn all_that_are_stuck_are_retried_at_once() -> Result<()> {
    let world = World::new(&settings("")?)?;
    break_down(&world)?;
    let trips: Vec<String> = (0..12).map(|trip| trip.to_string()).collect();
    let ids: Vec<String> = trips
        .iter()
        .map(|trip| stuck(&world, trip))
        .collect::<Result<_>>()?;
    let retry = [
        "retry",
        "--all",
        "--step",
        "hotel",
        "--reason",
        "hotel is up",
        "--json",
    ];
    let with = |more: &'static str| sagas(&world, &[&retry[..], &[more]].concat());
    let asked = sagas(&world, &retry)?;
    assert_eq!(asked.code, Some(2), "nobody is there to say yes: {asked:?}");
    let dry = with("--dry-run")?;
    let report: Value = serde_json::from_str(&dry.out)?;
    assert_eq!((dry.code, &report["done"]), (Some(0), &12.into()), "{report:#}");
    assert_eq!(world.service("hotel")?.count("DELETE"), 24);

    world.service("hotel")?.script(|_| Act::Serve);
    let done = with("--yes")?;
    let report: Value = serde_json::from_str(&done.out)?;
    assert_eq!((done.code, &report["done"]), (Some(0), &12.into()), "{report:#}");
    for id in &ids {
        settles(&world, id, "compensated")?;
    }
    for trip in &trips {
        assert!(world.booked(trip).is_empty(), "{trip}: {:?}", world.booked(trip));
    }
    let none = sagas(&world, &["retry", "--all", "--yes", "--reason", "x"])?;
    assert_eq!(none.code, Some(0), "{none:?}");
    assert!(none.out.contains("no saga"), "{none:?}");
    Ok(())
}

/// A hotel, and a car behind it that can't be given back, nor asked for.
const PIVOT: &str = r#"
name = "pay-trip"
[trigger]
method = "POST"
url = "http://trips.default.svc:8080/trips/{trip}"
[[step]]
name = "hotel"
request = { method = "PUT", url = "http://hotel.default.svc:8080/bookings/${trigger.path.trip}" }
[[step.compensate]]
request = { method = "DELETE", url = "http://hotel.default.svc:8080/bookings/${trigger.path.trip}" }
[[step]]
name = "car"
kind = "pivot"
after = ["hotel"]
request = { method = "PUT", url = "http://car.default.svc:8080/bookings/${trigger.path.trip}" }
retry = { attempts = 3, on = ["reset"], backoff = "1ms..20ms" }
[reply.failure]
status = 502
json = { booked = false, saga = "${saga.id}" }
"#;

#[test]
fn a_pivot_that_nobody_can_know_of_is_a_persons_to_find_out() -> Result<()> {
    let settings = Settings::saga(PIVOT);
    let mut world = World::new(&settings)?;
    // The first time it has booked, and nobody hears of it; then it says that there is one already.
    let first = |act: Act| {
        let asked = AtomicBool::new(false);
        move |_: &Asked| match asked.swap(true, Ordering::Relaxed) {
            false => act.clone(),
            true => Act::Refuse(409),
        }
    };
    world.service("car")?.script(first(Act::ServeAndReset));
    let done = stuck(&world, "7")?;
    let saga = settles(&world, &done, "stuck")?;
    assert_eq!(saga["stuck"][0]["step"], "car", "{saga:#}");
    let cause = saga["stuck"][0]["cause"].as_str().unwrap_or_default();
    assert!(cause.contains("is refused now: answered 409"), "{cause}");
    assert_eq!(world.service("car")?.count("PUT"), 3);
    kill_and_start_again(&mut world, &settings)?;
    settles(&world, &done, "stuck")?;
    assert_eq!(
        world.booked("7"),
        ["hotel", "car"],
        "nothing is undone that may have to stay"
    );
    let skipped = sagas(
        &world,
        &["skip", &done, "--step", "car", "--reason", "it has the booking"],
    )?;
    assert_eq!(skipped.code, Some(0), "{skipped:?}");
    settles(&world, &done, "committed")?;

    // And one that was not done.
    world.service("car")?.script(first(Act::Refuse(500)));
    let refused = stuck(&world, "8")?;
    assert_eq!(world.booked("8"), ["hotel"]);
    let turned = sagas(&world, &["compensate", &refused, "--reason", "it has none"])?;
    assert_eq!(turned.code, Some(0), "{turned:?}");
    settles(&world, &refused, "compensated")?;
    assert!(world.booked("8").is_empty());
    Ok(())
}

/// What people see in a terminal has colours; what a pipe or a file gets, and whoever has set `NO_COLOR`, has none.
#[test]
fn colours_are_for_terminals() -> Result<()> {
    let world = World::book_trip()?;
    world.book("1", r#"{"guest":"Ada"}"#)?;
    let run = |program: &str, words: &[&str], no_color: &str| -> Result<String> {
        let output = Command::new(program)
            .args(words)
            .env("QBOX_ADMIN_SOCKET", world.qbox.socket())
            .env("TERM", "xterm")
            .env("NO_COLOR", no_color)
            .output()?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?.replace('\r', ""))
    };
    let qbox = binary()?.display().to_string();
    for (words, painted) in [
        ("status", "\u{1b}[32mready\u{1b}[0m"),
        ("sagas list", "\u{1b}[32mcommitted\u{1b}[0m"),
    ] {
        // script(1) gives it a terminal.
        let command = format!("{qbox} {words}");
        let terminal = ["--quiet", "--command", &command, "/dev/null"];
        let seen = run("script", &terminal, "")?;
        ensure!(seen.contains(painted), "{words}: {seen:?}");
        let plain = run(&qbox, &words.split(' ').collect::<Vec<_>>(), "")?;
        ensure!(!plain.contains('\u{1b}'), "{words}: {plain:?}");
        let unwanted = run("script", &terminal, "1")?;
        ensure!(!unwanted.contains('\u{1b}'), "{words}: {unwanted:?}");
    }
    Ok(())
}
