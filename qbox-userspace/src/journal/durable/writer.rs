//! The thread that writes the log. All that is queued when it looks becomes one frame and one sync, whoever's it is.
//!
//! It looks when someone waits for durability, and otherwise when the queue is old or large: what nobody waits for costs no sync of
//! its own. The first error ends it: after a failed write or sync nobody knows what the disk holds, so nothing more is taken until a
//! restart has read it again.

use super::log::{HEADER, Log};
use super::{Shared, State};
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long an append that nobody waits for may stay in memory.
const LAZY: Duration = Duration::from_millis(50);
/// A queue of that many bytes is written though nobody waits.
const EAGER: usize = 1 << 20;

/// The thread's own.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) log: Log,
    /// What was the queue before, for its room.
    pub(super) spare: Vec<u8>,
}

/// What is to be written.
struct Next {
    /// Records behind the room for a header; or nothing more than was written before.
    frame: Vec<u8>,
    first: u64,
    last: u64,
    /// Someone waits for it.
    sync: bool,
}

impl Writer {
    /// Until it is told to stop and nothing is queued, or an error.
    pub(super) fn run(mut self) {
        while let Some(next) = self.next() {
            let (last, sync) = (next.last, next.sync);
            let begun = Instant::now();
            let done = self.write(next);
            match done {
                Ok(()) => self.shared.written(last, sync.then(|| begun.elapsed())),
                Err(error) => {
                    let path = self.log.path().display();
                    let cause = match error.kind() {
                        io::ErrorKind::StorageFull => format!("no space is left for {path}: {error}"),
                        _ => format!("the disk failed {path}: {error}"),
                    };
                    return self.shared.fail(&cause);
                }
            }
        }
    }

    fn next(&mut self) -> Option<Next> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        // After a sync more is likely to come soon: who appends needn't wake the thread for that.
        let mut lately = true;
        loop {
            if state.broken {
                return None;
            }
            let waited_for = state.wanted > state.durable;
            let queued = state.queue.len() > HEADER;
            if waited_for || (queued && (state.stop || state.queue.len() > EAGER)) {
                return Some(self.take(&mut state));
            }
            let wait = match state.oldest {
                _ if state.stop => return None,
                Some(since) if since.elapsed() >= LAZY => return Some(self.take(&mut state)),
                Some(since) => Some(LAZY.saturating_sub(since.elapsed())),
                None => lately.then_some(LAZY),
            };
            lately = false;
            let work = &shared.work;
            state = match wait {
                Some(wait) => {
                    let woken = work.wait_timeout(state, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    state.sleeps = true;
                    let mut state = work.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.sleeps = false;
                    state
                }
            };
        }
    }

    fn take(&mut self, state: &mut State) -> Next {
        let mut spare = std::mem::take(&mut self.spare);
        spare.clear();
        spare.resize(HEADER, 0);
        let first = state.written + 1;
        state.oldest = None;
        state.writing = state.queue.len() - HEADER;
        Next {
            frame: std::mem::replace(&mut state.queue, spare),
            first,
            last: state.position,
            sync: state.wanted > state.durable || state.stop,
        }
    }

    fn write(&mut self, next: Next) -> io::Result<()> {
        let mut frame = next.frame;
        if frame.len() > HEADER {
            self.log.frame(&mut frame, next.first);
            self.wait_for_room(&frame)?;
            self.log.append(&frame, next.last)?;
        }
        if next.sync {
            self.log.sync()?;
        }
        // A saga with a large body leaves no room behind that most never need.
        if frame.capacity() <= EAGER {
            self.spare = frame;
        }
        Ok(())
    }

    /// Until the file has what stands where the frame is to go.
    fn wait_for_room(&self, frame: &[u8]) -> io::Result<()> {
        let mut state = self.shared.state();
        while !self.log.has_room(frame, state.filed) {
            if state.broken {
                return Err(io::Error::other("what is in the log can't be filed"));
            }
            self.shared.ask_to_file(&mut state);
            state = self
                .shared
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}
