//! The whole of Qbox on a disk that runs full, or fails a sync, under load: it says so, begins nothing more, sends nothing that the
//! journal doesn't vouch for; and a start on the mended disk brings every saga to its end.

use crate::disk::{Disk, Sync};
use crate::mount::Mounted;
use anyhow::{Context, Result, ensure};
use qbox_tests::{BOOK_TRIP, DEADLINE, Qbox, Settings, World, wait_for, workspace};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::thread;

const WISH: &str = r#"{"guest":"Ada"}"#;
const ALL: [&str; 3] = ["hotel", "flight", "car"];

/// Twelve callers who book trips, each its own, until one is answered by no saga; then they say what each was answered:
/// the status, and the saga's id if there is one.
const CALLERS: &str = r#"
import http.client, json, threading
answers, stopped = {}, threading.Event()
def work(n):
    for i in range(400):
        if stopped.is_set(): return
        trip = "%d" % (n * 1000 + i)
        c = http.client.HTTPConnection("trips.default.svc", 8080, timeout=60)
        try:
            c.request("POST", "/trips/" + trip, json.dumps({"guest": "Ada" * 300}))
            r = c.getresponse()
            body = r.read()
            saga = json.loads(body).get("saga") if r.status in (201, 502) else None
            answers[trip] = [r.status, saga]
            if r.status == 503: stopped.set()
        except OSError:
            answers[trip] = [0, None]
        c.close()
threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
for t in threads: t.start()
for t in threads: t.join()
print(json.dumps(answers))
"#;

/// By trip: the status that its caller got, and the saga's id.
type Answers = BTreeMap<String, (u16, Option<String>)>;

/// How many messages of sagas the services have got.
fn asked(world: &World) -> Result<usize> {
    ALL.iter()
        .map(|name| Ok(world.service(name)?.asked().len()))
        .sum()
}

/// Books under load on a disk that `fails` is done to, until Qbox takes no more; gives what `/readyz` says then.
fn stops_and_goes_on(fails: impl FnOnce(&mut Disk)) -> Result<String> {
    let mounted = Mounted::new(Disk::new())?;
    let text = std::fs::read_to_string(workspace().join(BOOK_TRIP))?;
    let settings = Settings {
        state: Some(mounted.state()),
        ..Settings::saga(text)
    };
    let mut world = World::new(&settings)?;
    ensure!(world.book("1", WISH)?.0 == 201, "all is well at first");
    ensure!(world.qbox.admin().get("/readyz")?.status == 200, "ready at first");
    fails(&mut mounted.disk());
    let answers = world.client.python(CALLERS, &[])?;
    let answers: Answers = serde_json::from_str(&answers)?;

    // It says so, and begins nothing more.
    let ready = wait_for("readiness to be red", DEADLINE, || {
        let ready = world.qbox.admin().get("/readyz")?;
        Ok((ready.status == 503).then_some(ready.body))
    })?;
    let sent = wait_for("nothing to be sent any more", DEADLINE, || {
        let before = asked(&world)?;
        thread::sleep(std::time::Duration::from_millis(300));
        Ok((asked(&world)? == before).then_some(before))
    })?;
    for trip in ["2", "3"] {
        let (status, reply) = world.book(trip, WISH)?;
        ensure!(status == 503, "a trigger got {status}: {reply}");
    }
    ensure!(
        asked(&world)? == sent,
        "something was sent for a saga that can't begin"
    );

    // The disk is mended, and Qbox starts again.
    world.qbox.stop(Signal::KILL)?;
    {
        let mut disk = mounted.disk();
        (disk.space, disk.sync) = (None, Sync::Honest);
    }
    world.qbox = Qbox::start(&world.node, &settings)?;
    let ends = wait_for("all sagas to end", 3 * DEADLINE, || ends(&world))?;
    agree(&world, &answers, &ends)?;
    // It is as good as new.
    world.qbox.wait_for_pod(world.client.name())?;
    ensure!(world.book("4", WISH)?.0 == 201, "it takes no triggers");
    // Before the disk goes.
    world.qbox.stop(Signal::TERM)?;
    Ok(ready)
}

/// Each saga's state, by its id, once all have ended.
fn ends(world: &World) -> Result<Option<BTreeMap<String, String>>> {
    let mut ends = BTreeMap::new();
    let mut page = "/api/v1/sagas?limit=1000".to_owned();
    loop {
        let list = world.qbox.admin().json(&page)?;
        for saga in list["sagas"].as_array().context("no sagas")? {
            let text = |key: &str| saga[key].as_str().unwrap_or_default().to_owned();
            if !matches!(&*text("state"), "committed" | "compensated") {
                return Ok(None);
            }
            ends.insert(text("id"), text("state"));
        }
        match list["next"].as_str() {
            Some(next) => page = format!("/api/v1/sagas?limit=1000&cursor={next}"),
            None => return Ok(Some(ends)),
        }
    }
}

/// What was sent, what is booked and what was answered agree with what Qbox says.
fn agree(world: &World, answers: &Answers, ends: &BTreeMap<String, String>) -> Result<()> {
    let mut trips: BTreeMap<String, String> = BTreeMap::new();
    for name in ALL {
        for asked in world.service(name)?.asked() {
            let saga = asked.header("x-qbox-transactionid").context("no saga's")?;
            ensure!(
                ends.contains_key(saga),
                "{name} was asked for {saga}, of which the journal knows nothing"
            );
            let trip = asked.target.rsplit('/').next().unwrap_or_default();
            trips.insert(trip.to_owned(), saga.to_owned());
        }
    }
    for (trip, saga) in &trips {
        let booked = world.booked(trip);
        let state = ends.get(saga).map(String::as_str);
        let right = match state {
            Some("committed") => booked == ALL,
            _ => booked.is_empty(),
        };
        ensure!(right, "saga {saga} is {state:?}, and {booked:?} have trip {trip}");
    }
    for (trip, (status, saga)) in answers.iter().filter(|(_, (status, _))| *status == 201) {
        let saga = saga.as_deref().unwrap_or_default();
        let state = ends.get(saga).map(String::as_str);
        ensure!(
            state == Some("committed"),
            "trip {trip} was answered {status}, and is {state:?}"
        );
    }
    let done = answers.values().filter(|(status, _)| *status == 201).count();
    ensure!(done > 10, "only {done} trips were booked: that shows nothing");
    let turned_away = answers.values().filter(|(status, _)| *status == 503).count();
    ensure!(turned_away > 0, "nobody was turned away");
    Ok(())
}

#[test]
fn qbox_on_a_full_disk() -> Result<()> {
    let ready = stops_and_goes_on(|disk| disk.space = Some(disk.used() + (512 << 10)))?;
    ensure!(ready.contains("no space is left"), "{ready}");
    Ok(())
}

#[test]
fn qbox_and_a_sync_that_fails() -> Result<()> {
    let ready = stops_and_goes_on(|disk| disk.sync = Sync::Fails(120))?;
    ensure!(ready.contains("the disk failed"), "{ready}");
    Ok(())
}
