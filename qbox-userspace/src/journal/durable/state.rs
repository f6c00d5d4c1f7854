//! What the threads that write the journal and all others know together: what is queued, how far the log, the disk and the file are, and
//! who waits for that.

use super::background::Background;
use super::filer;
use super::keys::Keys;
use super::log::HEADER;
use super::pending::Batch;
use super::record::Record;
use super::writer::{self, Doing, Pen};
use crate::durations::Durations;
use crate::journal::JournalError;
use crate::saga::{PlanHash, SagaId};
use foldhash::HashMap;
use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What the threads that write and all others know together.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// There is something for the writer.
    pub(super) work: Condvar,
    /// There is something for the filer.
    pub(super) file: Condvar,
    /// The file has more, or will never have.
    pub(super) news: Condvar,
    /// What the file may have.
    pub(super) keys: Keys,
    /// Whether the filer stands back.
    pub(super) background: Background,
}

/// Somebody who waits for a place in the order to be durable.
pub(super) type Waiter = (u64, oneshot::Sender<Result<(), JournalError>>);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) open: HashMap<SagaId, OpenSaga>,
    pub(super) next_saga: i64,
    /// The plans that this process has stored: no more than it has had definitions.
    pub(super) plans: HashSet<PlanHash>,
    /// How many events were appended.
    pub(super) events: u64,
    /// The number of the last record that was queued, of the last that was taken for the log, of the last that is durable, of the last that
    /// someone waits for, and of the last that is in the file.
    pub(super) position: u64,
    pub(super) taken: u64,
    pub(super) durable: u64,
    pub(super) wanted: u64,
    pub(super) filed: u64,
    /// Up to which someone wants it to be in the file.
    pub(super) asked: u64,
    /// How long the syncs of the log took, and how many the file has had.
    pub(super) commits: Durations,
    pub(super) filings: u64,
    /// Records for the log, behind the room for a frame's header.
    pub(super) queue: Vec<u8>,
    /// How many bytes of them are being written.
    pub(super) writing: usize,
    /// Since when there are any in the queue.
    pub(super) oldest: Option<Instant>,
    /// For who writes next, unless someone does.
    pub(super) pen: Option<Box<Pen>>,
    pub(super) thread: Doing,
    /// It is to be woken when so many wait.
    pub(super) crowd: Option<usize>,
    /// The last sync was for several.
    pub(super) crowded: bool,
    /// What the file doesn't have: appended since the filer looked, and what that is at.
    pub(super) pending: Batch,
    pub(super) filing: Arc<Batch>,
    /// Since when anything is pending.
    pub(super) unfiled: Option<Instant>,
    /// The filer is to be woken for what is pending.
    pub(super) filer_rests: bool,
    /// No more of them than sagas in hand.
    pub(super) waiters: Vec<Waiter>,
    /// Why nothing is taken any more.
    pub(super) failed: Option<String>,
    /// Nor can anything be written.
    pub(super) broken: bool,
    pub(super) stop: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct OpenSaga {
    pub(super) n: i64,
    pub(super) events: u64,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is taken from now on, and who waits is told.
    pub(super) fn refuse(&self, cause: &str) {
        let mut state = self.state();
        state.failed.get_or_insert_with(|| cause.to_owned());
        for (_, told) in std::mem::take(&mut state.waiters) {
            drop(told.send(Err(JournalError::Store(cause.to_owned()))));
        }
        drop(state);
        self.news.notify_all();
    }

    /// Nor can anything be written.
    pub(super) fn fail(&self, cause: &str) {
        tracing::error!(
            cause,
            "the journal has failed: no saga is begun or gone on with until a restart"
        );
        self.state().broken = true;
        self.refuse(cause);
        self.work.notify_all();
        self.file.notify_all();
    }

    /// The log has all up to that record; and it is durable, if a sync took that long. Gives how many waited for it.
    pub(super) fn written(&self, pen: Box<Pen>, last: u64, synced: Option<Duration>) -> usize {
        let mut state = self.state();
        state.writing = 0;
        let told = match synced {
            Some(took) => {
                state.commits.add(took);
                state.has_kept(last)
            }
            None => Vec::new(),
        };
        if state.pending.bytes() >= filer::BEHIND || pen.needs_filing(&state) {
            self.background.set_urgent(true);
        }
        state.pen = Some(pen);
        let count = told.len();
        if synced.is_some() {
            state.crowded = count > 1;
        }
        let file = state.unfiled.is_some() && (state.filer_rests || state.pending.bytes() >= filer::MUCH);
        state.filer_rests &= !file;
        let more = state.wanted > state.durable || state.stop || state.queue.len() > writer::EAGER;
        let write = more && state.wakes_thread(Doing::Dozes);
        drop(state);
        if file {
            self.file.notify_one();
        }
        if write {
            self.work.notify_one();
        }
        tell(told);
        count
    }

    /// The file has all up to that record.
    pub(super) fn filed(&self, last: u64) {
        let mut state = self.state();
        state.filed = last;
        state.filings += 1;
        state.filing = Arc::default();
        // Its own transaction was synced.
        let told = state.has_kept(last);
        drop(state);
        self.news.notify_all();
        tell(told);
    }

    /// Has the filer bring all that is there into the file.
    pub(super) fn ask_to_file(&self, state: &mut State) {
        state.asked = state.position;
        self.background.set_urgent(true);
        self.file.notify_one();
    }

    /// Wakes the thread for what nobody waits for, if it has to be.
    pub(super) fn queued(&self, mut state: MutexGuard<'_, State>) {
        let least = if state.queue.len() > writer::EAGER {
            Doing::Dozes
        } else {
            Doing::Sleeps
        };
        let wake = state.wakes_thread(least);
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }
}

/// Not under the lock: those that are told take it at once.
fn tell(told: Vec<Waiter>) {
    for (_, told) in told {
        drop(told.send(Ok(())));
    }
}

impl State {
    pub(super) fn sound(&self) -> Result<(), JournalError> {
        match &self.failed {
            Some(cause) => Err(JournalError::Store(cause.clone())),
            None => Ok(()),
        }
    }

    /// Puts a record in the queue.
    pub(super) fn queue(&mut self, record: &Record<'_>) -> Result<(), JournalError> {
        record.encode(&mut self.queue)?;
        self.position += 1;
        let now = Instant::now();
        self.oldest.get_or_insert(now);
        self.unfiled.get_or_insert(now);
        Ok(())
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.len().saturating_sub(HEADER) + self.writing
    }

    /// All up to that record is durable: gives those that are to be told.
    pub(super) fn has_kept(&mut self, last: u64) -> Vec<Waiter> {
        self.durable = self.durable.max(last);
        let durable = self.durable;
        let due = self.waiters.extract_if(.., |(position, _)| *position <= durable);
        due.collect()
    }

    /// Whether the thread has to be woken, if it rests so much or more. It counts as awake from then on.
    pub(super) fn wakes_thread(&mut self, least: Doing) -> bool {
        let rests = match self.thread {
            Doing::Works => false,
            Doing::Dozes => least == Doing::Dozes,
            Doing::Sleeps => true,
        };
        if rests {
            self.thread = Doing::Works;
        }
        rests
    }

    /// What the file may not have yet, older first.
    pub(super) fn unfiled(&self) -> [&Batch; 2] {
        [&self.filing, &self.pending]
    }
}
