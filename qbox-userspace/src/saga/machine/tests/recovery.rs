//! Restarts: what was in flight, what a lost tail may have held, and histories that are none.

use super::world::*;
use crate::saga::{
    AttemptEnd, Direction, Event, Kind, OnRecovery, Plan, ReplayError, RetryOn, SCHEMA, Saga, SagaState,
    StepId, StepState, UndoState,
};
use std::sync::Arc;

const T: Direction = Direction::Transaction;

fn chain(on_recovery: OnRecovery) -> Plan {
    let steps = vec![step("hotel", &[]), step("flight", &[0]), step("car", &[1])];
    Plan {
        on_recovery,
        ..plan(steps)
    }
}

#[test]
fn what_was_in_flight_is_unknown_and_undone() {
    let mut world = World::new(chain(OnRecovery::Compensate), trigger());
    world.answer(0, T, answer(200, ""));
    world.crash(world.journal.len());
    // car may have been sent in a tail that was lost, hence undone too.
    assert_eq!(world.names(), ["car!0"]);
    assert_eq!(world.run(|_| answer(404, "")), SagaState::Compensated);
    assert_eq!(world.trace(), "hotel flight car!0 flight!0 hotel!0");
    assert_eq!(world.saga.failed_step(), None);
}

#[test]
fn resume_goes_on_and_sends_again_what_was_cut_off() {
    let mut world = World::new(chain(OnRecovery::Resume), trigger());
    world.answer(0, T, answer(200, ""));
    world.crash(world.journal.len());
    assert!(world.names().is_empty());
    world.sleep();
    assert_eq!(world.names(), ["flight#2"]);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Committed);
    assert_eq!(world.trace(), "hotel flight flight#2 car");
}

#[test]
fn after_a_restart_a_refusal_may_be_an_echo() {
    let mut world = World::new(chain(OnRecovery::Resume), trigger());
    world.answer(0, T, answer(200, ""));
    world.crash(world.journal.len());
    world.sleep();
    world.answer(1, T, answer(200, ""));
    // car was not begun as far as the journal knew, but may have been: a 409 is no proof that it wasn't.
    world.answer(2, T, answer(409, ""));
    assert_eq!(world.names(), ["car!0"]);
}

#[test]
fn what_was_never_sent_stays_so() {
    // The first intents are durable before anything is sent: none there, nothing sent.
    let mut world = World::new(chain(OnRecovery::Compensate), trigger());
    world.durable = 1;
    world.crash(1);
    assert_eq!(world.saga.state(), SagaState::Compensated);
    assert_eq!(world.trace(), "hotel");
}

#[test]
fn after_a_failure_nothing_further_can_have_been_sent() {
    let mut world = World::new(chain(OnRecovery::Compensate), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, AttemptEnd::TimedOut);
    assert_eq!(world.names(), ["flight!0"]);
    world.crash(world.journal.len());
    assert_eq!(world.views()[2], (StepState::Pending, UndoState::None));
    while world.open.is_empty() {
        world.sleep();
    }
    assert_eq!(world.names(), ["flight!0#2"]);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
}

#[test]
fn a_compensation_cut_off_by_a_restart_does_not_count() {
    let mut steps = vec![step("hotel", &[])];
    steps[0].compensations[0].retry = retry(Some(1), &[RetryOn::Connect]);
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, AttemptEnd::TimedOut);
    world.crash(world.journal.len());
    world.sleep();
    assert_eq!(world.names(), ["hotel!0#2"]);
    world.answer(0, Direction::Compensation(0), answer(200, ""));
    assert_eq!(world.saga.state(), SagaState::Compensated);
}

#[test]
fn a_saga_that_only_had_to_commit_commits() {
    let mut world = World::new(chain(OnRecovery::Compensate), trigger());
    for step in 0..3 {
        world.answer(step, T, answer(200, ""));
    }
    assert!(matches!(world.journal.last(), Some(Event::Committed { .. })));
    world.durable = 0;
    world.crash(world.journal.len() - 1);
    assert_eq!(world.saga.state(), SagaState::Committed);
}

#[test]
fn a_pivot_that_was_not_begun_is_not_sent_after_a_restart() {
    let mut plan = chain(OnRecovery::Compensate);
    plan.steps[1].kind = Kind::Pivot;
    plan.steps[1].compensations.clear();
    plan.steps[2].kind = Kind::Retriable;
    plan.steps[2].compensations.clear();
    let mut world = World::new(plan.clone(), trigger());
    world.crash(world.journal.len());
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
    assert_eq!(world.trace(), "hotel hotel!0");
    // One in flight must be known first; here it is applied, and the saga goes on.
    let mut world = World::new(plan, trigger());
    world.answer(0, T, answer(200, ""));
    world.crash(world.journal.len());
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Committed);
    assert_eq!(world.trace(), "hotel pay pay#2 car".replace("pay", "flight"));
}

/// A process that is killed may leave behind a history that only the system's memory holds; the power may fail then.
#[test]
fn what_a_restart_sends_first_waits_for_the_journal() {
    let steps = vec![step("hotel", &[]), step("flight", &[])];
    let mut plan = plan(steps);
    plan.on_recovery = OnRecovery::Resume;
    let mut world = World::new(plan, trigger());
    world.durable = 0;
    // The intent of the first step is left, that of the second is not.
    world.crash(2);
    assert_eq!(world.names(), ["flight"]);
    assert!(world.open[0].durable_first);
    world.sleep();
    assert_eq!(world.names(), ["flight", "hotel#2"]);
    assert!(world.open[1].durable_first);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Committed);
}

#[test]
fn a_history_must_be_one() {
    let world = World::new(chain(OnRecovery::Compensate), trigger());
    let replay = |events: Vec<Event>| Saga::replay(Arc::clone(&world.plan), events).map(|_| ());
    let began = world.journal[0].clone();
    let at = START;
    assert_eq!(replay(Vec::new()), Err(ReplayError::NoBeginning));
    assert_eq!(replay(world.journal[1..].to_vec()), Err(ReplayError::NoBeginning));
    assert_eq!(
        replay(vec![began.clone(), began.clone()]),
        Err(ReplayError::SecondBeginning)
    );
    let strange = Event::Undone { step: StepId(3), at };
    assert_eq!(
        replay(vec![began.clone(), strange]),
        Err(ReplayError::NotInPlan(StepId(3)))
    );
    let strange = Event::Sending {
        step: StepId(0),
        direction: Direction::Compensation(1),
        attempt: 1,
        at,
    };
    assert_eq!(
        replay(vec![began.clone(), strange]),
        Err(ReplayError::NotInPlan(StepId(0)))
    );
    let mut newer = began;
    if let Event::Began { schema, .. } = &mut newer {
        *schema = SCHEMA + 1;
    }
    assert_eq!(replay(vec![newer]), Err(ReplayError::Schema(SCHEMA + 1)));
}
