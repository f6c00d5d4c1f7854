//! Who writes the log: whoever has the [`Pen`]. All that is queued when they look becomes one frame and one sync, whoever's it is; who comes
//! while the frame is written has another one written before that sync.
//!
//! A saga that is alone writes for itself: to wake another thread and be woken by it takes about as long as the sync. Where several
//! wait at once the journal's own thread writes for all, and lets more of them come first. It also writes what nobody waits for,
//! once that is old or large: such costs no sync of its own. The first error ends it: after a failed write or sync nobody knows what
//! the disk holds, so nothing more is taken until a restart has read it again.

use super::log::{HEADER, Log};
use super::{Shared, State};
use crate::workers;
use std::io;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an append that nobody waits for may stay in memory.
const LAZY: Duration = Duration::from_millis(50);
/// After how many looks that found nothing new the thread sleeps until it is woken.
const LOOKS: u32 = 20;
/// A queue of that many bytes is written though nobody waits.
pub(super) const EAGER: usize = 1 << 20;
/// How long the thread lets more come, at most, before it writes for several.
const GATHER: Duration = Duration::from_micros(400);
/// How often, at most, what came while it wrote is written too before the one sync: a sync takes longer than a write, and who came
/// would have another one to wait for.
const JOINED: u32 = 2;

/// What one writes with.
#[derive(Debug)]
pub(super) struct Pen {
    log: Log,
    /// What was the queue before, for its room.
    spare: Vec<u8>,
}

/// What is to be written.
pub(super) struct Next {
    /// Records behind the room for a header; or nothing more than was written before.
    frame: Vec<u8>,
    first: u64,
    last: u64,
    /// Someone waits for it.
    sync: bool,
}

/// How long the thread lets more come.
#[derive(Debug, Clone, Copy)]
struct Gather {
    most: Duration,
    /// As soon as so many wait, no longer: as many as the last time.
    crowd: usize,
}

/// What the journal's thread does.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// It will look before it sleeps.
    #[default]
    Works,
    /// It looks once in [`LAZY`].
    Dozes,
    /// It looks when it is woken.
    Sleeps,
}

impl Pen {
    pub(super) fn new(log: Log) -> Box<Self> {
        Box::new(Self {
            log,
            spare: Vec::new(),
        })
    }

    /// Whether the log has room for what is queued without waiting.
    fn has_room(&self, state: &State) -> bool {
        self.log.has_room(state.queue.len(), state.filed)
    }

    /// Whether it will wait for the file soon.
    pub(super) fn needs_filing(&self, state: &State) -> bool {
        self.log.needs_filing(state.filed)
    }

    pub(super) fn take(&mut self, state: &mut State) -> Next {
        let mut spare = std::mem::take(&mut self.spare);
        spare.clear();
        spare.resize(HEADER, 0);
        let first = std::mem::replace(&mut state.taken, state.position) + 1;
        state.oldest = None;
        state.writing = state.queue.len() - HEADER;
        Next {
            frame: std::mem::replace(&mut state.queue, spare),
            first,
            last: state.position,
            sync: state.wanted > state.durable || state.stop,
        }
    }

    fn append(&mut self, next: Next) -> io::Result<()> {
        let mut frame = next.frame;
        if frame.len() > HEADER {
            self.log.frame(&mut frame, next.first);
            self.log.append(&frame, next.last)?;
        }
        // A saga with a large body leaves no room behind that most never need.
        if frame.capacity() <= EAGER {
            self.spare = frame;
        }
        Ok(())
    }
}

impl Shared {
    /// Until it is told to stop and nothing is queued, or an error: the journal's own thread.
    pub(super) fn keep_writing(&self) {
        let mut gather = None;
        while let Some((state, pen)) = self.due(gather) {
            let Some((for_how_many, took)) = self.write(state, pen) else {
                return;
            };
            // Each sync takes processor time that those who come meanwhile need.
            gather = (for_how_many > 1).then(|| Gather {
                most: (2 * took).min(GATHER),
                crowd: for_how_many,
            });
        }
    }

