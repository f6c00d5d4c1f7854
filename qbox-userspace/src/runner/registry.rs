//! The sagas that are known by id: those in flight, those that are stuck, and of those that have ended the ones that did so or
//! were asked for last; and which trigger's key stands for which of them. Bounded: a finished saga is forgotten when it is old or
//! the room is needed, and is then the journal's to know.

use super::answer::Answer;
use super::hand::Lent;
use super::inbox::Inbox;
use super::{Outcome, Refused, State, Summary, caller_key};
use crate::journal::{Outline, Stamp};
use crate::saga::{Parent, Plan, Reply, SagaId, Timestamp, Trigger};
use foldhash::HashMap;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How many finished sagas are kept at hand.
#[derive(Debug, Clone, Copy)]
pub struct Retain {
    /// How many.
    pub sagas: usize,
    /// Bytes of their replies.
    pub bytes: usize,
    /// For how long.
    pub age: Duration,
}

impl Default for Retain {
    fn default() -> Self {
        Self {
            sagas: 1_000,
            bytes: 8 * 1024 * 1024,
            age: Duration::from_secs(24 * 3600),
        }
    }
}

/// One saga, as others see it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: SagaId,
    pub(super) plan: Arc<Plan>,
    pub(super) stamp: Option<Stamp>,
    summary: Mutex<Summary>,
    pub(super) inbox: Inbox,
    pub(super) lent: Lent,
    answer: Answer,
}

#[derive(Debug)]
pub(super) struct Registry {
    retain: Retain,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sagas: BTreeMap<SagaId, Arc<Entry>>,
    /// Each key's payload, and the youngest saga that has it.
    keys: HashMap<[u8; 32], ([u8; 32], SagaId)>,
    finished: VecDeque<(SagaId, Instant, usize)>,
    bytes: usize,
    /// Those that were begun for steps of others, by these.
    children: HashMap<SagaId, Vec<SagaId>>,
}

/// What became of a trigger at the desk.
#[derive(Debug)]
pub(super) enum Admitted {
    /// It begins a saga.
    New(Arc<Entry>),
    /// There is one already for its key.
    Joined(Arc<Entry>),
}

impl Entry {
    fn new(plan: &Arc<Plan>, stamp: Option<Stamp>, summary: Summary) -> Self {
        Self {
            id: summary.id,
            plan: Arc::clone(plan),
            stamp,
            summary: Mutex::new(summary),
            inbox: Inbox::default(),
            lent: Lent::default(),
            answer: Answer::default(),
        }
    }

    fn summary_mut(&self) -> MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn summary(&self) -> Summary {
        self.summary_mut().clone()
    }

    pub(super) fn arrived(&self) -> Timestamp {
        self.summary_mut().arrived
    }

    /// As [`Entry::summary`], without a copy.
    pub(super) fn look<T>(&self, at: impl FnOnce(&Summary) -> T) -> T {
        at(&self.summary_mut())
    }

    /// What the journal is to keep of it; `None` until it has ended.
    pub(super) fn outline(&self) -> Option<Outline> {
        let summary = self.summary();
        Some(Outline {
            id: summary.id,
            name: summary.name,
            state: summary.state.last()?,
            began: summary.arrived,
            ended: summary.ended?,
            failed_step: summary.failed_step,
            cause: summary.cause,
            replied: summary.replied.map(|replied| (replied.at, replied.status)),
            stamp: self.stamp,
            parent: summary.parent,
            revoked: summary.revoked,
        })
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Summary)) {
        change(&mut self.summary_mut());
    }

    /// `None`: it was given, and only the journal has it.
    pub(super) fn subscribe(&self) -> Option<watch::Receiver<Option<Outcome>>> {
        self.answer.subscribe()
    }

    /// Whether a caller waits for its outcome.
    pub(super) fn is_awaited(&self) -> bool {
        self.answer.is_awaited()
    }

    /// As [`Entry::answer`], and keeps nothing: the journal tells whoever asks later.
    pub(super) fn answer_once(&self, outcome: Outcome) {
        self.answer.give_once(outcome);
    }

    /// Whether its callers have their outcome.
    pub(super) fn is_answered(&self) -> bool {
        self.answer.is_given()
    }

    /// Gives the callers their outcome; the first one stands.
    pub(super) fn answer(&self, outcome: Outcome) {
        self.answer.give(outcome);
    }
}

