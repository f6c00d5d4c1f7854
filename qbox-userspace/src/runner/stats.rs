//! What the runner counts, for whoever draws it: plain numbers under names that plans give, so that there are no
//! more of them than there have been definitions. Since this process's start: what a restart found in the journal is not counted again.
//!
//! Knows no metrics library and no HTTP. It has no errors.

use super::Refused;
use crate::durations::Durations;
use crate::saga::{Class, Direction, Event, Plan, Saga, StepId, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Names of a step's messages, in the order of [`Attempts`].
pub const DIRECTIONS: [&str; 3] = ["transaction", "probe", "compensation"];
/// Names of what an attempt said, in the order of [`Attempts`].
pub const CLASSES: [&str; 3] = ["not_applied", "unknown", "applied"];
const APPLIED: usize = 2;

/// One step's attempts that have ended, by [`DIRECTIONS`] and [`CLASSES`].
pub type Attempts = [[u64; CLASSES.len()]; DIRECTIONS.len()];

/// One step's messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepStats {
    /// Attempts that have ended.
    pub attempts: Attempts,
    /// By [`DIRECTIONS`]: how long they took.
    pub took: [Durations; DIRECTIONS.len()],
    /// From its first attempt to when it was applied.
    pub applied: Durations,
    /// From its first attempt to when it had failed.
    pub failed: Durations,
    /// By [`DIRECTIONS`]: how often another one was to follow.
    pub retries: [u64; DIRECTIONS.len()],
}

/// The sagas of one name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SagaStats {
    /// That began.
    pub begun: u64,
    /// That committed, and how long they took from their beginning on.
    pub committed: Durations,
    /// That were compensated, and how long they took.
    pub compensated: Durations,
    /// How often one got stuck.
    pub stuck: u64,
    /// How long compensating took, of those that were compensated: from the end of what was in flight on.
    pub undoing: Durations,
    /// By step.
    pub steps: BTreeMap<String, StepStats>,
}

/// All that is counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// By the plan's name.
    pub sagas: BTreeMap<String, SagaStats>,
    /// Triggers that began no saga, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Triggers that were joined to a saga with the same key.
    pub joined: u64,
    /// Sagas that were halted, whatever their name: each is for a person to look at.
    pub halted: u64,
    /// How often a saga had as many steps under way as may be, and more to begin.
    pub held_back: u64,
    /// Of all sagas together.
    pub totals: Totals,
}

/// What is counted of all sagas together: cheap to ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// That began.
    pub begun: u64,
    /// That committed.
    pub committed: u64,
    /// That were compensated.
    pub compensated: u64,
    /// How often one got stuck.
    pub stuck: u64,
    /// Rises with whatever happens to one.
    pub revision: u64,
}

/// What has just happened to a saga.
pub(super) struct News<'a> {
    pub(super) plan: &'a Plan,
    /// As it is behind the events.
    pub(super) saga: &'a Saga,
    /// The step that was neither applied nor had failed when an attempt of it ended.
    pub(super) open: Option<StepId>,
    pub(super) began: Timestamp,
    /// When its compensation began, if it has.
    pub(super) undoing: Option<Timestamp>,
    pub(super) events: &'a [Event],
    /// How long the attempt took that has just ended.
    pub(super) took: Option<(StepId, Direction, Duration)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stats(Mutex<Counts>);

