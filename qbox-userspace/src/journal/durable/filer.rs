//! The thread that brings what was appended into the journal's file, saga by saga, and drops there what is old.
//!
//! It does so once a second and when there is much, when the log needs room, and when someone wants to read the file. A saga that has
//! begun and ended since the last time is one row and one row of events. The first error ends it, as the writer's does.

use super::codec::{self, Row, describe};
use super::keys::{Filter, MOST};
use super::pending::{Batch, Beginning, Change, End};
use super::read::{self, micros};
use super::{Settings, Shared};
use crate::journal::Outline;
use crate::saga::SagaId;
use rusqlite::{Connection, Statement, Transaction, params};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long what was appended is only in the log, at most.
const OFTEN: Duration = Duration::from_secs(1);
/// So many bytes are filed at once.
pub(super) const MUCH: usize = 1 << 20;
/// With so many the filer doesn't stand back.
pub(super) const BEHIND: usize = 4 * MUCH;
/// How often old sagas are looked for.
const TIDY: Duration = Duration::from_secs(60);
/// How soon again if there are more of them than go in one transaction.
const TIDY_AGAIN: Duration = Duration::from_millis(20);
/// How many of them go in one transaction, so that nothing waits long for it: so many, and twice as many as have come.
const TIDY_SAGAS: usize = 200;
/// How many free pages are given back to the file system at once.
const TIDY_PAGES: i64 = 1000;

/// The thread's own.
pub(super) struct Filer {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) settings: Settings,
}

enum Next {
    /// The batch, and the number of the last record in it.
    File(Arc<Batch>, u64),
    Idle,
    Stop,
    Broken,
}

impl Filer {
    /// Until it is told to stop and nothing is to be filed, or an error.
    pub(super) fn run(mut self) {
        let mut tidied: Option<Instant> = None;
        let shared = Arc::clone(&self.shared);
        shared.background.enter();
        if let Err(error) = self.learn_keys() {
            return self.shared.fail(&describe(&self.path, &error));
        }
        loop {
            let rest = if tidied.is_some() { TIDY } else { TIDY_AGAIN };
            let mut most = TIDY_SAGAS;
            let done = match self.next(rest) {
                Next::Stop => return self.merge(),
                Next::Broken => return,
                Next::File(batch, last) => {
                    most += 2 * batch.len();
                    let filed = shared
                        .background
                        .run(|| file(&mut self.connection, &batch, last, None));
                    // Before it is no longer found in the batch.
                    batch.keys().for_each(|key| self.shared.keys.add(key));
                    filed.map(|()| self.shared.filed(last))
                }
                Next::Idle => Ok(()),
            };
            let due = tidied.is_none_or(|at| at.elapsed() >= TIDY);
            let done = done.and_then(|()| {
                if self.shared.keys.are_full() {
                    self.learn_keys()?;
                }
                if due {
                    tidied = shared.background.run(|| self.tidy(most))?.then(Instant::now);
                }
                Ok(())
            });
            if let Err(error) = done {
                return self.shared.fail(&describe(&self.path, &error));
            }
        }
    }

    /// Has all who ask told of the keys that the file has. Nothing is filed meanwhile.
    fn learn_keys(&self) -> rusqlite::Result<()> {
        let count = read::count_keys(&self.connection)?;
        let filter = match count <= MOST {
            true => {
                let filter = Filter::new(count);
                read::each_key(&self.connection, |key| filter.add(&key))?;
                Some(filter)
            }
            false => None,
        };
        self.shared.keys.set(filter);
        Ok(())
    }

    /// An orderly end leaves one file.
    fn merge(&self) {
        let merged = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        // SQLite finds what is left beside it as well.
        drop(merged);
    }

    /// What is to be filed; [`Next::Idle`] after `rest` without any.
    fn next(&self, rest: Duration) -> Next {
        let mut state = self.shared.state();
        loop {
            if state.broken {
                return Next::Broken;
            }
            let due = state.unfiled.map(|since| OFTEN.saturating_sub(since.elapsed()));
            let asked = state.asked > state.filed || state.stop;
            let now = asked || state.pending.bytes() >= MUCH;
            match due {
                None if state.stop => return Next::Stop,
                Some(wait) if now || wait.is_zero() => {
                    let batch = Arc::new(std::mem::take(&mut state.pending));
                    state.unfiled = None;
                    state.filing = Arc::clone(&batch);
                    self.shared
                        .background
                        .set_urgent(asked || batch.bytes() >= BEHIND);
                    return Next::File(batch, state.position);
                }
                _ => {}
            }
            state.filer_rests = due.is_none();
            let (woken, timeout) = self
                .shared
                .file
                .wait_timeout(state, due.unwrap_or(rest))
                .unwrap_or_else(PoisonError::into_inner);
            if due.is_none() && timeout.timed_out() {
                return Next::Idle;
            }
            state = woken;
        }
    }

