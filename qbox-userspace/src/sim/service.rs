//! The services at the other end: what really happened, whatever the saga heard of it.

use crate::saga::{Plan, StepId};

/// The service of one step.
///
/// It does what docs/guarantees.md asks of one: an attempt under a known key does nothing again, and where it is fenced, a copy of
/// a transaction that arrives after its compensation, or after a probe was told that it is not there, does nothing.
#[derive(Clone, Debug, Hash)]
pub(super) struct Service {
    /// The transaction took effect, at least once.
    pub(super) happened: bool,
    /// What it did that each compensation undoes, and is still there.
    pub(super) parts: Vec<bool>,
    /// The sagas that were begun for it: whether what each did is still there.
    pub(super) children: Vec<bool>,
    /// Attempts that nobody waits for any more, and that may still take effect.
    pub(super) hanging: Vec<u32>,
    /// A request of the transaction has left Qbox.
    pub(super) sent: bool,
    /// As far as Qbox was told, it may have happened.
    pub(super) may_have: bool,
    /// It took effect after a compensation or after a probe that didn't find it.
    pub(super) late: bool,
    /// An operator has said that it is settled.
    pub(super) by_hand: bool,
    /// Compensations that were done, with the key's round: under the same key nothing is done twice.
    done: Vec<(u16, u32)>,
}

impl Service {
    /// One for each step.
    pub(super) fn all(plan: &Plan) -> Vec<Self> {
        let new = |step: &crate::saga::Step| Self {
            happened: false,
            parts: vec![false; step.compensations.len()],
            children: Vec::new(),
            hanging: Vec::new(),
            sent: false,
            may_have: false,
            late: false,
            by_hand: false,
            done: Vec::new(),
        };
        plan.steps.iter().map(new).collect()
    }

    /// The transaction takes effect.
    pub(super) fn happen(&mut self) {
        self.happened = true;
        self.parts.fill(true);
    }

    /// One that was given up takes effect.
    pub(super) fn land(&mut self) {
        self.hanging.clear();
        self.happen();
    }

    /// Whether one that was given up may take effect now, and nobody hears of it. What isn't fenced is promised to be heard once
    /// it has been undone, or was not found.
    pub(super) fn may_land(&self, fenced: bool) -> bool {
        let open = self.done.is_empty() && self.may_have;
        !self.hanging.is_empty() && (fenced || open)
    }

    /// A compensation is carried out. False: there was nothing to undo.
    pub(super) fn undo(&mut self, n: u16, round: u32, fenced: bool) -> bool {
        if fenced {
            self.hanging.clear();
        }
        if self.done.contains(&(n, round)) {
            // Answered from memory.
            return true;
        }
        self.done.push((n, round));
        self.parts
            .get_mut(usize::from(n))
            .is_some_and(|part| std::mem::replace(part, false))
    }

    /// The Nth saga that was begun for it is undone.
    pub(super) fn undo_child(&mut self, n: u16) {
        if let Some(child) = self.children.get_mut(usize::from(n)) {
            *child = false;
        }
    }

    /// Whether a probe finds it.
    pub(super) fn look(&mut self, fenced: bool) -> bool {
        if fenced && !self.happened {
            self.hanging.clear();
        }
        self.happened
    }

    /// An operator has seen that it was not done, and seen to it that it stays so.
    pub(super) fn forbid(&mut self) {
        self.happened = false;
        self.settle();
    }

    /// An operator has undone it, or done it.
    pub(super) fn settle(&mut self) {
        self.parts.fill(false);
        self.children.fill(false);
        self.hanging.clear();
        self.by_hand = true;
    }

    /// Something of it is there that a compensation would undo.
    pub(super) fn is_there(&self) -> bool {
        self.parts.contains(&true) || self.children.contains(&true)
    }
}

/// The service of that step.
pub(super) fn of(services: &[Service], step: StepId) -> &Service {
    &services[step.index()]
}
