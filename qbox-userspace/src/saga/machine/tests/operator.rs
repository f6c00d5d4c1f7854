//! What an operator can do, and when.

use super::world::*;
use crate::saga::{
    AttemptEnd, Command, Direction, Kind, OperatorAction, RetryOn, SagaState, Step, StepId, StepState, Timer,
    UndoState,
};
use std::time::Duration;

const T: Direction = Direction::Transaction;
const C: Direction = Direction::Compensation(0);

/// hotel, flight and a car that is refused; neither of the others can be undone.
fn stuck_with(mut steps: Vec<Step>) -> World {
    for step in &mut steps {
        step.compensations[0].retry.attempts = Some(1);
    }
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, answer(200, ""));
    world.answer(2, T, answer(404, ""));
    assert_eq!(world.run(|_| answer(500, "")), SagaState::Stuck);
    world
}

fn stuck() -> World {
    let world = stuck_with(vec![
        step("hotel", &[]),
        step("flight", &[]),
        step("car", &[0, 1]),
    ]);
    assert_eq!(world.trace(), "hotel flight car hotel!0 flight!0");
    world
}

#[test]
fn retry_sends_what_is_stuck_again() {
    let mut world = stuck();
    assert_eq!(world.saga.last_answer(StepId(0)).as_deref(), Some("answered 500"));
    world.operator(OperatorAction::Retry(Some(StepId(1))));
    assert_eq!(world.names(), ["flight!0#2"]);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Stuck);
    world.operator(OperatorAction::Retry(None));
    assert_eq!(world.names(), ["hotel!0#2"]);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
    assert_eq!(world.operator(OperatorAction::Retry(None)), []);
}

#[test]
fn what_is_tried_again_waits_for_its_turn_again() {
    let mut world = stuck_with(vec![step("hotel", &[]), step("flight", &[0]), step("car", &[1])]);
    assert_eq!(world.trace(), "hotel flight car flight!0 hotel!0");
    world.operator(OperatorAction::Retry(None));
    assert_eq!(world.names(), ["flight!0#2"], "hotel came before it");
    world.answer(1, C, answer(200, ""));
    assert_eq!(world.names(), ["hotel!0#2"]);
    world.check_replay();
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
}

#[test]
fn retry_does_not_wait_for_the_backoff() {
    let mut world = World::new(plan(vec![step("hotel", &[])]), trigger());
    world.answer(0, T, AttemptEnd::TimedOut);
    world.answer(0, C, answer(500, ""));
    assert!(world.names().is_empty());
    world.operator(OperatorAction::Retry(None));
    assert_eq!(world.names(), ["hotel!0#2"]);
}

#[test]
fn skip_and_resolve_end_what_was_settled_by_hand() {
    let mut world = stuck();
    let told = world.reply();
    assert!(told.is_some());
    world.operator(OperatorAction::Skip(StepId(0)));
    assert_eq!(world.saga.state(), SagaState::Stuck);
    assert_eq!(world.views()[0].1, UndoState::Undone);
    assert_eq!(world.operator(OperatorAction::Skip(StepId(2))), []);
    world.operator(OperatorAction::Resolve);
    assert_eq!(world.saga.state(), SagaState::Compensated);
    assert_eq!(world.reply(), told, "what was answered stays the answer");
    assert_eq!(world.trace(), "hotel flight car hotel!0 flight!0");
    world.check_replay();
}

#[test]
fn skip_ends_an_endless_compensation() {
    let steps = vec![step("hotel", &[]), step("flight", &[0]), step("car", &[1])];
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, answer(200, ""));
    world.answer(2, T, answer(404, ""));
    assert_eq!(world.names(), ["flight!0"]);
    world.operator(OperatorAction::Skip(StepId(1)));
    assert_eq!(world.names(), ["flight!0", "hotel!0"]);
    assert_eq!(world.answer(1, C, answer(500, "")), []);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
}

#[test]
fn compensate_turns_a_running_saga() {
    let mut world = World::new(plan(vec![step("hotel", &[]), step("flight", &[0])]), trigger());
    world.answer(0, T, answer(200, ""));
    assert_eq!(world.operator(OperatorAction::Resolve), []);
    world.operator(OperatorAction::Compensate);
    assert_eq!(world.names(), ["flight"]);
    assert_eq!(world.operator(OperatorAction::Compensate), []);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
    assert_eq!(world.trace(), "hotel flight flight!0 hotel!0");
    assert_eq!(world.operator(OperatorAction::Compensate), []);
}

#[test]
fn what_a_pause_holds_back_is_not_stuck() {
    let mut steps = vec![step("hotel", &[]), step("car", &[0]), step("bill", &[1])];
    steps[1].compensations[0].retry.attempts = Some(1);
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, answer(200, ""));
    world.answer(2, T, answer(404, ""));
    world.operator(OperatorAction::Pause);
    world.answer(1, C, answer(500, ""));
    assert_eq!(world.saga.state(), SagaState::Compensating);
    world.operator(OperatorAction::Resume);
    assert_eq!(world.names(), ["hotel!0"]);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Stuck);
}

