//! How long things took, counted by how long: what a histogram is drawn from.
//!
//! Knows nothing of what it counts. No errors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets, in seconds; a last bucket has no end. From a relayed head to a saga that waits for a service.
pub const BUCKETS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 60.0, 600.0,
];

/// How long something took, each time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Durations {
    /// By [`BUCKETS`], each in one of them; behind them those that took longer.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

fn place(took: Duration) -> usize {
    let seconds = took.as_secs_f64();
    let place = BUCKETS.iter().position(|end| seconds <= *end);
    place.unwrap_or(BUCKETS.len())
}

impl Durations {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        if let Some(bucket) = self.buckets.get_mut(place(took)) {
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

/// The same, counted from anywhere at once. Relaxed atomics: each number is right, no two are of the same instant.
#[derive(Debug, Default)]
pub struct Tally {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    /// In nanoseconds: 584 years.
    sum: AtomicU64,
}

impl Tally {
    /// One more.
    pub fn add(&self, took: Duration) {
        if let Some(bucket) = self.buckets.get(place(took)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
    }

    /// So far.
    #[must_use]
    pub fn get(&self) -> Durations {
        Durations {
            buckets: self
                .buckets
                .each_ref()
                .map(|bucket| bucket.load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.sum.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_bucket_that_it_fits_in() {
        let (mut durations, tally) = (Durations::default(), Tally::default());
        for micros in [50, 51, 3_600_000_000] {
            durations.add(Duration::from_micros(micros));
            tally.add(Duration::from_micros(micros));
        }
        let first_second_last = [0, 1, BUCKETS.len()].map(|place| durations.buckets[place]);
        assert_eq!((first_second_last, durations.count()), ([1, 1, 1], 3));
        assert_eq!(durations.sum, Duration::from_micros(3_600_000_101));
        assert_eq!(tally.get(), durations);
        assert!(BUCKETS.is_sorted());
    }
}
