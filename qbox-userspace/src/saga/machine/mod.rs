//! One saga as a state machine: events in, commands out.
//!
//! ```text
//! begin ─┐
//! decide ┴─> events ─> apply ─> state ─> commands, reply, views
//! replay ────────────────┘
//! ```
//!
//! - `apply` alone changes the state, and asks nobody: the same events give the same saga. Requests are not kept in
//!   events; they are put together again from the plan, the trigger and the answers.
//! - `decide` turns one input into events: what the input says, and then whatever follows from the state, one event after
//!   the other until nothing does. A saga cut off anywhere in its history therefore goes on from there.
//! - `commands` is what is under way: calls in flight, the next moment to wake, the reply.
//!
//! Rules that the format leaves open, and how they are decided here:
//!
//! - A stuck step doesn't hold up the others, not even those that it came after: each is undone that can be.
//! - A step without compensations is never `undone`; it is out of the way at once.
//! - When a saga turns, retries that are waiting are dropped. A step left unknown by that is still asked by its probe, once.
//! - A pivot that turns out applied before compensation began wins over the failure: the saga goes on forward. A
//!   step that then can't be applied is stuck: the saga can be neither undone nor finished without an operator.
//! - A pivot that may have been applied, of which no probe can tell, and that is refused now, is stuck where its own policy has an end and
//!   that is reached: the refusals may be the echo of the attempt whose answer never came. Only a person can know; one that turns the saga
//!   back says that it was not applied.
//! - A pivot that turns out applied when compensation had begun is stuck, since it can't be undone; the others are undone.
//! - The caller is answered at the latest `reply_timeout` after compensation began, and at the latest `timeout` and
//!   `reply_timeout` after the saga began, whatever it waits for (a pivot that must be known, a step behind it, an operator's
//!   pause): with the failure's reply, whose `saga.outcome` says where the saga stands. That stays its answer, also if
//!   the saga commits in the end.
//! - Terminal states never change. An outcome that comes later is not looked at. The one exception: a saga that is nested in another
//!   is undone by it also after it was committed, unless its pivot is applied ([`Input::Revoked`]). What its caller was answered stays.
//! - Sagas that began for a step ([`Input::Nested`]) are undone before the step's own compensations, the youngest first, whatever the
//!   step's outcome was. None may begin any more once compensation has.
//! - After a restart any step that the records call unsettled may have been sent in a tail that was lost: it counts as
//!   unknown. Pivots are the exception, since their intents are made durable before each attempt.
//! - The first intents of a saga, and of one that a restart takes up, each attempt of its pivot, the first attempt of each round
//!   of compensations and the first that an operator asks for wait for the journal.
//! - The answer by which a transaction was applied is the one that others read, with its own request, whatever later
//!   attempts answer. A probe's that found the effect stands for it where it never came.
//! - A step whose transaction succeeds after its compensation was begun is compensated from the start, under another key.
//! - All is undone, but an attempt whose time is over is still listened to ([`Input::Listening`]): the saga is `compensating` until
//!   nothing can be heard any more, and its caller is answered so, at once. A restart listens to nothing.
//! - Only a restart loses calls ([`Input::Recovered`]). An outcome that comes in as [`AttemptEnd::Lost`](super::event::AttemptEnd::Lost) (the runner's own
//!   call failed) is recorded as broken: it counts as an attempt, and may have had an effect.
//! - A call that a restart cut off is sent again without counting as an attempt, where the saga goes on that way at all.
//!
//! Must not know clocks, sockets, files. Errors: [`ReplayError`] for a history that is none; nothing else fails.

mod apply;
mod commands;
mod decide;
#[cfg(test)]
mod fingerprint;
mod hand;
mod headers;
mod lane;
mod limit;
mod listen;
mod nested;
mod pivot;
mod summary;

