//! The journal on local disk: one SQLite file in the state directory, and a log in front of it for what it doesn't have yet. Each is
//! written by one thread for all sagas at once.
//!
//! An append is put in order, encoded and queued, which never waits; [`Journal::durable`] waits for the frame of the log and the
//! sync that hold it. What was queued can be read at once. After a write that fails nothing more is taken, and all who wait
//! are told: see [`Journal::failure`]. Which engine, why, and why a log in front of it: docs/journal.md.
//!
//! Must not know HTTP or what an event means, but for the first of a saga. Errors: [`OpenError`] at the start, then
//! [`JournalError`].

mod background;
mod codec;
mod filer;
mod keys;
mod log;
mod pending;
mod read;
mod record;
mod schema;
mod state;
mod writer;

pub use schema::OpenError;

use super::{History, Journal, JournalError, Load, Outline, Page, Pending, Position, Query};
use crate::saga::{Event, Plan, PlanHash, SagaId};
use background::{Background, Hurry};
use filer::Filer;
use keys::Keys;
use log::{HEADER, Log};
use pending::{Batch, Beginning, End};
use record::{Chunk, Record};
use rusqlite::Connection;
use state::{OpenSaga, Shared, State};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use writer::{Doing, Pen};

/// Queued bytes from which on no new saga is taken: the disk doesn't keep up.
const QUEUE: usize = 64 << 20;
/// Queued bytes from which on nothing is. Sagas in flight are bounded, so only a disk that hangs brings it here.
const QUEUE_AT_MOST: usize = 4 * QUEUE;

/// How long who reads the file waits for what is not in it yet.
const FILED_WITHIN: Duration = Duration::from_secs(5);

/// The journal's limits.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Sagas that have not ended; another is refused.
    pub open: usize,
    /// How long finished ones are kept.
    pub keep: Duration,
    /// How long each of the log's two files is, in bytes: with less, what was appended is filed more often.
    pub log: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            open: 10_000,
            keep: Duration::from_secs(72 * 3600),
            log: 8 << 20,
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
    threads: Mutex<Vec<JoinHandle<()>>>,
    // Last, so that the directory is free only when nothing is written any more.
    held: Mutex<Option<schema::Held>>,
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
        let mut connection = writer;
        let (generation, filed) = take_in(held.folder(), &path, &mut connection)?;
        let log = Log::begin(held.folder(), generation, settings.log)?;
        held.sync()?;
        let mut state = State {
            position: filed,
            taken: filed,
            durable: filed,
            wanted: filed,
            filed,
            asked: filed,
            queue: vec![0; HEADER],
            pen: Some(Pen::new(log)),
            ..State::default()
        };
        // Before anything is stored: a plan that no saga has begun under may still be about to get one.
        connection
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
            file: Condvar::new(),
            news: Condvar::new(),
            keys: Keys::default(),
            background: Background::default(),
        });
        let writer = Arc::clone(&shared);
        let filer = Filer {
            shared: Arc::clone(&shared),
            connection,
            path: path.clone(),
            settings,
        };
        let journal = Self {
            settings,
            shared,
            reader: Mutex::new(reader),
            lists: Mutex::new(lists),
            path,
            threads: Mutex::default(),
            held: Mutex::new(Some(held)),
        };
        journal.spawn("qbox-journal", move || writer.keep_writing())?;
        journal.spawn("qbox-filer", || filer.run())?;
        Ok(journal)
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = thread.map_err(|source| OpenError::Folder {
            path: self.path.clone(),
            source,
        })?;
        self.threads().push(thread);
        Ok(())
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A connection that reads. SQLite has locks that it may have to wait for while the filer holds them.
struct Reading<'a> {
    connection: MutexGuard<'a, Connection>,
    _hurry: Hurry<'a>,
}

impl Deref for Reading<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.finish_writing();
    }
}

impl Durable {
    /// Has all that is queued written and filed, and the threads end.
    fn finish_writing(&self) {
        self.shared.state().stop = true;
        self.shared.background.set_urgent(true);
        self.shared.work.notify_all();
        self.shared.file.notify_all();
        for thread in std::mem::take(&mut *self.threads()) {
            drop(thread.join());
        }
    }
}

/// Brings what the log has and the file hasn't into the file. Gives the generation that begins now, and the number of the last record
/// that the file has.
fn take_in(folder: &Path, path: &Path, connection: &mut Connection) -> Result<(u64, u64), OpenError> {
    let of = |source| schema::fault(path, source);
    let (generation, filed) = read::log(connection).map_err(of)?;
    let mut batch = Batch::default();
    let found = Log::find(folder, generation)?;
    let taken = found.each(filed, |record| batch.add(record));
    let last = taken.map_err(|cause| OpenError::Damaged {
        path: path.to_owned(),
        cause,
    })?;
    let next = generation + 1;
    filer::file(connection, &batch, last, Some(next)).map_err(of)?;
    Ok((next, last))
}

