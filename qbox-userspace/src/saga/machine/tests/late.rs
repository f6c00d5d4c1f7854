//! Late successes: a transaction that was given up, and has happened after all.

use super::world::*;
use crate::saga::{
    AttemptEnd, BodyTemplate, Call, Direction, Event, Input, Kind, OperatorAction, Place, RequestPlan,
    RetryOn, SagaState, Scope, Secrets, Step, StepId, StepState, Template, UndoState,
};

const T: Direction = Direction::Transaction;
const P: Direction = Direction::Probe;
const C: Direction = Direction::Compensation(0);

fn late(call: &Call, body: &str) -> Input {
    Input::Outcome(outcome(call, answer(200, body)))
}

fn body(template: &str, place: Place) -> BodyTemplate {
    let steps = ["hotel".to_owned(), "flight".to_owned()];
    let scope = Scope { steps: &steps, place };
    BodyTemplate::Text(Template::parse(template, &scope).unwrap())
}

/// hotel with two attempts, whose compensation reads its answer and its request; flight after it reads its answer.
fn reading() -> Vec<Step> {
    let mut steps = vec![step("hotel", &[]), step("flight", &[0])];
    steps[0].retry = retry(Some(2), &[RetryOn::Any]);
    steps[0].compensations[0].request.body = body(
        "${parent.response.json.id} ${parent.headers.traceparent}",
        Place::Compensation(StepId(0)),
    );
    let mut read = request("POST", "flight", "/seats");
    read.body = body("${steps.hotel.response.json.id}", Place::Request(StepId(1)));
    steps[1].request = RequestPlan::Send(read);
    steps
}

fn sent_body(call: &Call) -> String {
    String::from_utf8(call.request.body.to_vec()).unwrap()
}

#[test]
fn the_answer_that_says_applied_is_kept_with_its_request() {
    for second in [answer(409, "{\"id\":2}"), answer(200, "{\"id\":2}")] {
        let mut world = World::new(plan(reading()), trigger());
        let first = world.open[0].clone();
        world.answer(0, T, AttemptEnd::TimedOut);
        world.sleep();
        assert_eq!(world.names(), ["hotel#2"]);
        world.input(late(&first, "{\"id\":1}"));
        assert_eq!(world.names(), ["hotel#2", "flight"]);
        assert_eq!(sent_body(&world.open[1]), "1");
        world.answer(0, T, second);
        world.answer(1, T, answer(404, ""));
        assert_eq!(world.names(), ["hotel!0"]);
        let trace = first.request.headers.get("traceparent").unwrap();
        let expected = format!("1 {}", std::str::from_utf8(trace).unwrap());
        assert_eq!(sent_body(&world.open[0]), expected);
        world.check_replay();
    }
}

#[test]
fn a_late_success_takes_the_place_of_a_refusal_and_of_what_a_probe_found() {
    let mut steps = reading();
    steps[0].probe = Some(probe("hotel"));
    let mut world = World::new(plan(steps.clone()), trigger());
    let first = world.open[0].clone();
    world.answer(0, T, AttemptEnd::TimedOut);
    world.sleep();
    world.answer(0, T, answer(409, "{\"id\":2}"));
    world.answer(0, P, answer(200, "{\"id\":3}"));
    assert_eq!(sent_body(&world.open[0]), "3");
    world.input(late(&first, "{\"id\":1}"));
    world.answer(1, T, answer(404, ""));
    assert!(sent_body(&world.open[0]).starts_with("1 "));
    // A probe that answers after it finds nothing new.
    let mut world = World::new(plan(steps), trigger());
    let first = world.open[0].clone();
    world.answer(0, T, AttemptEnd::TimedOut);
    world.sleep();
    world.answer(0, T, answer(409, "{\"id\":2}"));
    world.input(late(&first, "{\"id\":1}"));
    world.answer(0, P, answer(200, "{\"id\":3}"));
    world.answer(1, T, answer(404, ""));
    assert!(sent_body(&world.open[0]).starts_with("1 "));
}