use super::event::{Class, Event, Hidden, SCHEMA};
use super::id::{PlanHash, SagaId, StepId, Timestamp};
use super::io::{Call, Input};
use super::message::Trigger;
use super::plan::{Kind, Plan, Step};
use super::values::{Exchange, Once, Values};
use lane::Run;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One run of a plan.
#[derive(Clone, Debug)]
pub struct Saga {
    id: SagaId,
    plan: Arc<Plan>,
    plan_hash: PlanHash,
    seed: u64,
    /// As far as messages can read it; the journal has all of it.
    trigger: Trigger,
    /// Its body, read.
    document: Once,
    began: Timestamp,
    /// How many steps may be under way at once. Not in the records: what is sent is.
    at_once: usize,
    runs: Vec<Run>,
    exchanges: Vec<Exchange>,
    /// A restart has not found all of its messages: where they hold marks something is missing, and this is why.
    gap: Option<String>,
    /// Something that was sent since the saga began, or was taken up, has ended: its first intents were durable.
    heard: bool,
    /// A restart, an operator or the saga above wants it undone.
    abort: Option<String>,
    /// The saga that it is nested in undoes it.
    revoked: bool,
    /// It had been committed before that.
    revived: bool,
    turned: Option<Turned>,
    compensating: Option<Timestamp>,
    /// The caller has waited long enough.
    overdue: bool,
    /// Its caller's answer was due before its end, and stays as it was then.
    due: Option<Due>,
    paused: bool,
    ended: Option<SagaState>,
}

/// An answer that was due before the saga's end.
#[derive(Clone, Debug)]
enum Due {
    /// The saga stands as it did then. (Thousands can be due at the same moment, and most are fetched before anything else
    /// happens.)
    AsItIs,
    /// How the saga stood then.
    As(Box<Saga>),
    /// It was fetched, and will not be again.
    Fetched,
}

/// The saga goes no further.
#[derive(Clone, Debug)]
struct Turned {
    step: Option<StepId>,
    cause: String,
}

/// Where a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SagaState {
    /// Forward; also while it waits for what is in flight after a failure.
    Running,
    /// All steps are applied or skipped. Terminal.
    Committed,
    /// What may have happened is being undone.
    Compensating,
    /// All of it is. Terminal.
    Compensated,
    /// Only an operator can finish it.
    Stuck,
}

/// Where a step's transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Under way, or another attempt is due.
    Running,
    /// Applied.
    Applied,
    /// Not applied.
    Refused,
    /// It may have been applied.
    Unknown,
    /// Its `when` did not hold.
    Skipped,
}

/// Where a step's compensation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UndoState {
    /// There is nothing to undo, or no need to.
    None,
    /// It will be undone.
    Pending,
    /// Under way, or another attempt is due.
    Running,
    /// Undone.
    Undone,
    /// Waits for an operator. Also a step that can't be applied after the pivot was.
    Stuck,
}

/// One step, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its transaction.
    pub state: StepState,
    /// Its compensation.
    pub undo: UndoState,
    /// How many times its request was sent.
    pub attempts: u32,
    /// Why it failed or is stuck.
    pub cause: Option<&'a str>,
}

/// A history that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The first event must be [`Event::Began`].
    #[error("the saga's history doesn't begin with its beginning")]
    NoBeginning,
    /// Only the first may be.
    #[error("the saga's history begins twice")]
    SecondBeginning,
    /// Written by a later Qbox.
    #[error("the saga's events have version {0}, this Qbox reads up to {SCHEMA}")]
    Schema(u16),
    /// An event of a step or compensation that the plan doesn't have.
    #[error("the saga's history names step number {} in a way that its plan doesn't", .0.0)]
    NotInPlan(StepId),
}

