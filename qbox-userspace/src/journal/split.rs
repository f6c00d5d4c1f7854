//! Two journals as one: on disk for the sagas that are to survive, in memory for those whose plan says `durability = "none"`.
//!
//! Which of the two a saga is in is decided at its beginning, by its plan. Knows nothing else of plans. Errors: those of the
//! two; what fails on disk is no failure of a saga in memory, but of the whole it is.

use super::{
    Durable, History, Journal, JournalError, Load, Memory, Outline, Page, Pending, Place, Position, Query,
};
use crate::saga::{Durability, Event, Plan, PlanHash, SagaId};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug)]
pub struct Split {
    disk: Durable,
    memory: Memory,
    /// The plans whose sagas stay in memory: no more than there have been such definitions.
    fleeting: Mutex<HashSet<PlanHash>>,
}

impl Split {
    /// One journal of these.
    #[must_use]
    pub fn new(disk: Durable, memory: Memory) -> Self {
        Self {
            disk,
            memory,
            fleeting: Mutex::default(),
        }
    }

    fn fleeting(&self) -> MutexGuard<'_, HashSet<PlanHash>> {
        self.fleeting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_in_memory(&self, plan: PlanHash) -> bool {
        self.fleeting().contains(&plan)
    }

    fn of_plan(&self, plan: PlanHash) -> &dyn Journal {
        match self.is_in_memory(plan) {
            true => &self.memory,
            false => &self.disk,
        }
    }

    fn of(&self, saga: SagaId) -> &dyn Journal {
        match self.memory.holds(saga) {
            true => &self.memory,
            false => &self.disk,
        }
    }
}

impl Journal for Split {
    fn append(&self, saga: SagaId, first: u64, events: &[Event]) -> Result<Position, JournalError> {
        self.append_shared(saga, first, &Arc::new(events.to_vec()))
    }

    fn append_shared(
        &self,
        saga: SagaId,
        first: u64,
        events: &Arc<Vec<Event>>,
    ) -> Result<Position, JournalError> {
        let in_memory = match events.first() {
            Some(Event::Began { plan, .. }) => self.is_in_memory(*plan),
            _ => self.memory.holds(saga),
        };
        match in_memory {
            // Places in memory are none on disk: what is there is as durable as it will ever be.
            true => self
                .memory
                .append_shared(saga, first, events)
                .map(|_| Position::default()),
            false => self.disk.append_shared(saga, first, events),
        }
    }

