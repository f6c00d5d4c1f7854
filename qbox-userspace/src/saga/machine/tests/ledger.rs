//! What really happened at the services, whatever the saga heard of it; and the promise, checked against that.

use super::world::World;
use crate::saga::{Call, CompensateWhen, Direction, Kind, SagaState, StepId, StepState, StepView, UndoState};

/// One entry per step.
#[derive(Debug)]
pub(super) struct Ledger(Vec<Entry>);

#[derive(Debug, Clone)]
struct Entry {
    /// The transaction has happened at least once.
    happened: bool,
    /// An operator has settled it.
    by_hand: bool,
    /// What it did that each compensation undoes.
    parts: Vec<bool>,
    /// The sagas that were begun for it: whether what each did is still there.
    children: Vec<bool>,
}

impl Ledger {
    pub(super) fn new(world: &World) -> Self {
        let entry = |step: &crate::saga::Step| Entry {
            happened: false,
            by_hand: false,
            parts: vec![false; step.compensations.len()],
            children: Vec::new(),
        };
        Self(world.plan.steps.iter().map(entry).collect())
    }

    /// The request takes effect. False: there was nothing to undo.
    pub(super) fn effect(&mut self, call: &Call) -> bool {
        let entry = &mut self.0[call.step.index()];
        match call.direction {
            Direction::Transaction => {
                entry.happened = true;
                entry.parts.fill(true);
                true
            }
            Direction::Compensation(n) => std::mem::replace(&mut entry.parts[usize::from(n)], false),
            Direction::Child(n) => std::mem::replace(&mut entry.children[usize::from(n)], false),
            Direction::Probe => true,
        }
    }

    pub(super) fn happened(&self, step: StepId) -> bool {
        self.0[step.index()].happened
    }

    /// A saga begins for the step, and does what it does.
    pub(super) fn nest(&mut self, step: StepId) {
        self.0[step.index()].children.push(true);
    }

    /// An operator undid it.
    pub(super) fn undo_by_hand(&mut self, step: StepId) {
        self.0[step.index()].children.fill(false);
        self.0[step.index()].parts.fill(false);
        self.0[step.index()].by_hand = true;
    }

    /// The pivots that are stuck since nobody knows of them.
    pub(super) fn open_pivots(world: &World) -> impl Iterator<Item = StepId> {
        let open = |view: StepView<'_>| view.state == StepState::Running && view.undo == UndoState::Stuck;
        (0..)
            .map(StepId)
            .zip(world.saga.steps())
            .filter(move |(_, view)| open(*view))
            .map(|(step, _)| step)
    }

    /// An operator saw that it was not done, and saw to it that it stays so.
    pub(super) fn forbid(&mut self, step: StepId) {
        self.0[step.index()].happened = false;
    }

    /// All or nothing, as far as the saga says so.
    pub(super) fn check(&self, world: &World) {
        let state = world.saga.state();
        // What is before a pivot that nobody knows of may have to stay.
        let open = Self::open_pivots(world).next().is_some();
        for (entry, (step, view)) in self.0.iter().zip(world.plan.steps.iter().zip(world.saga.steps())) {
            let there = entry.parts.iter().chain(&entry.children).any(|part| *part);
            let why = format!("{state:?}, {view:?}, {entry:?}\n{:#?}", world.journal);
            match state {
                SagaState::Committed => {
                    assert!(
                        matches!(view.state, StepState::Applied | StepState::Skipped),
                        "{why}"
                    );
                    let applied = view.state == StepState::Applied;
                    assert!(applied == entry.happened || entry.by_hand, "{why}");
                    assert!(
                        entry.children.iter().all(|child| *child) || entry.by_hand,
                        "{why}"
                    );
                    assert!(!applied || entry.parts.iter().all(|part| *part), "{why}");
                }
                SagaState::Compensated => {
                    assert!(!there, "left behind: {why}");
                    assert!(view.undo != UndoState::Stuck, "{why}");
                    // What can't be undone has not happened, unless a person says so.
                    assert!(
                        step.kind == Kind::Compensatable || !entry.happened || entry.by_hand,
                        "{why}"
                    );
                    let skipped = view.state == StepState::Skipped;
                    let may_have = matches!(view.state, StepState::Applied | StepState::Unknown);
                    let has = !step.compensations.is_empty() && step.kind == Kind::Compensatable;
                    let undone = view.undo == UndoState::Undone;
                    let nested = !entry.children.is_empty();
                    assert!(undone || !(may_have && has || nested), "not undone: {why}");
                    let always = step.compensate_when == CompensateWhen::Always;
                    assert!(
                        (may_have || always || nested) && !skipped || !undone,
                        "undone for nothing: {why}"
                    );
                }
                SagaState::Stuck => {
                    assert!(
                        !there || open || view.undo == UndoState::Stuck,
                        "left behind unseen: {why}"
                    );
                }
                SagaState::Running | SagaState::Compensating => panic!("not over: {why}"),
            }
        }
    }
}
