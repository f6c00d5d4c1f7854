//! The one thread that writes. All that is queued when it looks becomes one transaction and one sync, whoever's it is.
//!
//! It looks when someone waits for durability, and otherwise when the queue is old or large: what nobody waits for may be
//! lost in a crash, and costs no sync of its own. The first error ends it: after a failed write or sync nobody knows what
//! the disk holds, so nothing more is taken until a restart has read it again.

use super::codec::{self, Row, describe};
use super::read::micros;
use super::{Settings, Shared, State};
use crate::journal::Outline;
use crate::saga::{PlanHash, SagaId, Timestamp};
use rusqlite::{Connection, params};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long an append that nobody waits for may stay in memory.
const LAZY: Duration = Duration::from_millis(50);
/// A queue of that many bytes is written though nobody waits.
const EAGER: usize = 1 << 20;
/// How often old sagas are looked for.
const TIDY: Duration = Duration::from_secs(60);
/// How soon again if there are more of them than go in one transaction.
const TIDY_AGAIN: Duration = Duration::from_millis(20);
/// How many of them go in one transaction, so that an append never waits long.
const TIDY_SAGAS: i64 = 200;
/// How many free pages are given back to the file system at once.
const TIDY_PAGES: i64 = 1000;

/// Something to be written.
#[derive(Debug)]
pub(super) enum Write {
    Plan {
        hash: PlanHash,
        plan: String,
    },
    Began {
        n: i64,
        saga: SagaId,
        name: String,
        plan: PlanHash,
        at: Timestamp,
    },
    Event {
        n: i64,
        saga: SagaId,
        row: Row,
    },
    Ended {
        n: i64,
        saga: Box<Outline>,
    },
    /// It goes on after all.
    Reopened {
        n: i64,
    },
}

impl Write {
    /// About how many bytes it takes in memory.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Reopened { .. } => 0,
                Self::Plan { plan, .. } => plan.len(),
                Self::Event { row, .. } => row.event.len(),
                Self::Began { name, .. } => name.len(),
                Self::Ended { saga, .. } => {
                    let cause = saga.cause.as_ref().map_or(0, String::len);
                    size_of::<Outline>() + saga.name.len() + cause
                }
            }
    }
}

/// The thread's own.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) settings: Settings,
}

impl Writer {
    /// Until it is told to stop and nothing is queued, or an error.
    pub(super) fn run(mut self) {
        let mut tidied: Option<Instant> = None;
        loop {
            let rest = if tidied.is_some() { TIDY } else { TIDY_AGAIN };
            let done = match self.next(rest) {
                Next::Stop => return,
                Next::Write(batch, position) => {
                    let begun = Instant::now();
                    self.write(&batch)
                        .map(|()| self.written(&batch, position, begun.elapsed()))
                }
                Next::Idle => Ok(()),
            };
            let due = tidied.is_none_or(|at| at.elapsed() >= TIDY);
            let done = done.and_then(|()| {
                if due {
                    tidied = self.tidy()?.then(Instant::now);
                }
                Ok(())
            });
            if let Err(error) = done {
                let cause = describe(&self.path, &error);
                tracing::error!(
                    cause,
                    "the journal has failed: no saga is begun or gone on with until a restart"
                );
                return self.shared.fail(&cause);
            }
        }
    }

