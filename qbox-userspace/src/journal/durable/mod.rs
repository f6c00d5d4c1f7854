//! The journal on local disk: one SQLite file in the state directory, written by one thread for all sagas at once.
//!
//! An append is put in order, encoded and queued, which never waits; [`Journal::durable`] waits for the transaction and the
//! sync that hold it. What was queued can be read at once. After a write that fails nothing more is taken, and all who wait
//! are told: see [`Journal::failure`]. Which engine, and why: docs/journal.md.
//!
//! Must not know HTTP or what an event means, but for the first of a saga. Errors: [`OpenError`] at the start, then
//! [`JournalError`].

mod codec;
mod read;
mod schema;
mod writer;

pub use schema::OpenError;

use super::{History, Journal, JournalError, Load, Outline, Page, Pending, Position, Query};
use crate::durations::Durations;
use crate::saga::{Event, Plan, PlanHash, SagaId};
use rusqlite::Connection;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use writer::{Write, Writer};

/// Queued bytes from which on no new saga is taken: the disk doesn't keep up.
const QUEUE: usize = 64 << 20;
/// Queued bytes from which on nothing is. Sagas in flight are bounded, so only a disk that hangs brings it here.
const QUEUE_AT_MOST: usize = 4 * QUEUE;

/// The journal's limits.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Sagas that have not ended; another is refused.
    pub open: usize,
    /// How long finished ones are kept.
    pub keep: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            open: 10_000,
            keep: Duration::from_secs(72 * 3600),
        }
    }
}

/// The journal on disk. Dropped, it writes what is queued.
#[derive(Debug)]
pub struct Durable {
    settings: Settings,
    shared: Arc<Shared>,
    reader: Mutex<Connection>,
    lists: Mutex<Connection>,
    path: PathBuf,
    thread: Mutex<Option<JoinHandle<()>>>,
    // Last, so that the directory is free only when nothing is written any more.
    held: Mutex<Option<schema::Held>>,
}

/// What the writer and all others know together.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something for the writer.
    work: Condvar,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Clone, Default)]
struct Progress {
    written: u64,
    failed: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<SagaId, OpenSaga>,
    next_saga: i64,
    /// The keys of sagas that have ended, as long as the file doesn't say so yet.
    ending: HashMap<[u8; 32], (SagaId, [u8; 32])>,
    /// The plans that this process has stored: no more than it has had definitions.
    plans: HashSet<PlanHash>,
    /// The place of the last append, the last that is durable, and the last that someone waits for.
    position: u64,
    written: u64,
    wanted: u64,
    /// How long the transactions took that were written.
    commits: Durations,
    queue: Vec<Write>,
    queue_bytes: usize,
    /// Since when the queue isn't empty.
    oldest: Option<Instant>,
    /// What the writer has taken and not yet written.
    writing: Arc<Vec<Write>>,
    failed: Option<String>,
    stop: bool,
}

#[derive(Debug, Clone, Copy)]
struct OpenSaga {
    n: i64,
    events: u64,
}

impl Durable {
    /// Opens the journal in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// [`OpenError`]: no leave, in use, damaged, or from a later version.
    pub fn open(folder: &Path, settings: Settings) -> Result<Self, OpenError> {
        let held = schema::Held::take(folder)?;
        let connections = schema::open(&held)?;
        Self::start(held, connections, settings)
    }

    /// Whether [`Durable::open`] could open the journal in `folder` once another Qbox lets go of it, as far as versions go.
    ///
    /// # Errors
    /// [`OpenError`]: it is of a later version, damaged, or can't be read.
    pub fn look(folder: &Path) -> Result<(), OpenError> {
        schema::look(folder)
    }