/// A pivot that its probe didn't find, and that comes when hotel is being undone already.
fn lost_pivot() -> World {
    let mut steps = vec![step("hotel", &[]), step("pay", &[0])];
    steps[1].kind = Kind::Pivot;
    steps[1].compensations.clear();
    steps[1].probe = Some(probe("pay"));
    let mut world = World::new(plan(steps), trigger());
    world.answer(0, T, answer(200, ""));
    let pay = world.open[0].clone();
    world.answer(1, T, AttemptEnd::TimedOut);
    world.answer(1, P, answer(404, ""));
    assert_eq!(world.names(), ["hotel!0"]);
    world.input(late(&pay, ""));
    world
}

#[test]
fn a_pivot_that_comes_when_compensation_has_begun_is_stuck() {
    let mut world = lost_pivot();
    assert!(
        matches!(world.journal.last(), Some(Event::Stuck { step: StepId(1), .. })),
        "{:?}",
        world.journal.last()
    );
    assert_eq!(world.saga.state(), SagaState::Compensating);
    // The others are undone that can be.
    world.answer(0, C, answer(200, ""));
    assert_eq!(world.saga.state(), SagaState::Stuck);
    assert_eq!(
        world.views(),
        [
            (StepState::Applied, UndoState::Undone),
            (StepState::Applied, UndoState::Stuck),
        ]
    );
    let cause = world.saga.steps().nth(1).unwrap().cause.unwrap().to_owned();
    assert!(
        cause.contains("pivot") && cause.contains("compensation had begun"),
        "{cause}"
    );
    world.check_replay();
}

#[test]
fn a_pivot_that_came_too_late_is_an_operators() {
    for action in [OperatorAction::Skip(StepId(1)), OperatorAction::Resolve] {
        let mut world = lost_pivot();
        world.answer(0, C, answer(200, ""));
        // Trying again doesn't help, and is no event: it could be done without end.
        for retry in [
            OperatorAction::Retry(None),
            OperatorAction::Retry(Some(StepId(1))),
        ] {
            let objection = world.saga.objection(&retry).unwrap();
            assert!(objection.contains("by hand"), "{objection}");
            assert_eq!(world.operator(retry), []);
        }
        assert_eq!(world.saga.state(), SagaState::Stuck);
        world.operator(action);
        assert_eq!(world.saga.state(), SagaState::Compensated);
        assert_eq!(world.views()[1], (StepState::Applied, UndoState::Undone));
        world.check_replay();
    }
}

#[test]
fn what_an_operator_settled_is_compensated_again_too() {
    let steps = vec![step("hotel", &[]), step("flight", &[0]), step("car", &[])];
    let mut world = World::new(plan(steps), trigger());
    let car = world.open[1].clone();
    world.answer(2, T, AttemptEnd::TimedOut);
    world.answer(0, T, answer(200, ""));
    assert_eq!(world.names(), ["hotel!0", "car!0"]);
    world.operator(OperatorAction::Skip(StepId(2)));
    assert_eq!(world.views()[2].1, UndoState::Undone);
    world.input(late(&car, ""));
    assert_eq!(world.names(), ["hotel!0", "car!0", "car!0#2"]);
}

#[test]
fn a_late_success_is_compensated_again() {
    let steps = vec![step("hotel", &[]), step("flight", &[]), step("car", &[1])];
    let mut world = World::new(plan(steps), trigger());
    let hotel = world.open[0].clone();
    world.answer(0, T, AttemptEnd::TimedOut);
    world.answer(1, T, answer(200, ""));
    assert_eq!(world.names(), ["hotel!0", "flight!0"]);
    world.answer(0, C, answer(404, ""));
    assert_eq!(world.views()[0], (StepState::Unknown, UndoState::Undone));
    let late = Input::Outcome(outcome(&hotel, answer(200, "")));
    world.input(late.clone());
    assert_eq!(world.names(), ["flight!0", "hotel!0#2"]);
    assert_eq!(world.views()[0], (StepState::Applied, UndoState::Running));
    // The journal must know of the second round before the service does.
    assert!(world.open[1].durable_first);
    // Another key, or the service would remember its first answer.
    let key = |at: usize| {
        world.open[at]
            .request
            .headers
            .get("idempotency-key")
            .cloned()
            .unwrap()
    };
    assert!(key(1).ends_with(b"/hotel/undo/0/1\""), "{:?}", key(1));
    assert_eq!(world.input(late), []);
    assert_eq!(world.run(|_| answer(200, "")), SagaState::Compensated);
    world.check_replay();
}

