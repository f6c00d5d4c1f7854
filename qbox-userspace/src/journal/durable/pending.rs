//! What has been appended and is not in the file yet, saga by saga: the file gets all that has happened to a saga meanwhile at
//! once, and it can be read before.

use super::record::{Chunk, Record};
use crate::journal::Outline;
use crate::saga::{Event, PlanHash, SagaId, Timestamp};
use foldhash::HashMap;

/// Changes, in the order of the log up to one of its records.
#[derive(Debug, Default)]
pub(super) struct Batch {
    sagas: HashMap<SagaId, Change>,
    plans: HashMap<PlanHash, String>,
    /// The keys of sagas that have ended: the youngest of each, and its payload.
    keys: HashMap<[u8; 32], (SagaId, [u8; 32])>,
    /// About how many bytes it takes in memory.
    bytes: usize,
}

/// What has happened to one saga.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) n: i64,
    /// It is new.
    pub(super) began: Option<Beginning>,
    /// Its further events, and the first one's number.
    pub(super) first: u64,
    pub(super) events: Chunk<'static>,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) name: String,
    pub(super) plan: PlanHash,
    pub(super) at: Timestamp,
}

/// Whether a saga has ended.
#[derive(Debug, Default)]
pub(super) enum End {
    #[default]
    AsItWas,
    Ended(Box<Outline>),
    Reopened,
}

impl Batch {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.sagas.is_empty() && self.plans.is_empty()
    }

    /// The keys of those that have ended.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.keys.keys()
    }

    /// How many sagas something has happened to.
    pub(super) fn len(&self) -> usize {
        self.sagas.len()
    }

    /// About how many bytes it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// # Errors
    /// A saga's first event is none that begins one.
    pub(super) fn add(&mut self, record: &Record<'_>) -> Result<(), String> {
        match record {
            Record::Plan { hash, plan } => self.plan(*hash, plan.to_string()),
            Record::Events {
                n,
                saga,
                first,
                events,
            } => {
                let began = match first {
                    0 => Some(beginning(&events.text).ok_or_else(|| format!("saga {saga} doesn't begin"))?),
                    _ => None,
                };
                self.events((*n, *saga), began, *first, events.clone());
            }
            Record::Ended { n, saga } => self.ended(*n, saga.clone().into_owned()),
            Record::Reopened { n, saga } => self.reopened(*n, *saga),
        }
        Ok(())
    }

    pub(super) fn plan(&mut self, hash: PlanHash, plan: String) {
        self.bytes += plan.len();
        self.plans.insert(hash, plan);
    }

    pub(super) fn events(
        &mut self,
        (n, saga): (i64, SagaId),
        began: Option<Beginning>,
        first: u64,
        events: Chunk<'_>,
    ) {
        self.bytes += events.text.len();
        let change = self.change(n, saga);
        if began.is_some() {
            change.began = began;
        }
        if change.events.count == 0 {
            change.first = first;
        }
        change.events.push(events);
    }

    pub(super) fn ended(&mut self, n: i64, saga: Outline) {
        if let Some(stamp) = &saga.stamp {
            self.keys.insert(stamp.key, (saga.id, stamp.payload));
        }
        self.bytes += size_of::<Outline>() + saga.cause.as_ref().map_or(0, String::len);
        let id = saga.id;
        self.change(n, id).end = End::Ended(Box::new(saga));
    }

    pub(super) fn reopened(&mut self, n: i64, saga: SagaId) {
        self.keys.retain(|_, (of, _)| *of != saga);
        self.change(n, saga).end = End::Reopened;
    }

    fn change(&mut self, n: i64, saga: SagaId) -> &mut Change {
        self.sagas.entry(saga).or_insert_with(|| {
            self.bytes += size_of::<(SagaId, Change)>();
            Change {
                n,
                began: None,
                first: 0,
                events: Chunk::default(),
                end: End::AsItWas,
            }
        })
    }

    pub(super) fn of(&self, saga: SagaId) -> Option<&Change> {
        self.sagas.get(&saga)
    }

    /// In the order in which the sagas began.
    pub(super) fn sagas(&self) -> Vec<(SagaId, &Change)> {
        let mut sagas: Vec<_> = self.sagas.iter().map(|(saga, change)| (*saga, change)).collect();
        sagas.sort_unstable_by_key(|(_, change)| change.n);
        sagas
    }

    pub(super) fn plans(&self) -> &HashMap<PlanHash, String> {
        &self.plans
    }

    /// The youngest saga that has ended and had that key; and its payload.
    pub(super) fn with_key(&self, key: &[u8; 32]) -> Option<(SagaId, [u8; 32])> {
        self.keys.get(key).copied()
    }

    /// Those that have ended and were begun for a step of that one; and all that go on, whomever they were begun for.
    pub(super) fn ends_below(&self, of: SagaId) -> Vec<(SagaId, Option<Outline>)> {
        let ends = self.sagas.iter().filter_map(|(id, change)| match &change.end {
            End::Ended(saga) if saga.parent.as_ref().is_some_and(|parent| parent.saga == of) => {
                Some((*id, Some((**saga).clone())))
            }
            End::Reopened => Some((*id, None)),
            _ => None,
        });
        ends.collect()
    }
}

impl Beginning {
    pub(super) fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Began { plan, name, at, .. } => Some(Self {
                name: name.clone(),
                plan: *plan,
                at: *at,
            }),
            _ => None,
        }
    }
}

/// Of the first of some events.
fn beginning(text: &str) -> Option<Beginning> {
    let first = serde_json::Deserializer::from_str(text)
        .into_iter::<Event>()
        .next();
    Beginning::of(&first?.ok()?)
}
