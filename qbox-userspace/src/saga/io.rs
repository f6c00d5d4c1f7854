//! What goes into the machine and what comes out of it.

use super::event::{AttemptEnd, Direction};
use super::id::{SagaId, StepId, Timestamp};
use super::message::Request;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Something the world says.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An attempt ended. Fenced by (step, direction, attempt): an outcome that is not awaited changes nothing, but for the
    /// late success of a transaction that was given up; if it is being undone, or is, it is compensated again.
    Outcome(Outcome),
    /// A transaction's attempt whose time is over is listened to for longer: said before its outcome. Whatever comes of it is
    /// an outcome of the same attempt once more, so that a compensated saga ends when nothing can be heard any more that
    /// would have to be undone. Not recorded, since a restart hears nothing.
    Listening {
        /// Of which step.
        step: StepId,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// A moment that a [`Command::Wake`] asked for has come.
    Timer,
    /// An operator's decision.
    Operator(Operator),
    /// Another saga is about to begin for a step of this one; see [`Saga::nesting_objection`](super::Saga::nesting_objection).
    Nested(StepId, SagaId),
    /// The saga that this one is nested in undoes it; see [`Saga::revoke_objection`](super::Saga::revoke_objection).
    Revoked,
    /// Qbox has restarted; nothing that was in flight will be heard of again.
    Recovered,
}

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Of which step.
    pub step: StepId,
    /// Which of its messages.
    pub direction: Direction,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How it ended. [`AttemptEnd::Lost`] counts as [`AttemptEnd::Broken`]: only [`Input::Recovered`] loses attempts.
    pub end: AttemptEnd,
}

/// What an operator decided, and why; it stands in the saga's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// What to do.
    pub action: OperatorAction,
    /// Who says so.
    pub who: String,
    /// Why.
    pub why: String,
}

/// What an operator can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorAction {
    /// Try the stuck compensations again (of one step, or all).
    Retry(Option<StepId>),
    /// This step's compensation was done by hand.
    Skip(StepId),
    /// The whole saga was settled by hand.
    Resolve,
    /// Abort a running saga.
    Compensate,
    /// Start nothing new until [`OperatorAction::Resume`].
    Pause,
    /// Go on.
    Resume,
}

/// What the runner is to do. A command is a function of the state: asking twice gives the same, and the runner
/// carries out those it has not begun.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Send this.
    Call(Call),
    /// Come back with [`Input::Timer`] at that moment (only the earliest is asked for).
    Wake(Timer),
    /// Answer the caller; the reply is [`Saga::reply`](super::Saga::reply).
    Reply,
}

/// When to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The moment.
    pub at: Timestamp,
}

/// One attempt, to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Of which step.
    pub step: StepId,
    /// Which of its messages.
    pub direction: Direction,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The request, complete with Qbox's own headers.
    pub request: Arc<Request>,
    /// The trigger itself: to its original destination, from the pod's own namespace.
    pub forward: bool,
    /// How long the whole exchange may take.
    pub timeout: Duration,
    /// Must not leave before everything appended is durable: the saga's first transactions and its compensations.
    pub durable_first: bool,
}
