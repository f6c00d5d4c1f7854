//! Any plan, any outcomes, any order of arrival, crashes that lose what isn't durable: the saga ends, and its end is true.

use super::ledger::Ledger;
use super::world::{World, answer, compensation, key, outcome, plan, probe, retry, step, trigger};
use crate::saga::{
    AttemptEnd, Call, Class, CompensateWhen, Condition, Direction, Event, Input, Kind, OnRecovery,
    OperatorAction, Plan, RetryOn, SagaId, SagaState, StepId, StepState, Template, Test, UndoState,
};
use proptest::prelude::*;
use std::time::Duration;

#[derive(Debug, Clone)]
struct AnyStep {
    after: u8,
    attempts: u32,
    on: RetryOn,
    probe: bool,
    compensations: usize,
    /// 0: without end.
    undo_attempts: u32,
    always: bool,
    skipped: bool,
}

fn any_step() -> impl Strategy<Value = AnyStep> {
    let on = prop_oneof![
        4 => Just(RetryOn::Any),
        1 => Just(RetryOn::Timeout),
        1 => Just(RetryOn::Connect),
        1 => Just(RetryOn::Status5xx),
    ];
    (
        any::<u8>(),
        1..4_u32,
        on,
        prop::bool::weighted(0.3),
        prop_oneof![1 => Just(0), 5 => Just(1), 2 => Just(2_usize)],
        prop_oneof![3 => Just(0), 1 => 1..4_u32],
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(after, attempts, on, probe, compensations, undo_attempts, always, skipped)| AnyStep {
                after,
                attempts,
                on,
                probe,
                compensations,
                undo_attempts,
                always,
                skipped,
            },
        )
}

/// Any plan of up to eight steps that `qbox check` would let pass. Its steps are not in the order of their graph.
fn any_plan() -> impl Strategy<Value = Plan> {
    let steps = prop::collection::vec(any_step(), 1..=8);
    let pivot = prop::option::weighted(0.3, 0..8_usize);
    let timeout = prop_oneof![Just(1_u64), Just(60_000)];
    (steps, pivot, timeout, any::<bool>(), any::<u64>()).prop_map(
        |(steps, pivot, timeout, resume, shuffle)| {
            let mut place: Vec<usize> = (0..steps.len()).collect();
            for at in (1..place.len()).rev() {
                place.swap(at, (shuffle >> (at * 7)) as usize % (at + 1));
            }
            let mut placed: Vec<_> = steps
                .iter()
                .enumerate()
                .map(|(at, any)| (place[at], build(at, any, pivot, &place)))
                .collect();
            placed.sort_by_key(|(place, _)| *place);
            Plan {
                timeout: Duration::from_millis(timeout),
                on_recovery: if resume {
                    OnRecovery::Resume
                } else {
                    OnRecovery::Compensate
                },
                ..plan(placed.into_iter().map(|(_, step)| step).collect())
            }
        },
    )
}

fn build(at: usize, any: &AnyStep, pivot: Option<usize>, place: &[usize]) -> crate::saga::Step {
    let name = format!("s{at}");
    // What comes before a pivot is all done before it, what comes behind it waits for it.
    let after = (0..at).filter(|before| match pivot {
        Some(pivot) if at == pivot => true,
        Some(pivot) if at > pivot => *before == pivot || any.after & (1 << before) != 0,
        _ => any.after & (1 << before) != 0,
    });
    let after: Vec<u16> = after.map(|before| place[before] as u16).collect();
    let mut step = step(&name, &after);
    step.retry = retry(Some(any.attempts), &[any.on]);
    step.retry.max_elapsed = (any.attempts == 3).then_some(Duration::from_millis(200));
    step.probe = any.probe.then(|| probe(&name));
    step.compensations = vec![compensation(&name); any.compensations];
    for compensation in &mut step.compensations {
        compensation.retry.attempts = Some(any.undo_attempts).filter(|attempts| *attempts > 0);
        compensation.retry.max_elapsed = (any.undo_attempts == 3).then_some(Duration::from_millis(200));
    }
    if any.always {
        step.compensate_when = CompensateWhen::Always;
    }
    if any.skipped {
        step.when.push(Condition {
            value: Template::literal("no"),
            test: Test::Equals("yes".to_owned()),
        });
    }
    match pivot {
        Some(pivot) if at == pivot => step.kind = Kind::Pivot,
        Some(pivot) if at > pivot => step.kind = Kind::Retriable,
        _ => {}
    }
    if step.kind != Kind::Compensatable {
        step.compensations.clear();
        step.compensate_when = CompensateWhen::Applied;
        step.when.clear();
    }
    step
}

