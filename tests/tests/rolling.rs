//! A rolling update as a DaemonSet with `maxSurge: 1` does it: the next Qbox starts beside the one that runs, is ready once it has
//! its place, and the other one is told to stop. Under load, back and forth, and when the next one is no good.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, DEADLINE, Qbox, Script, Settings, World, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;
const ALL: [&str; 3] = ["hotel", "flight", "car"];
const ROUNDS: usize = 5;

/// About 200 requests a second: most pass through, on connections that are kept and on new ones, some of them slow, some with a body;
/// the rest are bookings. A line for each hundred; at the end of standard input, what became of all.
const LOAD: &str = r#"
import http.client, json, sys, threading, time
stop, lock = threading.Event(), threading.Lock()
passed, failed, bookings, began = [0], [], {}, time.monotonic()
class Client:
    def __init__(self, kept): self.kept, self.c = kept, None
    def ask(self, method, path, body=None):
        if self.c is None: self.c = http.client.HTTPConnection("trips.default.svc", 8080, timeout=60)
        try:
            self.c.request(method, path, body)
            r = self.c.getresponse()
            r.read()
            return r.status
        finally:
            # Python connects again by itself where an answer has said that it is the last.
            if not self.kept:
                self.c.close()
                self.c = None
def paced(rate, turn):
    due = time.monotonic()
    while not stop.is_set():
        turn()
        due += 1 / rate
        stop.wait(max(0, due - time.monotonic()))
def passing(kept, method, path, body, expected, rate):
    client = Client(kept)
    def turn():
        try:
            status = client.ask(method, path, body)
            what = None if status == expected else status
        except Exception as e:
            client.c = None
            what = repr(e)
        with lock:
            passed[0] += 1
            if what is not None: failed.append([time.monotonic() - began, method, path, kept, what])
            if passed[0] % 100 == 0: print(passed[0], flush=True)
    paced(rate, turn)
def booking(n, kept, rate):
    client, trip = Client(kept), [n]
    def turn():
        trip[0] += 100
        try: status = str(client.ask("POST", "/trips/%d" % trip[0], json.dumps({"guest": "Ada"})))
        except Exception as e:
            client.c = None
            status = repr(e)
        with lock: bookings[trip[0]] = status
    paced(rate, turn)
def thread(*what): return threading.Thread(target=what[0], args=what[1:])
threads = [thread(passing, True, "GET", "/bookings/x", None, 404, 20) for _ in range(4)]
threads += [thread(passing, False, "GET", "/bookings/x", None, 404, 10) for _ in range(4)]
threads += [thread(passing, kept, "PUT", "/others/1", "x" * 100000, 201, 5) for kept in (True, False)]
threads += [thread(passing, kept, "GET", "/bookings/slow", None, 404, 1) for kept in (True, True, False, False, False)]
threads += [thread(booking, n, n % 2 == 0, 5) for n in range(1, 13)]
for t in threads: t.start()
sys.stdin.read()
stop.set()
for t in threads: t.join()
print(json.dumps([passed[0], failed, bookings, time.monotonic() - began]))
"#;

/// How many passed; those of them that failed; what each booking was answered; the seconds that it took.
type Outcome = (usize, Vec<Value>, BTreeMap<String, String>, f64);

struct Load(Script);

impl Load {
    fn start(world: &World) -> Result<Self> {
        Ok(Self(Script::start(&world.client, LOAD)?))
    }

    /// Waits for some hundreds more to have passed.
    fn more(&mut self, hundreds: usize) -> Result<()> {
        for _ in 0..hundreds {
            self.0.line()?;
        }
        Ok(())
    }

    fn end(self) -> Result<Outcome> {
        let last = self.0.end()?.pop().context("the load said nothing")?;
        serde_json::from_str(&last).with_context(|| format!("the load's last words: {last}"))
    }
}

/// The saga of `config/`, with services that are slow for some, and a car that some don't get.
fn world() -> Result<World> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    let world = World::new(&Settings::saga(text))?;
    let every = |asked: &qbox_tests::Asked, nth: u64| {
        let id = asked
            .target
            .rsplit('/')
            .next()
            .and_then(|id| id.parse::<u64>().ok());
        asked.method == "PUT" && id.is_some_and(|id| (id / 100) % nth == 0)
    };
    world
        .service("flight")?
        .script(move |asked| match every(asked, 7) {
            true => Act::ServeLate(Duration::from_secs(1)),
            false => Act::Serve,
        });
    world.service("car")?.script(move |asked| match every(asked, 11) {
        true => Act::Refuse(409),
        false => Act::Serve,
    });
    world
        .service("trips")?
        .script(|asked| match asked.target.ends_with("/slow") {
            true => Act::ServeAfter(Duration::from_millis(1500)),
            false => Act::Serve,
        });
    Ok(world)
}

