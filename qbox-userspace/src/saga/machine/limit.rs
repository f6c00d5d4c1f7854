//! How many steps of one saga are under way at once.

use super::Saga;
use super::lane::Run;
use crate::saga::plan::Step;

impl Saga {
    /// So many steps (at least one) may be under way at once: going forward, those that were sent, are asked for, or wait for another
    /// attempt; being undone, those whose compensation is in flight. (One that waits for another attempt holds up no other there,
    /// and its further attempts are sent when they are due.) One that was folded from its events has no limit until it is given one.
    pub fn limit(&mut self, at_once: usize) {
        self.at_once = at_once.max(1);
    }

    /// As many steps are under way as may be, and another one could be.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        let forward = self.turned.is_none() && self.is_full() && self.next_step().is_some();
        let left = |(_, step, run): (_, &Step, &Run)| {
            run.needs_undo(step) && !run.undone && run.stuck.is_none() && !run.undo_begun()
        };
        let back = self.compensating.is_some() && self.undoes_its_most() && self.each().any(left);
        !self.paused && (forward || back)
    }

    /// No further step may start.
    pub(super) fn is_full(&self) -> bool {
        let busy = self.runs.iter().filter(|run| run.waits_forward());
        busy.count() >= self.at_once
    }

    /// No further step's compensation may start.
    pub(super) fn undoes_its_most(&self) -> bool {
        let flies = |run: &&Run| run.undos().any(|undo| undo.lane.flight.is_some());
        self.runs.iter().filter(flies).count() >= self.at_once
    }
}
