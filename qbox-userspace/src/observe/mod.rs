//! The observe room: what sagas with `mode = "observe"` would have done, beside what their triggers were really answered.
//!
//! A trigger is rehearsed by the real machine ([`plan`](crate::plan)), off its own way: it passes meanwhile, and nothing that goes
//! wrong here can reach it. What is rehearsed is the trigger without its secrets, so that none can get into what is kept. Records are
//! in memory alone, the newest of them, up to a number and to [`BYTES`].
//!
//! Knows neither how a trigger came nor who asks. No errors: a record says why it lacks something.

mod record;
mod ring;
#[cfg(test)]
mod tests;

pub use record::{Answer, Record, Rehearsed, Sighting, StepEnd, WouldReply, WouldSend};
pub use ring::BYTES;

use crate::plan::{Script, rehearse};
use crate::saga::{Plan, PlanHash, SagaId, Secrets, Timestamp, Trigger};
use record::Entry;
use ring::Ring;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// How many triggers are rehearsed, or wait for it, at once: each is held in memory meanwhile.
const AT_ONCE: usize = 64;

/// Sees triggers, and keeps what was seen. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Observer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    secrets: Arc<Secrets>,
    ring: Mutex<Ring>,
    rehearsing: Arc<Semaphore>,
    recorded: AtomicU64,
    unrehearsed: AtomicU64,
    /// Rises with whatever is noted.
    revision: AtomicU64,
}

/// Since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Triggers that got a record.
    pub recorded: u64,
    /// Records that made room for newer ones.
    pub dropped: u64,
    /// Records that only say that too many were being rehearsed.
    pub unrehearsed: u64,
}

impl Observer {
    /// Keeps up to `records` of them; with 0 it sees nothing.
    #[must_use]
    pub fn new(records: usize, secrets: Arc<Secrets>) -> Self {
        Self {
            shared: Arc::new(Shared {
                secrets,
                ring: Mutex::new(Ring::new(records)),
                rehearsing: Arc::new(Semaphore::new(AT_ONCE)),
                recorded: AtomicU64::new(0),
                unrehearsed: AtomicU64::new(0),
                revision: AtomicU64::new(0),
            }),
        }
    }

    /// Notes a trigger of `plan` that passes, and has it rehearsed. `depth`: how deep sagas may nest. The witness is to say what the
    /// trigger is answered. To be called on a tokio runtime.
    #[must_use]
    pub fn observe(&self, plan: &Arc<Plan>, hash: PlanHash, trigger: Trigger, depth: u8) -> Option<Witness> {
        let shared = &self.shared;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::default().after(now);
        // Ids are made under the lock: they are in the order of the ring.
        let entry = shared.ring().push(|| {
            let id = SagaId(uuid::Uuid::now_v7().as_u128());
            let url = shared.secrets.url(&trigger.request.url).into_owned();
            Entry::new(id, &plan.name, hash, now, &trigger.request.method, url)
        })?;
        shared.recorded.fetch_add(1, Ordering::Relaxed);
        shared.changed();
        let witness = Witness {
            shared: Arc::clone(shared),
            entry: Arc::clone(&entry),
            since: Instant::now(),
        };
        let Ok(permit) = Arc::clone(&shared.rehearsing).try_acquire_owned() else {
            shared.unrehearsed.fetch_add(1, Ordering::Relaxed);
            entry.lacks(format!("{AT_ONCE} other triggers were being rehearsed"));
            return Some(witness);
        };
        let (shared, plan) = (Arc::clone(shared), Arc::clone(plan));
        let task = tokio::task::spawn_blocking({
            let entry = Arc::clone(&entry);
            move || {
                let _permit = permit;
                shared.rehearse(&entry, &plan, &trigger, depth);
            }
        });
        tokio::spawn(async move {
            if let Err(error) = task.await {
                tracing::error!(%error, "a trigger's rehearsal failed");
                entry.lacks(format!("this is a bug of Qbox: {error}"));
            }
        });
        Some(witness)
    }

    /// The records, youngest first: of the saga of that name, if one is given, and that are older than `before`; `limit` at the most.
    #[must_use]
    pub fn list(&self, name: Option<&str>, before: Option<SagaId>, limit: usize) -> Vec<Sighting> {
        let found = self.shared.ring().youngest(name, before, limit);
        found.iter().map(|entry| entry.sighting()).collect()
    }

    /// One record.
    #[must_use]
    pub fn get(&self, id: SagaId) -> Option<Record> {
        let entry = self.shared.ring().get(id)?;
        Some(entry.record())
    }

    /// Rises with whatever becomes known of a trigger; 0: there was none.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Relaxed)
    }

    /// What has been counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            recorded: self.shared.recorded.load(Ordering::Relaxed),
            dropped: self.shared.ring().dropped(),
            unrehearsed: self.shared.unrehearsed.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.revision.fetch_add(1, Ordering::Relaxed);
    }

    fn rehearse(&self, entry: &Entry, plan: &Arc<Plan>, trigger: &Trigger, depth: u8) {
        let shown = self.secrets.shown_trigger(trigger);
        let (rehearsed, why) = if trigger.depth > depth {
            let why = format!(
                "it would have been answered 508: more than {depth} sagas are above it (limits.depth)"
            );
            (None, Some(why))
        } else {
            let script = Script {
                answers: &[],
                fail: None,
                saga: entry.id(),
            };
            let run = rehearse(plan, &shown, &script);
            (Some(Rehearsed::new(plan, &run, &self.secrets)), None)
        };
        let bytes = entry.fill(&shown.request, rehearsed, why);
        self.ring().grown(entry.id(), bytes);
        self.changed();
    }
}

/// Says of one trigger what it was answered.
#[derive(Debug)]
pub struct Witness {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    since: Instant,
}

impl Witness {
    /// The service has answered, with a status if that could be read; or it never did.
    pub fn answered(self, answer: Answer) {
        let took: Duration = self.since.elapsed();
        self.entry.answered(answer, took);
        self.shared.changed();
    }
}