impl Saga {
    /// A new saga, with the events that begin it: the first requests are ready in [`Saga::commands`].
    ///
    /// `seed` is where all its chance comes from; two sagas should not have the same. `at_once` steps (at least one) may be under
    /// way: see [`Saga::limit`].
    #[must_use]
    pub fn begin(
        id: SagaId,
        plan: Arc<Plan>,
        plan_hash: PlanHash,
        seed: u64,
        trigger: Trigger,
        now: Timestamp,
        at_once: usize,
    ) -> (Self, Vec<Event>) {
        let mut saga = Self::new(id, plan, plan_hash, seed, &trigger, now);
        let began = Event::Began {
            schema: SCHEMA,
            saga: id,
            plan: plan_hash,
            name: saga.plan.name.clone(),
            seed,
            trigger,
            at: now,
            hidden: None,
        };
        saga.limit(at_once);
        let mut events = vec![began];
        saga.follow(now, &mut events);
        (saga, events)
    }

    /// The saga whose history this is. `plan` must be the one that the first event's hash names.
    ///
    /// After a restart the next input must be [`Input::Recovered`]: until then the calls of the past seem in flight.
    ///
    /// # Errors
    /// A history that no saga of that plan can have had.
    pub fn replay(plan: Arc<Plan>, events: impl IntoIterator<Item = Event>) -> Result<Self, ReplayError> {
        Self::replay_each(plan, events, |_, _| {})
    }

    /// The requests of a history in the order of sending, each as it was put together then; with marks where secrets of it
    /// are gone.
    ///
    /// # Errors
    /// As [`Saga::replay`].
    pub fn requests(
        plan: Arc<Plan>,
        events: impl IntoIterator<Item = Event>,
    ) -> Result<Vec<Call>, ReplayError> {
        let mut sent = Vec::new();
        Self::replay_each(plan, events, |saga, event| {
            if let Event::Sending {
                step,
                direction,
                attempt,
                ..
            } = event
            {
                let this =
                    |call: &Call| (call.step, call.direction, call.attempt) == (*step, *direction, *attempt);
                let marked = || saga.marked_call(*step, *direction, *attempt);
                sent.extend(saga.calls().find(this).or_else(marked));
            }
        })?;
        Ok(sent)
    }

    /// As [`Saga::replay`]; `see` is shown the saga after each event but the first.
    fn replay_each(
        plan: Arc<Plan>,
        events: impl IntoIterator<Item = Event>,
        mut see: impl FnMut(&Self, &Event),
    ) -> Result<Self, ReplayError> {
        let mut events = events.into_iter();
        let Some(Event::Began {
            schema,
            saga: id,
            plan: hash,
            seed,
            trigger,
            at,
            hidden,
            ..
        }) = events.next()
        else {
            return Err(ReplayError::NoBeginning);
        };
        if schema > SCHEMA {
            return Err(ReplayError::Schema(schema));
        }
        let mut saga = Self::new(id, plan, hash, seed, &trigger, at);
        saga.miss(hidden.as_ref());
        for event in events {
            saga.check(&event)?;
            if let Event::Ended { hidden, .. } = &event {
                saga.miss(hidden.as_ref());
            }
            saga.apply(&event);
            see(&saga, &event);
        }
        Ok(saga)
    }

    /// What follows from `input`: the new events, already applied. None: the input changes nothing, or, for an
    /// operator's decision, can't be taken now.
    pub fn decide(&mut self, input: Input, now: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        let revocable = input == Input::Revoked && self.ended == Some(SagaState::Committed);
        if self.ended.is_some() && !revocable {
            return events;
        }
        if self.take(input, now, &mut events) {
            self.follow(now, &mut events);
        }
        events
    }

    /// Something of a message is not there any more. What can't be had counts for more than what nobody should need.
    fn miss(&mut self, hidden: Option<&Hidden>) {
        match hidden {
            Some(Hidden { lost: Some(why), .. }) => self.gap = Some(why.clone()),
            Some(_) if self.gap.is_none() => self.gap = Some("the journal left it out".to_owned()),
            _ => {}
        }
    }

