//! What a person sees while the trial goes on: one line that changes on a terminal, a line now and then elsewhere.

use anyhow::Result;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// The line.
pub(super) struct Progress {
    trips: u64,
    kills: u64,
    began: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    pub(super) fn of(trips: u64, kills: u64) -> Self {
        Self {
            trips,
            kills,
            began: Instant::now(),
            shown: None,
            terminal: io::stdout().is_terminal(),
        }
    }

    /// Shows where the trial is, if it was some time ago that this was shown.
    pub(super) fn show(&mut self, trips: u64, kills: u64) -> Result<()> {
        let every = Duration::from_millis(if self.terminal { 100 } else { 5000 });
        let now = Instant::now();
        if self.shown.is_some_and(|shown| now - shown < every) {
            return Ok(());
        }
        self.shown = Some(now);
        let seconds = (now - self.began).as_secs_f64();
        let text = format!(
            "{trips} of {} trips over, {kills} of {} kills, {:.0} trips a second, {seconds:.0} s",
            self.trips,
            self.kills,
            trips as f64 / seconds.max(0.001),
        );
        self.line(&text, self.terminal)
    }

    /// Says what happens now; it stays.
    pub(super) fn say(&mut self, text: &str) -> Result<()> {
        self.line(text, false)
    }

    fn line(&self, text: &str, changes: bool) -> Result<()> {
        let mut out = io::stdout().lock();
        // ECMA-48: CR, erase the line.
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        let end = if changes { "" } else { "\n" };
        write!(out, "{start}{text}{end}")?;
        Ok(out.flush()?)
    }
}