/// Nothing that passes has failed; no trigger went past Qbox; each trip is booked whole or not at all, as its caller was told.
fn judge(world: &World, outcome: &Outcome) -> Result<()> {
    let (passed, failed, bookings, seconds) = outcome;
    let count = |status: &str| bookings.values().filter(|one| *one == status).count();
    println!(
        "{passed} passed, {} failed; {} bookings: {} committed, {} undone, {} not begun or answered by the next Qbox alone; {:.0} requests a second",
        failed.len(),
        bookings.len(),
        count("201"),
        count("502"),
        count("503"),
        (*passed + bookings.len()) as f64 / seconds
    );
    ensure!(failed.is_empty(), "{failed:?}");
    wait_for("all sagas to have ended", DEADLINE, || {
        let status = world.qbox.admin().json("/api/v1/status")?;
        Ok((status["sagas"]["in_flight"] == 0).then_some(()))
    })?;
    for (trip, status) in bookings {
        let booked = world.booked(trip);
        ensure!(
            booked.is_empty() || booked == ALL,
            "trip {trip} ({status}) is half booked: {booked:?}"
        );
        match status.as_str() {
            "201" => ensure!(booked == ALL, "trip {trip} was promised"),
            "502" => ensure!(booked.is_empty(), "trip {trip} was refused"),
            "503" => {}
            other => anyhow::bail!("trip {trip}: {other}"),
        }
    }
    let past = world.service("trips")?.asked();
    let past: Vec<_> = past.iter().filter(|asked| asked.method == "POST").collect();
    ensure!(
        past.is_empty(),
        "{} triggers went past Qbox: {:?}",
        past.len(),
        past.first()
    );
    ensure!(
        count("503") * 5 < bookings.len(),
        "too many bookings weren't begun"
    );
    Ok(())
}

/// Waits until one that has handed over follows the other.
fn stands_by(qbox: &Qbox) -> Result<()> {
    wait_for("the old one to stand by", DEADLINE, || {
        let log = qbox.log();
        let (follows, before) = (log.rfind("following the Qbox"), log.rfind("handing over"));
        Ok((follows > before).then_some(()))
    })
}

/// Each is told to stop as soon as the next one is ready, while it still has connections and sagas.
#[test]
fn a_rolling_update_under_load() -> Result<()> {
    let mut world = world()?;
    let mut load = Load::start(&world)?;
    load.more(3)?;
    for _ in 0..ROUNDS {
        let next = world.qbox.roll_out(&world.node)?;
        let mut before = std::mem::replace(&mut world.qbox, next);
        before.signal(Signal::TERM)?;
        load.more(3)?;
        let status = before.wait()?;
        ensure!(status.success(), "{status}: {}", before.log());
    }
    judge(&world, &load.end()?)
}

/// As [`world`], behind a first rollout: the Qbox that runs came by one.
fn rolled_out() -> Result<World> {
    let mut world = world()?;
    let first = world.qbox.roll_out(&world.node)?;
    let mut plain = std::mem::replace(&mut world.qbox, first);
    ensure!(plain.wait()?.success(), "{}", plain.log());
    Ok(world)
}

/// The rollout is undone while both pods run: the new one is told to stop, and the old one, which stands by, takes its place again.
#[test]
fn an_update_that_is_undone_under_load() -> Result<()> {
    let mut world = rolled_out()?;
    let mut load = Load::start(&world)?;
    load.more(3)?;
    for _ in 0..ROUNDS {
        let mut next = world.qbox.roll_out(&world.node)?;
        load.more(3)?;
        stands_by(&world.qbox)?;
        next.signal(Signal::TERM)?;
        world.qbox.wait_for_turn()?;
        load.more(1)?;
        let status = next.wait()?;
        ensure!(status.success(), "{status}: {}", next.log());
    }
    judge(&world, &load.end()?)
}

