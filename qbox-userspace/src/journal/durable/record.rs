//! What the log holds, one after the other: everything that changes the journal. Errors: a record that can't be read.

use super::codec;
use crate::journal::{JournalError, Outline};
use crate::saga::{Event, PlanHash, SagaId};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record<'a> {
    /// A plan is kept.
    Plan { hash: PlanHash, plan: Cow<'a, str> },
    /// A saga's events, from number `first` on.
    Events {
        n: i64,
        saga: SagaId,
        first: u64,
        events: Chunk<'a>,
    },
    /// It has ended.
    Ended { n: i64, saga: Cow<'a, Outline> },
    /// It goes on after all.
    Reopened { n: i64, saga: SagaId },
}

impl Record<'_> {
    /// Writes it behind what `log` holds, whole or not at all.
    ///
    /// # Errors
    /// It can't be put in bytes, which is a bug.
    pub(super) fn encode(&self, log: &mut Vec<u8>) -> Result<(), JournalError> {
        let before = log.len();
        let done = postcard::to_io(self, &mut *log).map(drop);
        done.map_err(|e| {
            log.truncate(before);
            JournalError::Store(e.to_string())
        })
    }

    /// All that `bytes` hold, which are whole.
    ///
    /// # Errors
    /// What they hold is of no version that this Qbox knows.
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, String> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let (record, rest) =
                postcard::take_from_bytes(bytes).map_err(|e| format!("a record can't be read: {e}"))?;
            records.push(record);
            bytes = rest;
        }
        Ok(records)
    }
}

/// Events of a saga, one behind the other, as JSON with commas between.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Chunk<'a> {
    pub(super) count: u64,
    pub(super) text: Cow<'a, str>,
}

impl Chunk<'_> {
    /// # Errors
    /// There would be more events of the saga than are kept of one.
    pub(super) fn of(saga: SagaId, first: u64, events: &[Event]) -> Result<Chunk<'static>, JournalError> {
        let count = events.len() as u64;
        if first.saturating_add(count) > codec::EVENTS {
            return Err(JournalError::Store(format!(
                "saga {saga} has {first} events, and the journal keeps {} of one",
                codec::EVENTS
            )));
        }
        let mut text = Vec::with_capacity(256 * events.len());
        for event in events {
            if !text.is_empty() {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, event).map_err(|e| JournalError::Store(e.to_string()))?;
        }
        let text = String::from_utf8(text).map_err(|e| JournalError::Store(e.to_string()))?;
        Ok(Chunk {
            count,
            text: text.into(),
        })
    }

    /// As a row has it: a JSON array.
    pub(super) fn array(&self) -> String {
        format!("[{}]", self.text)
    }

    pub(super) fn push(&mut self, more: Chunk<'_>) {
        if self.count == 0 {
            self.text = more.text.into_owned().into();
        } else {
            let text = self.text.to_mut();
            text.reserve(1 + more.text.len());
            text.push(',');
            text.push_str(&more.text);
        }
        self.count += more.count;
    }
}
