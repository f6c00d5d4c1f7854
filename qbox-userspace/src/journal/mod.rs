//! Where sagas' events are kept: the trait that the runner drives; [`Durable`], which keeps them on local disk; and
//! [`Memory`], which keeps them in this process.
//!
//! Append-only, per saga, numbered from 0. An append takes its place in the order at once and becomes durable later:
//! the runner awaits [`Journal::durable`] before what must not run ahead of it, and nowhere else. Knows events and plans, no
//! HTTP and no machine. Errors: [`JournalError`]; after one, the saga in question is to be halted, not gone on with in memory.

mod coming;
pub mod durable;
mod list;
mod memory;
mod split;

pub use coming::Coming;
pub use durable::{Durable, OpenError};
pub use list::{Outline, Page, Place, Query, Sort, Stamp};
pub use memory::{Memory, Retention};
pub use split::Split;

use crate::durations::Durations;
use crate::saga::{Event, Plan, PlanHash, SagaId};
use sha2::{Digest, Sha256};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A place in the order of all appends of one journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// What a journal can't do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// As many sagas are open as it takes. Only the first append of a saga meets this.
    #[error("the journal has no room for another saga")]
    Full,
    /// The events don't follow on what is there: a second writer, or a bug.
    #[error("events of saga {saga} from number {first} on don't follow the {have} that are there")]
    Order {
        /// Of which saga.
        saga: SagaId,
        /// The number that the first appended event claims.
        first: u64,
        /// How many events the journal has.
        have: u64,
    },
    /// One saga's records are damaged, or can't be understood. The others are as they were.
    #[error("the history of saga {saga} can't be read: {cause}")]
    Record {
        /// Whose.
        saga: SagaId,
        /// What is wrong with it.
        cause: String,
    },
    /// The store can't be read just now.
    #[error("the journal can't be read: {0}")]
    Read(String),
    /// The store says so.
    #[error("the journal can't be written: {0}")]
    Store(String),
}

/// What a journal on disk has done, and has still to do.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Events that were appended.
    pub events: u64,
    /// Syncs of the disk.
    pub syncs: u64,
    /// About how many bytes in memory wait to be written.
    pub queued_bytes: usize,
    /// Bytes on disk.
    pub size: u64,
    /// How long those took that somebody waited for, with what was written before them.
    pub commits: Durations,
}

/// A future that a trait object can give back.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One saga's history, as recovery reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// Whose.
    pub saga: SagaId,
    /// All of its events, in order; the first is [`Event::Began`].
    pub events: Vec<Event>,
}

/// An append-only store of sagas' events.
pub trait Journal: Send + Sync + 'static {
    /// Appends `events` to `saga`, the first of them as number `first`. All or none of them are taken.
    ///
    /// # Errors
    /// [`JournalError::Full`] for a new saga, [`JournalError::Order`], or the store's.
    fn append(&self, saga: SagaId, first: u64, events: &[Event]) -> Result<Position, JournalError>;

    /// As [`Journal::append`]; a journal in memory keeps the events themselves and no copy of them.
    ///
    /// # Errors
    /// As [`Journal::append`].
    fn append_shared(
        &self,
        saga: SagaId,
        first: u64,
        events: &Arc<Vec<Event>>,
    ) -> Result<Position, JournalError> {
        self.append(saga, first, events)
    }

    /// Waits until everything up to `position` would survive a crash.
    fn durable(&self, position: Position) -> Pending<'_, Result<(), JournalError>>;

    /// Keeps a plan for the sagas that begin under it; once per hash, before the first of them.
    ///
    /// # Errors
    /// The store's.
    fn store_plan(&self, hash: PlanHash, plan: &Arc<Plan>) -> Result<(), JournalError>;

    /// A plan that was stored.
    ///
    /// # Errors
    /// The store's.
    fn plan(&self, hash: PlanHash) -> Result<Option<Arc<Plan>>, JournalError>;

    /// The plans that are kept.
    ///
    /// # Errors
    /// The store's.
    fn plans(&self) -> Result<Vec<PlanHash>, JournalError>;

    /// Says that a saga has ended for good: nothing more will be appended, and it may be dropped in time. Until then it is
    /// found by its outline.
    fn finish(&self, ended: Outline);

    /// All events of `saga`, if they are still kept.
    ///
    /// # Errors
    /// The store's.
    fn history(&self, saga: SagaId) -> Result<Option<Vec<Event>>, JournalError>;

    /// The sagas that have not ended (or not been said to have, see [`Journal::finish`]), oldest first: what a restart has to
    /// take up.
    ///
    /// An item is an error where that one can't be read; the rest follow.
    fn open(&self) -> Box<dyn Iterator<Item = Result<History, JournalError>> + Send + '_>;

    /// A saga that has ended and is still kept.
    ///
    /// # Errors
    /// The store's.
    fn ended(&self, saga: SagaId) -> Result<Option<Outline>, JournalError>;

    /// The youngest saga that has ended, is still kept, and whose trigger had this key; and that trigger's payload.
    ///
    /// # Errors
    /// The store's.
    fn ended_with(&self, key: &[u8; 32]) -> Result<Option<(SagaId, [u8; 32])>, JournalError>;

    /// The sagas that have ended, are still kept, and were begun for a step of that one, oldest first.
    ///
    /// # Errors
    /// The store's.
    fn children(&self, of: SagaId) -> Result<Vec<Outline>, JournalError>;

    /// Takes back [`Journal::finish`]: the saga goes on, and further events are appended to it.
    ///
    /// # Errors
    /// It is not there, or the store's.
    fn reopen(&self, saga: SagaId) -> Result<(), JournalError>;

    /// Whether a saga that is not there may have ended and been dropped since. `false`: it never began.
    fn may_have_dropped(&self, saga: SagaId) -> bool;

    /// Of the sagas that have ended and are still kept, those that `query` admits. One that has ended just now may be missing.
    /// It may take some 100 ms.
    ///
    /// # Errors
    /// The store's.
    fn list(&self, query: &Query, page: &Page) -> Result<Vec<Outline>, JournalError>;

    /// What it has done since it was opened, and has still to do. One that writes to no disk has nothing to tell.
    fn load(&self) -> Load {
        Load::default()
    }

    /// Why it takes nothing any more, once that is so.
    fn failure(&self) -> Option<String> {
        None
    }

    /// Writes what is queued and lets go of the store, for another process to open. Nothing is taken or told any more. It
    /// may wait for the disk.
    fn close(&self) {}
}

/// A plan's content hash: SHA-256 of its JSON form, which is the form it is stored in.
///
/// # Errors
/// The plan can't be put in JSON (which is a bug; it is said rather than a wrong hash given).
pub fn plan_hash(plan: &Plan) -> Result<PlanHash, JournalError> {
    let json = serde_json::to_vec(plan).map_err(|e| JournalError::Store(e.to_string()))?;
    Ok(PlanHash(Sha256::digest(&json).into()))
}