    fn new(
        id: SagaId,
        plan: Arc<Plan>,
        plan_hash: PlanHash,
        seed: u64,
        trigger: &Trigger,
        began: Timestamp,
    ) -> Self {
        let trigger = plan.reads().of_trigger(trigger);
        let runs = plan.steps.iter().map(Run::new).collect();
        let exchanges = plan.steps.iter().map(|_| Exchange::default()).collect();
        Self {
            id,
            plan,
            plan_hash,
            seed,
            trigger,
            document: Once::default(),
            began,
            at_once: usize::MAX,
            runs,
            exchanges,
            gap: None,
            heard: false,
            abort: None,
            revoked: false,
            revived: false,
            turned: None,
            compensating: None,
            overdue: false,
            due: None,
            paused: false,
            ended: None,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> SagaId {
        self.id
    }

    /// Its plan.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The hash of its plan.
    #[must_use]
    pub fn plan_hash(&self) -> PlanHash {
        self.plan_hash
    }

    /// The request that started it, as far as its messages can read it.
    #[must_use]
    pub fn trigger(&self) -> &Trigger {
        &self.trigger
    }

    /// Why messages of its past may hold [`super::MARK`]s instead of values, if they may.
    #[must_use]
    pub fn gap(&self) -> Option<&str> {
        self.gap.as_deref()
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.began
    }

    /// Nothing new is sent until an operator says so.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The step to blame, once there is one.
    #[must_use]
    pub fn failed_step(&self) -> Option<StepId> {
        self.turned.as_ref().and_then(|turned| turned.step)
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> SagaState {
        if let Some(ended) = self.ended {
            return ended;
        }
        // What a pause keeps from being sent is not stuck.
        let held = |step: &Step, run: &Run| {
            self.paused
                && self.compensating.is_some()
                && run.needs_undo(step)
                && !run.undone
                && run.stuck.is_none()
        };
        let waits = |(_, step, run): (_, &Step, &Run)| {
            held(step, run) || run.lanes().any(|(_, lane)| !lane.is_idle())
        };
        if self.runs.iter().any(|run| run.stuck.is_some()) && !self.each().any(waits) {
            return SagaState::Stuck;
        }
        match self.compensating {
            Some(_) => SagaState::Compensating,
            None => SagaState::Running,
        }
    }

    /// Where each step stands, in the plan's order.
    pub fn steps(&self) -> impl Iterator<Item = StepView<'_>> {
        self.plan
            .steps
            .iter()
            .zip(&self.runs)
            .map(|(step, run)| StepView {
                name: &step.name,
                state: run.state(),
                undo: self.undo_state(step, run),
                attempts: run.transaction.sent,
                cause: run.stuck.as_deref().or(run.failed.as_deref()),
            })
    }

    fn undo_state(&self, step: &Step, run: &Run) -> UndoState {
        if run.stuck.is_some() {
            UndoState::Stuck
        } else if run.undone {
            UndoState::Undone
        } else if self.turned.is_none() || !run.settled() || !run.needs_undo(step) {
            UndoState::None
        } else if run.undo_begun() {
            UndoState::Running
        } else {
            UndoState::Pending
        }
    }

    /// What expressions are filled in from.
    pub(super) fn values(&self) -> Values<'_> {
        Values {
            saga: self.id,
            plan: &self.plan,
            trigger: &self.trigger,
            document: Some(&self.document),
            exchanges: &self.exchanges,
            failed_step: self.failed_step(),
            // All that is sent is sent before the end, and compensations also when other steps are stuck. (A reply says more.)
            outcome: self.compensating.map(|_| SagaState::Compensating.as_str()),
            gap: self.gap.as_deref(),
        }
    }

    /// Each step with its place and its state.
    fn each(&self) -> impl Iterator<Item = (StepId, &Step, &Run)> {
        let steps = self.plan.steps.iter().zip(&self.runs);
        (0..)
            .map(StepId)
            .zip(steps)
            .map(|(id, (step, run))| (id, step, run))
    }

    fn run(&self, step: StepId) -> Option<&Run> {
        self.runs.get(step.index())
    }

    /// The pivot is applied: there is no way back.
    fn past_pivot(&self) -> bool {
        self.each()
            .any(|(_, step, run)| step.kind == Kind::Pivot && run.class == Some(Class::Applied))
    }
}

#[cfg(test)]
mod tests;
