//! The sagas that are known by id: those in flight, those that are stuck, and for a while those that have ended; and which
//! trigger's key stands for which of them. Bounded: a finished saga is forgotten when it is old or the room is needed.

use super::inbox::Inbox;
use super::{Outcome, Refused, State, Summary};
use crate::saga::{Call, Direction, Plan, Reply, SagaId, Secrets, StepId, Timestamp, Trigger};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long finished sagas can be asked for.
#[derive(Debug, Clone, Copy)]
pub struct Retain {
    /// How many.
    pub sagas: usize,
    /// Bytes of their replies and of the URLs they called.
    pub bytes: usize,
    /// For how long.
    pub age: Duration,
}

impl Default for Retain {
    fn default() -> Self {
        Self {
            sagas: 10_000,
            bytes: 64 * 1024 * 1024,
            age: Duration::from_secs(24 * 3600),
        }
    }
}

/// One saga, as others see it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: SagaId,
    pub(super) plan: Arc<Plan>,
    key: Option<Key>,
    summary: Mutex<Summary>,
    sent: Mutex<Vec<Sent>>,
    pub(super) inbox: Inbox,
    outcome: watch::Sender<Option<Outcome>>,
}

/// A request as it was filled in, without secrets. The attempts of one message are all the same, so it is kept once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Of which step.
    pub step: StepId,
    /// Which of its messages.
    pub direction: Direction,
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
}

/// SHA-256 of (saga's name, key): of fixed size, whatever a caller sends.
type Key = [u8; 32];
/// SHA-256 of what a second trigger with the same key has to have in common with the first.
type Payload = [u8; 32];

#[derive(Debug)]
pub(super) struct Registry {
    retain: Retain,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sagas: BTreeMap<SagaId, Arc<Entry>>,
    keys: HashMap<Key, (Payload, SagaId)>,
    finished: VecDeque<(SagaId, Instant, usize)>,
    bytes: usize,
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
    fn new(plan: &Arc<Plan>, key: Option<Key>, summary: Summary) -> Self {
        Self {
            id: summary.id,
            plan: Arc::clone(plan),
            key,
            summary: Mutex::new(summary),
            sent: Mutex::default(),
            inbox: Inbox::default(),
            outcome: watch::Sender::new(None),
        }
    }

    fn summary_mut(&self) -> MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn summary(&self) -> Summary {
        self.summary_mut().clone()
    }

    pub(super) fn state(&self) -> State {
        self.summary_mut().state
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Summary)) {
        change(&mut self.summary_mut());
    }

    /// Keeps what a call sends, for those who look on and without `secrets`: once for each of the plan's messages.
    pub(super) fn note(&self, call: &Call, secrets: &Secrets) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if !sent
            .iter()
            .any(|s| (s.step, s.direction) == (call.step, call.direction))
        {
            sent.push(Sent {
                step: call.step,
                direction: call.direction,
                method: call.request.method.clone(),
                url: secrets.url_of(&self.plan, call),
            });
        }
    }

    pub(super) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Outcome>> {
        self.outcome.subscribe()
    }

    /// Gives the callers their outcome; the first one stands.
    pub(super) fn answer(&self, outcome: Outcome) {
        self.outcome.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(outcome);
            }
            first
        });
    }

    fn weight(&self) -> usize {
        let reply = match &*self.outcome.borrow() {
            Some(Ok(reply)) => reply_weight(reply),
            _ => 0,
        };
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        reply + sent.iter().map(|s| s.method.len() + s.url.len()).sum::<usize>()
    }
}

fn reply_weight(reply: &Reply) -> usize {
    let headers: usize = reply.headers.0.iter().map(|(n, v)| n.len() + v.len()).sum();
    reply.body.len() + headers
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

    /// Joins the trigger to the saga that its key stands for, or else makes an entry under a new id.
    /// `room` is asked only for a new one, and its refusal is passed on.
    pub(super) fn admit<T>(
        &self,
        plan: &Arc<Plan>,
        trigger: &Trigger,
        key: Option<&[u8]>,
        now: Timestamp,
        room: impl FnOnce() -> Result<T, Refused>,
    ) -> Result<(Admitted, Option<T>), Refused> {
        let key = key.map(|k| (digest(&[plan.name.as_bytes(), k]), payload(trigger)));
        let mut inner = self.inner();
        inner.evict(&self.retain);
        if let Some((key, payload)) = &key
            && let Some((first, id)) = inner.keys.get(key)
        {
            if first != payload {
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
            replied: None,
        };
        let entry = Arc::new(Entry::new(plan, key.map(|(key, _)| key), summary));
        inner.sagas.insert(id, Arc::clone(&entry));
        if let Some((key, payload)) = key {
            inner.keys.insert(key, (payload, id));
        }
        Ok((Admitted::New(entry), Some(room)))
    }

    /// A saga that the journal tells of, with what stands for it. A key is the youngest's that asks for it.
    pub(super) fn restore(
        &self,
        plan: &Arc<Plan>,
        trigger: Option<(&Trigger, Option<Vec<u8>>)>,
        summary: Summary,
    ) -> Arc<Entry> {
        let id = summary.id;
        let key = trigger.and_then(|(trigger, key)| {
            let key = digest(&[plan.name.as_bytes(), &key?]);
            Some((key, payload(trigger)))
        });
        let entry = Arc::new(Entry::new(plan, key.map(|(key, _)| key), summary));
        let mut inner = self.inner();
        inner.sagas.insert(id, Arc::clone(&entry));
        if let Some((key, payload)) = key {
            let of = inner.keys.entry(key).or_insert((payload, id));
            if of.1 < id {
                *of = (payload, id);
            }
        }
        entry
    }

    /// As [`Registry::retire`], for a saga that ended `ago`, before all that were retired so far. `false`: there was no room,
    /// and it is forgotten.
    pub(super) fn retire_older(&self, entry: &Entry, ago: Duration) -> bool {
        let bytes = entry.weight();
        let mut inner = self.inner();
        let full = inner.finished.len() >= self.retain.sagas || inner.bytes + bytes > self.retain.bytes;
        if full || ago > self.retain.age {
            inner.remove(entry.id);
            return false;
        }
        let now = Instant::now();
        inner.bytes += bytes;
        // A machine that was started later than that has no such moment; the saga is then kept for longer.
        let ended = now.checked_sub(ago).unwrap_or(now);
        inner.finished.push_front((entry.id, ended, bytes));
        true
    }

    /// The saga never began: its key is free again.
    pub(super) fn forget(&self, entry: &Entry) {
        self.inner().remove(entry.id);
    }

    /// The saga has ended: it is kept while there is room.
    pub(super) fn retire(&self, entry: &Entry) {
        let bytes = entry.weight();
        let mut inner = self.inner();
        inner.bytes += bytes;
        inner.finished.push_back((entry.id, Instant::now(), bytes));
        inner.evict(&self.retain);
    }

    pub(super) fn get(&self, id: SagaId) -> Option<Arc<Entry>> {
        self.inner().sagas.get(&id).cloned()
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
    fn remove(&mut self, id: SagaId) {
        if let Some(key) = self.sagas.remove(&id).and_then(|entry| entry.key) {
            // Unless the key has become another saga's.
            if self.keys.get(&key).is_some_and(|(_, of)| *of == id) {
                self.keys.remove(&key);
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

fn payload(trigger: &Trigger) -> Payload {
    let request = &trigger.request;
    digest(&[request.method.as_bytes(), request.url.as_bytes(), &request.body])
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