struct Story {
    world: World,
    ledger: Ledger,
    /// Transactions that were given up and may still take effect.
    hanging: Vec<Call>,
    /// An operator ended it all: nothing is promised.
    resolved: bool,
    checked: usize,
}

impl Story {
    fn new(plan: Plan) -> Self {
        let world = World::new(plan, trigger());
        let mut story = Self {
            ledger: Ledger::new(&world),
            world,
            hanging: Vec::new(),
            resolved: false,
            checked: 0,
        };
        story.check();
        story
    }

    fn go(&mut self, what: u8, which: u8, how: u8) {
        if self.world.is_over() {
            return;
        }
        match what % 20 {
            0..=11 if !self.world.open.is_empty() => {
                let at = usize::from(which) % self.world.open.len();
                let call = self.world.open[at].clone();
                let end = self.respond(&call, how);
                self.world.end(at, end);
            }
            12 | 13 if self.world.wake().is_some() => {
                self.world.sleep();
            }
            14 if !self.hanging.is_empty() => {
                let call = self.hanging.remove(usize::from(which) % self.hanging.len());
                self.ledger.effect(&call);
                self.world
                    .input(Input::Outcome(outcome(&call, answer(200, "late"))));
            }
            15 => {
                // Said twice, or said of what was never sent.
                let call = self.world.sent[usize::from(which) % self.world.sent.len()].clone();
                if !self.world.open.iter().any(|open| key(open) == key(&call)) {
                    let events = self.world.input(Input::Outcome(outcome(&call, answer(409, ""))));
                    assert_eq!(events, []);
                }
            }
            16 => self.crash(which, how),
            17 => self.operator(which, how),
            19 => self.nest(which, how),
            18 => self.world.now = self.world.now.after(Duration::from_millis(u64::from(how))),
            _ => {}
        }
        self.check();
    }

    /// What a service makes of a request, and what the saga hears of it.
    fn respond(&mut self, call: &Call, how: u8) -> AttemptEnd {
        match (call.direction, how % 10) {
            (Direction::Probe, 0..=5) => {
                let found = self.ledger.happened(call.step);
                answer(if found { 200 } else { 404 }, "")
            }
            (Direction::Transaction, 0..=3) => {
                self.ledger.effect(call);
                answer(200, "")
            }
            (Direction::Transaction, 4) => answer(409, ""),
            (Direction::Transaction, 5) => {
                self.hanging.push(call.clone());
                AttemptEnd::TimedOut
            }
            (Direction::Child(_), 0..=4) => {
                self.ledger.effect(call);
                answer(200, "")
            }
            (Direction::Compensation(_), 0..=5) => {
                let found = self.ledger.effect(call);
                answer(if found { 200 } else { 404 }, "")
            }
            (_, 6) if how < 128 => AttemptEnd::NotSent("connection refused".to_owned()),
            (_, 6) => AttemptEnd::Held("the circuit is open".to_owned()),
            (_, 7) => {
                self.ledger.effect(call);
                AttemptEnd::Broken("reset".to_owned())
            }
            (_, 8) => answer(500, ""),
            _ => AttemptEnd::TimedOut,
        }
    }

