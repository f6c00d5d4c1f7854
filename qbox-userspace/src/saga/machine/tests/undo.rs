//! The way back: order, several compensations, what is stuck, the caller's patience.

use super::world::*;
use crate::saga::{
    AttemptEnd, Command, CompensateWhen, Direction, Event, SagaState, Step, StepId, StepState, UndoState,
};
use std::time::Duration;

const T: Direction = Direction::Transaction;
const C: Direction = Direction::Compensation(0);

/// hotel and flight, then car after both; then a bill that is refused.
fn turned(change: impl FnOnce(&mut Vec<Step>)) -> World {
    let mut steps = vec![
        step("hotel", &[]),
        step("flight", &[]),
        step("car", &[0, 1]),
        step("bill", &[2]),
    ];
    change(&mut steps);
    let mut world = World::new(plan(steps), trigger());
    for step in 0..3 {
        world.answer(step, T, answer(200, ""));
    }
    world.answer(3, T, answer(402, ""));
    world
}

#[test]
fn undone_in_reverse_order_and_together_where_independent() {
    let mut world = turned(|_| {});
    assert_eq!(world.names(), ["car!0"]);
    world.answer(2, C, answer(200, ""));
    assert_eq!(world.names(), ["hotel!0", "flight!0"]);
    assert_eq!(world.run(|_| answer(410, "")), SagaState::Compensated);
}

#[test]
fn a_steps_compensations_are_sent_one_after_the_other() {
    let mut world = turned(|steps| steps[2].compensations.push(compensation("car")));
    world.answer(2, C, answer(200, ""));
    assert_eq!(world.names(), ["car!1"]);
    world.answer(2, Direction::Compensation(1), answer(200, ""));
    assert_eq!(world.names(), ["hotel!0", "flight!0"]);
}

#[test]
fn a_step_with_nothing_to_undo_passes_the_order_on() {
    let mut world = turned(|steps| {
        steps[1].compensations.clear();
        steps[2].compensations.clear();
    });
    assert_eq!(world.names(), ["hotel!0"]);
    world.answer(0, C, answer(200, ""));
    assert_eq!(world.saga.state(), SagaState::Compensated);
    assert_eq!(world.views()[2], (StepState::Applied, UndoState::None));
}

#[test]
fn the_order_holds_through_a_step_that_was_skipped_over() {
    // bill came after car, car has nothing to undo: hotel still waits for bill.
    let mut steps = vec![
        step("hotel", &[]),
        step("car", &[0]),
        step("bill", &[1]),
        step("mail", &[2]),
    ];
    steps[1].compensations.clear();
    let mut world = World::new(plan(steps), trigger());
    for step in 0..3 {
        world.answer(step, T, answer(200, ""));
    }
    world.answer(3, T, answer(404, ""));
    assert_eq!(world.names(), ["bill!0"]);
    world.answer(2, C, answer(200, ""));
    assert_eq!(world.names(), ["hotel!0"]);
}

#[test]
fn always_compensates_also_what_was_refused_but_not_what_never_began() {
    let mut steps = vec![step("hotel", &[]), step("flight", &[0])];
    steps[0].compensate_when = CompensateWhen::Always;
    steps[1].compensate_when = CompensateWhen::Always;
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(404, ""));
    assert_eq!(world.names(), ["hotel!0"]);
    assert_eq!(world.run(|_| answer(404, "")), SagaState::Compensated);
}

#[test]
fn a_compensation_is_retried_until_it_succeeds() {
    let mut world = turned(|_| {});
    let mut left = 30;
    let end = world.run(|_| {
        left -= 1;
        if left > 0 {
            answer(500, "")
        } else {
            answer(200, "")
        }
    });
    assert_eq!(end, SagaState::Compensated);
    assert!(
        world.trace().contains("car!0#30 hotel!0 flight!0"),
        "{}",
        world.trace()
    );
}

#[test]
fn a_stuck_step_is_listed_and_holds_up_no_other() {
    let mut world = turned(|steps| steps[2].compensations[0].retry.attempts = Some(2));
    let end = world.run(|call| match call.step {
        StepId(2) => answer(500, ""),
        _ => answer(200, ""),
    });
    assert_eq!(end, SagaState::Stuck);
    assert_eq!(
        world.trace(),
        "hotel flight car bill car!0 car!0#2 hotel!0 flight!0"
    );
    let stuck: Vec<_> = world
        .saga
        .steps()
        .filter(|v| v.undo == UndoState::Stuck)
        .collect();
    assert_eq!(stuck[0].name, "car");
    assert_eq!(stuck[0].cause, Some("answered 500"));
    assert_eq!(world.reply().unwrap().status, 502);
    assert_eq!(world.saga.commands(), [Command::Reply]);
}

#[test]
fn a_compensation_that_needs_an_answer_that_never_came_is_stuck() {
    let mut steps = vec![step("hotel", &[])];
    steps[0].compensations[0].needs_response = true;
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, AttemptEnd::TimedOut);
    assert_eq!(world.saga.state(), SagaState::Stuck);
    assert_eq!(world.trace(), "hotel");
    world.check_replay();
}

#[test]
fn the_caller_is_answered_before_a_compensation_that_takes_too_long() {
    let mut world = turned(|_| {});
    assert_eq!(world.reply(), None);
    assert_eq!(world.wake(), Some(world.now.after(Duration::from_secs(30))));
    let events = world.sleep();
    assert!(matches!(&events[..], [Event::ReplyDue { .. }]), "{events:?}");
    assert_eq!(world.reply().unwrap().status, 502);
    assert_eq!(world.saga.state(), SagaState::Compensating);
    assert_eq!(world.wake(), None);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
}
