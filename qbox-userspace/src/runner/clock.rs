//! The one clock of the runner: wall time that never goes back while the process lives.

use crate::saga::Timestamp;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Wall time as it was at the start, carried on by the monotonic clock: a step of the wall clock fires no deadline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall: Timestamp,
    started: Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            wall: Timestamp::default().after(wall),
            started: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.wall.after(self.started.elapsed())
    }

    /// When `at` comes; a millisecond from now at the earliest, so that a timer that changes nothing can't spin, and no
    /// more than a day ahead: who wakes for nothing asks again.
    pub(super) fn instant(&self, at: Timestamp) -> Instant {
        let wait = at.since(self.now());
        Instant::now() + wait.clamp(Duration::from_millis(1), Duration::from_secs(24 * 3600))
    }
}
