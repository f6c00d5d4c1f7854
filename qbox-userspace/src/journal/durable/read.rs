//! What is read of the file, as rows. What the rows mean is `codec`'s.

use super::codec::{self, EVENTS, Row};
use crate::saga::{PlanHash, SagaId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension};

type Result<T, E = rusqlite::Error> = std::result::Result<T, E>;

/// The last saga's place; 0 where there is none.
pub(super) fn last_saga(connection: &Connection) -> Result<i64> {
    connection.query_row("SELECT coalesce(max(n), 0) FROM saga", [], |row| row.get(0))
}

/// The sagas that have not ended, in order. `Err` is an id that is none.
pub(super) fn open_sagas(connection: &Connection) -> Result<Vec<(i64, Result<SagaId, String>)>> {
    connection
        .prepare("SELECT n, id FROM saga WHERE ended IS NULL ORDER BY n")?
        .query_map([], |row| {
            let text: String = row.get(1)?;
            Ok((row.get(0)?, text.parse().map_err(|_| text)))
        })?
        .collect()
}

/// The youngest that have, those that ended last first.
pub(super) fn finished_sagas(connection: &Connection, limit: usize) -> Result<Vec<SagaId>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare("SELECT id FROM saga WHERE ended IS NOT NULL ORDER BY ended DESC, n DESC LIMIT ?1")?
        .query_map([limit], |row| id(row, 0))?
        .collect()
}

/// The events of a saga, in order; none where there is no such saga.
pub(super) fn history(connection: &Connection, saga: SagaId) -> Result<Vec<Row>> {
    let n: Option<i64> = connection
        .prepare_cached("SELECT n FROM saga WHERE id = ?1")?
        .query_row([saga.to_string()], |row| row.get(0))
        .optional()?;
    n.map_or(Ok(Vec::new()), |n| rows(connection, n))
}

/// How many events saga `n` has.
pub(super) fn count(connection: &Connection, n: i64) -> Result<u64> {
    let last: Option<i64> = connection
        .prepare_cached("SELECT max(k) FROM event WHERE k BETWEEN ?1 AND ?2")?
        .query_row(range(n), |row| row.get(0))?;
    Ok(last.map_or(0, |k| number(k) + 1))
}

fn rows(connection: &Connection, n: i64) -> Result<Vec<Row>> {
    connection
        .prepare_cached("SELECT k, sum, event FROM event WHERE k BETWEEN ?1 AND ?2 ORDER BY k")?
        .query_map(range(n), |row| {
            Ok(Row {
                number: number(row.get(0)?),
                sum: row.get(1)?,
                event: row.get(2)?,
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

fn range(n: i64) -> [i64; 2] {
    [codec::key(n, 0), codec::key(n, EVENTS - 1)]
}

fn number(k: i64) -> u64 {
    k.cast_unsigned() & (EVENTS - 1)
}

fn id(row: &rusqlite::Row<'_>, column: usize) -> Result<SagaId> {
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}
