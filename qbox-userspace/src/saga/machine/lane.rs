//! What is known of one step: its attempts in each direction, what they add up to, and how far its undoing is.
//!
//! Plain data; only `apply` changes it.

use super::StepState;
use super::nested::Child;
use crate::saga::event::{Class, Direction};
use crate::saga::id::Timestamp;
use crate::saga::message::Request;
use crate::saga::plan::{CompensateWhen, Kind, Step};
use crate::saga::retry::{Tried, Why};
use std::sync::Arc;
use std::time::Duration;

/// The attempts of one message of a step; at most one is in flight, and their numbers never come twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    /// The number of the last attempt that was sent; 0: none.
    pub(super) sent: u32,
    /// How many of those the policy doesn't count: cut off by a restart, held back by Qbox itself, or before a new start.
    pub(super) free: u32,
    /// How many of those were held back: the waits grow with them all the same.
    pub(super) held: u32,
    /// When the first one was sent that the policy counts; a restart and a new start begin anew.
    pub(super) first: Option<Timestamp>,
    /// The one in flight. (Boxed, as the next, since most lanes have none most of the time.)
    pub(super) flight: Option<Box<Flight>>,
    /// When the next one is to be sent.
    pub(super) due: Option<Timestamp>,
    /// How the last one ended, until the next is sent.
    pub(super) last: Option<Box<Why>>,
}

/// An attempt in flight.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// What is sent; or why it could not be put together.
    pub(super) request: Result<Arc<Request>, String>,
    /// Its intent must be durable first.
    pub(super) durable_first: bool,
    /// When it was to be sent.
    pub(super) since: Timestamp,
}

impl Lane {
    /// The number of the next attempt.
    pub(super) fn next(&self) -> u32 {
        self.sent.saturating_add(1)
    }

    /// How many attempts the policy counts.
    pub(super) fn used(&self) -> u32 {
        self.sent.saturating_sub(self.free)
    }

    /// What a policy asks of it, were the next attempt sent `then`.
    pub(super) fn tried(&self, then: Timestamp) -> Tried {
        Tried {
            used: self.used(),
            held: self.held,
            elapsed: self.first.map_or(Duration::ZERO, |first| then.since(first)),
        }
    }

    /// Nothing is in flight and nothing is due.
    pub(super) fn is_idle(&self) -> bool {
        self.flight.is_none() && self.due.is_none()
    }

    /// Forgets what was, but for the numbers: the next attempt is the policy's first.
    pub(super) fn start_anew(&mut self) {
        self.free = self.sent;
        self.held = 0;
        self.first = None;
        self.due = None;
        self.last = None;
    }

    /// Waits for nothing any more.
    pub(super) fn stop(&mut self) {
        self.flight = None;
        self.due = None;
    }
}

/// One compensation of a step.
#[derive(Clone, Debug, Default)]
pub(super) struct Undo {
    /// Its attempts.
    pub(super) lane: Lane,
    /// It succeeded.
    pub(super) done: bool,
    /// The attempt in flight was sent before the transaction turned out to have happened later: its success counts for nothing.
    pub(super) stale: bool,
}

/// One step, as it stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// Its `when` did not hold.
    pub(super) skipped: bool,
    /// A restart may have lost the record that it was sent.
    pub(super) maybe_sent: bool,
    /// What its attempts say together; `None`: none has ended.
    pub(super) class: Option<Class>,
    /// The last attempt of the transaction was answered with a refusal.
    pub(super) refused: bool,
    /// The probe gave a clear answer.
    pub(super) probed: bool,
    /// The transaction itself answered that it was applied: that answer is the one that counts.
    pub(super) answered: bool,
    /// It can't go on forward, and why.
    pub(super) failed: Option<String>,
    /// The request.
    pub(super) transaction: Lane,
    /// The probe.
    pub(super) probe: Lane,
    /// The compensations, in order.
    pub(super) undo: Vec<Undo>,
    /// The sagas that began for it, in order.
    pub(super) children: Vec<Child>,
    /// How often a late success made it necessary to compensate again.
    pub(super) round: u32,
    /// All compensations are done.
    pub(super) undone: bool,
    /// An operator undid it.
    pub(super) by_hand: bool,
    /// It can't be finished without an operator, and why.
    pub(super) stuck: Option<String>,
    /// It was stuck, and an operator has its undoing tried again: it waits for its turn once more.
    pub(super) again: bool,
    /// Attempts of the transaction whose answer never came: it may still come.
    pub(super) unheard: Vec<u32>,
    /// Those of them whose exchange somebody still listens to. Not in the records: a restart ends them.
    pub(super) listening: Vec<u32>,
}

/// More attempts than this without an answer: the oldest are forgotten, and a late answer to them changes nothing.
const MOST_UNHEARD: usize = 32;

impl Run {
    /// The transaction was sent, or may have been.
    pub(super) fn begun(&self) -> bool {
        self.transaction.sent > 0 || self.maybe_sent
    }

    /// It is stuck in the middle: nobody knows whether it was applied, and it can't be sent again by itself.
    pub(super) fn is_open(&self) -> bool {
        self.stuck.is_some() && self.failed.is_none() && self.class == Some(Class::Unknown)
    }

    /// What comes after it may run.
    pub(super) fn done(&self) -> bool {
        self.skipped || self.class == Some(Class::Applied)
    }

