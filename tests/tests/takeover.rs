//! `qbox run --takeover`: one Qbox takes another's place while connections come, and nothing is refused, broken or half done.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, DEADLINE, Script, Settings, World, ensure_bpffs, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;

fn settings(capture: &'static str) -> Result<Settings> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    Ok(Settings {
        capture,
        ..Settings::saga(text)
    })
}

/// Requests that pass through, and bookings, each on a connection of its own, until standard input ends. One line for each
/// booking, `TRIP STATUS`; at the end, what became of the requests that passed.
const LOAD: &str = r#"
import http.client, json, sys, threading
stop = threading.Event()
passed = {"ok": 0, "failed": []}
lock = threading.Lock()
def one(method, path, body=None):
    c = http.client.HTTPConnection("trips.default.svc", 8080, timeout=30)
    try:
        c.request(method, path, body)
        r = c.getresponse()
        r.read()
        return r.status
    finally:
        c.close()
def passing():
    while not stop.is_set():
        try:
            status = one("GET", "/bookings/x")
            if status == 404: passed["ok"] += 1
            else: passed["failed"].append(status)
        except Exception as e:
            passed["failed"].append(repr(e))
def booking(n):
    trip = n
    while not stop.is_set():
        trip += 10
        try: status = one("POST", "/trips/%d" % trip, json.dumps({"guest": "Ada"}))
        except Exception as e: status = repr(e)
        with lock: print(trip, status, flush=True)
threads = [threading.Thread(target=passing) for _ in range(3)] + [threading.Thread(target=booking, args=(n,)) for n in range(2)]
for t in threads: t.start()
sys.stdin.read()
stop.set()
for t in threads: t.join()
print("passed", passed["ok"], "failed", passed["failed"])
"#;

struct Load {
    script: Script,
    bookings: BTreeMap<String, String>,
}

impl Load {
    fn start(world: &World) -> Result<Self> {
        Ok(Self {
            script: Script::start(&world.client, LOAD)?,
            bookings: BTreeMap::new(),
        })
    }

    /// Waits for more bookings to have been answered.
    fn more(&mut self, count: usize) -> Result<()> {
        let enough = self.bookings.len() + count;
        while self.bookings.len() < enough {
            let line = self.script.line()?;
            self.bookings.extend(booking(&line));
        }
        Ok(())
    }

    /// What became of the requests that passed, and of all bookings.
    fn end(self) -> Result<(String, BTreeMap<String, String>)> {
        let mut said = self.script.end()?;
        let passed = said.pop().context("the load said nothing")?;
        ensure!(passed.starts_with("passed"), "{passed}");
        let mut bookings = self.bookings;
        bookings.extend(said.iter().filter_map(|line| booking(line)));
        Ok((passed, bookings))
    }
}

/// A line of a booking: the trip, and what it was answered.
fn booking(line: &str) -> Option<(String, String)> {
    let (trip, status) = line.split_once(' ')?;
    Some((trip.to_owned(), status.to_owned()))
}

/// Three in a row: each finds a port that is free.
#[test]
fn nothing_breaks_under_load() -> Result<()> {
    let settings = settings("")?;
    let mut world = World::new(&settings)?;
    let mut load = Load::start(&world)?;
    load.more(10)?;
    for _ in 0..3 {
        let next = world.qbox.take_over(&world.node)?;
        let mut before = std::mem::replace(&mut world.qbox, next);
        load.more(10)?;
        let status = before.wait()?;
        ensure!(status.success(), "{status}: {}", before.log());
        load.more(10)?;
    }
    let (passed, bookings) = load.end()?;
    ensure!(passed.ends_with("failed []"), "{passed}");
    for (trip, status) in &bookings {
        // A trigger that came to the old one when it had begun to drain: nothing was sent.
        let all: &[&str] = match status.as_str() {
            "201" => &["hotel", "flight", "car"],
            "503" => &[],
            other => anyhow::bail!("trip {trip}: {other}"),
        };
        assert_eq!(world.booked(trip), all, "trip {trip}: {status}");
    }
    let refused = bookings.values().filter(|status| *status != "201").count();
    ensure!(refused < bookings.len() / 2, "{refused} of {}", bookings.len());
    let sagas = world.qbox.admin().sagas()?;
    ensure!(sagas.iter().all(|saga| saga["state"] == "committed"), "{sagas:?}");
    let status = world.qbox.admin().json("/api/v1/status")?;
    assert_eq!(status["capture"]["others"], Value::Array(Vec::new()), "{status}");
    Ok(())
}

/// A saga that the old one can't end in time goes on in the new one; its caller is told so.
#[test]
fn a_saga_that_takes_long_is_taken_up_by_the_next() -> Result<()> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    let text = text.replace("timeout = \"2s\"", "timeout = \"60s\"");
    let settings = Settings::saga(text.replace("timeout = \"30s\"", "timeout = \"90s\""));
    let mut world = World::new(&settings)?;
    world
        .service("car")?
        .when_booking(Act::ServeLate(Duration::from_secs(120)));
    let url = "http://trips.default.svc:8080/trips/7";
    let caller = world
        .client
        .command("curl")
        .args(["-sS", "-i", "-X", "POST", url, "-d", WISH])
        .stdout(Stdio::piped())
        .spawn()?;
    wait_for("all three to have booked", DEADLINE, || {
        Ok((world.booked("7") == ["hotel", "flight", "car"]).then_some(()))
    })?;
    world.service("car")?.script(|_| Act::Serve);
    let next = world.qbox.take_over(&world.node)?;
    let mut before = std::mem::replace(&mut world.qbox, next);
    let heard = String::from_utf8(caller.wait_with_output()?.stdout)?;
    ensure!(heard.starts_with("HTTP/1.1 503 "), "{heard}");
    let saga = wait_for("the saga to be undone", DEADLINE, || {
        let sagas = world.qbox.admin().sagas()?;
        Ok(sagas.into_iter().find(|saga| saga["state"] == "compensated"))
    })?;
    let id = saga["id"].as_str().context("no id")?;
    ensure!(heard.to_lowercase().contains(id), "{heard}");
    assert!(world.booked("7").is_empty(), "{:?}", world.booked("7"));
    let status = before.wait()?;
    ensure!(status.success(), "{status}: {}", before.log());
    Ok(())
}

/// What is pinned is the new one's: it holds when that is killed. And where nobody runs, `--takeover` is a start as any.
#[test]
fn what_is_pinned_is_handed_over_too() -> Result<()> {
    ensure_bpffs()?;
    let mut world = World::new(&settings("when_down = \"refuse\"\n")?)?;
    let next = world.qbox.take_over(&world.node)?;
    let mut before = std::mem::replace(&mut world.qbox, next);
    ensure!(before.wait()?.success());
    assert_eq!(world.book("1", WISH)?.0, 201);
    world.qbox.stop(Signal::KILL)?;
    let refused = world.client.curl(["http://trips.default.svc:8080/trips/2"])?;
    ensure!(
        refused.stderr.contains("refused") || refused.stderr.contains("Failed to connect"),
        "{refused:?}"
    );
    let next = world.qbox.take_over(&world.node)?;
    world.qbox = next;
    world.qbox.wait_for_pod(world.client.name())?;
    assert_eq!(world.book("3", WISH)?.0, 201);
    world.qbox.stop(Signal::TERM)?;
    let file = world.node.folder().join("qbox/qbox.toml");
    let mut clean = std::process::Command::new(qbox_tests::binary()?);
    ensure!(clean.arg("clean").arg("--config").arg(file).status()?.success());
    Ok(())
}
