//! The newest records: so many at the most, and so many bytes.

use super::record::Entry;
use crate::saga::SagaId;
use std::collections::VecDeque;
use std::sync::Arc;

/// About how many bytes all records together may have.
pub const BYTES: usize = 16 << 20;

/// Oldest first.
#[derive(Debug)]
pub(super) struct Ring {
    /// With the bytes that each is counted with.
    entries: VecDeque<(Arc<Entry>, usize)>,
    most: usize,
    bytes: usize,
    dropped: u64,
}

impl Ring {
    pub(super) fn new(most: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            most,
            bytes: 0,
            dropped: 0,
        }
    }

    /// Adds what `make` makes; `None`: nothing is kept here.
    pub(super) fn push(&mut self, make: impl FnOnce() -> Entry) -> Option<Arc<Entry>> {
        if self.most == 0 {
            return None;
        }
        let entry = Arc::new(make());
        let bytes = entry.bytes();
        self.entries.push_back((Arc::clone(&entry), bytes));
        self.bytes += bytes;
        self.cut();
        Some(entry)
    }

    /// A record has grown by so many bytes.
    pub(super) fn grown(&mut self, id: SagaId, by: usize) {
        let place = self.entries.binary_search_by_key(&id, |(entry, _)| entry.id());
        if let Ok(place) = place
            && let Some((_, bytes)) = self.entries.get_mut(place)
        {
            *bytes += by;
            self.bytes += by;
            self.cut();
        }
    }

    /// Lets the oldest go, until what is left may stay.
    fn cut(&mut self) {
        while self.entries.len() > self.most || (self.bytes > BYTES && self.entries.len() > 1) {
            if let Some((_, bytes)) = self.entries.pop_front() {
                self.bytes = self.bytes.saturating_sub(bytes);
                self.dropped += 1;
            }
        }
    }

    pub(super) fn get(&self, id: SagaId) -> Option<Arc<Entry>> {
        let place = self.entries.binary_search_by_key(&id, |(entry, _)| entry.id());
        let (entry, _) = self.entries.get(place.ok()?)?;
        Some(Arc::clone(entry))
    }

    pub(super) fn youngest(
        &self,
        name: Option<&str>,
        before: Option<SagaId>,
        limit: usize,
    ) -> Vec<Arc<Entry>> {
        let entries = self.entries.iter().rev().map(|(entry, _)| entry);
        entries
            .filter(|entry| before.is_none_or(|before| entry.id() < before))
            .filter(|entry| name.is_none_or(|name| entry.name() == name))
            .take(limit)
            .cloned()
            .collect()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
