//! The way forward: what starts when, what an outcome means, retries, probes, deadlines.

use super::world::*;
use crate::saga::{
    AttemptEnd, Call, Command, Direction, Event, Input, Kind, OperatorAction, Outcome, RetryOn, SagaState,
    Step, StepId, StepState, Timestamp, UndoState,
};
use std::time::Duration;

const T: Direction = Direction::Transaction;

fn three() -> Vec<Step> {
    vec![step("hotel", &[]), step("flight", &[]), step("car", &[])]
}

fn chain() -> Vec<Step> {
    vec![step("hotel", &[]), step("flight", &[0]), step("car", &[1])]
}

fn broken() -> AttemptEnd {
    AttemptEnd::Broken("reset".to_owned())
}

fn refused() -> AttemptEnd {
    AttemptEnd::NotSent("connection refused".to_owned())
}

#[test]
fn a_saga_without_steps_is_committed_at_once() {
    let world = World::new(plan(Vec::new()), trigger());
    assert_eq!(world.saga.state(), SagaState::Committed);
    assert_eq!(world.saga.commands(), [Command::Reply]);
}

#[test]
fn independent_steps_start_together_and_commit() {
    let mut world = World::new(plan(three()), trigger());
    assert_eq!(world.names(), ["hotel", "flight", "car"]);
    assert!(world.open.iter().all(|call| call.durable_first && !call.forward));
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Committed);
    assert_eq!(world.trace(), "hotel flight car");
    assert_eq!(world.saga.commands(), [Command::Reply]);
}

#[test]
fn a_step_waits_for_those_it_comes_after() {
    let steps = vec![
        step("hotel", &[]),
        step("flight", &[]),
        step("car", &[0, 1]),
        step("bill", &[2]),
    ];
    let mut world = World::new(plan(steps), trigger());
    assert_eq!(world.names(), ["hotel", "flight"]);
    world.answer(1, T, answer(201, ""));
    assert_eq!(world.names(), ["hotel"]);
    world.answer(0, T, answer(201, ""));
    assert_eq!(world.names(), ["car"]);
    // What was first is durable; the rest may run ahead of the journal.
    assert!(!world.open[0].durable_first);
    world.answer(2, T, answer(201, ""));
    world.answer(3, T, answer(201, ""));
    assert_eq!(world.saga.state(), SagaState::Committed);
}

#[test]
fn a_first_transaction_that_is_refused_compensates_nothing() {
    for status in [403, 404] {
        let mut world = World::new(plan(chain()), trigger());
        assert_eq!(world.run(|_| answer(status, "")), SagaState::Compensated);
        assert_eq!(world.trace(), "hotel");
        assert_eq!(world.saga.failed_step(), Some(StepId(0)));
    }
}

#[test]
fn a_second_transaction_that_is_refused_compensates_the_first_alone() {
    let mut world = World::new(plan(chain()), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, answer(404, ""));
    assert_eq!(world.names(), ["hotel!0"]);
    assert!(world.open[0].durable_first);
    assert_eq!(world.saga.state(), SagaState::Compensating);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
    assert_eq!(world.trace(), "hotel flight hotel!0");
    assert_eq!(
        world.views(),
        [
            (StepState::Applied, UndoState::Undone),
            (StepState::Refused, UndoState::None),
            (StepState::Pending, UndoState::None),
        ]
    );
}

#[test]
fn what_came_back_is_one_of_three_classes() {
    let cases = [
        (answer(200, ""), StepState::Applied),
        (answer(299, ""), StepState::Applied),
        (answer(404, ""), StepState::Refused),
        (answer(408, ""), StepState::Unknown),
        (answer(429, ""), StepState::Unknown),
        (answer(302, ""), StepState::Unknown),
        (answer(500, ""), StepState::Unknown),
        (AttemptEnd::TimedOut, StepState::Unknown),
        (AttemptEnd::Lost, StepState::Unknown),
        (broken(), StepState::Unknown),
        (refused(), StepState::Refused),
    ];
    for (end, state) in cases {
        let mut world = World::new(plan(vec![step("hotel", &[])]), trigger());
        world.answer(0, T, end.clone());
        assert_eq!(world.views()[0].0, state, "{end:?}");
        let undoes = if state == StepState::Unknown {
            vec!["hotel!0"]
        } else {
            Vec::new()
        };
        assert_eq!(world.names(), undoes, "{end:?}");
    }
}

#[test]
fn success_is_asked_before_refusal() {
    let mut gone = step("hotel", &[]);
    gone.success.push(statuses(&[(404, 404)], &[]));
    let mut world = World::new(plan(vec![gone]), trigger());
    assert_eq!(world.run(|_| answer(404, "")), SagaState::Committed);
}

#[test]
fn siblings_in_flight_are_waited_for_and_then_undone() {
    let mut world = World::new(plan(three()), trigger());
    world.answer(0, T, answer(409, ""));
    assert_eq!(world.saga.state(), SagaState::Running);
    assert_eq!(world.names(), ["flight", "car"]);
    world.answer(1, T, answer(200, ""));
    assert_eq!(world.names(), ["car"]);
    world.answer(2, T, AttemptEnd::TimedOut);
    assert_eq!(world.names(), ["flight!0", "car!0"]);
    assert_eq!(world.run(|_| answer(204, "")), SagaState::Compensated);
    // The first to fail is to blame.
    assert_eq!(world.saga.failed_step(), Some(StepId(0)));
}

