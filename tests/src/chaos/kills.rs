//! The kills: when each comes, and what the starts after them were like.

use super::draw::Draw;
use super::progress::Progress;
use super::stage::Stage;
use crate::poll::DEADLINE;
use crate::stop::Stop;
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How often anything is looked at.
const LOOK: Duration = Duration::from_millis(4);

/// When a kill comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// So long after Qbox has become ready.
    AtWork(Duration),
    /// So long after its process began: while it starts, or reads its journal.
    Starting(Duration),
}

impl Moment {
    fn of(seed: u64, kill: u64) -> Self {
        let mut draw = Draw::of(seed, "kill", kill);
        match draw.percent(25) {
            true => Self::Starting(Duration::from_millis(draw.below(120))),
            false => Self::AtWork(Duration::from_millis(draw.between(20, 800))),
        }
    }
}

/// What came of the kills.
#[derive(Debug, Default)]
pub(super) struct Kills {
    pub(super) count: u64,
    /// Those that came before Qbox was ready.
    pub(super) starting: u64,
    /// How long each start took to be ready, of those that got there.
    pub(super) starts: Vec<Duration>,
}

impl Kills {
    /// How long the median start and the longest took.
    pub(super) fn times(&self) -> (Duration, Duration) {
        let mut starts = self.starts.clone();
        starts.sort_unstable();
        let median = starts.get(starts.len() / 2).copied();
        (
            median.unwrap_or_default(),
            starts.last().copied().unwrap_or_default(),
        )
    }
}

/// Lets the callers begin `trips` trips while Qbox is killed `kills` times, evenly, and starts it a last time.
pub(super) fn kill(
    stage: &mut Stage,
    (seed, trips, kills): (u64, u64, u64),
    stop: &Stop,
    progress: &mut Progress,
) -> Result<Kills> {
    let mut done = Kills::default();
    let mut pace = Pace::new(trips, kills);
    for kill in 0..kills {
        let moment = Moment::of(seed, kill);
        let began = Instant::now();
        stage.launch()?;
        let mut ready: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let qbox = stage.qbox.as_mut().context("no Qbox runs")?;
            // Whether it is ready matters for the bound in both cases; when it comes first it is no kill at the start.
            if ready.is_none() && qbox.is_ready().with_context(|| qbox.log())? {
                ready = Some(now);
                done.starts.push(now - began);
            }
            let due = match (moment, ready) {
                (Moment::Starting(after), _) => began + after,
                (Moment::AtWork(after), Some(ready)) => ready + after,
                (Moment::AtWork(_), None) if now - began > DEADLINE => {
                    bail!("Qbox isn't ready after {DEADLINE:?}:\n{}", qbox.log())
                }
                (Moment::AtWork(_), None) => now + DEADLINE,
            };
            // The callers have to keep up, or Qbox would be killed at rest.
            let kept_up = matches!(moment, Moment::Starting(_)) || stage.over() >= pace.least(kill);
            if now >= due && kept_up {
                break;
            }
            stage.allow(pace.most(kill, now - began));
            progress.show(stage.over(), kill)?;
            if stop.within(LOOK) {
                return Ok(done);
            }
        }
        let qbox = stage.qbox.as_mut().context("no Qbox runs")?;
        done.count += 1;
        done.starting += u64::from(ready.is_none());
        qbox.stop(Signal::KILL)?;
        pace.took(began.elapsed());
    }
    let began = Instant::now();
    stage.launch()?;
    stage.allow(trips);
    loop {
        let qbox = stage.qbox.as_mut().context("no Qbox runs")?;
        if qbox.is_ready().with_context(|| qbox.log())? {
            done.starts.push(began.elapsed());
            return Ok(done);
        }
        if began.elapsed() > DEADLINE {
            bail!("Qbox isn't ready after {DEADLINE:?}:\n{}", qbox.log());
        }
        if stop.within(LOOK) {
            return Ok(done);
        }
    }
}

/// How many trips may have begun, so that the callers and the kills come to their ends together.
struct Pace {
    trips: f64,
    kills: f64,
    /// How long a kill takes, from one start to the next, as far as is known.
    cycle: f64,
}

impl Pace {
    fn new(trips: u64, kills: u64) -> Self {
        Self {
            trips: trips as f64,
            kills: kills as f64,
            cycle: 0.7,
        }
    }

    fn took(&mut self, cycle: Duration) {
        self.cycle += (cycle.as_secs_f64() - self.cycle) / 10.0;
    }

    fn most(&self, kill: u64, since: Duration) -> u64 {
        let part = (since.as_secs_f64() / self.cycle).min(1.5);
        // A few ahead, so that the first kills find sagas too.
        (((kill as f64 + part) / (self.kills + 1.0) * self.trips) as u64).saturating_add(20)
    }

    fn least(&self, kill: u64) -> u64 {
        let behind = 3.0;
        (((kill as f64 - behind) / (self.kills + 1.0)).max(0.0) * self.trips) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_drawn_from_the_seed_and_of_both_kinds() {
        let moments: Vec<_> = (0..100).map(|kill| Moment::of(5, kill)).collect();
        assert!(moments.iter().any(|moment| matches!(moment, Moment::Starting(_))));
        assert!(moments.iter().any(|moment| matches!(moment, Moment::AtWork(_))));
        assert_eq!(moments[3], Moment::of(5, 3));
    }

    #[test]
    fn trips_are_spread_over_the_kills() {
        let pace = Pace::new(1000, 9);
        assert_eq!(pace.most(0, Duration::ZERO), 20);
        assert_eq!(pace.most(5, Duration::ZERO), 520);
        assert_eq!(pace.least(8), 500);
        assert!(pace.most(9, Duration::from_secs(60)) >= 1000);
    }
}
