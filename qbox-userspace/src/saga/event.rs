//! What happened to a saga: the journal's records. Numbered by the journal; the first is always [`Event::Began`].

use super::id::{PlanHash, SagaId, StepId, Timestamp};
use super::io::Operator;
use super::message::{Response, Trigger};
use serde::{Deserialize, Serialize};

/// The version of the records below; a journal with a higher one is refused.
///
/// 2: [`AttemptEnd::Held`]. 3: [`Event::Nested`], [`Event::Revoked`], [`Direction::Child`].
pub const SCHEMA: u16 = 3;

/// Which message of a step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The step's request.
    Transaction,
    /// Its probe.
    Probe,
    /// Its Nth compensation, from 0.
    Compensation(u16),
    /// The undoing of the Nth saga that began for it, from 0. It is no request: the runner turns that saga back.
    Child(u16),
}

/// What an outcome means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Certainly had no effect.
    NotApplied,
    /// May have had one.
    Unknown,
    /// Had it.
    Applied,
}

/// How one attempt ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// Not a byte left: DNS, connect refused, no route, an expression without a value. Says why.
    NotSent(String),
    /// Not a byte left, and Qbox itself is why: the service's circuit is open, or as many calls to it are in flight as may
    /// be. Says which. For a compensation it doesn't count as an attempt.
    Held(String),
    /// A whole answer.
    Answered(Response),
    /// No whole answer within the attempt's timeout.
    TimedOut,
    /// The connection broke, or the answer was no HTTP, after at least one byte was written. Says how.
    Broken(String),
    /// Qbox stopped while the attempt was in flight. Stands in the records of a restart alone: an outcome that comes in
    /// as lost is recorded as [`AttemptEnd::Broken`], so that it counts as an attempt.
    Lost,
}

/// What stands not in the clear in a journal's record of a message: there is [`super::MARK`] instead of it. A saga that
/// has been running since it began knows its messages whole.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Hidden {
    /// What a restart needs of it, encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// Of a trigger: what tells another one with the same key from it, where that can't be found out any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<String>,
    /// Why what was sealed can't be had. Never recorded.
    #[serde(skip)]
    pub lost: Option<String>,
}

/// One record.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The saga exists.
    Began {
        /// [`SCHEMA`] of the Qbox that wrote it.
        schema: u16,
        /// Its id.
        saga: SagaId,
        /// The content hash of the plan that it runs under, to its end.
        plan: PlanHash,
        /// The plan's name.
        name: String,
        /// From which all its chance (jitter, span ids) is drawn.
        seed: u64,
        /// The request that started it.
        trigger: Trigger,
        /// When.
        at: Timestamp,
        /// Secrets of the trigger.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hidden: Option<Hidden>,
    },
    /// A step's `when` does not hold.
    Skipped {
        /// Which step.
        step: StepId,
        /// When.
        at: Timestamp,
    },
    /// The intent to send, before the first byte. Attempts count from 1 per step and direction.
    Sending {
        /// Which step.
        step: StepId,
        /// Which of the step's messages.
        direction: Direction,
        /// Which attempt, from 1.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// An attempt's end. `class` is what it says of the transaction (for a compensation: `Applied` is undone).
    Ended {
        /// Which step.
        step: StepId,
        /// Which of the step's messages.
        direction: Direction,
        /// Which attempt, from 1.
        attempt: u32,
        /// How it ended.
        end: AttemptEnd,
        /// What the attempt says.
        class: Class,
        /// When.
        at: Timestamp,
        /// Secrets of the answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hidden: Option<Hidden>,
    },
    /// Another attempt is due at `due`.
    RetryAt {
        /// Which step.
        step: StepId,
        /// Which of the step's messages.
        direction: Direction,
        /// Which attempt, from 1.
        attempt: u32,
        /// When it is to be sent.
        due: Timestamp,
        /// When.
        at: Timestamp,
    },
    /// A step can't go on forward: its final class is what its attempts say. `cause` is for people.
    StepFailed {
        /// Which step.
        step: StepId,
        /// The step's final class.
        class: Class,
        /// Why, for people.
        cause: String,
        /// When.
        at: Timestamp,
    },
    /// The saga turns: no further step starts. `step` is the one to blame; `None`: the saga's own deadline or an operator.
    Failed {
        /// The step to blame; `None`: the saga's own deadline, an operator, or a restart.
        step: Option<StepId>,
        /// Why, for people.
        cause: String,
        /// When.
        at: Timestamp,
    },
    /// All in flight have ended; compensation begins.
    Compensating {
        /// When.
        at: Timestamp,
    },
    /// The caller has waited long enough, for the compensation or for the end of all, and is answered before it.
    ReplyDue {
        /// When.
        at: Timestamp,
    },
    /// Another saga begins, whose trigger was sent for a step of this one: it is undone with that step.
    Nested {
        /// Which step.
        step: StepId,
        /// The saga that begins.
        child: SagaId,
        /// When.
        at: Timestamp,
    },
    /// The saga that this one is nested in undoes the step that it was begun for: it turns back, also from its end.
    Revoked {
        /// When.
        at: Timestamp,
    },
    /// A step's compensations are all done.
    Undone {
        /// Which step.
        step: StepId,
        /// When.
        at: Timestamp,
    },
    /// A step's compensation can't succeed by itself.
    Stuck {
        /// Which step.
        step: StepId,
        /// Why, for people.
        cause: String,
        /// When.
        at: Timestamp,
    },
    /// Every step is applied or skipped.
    Committed {
        /// When.
        at: Timestamp,
    },
    /// Everything that may have happened is undone.
    Compensated {
        /// When.
        at: Timestamp,
    },
    /// An operator decided.
    Decided {
        /// What, who and why.
        operator: Operator,
        /// When.
        at: Timestamp,
    },
    /// A restart found the saga running.
    Recovered {
        /// When.
        at: Timestamp,
    },
}
