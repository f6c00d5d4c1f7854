//! What the runner counts, for whoever draws it: plain numbers under names that plans give, so that there are no
//! more of them than there have been definitions. Since this process's start: what a restart found in the journal is not counted again.
//!
//! Knows no metrics library and no HTTP. It has no errors.

use super::Refused;
use crate::saga::{Class, Direction, Event, Plan, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper ends of the duration histogram's buckets, in seconds; a last bucket has no end.
pub const BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0,
];

/// Names of a step's messages, in the order of [`Attempts`].
pub const DIRECTIONS: [&str; 3] = ["transaction", "probe", "compensation"];
/// Names of what an attempt said, in the order of [`Attempts`].
pub const CLASSES: [&str; 3] = ["not_applied", "unknown", "applied"];

/// One step's attempts that have ended, by [`DIRECTIONS`] and [`CLASSES`].
pub type Attempts = [[u64; CLASSES.len()]; DIRECTIONS.len()];

/// How long sagas took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Durations {
    /// By [`BUCKETS`], each saga in one of them; behind them those that took longer.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Durations {
    fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = BUCKETS.iter().position(|end| seconds <= *end);
        if let Some(bucket) = self.buckets.get_mut(place.unwrap_or(BUCKETS.len())) {
            *bucket += 1;
        }
        self.sum = self.sum.saturating_add(took);
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
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
    /// By step.
    pub attempts: BTreeMap<String, Attempts>,
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
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stats(Mutex<Counts>);

impl Stats {
    pub(super) fn new() -> Self {
        // A rate needs a zero to begin from.
        let refused = ["busy", "locked", "draining", "key_reused", "not_begun"];
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

    pub(super) fn joined(&self) {
        self.counts().joined += 1;
    }

    pub(super) fn halted(&self) {
        self.counts().halted += 1;
    }

    pub(super) fn held_back(&self) {
        self.counts().held_back += 1;
    }

    /// Counts what has just happened to a saga that began at `began`.
    pub(super) fn learn(&self, plan: &Plan, began: Timestamp, events: &[Event]) {
        let counts = &mut *self.counts();
        // The name is copied once in a process's life, not for each event.
        if !counts.sagas.contains_key(&plan.name) {
            counts.sagas.insert(plan.name.clone(), SagaStats::default());
        }
        if let Some(saga) = counts.sagas.get_mut(&plan.name) {
            for event in events {
                saga.learn(plan, began, event);
            }
        }
    }
}

impl SagaStats {
    fn learn(&mut self, plan: &Plan, began: Timestamp, event: &Event) {
        match event {
            Event::Began { .. } => self.begun += 1,
            Event::Committed { at } => self.committed.add(at.since(began)),
            Event::Compensated { at } => self.compensated.add(at.since(began)),
            Event::Stuck { .. } => self.stuck += 1,
            Event::Ended {
                step,
                direction,
                class,
                ..
            } => {
                let Some(step) = plan.steps.get(step.index()) else {
                    return;
                };
                if !self.attempts.contains_key(&step.name) {
                    self.attempts.insert(step.name.clone(), Attempts::default());
                }
                let direction = match direction {
                    Direction::Transaction => 0,
                    Direction::Probe => 1,
                    Direction::Compensation(_) | Direction::Child(_) => 2,
                };
                let class = match class {
                    Class::NotApplied => 0,
                    Class::Unknown => 1,
                    Class::Applied => 2,
                };
                let attempts = self.attempts.get_mut(&step.name);
                if let Some(count) = attempts.and_then(|a| a.get_mut(direction)?.get_mut(class)) {
                    *count += 1;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_bucket_that_it_fits_in() {
        let mut durations = Durations::default();
        for milliseconds in [5, 6, 3_600_000] {
            durations.add(Duration::from_millis(milliseconds));
        }
        let first_second_last = [0, 1, BUCKETS.len()].map(|place| durations.buckets[place]);
        assert_eq!((first_second_last, durations.count()), ([1, 1, 1], 3));
        assert_eq!(durations.sum, Duration::from_millis(3_600_011));
        assert!(BUCKETS.is_sorted());
    }
}
