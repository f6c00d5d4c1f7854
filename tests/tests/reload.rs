//! Saga files that change while Qbox runs: what comes into force, what doesn't, and that no request notices.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, DEADLINE, World, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;

/// A saga with its trigger on another port.
const TOUR: &str = r#"
name = "tour"
[trigger]
method = "POST"
url = "http://trips.default.svc:8081/tours/{tour}"
[[step]]
name = "hotel"
request = { method = "PUT", url = "http://hotel.default.svc:8080/bookings/${trigger.path.tour}" }
[[step.compensate]]
request = { method = "DELETE", url = "http://hotel.default.svc:8080/bookings/${trigger.path.tour}" }
[reply.success]
status = 202
"#;

/// Books over one connection until a file appears, then says how often, and what was answered how often.
const CALLER: &str = r#"
import collections, http.client, json, os, sys, time
c = http.client.HTTPConnection("trips.default.svc", 8080, timeout=20)
c.connect()
first = c.sock
seen = collections.Counter()
n = 0
while not os.path.exists(sys.argv[1]):
    c.request("POST", "/trips/t%d" % n, json.dumps({"guest": "Ada"}))
    r = c.getresponse()
    r.read()
    seen[r.status] += 1
    n += 1
    assert c.sock is first, "the connection was closed"
    time.sleep(0.005)
print(json.dumps(seen))
"#;

/// Like an editor that puts a new file in the old one's place.
fn replace(path: &Path, text: &str) -> Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, text)?;
    Ok(fs::rename(aside, path)?)
}

fn saga_file(world: &World) -> PathBuf {
    world.qbox.sagas().join("0.toml")
}

fn definitions(world: &World) -> Result<Value> {
    world.qbox.admin().json("/api/v1/definitions")
}

fn names(definitions: &Value) -> Vec<String> {
    let list = definitions["definitions"].as_array().cloned().unwrap_or_default();
    let names = list.iter().filter_map(|saga| saga["name"].as_str());
    names.map(str::to_owned).collect()
}

/// Waits until the definitions are as `so` wants them.
fn wait_until(world: &World, what: &str, so: impl Fn(&Value) -> bool) -> Result<Value> {
    wait_for(what, DEADLINE, || {
        let now = definitions(world)?;
        Ok(so(&now).then_some(now))
    })
}

fn qbox(world: &World, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(qbox_tests::binary()?);
    command.args(words).arg("--socket").arg(world.qbox.socket());
    Ok(command.output()?)
}

fn tour(world: &World) -> Result<(u16, String)> {
    let url = "http://trips.default.svc:8081/tours/9";
    world.client.http(["-X", "POST", url])
}

#[test]
fn edits_additions_removals_and_mistakes_under_traffic() -> Result<()> {
    let world = World::book_trip()?;
    let stop = world.node.folder().join("stop");
    let text = fs::read_to_string(saga_file(&world))?;
    thread::scope(|scope| -> Result<()> {
        let caller = scope.spawn(|| world.client.python(CALLER, &[&stop.display().to_string()]));
        let changed = changes(&world, &text);
        fs::write(&stop, "")?;
        let seen = caller
            .join()
            .map_err(|_| anyhow::anyhow!("the caller panicked"))??;
        changed?;
        let seen: Value = serde_json::from_str(&seen)?;
        let seen = seen.as_object().context("no counts")?;
        // The reply's status before the edit and after it, and no other.
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["201", "200"], "{seen:?}");
        Ok(())
    })
}