#[test]
fn retries_stop_with_the_policy() {
    let mut often = step("hotel", &[]);
    often.retry = retry(Some(3), &[RetryOn::Timeout]);
    let mut world = World::new(plan(vec![often.clone()]), trigger());
    assert_eq!(
        world.run(|call| if key(call).1 == T {
            AttemptEnd::TimedOut
        } else {
            answer(200, "")
        }),
        SagaState::Compensated
    );
    assert_eq!(world.trace(), "hotel hotel#2 hotel#3 hotel!0");
    // Not a cause to retry.
    let mut world = World::new(plan(vec![often]), trigger());
    world.run(|call| {
        if key(call).1 == T {
            answer(503, "")
        } else {
            answer(200, "")
        }
    });
    assert_eq!(world.trace(), "hotel hotel!0");
}

#[test]
fn an_attempt_is_not_sent_before_it_is_due() {
    let mut often = step("hotel", &[]);
    often.retry = retry(Some(3), &[RetryOn::Any]);
    let mut world = World::new(plan(vec![often]), trigger());
    world.answer(0, T, refused());
    let due = world.wake().unwrap();
    assert!(due <= world.now.after(Duration::from_millis(50)));
    assert_eq!(world.saga.decide(Input::Timer, Timestamp(due.0 - 1)), []);
    assert!(world.names().is_empty());
    world.sleep();
    assert_eq!(world.names(), ["hotel#2"]);
    // The same again, with the same key; only the trace tells the attempts apart.
    let plain = |call: &Call| {
        let mut request = (*call.request).clone();
        request.headers.remove("traceparent");
        request
    };
    assert_eq!(plain(&world.sent[0]), plain(&world.sent[1]));
    assert_ne!(world.sent[0].request, world.sent[1].request);
}

#[test]
fn a_refusal_after_a_timeout_leaves_the_step_unknown() {
    let mut often = step("hotel", &[]);
    often.retry = retry(Some(2), &[RetryOn::Any]);
    let mut world = World::new(plan(vec![often]), trigger());
    world.answer(0, T, AttemptEnd::TimedOut);
    world.sleep();
    world.answer(0, T, answer(409, ""));
    assert_eq!(world.views()[0], (StepState::Unknown, UndoState::Running));
    assert_eq!(world.names(), ["hotel!0"]);
}

#[test]
fn retries_of_others_are_dropped_on_failure() {
    let mut steps = three();
    steps[1].retry = retry(Some(9), &[RetryOn::Any]);
    steps[2].retry = retry(Some(9), &[RetryOn::Any]);
    let mut world = World::new(plan(steps), trigger());
    world.answer(1, T, refused());
    world.answer(2, T, AttemptEnd::TimedOut);
    world.answer(0, T, answer(404, ""));
    // `flight` was never sent, `car` may have been.
    assert_eq!(world.names(), ["car!0"]);
    assert_eq!(world.views()[1], (StepState::Refused, UndoState::None));
    assert_eq!(world.views()[2], (StepState::Unknown, UndoState::Running));
}

#[test]
fn a_probe_settles_what_is_unknown() {
    let mut asked = step("hotel", &[]);
    asked.probe = Some(probe("hotel"));
    for (status, state, trace) in [
        (200, SagaState::Committed, "hotel hotel?"),
        (404, SagaState::Compensated, "hotel hotel?"),
    ] {
        let mut world = World::new(plan(vec![asked.clone()]), trigger());
        world.answer(0, T, AttemptEnd::TimedOut);
        assert_eq!(world.names(), ["hotel?"]);
        assert_eq!(world.run(|_| answer(status, "")), state);
        assert_eq!(world.trace(), trace);
    }
    // One that never tells leaves it unknown.
    let mut world = World::new(plan(vec![asked]), trigger());
    world.answer(0, T, AttemptEnd::TimedOut);
    let end = world.run(|call| match call.direction {
        Direction::Probe => answer(500, ""),
        _ => answer(200, ""),
    });
    assert_eq!(end, SagaState::Compensated);
    assert_eq!(
        world.trace(),
        "hotel hotel? hotel?#2 hotel?#3 hotel?#4 hotel?#5 hotel!0"
    );
}

#[test]
fn each_message_is_its_own_and_has_its_own_time() {
    let mut asked = step("hotel", &[]);
    asked.probe = Some(probe("desk"));
    let mut world = World::new(plan(vec![asked]), trigger());
    let mut seen = Vec::new();
    world.run(|call| {
        let request = &call.request;
        seen.push(format!("{} {} {:?}", request.method, request.url, call.timeout));
        match call.direction {
            Direction::Compensation(_) => answer(200, ""),
            _ => AttemptEnd::TimedOut,
        }
    });
    seen.dedup();
    assert_eq!(
        seen,
        [
            "PUT http://hotel.default.svc:8080/bookings/7 5s",
            "GET http://desk.default.svc:8080/bookings/7 1s",
            "DELETE http://hotel.default.svc:8080/bookings/7 2s",
        ]
    );
}