    /// Its class is final (but for a late success).
    pub(super) fn settled(&self) -> bool {
        self.done() || self.failed.is_some()
    }

    /// The request or the probe is in flight, or due.
    pub(super) fn waits_forward(&self) -> bool {
        !self.transaction.is_idle() || !self.probe.is_idle()
    }

    /// Whether there is something to undo when the saga turns back.
    pub(super) fn needs_undo(&self, step: &Step) -> bool {
        self.is_lost_pivot(step) || !self.children.is_empty() || self.sends_undo(step)
    }

    /// Whether its own compensations are to be sent then.
    fn sends_undo(&self, step: &Step) -> bool {
        let happened = match self.class {
            Some(Class::Applied | Class::Unknown) => true,
            Some(Class::NotApplied) | None => {
                step.compensate_when == CompensateWhen::Always && self.begun() && !self.skipped
            }
        };
        happened && step.kind != Kind::Retriable && !step.compensations.is_empty()
    }

    /// A pivot that is applied. While the saga compensates it came too late: it can't be undone.
    pub(super) fn is_lost_pivot(&self, step: &Step) -> bool {
        step.kind == Kind::Pivot && self.class == Some(Class::Applied)
    }

    /// Where the transaction stands.
    pub(super) fn state(&self) -> StepState {
        match self.class {
            _ if self.skipped => StepState::Skipped,
            Some(Class::Applied) => StepState::Applied,
            _ if !self.settled() && self.transaction.sent > 0 => StepState::Running,
            Some(Class::Unknown) if self.failed.is_some() => StepState::Unknown,
            _ if self.failed.is_some() => StepState::Refused,
            _ => StepState::Pending,
        }
    }

    /// A compensation was sent, or the undoing of a child begun.
    pub(super) fn undo_begun(&self) -> bool {
        self.undos().any(|undo| undo.lane.sent > 0)
    }

    /// All that undoing it takes.
    pub(super) fn undos(&self) -> impl Iterator<Item = &Undo> {
        self.undo
            .iter()
            .chain(self.children.iter().map(|child| &child.undo))
    }

    /// The same, to change.
    pub(super) fn undos_mut(&mut self) -> impl Iterator<Item = &mut Undo> {
        let children = self.children.iter_mut().map(|child| &mut child.undo);
        self.undo.iter_mut().chain(children)
    }

    /// The lane of a direction.
    pub(super) fn lane(&self, direction: Direction) -> Option<&Lane> {
        match direction {
            Direction::Transaction => Some(&self.transaction),
            Direction::Probe => Some(&self.probe),
            Direction::Compensation(n) => self.undo.get(usize::from(n)).map(|undo| &undo.lane),
            Direction::Child(n) => Some(&self.children.get(usize::from(n))?.undo.lane),
        }
    }

    /// The lane of a direction, to change.
    pub(super) fn lane_mut(&mut self, direction: Direction) -> Option<&mut Lane> {
        match direction {
            Direction::Transaction => Some(&mut self.transaction),
            Direction::Probe => Some(&mut self.probe),
            Direction::Compensation(n) => self.undo.get_mut(usize::from(n)).map(|undo| &mut undo.lane),
            Direction::Child(n) => Some(&mut self.children.get_mut(usize::from(n))?.undo.lane),
        }
    }

    /// All lanes with their directions.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (Direction, &Lane)> {
        let undo = (0..)
            .zip(&self.undo)
            .map(|(n, undo)| (Direction::Compensation(n), &undo.lane));
        let children = (0..)
            .zip(&self.children)
            .map(|(n, child)| (Direction::Child(n), &child.undo.lane));
        [
            (Direction::Transaction, &self.transaction),
            (Direction::Probe, &self.probe),
        ]
        .into_iter()
        .chain(undo)
        .chain(children)
    }

    /// What is to be undone next: the youngest child, or behind them the first compensation that is not done.
    pub(super) fn next_undo(&self, step: &Step) -> Option<(Direction, &Undo)> {
        let children = (0..).zip(&self.children);
        let child = children.filter(|(_, child)| !child.undo.done).last();
        if let Some((n, child)) = child {
            return Some((Direction::Child(n), &child.undo));
        }
        let mut own = (0..).zip(&self.undo).filter(|_| self.sends_undo(step));
        let (n, undo) = own.find(|(_, undo)| !undo.done)?;
        Some((Direction::Compensation(n), undo))
    }

    /// Remembers that attempt's answer as one that may still come.
    pub(super) fn expect_late(&mut self, attempt: u32) {
        if self.unheard.len() == MOST_UNHEARD {
            self.unheard.remove(0);
        }
        self.unheard.push(attempt);
    }

    /// An answer may be heard yet by which there would be something to undo, or to decide.
    pub(super) fn listens(&self, step: &Step) -> bool {
        let matters = match step.kind {
            Kind::Compensatable => !step.compensations.is_empty(),
            Kind::Pivot => true,
            Kind::Retriable => false,
        };
        matters
            && self
                .listening
                .iter()
                .any(|attempt| self.unheard.contains(attempt))
    }

    /// The transaction has happened after its compensation was begun: compensate once more, from the first on.
    pub(super) fn undo_again(&mut self) {
        self.round = self.round.saturating_add(1);
        (self.undone, self.by_hand, self.stuck) = (false, false, None);
        for undo in &mut self.undo {
            undo.stale = undo.lane.flight.is_some();
            undo.done = false;
            undo.lane.start_anew();
        }
    }
}