fn changes(world: &World, text: &str) -> Result<()> {
    wait_for("the first booking", DEADLINE, || {
        Ok((world.service("car")?.count("PUT") > 0).then_some(()))
    })?;

    // Edit, as an editor does that writes into the file.
    let before = definitions(world)?;
    fs::write(saga_file(world), text.replace("status = 201", "status = 200"))?;
    let after = wait_until(world, "the edit", |now| {
        now["definitions"][0]["hash"] != before["definitions"][0]["hash"]
    })?;
    assert_eq!(after["reloads"], 1);
    assert!(after["definitions"][0]["since"].as_u64() > before["definitions"][0]["since"].as_u64());
    assert_eq!(world.book("a", WISH)?.0, 200);

    // Add: the capture follows the new trigger's port.
    assert!(
        tour(world)?.1.contains("\"service\":\"trips\""),
        "already captured"
    );
    let file = world.qbox.sagas().join("tour.toml");
    replace(&file, TOUR)?;
    let now = wait_until(world, "the new saga", |now| names(now).len() == 2)?;
    assert_eq!(names(&now), ["book-trip", "tour"]);
    assert_eq!(now["definitions"][1]["file"], file.display().to_string());
    assert_eq!(now["definitions"][0]["since"], after["definitions"][0]["since"]);
    assert_eq!(tour(world)?.0, 202);
    assert!(world.service("hotel")?.has("9"));

    // Remove: connections to its port are their own again.
    fs::remove_file(&file)?;
    wait_until(world, "the saga to go", |now| names(now) == ["book-trip"])?;
    let captured = world
        .qbox
        .admin()
        .metric("qbox_captured_connections_total{fate=\"captured\"}")?;
    assert!(tour(world)?.1.contains("\"service\":\"trips\""), "still captured");
    let then = world
        .qbox
        .admin()
        .metric("qbox_captured_connections_total{fate=\"captured\"}")?;
    assert_eq!(captured, then, "it went through Qbox");

    // Break: told everywhere, and what was loaded before stays.
    let edited = fs::read_to_string(saga_file(world))?;
    replace(&saga_file(world), &edited.replace("[[step]]", "[[stop]]"))?;
    let now = wait_until(world, "the mistake to be told", |now| !now["error"].is_null())?;
    let report = now["error"]["report"].as_str().context("no report")?;
    assert!(report.contains("QB0005") && report.contains("0.toml"), "{report}");
    assert_eq!(
        (names(&now), &now["failed"]),
        (vec!["book-trip".to_owned()], &1.into())
    );
    assert_eq!(world.qbox.admin().get("/readyz")?.status, 200);
    assert_eq!(world.qbox.admin().metric("qbox_definitions_current")?, 0);
    assert_eq!(
        world
            .qbox
            .admin()
            .metric("qbox_reloads_total{outcome=\"failed\"}")?,
        1
    );
    assert!(world.qbox.log().contains("QB0005"), "not in the log");
    let status = String::from_utf8(qbox(world, &["status"])?.stdout)?;
    assert!(status.contains("can't be used"), "{status}");
    let refused = qbox(world, &["reload"])?;
    let said = String::from_utf8(refused.stderr)?;
    assert!(
        refused.status.code() == Some(1) && said.contains("QB0005"),
        "{said}"
    );
    assert_eq!(world.book("b", WISH)?.0, 200);

    // Mend.
    replace(&saga_file(world), &edited)?;
    wait_until(world, "the mistake to be gone", |now| now["error"].is_null())?;
    assert_eq!(world.qbox.admin().metric("qbox_definitions_current")?, 1);
    let said = String::from_utf8(qbox(world, &["reload"])?.stdout)?;
    assert!(said.contains("book-trip") && said.contains("0.toml"), "{said}");
    Ok(())
}

/// As the kubelet changes a mounted ConfigMap: the files are links through `..data`, which is exchanged as a whole.
#[test]
fn a_config_map_is_exchanged() -> Result<()> {
    let world = World::book_trip()?;
    let folder = world.qbox.sagas();
    let text = fs::read_to_string(saga_file(&world))?;
    let version = |name: &str, status: &str| -> Result<()> {
        fs::create_dir(folder.join(name))?;
        fs::write(
            folder.join(name).join("trip.toml"),
            text.replace("status = 201", &format!("status = {status}")),
        )?;
        symlink(name, folder.join("..data_tmp"))?;
        Ok(fs::rename(folder.join("..data_tmp"), folder.join("..data"))?)
    };
    version("..2026_11_25", "203")?;
    fs::remove_file(saga_file(&world))?;
    symlink("..data/trip.toml", folder.join("trip.toml"))?;
    let is_there = |now: &Value| {
        let file = now["definitions"][0]["file"].as_str();
        now["error"].is_null() && file.is_some_and(|file| file.ends_with("trip.toml"))
    };
    let first = wait_until(&world, "the link", is_there)?;
    assert_eq!(world.book("1", WISH)?.0, 203);
    version("..2026_11_26", "200")?;
    wait_until(&world, "the exchange", |now| {
        is_there(now) && now["definitions"][0]["hash"] != first["definitions"][0]["hash"]
    })?;
    fs::remove_dir_all(folder.join("..2026_11_25"))?;
    assert_eq!(world.book("2", WISH)?.0, 200);
    // Nothing was amiss in between.
    let now = definitions(&world)?;
    assert_eq!((&now["error"], names(&now).len()), (&Value::Null, 1));
    Ok(())
}