    /// Drops finished sagas that are too old, `most` at the most; `true` once none is left.
    fn tidy(&mut self, most: usize) -> rusqlite::Result<bool> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = now.saturating_sub(self.settings.keep);
        let before = i64::try_from(before.as_micros()).unwrap_or(i64::MAX);
        let old: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT n FROM saga WHERE ended IS NOT NULL AND ended < ?1 ORDER BY ended LIMIT ?2",
            )?
            .query_map(params![before, i64::try_from(most).unwrap_or(i64::MAX)], |row| {
                row.get(0)
            })?
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
        Ok(old.len() < most)
    }
}

/// Brings `batch`, whose last record is number `last`, into the file, in one transaction. From then on `generation` of the log
/// counts, if one is given.
pub(super) fn file(
    connection: &mut Connection,
    batch: &Batch,
    last: u64,
    generation: Option<u64>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (hash, plan) in batch.plans() {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO plan (hash, plan) VALUES (?1, ?2)")?
            .execute(params![hash.to_string(), plan])?;
    }
    for (saga, change) in batch.sagas() {
        change_of(&transaction, saga, change)?;
    }
    transaction
        .prepare_cached("UPDATE log SET filed = ?1, generation = coalesce(?2, generation)")?
        .execute(params![signed(last), generation.map(signed)])?;
    transaction.commit()
}

/// The columns that are known once a saga has ended.
const ENDED: [&str; 11] = [
    "ended",
    "state",
    "failed_step",
    "cause",
    "replied",
    "status",
    "key",
    "payload",
    "parent",
    "parent_step",
    "revoked",
];

/// The statements, made once.
struct Statements {
    began_and_ended: String,
    ended: String,
}

static STATEMENTS: LazyLock<Statements> = LazyLock::new(|| {
    let values: Vec<String> = (6..).take(ENDED.len()).map(|n| format!("?{n}")).collect();
    let sets: Vec<String> = (2..)
        .zip(ENDED)
        .map(|(n, column)| format!("{column} = ?{n}"))
        .collect();
    Statements {
        began_and_ended: format!(
            "INSERT INTO saga (n, id, name, plan, began, {}) VALUES (?1, ?2, ?3, ?4, ?5, {})",
            ENDED.join(", "),
            values.join(", ")
        ),
        ended: format!("UPDATE saga SET {}, began = ?13 WHERE n = ?1", sets.join(", ")),
    }
});

fn change_of(transaction: &Transaction<'_>, saga: SagaId, change: &Change) -> rusqlite::Result<()> {
    let n = change.n;
    match (&change.began, &change.end) {
        (None, End::AsItWas) => {}
        (Some(began), End::AsItWas | End::Reopened) => {
            let mut insert = transaction
                .prepare_cached("INSERT INTO saga (n, id, name, plan, began) VALUES (?1, ?2, ?3, ?4, ?5)")?;
            bind_began(&mut insert, n, saga, began)?;
            insert.raw_execute()?;
        }
        (Some(began), End::Ended(ended)) => {
            let mut insert = transaction.prepare_cached(&STATEMENTS.began_and_ended)?;
            bind_began(&mut insert, n, saga, began)?;
            insert.raw_bind_parameter(5, micros(ended.began))?;
            bind_ended(&mut insert, 6, ended)?;
            insert.raw_execute()?;
        }
        (None, End::Ended(ended)) => {
            let mut update = transaction.prepare_cached(&STATEMENTS.ended)?;
            update.raw_bind_parameter(1, n)?;
            bind_ended(&mut update, 2, ended)?;
            update.raw_bind_parameter(13, micros(ended.began))?;
            update.raw_execute()?;
        }
        (None, End::Reopened) => {
            transaction
                .prepare_cached("UPDATE saga SET ended = NULL, state = NULL, key = NULL WHERE n = ?1")?
                .execute(params![n])?;
        }
    }
    if change.events.count > 0 {
        let row = Row::of(saga, change.first, change.events.array());
        transaction
            .prepare_cached("INSERT INTO event (k, sum, event) VALUES (?1, ?2, ?3)")?
            .execute(params![codec::key(n, row.number), row.sum, row.events])?;
    }
    Ok(())
}

fn bind_began(
    statement: &mut Statement<'_>,
    n: i64,
    saga: SagaId,
    began: &Beginning,
) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(1, n)?;
    statement.raw_bind_parameter(2, saga.to_string())?;
    statement.raw_bind_parameter(3, &began.name)?;
    statement.raw_bind_parameter(4, began.plan.to_string())?;
    statement.raw_bind_parameter(5, micros(began.at))
}

/// As [`ENDED`] has them, from parameter `first` on.
fn bind_ended(statement: &mut Statement<'_>, first: usize, saga: &Outline) -> rusqlite::Result<()> {
    let replied = saga.replied;
    let values = params![
        micros(saga.ended),
        saga.state.as_str(),
        saga.failed_step,
        saga.cause,
        replied.map(|(at, _)| micros(at)),
        replied.map(|(_, status)| status),
        saga.stamp.map(|stamp| stamp.key),
        saga.stamp.map(|stamp| stamp.payload),
        saga.parent.as_ref().map(|parent| parent.saga.to_string()),
        saga.parent.as_ref().map(|parent| &parent.step),
        saga.revoked,
    ];
    for (n, value) in (first..).zip(values) {
        statement.raw_bind_parameter(n, value)?;
    }
    Ok(())
}

/// As a column holds it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
