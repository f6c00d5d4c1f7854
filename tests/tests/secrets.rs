//! Secrets that pass through a saga: nobody who looks on sees them, the disk doesn't hold them, and a compensation has them
//! after a restart, if there is a key.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, DEADLINE, Qbox, Settings, World, binary, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// What every secret holds, and nothing else.
const MARK: &str = "hunter2";
const TRIP: &str = "http://trips.default.svc:8080/trips/7?access_token=hunter2";
const WISH: &str = r#"{"guest":"Ada","password":"hunter2","card":{"number":"hunter2"}}"#;

/// The trigger's secrets go on to hotel and car, hotel's answer has some of its own, and hotel's compensation needs them all.
const SAGA: &str = r#"
name = "book-trip"
[trigger]
method = "POST"
url = "http://trips.default.svc:8080/trips/{trip}"

[[step]]
name = "hotel"
[step.request]
method = "PUT"
url = "http://hotel.default.svc:8080/bookings/${trigger.path.trip}?pw=${trigger.json.password}"
headers = { Authorization = "${trigger.headers.authorization}", Cookie = "${trigger.headers.cookie}" }
json = { card = "${trigger.json.card}" }
[[step.compensate]]
needs_response = true
[step.compensate.request]
method = "DELETE"
url = "http://hotel.default.svc:8080/bookings/${trigger.path.trip}"
headers = { Authorization = "${trigger.headers.authorization}", Cookie = "${parent.response.headers.set-cookie}" }
json = { token = "${parent.response.json.access_token}", card = "${trigger.json.card.number}", query = "${trigger.query.access_token}" }

[[step]]
name = "car"
after = ["hotel"]
request = { method = "PUT", url = "http://car.default.svc:8080/bookings/${trigger.path.trip}" }
timeout = "50s"
"#;

fn settings(key: Option<&Path>) -> Settings {
    let key = key
        .map(|path| format!("key_file = {path:?}\n"))
        .unwrap_or_default();
    Settings {
        extra: format!("[secrets]\njson = [\"password\", \"card.number\", \"access_token\"]\n{key}"),
        level: Some("trace"),
        ..Settings::saga(SAGA)
    }
}

fn world(settings: &Settings) -> Result<World> {
    let world = World::new(settings)?;
    world.service("hotel")?.when_booking(Act::Answer(
        200,
        vec![("set-cookie", "sid=hunter2"), ("x-plain", "1")],
        r#"{"id":5,"access_token":"hunter2"}"#,
    ));
    Ok(world)
}

fn book(world: &World) -> Result<(u16, String)> {
    let words = ["-X", "POST", TRIP, "-d", WISH];
    let headers = [
        "-H",
        "Content-Type: application/json",
        "-H",
        "Authorization: Bearer hunter2",
        "-H",
        "Cookie: sid=hunter2",
        "-H",
        "X-API-Key: hunter2",
        "-H",
        "Idempotency-Key: \"k\"",
    ];
    world.client.http(words.into_iter().chain(headers))
}

/// Everything that Qbox shows and writes.
fn look_around(world: &World, id: &str) -> Result<String> {
    let admin = world.qbox.admin();
    let mut seen = String::new();
    for path in ["status", "definitions", "sagas"] {
        seen += &admin.get(&format!("/api/v1/{path}"))?.body;
    }
    seen += &admin.get(&format!("/api/v1/sagas/{id}"))?.body;
    seen += &admin.get("/metrics")?.body;
    for words in [&["list"][..], &["show", id], &["show", id, "--json"], &["tail"]] {
        let mut command = Command::new(binary()?);
        command
            .arg("sagas")
            .args(words)
            .env("QBOX_ADMIN_SOCKET", world.qbox.socket());
        let output = command.output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        seen += &String::from_utf8_lossy(&output.stdout);
    }
    ensure!(seen.contains("book-trip"), "nothing was seen: {seen}");
    seen += &world.qbox.log();
    Ok(seen + &on_disk(world)?)
}

/// All bytes of the journal's files.
fn on_disk(world: &World) -> Result<String> {
    let mut seen = String::new();
    for file in fs::read_dir(world.node.folder().join("qbox/state"))? {
        seen += &String::from_utf8_lossy(&fs::read(file?.path())?);
    }
    Ok(seen)
}

fn no_mark(seen: &str) -> Result<()> {
    let Some(at) = seen.find(MARK) else {
        return Ok(());
    };
    let around: String = seen
        .chars()
        .skip(seen[..at].chars().count().saturating_sub(300))
        .take(400)
        .collect();
    anyhow::bail!("a secret: …{around}…")
}

