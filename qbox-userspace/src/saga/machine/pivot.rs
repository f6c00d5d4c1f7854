//! A pivot that nobody knows of and that can't be sent again by itself: it is a person's to find out.

use super::Saga;
use super::decide::asks_in_vain;
use super::lane::Run;
use crate::saga::event::{Class, Direction};
use crate::saga::id::{StepId, Timestamp};
use crate::saga::plan::{Kind, Step};
use crate::saga::retry::{self, Chance};

impl Saga {
    /// A pivot that may have been applied, and can't be sent again, because a secret of it is gone: what is before it may
    /// not be undone. Says why.
    pub(super) fn mute(&self, id: StepId, step: &Step, run: &Run) -> Option<String> {
        let open = step.kind == Kind::Pivot && run.class == Some(Class::Unknown) && self.gap().is_some();
        let hole = self.request(id, Direction::Transaction, run.transaction.next());
        let why = hole.err().filter(|_| open)?;
        Some(format!(
            "the pivot may or may not have been applied, and can't be sent again: {why}"
        ))
    }

    /// A pivot that may have been applied, that no probe can tell of, and that is refused now, as often as the file has it tried: the
    /// refusals may be the echo of the attempt whose answer never came. Says why.
    pub(super) fn balks(&self, id: StepId, step: &Step, run: &Run, at: Timestamp) -> Option<String> {
        let lane = &run.transaction;
        let why = lane.last.as_ref()?;
        let blind = step.probe.is_none() || asks_in_vain(run);
        let open = step.kind == Kind::Pivot && run.class == Some(Class::Unknown) && blind;
        if !open || !run.refused {
            return None;
        }
        // A pause is no attempt's end, but when the next one would begin says whether it may.
        let chance = Chance::of_attempt(self.seed, id, Direction::Transaction, lane.next());
        let due = at.after(retry::wait(&step.retry, lane.tried(at), why, chance));
        retry::spent(&step.retry, lane.tried(due)).then(|| {
            format!(
                "the pivot may have been applied by an attempt without an answer, and is refused now: {why}"
            )
        })
    }
}