/// The new one is told to stop while the old one still ends its connections, and does not follow it yet.
#[test]
fn an_update_that_is_undone_at_once() -> Result<()> {
    let mut world = rolled_out()?;
    let slow = world
        .client
        .command("curl")
        .args([
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://trips.default.svc:8080/bookings/slow",
        ])
        .stdout(Stdio::piped())
        .spawn()?;
    wait_for("the slow one to be under way", DEADLINE, || {
        let asked = world.service("trips")?.asked();
        Ok(asked
            .iter()
            .any(|one| one.target.ends_with("/slow"))
            .then_some(()))
    })?;
    let mut next = world.qbox.roll_out(&world.node)?;
    ensure!(!world.qbox.log().contains("standing by"), "it has nothing to end");
    let status = next.stop(Signal::TERM)?;
    ensure!(status.success(), "{status}: {}", next.log());
    world.qbox.wait_for_turn()?;
    assert_eq!(slow.wait_with_output()?.stdout, b"404");
    world.qbox.wait_for_pod(world.client.name())?;
    assert_eq!(world.book("100", WISH)?.0, 201);
    Ok(())
}

/// The next one dies: the one that stands by takes its place at once, and ends when it is told to, in either state.
#[test]
fn who_stands_by_takes_a_dead_ones_place() -> Result<()> {
    let mut world = rolled_out()?;
    let mut next = world.qbox.roll_out(&world.node)?;
    stands_by(&world.qbox)?;
    next.stop(Signal::KILL)?;
    world.qbox.wait_for_turn()?;
    world.qbox.wait_for_pod(world.client.name())?;
    assert_eq!(world.book("100", WISH)?.0, 201);
    let mut third = world.qbox.roll_out(&world.node)?;
    assert_eq!(world.book("200", WISH)?.0, 201);
    ensure!(world.qbox.stop(Signal::TERM)?.success(), "{}", world.qbox.log());
    assert_eq!(world.book("300", WISH)?.0, 201);
    ensure!(third.stop(Signal::TERM)?.success(), "{}", third.log());
    Ok(())
}

/// The next one dies while it is handed the place, or just after, before it answers to anybody.
#[test]
fn who_hands_over_to_a_dying_one_takes_its_place_again() -> Result<()> {
    let mut world = rolled_out()?;
    // A saga that holds the handover up: this trip's flight takes a second.
    let url = "http://trips.default.svc:8080/trips/700";
    let mut slow = world
        .client
        .command("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-d", WISH, url])
        .stdout(Stdio::piped())
        .spawn()?;
    wait_for("the slow saga to be under way", DEADLINE, || {
        Ok(world.service("flight")?.asked().pop().map(drop))
    })?;
    let mut next = world.qbox.begin_to_roll_out(&world.node)?;
    wait_for("the handover to begin", DEADLINE, || {
        Ok(world.qbox.log().contains("handing over").then_some(()))
    })?;
    next.stop(Signal::KILL)?;
    let died = std::time::Instant::now();
    world.qbox.wait_for_turn()?;
    let took = died.elapsed();
    println!("its place taken again {took:?} after the next one died");
    ensure!(took < Duration::from_secs(10), "{took:?}");
    ensure!(slow.wait()?.success(), "the saga under way was not answered");
    world.qbox.wait_for_pod(world.client.name())?;
    assert_eq!(world.book("100", WISH)?.0, 201);
    assert_eq!(world.booked("700"), ALL);
    Ok(())
}

/// A next one that can't use the journal says so before it is handed anything, ends, and the old one goes on.
#[test]
fn a_version_that_can_not_go_on_is_not_handed_anything() -> Result<()> {
    let world = world()?;
    assert_eq!(world.book("100", WISH)?.0, 201);
    let journal = world.qbox.config().with_file_name("state").join("journal.db");
    let version = |number: &str| -> Result<()> {
        let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=20)\nc.execute('PRAGMA user_version = ' + sys.argv[2])";
        let mut python = Command::new("python3");
        let status = python.args(["-c", script]).arg(&journal).arg(number).status()?;
        ensure!(status.success(), "{status}");
        Ok(())
    };
    version("99")?;
    let mut next = world.qbox.begin_to_roll_out(&world.node)?;
    let status = next.wait()?;
    ensure!(!status.success(), "{status}");
    let log = next.log();
    ensure!(log.contains("is of version 99"), "{log}");
    version("3")?;
    assert_eq!(world.book("200", WISH)?.0, 201);
    ensure!(!world.qbox.log().contains("handing over"), "{}", world.qbox.log());
    Ok(())
}