impl Registry {
    pub(super) fn new(retain: Retain) -> Self {
        Self {
            retain,
            inner: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing under this lock can panic half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a saga of this key is at hand.
    pub(super) fn knows(&self, stamp: &Stamp) -> bool {
        self.inner().keys.contains_key(&stamp.key)
    }

    /// Joins the trigger to the saga that its key stands for, or else makes an entry under a new id.
    /// `room` is asked only for a new one, and its refusal is passed on.
    pub(super) fn admit<T>(
        &self,
        plan: &Arc<Plan>,
        stamp: Option<Stamp>,
        parent: Option<Parent>,
        now: Timestamp,
        room: impl FnOnce() -> Result<T, Refused>,
    ) -> Result<(Admitted, Option<T>), Refused> {
        let mut inner = self.inner();
        inner.evict(&self.retain);
        if let Some(stamp) = &stamp
            && let Some((first, id)) = inner.keys.get(&stamp.key)
        {
            if *first != stamp.payload {
                return Err(Refused::KeyReused);
            }
            if let Some(entry) = inner.sagas.get(id) {
                return Ok((Admitted::Joined(Arc::clone(entry)), None));
            }
        }
        let room = room()?;
        let id = SagaId(uuid::Uuid::now_v7().as_u128());
        let summary = Summary {
            id,
            name: plan.name.clone(),
            state: State::Waiting,
            arrived: now,
            ended: None,
            failed_step: None,
            cause: None,
            stuck: Vec::new(),
            paused: false,
            listening: None,
            replied: None,
            parent,
            revoked: false,
        };
        let entry = Arc::new(Entry::new(plan, stamp, summary));
        inner.insert(&entry);
        Ok((Admitted::New(entry), Some(room)))
    }

    /// A saga that the journal tells of, with what stands for its trigger.
    pub(super) fn restore(&self, plan: &Arc<Plan>, stamp: Option<Stamp>, summary: Summary) -> Arc<Entry> {
        let entry = Arc::new(Entry::new(plan, stamp, summary));
        self.inner().insert(&entry);
        entry
    }

    /// A saga that has ended, as the journal tells of it, kept at hand as if it had ended now.
    pub(super) fn cache(
        &self,
        plan: &Arc<Plan>,
        stamp: &Stamp,
        summary: Summary,
        reply: Reply,
    ) -> Arc<Entry> {
        let entry = Arc::new(Entry::new(plan, Some(*stamp), summary));
        entry.answer(Ok(Arc::new(reply)));
        let mut inner = self.inner();
        // Another trigger may have asked for it at the same time.
        if let Some(first) = inner.sagas.get(&entry.id) {
            return Arc::clone(first);
        }
        inner.insert(&entry);
        inner.retire(&entry, &self.retain);
        entry
    }

    /// The saga never began: its key is free again.
    pub(super) fn forget(&self, entry: &Entry) {
        self.inner().remove(entry.id);
    }

    /// The saga has ended: it is kept while there is room.
    pub(super) fn retire(&self, entry: &Entry) {
        self.inner().retire(entry, &self.retain);
    }

    pub(super) fn get(&self, id: SagaId) -> Option<Arc<Entry>> {
        self.inner().sagas.get(&id).cloned()
    }

    /// Those at hand that were begun for steps of that saga, oldest first.
    pub(super) fn children(&self, of: SagaId) -> Vec<Arc<Entry>> {
        let inner = self.inner();
        let children = inner.children.get(&of).into_iter().flatten();
        children.filter_map(|id| inner.sagas.get(id).cloned()).collect()
    }

    /// A saga that has ended goes on: in place of the entry that it had, if it is still at hand. What its callers were answered stays.
    pub(super) fn revive(
        &self,
        plan: &Arc<Plan>,
        stamp: Option<Stamp>,
        summary: Summary,
        reply: Option<Reply>,
    ) -> Arc<Entry> {
        let entry = Arc::new(Entry::new(plan, stamp, summary));
        if let Some(reply) = reply {
            entry.answer(Ok(Arc::new(reply)));
        }
        let mut inner = self.inner();
        if let Some(place) = inner.finished.iter().position(|(id, ..)| *id == entry.id)
            && let Some((.., bytes)) = inner.finished.remove(place)
        {
            inner.bytes = inner.bytes.saturating_sub(bytes);
        }
        inner.remove(entry.id);
        inner.insert(&entry);
        entry
    }

    /// All, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.inner().sagas.values().cloned().collect()
    }

    /// Shows `see` one after the other, youngest first, until it says that it has seen enough.
    pub(super) fn each_youngest(&self, mut see: impl FnMut(&Entry) -> bool) {
        // Those of this moment: the lock isn't held while they are looked at.
        let sagas: Vec<_> = self.inner().sagas.values().rev().cloned().collect();
        let _enough = sagas.iter().any(|entry| !see(entry));
    }
}

impl Inner {
    fn insert(&mut self, entry: &Arc<Entry>) {
        self.sagas.insert(entry.id, Arc::clone(entry));
        if let Some(parent) = entry.look(|summary| summary.parent.as_ref().map(|parent| parent.saga)) {
            self.children.entry(parent).or_default().push(entry.id);
        }
        if let Some(stamp) = entry.stamp {
            let of = self.keys.entry(stamp.key).or_insert((stamp.payload, entry.id));
            if of.1 < entry.id {
                *of = (stamp.payload, entry.id);
            }
        }
    }

