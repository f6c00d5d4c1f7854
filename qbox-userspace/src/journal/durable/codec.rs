//! Between events and rows. A row's sum covers the saga's id and its first event's number too, so that one that was damaged, or
//! stands in another's place, is found instead of believed.

use crate::saga::{Event, Plan, PlanHash, SagaId};
use rusqlite::ErrorCode;
use sha2::{Digest, Sha256};
use std::path::Path;

/// How many low bits of an event's key are its number.
const NUMBER_BITS: u32 = 24;
/// Events of one saga, at most: a step that is retried every 30 seconds gets there after years.
pub(super) const EVENTS: u64 = 1 << NUMBER_BITS;

/// Events as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// The first one's.
    pub(super) number: u64,
    pub(super) sum: i64,
    /// A JSON array; of an event that was stored by itself, as up to version 3, what it is in JSON.
    pub(super) events: String,
}

impl Row {
    /// Of events, of which the first is number `number`, as they are to be stored.
    pub(super) fn of(saga: SagaId, number: u64, events: String) -> Self {
        Self {
            number,
            sum: sum(saga, number, &events),
            events,
        }
    }
}

/// The key of saga `n`'s event `number`.
pub(super) fn key(n: i64, number: u64) -> i64 {
    (n << NUMBER_BITS) | i64::try_from(number & (EVENTS - 1)).unwrap_or(0)
}

/// The events from number `expected` on, or what is wrong with the row.
pub(super) fn decode(saga: SagaId, expected: u64, row: &Row) -> Result<Vec<Event>, String> {
    follows(expected, row.number)?;
    if row.sum != sum(saga, row.number, &row.events) {
        return Err(format!("event {expected} was damaged: its checksum differs"));
    }
    parse(expected, &row.events)
}

/// Whether event `first` is the one that is due.
pub(super) fn follows(expected: u64, first: u64) -> Result<(), String> {
    match first == expected {
        true => Ok(()),
        false => Err(format!("event {expected} is missing")),
    }
}

/// The events of a row's text, whose first is number `first`.
pub(super) fn parse(first: u64, events: &str) -> Result<Vec<Event>, String> {
    let events = match events.starts_with('[') {
        true => serde_json::from_str(events),
        false => serde_json::from_str(events).map(|event| vec![event]),
    };
    events.map_err(|e| format!("event {first} can't be read: {e}"))
}

pub(super) fn sum(saga: SagaId, number: u64, event: &str) -> i64 {
    let mut hash = Sha256::new();
    hash.update(saga.0.to_be_bytes());
    hash.update(number.to_be_bytes());
    hash.update(event);
    let digest = hash.finalize();
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(&digest) {
        *to = *from;
    }
    i64::from_be_bytes(first)
}

/// The plan, or what is wrong with its text.
pub(super) fn decode_plan(hash: PlanHash, text: &str) -> Result<Plan, String> {
    if PlanHash(Sha256::digest(text).into()) != hash {
        return Err(format!("the plan {hash} was damaged: its hash differs"));
    }
    serde_json::from_str(text).map_err(|e| format!("the plan {hash} can't be read: {e}"))
}

/// What SQLite says, for people.
pub(super) fn describe(path: &Path, error: &rusqlite::Error) -> String {
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => format!("no space is left for {path}: {error}"),
        Some(ErrorCode::SystemIoFailure) => format!("the disk failed {path}: {error}"),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => format!("{path} is damaged: {error}"),
        Some(ErrorCode::DatabaseBusy) => format!("another program keeps {path} locked: {error}"),
        _ => format!("{path}: {error}"),
    }
}