impl Journal for Durable {
    fn append(&self, saga: SagaId, first: u64, events: &[Event]) -> Result<Position, JournalError> {
        // Outside the lock: it is the larger part of the work.
        let chunk = Chunk::of(saga, first, events)?;
        let began = events.first().and_then(Beginning::of).filter(|_| first == 0);
        let mut guard = self.shared.state();
        let state = &mut *guard;
        state.sound()?;
        let known = state.open.get(&saga).copied();
        let have = known.map_or(0, |known| known.events);
        let n = match (known, &began) {
            (Some(known), _) if first == have => known.n,
            (None, Some(_)) => {
                if state.open.len() >= self.settings.open || state.queued_bytes() >= QUEUE {
                    return Err(JournalError::Full);
                }
                state.next_saga += 1;
                state.next_saga - 1
            }
            _ => return Err(JournalError::Order { saga, first, have }),
        };
        if state.queued_bytes() >= QUEUE_AT_MOST {
            return Err(JournalError::Store(format!(
                "{QUEUE_AT_MOST} bytes wait for {}: the disk hangs",
                self.path.display()
            )));
        }
        let record = Record::Events {
            n,
            saga,
            first,
            events: chunk,
        };
        state.queue(&record)?;
        let begins = began.is_some();
        if let Record::Events { events, .. } = record {
            let count = events.count;
            state.pending.events((n, saga), began, first, events);
            let events = have + count;
            state.open.insert(saga, OpenSaga { n, events });
            state.events += count;
        }
        let position = Position(state.position);
        // That a saga begins is always waited for, and the writer woken then.
        if !begins {
            self.shared.queued(guard);
        }
        Ok(position)
    }

