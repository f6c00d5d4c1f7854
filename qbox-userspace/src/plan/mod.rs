//! The plan room: a saga rehearsed. What `qbox plan` shows of a saga file: its graph, every request that it would send,
//! and what would be undone; and of a trigger that is only observed, what its saga would have sent.
//!
//! The real machine decides; nothing is sent. Answers come from a file or are made up, time is the machine's own. Must not
//! know the network, clocks or running sagas. Errors: [`RequestError`] for a trigger's text that is no request.

mod graph;
mod json;
mod rehearse;
mod request;
mod svg;
mod text;

pub use graph::{mermaid, outline};
pub use rehearse::{How, Rehearsal, Script, Sent, StepEnd, rehearse};
pub use request::{RequestError, TextRequest, read_request};
pub use svg::svg;

use crate::config::Answer;
use crate::saga::{Kind, Plan, SagaId, StepId, Trigger, sample_trigger};
use std::sync::Arc;

/// All that `qbox plan` tells of a saga.
#[derive(Clone, Debug)]
pub struct Prospect {
    /// The saga.
    pub plan: Arc<Plan>,
    /// What starts it.
    pub trigger: Trigger,
    /// Nobody gave the trigger.
    pub made_up: bool,
    /// How it goes with the answers that were given, all others being successes.
    pub forward: Rehearsal,
    /// How it goes where a step fails, in the order of the file.
    pub failures: Vec<Failure>,
}

/// A step's failure, and what follows.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which step.
    pub step: StepId,
    /// In what way.
    pub how: How,
    /// What follows.
    pub run: Rehearsal,
}

impl Prospect {
    /// Rehearses the saga, and the failure of one step, or of each in turn. A retriable step is left out, since it is sent until
    /// it is applied; that nobody knows of a pivot too, since it is asked after until somebody does.
    #[must_use]
    pub fn new(plan: Arc<Plan>, trigger: Option<Trigger>, answers: &[Answer], fail: Option<StepId>) -> Self {
        let made_up = trigger.is_none();
        let trigger = trigger.unwrap_or_else(|| sample_trigger(&plan));
        // The same each time.
        let saga = SagaId(0);
        let run = |fail| rehearse(&plan, &trigger, &Script { answers, fail, saga });
        let forward = run(None);
        let mut failures = Vec::new();
        for (step, of) in (0u16..).map(StepId).zip(&plan.steps) {
            if fail.is_some_and(|only| only != step) {
                continue;
            }
            let ways: &[How] = match of.kind {
                Kind::Compensatable => &[How::Refused, How::Unknown],
                Kind::Pivot => &[How::Refused],
                Kind::Retriable => &[],
            };
            for how in ways {
                let run = run(Some((step, *how)));
                failures.push(Failure { step, how: *how, run });
            }
        }
        Self {
            plan,
            trigger,
            made_up,
            forward,
            failures,
        }
    }

    /// Whether the saga commits with the answers that were given.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.forward.state == crate::saga::SagaState::Committed
    }
}

#[cfg(test)]
mod tests;
