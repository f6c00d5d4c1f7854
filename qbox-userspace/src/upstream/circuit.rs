//! Whether it is worth trying to connect to a service: a circuit breaker (M. Nygard, "Release It!", 2007).
//!
//! It opens after so many failed connects in a row. While it is open nobody tries, but for one at a time once it has been
//! open for so long; the first that connects closes it. It is asked before anything is sent, and judges connects alone: an
//! outcome that nobody knows is none of its business. A plain value: knows no lock, no waiting, and its time comes in.

use std::time::Duration;
use tokio::time::Instant;

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Failed connects in a row, at which it opens; 0: it never does.
    pub failures: u32,
    /// How long nobody tries.
    pub open_for: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            open_for: Duration::from_secs(5),
        }
    }
}

/// One service's.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    /// Failed connects since the last that didn't.
    failed: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    /// Until then nobody tries.
    until: Instant,
    /// Someone is trying.
    trial: bool,
    /// How the last connect failed.
    cause: String,
}

/// A circuit that is open, and not for the one who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// How long it has been.
    pub(super) open: Duration,
    /// When to ask again; `None`: when the trial that is under way has ended.
    pub(super) until: Option<Instant>,
    /// How the last connect failed.
    pub(super) cause: String,
}

impl Circuit {
    /// Whether one may connect now.
    pub(super) fn refuses(&self, now: Instant) -> Option<Refusal> {
        let open = self.open.as_ref()?;
        (open.trial || now < open.until).then(|| Refusal {
            open: now.saturating_duration_since(open.since),
            until: (!open.trial).then_some(open.until),
            cause: open.cause.clone(),
        })
    }

    /// Begins to connect, and says whether that is the trial of an open circuit: its end must be told.
    pub(super) fn enter(&mut self, now: Instant) -> Result<bool, Refusal> {
        if let Some(refusal) = self.refuses(now) {
            return Err(refusal);
        }
        let open = self.open.as_mut();
        Ok(open.is_some_and(|open| {
            open.trial = true;
            true
        }))
    }

    /// Someone has connected. Says for how long it had been open, if that closes it.
    pub(super) fn connected(&mut self, now: Instant) -> Option<Duration> {
        self.failed = 0;
        let open = self.open.take()?;
        Some(now.saturating_duration_since(open.since))
    }

    /// Someone could not connect. Says whether that opens it.
    pub(super) fn failed(&mut self, breaker: Breaker, trial: bool, cause: &str, now: Instant) -> bool {
        self.failed = self.failed.saturating_add(1);
        match &mut self.open {
            // Others began before it opened; what they say is no news.
            Some(open) if trial => {
                open.trial = false;
                open.until = now + breaker.open_for;
                cause.clone_into(&mut open.cause);
                false
            }
            None if breaker.failures > 0 && self.failed >= breaker.failures => {
                self.open = Some(Open {
                    since: now,
                    until: now + breaker.open_for,
                    trial: false,
                    cause: cause.to_owned(),
                });
                true
            }
            _ => false,
        }
    }

    /// The trial ended without telling anything: someone else may try.
    pub(super) fn abandoned(&mut self) {
        if let Some(open) = &mut self.open {
            open.trial = false;
        }
    }

    /// For how long it has been open, and how the last connect failed.
    pub(super) fn is_open(&self, now: Instant) -> Option<(Duration, &str)> {
        let open = self.open.as_ref()?;
        Some((now.saturating_duration_since(open.since), &open.cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THREE: Breaker = Breaker {
        failures: 3,
        open_for: Duration::from_secs(5),
    };

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::default();
        let opens: Vec<_> = (0..3)
            .map(|_| circuit.failed(THREE, false, "refused", now))
            .collect();
        assert_eq!(opens, [false, false, true]);
        circuit
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_it_lets_one_try() {
        let start = Instant::now();
        let mut circuit = opened(start);
        let refusal = circuit.enter(start + Duration::from_secs(4)).unwrap_err();
        assert_eq!(refusal.open, Duration::from_secs(4));
        assert_eq!(refusal.until, Some(start + THREE.open_for));
        let later = start + THREE.open_for;
        assert_eq!(circuit.enter(later), Ok(true));
        assert_eq!(circuit.enter(later).unwrap_err().until, None, "one at a time");
        // It fails: as long again. (That it stays open is no news.)
        assert!(!circuit.failed(THREE, true, "still refused", later));
        let refusal = circuit.enter(later + Duration::from_secs(4)).unwrap_err();
        assert_eq!(
            (refusal.open, refusal.cause.as_str()),
            (Duration::from_secs(9), "still refused")
        );
        let last = later + THREE.open_for;
        assert_eq!(circuit.enter(last), Ok(true));
        assert_eq!(circuit.connected(last), Some(Duration::from_secs(10)));
        assert_eq!(circuit.enter(last), Ok(false));
        assert_eq!(circuit.connected(last), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_connects_begins_the_count_anew() {
        let now = Instant::now();
        let mut circuit = Circuit::default();
        for _ in 0..10 {
            assert!(!circuit.failed(THREE, false, "refused", now));
            assert!(!circuit.failed(THREE, false, "refused", now));
            assert_eq!(circuit.connected(now), None);
        }
        assert_eq!(circuit.enter(now), Ok(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_tells_nothing_leaves_its_place_to_another() {
        let now = Instant::now();
        let mut circuit = opened(now);
        let later = now + THREE.open_for;
        assert_eq!(circuit.enter(later), Ok(true));
        circuit.abandoned();
        assert_eq!(circuit.enter(later), Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn none_opens_where_it_is_turned_off() {
        let off = Breaker { failures: 0, ..THREE };
        let mut circuit = Circuit::default();
        assert!((0..1000).all(|_| !circuit.failed(off, false, "refused", Instant::now())));
    }

    proptest! {
        /// Whatever happens, some time after the last trial ended someone may try again: nobody is kept out for ever.
        #[test]
        fn it_never_stays_shut(steps in prop::collection::vec((0..4_u8, 0..6_u64), 0..60)) {
            let mut now = Instant::now();
            let mut circuit = Circuit::default();
            let mut trials = 0;
            for (what, seconds) in steps {
                now += Duration::from_secs(seconds);
                match (what, circuit.enter(now)) {
                    (_, Err(refusal)) => {
                        prop_assert!(refusal.until.is_none_or(|until| until <= now + THREE.open_for));
                        prop_assert_eq!(refusal.until.is_none(), trials > 0);
                        if what == 3 && trials > 0 {
                            trials = 0;
                            circuit.abandoned();
                        }
                    }
                    (0, Ok(trial)) => { circuit.failed(THREE, trial, "refused", now); }
                    (1, Ok(_)) => { circuit.connected(now); }
                    (_, Ok(trial)) => trials += u8::from(trial),
                }
                prop_assert!(trials <= 1);
            }
            circuit.abandoned();
            prop_assert!(circuit.enter(now + THREE.open_for).is_ok());
        }
    }
}
