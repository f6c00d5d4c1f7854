//! A journal in this process's memory: durable for as long as the process lives. Bounded in sagas and in bytes.

use super::{History, Journal, JournalError, Outline, Page, Pending, Place, Position, Query};
use crate::saga::{Event, Plan, PlanHash, SagaId};
use foldhash::HashMap;
use serde::Serialize;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Room for a usual history, packed.
const PACKED: usize = 4096;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Sagas that have not ended; another is refused.
    pub open: usize,
    /// Sagas that have; past it the oldest go.
    pub finished: usize,
    /// Bytes of the finished ones' histories; past it the oldest go.
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
    open: HashMap<SagaId, Open>,
    /// Those that have ended, in the order of that; and the number of the first. `None`: it was taken up again.
    finished: VecDeque<Option<Finished>>,
    first: u64,
    /// Their numbers.
    places: HashMap<SagaId, u64>,
    finished_bytes: usize,
    keys: HashMap<[u8; 32], SagaId>,
    plans: HashMap<PlanHash, Arc<Plan>>,
    next: u64,
    /// The youngest that has been dropped.
    dropped: Option<SagaId>,
}

/// A saga that has not ended.
#[derive(Debug, Default)]
struct Open {
    /// Its events as they were appended, and how many they are.
    appended: Vec<Arc<Vec<Event>>>,
    count: u64,
}

impl Open {
    fn events(&self) -> impl Iterator<Item = &Event> {
        self.appended.iter().flat_map(|events| events.iter())
    }
}

/// A saga that has.
#[derive(Debug)]
struct Finished {
    at: Instant,
    count: u64,
    plan: PlanHash,
    packed: Packed,
    outline: Outline,
}

/// A history in one block: thousands are kept, and in the processor's cache there is room for what is in hand.
#[derive(Debug)]
struct Packed(Box<[u8]>);

impl Packed {
    fn of(appended: &[Arc<Vec<Event>>]) -> Result<Self, String> {
        let mut bytes = Vec::with_capacity(PACKED);
        let events: Vec<&Event> = appended.iter().flat_map(|events| events.iter()).collect();
        let mut to = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
        events.serialize(&mut to).map_err(|error| error.to_string())?;
        Ok(Self(bytes.into_boxed_slice()))
    }

