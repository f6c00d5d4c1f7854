//! Qbox is killed with SIGKILL and started again on the same state directory: no saga is left half-way, what was answered
//! stays true, and a caller's key finds what became of its saga.

use anyhow::{Context, Result};
use qbox_tests::{Act, DEADLINE, Qbox, Settings, World, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::thread;
use std::time::Duration;

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;
const TRIP: &str = "http://trips.default.svc:8080/trips/7";
const KEY: &str = "Idempotency-Key: \"trip-7\"";
const ALL: [&str; 3] = ["hotel", "flight", "car"];

/// The saga of `config/`, with more keys at its top.
fn settings(more: &str) -> Result<Settings> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    Ok(Settings::saga(format!("{more}\n{text}")))
}

/// A booking of trip 7 under a key.
fn book(world: &World) -> Result<(u16, Value)> {
    let words = ["-X", "POST", TRIP, "-d", WISH, "-H", KEY];
    let (status, body) = world.client.http(words)?;
    Ok((status, serde_json::from_str(&body).unwrap_or_default()))
}

fn kill_and_start_again(world: &mut World, settings: &Settings) -> Result<()> {
    world.qbox.stop(Signal::KILL)?;
    world.qbox = Qbox::start(&world.node, settings)?;
    world.qbox.wait_for_pod(world.client.name())
}

/// Books while the car takes its time, and kills Qbox once the car has booked.
fn killed_half_way(settings: &Settings) -> Result<World> {
    let mut world = World::new(settings)?;
    world
        .service("car")?
        .when_booking(Act::ServeLate(Duration::from_secs(60)));
    thread::scope(|scope| {
        let caller = scope.spawn(|| book(&world));
        let booked = wait_for("all three to have booked", DEADLINE, || {
            Ok((world.booked("7") == ALL).then_some(()))
        });
        world.qbox.signal(Signal::KILL)?;
        let heard = caller.join().ok().context("the caller panicked")?;
        assert!(heard.is_err(), "nobody could have answered: {heard:?}");
        booked
    })?;
    world.service("car")?.script(|_| Act::Serve);
    kill_and_start_again(&mut world, settings)?;
    Ok(world)
}

/// Waits until no saga is under way, and gives all that are listed.
fn ended(world: &World) -> Result<Vec<Value>> {
    wait_for("all sagas to end", DEADLINE, || {
        let sagas = world.qbox.admin().sagas()?;
        let over = |saga: &Value| matches!(saga["state"].as_str(), Some("committed" | "compensated"));
        Ok(sagas.iter().all(over).then_some(sagas))
    })
}

#[test]
fn a_saga_that_was_killed_half_way_is_undone() -> Result<()> {
    let world = killed_half_way(&settings("")?)?;
    let sagas = ended(&world)?;
    assert_eq!(sagas.len(), 1, "{sagas:?}");
    assert_eq!(sagas[0]["state"], "compensated");
    assert!(world.booked("7").is_empty(), "{:?}", world.booked("7"));

    let (status, reply) = book(&world)?;
    assert_eq!((status, &reply["booked"]), (502, &Value::Bool(false)));
    assert_eq!(
        reply["saga"], sagas[0]["id"],
        "the key finds the saga that was killed"
    );
    assert_eq!(world.service("hotel")?.count("PUT"), 1, "nothing is booked again");
    let saga = world
        .qbox
        .admin()
        .saga(sagas[0]["id"].as_str().context("no id")?)?;
    let events = saga["events"].as_array().context("no events")?;
    assert!(
        events.iter().any(|event| event["kind"] == "recovered"),
        "{saga:#}"
    );
    Ok(())
}

#[test]
fn a_saga_that_was_killed_half_way_goes_on_where_its_file_says_so() -> Result<()> {
    let world = killed_half_way(&settings("on_recovery = \"resume\"")?)?;
    let sagas = ended(&world)?;
    assert_eq!(sagas[0]["state"], "committed", "{sagas:?}");
    assert_eq!(world.booked("7"), ALL);
    let asked = world.service("car")?.asked();
    let keys: Vec<_> = asked
        .iter()
        .map(|asked| asked.header("idempotency-key"))
        .collect();
    assert!(
        keys.len() > 1 && keys.iter().all(|key| *key == keys[0]),
        "one key: {keys:?}"
    );
    let (status, reply) = book(&world)?;
    assert_eq!((status, &reply["saga"]), (201, &sagas[0]["id"]));
    Ok(())
}

