//! A journal in this process's memory: durable for as long as the process lives. Bounded in sagas and in bytes.

use super::{History, Journal, JournalError, Outline, Page, Pending, Place, Position, Query};
use crate::saga::{AttemptEnd, Event, Headers, Plan, PlanHash, SagaId};
use foldhash::HashMap;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Sagas that have not ended; another is refused.
    pub open: usize,
    /// Sagas that have; past it the oldest go.
    pub finished: usize,
    /// Bytes of the finished ones' histories, about; past it the oldest go.
    pub bytes: usize,
    /// How long a finished one is kept at most.
    pub age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            open: 10_000,
            finished: 10_000,
            bytes: 64 * 1024 * 1024,
            age: Duration::from_secs(24 * 3600),
        }
    }
}

/// The in-memory journal.
#[derive(Debug)]
pub struct Memory {
    retention: Retention,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sagas: HashMap<SagaId, Kept>,
    open: usize,
    finished: VecDeque<(SagaId, Instant)>,
    finished_bytes: usize,
    keys: HashMap<[u8; 32], SagaId>,
    plans: HashMap<PlanHash, Arc<Plan>>,
    next: u64,
    /// The youngest that has been dropped.
    dropped: Option<SagaId>,
}

#[derive(Debug, Default)]
struct Kept {
    /// As they were appended, and how many they are.
    appended: Vec<Arc<Vec<Event>>>,
    count: u64,
    bytes: usize,
    ended: Option<Outline>,
}

impl Kept {
    fn events(&self) -> impl Iterator<Item = &Event> {
        self.appended.iter().flat_map(|events| events.iter())
    }

    /// How it ended, and under which plan it ran.
    fn ended(&self) -> Option<(&Outline, PlanHash)> {
        let Some(Event::Began { plan, .. }) = self.events().next() else {
            return None;
        };
        Some((self.ended.as_ref()?, *plan))
    }
}

impl Memory {
    /// An empty journal.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        Self {
            retention,
            state: Mutex::default(),
        }
    }

    /// Whether it has this saga.
    #[must_use]
    pub fn holds(&self, saga: SagaId) -> bool {
        self.state().sagas.contains_key(&saga)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn evict(&mut self, retention: &Retention, now: Instant) {
        while let Some((saga, ended)) = self.finished.front() {
            let too_many = self.finished.len() > retention.finished || self.finished_bytes > retention.bytes;
            if !too_many && now.saturating_duration_since(*ended) <= retention.age {
                return;
            }
            self.dropped = self.dropped.max(Some(*saga));
            if let Some(kept) = self.sagas.remove(saga) {
                self.finished_bytes = self.finished_bytes.saturating_sub(kept.bytes);
                if let Some(stamp) = kept.ended.and_then(|ended| ended.stamp)
                    && self.keys.get(&stamp.key) == Some(saga)
                {
                    self.keys.remove(&stamp.key);
                }
            }
            self.finished.pop_front();
        }
    }
}

impl Journal for Memory {
    fn append(&self, saga: SagaId, first: u64, events: &[Event]) -> Result<Position, JournalError> {
        self.append_shared(saga, first, &Arc::new(events.to_vec()))
    }

    fn append_shared(
        &self,
        saga: SagaId,
        first: u64,
        events: &Arc<Vec<Event>>,
    ) -> Result<Position, JournalError> {
        let count = events.len() as u64;
        let bytes: usize = events.iter().map(weight).sum();
        let mut guard = self.state();
        let state = &mut *guard;
        let kept = match state.sagas.entry(saga) {
            Entry::Occupied(kept) => kept.into_mut(),
            // The oldest go when one ends.
            Entry::Vacant(_) if first == 0 && state.open >= self.retention.open => {
                return Err(JournalError::Full);
            }
            Entry::Vacant(free) if first == 0 => {
                state.open += 1;
                free.insert(Kept::default())
            }
            Entry::Vacant(_) => return Err(JournalError::Order { saga, first, have: 0 }),
        };
        let have = kept.count;
        if have != first || kept.ended.is_some() {
            return Err(JournalError::Order { saga, first, have });
        }
        kept.bytes += bytes;
        kept.count += count;
        kept.appended.push(Arc::clone(events));
        state.next += count;
        Ok(Position(state.next))
    }