    /// What is to be written; [`Next::Idle`] after `rest` without any.
    fn next(&self, rest: Duration) -> Next {
        let mut state = self.shared.state();
        loop {
            let waited_for = state.wanted > state.written || state.stop || state.queue_bytes > EAGER;
            let wait = match state.oldest {
                None if state.stop => return Next::Stop,
                None => rest,
                Some(_) if waited_for => return self.take(&mut state),
                Some(since) if since.elapsed() >= LAZY => return self.take(&mut state),
                Some(since) => LAZY.saturating_sub(since.elapsed()),
            };
            let idle = state.oldest.is_none();
            let (woken, timeout) = self
                .shared
                .work
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner);
            if idle && timeout.timed_out() {
                return Next::Idle;
            }
            state = woken;
        }
    }

    fn take(&self, state: &mut State) -> Next {
        let batch = Arc::new(std::mem::take(&mut state.queue));
        state.oldest = None;
        state.queue_bytes = 0;
        state.writing = Arc::clone(&batch);
        Next::Write(batch, state.position)
    }

    fn written(&self, batch: &[Write], position: u64, took: Duration) {
        let mut state = self.shared.state();
        for write in batch {
            if let Write::Ended { saga, .. } = write {
                state.found(saga);
            }
        }
        state.written = position;
        state.commits.add(took);
        state.writing = Arc::default();
        drop(state);
        self.shared
            .progress
            .send_modify(|progress| progress.written = position);
    }

    fn write(&mut self, batch: &[Write]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for write in batch {
            match write {
                Write::Plan { hash, plan } => transaction
                    .prepare_cached("INSERT OR IGNORE INTO plan (hash, plan) VALUES (?1, ?2)")?
                    .execute(params![hash.to_string(), plan])?,
                Write::Began {
                    n,
                    saga,
                    name,
                    plan,
                    at,
                } => transaction
                    .prepare_cached(
                        "INSERT INTO saga (n, id, name, plan, began) VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![n, saga.to_string(), name, plan.to_string(), micros(*at)])?,
                Write::Event { n, row, .. } => transaction
                    .prepare_cached("INSERT INTO event (k, sum, event) VALUES (?1, ?2, ?3)")?
                    .execute(params![codec::key(*n, row.number), row.sum, row.event])?,
                Write::Ended { n, saga } => transaction
                    .prepare_cached(
                        "UPDATE saga SET ended = ?2, state = ?3, failed_step = ?4, cause = ?5, replied = ?6, \
                             status = ?7, key = ?8, payload = ?9, parent = ?10, parent_step = ?11, revoked = ?12 WHERE n = ?1",
                    )?
                    .execute(params![
                        n,
                        micros(saga.ended),
                        saga.state.as_str(),
                        saga.failed_step,
                        saga.cause,
                        saga.replied.map(|(at, _)| micros(at)),
                        saga.replied.map(|(_, status)| status),
                        saga.stamp.map(|stamp| stamp.key),
                        saga.stamp.map(|stamp| stamp.payload),
                        saga.parent.as_ref().map(|parent| parent.saga.to_string()),
                        saga.parent.as_ref().map(|parent| &parent.step),
                        saga.revoked,
                    ])?,
                Write::Reopened { n } => transaction
                    .prepare_cached("UPDATE saga SET ended = NULL, state = NULL, key = NULL WHERE n = ?1")?
                    .execute(params![n])?,
            };
        }
        transaction.commit()
    }

    /// Drops finished sagas that are too old; `true` once none is left.
    fn tidy(&mut self) -> rusqlite::Result<bool> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = now.saturating_sub(self.settings.keep);
        let before = i64::try_from(before.as_micros()).unwrap_or(i64::MAX);
        let old: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT n FROM saga WHERE ended IS NOT NULL AND ended < ?1 ORDER BY ended LIMIT ?2",
            )?
            .query_map(params![before, TIDY_SAGAS], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        if !old.is_empty() {
            let transaction = self.connection.transaction()?;
            for n in &old {
                transaction
                    .prepare_cached("DELETE FROM event WHERE k BETWEEN ?1 AND ?2")?
                    .execute(params![codec::key(*n, 0), codec::key(*n, codec::EVENTS - 1)])?;
                transaction
                    .prepare_cached("DELETE FROM saga WHERE n = ?1")?
                    .execute(params![n])?;
            }
            transaction.commit()?;
        }
        // What is free for long only makes the file look larger than what it holds.
        self.connection
            .prepare(&format!("PRAGMA incremental_vacuum({TIDY_PAGES})"))?
            .query_map([], |_| Ok(()))?
            .collect::<rusqlite::Result<()>>()?;
        Ok(i64::try_from(old.len()).unwrap_or(i64::MAX) < TIDY_SAGAS)
    }
}

enum Next {
    /// The batch, and the position that is durable once it is written.
    Write(Arc<Vec<Write>>, u64),
    Idle,
    Stop,
}
