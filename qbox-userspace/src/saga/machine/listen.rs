//! Attempts whose time is over, and that somebody still listens to.

use super::Saga;
use crate::saga::event::Direction;
use crate::saga::id::StepId;
use crate::saga::io::Outcome;

impl Saga {
    /// That attempt of the transaction, which is in flight, will be listened to beyond its end.
    pub(super) fn listen(&mut self, step: StepId, attempt: u32) {
        if let Some(run) = self.runs.get_mut(step.index())
            && run.transaction.flight.is_some()
            && run.transaction.sent == attempt
        {
            run.listening.push(attempt);
        }
    }

    /// The exchange of an attempt that had ended before has ended too. False: that isn't what the outcome says.
    pub(super) fn hears_out(&mut self, outcome: &Outcome) -> bool {
        let Outcome {
            step,
            direction,
            attempt,
            ..
        } = *outcome;
        let Some(run) = self.runs.get_mut(step.index()) else {
            return false;
        };
        let lane = &run.transaction;
        let awaited = lane.flight.is_some() && lane.sent == attempt;
        if awaited || direction != Direction::Transaction {
            return false;
        }
        let before = run.listening.len();
        run.listening.retain(|open| *open != attempt);
        run.listening.len() < before
    }

    /// Something may be heard yet by which there would be something to undo, or to decide.
    pub(super) fn listens(&self) -> bool {
        self.each().any(|(_, step, run)| run.listens(step))
    }

    /// The steps of which something may be heard yet, if nothing else keeps the saga from its end; else none.
    #[must_use]
    pub fn only_listens(&self) -> Vec<StepId> {
        let undone = self.compensating.is_some() && self.ended.is_none() && self.all_undone();
        let listening = self.each().filter(|(_, step, run)| undone && run.listens(step));
        listening.map(|(id, ..)| id).collect()
    }

    /// Nothing is heard any more, or nobody needs to.
    pub(super) fn stop_listening(&mut self) {
        for run in &mut self.runs {
            run.listening.clear();
        }
    }
}