    fn events(&self, saga: SagaId) -> Result<Vec<Event>, JournalError> {
        rmp_serde::from_slice(&self.0).map_err(|error| JournalError::Record {
            saga,
            cause: error.to_string(),
        })
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
        let state = self.state();
        state.open.contains_key(&saga) || state.places.contains_key(&saga)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn finished(&self, saga: SagaId) -> Option<&Finished> {
        let place = self.places.get(&saga)?.checked_sub(self.first)?;
        self.finished.get(usize::try_from(place).ok()?)?.as_ref()
    }

    /// Drops those that there is no room for, and gives them, to be freed when nobody waits for that.
    fn evict(&mut self, retention: &Retention, now: Instant) -> Vec<Finished> {
        let mut dropped = Vec::new();
        while let Some(oldest) = self.finished.front() {
            if let Some(oldest) = oldest {
                let too_many =
                    self.places.len() > retention.finished || self.finished_bytes > retention.bytes;
                if !too_many && now.saturating_duration_since(oldest.at) <= retention.age {
                    break;
                }
            }
            self.first += 1;
            let Some(oldest) = self.finished.pop_front().flatten() else {
                continue;
            };
            let saga = oldest.outline.id;
            self.places.remove(&saga);
            self.dropped = self.dropped.max(Some(saga));
            self.forget(&oldest);
            dropped.push(oldest);
        }
        dropped
    }

    /// What is told of it elsewhere.
    fn forget(&mut self, finished: &Finished) {
        self.finished_bytes = self.finished_bytes.saturating_sub(finished.packed.0.len());
        if let Some(stamp) = finished.outline.stamp
            && self.keys.get(&stamp.key) == Some(&finished.outline.id)
        {
            self.keys.remove(&stamp.key);
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
        let mut guard = self.state();
        let state = &mut *guard;
        let ended = state.finished(saga).map(|finished| finished.count);
        let number = state.open.len();
        let open = match state.open.entry(saga) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(_) if first > 0 || ended.is_some() => {
                let have = ended.unwrap_or_default();
                return Err(JournalError::Order { saga, first, have });
            }
            Entry::Vacant(_) if number >= self.retention.open => return Err(JournalError::Full),
            Entry::Vacant(free) => free.insert(Open::default()),
        };
        if open.count != first {
            let have = open.count;
            return Err(JournalError::Order { saga, first, have });
        }
        open.count += count;
        open.appended.push(Arc::clone(events));
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
        let appended = self.state().open.get(&ended.id).map(|open| open.appended.clone());
        let Some(appended) = appended else {
            return;
        };
        let Some(Event::Began { plan, .. }) = appended.first().and_then(|events| events.first()) else {
            return;
        };
        // Without the lock: it is the larger part of the work.
        let packed = match Packed::of(&appended) {
            Ok(packed) => packed,
            Err(error) => {
                tracing::error!(saga = %ended.id, error, "an ended saga's history can't be kept: a bug");
                return;
            }
        };
        let finished = Finished {
            at: now,
            count: appended.iter().map(|events| events.len() as u64).sum(),
            plan: *plan,
            packed,
            outline: ended,
        };
        let mut guard = self.state();
        let state = &mut *guard;
        let id = finished.outline.id;
        if let Some(stamp) = &finished.outline.stamp {
            state.keys.insert(stamp.key, id);
        }
        state.finished_bytes += finished.packed.0.len();
        state.places.insert(id, state.first + state.finished.len() as u64);
        state.finished.push_back(Some(finished));
        let open = state.open.remove(&id);
        let dropped = state.evict(&self.retention, now);
        drop(guard);
        drop((open, dropped));
    }

    fn history(&self, saga: SagaId) -> Result<Option<Vec<Event>>, JournalError> {
        let state = self.state();
        if let Some(open) = state.open.get(&saga) {
            return Ok(Some(open.events().cloned().collect()));
        }
        state
            .finished(saga)
            .map(|finished| finished.packed.events(saga))
            .transpose()
    }

    fn open(&self) -> Box<dyn Iterator<Item = Result<History, JournalError>> + Send + '_> {
        let state = self.state();
        let mut open: Vec<History> = state
            .open
            .iter()
            .map(|(saga, open)| History {
                saga: *saga,
                events: open.events().cloned().collect(),
            })
            .collect();
        open.sort_by_key(|history| history.saga); // Ids of version 7 sort by time.
        Box::new(open.into_iter().map(Ok))
    }

    fn ended(&self, saga: SagaId) -> Result<Option<Outline>, JournalError> {
        Ok(self
            .state()
            .finished(saga)
            .map(|finished| finished.outline.clone()))
    }

    fn ended_with(&self, key: &[u8; 32]) -> Result<Option<(SagaId, [u8; 32])>, JournalError> {
        let state = self.state();
        let found = state.keys.get(key).and_then(|saga| {
            let stamp = state.finished(*saga)?.outline.stamp?;
            Some((*saga, stamp.payload))
        });
        Ok(found)
    }

    fn children(&self, of: SagaId) -> Result<Vec<Outline>, JournalError> {
        let state = self.state();
        let ended = state.finished.iter().flatten().map(|finished| &finished.outline);
        let of_it = |saga: &&Outline| saga.parent.as_ref().is_some_and(|parent| parent.saga == of);
        let mut children: Vec<Outline> = ended.filter(of_it).cloned().collect();
        children.sort_by_key(|child| child.id);
        Ok(children)
    }