#[test]
fn a_late_success_during_the_compensation_makes_its_success_void() {
    let steps = vec![step("hotel", &[]), step("flight", &[])];
    let mut world = World::new(plan(steps), trigger());
    let hotel = world.open[0].clone();
    world.answer(0, T, AttemptEnd::TimedOut);
    world.answer(1, T, answer(404, ""));
    world.input(Input::Outcome(outcome(&hotel, answer(200, ""))));
    assert_eq!(world.names(), ["hotel!0"]);
    world.answer(0, C, answer(404, ""));
    assert_eq!(world.names(), ["hotel!0#2"]);
    world.answer(0, C, answer(200, ""));
    assert_eq!(world.saga.state(), SagaState::Compensated);
    // It is over: nothing is looked at any more.
    assert_eq!(world.input(Input::Outcome(outcome(&hotel, answer(200, "")))), []);
}

/// hotel, whose time is over, and that somebody still listens to; and its first attempt.
fn listened_to(steps: Vec<Step>) -> (World, Call) {
    let mut world = World::new(plan(steps), trigger());
    let hotel = world.open[0].clone();
    let (step, attempt) = (hotel.step, hotel.attempt);
    assert_eq!(
        world.saga.decide(Input::Listening { step, attempt }, world.now),
        []
    );
    world.answer(0, T, AttemptEnd::TimedOut);
    (world, hotel)
}

#[test]
fn a_saga_that_is_undone_ends_when_nothing_can_be_heard_any_more() {
    for end in [
        AttemptEnd::TimedOut,
        AttemptEnd::Broken("closed".to_owned()),
        answer(409, ""),
        answer(500, ""),
    ] {
        let (mut world, hotel) = listened_to(vec![step("hotel", &[]), step("flight", &[])]);
        world.answer(1, T, answer(404, ""));
        let after = world.answer(0, C, answer(404, ""));
        // Its caller waits no longer; what it is told is not the end.
        assert!(matches!(after.last(), Some(Event::ReplyDue { .. })), "{after:?}");
        assert_eq!(world.saga.state(), SagaState::Compensating);
        let reply = world.saga.reply(&Secrets::default()).unwrap();
        assert_eq!(reply.status, 502);
        assert_eq!((world.wake(), world.open.len()), (None, 0));
        let after = world.input(Input::Outcome(outcome(&hotel, end)));
        assert!(matches!(after[..], [Event::Compensated { .. }]), "{after:?}");
        // What it was told stays what it was told.
        assert_eq!(world.saga.reply(&Secrets::default()).unwrap(), reply);
    }
}

#[test]
fn what_is_heard_when_all_was_undone_is_undone_again() {
    let (mut world, hotel) = listened_to(vec![step("hotel", &[])]);
    world.answer(0, C, answer(404, ""));
    assert_eq!(world.saga.state(), SagaState::Compensating);
    world.input(late(&hotel, ""));
    assert_eq!(world.names(), ["hotel!0#2"]);
    world.answer(0, C, answer(200, ""));
    assert_eq!(world.saga.state(), SagaState::Compensated);
    world.check_replay();
}

#[test]
fn a_restart_listens_to_nothing() {
    let (mut world, _) = listened_to(vec![step("hotel", &[])]);
    world.answer(0, C, answer(404, ""));
    assert_eq!(world.saga.state(), SagaState::Compensating);
    world.crash(world.journal.len());
    assert_eq!(world.saga.state(), SagaState::Compensated);
    world.check_replay();
}

#[test]
fn what_can_only_be_heard_and_not_undone_is_not_waited_for() {
    let mut steps = vec![step("hotel", &[]), step("flight", &[])];
    steps[0].compensations.clear();
    let (mut world, _) = listened_to(steps);
    world.answer(1, T, answer(404, ""));
    assert_eq!(world.saga.state(), SagaState::Compensated);
    world.check_replay();
}

#[test]
fn a_committed_saga_listens_to_nothing() {
    let mut steps = vec![step("hotel", &[])];
    steps[0].retry = retry(Some(2), &[RetryOn::Any]);
    let (mut world, _) = listened_to(steps);
    world.sleep();
    world.answer(0, T, answer(200, ""));
    assert_eq!(world.saga.state(), SagaState::Committed);
}