    fn durable(&self, position: Position) -> Pending<'_, Result<(), JournalError>> {
        match position == Position::default() {
            true => self.memory.durable(position),
            false => self.disk.durable(position),
        }
    }

    fn store_plan(&self, hash: PlanHash, plan: &Arc<Plan>) -> Result<(), JournalError> {
        match plan.durability {
            Durability::Disk => self.disk.store_plan(hash, plan),
            Durability::None => {
                self.fleeting().insert(hash);
                self.memory.store_plan(hash, plan)
            }
        }
    }

    fn plan(&self, hash: PlanHash) -> Result<Option<Arc<Plan>>, JournalError> {
        self.of_plan(hash).plan(hash)
    }

    fn plans(&self) -> Result<Vec<PlanHash>, JournalError> {
        let mut plans = self.disk.plans()?;
        plans.extend(self.memory.plans()?);
        Ok(plans)
    }

    fn finish(&self, ended: Outline) {
        self.of(ended.id).finish(ended);
    }

    fn history(&self, saga: SagaId) -> Result<Option<Vec<Event>>, JournalError> {
        self.of(saga).history(saga)
    }

    fn open(&self) -> Box<dyn Iterator<Item = Result<History, JournalError>> + Send + '_> {
        Box::new(self.disk.open().chain(self.memory.open()))
    }

    fn ended(&self, saga: SagaId) -> Result<Option<Outline>, JournalError> {
        self.of(saga).ended(saga)
    }

    fn ended_with(&self, key: &[u8; 32]) -> Result<Option<(SagaId, [u8; 32])>, JournalError> {
        let (disk, memory) = (self.disk.ended_with(key)?, self.memory.ended_with(key)?);
        // The youngest, should the definition have changed from the one to the other.
        Ok(disk.max(memory))
    }

    fn children(&self, of: SagaId) -> Result<Vec<Outline>, JournalError> {
        let mut children = self.disk.children(of)?;
        children.extend(self.memory.children(of)?);
        children.sort_by_key(|child| child.id);
        Ok(children)
    }

    fn reopen(&self, saga: SagaId) -> Result<(), JournalError> {
        self.of(saga).reopen(saga)
    }

    fn may_have_dropped(&self, saga: SagaId) -> bool {
        self.disk.may_have_dropped(saga) || self.memory.may_have_dropped(saga)
    }

    fn list(&self, query: &Query, page: &Page) -> Result<Vec<Outline>, JournalError> {
        let mut sagas = self.disk.list(query, page)?;
        sagas.extend(self.memory.list(query, page)?);
        page.cut(&mut sagas, |saga| {
            Place::new(page.sort, saga.id, Some(saga.ended), &saga.name)
        });
        Ok(sagas)
    }

    fn load(&self) -> Load {
        self.disk.load()
    }

    fn failure(&self) -> Option<String> {
        self.disk.failure()
    }

    fn close(&self) {
        self.disk.close();
        self.memory.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Retention, durable, plan_hash};
    use crate::saga::{Request, SCHEMA, Timestamp, Trigger};

    fn plan(durability: &str) -> (Arc<Plan>, PlanHash) {
        let text = format!(
            "name = \"x\"\n{durability}\n[trigger]\nurl = \"http://a/{{id}}\"\n[[step]]\nname = \"s\"\n\
             request = {{ method = \"PUT\", url = \"http://b/\" }}\n\
             [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"http://b/\" }}\n"
        );
        let (plan, _) = crate::config::load_saga(&text, "x.toml").unwrap();
        let hash = plan_hash(&plan).unwrap();
        (Arc::new(plan), hash)
    }

    fn began(saga: SagaId, plan: PlanHash) -> Event {
        Event::Began {
            schema: SCHEMA,
            saga,
            plan,
            name: "x".to_owned(),
            seed: 0,
            trigger: Trigger {
                request: Request {
                    method: "POST".to_owned(),
                    url: "http://a/1".to_owned(),
                    headers: crate::saga::Headers::default(),
                    body: "".into(),
                },
                path: Vec::new(),
                destination: None,
                http2: false,
                depth: 0,
            },
            hidden: Default::default(),
            at: Timestamp(1),
        }
    }

    #[tokio::test]
    async fn only_what_is_to_survive_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Durable::open(folder.path(), durable::Settings::default()).unwrap();
        let journal = Split::new(open(), Memory::new(Retention::default()));
        let (kept, fleeting) = (plan(""), plan("durability = \"none\""));
        assert_eq!(
            plan("durability = \"disk\"").1,
            kept.1,
            "the default changes no hash"
        );
        let (a, b) = (SagaId(1), SagaId(2));
        for (saga, (plan, hash)) in [(a, &kept), (b, &fleeting)] {
            journal.store_plan(*hash, plan).unwrap();
            let position = journal.append(saga, 0, &[began(saga, *hash)]).unwrap();
            journal.durable(position).await.unwrap();
            journal
                .append(saga, 1, &[Event::Compensating { at: Timestamp(2) }])
                .unwrap();
            assert_eq!(journal.history(saga).unwrap().unwrap().len(), 2);
            assert_eq!(journal.plan(*hash).unwrap().as_ref(), Some(plan));
        }
        let found: Vec<SagaId> = journal.open().map(|history| history.unwrap().saga).collect();
        assert_eq!(found, [a, b]);
        drop(journal);
        let journal = open();
        assert_eq!(journal.history(a).unwrap().unwrap().len(), 2);
        assert_eq!(journal.history(b).unwrap(), None);
        assert_eq!(journal.plan(fleeting.1).unwrap(), None);
    }
}