impl Stats {
    pub(super) fn new() -> Self {
        // A rate needs a zero to begin from.
        let refused = [
            "busy",
            "locked",
            "draining",
            "key_reused",
            "not_begun",
            "too_deep",
            "orphan",
        ];
        Self(Mutex::new(Counts {
            refused: refused.map(|reason| (reason, 0)).into(),
            ..Counts::default()
        }))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> Counts {
        self.counts().clone()
    }

    pub(super) fn refused(&self, refused: &Refused) {
        let mut counts = self.counts();
        let reason = match refused {
            Refused::Busy => "busy",
            Refused::Locked => "locked",
            Refused::Draining => "draining",
            Refused::KeyReused => "key_reused",
            Refused::NotBegun(_) => "not_begun",
            Refused::Orphan(_) => "orphan",
            // That one had begun.
            Refused::Halted(_) | Refused::Unfinished => return,
        };
        *counts.refused.entry(reason).or_default() += 1;
    }

    pub(super) fn too_deep(&self) {
        *self.counts().refused.entry("too_deep").or_default() += 1;
    }

    pub(super) fn joined(&self) {
        self.counts().joined += 1;
    }

    /// Without all that is counted by name.
    pub(super) fn totals(&self) -> Totals {
        self.counts().totals
    }

    pub(super) fn halted(&self) {
        let mut counts = self.counts();
        counts.halted += 1;
        counts.totals.revision += 1;
    }

    pub(super) fn held_back(&self) {
        self.counts().held_back += 1;
    }

    /// Counts it.
    pub(super) fn learn(&self, news: &News<'_>) {
        let counts = &mut *self.counts();
        // The name is copied once in a process's life, not for each event.
        if !counts.sagas.contains_key(&news.plan.name) {
            counts.sagas.insert(news.plan.name.clone(), SagaStats::default());
        }
        counts.totals.revision += 1;
        if let Some(saga) = counts.sagas.get_mut(&news.plan.name) {
            for event in news.events {
                saga.learn(news, event);
                counts.totals.learn(event);
            }
            if let Some((step, direction, took)) = news.took
                && let Some(durations) = saga
                    .step(news.plan, step)
                    .and_then(|s| s.took.get_mut(place(direction)))
            {
                durations.add(took);
            }
        }
    }
}

impl Totals {
    fn learn(&mut self, event: &Event) {
        match event {
            Event::Began { .. } => self.begun += 1,
            Event::Committed { .. } => self.committed += 1,
            Event::Compensated { .. } => self.compensated += 1,
            Event::Stuck { .. } => self.stuck += 1,
            _ => {}
        }
    }
}

impl SagaStats {
    fn step(&mut self, plan: &Plan, step: StepId) -> Option<&mut StepStats> {
        let step = plan.steps.get(step.index())?;
        if !self.steps.contains_key(&step.name) {
            self.steps.insert(step.name.clone(), StepStats::default());
        }
        self.steps.get_mut(&step.name)
    }

    /// A step is applied, or has failed. Of one that was never sent there is nothing to tell.
    fn settled(
        &mut self,
        news: &News<'_>,
        step: StepId,
        at: Timestamp,
        which: impl FnOnce(&mut StepStats) -> &mut Durations,
    ) {
        if let Some(first) = news.saga.first_sent(step)
            && let Some(step) = self.step(news.plan, step)
        {
            which(step).add(at.since(first));
        }
    }

    fn learn(&mut self, news: &News<'_>, event: &Event) {
        match event {
            Event::Began { .. } => self.begun += 1,
            Event::Committed { at } => self.committed.add(at.since(news.began)),
            Event::Compensated { at } => {
                self.compensated.add(at.since(news.began));
                // Where there was nothing to undo it began just now.
                self.undoing.add(at.since(news.undoing.unwrap_or(*at)));
            }
            Event::Stuck { .. } => self.stuck += 1,
            Event::RetryAt { step, direction, .. } => {
                let retries = self.step(news.plan, *step).map(|step| &mut step.retries);
                if let Some(count) = retries.and_then(|retries| retries.get_mut(place(*direction))) {
                    *count += 1;
                }
            }
            Event::Ended {
                step,
                direction,
                class,
                at,
                ..
            } => {
                let class = match class {
                    Class::NotApplied => 0,
                    Class::Unknown => 1,
                    Class::Applied => APPLIED,
                };
                let attempts = self.step(news.plan, *step).map(|step| &mut step.attempts);
                let count = attempts.and_then(|a| a.get_mut(place(*direction))?.get_mut(class));
                if let Some(count) = count {
                    *count += 1;
                }
                let forward = matches!(direction, Direction::Transaction | Direction::Probe);
                if forward && class == APPLIED && news.open == Some(*step) {
                    self.settled(news, *step, *at, |step| &mut step.applied);
                }
            }
            Event::StepFailed { step, at, .. } => self.settled(news, *step, *at, |step| &mut step.failed),
            _ => {}
        }
    }
}

/// In [`DIRECTIONS`].
fn place(direction: Direction) -> usize {
    match direction {
        Direction::Transaction => 0,
        Direction::Probe => 1,
        Direction::Compensation(_) | Direction::Child(_) => 2,
    }
}