    fn retire(&mut self, entry: &Entry, retain: &Retain) {
        let bytes = entry.answer.weight();
        self.bytes += bytes;
        self.finished.push_back((entry.id, Instant::now(), bytes));
        self.evict(retain);
    }

    fn remove(&mut self, id: SagaId) {
        let Some(entry) = self.sagas.remove(&id) else {
            return;
        };
        if let Some(parent) = entry.look(|summary| summary.parent.as_ref().map(|parent| parent.saga))
            && let Some(children) = self.children.get_mut(&parent)
        {
            children.retain(|child| *child != id);
            if children.is_empty() {
                self.children.remove(&parent);
            }
        }
        if let Some(stamp) = entry.stamp {
            // Unless the key has become another saga's.
            if self.keys.get(&stamp.key).is_some_and(|(_, of)| *of == id) {
                self.keys.remove(&stamp.key);
            }
        }
    }

    fn evict(&mut self, retain: &Retain) {
        while let Some((id, ended, bytes)) = self.finished.front().copied() {
            let too_many = self.finished.len() > retain.sagas || self.bytes > retain.bytes;
            if !too_many && ended.elapsed() <= retain.age {
                return;
            }
            self.finished.pop_front();
            self.bytes = self.bytes.saturating_sub(bytes);
            self.remove(id);
        }
    }
}

/// What stands for a trigger that has a key: the saga's name and the key, and what a second trigger with the same key has to
/// have in common with the first.
pub(super) fn stamp(plan: &Plan, trigger: &Trigger) -> Option<Stamp> {
    let key = caller_key(plan, trigger)?;
    let request = &trigger.request;
    Some(Stamp {
        key: digest(&[plan.name.as_bytes(), &key]),
        payload: digest(&[request.method.as_bytes(), request.url.as_bytes(), &request.body]),
    })
}

/// Of parts that can't run into each other.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