#[test]
fn a_paused_saga_starts_nothing_until_it_is_resumed() {
    let mut steps = vec![step("hotel", &[]), step("flight", &[0]), step("car", &[1])];
    steps[1].retry = retry(Some(2), &[RetryOn::Any]);
    let mut world = World::new(plan(steps), trigger());
    world.operator(OperatorAction::Pause);
    assert!(world.saga.is_paused());
    assert_eq!(world.operator(OperatorAction::Pause), []);
    world.answer(0, T, answer(200, ""));
    assert!(world.names().is_empty());
    // Only its caller isn't kept waiting.
    let patience = START.after(Duration::from_secs(90));
    assert_eq!(world.saga.commands(), [Command::Wake(Timer { at: patience })]);
    world.operator(OperatorAction::Resume);
    assert_eq!(world.operator(OperatorAction::Resume), []);
    assert_eq!(world.names(), ["flight"]);
    world.operator(OperatorAction::Pause);
    world.answer(1, T, answer(503, ""));
    assert_eq!(world.wake(), Some(patience));
    world.operator(OperatorAction::Resume);
    world.sleep();
    assert_eq!(world.names(), ["flight#2"]);
    // Nor does it compensate.
    world.operator(OperatorAction::Pause);
    world.answer(1, T, answer(404, ""));
    assert!(world.names().is_empty());
    assert_eq!(world.saga.state(), SagaState::Compensating);
    world.operator(OperatorAction::Resume);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
}

/// Until its intent is on disk the records call the step refused, and nobody would look for it.
#[test]
fn what_an_operator_sends_again_waits_for_the_journal() {
    let mut steps = vec![step("pay", &[]), step("car", &[])];
    steps[0].kind = Kind::Pivot;
    steps[0].compensations.clear();
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, answer(409, ""));
    assert_eq!(world.saga.state(), SagaState::Stuck);
    world.operator(OperatorAction::Retry(None));
    assert_eq!(world.names(), ["car#2"]);
    assert!(world.open[0].durable_first);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Committed);
}

/// hotel, and a pivot behind it that is refused as often as it may be, after an attempt that nobody answered.
fn balking() -> World {
    let mut steps = vec![step("hotel", &[]), step("pay", &[0])];
    steps[1].kind = Kind::Pivot;
    steps[1].compensations.clear();
    steps[1].retry = retry(Some(3), &[RetryOn::Timeout]);
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, AttemptEnd::TimedOut);
    for _ in 0..2 {
        world.sleep();
        world.answer(1, T, answer(409, ""));
    }
    world
}

#[test]
fn a_pivot_that_is_refused_after_a_lost_attempt_is_stuck_at_its_policys_end() {
    let mut world = balking();
    assert_eq!(world.saga.state(), SagaState::Stuck);
    assert_eq!(world.views()[1], (StepState::Running, UndoState::Stuck));
    let cause = world.saga.steps().nth(1).unwrap().cause.unwrap().to_owned();
    assert!(cause.contains("is refused now: answered 409"), "{cause}");
    // The deadline passes: nothing may be undone that belongs to it.
    world.sleep();
    assert_eq!((world.saga.state(), world.names().len()), (SagaState::Stuck, 0));
    world.check_replay();
    // Tried again, as often as before.
    world.operator(OperatorAction::Retry(None));
    for _ in 0..3 {
        world.sleep();
        world.answer(1, T, answer(409, ""));
    }
    assert_eq!(world.saga.state(), SagaState::Stuck);
    world.operator(OperatorAction::Retry(Some(StepId(1))));
    world.sleep();
    world.answer(1, T, answer(200, ""));
    assert_eq!(world.saga.state(), SagaState::Committed);
    world.check_replay();
}

#[test]
fn a_pivot_that_nobody_can_know_of_is_as_its_operator_says() {
    for late in [false, true] {
        let [mut world, mut done] = [balking(), balking()];
        if late {
            world.sleep();
            done.sleep();
        }
        done.operator(OperatorAction::Skip(StepId(1)));
        assert_eq!(done.saga.state(), SagaState::Committed);
        done.check_replay();
        world.operator(OperatorAction::Compensate);
        assert_eq!(world.names(), ["hotel!0"]);
        assert_eq!(world.views()[1].0, StepState::Refused);
        world.answer(0, C, answer(200, ""));
        assert_eq!(world.saga.state(), SagaState::Compensated);
        world.check_replay();
    }
}

#[test]
fn a_pivot_without_an_end_or_that_is_only_not_heard_of_is_tried_on() {
    for (attempts, ends) in [
        (Some(1), answer(409, "")),
        (Some(3), AttemptEnd::TimedOut),
        (Some(3), answer(503, "")),
    ] {
        let mut steps = vec![step("pay", &[])];
        steps[0].kind = Kind::Pivot;
        steps[0].compensations.clear();
        steps[0].retry = retry(attempts, &[RetryOn::Timeout]);
        let mut world = World::new(plan(steps), trigger());
        world.answer(0, T, AttemptEnd::TimedOut);
        for _ in 0..5 {
            while world.open.is_empty() {
                world.sleep();
            }
            world.answer(0, T, ends.clone());
        }
        assert_eq!(world.run(|_| answer(200, "")), SagaState::Committed);
    }
}