    fn durable(&self, _: Position) -> Pending<'_, Result<(), JournalError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn store_plan(&self, hash: PlanHash, plan: &Arc<Plan>) -> Result<(), JournalError> {
        self.state().plans.entry(hash).or_insert_with(|| Arc::clone(plan));
        Ok(())
    }

    fn plan(&self, hash: PlanHash) -> Result<Option<Arc<Plan>>, JournalError> {
        Ok(self.state().plans.get(&hash).cloned())
    }

    fn plans(&self) -> Result<Vec<PlanHash>, JournalError> {
        Ok(self.state().plans.keys().copied().collect())
    }

    fn finish(&self, ended: Outline) {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(kept) = state.sagas.get_mut(&ended.id).filter(|k| k.ended.is_none()) else {
            return;
        };
        if let Some(stamp) = &ended.stamp {
            state.keys.insert(stamp.key, ended.id);
        }
        state.finished_bytes += kept.bytes;
        state.open = state.open.saturating_sub(1);
        state.finished.push_back((ended.id, now));
        kept.ended = Some(ended);
        state.evict(&self.retention, now);
    }

    fn history(&self, saga: SagaId) -> Result<Option<Vec<Event>>, JournalError> {
        Ok(self
            .state()
            .sagas
            .get(&saga)
            .map(|kept| kept.events().cloned().collect()))
    }

    fn open(&self) -> Box<dyn Iterator<Item = Result<History, JournalError>> + Send + '_> {
        let state = self.state();
        let mut open: Vec<History> = state
            .sagas
            .iter()
            .filter(|(_, kept)| kept.ended.is_none())
            .map(|(saga, kept)| History {
                saga: *saga,
                events: kept.events().cloned().collect(),
            })
            .collect();
        open.sort_by_key(|history| history.saga); // Ids of version 7 sort by time.
        Box::new(open.into_iter().map(Ok))
    }

    fn ended(&self, saga: SagaId) -> Result<Option<Outline>, JournalError> {
        Ok(self.state().sagas.get(&saga).and_then(|kept| kept.ended.clone()))
    }

    fn ended_with(&self, key: &[u8; 32]) -> Result<Option<(SagaId, [u8; 32])>, JournalError> {
        let state = self.state();
        let found = state.keys.get(key).and_then(|saga| {
            let stamp = state.sagas.get(saga)?.ended.as_ref()?.stamp?;
            Some((*saga, stamp.payload))
        });
        Ok(found)
    }

    fn children(&self, of: SagaId) -> Result<Vec<Outline>, JournalError> {
        let state = self.state();
        let ended = state.sagas.values().filter_map(|kept| kept.ended.as_ref());
        let of_it = |saga: &&Outline| saga.parent.as_ref().is_some_and(|parent| parent.saga == of);
        let mut children: Vec<Outline> = ended.filter(of_it).cloned().collect();
        children.sort_by_key(|child| child.id);
        Ok(children)
    }

    fn reopen(&self, saga: SagaId) -> Result<(), JournalError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let ended = |kept: &mut Kept| Some((kept.bytes, kept.ended.take()?));
        let Some((bytes, ended)) = state.sagas.get_mut(&saga).and_then(ended) else {
            let cause = "it is not there, or has not ended".to_owned();
            return Err(JournalError::Record { saga, cause });
        };
        state.open += 1;
        state.finished.retain(|(of, _)| *of != saga);
        state.finished_bytes = state.finished_bytes.saturating_sub(bytes);
        if let Some(stamp) = ended.stamp
            && state.keys.get(&stamp.key) == Some(&saga)
        {
            state.keys.remove(&stamp.key);
        }
        Ok(())
    }

    fn may_have_dropped(&self, saga: SagaId) -> bool {
        self.state().dropped.is_some_and(|dropped| saga <= dropped)
    }

    fn list(&self, query: &Query, page: &Page) -> Result<Vec<Outline>, JournalError> {
        let state = self.state();
        let mut ended: Vec<&Outline> = state
            .sagas
            .values()
            .filter_map(Kept::ended)
            .filter(|(saga, plan)| query.admits(saga, *plan))
            .map(|(saga, _)| saga)
            .collect();
        page.cut(&mut ended, |saga| {
            Place::new(page.sort, saga.id, Some(saga.ended), &saga.name)
        });
        Ok(ended.into_iter().cloned().collect())
    }
}