#[test]
fn a_running_saga_keeps_its_plan() -> Result<()> {
    let world = World::book_trip()?;
    let text = fs::read_to_string(saga_file(&world))?;
    let hotel = world.service("hotel")?;
    hotel.when_booking(Act::ServeLate(Duration::from_millis(1500)));
    let before = definitions(&world)?;
    let running = thread::scope(|scope| -> Result<(u16, Value)> {
        let running = scope.spawn(|| world.book("7", WISH));
        wait_for("the hotel to be asked", DEADLINE, || {
            Ok((hotel.count("PUT") > 0).then_some(()))
        })?;
        replace(&saga_file(&world), &text.replace("status = 201", "status = 200"))?;
        wait_until(&world, "the edit", |now| {
            now["definitions"][0]["hash"] != before["definitions"][0]["hash"]
        })?;
        ensure!(!running.is_finished(), "the saga was over before the edit");
        running
            .join()
            .map_err(|_| anyhow::anyhow!("the caller panicked"))?
    })?;
    assert_eq!(running.0, 201);
    hotel.script(|_| Act::Serve);
    assert_eq!(world.book("8", WISH)?.0, 200);
    Ok(())
}

#[test]
fn the_configuration_too_as_far_as_it_can_change_under_way() -> Result<()> {
    let world = World::book_trip()?;
    let config = fs::read_to_string(world.qbox.config())?;
    let long = format!("{{\"guest\":\"{}\"}}", "x".repeat(100));
    assert_eq!(world.book("1", &long)?.0, 201);
    let limits = "[limits]\ntrigger_body = \"64B\"\n[proxy]\nhead_timeout = \"7s\"\n";
    replace(&world.qbox.config(), &format!("{config}{limits}"))?;
    let now = wait_until(&world, "the limit", |now| {
        now["needs_restart"] == serde_json::json!(["proxy"])
    })?;
    assert_eq!(now["error"], Value::Null);
    assert_eq!(world.book("2", &long)?.0, 413);
    // A folder of another place, which is watched from then on.
    let other = world.node.folder().join("others");
    fs::create_dir(&other)?;
    let text = fs::read_to_string(saga_file(&world))?;
    fs::write(other.join("x.toml"), text.replace("status = 201", "status = 200"))?;
    replace(&world.qbox.config(), &format!("sagas = {other:?}\n{config}"))?;
    wait_until(&world, "the other folder", |now| {
        now["definitions"][0]["file"] == other.join("x.toml").display().to_string()
    })?;
    assert_eq!(world.book("3", &long)?.0, 200);
    fs::write(other.join("tour.toml"), TOUR)?;
    wait_until(&world, "the saga in it", |now| names(now).len() == 2)?;

    // SIGHUP reads them too, and ends nothing.
    world.qbox.signal(Signal::HUP)?;
    wait_for("word of SIGHUP", DEADLINE, || {
        Ok(world.qbox.log().contains("SIGHUP").then_some(()))
    })?;
    assert_eq!(world.book("4", WISH)?.0, 200);
    Ok(())
}

#[test]
fn the_log_filter_changes_while_qbox_runs() -> Result<()> {
    let world = World::book_trip()?;
    let log = |words: &[&str]| -> Result<(bool, String)> {
        let output = qbox(&world, &[&["log"], words].concat())?;
        let said = if output.status.success() {
            output.stdout
        } else {
            output.stderr
        };
        Ok((output.status.success(), String::from_utf8(said)?))
    };
    assert_eq!(log(&[])?, (true, "info\n".to_owned()));
    let (status, _) = world.book("1", WISH)?;
    assert_eq!(status, 201);
    ensure!(!world.qbox.log().contains("DEBUG"), "{}", world.qbox.log());
    assert_eq!(log(&["qbox=debug,info"])?, (true, "qbox=debug,info\n".to_owned()));
    let (_, reply) = world.book("2", WISH)?;
    let id = reply["saga"].as_str().context("no id")?;
    let told = wait_for("the saga's events in the log", DEADLINE, || {
        let log = world.qbox.log();
        let told = log
            .lines()
            .filter(|line| line.contains("DEBUG") && line.contains(id))
            .count();
        Ok((told > 3).then_some(told))
    })?;
    ensure!(told > 3, "{told}");
    // What is no filter changes nothing.
    let (done, said) = log(&["x=y=z"])?;
    ensure!(!done && said.contains("is not a log filter"), "{said}");
    assert_eq!(
        log(&["--json"])?.1.trim().replace([' ', '\n'], ""),
        r#"{"filter":"qbox=debug,info"}"#
    );
    // The file has the last word when it changes.
    let path = world.qbox.config();
    let text = fs::read_to_string(&path)?;
    ensure!(text.contains("level = \"info\""), "{text}");
    replace(&path, &text.replace("level = \"info\"", "level = \"warn\""))?;
    wait_for("the file's filter to hold", DEADLINE, || {
        Ok((log(&[])?.1 == "warn\n").then_some(()))
    })
}