#[test]
fn a_probe_is_asked_once_when_the_saga_has_turned() {
    let mut steps = vec![step("hotel", &[]), step("flight", &[])];
    steps[0].probe = Some(probe("hotel"));
    let mut world = World::new(plan(steps), trigger());
    world.answer(1, T, answer(404, ""));
    world.answer(0, T, AttemptEnd::TimedOut);
    assert_eq!(world.names(), ["hotel?"]);
    world.answer(0, Direction::Probe, AttemptEnd::TimedOut);
    assert_eq!(world.names(), ["hotel!0"]);
}

#[test]
fn past_its_deadline_a_saga_turns() {
    let mut world = World::new(plan(chain()), trigger());
    world.answer(0, T, answer(200, ""));
    assert_eq!(world.wake(), Some(START.after(Duration::from_secs(60))));
    let events = world.sleep();
    assert!(
        matches!(&events[..], [Event::Failed { step: None, .. }]),
        "{events:?}"
    );
    // In flight: waited for.
    assert_eq!(world.names(), ["flight"]);
    assert_eq!(world.wake(), Some(START.after(Duration::from_secs(90))));
    world.answer(1, T, answer(200, ""));
    assert_eq!(world.names(), ["flight!0"]);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
    assert_eq!(world.trace(), "hotel flight flight!0 hotel!0");
}

#[test]
fn a_success_at_the_deadline_wins() {
    let mut world = World::new(plan(vec![step("hotel", &[])]), trigger());
    world.now = START.after(Duration::from_secs(61));
    world.answer(0, T, answer(200, ""));
    assert_eq!(world.saga.state(), SagaState::Committed);
    assert_eq!(world.saga.decide(Input::Timer, world.now), []);
}

#[test]
fn an_outcome_that_nobody_awaits_changes_nothing() {
    let mut world = World::new(plan(chain()), trigger());
    let first = world.open[0].clone();
    world.answer(0, T, answer(200, ""));
    let before = format!("{:?}", world.saga);
    for attempt in [0, 1, 2] {
        let call = Call {
            attempt,
            ..first.clone()
        };
        assert_eq!(world.input(Input::Outcome(outcome(&call, answer(404, "")))), []);
    }
    let unknown = Outcome {
        step: StepId(99),
        direction: Direction::Compensation(7),
        attempt: 1,
        end: AttemptEnd::TimedOut,
    };
    assert_eq!(world.input(Input::Outcome(unknown)), []);
    assert_eq!(format!("{:?}", world.saga), before);
}

#[test]
fn past_the_pivot_there_is_only_forward() {
    let mut steps = vec![step("hotel", &[]), step("pay", &[0]), step("mail", &[1])];
    steps[1].kind = Kind::Pivot;
    steps[1].compensations.clear();
    steps[2].kind = Kind::Retriable;
    steps[2].compensations.clear();
    steps[2].retry = retry(Some(2), &[RetryOn::Connect]);
    let mut world = World::new(plan(steps.clone()), trigger());
    world.answer(0, T, answer(200, ""));
    assert!(world.open[0].durable_first, "a pivot's intent is durable");
    world.answer(1, T, answer(200, ""));
    let mut times = 0;
    let end = world.run(|_| {
        times += 1;
        if times < 7 {
            answer(404, "")
        } else {
            answer(200, "")
        }
    });
    assert_eq!((end, times), (SagaState::Committed, 7));

    // Refused: undone as any other.
    let mut world = World::new(plan(steps.clone()), trigger());
    world.answer(0, T, answer(200, ""));
    world.answer(1, T, answer(402, ""));
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
    assert_eq!(world.trace(), "hotel pay hotel!0");

    // Unknown: asked until it is known, past every deadline.
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(200, ""));
    for _ in 0..20 {
        world.answer(1, T, AttemptEnd::TimedOut);
        world.now = world.now.after(Duration::from_secs(10));
        while world.open.is_empty() {
            world.sleep();
        }
    }
    world.answer(1, T, answer(200, ""));
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Committed);
}

#[test]
fn a_step_that_cannot_follow_its_pivot_is_stuck() {
    // `qbox check` refuses such a plan; the machine must still be honest about it.
    let mut steps = vec![step("hotel", &[]), step("pay", &[])];
    steps[1].kind = Kind::Pivot;
    steps[1].compensations.clear();
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(404, ""));
    assert_eq!(world.names(), ["pay"]);
    world.answer(1, T, answer(200, ""));
    assert_eq!(world.saga.state(), SagaState::Stuck);
    assert_eq!(world.views()[0], (StepState::Refused, UndoState::Stuck));
    world.operator(OperatorAction::Retry(None));
    assert_eq!(world.names(), ["hotel#2"]);
    world.answer(0, T, answer(200, ""));
    assert_eq!(world.saga.state(), SagaState::Committed);
}