/// The first saga of the list, once its state is this.
fn when(world: &World, state: &str) -> Result<Value> {
    wait_for(&format!("the saga to be {state}"), DEADLINE, || {
        let sagas = world.qbox.admin().sagas()?;
        Ok(sagas.into_iter().find(|saga| saga["state"] == state))
    })
}

fn id(saga: &Value) -> Result<&str> {
    saga["id"].as_str().context("no id")
}

#[test]
fn no_secret_is_shown_or_written_down() -> Result<()> {
    let mut world = world(&settings(None))?;
    let refusal = r#"{"why":"sold out","password":"hunter2"}"#;
    world
        .service("car")?
        .when_booking(Act::Answer(409, vec![("set-cookie", "sid=hunter2")], refusal));
    let (status, problem) = book(&world)?;
    assert_eq!(status, 502, "{problem}");
    assert!(
        problem.contains("sold out") && problem.contains("[redacted]"),
        "{problem}"
    );
    no_mark(&problem)?;

    // Those that they are for have them.
    let asked = world.service("hotel")?.asked();
    assert_eq!(asked[0].header("authorization"), Some("Bearer hunter2"));
    assert_eq!(asked[0].body, r#"{"card":{"number":"hunter2"}}"#);
    assert!(asked[0].target.ends_with("?pw=hunter2"), "{}", asked[0].target);
    let saga = when(&world, "compensated")?;
    let seen = look_around(&world, id(&saga)?)?;
    no_mark(&seen)?;
    for shown in [
        "access_token=[redacted]",
        "?pw=${trigger.json.password}",
        "x-plain",
    ] {
        assert!(seen.contains(shown), "{shown} isn't shown:\n{seen}");
    }
    world.qbox.stop(Signal::TERM)?;
    no_mark(&on_disk(&world)?)
}

/// Books while the car takes its time, kills Qbox once hotel's answer is on disk, and starts it again.
fn killed_half_way(settings: &Settings, again: &Settings) -> Result<World> {
    let mut world = world(settings)?;
    world
        .service("car")?
        .when_booking(Act::ServeLate(Duration::from_secs(60)));
    thread::scope(|scope| {
        let caller = scope.spawn(|| book(&world));
        let asked = wait_for("hotel's answer to be on disk", DEADLINE, || {
            Ok(on_disk(&world)?.contains("x-plain").then_some(()))
        });
        world.qbox.signal(Signal::KILL)?;
        drop(caller.join());
        asked
    })?;
    world.qbox.stop(Signal::KILL)?;
    no_mark(&on_disk(&world)?)?;
    world.qbox = Qbox::start(&world.node, again)?;
    world.qbox.wait_for_pod(world.client.name())?;
    Ok(world)
}

/// A file of one key.
fn key(folder: &TempDir, name: &str, digit: char) -> Result<std::path::PathBuf> {
    let path = folder.path().join(name);
    fs::write(&path, digit.to_string().repeat(64))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
    Ok(path)
}

#[test]
fn under_a_key_a_compensation_has_its_secrets_after_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = settings(Some(&key(&folder, "key", 'a')?));
    let world = killed_half_way(&settings, &settings)?;
    let saga = when(&world, "compensated")?;
    let asked = world.service("hotel")?.asked();
    let undone = asked
        .iter()
        .find(|asked| asked.method == "DELETE")
        .context("not undone")?;
    assert_eq!(undone.header("authorization"), Some("Bearer hunter2"));
    assert_eq!(undone.header("cookie"), Some("sid=hunter2"));
    assert_eq!(
        undone.body,
        r#"{"token":"hunter2","card":"hunter2","query":"hunter2"}"#
    );
    let (status, reply) = book(&world)?;
    assert_eq!(status, 502);
    assert!(
        reply.contains(id(&saga)?),
        "the key finds the saga that was killed: {reply}"
    );
    no_mark(&reply)?;
    no_mark(&look_around(&world, id(&saga)?)?)
}

#[test]
fn without_the_key_it_is_stuck_and_says_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (first, other) = (key(&folder, "key", 'a')?, key(&folder, "other", 'b')?);
    let cases = [
        (settings(None), settings(None), "in memory alone"),
        (
            settings(Some(&first)),
            settings(Some(&other)),
            "is not among those of this Qbox",
        ),
    ];
    for (before, after, why) in cases {
        let world = killed_half_way(&before, &after)?;
        let saga = when(&world, "stuck")?;
        let seen = look_around(&world, id(&saga)?)?;
        assert!(seen.contains(why), "{why}: {seen}");
        no_mark(&seen)?;
        assert_eq!(world.service("hotel")?.count("DELETE"), 0);
        let warned = world.qbox.log().contains("QB0096");
        assert_eq!(
            warned,
            after.extra == settings(None).extra,
            "{}",
            world.qbox.log()
        );
    }
    Ok(())
}