    fn start(
        held: schema::Held,
        connections: schema::Connections,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let schema::Connections {
            writer,
            reader,
            lists,
        } = connections;
        let path = held.file();
        let of = |source| OpenError::Store {
            path: path.clone(),
            source,
        };
        let mut state = State::default();
        // Before anything is stored: a plan that no saga has begun under may still be about to get one.
        writer
            .execute("DELETE FROM plan WHERE hash NOT IN (SELECT plan FROM saga)", [])
            .map_err(of)?;
        state.next_saga = read::last_saga(&reader).map_err(of)? + 1;
        for (n, saga) in read::open_sagas(&reader).map_err(of)? {
            let saga = match saga {
                Ok(saga) => saga,
                Err(id) => {
                    tracing::error!(
                        n,
                        id,
                        "a saga's id in the journal was damaged: the saga can't be taken up"
                    );
                    continue;
                }
            };
            // One whose rows can't be read is told of when its history is.
            let events = read::count(&reader, n).unwrap_or(0);
            state.open.insert(saga, OpenSaga { n, events });
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: watch::Sender::default(),
        });
        let thread = Writer {
            shared: Arc::clone(&shared),
            connection: writer,
            path: path.clone(),
            settings,
        };
        let thread = std::thread::Builder::new()
            .name("qbox-journal".to_owned())
            .spawn(move || thread.run())
            .map_err(|source| OpenError::Folder {
                path: path.clone(),
                source,
            })?;
        Ok(Self {
            settings,
            shared,
            reader: Mutex::new(reader),
            lists: Mutex::new(lists),
            path,
            thread: Mutex::new(Some(thread)),
            held: Mutex::new(Some(held)),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.finish_writing();
    }
}

impl Durable {
    /// Has the writer write what is queued, and end.
    fn finish_writing(&self) {
        self.shared.state().stop = true;
        self.shared.work.notify_all();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is taken from now on, and who waits is told.
    fn fail(&self, cause: &str) {
        self.state().failed = Some(cause.to_owned());
        self.progress
            .send_modify(|progress| progress.failed = Some(cause.to_owned()));
    }
}

impl State {
    fn sound(&self) -> Result<(), JournalError> {
        match &self.failed {
            Some(cause) => Err(JournalError::Store(cause.clone())),
            None => Ok(()),
        }
    }

    fn queue(&mut self, write: Write) {
        self.oldest.get_or_insert_with(Instant::now);
        self.queue_bytes += write.weight();
        self.queue.push(write);
    }

    /// Of a saga that has begun a moment ago.
    fn place(&self, of: SagaId) -> Option<i64> {
        self.writing
            .iter()
            .chain(&self.queue)
            .find_map(|write| match write {
                Write::Began { n, saga, .. } if *saga == of => Some(*n),
                _ => None,
            })
    }

    /// The file says of `saga` that it has ended.
    fn found(&mut self, saga: &Outline) {
        if let Some(stamp) = &saga.stamp
            && self.ending.get(&stamp.key).is_some_and(|(of, _)| *of == saga.id)
        {
            self.ending.remove(&stamp.key);
        }
    }
}

impl Journal for Durable {
    fn append(&self, saga: SagaId, first: u64, events: &[Event]) -> Result<Position, JournalError> {
        // Outside the lock: it is the larger part of the work.
        let rows = (first..)
            .zip(events)
            .map(|(number, event)| codec::encode(saga, number, event))
            .collect::<Result<Vec<_>, _>>()?;
        let mut guard = self.shared.state();
        let state = &mut *guard;
        state.sound()?;
        let known = state.open.get(&saga).copied();
        let have = known.map_or(0, |known| known.events);
        let n = match (known, events.first()) {
            (Some(known), _) if first == have => known.n,
            (None, Some(Event::Began { plan, name, at, .. })) if first == 0 => {
                if state.open.len() >= self.settings.open || state.queue_bytes >= QUEUE {
                    return Err(JournalError::Full);
                }
                let n = state.next_saga;
                state.next_saga += 1;
                state.queue(Write::Began {
                    n,
                    saga,
                    name: name.clone(),
                    plan: *plan,
                    at: *at,
                });
                n
            }
            _ => return Err(JournalError::Order { saga, first, have }),
        };
        if state.queue_bytes >= QUEUE_AT_MOST {
            return Err(JournalError::Store(format!(
                "{QUEUE_AT_MOST} bytes wait for {}: the disk hangs",
                self.path.display()
            )));
        }
        let count = rows.len() as u64;
        for row in rows {
            state.queue(Write::Event { n, saga, row });
        }
        let events = have + count;
        state.open.insert(saga, OpenSaga { n, events });
        state.position += count;
        let position = Position(state.position);
        drop(guard);
        self.shared.work.notify_one();
        Ok(position)
    }