    fn reopen(&self, saga: SagaId) -> Result<(), JournalError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let record = |cause: &str| JournalError::Record {
            saga,
            cause: cause.to_owned(),
        };
        let missing = || record("it is not there, or has not ended");
        let events = state.finished(saga).ok_or_else(missing)?.packed.events(saga)?;
        let place = state
            .places
            .remove(&saga)
            .and_then(|place| place.checked_sub(state.first));
        let place = place.and_then(|place| usize::try_from(place).ok());
        let slot = place.and_then(|place| state.finished.get_mut(place));
        let finished = slot.and_then(Option::take).ok_or_else(missing)?;
        state.forget(&finished);
        let open = Open {
            count: events.len() as u64,
            appended: vec![Arc::new(events)],
        };
        state.open.insert(saga, open);
        Ok(())
    }

    fn may_have_dropped(&self, saga: SagaId) -> bool {
        self.state().dropped.is_some_and(|dropped| saga <= dropped)
    }

    fn list(&self, query: &Query, page: &Page) -> Result<Vec<Outline>, JournalError> {
        let state = self.state();
        let mut ended: Vec<&Outline> = state
            .finished
            .iter()
            .flatten()
            .filter(|finished| query.admits(&finished.outline, finished.plan))
            .map(|finished| &finished.outline)
            .collect();
        page.cut(&mut ended, |saga| {
            Place::new(page.sort, saga.id, Some(saga.ended), &saga.name)
        });
        Ok(ended.into_iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::{
        AttemptEnd, Class, Direction, Headers, Hidden, Operator, OperatorAction, Request, Response,
        SagaState, StepId, Timestamp, Trigger,
    };

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

    #[test]
    fn an_ended_history_is_kept_whole() {
        let journal = Memory::new(Retention::default());
        let saga = SagaId(u128::MAX - 7);
        let mut first = began(saga, 0);
        if let Event::Began { trigger, hidden, .. } = &mut first {
            trigger.request.headers.push("X-Odd", vec![0xff, b'"', 0]);
            trigger
                .request
                .headers
                .push("a-name-that-is-longer-than-most-names-are", "é");
            trigger.request.body = vec![0xfe, 0, 1].into();
            trigger.path.push(("trip".to_owned(), "7".to_owned()));
            trigger.destination = Some("[::1]:80".parse().unwrap());
            trigger.http2 = true;
            *hidden = Some(Hidden {
                sealed: Some("s".to_owned()),
                ..Hidden::default()
            });
        }
        let answered = |truncated| Event::Ended {
            step: StepId(1),
            direction: Direction::Compensation(2),
            attempt: 3,
            end: AttemptEnd::Answered(Response {
                status: 200,
                headers: Headers::default(),
                body: "{}".into(),
                truncated,
            }),
            class: Class::Applied,
            at: Timestamp(u64::MAX),
            hidden: None,
        };
        let broken = Event::Ended {
            step: StepId(0),
            direction: Direction::Transaction,
            attempt: 1,
            end: AttemptEnd::TimedOut,
            class: Class::Unknown,
            at: Timestamp(2),
            hidden: None,
        };
        let nested = Event::Nested {
            step: StepId(0),
            child: SagaId(9),
            at: Timestamp(3),
        };
        let decided = Event::Decided {
            operator: Operator {
                action: OperatorAction::Pause,
                who: "me".to_owned(),
                why: "to look".to_owned(),
            },
            at: Timestamp(4),
        };
        let all = [
            first,
            skipped(),
            answered(true),
            answered(false),
            broken,
            nested,
            decided,
        ];
        journal.append(saga, 0, &all[..2]).unwrap();
        journal.append(saga, 2, &all[2..]).unwrap();
        assert_eq!(journal.history(saga).unwrap().unwrap(), all);
        journal.finish(ended(saga));
        assert_eq!(journal.history(saga).unwrap().unwrap(), all);
        assert!(journal.open().next().is_none());
        let error = journal.append(saga, 9, &[skipped()]).unwrap_err();
        let have = 7;
        assert_eq!(error, JournalError::Order { saga, first: 9, have });
        journal.reopen(saga).unwrap();
        assert_eq!(journal.ended(saga).unwrap(), None);
        journal.append(saga, 7, &[skipped()]).unwrap();
        journal.finish(ended(saga));
        assert_eq!(journal.history(saga).unwrap().unwrap().len(), 8);
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