#[test]
fn what_was_answered_is_answered_again_after_a_restart() -> Result<()> {
    let settings = settings("")?;
    let mut world = World::new(&settings)?;
    let first = book(&world)?;
    assert_eq!(first.0, 201);
    kill_and_start_again(&mut world, &settings)?;
    assert_eq!(book(&world)?, first);
    assert_eq!(world.service("hotel")?.count("PUT"), 1);
    let words = ["-X", "POST", TRIP, "-d", "{}", "-H", KEY];
    assert_eq!(
        world.client.http(words)?.0,
        422,
        "the key stands for another request"
    );
    Ok(())
}

#[test]
fn a_second_qbox_on_the_same_state_is_refused() -> Result<()> {
    let settings = settings("")?;
    let world = World::new(&settings)?;
    let other = world.node.folder().join("other");
    std::fs::create_dir(&other)?;
    let state = world.node.folder().join("qbox/state");
    let text = format!(
        "state_dir = {state:?}\n[capture]\nmode = \"explicit\"\n[explicit]\nlisten = \"127.0.0.1:0\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\nsocket = {:?}\n",
        other.join("admin.sock")
    );
    std::fs::write(other.join("qbox.toml"), text)?;
    std::fs::create_dir(other.join("sagas"))?;
    let ended = std::process::Command::new(qbox_tests::binary()?)
        .args(["run", "--config"])
        .arg(other.join("qbox.toml"))
        .output()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success());
    let named = format!("another Qbox (process {}) works in", world.qbox.id());
    assert!(said.contains(&named), "{said}");
    assert_eq!(world.book("7", WISH)?.0, 201, "the first is as well as before");
    Ok(())
}

/// 60 triggers from 20 threads; callers that are cut off don't mind.
const BOOKINGS: &str = r#"
import http.client, json, threading
promised = []
def work(n):
    for i in range(3):
        trip = n * 3 + i
        try:
            c = http.client.HTTPConnection("trips.default.svc", 8080, timeout=30)
            c.request("POST", "/trips/%d" % trip, json.dumps({"guest": "Ada"}))
            r = c.getresponse()
            reply = json.loads(r.read())
            # Without Qbox the service itself takes the request, and knows of no saga.
            if "saga" in reply and reply["booked"]: promised.append(str(trip))
            c.close()
        except Exception:
            pass
threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
for t in threads: t.start()
for t in threads: t.join()
print(json.dumps(promised))
"#;

#[test]
fn killed_under_load_each_booking_is_whole_or_gone() -> Result<()> {
    let settings = settings("")?;
    let mut world = World::new(&settings)?;
    for (name, milliseconds) in ALL.into_iter().zip([5, 20, 60]) {
        let late = Act::ServeLate(Duration::from_millis(milliseconds));
        world.service(name)?.script(move |_| late.clone());
    }
    let promised = thread::scope(|scope| {
        let callers = scope.spawn(|| world.client.python(BOOKINGS, &[]));
        let flight = world.service("flight")?;
        wait_for("bookings to be under way", DEADLINE, || {
            Ok((flight.count("PUT") >= 25).then_some(()))
        })?;
        world.qbox.signal(Signal::KILL)?;
        callers.join().ok().context("the callers panicked")?
    })?;
    kill_and_start_again(&mut world, &settings)?;
    let committed = ended(&world)?
        .iter()
        .filter(|saga| saga["state"] == "committed")
        .count();
    let ledger = |name| world.service(name).map(|service| service.ledger());
    let hotel = ledger("hotel")?;
    assert_eq!(hotel.len(), committed);
    assert_eq!(
        (ledger("flight")?, ledger("car")?),
        (hotel.clone(), hotel.clone())
    );
    for trip in serde_json::from_str::<Vec<String>>(&promised)? {
        assert!(hotel.contains(&trip), "trip {trip} was promised");
    }
    Ok(())
}
