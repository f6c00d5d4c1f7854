//! How well a list and its watch go: told by whoever follows them, asked by whoever looks on.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One kind of object's.
#[derive(Debug)]
pub(super) struct Link {
    what: &'static str,
    away: Mutex<Option<Away>>,
    lists: AtomicU64,
    watches: AtomicU64,
    events: AtomicU64,
    expired: AtomicU64,
    failures: AtomicU64,
}

#[derive(Clone, Debug)]
struct Away {
    since: Instant,
    why: String,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lists that were read.
    pub lists: u64,
    /// Watches that began.
    pub watches: u64,
    /// Events that they told, bookmarks too.
    pub events: u64,
    /// Watches that could not go on from where the one before had ended (410), so that all was listed again.
    pub expired: u64,
    /// Lists and watches that failed.
    pub failures: u64,
}

impl Counts {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            lists: self.lists + other.lists,
            watches: self.watches + other.watches,
            events: self.events + other.events,
            expired: self.expired + other.expired,
            failures: self.failures + other.failures,
        }
    }
}

impl Link {
    /// Of objects that are called so.
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            // Until the first list.
            away: Mutex::new(Some(Away {
                since: Instant::now(),
                why: "it has not answered yet".to_owned(),
            })),
            lists: AtomicU64::new(0),
            watches: AtomicU64::new(0),
            events: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    pub(super) fn listed(&self, count: usize) {
        let first = self.lists.fetch_add(1, Relaxed) == 0;
        if first {
            tracing::info!(count, "the Kubernetes API has listed {}", self.what);
        }
        self.answered();
    }

    pub(super) fn watching(&self) {
        self.watches.fetch_add(1, Relaxed);
        self.answered();
    }

    pub(super) fn event(&self) {
        self.events.fetch_add(1, Relaxed);
    }

    pub(super) fn expired(&self) {
        self.expired.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self, why: String) {
        self.failures.fetch_add(1, Relaxed);
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.failures.load(Relaxed) == 1 && self.lists.load(Relaxed) == 0;
        // Once each time.
        if away.is_none() || first {
            tracing::warn!(
                error = why,
                "the Kubernetes API does not tell of {}: what was known stays",
                self.what
            );
        }
        match &mut *away {
            Some(away) => away.why = why,
            None => {
                let since = Instant::now();
                *away = Some(Away { since, why });
            }
        }
    }

    fn answered(&self) {
        let before = self.away.lock().unwrap_or_else(PoisonError::into_inner).take();
        if before.is_some() && self.failures.load(Relaxed) > 0 {
            tracing::info!("the Kubernetes API tells of {} again", self.what);
        }
    }

    /// For how long it has not answered, and why.
    pub(super) fn away(&self) -> Option<(Duration, String)> {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner).clone();
        away.map(|Away { since, why }| (since.elapsed(), format!("{}: {why}", self.what)))
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            lists: self.lists.load(Relaxed),
            watches: self.watches.load(Relaxed),
            events: self.events.load(Relaxed),
            expired: self.expired.load(Relaxed),
            failures: self.failures.load(Relaxed),
        }
    }
}