/// About how many bytes an event takes.
fn weight(event: &Event) -> usize {
    let headers =
        |headers: &Headers| -> usize { headers.0.iter().map(|(n, v)| 64 + n.len() + v.len()).sum() };
    std::mem::size_of::<Event>()
        + match event {
            Event::Began { trigger, .. } => {
                let request = &trigger.request;
                request.url.len() + headers(&request.headers) + request.body.len()
            }
            Event::Ended {
                end: AttemptEnd::Answered(response),
                ..
            } => headers(&response.headers) + response.body.len(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::{Request, SagaState, StepId, Timestamp, Trigger};

    fn began(saga: SagaId, body: usize) -> Event {
        Event::Began {
            schema: crate::saga::SCHEMA,
            saga,
            plan: PlanHash([0; 32]),
            name: "x".to_owned(),
            seed: 0,
            trigger: Trigger {
                request: Request {
                    method: "POST".to_owned(),
                    url: "http://a/".to_owned(),
                    headers: Headers::default(),
                    body: vec![0; body].into(),
                },
                path: Vec::new(),
                destination: None,
                http2: false,
                depth: 0,
            },
            at: Timestamp(0),
            hidden: None,
        }
    }

    fn ended(saga: SagaId) -> Outline {
        Outline {
            id: saga,
            name: "x".to_owned(),
            state: SagaState::Committed,
            began: Timestamp(0),
            ended: Timestamp(1),
            failed_step: None,
            cause: None,
            replied: None,
            parent: None,
            revoked: false,
            stamp: Some(crate::journal::Stamp {
                key: [7; 32],
                payload: [0; 32],
            }),
        }
    }

    fn skipped() -> Event {
        Event::Skipped {
            step: StepId(0),
            at: Timestamp(1),
        }
    }

    #[tokio::test]
    async fn appends_in_order_and_only_in_order() {
        let journal = Memory::new(Retention::default());
        let (a, b) = (SagaId(1), SagaId(2));
        let first = journal.append(a, 0, &[began(a, 0)]).unwrap();
        let second = journal.append(b, 0, &[began(b, 0)]).unwrap();
        assert!(second > first);
        journal.append(a, 1, &[skipped(), skipped()]).unwrap();
        journal.durable(second).await.unwrap();
        let error = journal.append(a, 1, &[skipped()]).unwrap_err();
        assert_eq!(
            error,
            JournalError::Order {
                saga: a,
                first: 1,
                have: 3
            }
        );
        assert_eq!(journal.history(a).unwrap().unwrap().len(), 3);
        journal.finish(ended(a));
        assert!(journal.append(a, 3, &[skipped()]).is_err(), "it has ended");
        let open: Vec<_> = journal.open().map(|h| h.unwrap().saga).collect();
        assert_eq!(open, [b]);
    }

    #[test]
    fn open_sagas_are_bounded_and_old_ones_go() {
        let journal = Memory::new(Retention {
            open: 2,
            finished: 2,
            bytes: 100_000,
            ..Retention::default()
        });
        for id in 1..=4 {
            let id = SagaId(id);
            journal.append(id, 0, &[began(id, 5_000)]).unwrap();
            journal.finish(ended(id));
        }
        assert!(journal.history(SagaId(2)).unwrap().is_none());
        assert!(journal.history(SagaId(3)).unwrap().is_some());
        assert_eq!(journal.ended(SagaId(2)).unwrap(), None);
        assert_eq!(
            journal.ended_with(&[7; 32]).unwrap(),
            Some((SagaId(4), [0; 32])),
            "the youngest's"
        );
        let big = SagaId(5);
        journal.append(big, 0, &[began(big, 97_000)]).unwrap();
        journal.finish(ended(big));
        assert!(journal.history(SagaId(4)).unwrap().is_none(), "bytes count too");
        assert!(journal.history(big).unwrap().is_some());
        for id in [6, 7] {
            journal.append(SagaId(id), 0, &[began(SagaId(id), 0)]).unwrap();
        }
        let refused = journal.append(SagaId(8), 0, &[began(SagaId(8), 0)]);
        assert_eq!(refused, Err(JournalError::Full));
    }
}