    fn crash(&mut self, which: u8, how: u8) {
        for (at, call) in self.world.open.iter().enumerate() {
            if call.direction != Direction::Probe && how & (1 << (at % 8)) != 0 {
                self.ledger.effect(call);
            }
        }
        self.hanging.clear();
        self.durable_pivot();
        let loose = self.world.journal.len() - self.world.durable;
        let lost = if which.is_multiple_of(2) {
            0
        } else {
            usize::from(which / 2) % (loose + 1)
        };
        self.world.crash(self.world.journal.len() - lost);
    }

    /// A saga begins for a step, if it is let; or the one above undoes this one.
    fn nest(&mut self, which: u8, how: u8) {
        if how.is_multiple_of(5) {
            self.world.input(Input::Revoked);
            return;
        }
        let step = StepId(u16::from(which) % self.world.plan.steps.len() as u16);
        let child = SagaId(u128::from(how));
        let undoing = self.world.saga.state() != SagaState::Running;
        if !self.world.input(Input::Nested(step, child)).is_empty() {
            // It waits for that.
            self.world.durable = self.world.journal.len();
            self.ledger.nest(step);
            assert!(!undoing || self.world.saga.state() == SagaState::Stuck);
        }
    }

    /// Nothing waits for the record of a pivot's late success; who loses it can't know of it. Not held against the machine.
    fn durable_pivot(&mut self) {
        let pivot = self
            .world
            .plan
            .steps
            .iter()
            .position(|step| step.kind == Kind::Pivot);
        let said = |event: &Event| matches!(event, Event::Ended { step, class: Class::Applied, .. } if Some(step.index()) == pivot);
        let at = self.world.journal.iter().rposition(said);
        self.world.durable = self.world.durable.max(at.map_or(0, |at| at + 1));
    }

    fn operator(&mut self, which: u8, how: u8) {
        let step = StepId(u16::from(which) % self.world.plan.steps.len() as u16);
        let action = match how % 12 {
            0..=2 => OperatorAction::Pause,
            3..=5 => OperatorAction::Resume,
            6 => OperatorAction::Compensate,
            7 => OperatorAction::Retry(None),
            8 => OperatorAction::Retry(Some(step)),
            9 | 10 => OperatorAction::Skip(step),
            _ => OperatorAction::Resolve,
        };
        let open: Vec<_> = Ledger::open_pivots(&self.world).collect();
        if self.world.operator(action.clone()).is_empty() {
            return;
        }
        match action {
            OperatorAction::Compensate => open.into_iter().for_each(|step| self.ledger.forbid(step)),
            OperatorAction::Skip(step) => self.ledger.undo_by_hand(step),
            OperatorAction::Resolve => self.resolved = true,
            _ => {}
        }
    }

    /// The world becomes kind: what is sent is done and answered.
    fn finish(&mut self) {
        self.world.operator(OperatorAction::Resume);
        let ledger = &mut self.ledger;
        self.world.run(|call| match call.direction {
            Direction::Probe if !ledger.happened(call.step) => answer(404, ""),
            Direction::Probe => answer(200, ""),
            _ => {
                ledger.effect(call);
                answer(200, "")
            }
        });
        self.check();
        if !self.resolved {
            self.ledger.check(&self.world);
        }
    }

    /// As [`Story::finish`]; and what was stuck can be finished once its cause is gone.
    fn end(&mut self) {
        self.finish();
        if self.world.saga.state() == SagaState::Stuck {
            self.world.operator(OperatorAction::Retry(None));
            self.finish();
        }
        // But for a pivot that came too late: that is a person's.
        if self.world.saga.state() == SagaState::Stuck {
            for (step, view) in self.world.plan.steps.iter().zip(self.world.saga.steps()) {
                let late = step.kind == Kind::Pivot && view.state == StepState::Applied;
                assert_eq!(view.undo == UndoState::Stuck, late, "{view:?}");
            }
            self.world.operator(OperatorAction::Resolve);
        }
        let state = self.world.saga.state();
        assert!(
            matches!(state, SagaState::Committed | SagaState::Compensated),
            "{state:?}"
        );
    }