    /// Writes all that is queued, on this thread, and tells those that wait. Gives for how many it synced, and how long that took;
    /// nothing if it can't be written.
    fn write(&self, mut state: MutexGuard<'_, State>, mut pen: Box<Pen>) -> Option<(usize, Duration)> {
        let next = pen.take(&mut state);
        drop(state);
        match self.write_and_sync(&mut pen, next) {
            Ok((last, synced)) => {
                let told = self.written(pen, last, synced);
                Some((told, synced.unwrap_or_default()))
            }
            Err(error) => {
                let path = pen.log.path().display();
                let cause = match error.kind() {
                    io::ErrorKind::StorageFull => format!("no space is left for {path}: {error}"),
                    _ => format!("the disk failed {path}: {error}"),
                };
                self.fail(&cause);
                None
            }
        }
    }

    /// Gives the number of the last record that was written, and how long it took, if there was a sync.
    pub(super) fn write_and_sync(
        &self,
        pen: &mut Pen,
        mut next: Next,
    ) -> io::Result<(u64, Option<Duration>)> {
        let begun = Instant::now();
        let mut more = JOINED;
        loop {
            let Next { last, sync, .. } = next;
            pen.append(next)?;
            if !sync {
                return Ok((last, None));
            }
            let mut state = self.state();
            // Who came meanwhile needs no sync of their own.
            if more == 0 || state.wanted <= last || !pen.has_room(&state) {
                drop(state);
                pen.log.sync()?;
                return Ok((last, Some(begun.elapsed())));
            }
            next = pen.take(&mut state);
            more -= 1;
        }
    }

    /// Writes and syncs what is queued on the thread that asks, if nobody else does or waits.
    ///
    /// Of tokio's threads only those that may block without holding others up: their tasks go on elsewhere meanwhile.
    pub(super) fn written_here<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> Result<(), MutexGuard<'a, State>> {
        if state.crowded || !state.waiters.is_empty() || !workers::may_block() {
            return Err(state);
        }
        match state.pen.take() {
            Some(pen) if pen.has_room(&state) => {
                workers::block(|| self.write(state, pen));
                Ok(())
            }
            pen => {
                state.pen = pen;
                Err(state)
            }
        }
    }

    /// Waits until something is to be written: then the pen is the caller's.
    fn due(&self, gather: Option<Gather>) -> Option<(MutexGuard<'_, State>, Box<Pen>)> {
        let mut state = match gather {
            Some(gather) => self.gathered(gather),
            None => self.state(),
        };
        let (mut looks, mut seen) = (0, state.position);
        loop {
            if state.broken {
                return None;
            }
            let queued = state.queue.len() > HEADER;
            let waits = state.wanted > state.durable;
            let old = state.oldest.is_some_and(|since| since.elapsed() >= LAZY);
            if let Some(pen) = state.pen.take() {
                if waits || (queued && (state.stop || old || state.queue.len() > EAGER)) {
                    return self.with_room(state, pen);
                }
                state.pen = Some(pen);
                if state.stop {
                    return None;
                }
            }
            looks = if seen == state.position { looks + 1 } else { 0 };
            seen = state.position;
            // More is likely to come soon after: who appends needn't wake the thread for that.
            let wait = match state.oldest {
                // However old it is: who writes has to be done first.
                Some(_) if state.pen.is_none() => Some(LAZY),
                Some(since) => Some(LAZY.saturating_sub(since.elapsed())),
                None => (looks < LOOKS).then_some(LAZY),
            };
            state.thread = if wait.is_some() {
                Doing::Dozes
            } else {
                Doing::Sleeps
            };
            state = match wait {
                Some(wait) => {
                    let woken = self.work.wait_timeout(state, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.thread = Doing::Works;
        }
    }

    /// Waits until it is written for those that have come.
    fn gathered(&self, gather: Gather) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.crowd = Some(gather.crowd);
        let more = |state: &mut State| state.waiters.len() < gather.crowd && !state.stop && !state.broken;
        let woken = self.work.wait_timeout_while(state, gather.most, more);
        state = woken.unwrap_or_else(PoisonError::into_inner).0;
        state.crowd = None;
        state
    }

    /// Waits until the file has what stands where the queue is to go.
    fn with_room<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        pen: Box<Pen>,
    ) -> Option<(MutexGuard<'a, State>, Box<Pen>)> {
        while !pen.has_room(&state) {
            if state.broken {
                return None;
            }
            self.ask_to_file(&mut state);
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Some((state, pen))
    }
}
