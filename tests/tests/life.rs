//! What Qbox leaves alone while it runs, and what it leaves behind when it ends, in good order or not.

use anyhow::{Context, Result, ensure};
use qbox_tests::{DEADLINE, Node, Qbox, Script, Settings, World, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

const WISH: &str = r#"{"guest":"Ada","car":"small"}"#;

/// A command's output; its comments, which hold the time, left out.
fn output(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("can't start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

/// All firewall rules of this machine's, a node's and a pod's network namespaces.
fn rules(world: Option<&World>) -> Result<Vec<String>> {
    let asked: [&[&str]; 3] = [
        &["iptables-save"],
        &["ip6tables-save"],
        &["nft", "list", "ruleset"],
    ];
    let mut all = Vec::new();
    for words in asked {
        let mut own = Command::new(words[0]);
        own.args(&words[1..]);
        all.push(output(own)?);
        if let Some(world) = world {
            let mut node = world.node.command(words[0]);
            node.args(&words[1..]);
            all.push(output(node)?);
            let mut pod = world.client.command(words[0]);
            pod.args(&words[1..]);
            all.push(output(pod)?);
        }
    }
    Ok(all)
}

#[test]
fn no_firewall_rule_changes() -> Result<()> {
    let before = rules(None)?;
    let mut world = World::book_trip()?;
    let (status, _) = world.book("7", WISH)?;
    assert_eq!(status, 201);
    let during = rules(Some(&world))?;
    let own: Vec<_> = during.iter().step_by(3).cloned().collect();
    assert_eq!(own, before);
    let inside = during.iter().enumerate().filter(|(number, _)| number % 3 != 0);
    for (_, text) in inside {
        assert_eq!(text, "", "a rule in a node's or a pod's namespace");
    }
    world.qbox.stop(Signal::TERM)?;
    assert_eq!(rules(None)?, before);
    Ok(())
}

/// Programs attached, by cgroup; those of other tests' nodes left out.
fn attached(own: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let mut bpftool = Command::new("bpftool");
    bpftool.args(["--json", "cgroup", "tree"]);
    let text = bpftool.output().context("can't start bpftool")?;
    // A cgroup of another test may go while bpftool walks, which is an error to it: its output so far is whole JSON.
    let tree: Value = serde_json::from_slice(&text.stdout).context("bpftool's output is no JSON")?;
    let own = own.display().to_string();
    let mut found = BTreeMap::new();
    for entry in tree.as_array().context("bpftool shows no list")? {
        let cgroup = entry["cgroup"].as_str().context("no cgroup")?.to_owned();
        if cgroup.contains("/qbox-e2e-") && !cgroup.starts_with(&own) {
            continue;
        }
        let programs = entry["programs"].as_array().into_iter().flatten();
        let hooks = programs.map(|program| program["attach_type"].as_str().unwrap_or("?").to_owned());
        let mut hooks: Vec<_> = hooks.collect();
        hooks.sort();
        if !hooks.is_empty() {
            found.insert(cgroup, hooks);
        }
    }
    Ok(found)
}

/// The enrolled cgroup has all of Qbox's programs and no other has any. (Those that were there before stay.)
#[test]
fn programs_are_on_the_enrolled_cgroup_only() -> Result<()> {
    let before = attached(Path::new("/none"))?;
    let mut world = World::book_trip()?;
    let mut during = attached(world.node.cgroup())?;
    let hooks = during.remove(&world.node.cgroup().display().to_string());
    let hooks = hooks.context("nothing is attached to the enrolled cgroup")?;
    // As older bpftools call them, and newer ones (libbpf's names).
    for (old, new) in [
        ("connect4", "inet4_connect"),
        ("connect6", "inet6_connect"),
        ("getpeername4", "inet4_getpeername"),
        ("getpeername6", "inet6_getpeername"),
        ("sock_ops", "sock_ops"),
    ] {
        let named = |found: &String| found.ends_with(old) || found.ends_with(new);
        ensure!(hooks.iter().any(named), "no {old} among {hooks:?}");
    }
    assert_eq!(during, before, "another cgroup has programs");
    world.qbox.stop(Signal::TERM)?;
    assert_eq!(attached(world.node.cgroup())?, before);
    Ok(())
}

/// Nothing is attached any more, and what would be a trigger goes to the service itself, in plain.
fn assert_gone(world: &World) -> Result<()> {
    let cgroup = world.node.cgroup();
    wait_for("the programs to be detached", DEADLINE, || {
        let key = cgroup.display().to_string();
        Ok((!attached(cgroup)?.contains_key(&key)).then_some(()))
    })?;
    let (_, answer) = world.book("8", WISH)?;
    assert_eq!(answer["service"], "trips", "{answer}");
    assert_eq!(answer["peer"], world.client.ipv4().to_string());
    assert_eq!(world.booked("8"), ["trips"]);
    Ok(())
}

#[test]
fn sigterm_leaves_nothing_attached() -> Result<()> {
    let mut world = World::book_trip()?;
    assert_eq!(world.book("7", WISH)?.0, 201);
    let status = world.qbox.stop(Signal::TERM)?;
    ensure!(status.success(), "{status}: {}", world.qbox.log());
    assert_gone(&world)?;
    ensure!(!world.qbox.socket().exists(), "the admin socket is left");
    Ok(())
}

#[test]
fn sigint_ends_it_likewise() -> Result<()> {
    let mut world = World::book_trip()?;
    let status = world.qbox.stop(Signal::INT)?;
    ensure!(status.success(), "{status}: {}", world.qbox.log());
    assert_gone(&world)
}

#[test]
fn sigkill_leaves_nothing_attached_and_a_new_one_starts() -> Result<()> {
    let mut world = World::book_trip()?;
    assert_eq!(world.book("7", WISH)?.0, 201);
    world.qbox.stop(Signal::KILL)?;
    assert_gone(&world)?;
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    world.qbox = Qbox::start(&world.node, &Settings::saga(text))?;
    world.qbox.wait_for_pod("client")?;
    assert_eq!(world.book("9", WISH)?.0, 201);
    Ok(())
}

/// A new connection for each request, as fast as it goes, until told to end. Connections that break are in flight when
/// Qbox dies; one that is refused has met programs without a listener.
const LOAD: &str = r#"
import http.client, sys, threading
stop = threading.Event()
seen = {"ok": 0, "broken": 0, "refused": 0, "last": ""}
def work():
    while not stop.is_set():
        c = http.client.HTTPConnection("trips", 8080, timeout=30)
        try:
            c.request("GET", "/trips/7")
            c.getresponse().read()
            seen["ok"] += 1; seen["last"] = "ok"
        except ConnectionRefusedError:
            seen["refused"] += 1; seen["last"] = "refused"
        except (OSError, http.client.HTTPException):
            seen["broken"] += 1; seen["last"] = "broken"
        c.close()
        if seen["ok"] == 50: print("warm", flush=True)
t = threading.Thread(target=work)
t.start()
sys.stdin.read()
stop.set()
t.join()
print("refused %(refused)d broken %(broken)d last %(last)s" % seen)
"#;

/// Ends Qbox under that load, waits for a hundred requests more, and says what the load says.
fn end_under_load(signal: Signal) -> Result<String> {
    let mut world = World::book_trip()?;
    let asked = |world: &World| -> Result<usize> { Ok(world.service("trips")?.count("GET")) };
    let mut load = Script::start(&world.client, LOAD)?;
    assert_eq!(load.line()?, "warm");
    world.qbox.stop(signal)?;
    let at_end = asked(&world)?;
    wait_for("requests after its end", DEADLINE, || {
        Ok((asked(&world)? > at_end + 100).then_some(()))
    })?;
    load.end()?
        .into_iter()
        .find(|line| line != "warm")
        .context("the load said nothing")
}

#[test]
fn no_connection_is_refused_when_it_is_killed_under_load() -> Result<()> {
    let seen = end_under_load(Signal::KILL)?;
    ensure!(
        seen.starts_with("refused 0 ") && seen.ends_with(" last ok"),
        "{seen}"
    );
    Ok(())
}

#[test]
fn nothing_breaks_when_it_stops_under_load() -> Result<()> {
    assert_eq!(end_under_load(Signal::TERM)?, "refused 0 broken 0 last ok");
    Ok(())
}

/// A request in flight when the order to stop comes is still answered.
#[test]
fn a_stopping_qbox_finishes_its_sagas() -> Result<()> {
    let mut world = World::book_trip()?;
    let late = std::time::Duration::from_millis(900);
    world
        .service("car")?
        .when_booking(qbox_tests::Act::ServeLate(late));
    let client = world
        .client
        .command("curl")
        .args([
            "-sS",
            "-X",
            "POST",
            "http://trips.default.svc:8080/trips/7",
            "-d",
            WISH,
        ])
        .stdout(Stdio::piped())
        .spawn()?;
    wait_for("the car to be asked", DEADLINE, || {
        Ok((world.service("car")?.count("PUT") > 0).then_some(()))
    })?;
    let status = world.qbox.stop(Signal::TERM)?;
    ensure!(status.success(), "{status}: {}", world.qbox.log());
    let answer = String::from_utf8(client.wait_with_output()?.stdout)?;
    assert!(
        answer.contains("\"booked\":true"),
        "{answer:?}\n{}",
        world.qbox.log()
    );
    assert_eq!(world.booked("7"), ["hotel", "flight", "car"]);
    Ok(())
}

/// The cgroup that Qbox had to make goes with it.
#[test]
fn a_cgroup_of_its_own_making_is_removed() -> Result<()> {
    let node = Node::new()?;
    let below = node.cgroup().join("made");
    let mut qbox = Qbox::start_in(&node, &below, &Settings::default())?;
    ensure!(below.is_dir());
    qbox.stop(Signal::TERM)?;
    ensure!(!below.exists(), "{}", qbox.log());
    Ok(())
}
