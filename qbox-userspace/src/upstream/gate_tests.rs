//! Places in order of arrival, circuits, and a bounded number of doors.

use super::*;
use crate::upstream::dial::Via;

fn gate(per_key: usize) -> Arc<Gate> {
    Arc::new(Gate::new(Bounds {
        per_key,
        total: 10,
        breaker: Breaker {
            failures: 2,
            open_for: Duration::from_secs(5),
        },
    }))
}

fn key(name: &str) -> Key {
    Key::new(&Via::Node, name.to_owned(), false)
}

fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

/// Two failed connects.
async fn open(gate: &Gate, name: &str) {
    for _ in 0..2 {
        let mut pass = gate.enter(&key(name), false, within(1)).await.unwrap();
        pass.failed("connection refused");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_is_waited_for_and_no_longer_than_said() {
    let gate = gate(1);
    let first = gate.enter(&key("hotel:1"), false, within(1)).await.unwrap();
    assert_eq!((gate.stats().in_flight, gate.stats().held), (1, 0));
    let refused = gate.enter(&key("hotel:1"), false, within(1)).await.unwrap_err();
    assert_eq!(refused, "as many calls as may be are in flight to hotel:1");
    let _another = gate.enter(&key("flight:1"), false, within(1)).await.unwrap();
    drop(first);
    let _next = gate.enter(&key("hotel:1"), false, within(1)).await.unwrap();
    let stats = gate.stats();
    assert_eq!((stats.in_flight, stats.waiting, stats.held), (2, 0, 1));
    assert_eq!(stats.crowded, 1, "the one that was refused");
}

#[tokio::test(start_paused = true)]
async fn places_are_given_in_order_of_arrival() {
    let gate = gate(1);
    let first = gate.enter(&key("hotel:1"), false, within(1)).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..5 {
        let (gate, tell) = (Arc::clone(&gate), tell.clone());
        tokio::spawn(async move {
            let _pass = gate.enter(&key("hotel:1"), false, within(60)).await.unwrap();
            tell.send(n).unwrap();
        });
        tokio::task::yield_now().await;
    }
    assert_eq!(gate.stats().waiting, 5);
    drop(first);
    for n in 0..5 {
        assert_eq!(told.recv().await, Some(n));
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_all_holds_too() {
    let gate = gate(100);
    let mut held = Vec::new();
    for n in 0..10 {
        held.push(
            gate.enter(&key(&format!("s{n}:1")), false, within(1))
                .await
                .unwrap(),
        );
    }
    let refused = gate.enter(&key("hotel:1"), false, within(1)).await.unwrap_err();
    assert_eq!(refused, "as many calls as may be are in flight");
}

#[tokio::test(start_paused = true)]
async fn while_a_circuit_is_open_the_hasty_are_turned_away_and_the_patient_wait() {
    let gate = gate(10);
    open(&gate, "hotel:1").await;
    let stats = gate.stats();
    assert_eq!((stats.opened, stats.open.len()), (1, 1));
    assert_eq!(stats.open[0].upstream, "hotel:1");
    let refused = gate.enter(&key("hotel:1"), false, within(60)).await.unwrap_err();
    assert_eq!(
        refused,
        "the circuit to hotel:1 has been open for 0.0ns: connection refused"
    );
    let began = Instant::now();
    gate.enter(&key("hotel:1"), true, within(2)).await.unwrap_err();
    assert_eq!(
        began.elapsed(),
        Duration::from_secs(2),
        "patient, but not for ever"
    );
    let mut trial = gate.enter(&key("hotel:1"), true, within(60)).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    // Others wait for what the trial says; here: that the service is there again.
    let other = Arc::clone(&gate);
    let waits = tokio::spawn(async move { other.enter(&key("hotel:1"), true, within(60)).await.is_ok() });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waits.is_finished());
    trial.connected();
    assert!(waits.await.unwrap());
    assert_eq!(gate.stats().open, []);
    assert_eq!(
        gate.stats().in_flight,
        1,
        "who waited for it holds no other place"
    );
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_fails_or_is_dropped_makes_way_for_the_next() {
    let gate = gate(10);
    open(&gate, "hotel:1").await;
    let began = Instant::now();
    let mut trial = gate.enter(&key("hotel:1"), true, within(60)).await.unwrap();
    trial.failed("connection refused");
    drop(trial);
    let dropped = gate.enter(&key("hotel:1"), true, within(60)).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    drop(dropped);
    let mut last = gate.enter(&key("hotel:1"), true, within(60)).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    last.connected();
    gate.enter(&key("hotel:1"), false, within(1)).await.unwrap();
    assert_eq!(gate.stats().opened, 1, "a trial that fails opens nothing anew");
}

#[tokio::test(start_paused = true)]
async fn a_circuit_is_one_services_own() {
    let gate = gate(10);
    open(&gate, "hotel:1").await;
    gate.enter(&key("hotel:2"), false, within(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn idle_doors_are_forgotten_and_used_ones_are_not() {
    let gate = gate(1);
    let used = gate.enter(&key("used:1"), false, within(1)).await.unwrap();
    open(&gate, "open:1").await;
    for n in 0..5 * DOORS {
        gate.enter(&key(&format!("s{n}:1")), false, within(1))
            .await
            .unwrap();
        assert!(gate.doors().by_key.len() <= DOORS);
    }
    gate.enter(&key("used:1"), false, within(1)).await.unwrap_err();
    gate.enter(&key("open:1"), false, within(1)).await.unwrap_err();
    drop(used);
    // As many open ones as there may be doors: then these go too.
    for n in 0..DOORS {
        open(&gate, &format!("s{n}:1")).await;
    }
    assert!(gate.doors().by_key.len() <= DOORS);
}
