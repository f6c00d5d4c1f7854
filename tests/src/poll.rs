//! Waiting for something to be so, with a deadline.

use anyhow::{Result, bail};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything that should happen at once is waited for; generous, since the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Asks `probe` until it has an answer, and gives it back.
///
/// # Errors
/// There was none within `deadline`, or `probe` failed.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("waited {deadline:?} in vain for {what}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
