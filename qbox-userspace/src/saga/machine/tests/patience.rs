//! The caller's patience: answered at the latest `timeout` and `reply_timeout` after the saga began, whatever it waits for.

use super::world::*;
use crate::saga::{
    AttemptEnd, BodyTemplate, Command, Direction, Event, Kind, OperatorAction, Place, Plan, ReplyPlan,
    ReplyTemplate, Saga, SagaState, Scope, Secrets, Step, Template,
};
use std::sync::Arc;
use std::time::Duration;

const T: Direction = Direction::Transaction;

/// hotel, then the pivot, then mail behind it. Its failure says the outcome.
fn pivot() -> Plan {
    let mut steps = vec![step("hotel", &[]), step("pay", &[0]), step("mail", &[1])];
    let settle = |step: &mut Step, kind| {
        step.kind = kind;
        step.compensations.clear();
    };
    settle(&mut steps[1], Kind::Pivot);
    settle(&mut steps[2], Kind::Retriable);
    let names: Vec<_> = steps.iter().map(|step| step.name.clone()).collect();
    let scope = Scope {
        steps: &names,
        place: Place::Reply,
    };
    let body = Template::parse("${saga.outcome} ${saga.failed_step}", &scope).unwrap();
    Plan {
        reply_failure: Some(ReplyPlan::Send(ReplyTemplate {
            status: 503,
            headers: Vec::new(),
            body: BodyTemplate::Text(body),
        })),
        ..plan(steps)
    }
}

/// Lets the time pass in which nothing but timers happens and each call ends as said, until the caller is answered.
fn wait_for_reply(world: &mut World, end: &AttemptEnd) -> (Duration, String) {
    for _ in 0..1000 {
        if let Some(reply) = world.reply() {
            assert_eq!(reply.status, 503);
            let waited = world.now.since(START);
            return (waited, String::from_utf8(reply.body.to_vec()).unwrap());
        }
        let long = world.open.first().map(|call| world.now.after(call.timeout));
        match (long, world.wake()) {
            (Some(long), wake) if wake.is_none_or(|wake| long < wake) => {
                world.now = long;
                world.end(0, end.clone());
            }
            (_, Some(_)) => {
                world.sleep();
            }
            (_, None) => panic!("waits for nothing"),
        }
    }
    panic!("no reply");
}

#[test]
fn a_pivot_that_stays_unknown_does_not_keep_the_caller() {
    let mut world = World::new(pivot(), trigger());
    world.answer(0, T, answer(200, ""));
    let (waited, body) = wait_for_reply(&mut world, &AttemptEnd::TimedOut);
    assert_eq!(waited, Duration::from_secs(90));
    assert_eq!(body, "running ");
    // The saga goes on, and what the caller was told stays said.
    assert_eq!(world.saga.state(), SagaState::Running);
    let told = world.reply();
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Committed);
    assert_eq!(world.reply(), told);
    let again = Saga::replay(Arc::clone(world.saga.plan()), world.journal.clone()).unwrap();
    assert_eq!(again.reply(&Secrets::default()), told, "over a restart too");
    let due = world
        .journal
        .iter()
        .filter(|event| matches!(event, Event::ReplyDue { .. }));
    assert_eq!(due.count(), 1);
    world.check_replay();
}

#[test]
fn neither_does_a_step_behind_the_pivot_nor_a_pause() {
    let mut world = World::new(pivot(), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, answer(200, ""));
    let (waited, body) = wait_for_reply(&mut world, &answer(503, ""));
    assert_eq!((waited, body.as_str()), (Duration::from_secs(90), "running "));
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Committed);

    let mut world = World::new(pivot(), trigger());
    world.operator(OperatorAction::Pause);
    let (waited, body) = wait_for_reply(&mut world, &answer(200, ""));
    assert_eq!((waited, body.as_str()), (Duration::from_secs(90), "running "));
    world.operator(OperatorAction::Resume);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
}

#[test]
fn a_compensation_that_began_late_has_no_more_than_that() {
    // Until 65 s the pivot is not known; then it was refused.
    let mut world = World::new(pivot(), trigger());
    world.answer(0, T, answer(200, ""));
    world.now = START.after(Duration::from_secs(65));
    world.answer(1, T, answer(402, ""));
    assert_eq!(world.saga.state(), SagaState::Compensating);
    let (waited, body) = wait_for_reply(&mut world, &answer(500, ""));
    assert_eq!(
        (waited, body.as_str()),
        (Duration::from_secs(90), "compensating ")
    );
    assert!(world.saga.commands().contains(&Command::Reply));
}
