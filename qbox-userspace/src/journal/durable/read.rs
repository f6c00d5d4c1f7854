//! What is read of the file, as rows. What the rows mean is `codec`'s.

use super::codec::{self, EVENTS, Row};
use crate::journal::{Outline, Page, Place, Query, Sort, Stamp};
use crate::saga::{Parent, PlanHash, SagaId, SagaState, Timestamp};
use rusqlite::types::{ToSql, Type};
use rusqlite::{Connection, OptionalExtension};

type Result<T, E = rusqlite::Error> = std::result::Result<T, E>;

/// The last saga's place; 0 where there is none.
pub(super) fn last_saga(connection: &Connection) -> Result<i64> {
    connection.query_row("SELECT coalesce(max(n), 0) FROM saga", [], |row| row.get(0))
}

/// The sagas that have not ended or of which no more than that is known, in order. `Err` is an id that is none.
pub(super) fn open_sagas(connection: &Connection) -> Result<Vec<(i64, Result<SagaId, String>)>> {
    connection
        .prepare("SELECT n, id FROM saga WHERE state IS NULL ORDER BY n")?
        .query_map([], |row| {
            let text: String = row.get(1)?;
            Ok((row.get(0)?, text.parse().map_err(|_| text)))
        })?
        .collect()
}

/// The columns that [`outline`] reads.
const OUTLINE: &str = "id, name, state, began, ended, failed_step, cause, replied, status, key, payload, parent, parent_step, \
                       revoked";

/// A saga that has ended.
pub(super) fn ended(connection: &Connection, saga: SagaId) -> Result<Option<Outline>> {
    connection
        .prepare_cached(&format!(
            "SELECT {OUTLINE} FROM saga WHERE id = ?1 AND state IS NOT NULL"
        ))?
        .query_row([saga.to_string()], outline)
        .optional()
}

/// Those that have ended and were begun for a step of that saga, oldest first.
pub(super) fn children(connection: &Connection, of: SagaId) -> Result<Vec<Outline>> {
    connection
        .prepare_cached(&format!(
            "SELECT {OUTLINE} FROM saga WHERE parent = ?1 AND state IS NOT NULL ORDER BY n"
        ))?
        .query_map([of.to_string()], outline)?
        .collect()
}

/// A saga's place.
pub(super) fn place(connection: &Connection, saga: SagaId) -> Result<Option<i64>> {
    connection
        .prepare_cached("SELECT n FROM saga WHERE id = ?1")?
        .query_row([saga.to_string()], |row| row.get(0))
        .optional()
}

/// The youngest saga with that key, and its payload.
pub(super) fn ended_with(connection: &Connection, key: &[u8; 32]) -> Result<Option<(SagaId, [u8; 32])>> {
    connection
        .prepare_cached("SELECT id, payload FROM saga WHERE key = ?1 ORDER BY n DESC LIMIT 1")?
        .query_row([key], |row| Ok((id(row, 0)?, row.get(1)?)))
        .optional()
}

/// How many keys are kept.
pub(super) fn count_keys(connection: &Connection) -> Result<usize> {
    connection.query_row("SELECT count(*) FROM saga WHERE key IS NOT NULL", [], |row| {
        row.get(0)
    })
}

/// Shows `see` all keys that are kept.
pub(super) fn each_key(connection: &Connection, mut see: impl FnMut([u8; 32])) -> Result<()> {
    let mut all = connection.prepare("SELECT key FROM saga WHERE key IS NOT NULL")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        see(row.get(0)?);
    }
    Ok(())
}

/// A page of those that have ended.
pub(super) fn list(connection: &Connection, query: &Query, page: &Page) -> Result<Vec<Outline>> {
    let Query {
        states,
        name,
        plans,
        from,
        until,
        failed_step,
    } = query.clone();
    let mut wanted = Wanted::default();
    if !states.is_empty() {
        wanted.among("state", states.iter().map(|state| state.as_str().to_owned()));
    }
    if let Some(plans) = plans {
        wanted.among("plan", plans.iter().map(PlanHash::to_string));
    }
    wanted.if_given("name =", name);
    wanted.if_given("began >=", from.map(micros));
    wanted.if_given("began <", until.map(micros));
    wanted.if_given("failed_step =", failed_step);
    let (than, direction) = if page.descending {
        ("<", "DESC")
    } else {
        (">", "ASC")
    };
    match page.after.clone() {
        None => {}
        Some(Place::Began(id)) => wanted.if_given(&format!("id {than}"), Some(id.to_string())),
        Some(Place::Ended(at, id)) => wanted.behind("ended", than, micros(at), id),
        Some(Place::Name(name, id)) => wanted.behind("name", than, name, id),
    }
    let order = match page.sort {
        Sort::Began => format!("id {direction}"),
        Sort::Ended => format!("ended {direction}, id {direction}"),
        Sort::Name => format!("name {direction}, id {direction}"),
    };
    let limit = wanted.value(i64::try_from(page.limit).unwrap_or(i64::MAX));
    let sql = format!(
        "SELECT {OUTLINE} FROM saga WHERE state IS NOT NULL{} ORDER BY {order} LIMIT {limit}",
        wanted.conditions
    );
    connection
        .prepare(&sql)?
        .query_map(rusqlite::params_from_iter(wanted.values), outline)?
        .collect()
}

