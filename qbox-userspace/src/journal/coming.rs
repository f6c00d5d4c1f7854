//! A journal that is not there yet: another process has it, and will let go of it. Until then nothing is taken. Errors:
//! [`JournalError::Store`] until then, afterwards the journal's own.

use super::{History, Journal, JournalError, Load, Outline, Page, Pending, Position, Query};
use crate::saga::{Event, Plan, PlanHash, SagaId};
use std::sync::{Arc, OnceLock};

/// See the module.
#[derive(Default)]
pub struct Coming(OnceLock<Arc<dyn Journal>>);

impl std::fmt::Debug for Coming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Coming").field(&self.0.get().is_some()).finish()
    }
}

impl Coming {
    /// It is there. A second one is not taken.
    pub fn came(&self, journal: Arc<dyn Journal>) {
        drop(self.0.set(journal));
    }

    fn journal(&self) -> Result<&dyn Journal, JournalError> {
        let there = self.0.get().map(|journal| &**journal);
        there.ok_or_else(|| JournalError::Store("another Qbox still has it".to_owned()))
    }
}

impl Journal for Coming {
    fn append(&self, saga: SagaId, first: u64, events: &[Event]) -> Result<Position, JournalError> {
        self.journal()?.append(saga, first, events)
    }

    fn append_shared(
        &self,
        saga: SagaId,
        first: u64,
        events: &Arc<Vec<Event>>,
    ) -> Result<Position, JournalError> {
        self.journal()?.append_shared(saga, first, events)
    }

    fn durable(&self, position: Position) -> Pending<'_, Result<(), JournalError>> {
        match self.journal() {
            Ok(journal) => journal.durable(position),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn store_plan(&self, hash: PlanHash, plan: &Arc<Plan>) -> Result<(), JournalError> {
        self.journal()?.store_plan(hash, plan)
    }

    fn plan(&self, hash: PlanHash) -> Result<Option<Arc<Plan>>, JournalError> {
        self.journal()?.plan(hash)
    }

    fn plans(&self) -> Result<Vec<PlanHash>, JournalError> {
        self.journal()?.plans()
    }

    fn finish(&self, ended: Outline) {
        if let Ok(journal) = self.journal() {
            journal.finish(ended);
        }
    }

    fn history(&self, saga: SagaId) -> Result<Option<Vec<Event>>, JournalError> {
        self.journal()?.history(saga)
    }

    fn open(&self) -> Box<dyn Iterator<Item = Result<History, JournalError>> + Send + '_> {
        match self.journal() {
            Ok(journal) => journal.open(),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn ended(&self, saga: SagaId) -> Result<Option<Outline>, JournalError> {
        self.journal()?.ended(saga)
    }

    fn ended_with(&self, key: &[u8; 32]) -> Result<Option<(SagaId, [u8; 32])>, JournalError> {
        self.journal()?.ended_with(key)
    }

    fn children(&self, of: SagaId) -> Result<Vec<Outline>, JournalError> {
        self.journal()?.children(of)
    }

    fn reopen(&self, saga: SagaId) -> Result<(), JournalError> {
        self.journal()?.reopen(saga)
    }

    fn may_have_dropped(&self, saga: SagaId) -> bool {
        // Of one that can't be asked anything may be true.
        !self
            .journal()
            .is_ok_and(|journal| !journal.may_have_dropped(saga))
    }

    fn list(&self, query: &Query, page: &Page) -> Result<Vec<Outline>, JournalError> {
        self.journal()?.list(query, page)
    }

    fn load(&self) -> Load {
        self.journal().map(|journal| journal.load()).unwrap_or_default()
    }

    fn failure(&self) -> Option<String> {
        self.journal().ok()?.failure()
    }

    fn close(&self) {
        if let Ok(journal) = self.journal() {
            journal.close();
        }
    }
}
