//! Outcomes that nobody knows, and services that are not there or ask for a pause: probes settle, circuits spare, retries wait.

use anyhow::{Context, Result};
use qbox_tests::{Act, Settings, World};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WISH: &str = r#"{"guest":"Ada","nights":3,"car":"small"}"#;

/// The saga of `config/`, whose hotel is asked once and has a probe.
fn probed() -> Result<World> {
    let text = std::fs::read_to_string(qbox_tests::workspace().join(qbox_tests::BOOK_TRIP))?;
    let probe = "[step.probe]\n\
        request = { method = \"GET\", url = \"http://hotel.default.svc:8080/bookings/${trigger.path.trip}\" }\n\
        retry = { attempts = 3, backoff = \"10ms..20ms\" }\n\n[[step.compensate]]";
    let text = text
        .replace("retry   = { attempts = 2, on", "# { attempts = 2, on")
        .replacen("[[step.compensate]]", probe, 1);
    World::new(&Settings::saga(text))
}

/// What the hotel does when it is asked to book, and to tell.
fn hotel(world: &World, book: Act, tell: Act) -> Result<()> {
    world
        .service("hotel")?
        .script(move |asked| match asked.method.as_str() {
            "PUT" => book.clone(),
            "GET" => tell.clone(),
            _ => Act::Serve,
        });
    Ok(())
}

fn counts(world: &World) -> Result<[usize; 3]> {
    let hotel = world.service("hotel")?;
    Ok(["PUT", "GET", "DELETE"].map(|method| hotel.count(method)))
}

#[test]
fn a_probe_that_finds_the_booking_saves_the_saga() -> Result<()> {
    let world = probed()?;
    hotel(&world, Act::ServeAndReset, Act::Serve)?;
    let (status, reply) = world.book("7", WISH)?;
    assert_eq!(status, 201, "{reply}");
    assert_eq!(world.booked("7"), ["hotel", "flight", "car"]);
    assert_eq!(counts(&world)?, [1, 1, 0]);
    Ok(())
}

#[test]
fn a_probe_that_finds_none_leaves_nothing_to_undo_there() -> Result<()> {
    let world = probed()?;
    hotel(&world, Act::Refuse(500), Act::Serve)?;
    let (status, reply) = world.book("7", WISH)?;
    assert_eq!((status, &reply["failed"]), (502, &Value::from("hotel")));
    assert!(world.booked("7").is_empty());
    assert_eq!(counts(&world)?, [1, 1, 0]);
    Ok(())
}

#[test]
fn a_probe_that_tells_nothing_leaves_it_unknown_and_it_is_undone() -> Result<()> {
    let world = probed()?;
    hotel(&world, Act::ServeAndReset, Act::Refuse(503))?;
    let (status, reply) = world.book("7", WISH)?;
    assert_eq!((status, &reply["failed"]), (502, &Value::from("hotel")));
    assert!(world.booked("7").is_empty(), "what it had booked is undone");
    assert_eq!(counts(&world)?, [1, 3, 1]);
    Ok(())
}

#[test]
fn a_circuit_opens_once_says_so_and_sends_nothing() -> Result<()> {
    let mut world = World::book_trip()?;
    world.service_mut("hotel")?.close();
    // Two attempts each: the fifth opens it.
    for trip in ["1", "2", "3", "4"] {
        let (status, reply) = world.book(trip, WISH)?;
        assert_eq!((status, &reply["failed"]), (502, &Value::from("hotel")));
        assert!(world.booked(trip).is_empty());
    }
    let log = world.qbox.log();
    assert_eq!(log.matches("circuit opened").count(), 1, "{log}");
    let status = world.qbox.admin().json("/api/v1/status")?;
    let open = status["calls"]["open"].as_array().context("no circuits")?;
    assert_eq!(open.len(), 1, "{status}");
    let upstream = open[0]["upstream"].as_str().unwrap_or_default();
    assert_eq!(upstream, "hotel.default.svc:8080");
    assert!(status["calls"]["held"].as_u64() > Some(0), "{status}");
    // The others are asked as before.
    assert_eq!(world.service("flight")?.count("PUT"), 4);
    Ok(())
}

#[test]
fn a_service_that_asks_for_a_pause_gets_it() -> Result<()> {
    let world = World::book_trip()?;
    let first = AtomicBool::new(true);
    world
        .service("hotel")?
        .script(move |_| match first.swap(false, Ordering::Relaxed) {
            true => Act::Answer(503, vec![("retry-after", "1")], "busy"),
            false => Act::Serve,
        });
    let began = Instant::now();
    let (status, reply) = world.book("7", WISH)?;
    assert_eq!(status, 201, "{reply}");
    // Its own backoff would have been half a second at the most.
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(world.service("hotel")?.count("PUT"), 2);
    Ok(())
}
