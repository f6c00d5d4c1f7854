//! What a saga's default replies tell of it, and the names of its states as the saga file's reference has them.

use super::{Saga, SagaState, StepState, UndoState};
use crate::saga::reply::{StepLine, Summary};
use crate::saga::secrets::Secrets;

impl SagaState {
    /// `running`, `committed`, `compensating`, `compensated`, `stuck`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Committed => "committed",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::Stuck => "stuck",
        }
    }
}

impl StepState {
    /// `pending`, `running`, `applied`, `refused`, `unknown`, `skipped`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
        }
    }
}

impl UndoState {
    /// `none`, `pending`, `running`, `undone`, `stuck`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Undone => "undone",
            Self::Stuck => "stuck",
        }
    }
}

impl Saga {
    /// For the replies that stand where the file gives none.
    pub(super) fn summary<'a>(&'a self, secrets: &'a Secrets) -> Summary<'a> {
        let failed = self.failed_step();
        let exchange = failed.and_then(|step| self.exchanges.get(step.index()));
        Summary {
            saga: self.id,
            name: &self.plan.name,
            outcome: self.state().as_str(),
            failed_step: failed.and_then(|step| Some(self.plan.steps.get(step.index())?.name.as_str())),
            cause: failed
                .and_then(|step| self.run(step)?.failed.as_deref())
                .or(self.turned.as_ref().map(|turned| turned.cause.as_str())),
            answer: exchange.and_then(|exchange| exchange.response.as_deref()),
            secrets,
            steps: self
                .steps()
                .map(|step| StepLine {
                    name: step.name,
                    state: step.state.as_str(),
                    compensation: step.undo.as_str(),
                })
                .collect(),
        }
    }
}