    fn durable(&self, position: Position) -> Pending<'_, Result<(), JournalError>> {
        let mut state = self.shared.state();
        // What was kept before a failure still is.
        if position.0 <= state.durable {
            return Box::pin(std::future::ready(Ok(())));
        }
        if let Err(error) = state.sound() {
            return Box::pin(std::future::ready(Err(error)));
        }
        state.wanted = state.wanted.max(position.0);
        let mut state = match self.shared.written_here(state) {
            Err(state) => state,
            Ok(()) => {
                let state = self.shared.state();
                let kept = match position.0 <= state.durable {
                    true => Ok(()),
                    false => state.sound(),
                };
                return Box::pin(std::future::ready(kept));
            }
        };
        let (tell, told) = oneshot::channel();
        state.waiters.push((position.0, tell));
        // Who writes looks again afterwards.
        let wake = match state.crowd {
            Some(crowd) => state.waiters.len() == crowd,
            None => state.pen.is_some() && state.wakes_thread(Doing::Dozes),
        };
        drop(state);
        if wake {
            self.shared.work.notify_one();
        }
        Box::pin(async move {
            let closed = |_| Err(JournalError::Store("it was closed".to_owned()));
            told.await.unwrap_or_else(closed)
        })
    }

    fn store_plan(&self, hash: PlanHash, plan: &Arc<Plan>) -> Result<(), JournalError> {
        let mut state = self.shared.state();
        state.sound()?;
        if state.plans.contains(&hash) {
            return Ok(());
        }
        let plan = serde_json::to_string(&**plan).map_err(|e| JournalError::Store(e.to_string()))?;
        state.queue(&Record::Plan {
            hash,
            plan: Cow::Borrowed(&plan),
        })?;
        state.plans.insert(hash);
        state.pending.plan(hash, plan);
        self.shared.queued(state);
        Ok(())
    }

    fn plan(&self, hash: PlanHash) -> Result<Option<Arc<Plan>>, JournalError> {
        let text = self.find(
            |batch| batch.plans().get(&hash).cloned().map(Some),
            |reader| read::plan(reader, hash),
        )?;
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
            let saga = Cow::Borrowed(&ended);
            // Where it fails, a restart learns it from the saga's history.
            if state.queue(&Record::Ended { n, saga }).is_ok() {
                state.pending.ended(n, ended);
            }
            self.shared.queued(state);
        }
    }

    fn history(&self, saga: SagaId) -> Result<Option<Vec<Event>>, JournalError> {
        // First what is not filed: until the file is read some of it can only have got there.
        let unfiled = self.unfiled(|batch| {
            let change = batch.of(saga).filter(|change| change.events.count > 0)?;
            Some((change.first, change.events.clone()))
        });
        let rows = read::history(&self.reader(), saga).map_err(|e| self.unreadable(&e))?;
        let record = |cause| JournalError::Record { saga, cause };
        let mut events = Vec::new();
        for row in &rows {
            events.extend(codec::decode(saga, events.len() as u64, row).map_err(record)?);
        }
        for (first, chunk) in unfiled {
            let have = events.len() as u64;
            if first >= have {
                let more = codec::follows(have, first).and_then(|()| codec::parse(first, &chunk.array()));
                events.extend(more.map_err(record)?);
            }
        }
        Ok((!events.is_empty()).then_some(events))
    }

    fn open(&self) -> Box<dyn Iterator<Item = Result<History, JournalError>> + Send + '_> {
        let mut open: Vec<(i64, SagaId)> = self.shared.state().open.iter().map(|(s, o)| (o.n, *s)).collect();
        open.sort_unstable_by_key(|(n, _)| *n);
        Box::new(open.into_iter().map(|(_, saga)| self.whole(saga)))
    }

    fn ended(&self, saga: SagaId) -> Result<Option<Outline>, JournalError> {
        self.find(
            |batch| match &batch.of(saga)?.end {
                End::AsItWas => None,
                End::Ended(saga) => Some(Some((**saga).clone())),
                End::Reopened => Some(None),
            },
            |reader| read::ended(reader, saga),
        )
    }

    fn ended_with(&self, key: &[u8; 32]) -> Result<Option<(SagaId, [u8; 32])>, JournalError> {
        // What is filed meanwhile is told of by the filter before it is no longer found here.
        if let Some(found) = self.unfiled(|batch| batch.with_key(key)).pop() {
            return Ok(Some(found));
        }
        if !self.shared.keys.may_have(key) {
            return Ok(None);
        }
        read::ended_with(&self.reader(), key).map_err(|e| self.unreadable(&e))
    }

    fn children(&self, of: SagaId) -> Result<Vec<Outline>, JournalError> {
        // First what is not filed, as in `history`. The younger tells.
        let unfiled = self.unfiled(|batch| Some(batch.ends_below(of)));
        let stored = read::children(&self.reader(), of).map_err(|e| self.unreadable(&e))?;
        let mut children: BTreeMap<SagaId, Outline> =
            stored.into_iter().map(|child| (child.id, child)).collect();
        for (child, ended) in unfiled.into_iter().flatten() {
            match ended {
                Some(ended) => children.insert(child, ended),
                None => children.remove(&child),
            };
        }
        Ok(children.into_values().collect())
    }

    fn reopen(&self, saga: SagaId) -> Result<(), JournalError> {
        let events = self.history(saga)?.map_or(0, |events| events.len() as u64);
        let n = self.find(
            |batch| Some(Some(batch.of(saga)?.n)),
            |reader| read::place(reader, saga),
        )?;
        let n = n.ok_or_else(|| JournalError::Record {
            saga,
            cause: "it is not there".to_owned(),
        })?;
        let mut state = self.shared.state();
        state.sound()?;
        state.queue(&Record::Reopened { n, saga })?;
        state.open.insert(saga, OpenSaga { n, events });
        state.pending.reopened(n, saga);
        self.shared.queued(state);
        Ok(())
    }

    fn may_have_dropped(&self, saga: SagaId) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(saga.made()) > self.settings.keep
    }

    fn list(&self, query: &Query, page: &Page) -> Result<Vec<Outline>, JournalError> {
        self.have_filed();
        read::list(&self.reading(&self.lists), query, page).map_err(|e| self.unreadable(&e))
    }

    fn load(&self) -> Load {
        // The file, what is still beside it (SQLite, "WAL-mode File Format"), and the log in front of it.
        let files = [schema::FILE, schema::BESIDE].into_iter().chain(log::FILES);
        let size = files.map(|name| std::fs::metadata(self.path.with_file_name(name)).map_or(0, |f| f.len()));
        let size = size.sum();
        let state = self.shared.state();
        Load {
            events: state.events,
            syncs: state.commits.count() + state.filings,
            commits: state.commits,
            size,
            queued_bytes: state.queued_bytes(),
        }
    }

    fn failure(&self) -> Option<String> {
        self.shared.state().failed.clone()
    }

    fn close(&self) {
        // First of all, so that nothing is queued that would not be written.
        self.shared.refuse("it was handed over to another Qbox");
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
    fn reader(&self) -> Reading<'_> {
        self.reading(&self.reader)
    }

    fn reading<'a>(&'a self, connection: &'a Mutex<Connection>) -> Reading<'a> {
        Reading {
            _hurry: self.shared.background.hurry(),
            connection: connection.lock().unwrap_or_else(PoisonError::into_inner),
        }
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

    /// What is found in that which the file may not have yet, older first.
    fn unfiled<T>(&self, find: impl Fn(&Batch) -> Option<T>) -> Vec<T> {
        let state = self.shared.state();
        state.unfiled().into_iter().filter_map(find).collect()
    }

    /// What the youngest that the file may not have yet tells, or else the file.
    fn find<T>(
        &self,
        unfiled: impl Fn(&Batch) -> Option<Option<T>>,
        stored: impl FnOnce(&Connection) -> rusqlite::Result<Option<T>>,
    ) -> Result<Option<T>, JournalError> {
        match self.unfiled(unfiled).pop() {
            Some(found) => Ok(found),
            None => stored(&self.reader()).map_err(|e| self.unreadable(&e)),
        }
    }

    /// Waits until the file has all that is there now, or for a while: a disk that hangs must not hold up who only reads.
    fn have_filed(&self) {
        let mut state = self.shared.state();
        let wanted = state.position;
        let since = Instant::now();
        while state.filed < wanted && !state.broken && since.elapsed() < FILED_WITHIN {
            self.shared.ask_to_file(&mut state);
            let news = self.shared.news.wait_timeout(state, FILED_WITHIN);
            state = news.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests;