    /// What holds at any time.
    fn check(&mut self) {
        let world = &self.world;
        let waits = !world.open.is_empty() || world.wake().is_some();
        assert!(
            waits || world.is_over() || world.saga.is_paused(),
            "waits for nothing: {:#?}",
            world.journal
        );
        assert_eq!(
            world.reply().is_some(),
            world.saga.commands().contains(&crate::saga::Command::Reply)
        );
        let views: Vec<_> = world.saga.steps().collect();
        for call in &world.sent[self.checked..] {
            if (call.direction, call.attempt) == (Direction::Compensation(0), 1) {
                for (at, view) in views.iter().enumerate() {
                    let out = matches!(view.undo, UndoState::None | UndoState::Undone | UndoState::Stuck);
                    let later = comes_after(&world.plan, at, call.step.index());
                    assert!(out || !later, "{call:?} before {view:?}: {:#?}", world.journal);
                }
            }
        }
        self.checked = world.sent.len();
        self.nothing_starts_after_a_failure();
        world.check_replay();
    }

    fn nothing_starts_after_a_failure(&self) {
        let journal = &self.world.journal;
        let pivot = self.world.plan.steps.iter().any(|step| step.kind == Kind::Pivot);
        let failed = journal
            .iter()
            .position(|event| matches!(event, Event::Failed { .. }));
        for event in journal.iter().skip(failed.unwrap_or(journal.len())) {
            let starts = matches!(
                event,
                Event::Sending {
                    direction: Direction::Transaction,
                    ..
                }
            );
            assert!(pivot || !starts, "{event:?}: {journal:#?}");
        }
    }
}

fn comes_after(plan: &Plan, later: usize, earlier: usize) -> bool {
    let after = &plan.steps[later].after;
    after
        .iter()
        .any(|before| before.index() == earlier || comes_after(plan, before.index(), earlier))
}

proptest! {
    #[test]
    fn every_saga_ends_and_its_end_is_true(
        plan in any_plan(),
        acts in prop::collection::vec(any::<(u8, u8, u8)>(), 0..60),
    ) {
        let mut story = Story::new(plan);
        for (what, which, how) in acts {
            story.go(what, which, how);
        }
        story.end();
    }

    /// A pivot that its probe didn't find comes at any moment of the way back.
    #[test]
    fn a_pivot_that_comes_late_is_never_lost(
        mut plan in any_plan(),
        acts in prop::collection::vec(any::<(u8, u8, u8)>(), 0..30),
    ) {
        prop_assume!(plan.steps.iter().all(|step| step.kind == Kind::Compensatable));
        let pivot = plan.steps.len() as u16;
        let mut pay = step("pay", &(0..pivot).collect::<Vec<_>>());
        pay.kind = Kind::Pivot;
        pay.compensations.clear();
        pay.probe = Some(probe("pay"));
        plan.steps.push(pay);
        let mut story = Story::new(plan);
        // All goes well up to the pivot, which hangs; then its probe finds nothing.
        while story.world.open[0].step != StepId(pivot) {
            story.go(0, 0, 0);
        }
        story.go(0, 0, 5);
        story.go(0, 0, 0);
        for (what, which, how) in acts {
            story.go(what, which, how);
        }
        story.end();
    }

    /// Cut anywhere, its history is one that a saga can go on from.
    #[test]
    fn any_prefix_of_a_history_can_be_recovered(
        plan in any_plan(),
        acts in prop::collection::vec(any::<(u8, u8, u8)>(), 0..40),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut story = Story::new(plan);
        for (what, which, how) in acts {
            story.go(what, which, how);
        }
        story.world.durable = 0;
        story.world.crash(1 + cut.index(story.world.journal.len()));
        story.resolved = true;
        story.finish();
        prop_assert!(story.world.is_over());
    }
}
