//! What an operator is told: why a decision can't be carried out as things stand, and what a step was last answered.

use super::Saga;
use super::lane::Run;
use crate::saga::id::StepId;
use crate::saga::io::OperatorAction;

impl Saga {
    /// Why an operator's decision changes nothing, or can't be taken, as things stand. `None`: it can.
    ///
    /// [`OperatorAction::Resolve`] says that a person has settled all that was open, in the direction in which the saga was going:
    /// one that was being undone is then compensated; one that was stuck behind its applied pivot is committed, each step that
    /// was not done taken as applied. It can't turn one into the other.
    #[must_use]
    pub fn objection(&self, action: &OperatorAction) -> Option<&'static str> {
        if self.ended.is_some() {
            return Some("it has ended");
        }
        let stuck = |run: &Run| run.stuck.is_some();
        let unless = |holds: bool, objection| (!holds).then_some(objection);
        match action {
            OperatorAction::Retry(which) => {
                let meant = || {
                    self.each()
                        .filter(|(id, ..)| which.is_none_or(|step| step == *id))
                };
                // Nothing could be sent for it, however often it is tried.
                let compensates = self.compensating.is_some();
                let lost = |step, run: &Run| compensates && stuck(run) && run.is_lost_pivot(step);
                let helps = meant().any(|(_, step, run)| {
                    let waits = run.undos().any(|undo| undo.lane.due.is_some());
                    (stuck(run) && !lost(step, run)) || waits
                });
                let objection = match which {
                    _ if meant().any(|(_, step, run)| lost(step, run)) => {
                        "its pivot is applied, and nothing that could be sent undoes that: settle it by hand, and say so with `resolve`"
                    }
                    None => "nothing of it is stuck, and no compensation waits for another attempt",
                    Some(_) => "that step is not stuck, and no compensation of it waits for another attempt",
                };
                unless(helps, objection)
            }
            OperatorAction::Skip(step) => {
                let place = self.each().find(|(id, ..)| id == step);
                let helps = place.is_some_and(|(_, step, run)| {
                    let undoing = self.compensating.is_some() && run.needs_undo(step) && !run.undone;
                    undoing || stuck(run)
                });
                unless(
                    helps,
                    "that step is not stuck, and nothing of it is left to be undone",
                )
            }
            OperatorAction::Resolve => unless(
                self.turned.is_some() || self.runs.iter().any(stuck),
                "it goes forward by itself; `compensate` turns it back",
            ),
            // It is waited for what nobody can know but a person, who says by this that the pivot was not applied.
            OperatorAction::Compensate if self.runs.iter().any(Run::is_open) => None,
            OperatorAction::Compensate if self.turned.is_some() => {
                Some("it has failed, and is being undone already")
            }
            OperatorAction::Compensate => {
                unless(!self.past_pivot(), "its pivot is applied: it can only go forward")
            }
            OperatorAction::Pause => unless(!self.paused, "it is paused already"),
            OperatorAction::Resume => unless(self.paused, "it is not paused"),
        }
    }

    /// How the last attempt of a step ended, for people: of its compensation where that was begun, else of its request.
    #[must_use]
    pub fn last_answer(&self, step: StepId) -> Option<String> {
        let run = self.run(step)?;
        let undo = run.undo.iter().rev().find_map(|undo| undo.lane.last.as_deref());
        let last = undo.or(run.transaction.last.as_deref());
        last.map(ToString::to_string)
    }
}