/// Conditions, and the values for their places.
#[derive(Default)]
struct Wanted {
    conditions: String,
    values: Vec<Box<dyn ToSql>>,
}

impl Wanted {
    /// A place for a value.
    fn value(&mut self, value: impl ToSql + 'static) -> String {
        self.values.push(Box::new(value));
        format!("?{}", self.values.len())
    }

    fn that(&mut self, condition: &str) {
        self.conditions.push_str(" AND ");
        self.conditions.push_str(condition);
    }

    fn among(&mut self, column: &str, values: impl Iterator<Item = String>) {
        let values: Vec<String> = values.map(|value| self.value(value)).collect();
        self.that(&format!("{column} IN ({})", values.join(", ")));
    }

    fn if_given(&mut self, what: &str, value: Option<impl ToSql + 'static>) {
        if let Some(value) = value {
            let value = self.value(value);
            self.that(&format!("{what} {value}"));
        }
    }

    fn behind(&mut self, column: &str, than: &str, value: impl ToSql + 'static, id: SagaId) {
        let (value, id) = (self.value(value), self.value(id.to_string()));
        self.that(&format!("({column}, id) {than} ({value}, {id})"));
    }
}

fn outline(row: &rusqlite::Row<'_>) -> Result<Outline> {
    let state: String = row.get(2)?;
    let state = [SagaState::Committed, SagaState::Compensated]
        .into_iter()
        .find(|known| known.as_str() == state)
        .ok_or_else(|| odd(2, format!("{state} is no state that a saga ends in")))?;
    let replied: Option<i64> = row.get(7)?;
    let status: Option<u16> = row.get(8)?;
    let key: Option<[u8; 32]> = row.get(9)?;
    let payload: Option<[u8; 32]> = row.get(10)?;
    let saga = row.get::<_, Option<String>>(11)?.and_then(|id| id.parse().ok());
    let step: Option<String> = row.get(12)?;
    Ok(Outline {
        id: id(row, 0)?,
        name: row.get(1)?,
        state,
        began: time(row.get(3)?),
        ended: time(row.get(4)?),
        failed_step: row.get(5)?,
        cause: row.get(6)?,
        replied: replied.map(time).zip(status),
        stamp: key.zip(payload).map(|(key, payload)| Stamp { key, payload }),
        parent: saga.zip(step).map(|(saga, step)| Parent { saga, step }),
        revoked: row.get(13)?,
    })
}

/// As the columns hold it.
pub(super) fn micros(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn time(micros: i64) -> Timestamp {
    Timestamp(u64::try_from(micros).unwrap_or(0))
}

fn odd(column: usize, cause: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, cause.into())
}

/// The events of a saga, in order; none where there is no such saga.
pub(super) fn history(connection: &Connection, saga: SagaId) -> Result<Vec<Row>> {
    place(connection, saga)?.map_or(Ok(Vec::new()), |n| rows(connection, n))
}

/// How many events saga `n` has.
pub(super) fn count(connection: &Connection, n: i64) -> Result<u64> {
    let last: Option<(i64, u64)> = connection
        .prepare_cached(
            "SELECT k, CASE substr(event, 1, 1) WHEN '[' THEN json_array_length(event) ELSE 1 END \
             FROM event WHERE k BETWEEN ?1 AND ?2 ORDER BY k DESC LIMIT 1",
        )?
        .query_row(range(n), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(last.map_or(0, |(k, count)| number(k) + count))
}

/// The generation of the log that counts, and up to which of its records this file has it.
pub(super) fn log(connection: &Connection) -> Result<(u64, u64)> {
    connection.query_row("SELECT generation, filed FROM log", [], |row| {
        let unsigned = |n: i64| u64::try_from(n).unwrap_or(0);
        Ok((unsigned(row.get(0)?), unsigned(row.get(1)?)))
    })
}

fn rows(connection: &Connection, n: i64) -> Result<Vec<Row>> {
    connection
        .prepare_cached("SELECT k, sum, event FROM event WHERE k BETWEEN ?1 AND ?2 ORDER BY k")?
        .query_map(range(n), |row| {
            Ok(Row {
                number: number(row.get(0)?),
                sum: row.get(1)?,
                events: row.get(2)?,
            })
        })?
        .collect()
}

/// A plan's text.
pub(super) fn plan(connection: &Connection, hash: PlanHash) -> Result<Option<String>> {
    connection
        .prepare_cached("SELECT plan FROM plan WHERE hash = ?1")?
        .query_row([hash.to_string()], |row| row.get(0))
        .optional()
}

/// The plans that are there.
pub(super) fn plans(connection: &Connection) -> Result<Vec<PlanHash>> {
    connection
        .prepare_cached("SELECT unhex(hash) FROM plan")?
        .query_map([], |row| Ok(PlanHash(row.get(0)?)))?
        .collect()
}

fn range(n: i64) -> [i64; 2] {
    [codec::key(n, 0), codec::key(n, EVENTS - 1)]
}

fn number(k: i64) -> u64 {
    k.cast_unsigned() & (EVENTS - 1)
}

fn id(row: &rusqlite::Row<'_>, column: usize) -> Result<SagaId> {
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|_| odd(column, format!("{text} is no saga's id")))
}
