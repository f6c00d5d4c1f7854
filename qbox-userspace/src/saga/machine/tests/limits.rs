//! Where attempts end: `max_elapsed`, and what Qbox itself held back.

use super::world::*;
use crate::saga::{
    AttemptEnd, Direction, Event, OnRecovery, Plan, RetryOn, RetryPolicy, SagaState, Step, StepId, UndoState,
};
use std::time::Duration;

const T: Direction = Direction::Transaction;
const C: Direction = Direction::Compensation(0);

fn within(seconds: u64) -> RetryPolicy {
    RetryPolicy {
        max_elapsed: Some(Duration::from_secs(seconds)),
        ..retry(None, &[RetryOn::Any])
    }
}

fn held() -> AttemptEnd {
    AttemptEnd::Held("the circuit to hotel:8080 is open".to_owned())
}

/// hotel, and flight after it, which is refused: hotel is to be undone, as `policy` says.
fn undoing(policy: RetryPolicy) -> World {
    let mut steps = vec![step("hotel", &[]), step("flight", &[0])];
    steps[0].compensations[0].retry = policy;
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, answer(404, ""));
    assert_eq!(world.names(), ["hotel!0"]);
    world
}

/// When the attempts of that step and direction were sent.
fn begun(world: &World, step: u16, of: Direction) -> Vec<Duration> {
    let sent = world.journal.iter().filter_map(|event| match event {
        Event::Sending {
            step: s,
            direction,
            at,
            ..
        } if (*s, *direction) == (StepId(step), of) => Some(at.since(START)),
        _ => None,
    });
    sent.collect()
}

#[test]
fn no_attempt_of_a_step_begins_after_max_elapsed() {
    let mut often = step("hotel", &[]);
    often.retry = within(10);
    let mut world = World::new(plan(vec![often]), trigger());
    let end = world.run(|call| match call.direction {
        T => answer(503, ""),
        _ => answer(200, ""),
    });
    assert_eq!(end, SagaState::Compensated);
    let begun = begun(&world, 0, T);
    assert!(
        begun.len() > 5 && begun.iter().all(|at| *at <= Duration::from_secs(10)),
        "{begun:?}"
    );
    // It gave up when it knew that the next one would be too late, not when it was.
    assert!(world.now.since(START) <= Duration::from_secs(10));
    world.check_replay();
}

#[test]
fn a_compensation_that_is_out_of_time_is_stuck_and_an_operator_begins_it_anew() {
    let mut world = undoing(within(10));
    assert_eq!(world.run(|_| answer(503, "")), SagaState::Stuck);
    let first = begun(&world, 0, C);
    assert!(first.iter().all(|at| *at <= Duration::from_secs(10)), "{first:?}");
    world.now = world.now.after(Duration::from_secs(3600));
    world.operator(crate::saga::OperatorAction::Retry(None));
    world.answer(0, C, answer(503, ""));
    assert_eq!(
        world.views()[0].1,
        UndoState::Running,
        "it has another ten seconds"
    );
    world.check_replay();
}

#[test]
fn the_time_without_a_qbox_does_not_count() {
    for on_recovery in [OnRecovery::Compensate, OnRecovery::Resume] {
        let mut world = undoing(within(10));
        world.plan = std::sync::Arc::new(Plan {
            on_recovery,
            ..(*world.plan).clone()
        });
        world.answer(0, C, answer(503, ""));
        world.sleep();
        world.now = world.now.after(Duration::from_secs(86_400));
        world.crash(world.journal.len());
        assert_eq!(world.views()[0].1, UndoState::Running);
        world.sleep();
        world.answer(0, C, answer(200, ""));
        assert_eq!(world.saga.state(), SagaState::Compensated);
    }
}

#[test]
fn a_compensation_that_was_held_back_has_not_used_up_an_attempt() {
    let mut world = undoing(retry(Some(2), &[RetryOn::Status5xx]));
    for _ in 0..20 {
        world.answer(0, C, held());
        assert_eq!(world.views()[0].1, UndoState::Running);
        world.sleep();
    }
    world.answer(0, C, answer(503, ""));
    world.sleep();
    world.answer(0, C, held());
    world.sleep();
    world.answer(0, C, answer(503, ""));
    assert_eq!(world.saga.state(), SagaState::Stuck, "these two were attempts");
    world.check_replay();
}

#[test]
fn a_step_that_was_held_back_is_not_applied() {
    let often: fn(&mut Step) = |step| step.retry = retry(Some(2), &[RetryOn::Connect]);
    let once: fn(&mut Step) = |_| {};
    for (change, trace) in [(once, "hotel"), (often, "hotel hotel#2")] {
        let mut hotel = step("hotel", &[]);
        change(&mut hotel);
        let mut world = World::new(plan(vec![hotel]), trigger());
        assert_eq!(world.run(|_| held()), SagaState::Compensated);
        assert_eq!(world.trace(), trace, "nothing was sent, so nothing is undone");
        world.check_replay();
    }
}

#[test]
fn no_more_steps_are_under_way_than_may_be() {
    let steps = || ["a", "b", "c", "d", "e"].map(|name| step(name, &[])).into();
    let mut world = World::limited(plan(steps()), trigger(), 2);
    assert_eq!(world.names(), ["a", "b"]);
    assert!(world.saga.is_held_back());
    world.answer(1, T, answer(200, ""));
    world.answer(0, T, answer(200, ""));
    assert_eq!(world.names(), ["c", "d"]);
    world.answer(2, T, answer(200, ""));
    assert_eq!(world.names(), ["d", "e"]);
    assert!(!world.saga.is_held_back());
    // What was begun is undone, two at a time; what was not is not.
    world.answer(4, T, answer(404, ""));
    world.answer(3, T, answer(200, ""));
    assert_eq!(world.names(), ["a!0", "b!0"]);
    assert!(world.saga.is_held_back());
    // One that waits for another attempt holds up no other.
    world.answer(0, C, answer(500, ""));
    assert_eq!(world.names(), ["b!0", "c!0"]);
    world.check_replay();
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
    // A failure starts nothing that had to wait.
    let mut world = World::limited(plan(steps()), trigger(), 1);
    world.answer(0, T, answer(404, ""));
    assert_eq!(
        (world.saga.state(), world.trace().as_str()),
        (SagaState::Compensated, "a")
    );
}

#[test]
fn a_step_that_waits_for_another_attempt_keeps_its_place() {
    let mut steps = vec![step("a", &[]), step("b", &[])];
    steps[0].retry = retry(Some(2), &[RetryOn::Any]);
    let mut world = World::limited(plan(steps), trigger(), 1);
    world.answer(0, T, answer(503, ""));
    assert!(world.names().is_empty());
    world.sleep();
    assert_eq!(world.names(), ["a#2"]);
    world.answer(0, T, answer(200, ""));
    assert_eq!(world.names(), ["b"]);
    // Over a restart too.
    world.crash(world.journal.len());
    assert_eq!(world.names(), ["a!0"]);
}
