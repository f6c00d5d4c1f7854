//! Sagas inside sagas: those that began for a step of this one, which are undone with it; and the one that this is nested in, which
//! may undo this one, also from its end.

use super::lane::Undo;
use super::{Saga, SagaState};
use crate::saga::id::{SagaId, StepId};
use crate::saga::plan::{RetryOn, RetryPolicy};
use std::time::Duration;

/// More sagas than this don't begin for one step.
const MOST: usize = 1_000;

/// How long the runner waits for the end of a child before it looks again.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A saga that began for a step.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) saga: SagaId,
    pub(super) undo: Undo,
}

/// A child is asked for until it is undone; where it can't be, it says so, and is not asked again.
pub(super) fn policy() -> RetryPolicy {
    RetryPolicy {
        attempts: None,
        on: vec![RetryOn::Any],
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(30),
        max_elapsed: None,
    }
}

impl Saga {
    /// Why no saga may begin for this step any more, or not yet: nobody would undo it. `None`: one may, and is undone with the
    /// step. (Nobody needs to know of one that begins when this saga is committed.)
    #[must_use]
    pub fn nesting_objection(&self, step: StepId) -> Option<&'static str> {
        let Some(run) = self.run(step) else {
            return Some("it has no such step");
        };
        if self.compensating.is_some() || self.ended == Some(SagaState::Compensated) {
            Some("it is being undone, or is already")
        } else if !run.begun() {
            Some("that step has not been sent")
        } else if run.children.len() >= MOST {
            Some("too many sagas have begun for that step")
        } else {
            None
        }
    }

    /// Why the saga that this one is nested in can't undo it. `None`: it can, or has.
    #[must_use]
    pub fn revoke_objection(&self) -> Option<&'static str> {
        if self.trigger.parent().is_none() {
            Some("it is nested in no other saga")
        } else if self.past_pivot() {
            Some("its pivot is applied, and can't be undone")
        } else {
            None
        }
    }

    /// The saga that this one is nested in has undone it, or is about to.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// The Nth saga that began for a step, from 0.
    #[must_use]
    pub fn child(&self, step: StepId, n: u16) -> Option<SagaId> {
        let child = self.run(step)?.children.get(usize::from(n))?;
        Some(child.saga)
    }
}