    fn durable(&self, position: Position) -> Pending<'_, Result<(), JournalError>> {
        let mut state = self.shared.state();
        if state.wanted < position.0 {
            state.wanted = position.0;
            self.shared.work.notify_one();
        }
        drop(state);
        let mut progress = self.shared.progress.subscribe();
        Box::pin(async move {
            let there = |p: &Progress| p.written >= position.0 || p.failed.is_some();
            let progress = progress
                .wait_for(there)
                .await
                .map_err(|_| JournalError::Store("it was closed".to_owned()))?;
            match &progress.failed {
                // What was written before the failure still is.
                Some(cause) if progress.written < position.0 => Err(JournalError::Store(cause.clone())),
                _ => Ok(()),
            }
        })
    }

    fn store_plan(&self, hash: PlanHash, plan: &Arc<Plan>) -> Result<(), JournalError> {
        let mut state = self.shared.state();
        state.sound()?;
        if state.plans.contains(&hash) {
            return Ok(());
        }
        let plan = serde_json::to_string(&**plan).map_err(|e| JournalError::Store(e.to_string()))?;
        state.plans.insert(hash);
        state.queue(Write::Plan { hash, plan });
        Ok(())
    }

    fn plan(&self, hash: PlanHash) -> Result<Option<Arc<Plan>>, JournalError> {
        let text = match self.queued_plan(hash) {
            Some(text) => Some(text),
            None => read::plan(&self.reader(), hash).map_err(|e| self.unreadable(&e))?,
        };
        text.map(|text| codec::decode_plan(hash, &text).map(Arc::new))
            .transpose()
            .map_err(JournalError::Store)
    }

    fn plans(&self) -> Result<Vec<PlanHash>, JournalError> {
        read::plans(&self.reader()).map_err(|e| self.unreadable(&e))
    }

    fn finish(&self, ended: Outline) {
        let mut state = self.shared.state();
        if let Some(OpenSaga { n, .. }) = state.open.remove(&ended.id) {
            if let Some(stamp) = ended.stamp {
                state.ending.insert(stamp.key, (ended.id, stamp.payload));
            }
            let saga = Box::new(ended);
            state.queue(Write::Ended { n, saga });
            drop(state);
            self.shared.work.notify_one();
        }
    }

    fn history(&self, saga: SagaId) -> Result<Option<Vec<Event>>, JournalError> {
        // First what is queued: until it is read the writer can only have moved some of it into the file.
        let queued = self.queued(saga);
        let mut rows = read::history(&self.reader(), saga).map_err(|e| self.unreadable(&e))?;
        let stored = rows.len() as u64;
        rows.extend(queued.into_iter().filter(|row| row.number >= stored));
        if rows.is_empty() {
            return Ok(None);
        }
        decode(saga, &rows).map(Some)
    }

    fn open(&self) -> Box<dyn Iterator<Item = Result<History, JournalError>> + Send + '_> {
        let mut open: Vec<(i64, SagaId)> = self.shared.state().open.iter().map(|(s, o)| (o.n, *s)).collect();
        open.sort_unstable_by_key(|(n, _)| *n);
        Box::new(open.into_iter().map(|(_, saga)| self.whole(saga)))
    }

    fn ended(&self, saga: SagaId) -> Result<Option<Outline>, JournalError> {
        if let Some(queued) = self.queued_end(saga) {
            return Ok(Some(queued));
        }
        read::ended(&self.reader(), saga).map_err(|e| self.unreadable(&e))
    }

    fn ended_with(&self, key: &[u8; 32]) -> Result<Option<(SagaId, [u8; 32])>, JournalError> {
        if let Some(ending) = self.shared.state().ending.get(key) {
            return Ok(Some(*ending));
        }
        read::ended_with(&self.reader(), key).map_err(|e| self.unreadable(&e))
    }

    fn children(&self, of: SagaId) -> Result<Vec<Outline>, JournalError> {
        // First what is queued, as in `history`.
        let queued = self.queued_children(of);
        let mut children = read::children(&self.reader(), of).map_err(|e| self.unreadable(&e))?;
        children.extend(queued);
        children.sort_by_key(|child| child.id);
        children.dedup_by_key(|child| child.id);
        Ok(children)
    }

    fn reopen(&self, saga: SagaId) -> Result<(), JournalError> {
        let events = self.history(saga)?.map_or(0, |events| events.len() as u64);
        let stored = read::place(&self.reader(), saga).map_err(|e| self.unreadable(&e))?;
        let queued = || self.shared.state().place(saga);
        let n = stored.or_else(queued).ok_or_else(|| JournalError::Record {
            saga,
            cause: "it is not there".to_owned(),
        })?;
        let mut state = self.shared.state();
        state.sound()?;
        state.ending.retain(|_, (of, _)| *of != saga);
        state.open.insert(saga, OpenSaga { n, events });
        state.queue(Write::Reopened { n });
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    fn may_have_dropped(&self, saga: SagaId) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(saga.made()) > self.settings.keep
    }

    fn list(&self, query: &Query, page: &Page) -> Result<Vec<Outline>, JournalError> {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        read::list(&lists, query, page).map_err(|e| self.unreadable(&e))
    }

    fn load(&self) -> Load {
        // The file, and what is still beside it (SQLite, "WAL-mode File Format").
        let size = ["", "-wal"].map(|end| {
            let mut path = self.path.clone().into_os_string();
            path.push(end);
            std::fs::metadata(path).map_or(0, |found| found.len())
        });
        let size = size.iter().sum();
        let state = self.shared.state();
        Load {
            events: state.position,
            syncs: state.commits.count(),
            commits: state.commits,
            size,
            queued_bytes: state.queue_bytes + state.writing.iter().map(Write::weight).sum::<usize>(),
        }
    }

    fn failure(&self) -> Option<String> {
        self.shared.state().failed.clone()
    }

    fn close(&self) {
        // First of all, so that nothing is queued that would not be written.
        self.shared.fail("it was handed over to another Qbox");
        self.finish_writing();
        for connection in [&self.reader, &self.lists] {
            // Nothing is read any more: the file may be of a later version soon.
            if let Ok(none) = Connection::open_in_memory() {
                *connection.lock().unwrap_or_else(PoisonError::into_inner) = none;
            }
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = None;
    }
}

impl Durable {
    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreadable(&self, error: &rusqlite::Error) -> JournalError {
        JournalError::Read(codec::describe(&self.path, error))
    }

    fn whole(&self, saga: SagaId) -> Result<History, JournalError> {
        let record = |cause: String| JournalError::Record { saga, cause };
        match self.history(saga) {
            Ok(Some(events)) => Ok(History { saga, events }),
            Ok(None) => Err(record("it has no events".to_owned())),
            Err(JournalError::Read(cause)) => Err(record(cause)),
            Err(error) => Err(error),
        }
    }

    /// The rows of a saga that the file may not have yet.
    fn queued(&self, of: SagaId) -> Vec<codec::Row> {
        let state = self.shared.state();
        let writes = state.writing.iter().chain(&state.queue);
        writes
            .filter_map(|write| match write {
                Write::Event { saga, row, .. } if *saga == of => Some(row.clone()),
                _ => None,
            })
            .collect()
    }

    fn queued_end(&self, of: SagaId) -> Option<Outline> {
        let state = self.shared.state();
        let mut writes = state.writing.iter().chain(&state.queue);
        writes.find_map(|write| match write {
            Write::Ended { saga, .. } if saga.id == of => Some((**saga).clone()),
            _ => None,
        })
    }

    fn queued_children(&self, of: SagaId) -> Vec<Outline> {
        let state = self.shared.state();
        let writes = state.writing.iter().chain(&state.queue);
        let ended = writes.filter_map(|write| match write {
            Write::Ended { saga, .. } => Some(&**saga),
            _ => None,
        });
        let of_it = |saga: &&Outline| saga.parent.as_ref().is_some_and(|parent| parent.saga == of);
        ended.filter(of_it).cloned().collect()
    }

    fn queued_plan(&self, of: PlanHash) -> Option<String> {
        let state = self.shared.state();
        let mut writes = state.writing.iter().chain(&state.queue);
        writes.find_map(|write| match write {
            Write::Plan { hash, plan } if *hash == of => Some(plan.clone()),
            _ => None,
        })
    }
}

fn decode(saga: SagaId, rows: &[codec::Row]) -> Result<Vec<Event>, JournalError> {
    let rows = (0..).zip(rows);
    rows.map(|(number, row)| codec::decode(saga, number, row))
        .collect::<Result<_, _>>()
        .map_err(|cause| JournalError::Record { saga, cause })
}

#[cfg(test)]
mod tests;
