//! Owns the machines: carries out their commands over HTTP, and feeds them outcomes and time.
//!
//! One task per saga, the only one that changes it. Append, then act: what a machine decided is appended to the journal
//! before any of it is carried out, and what must not run ahead of the disk (the first transactions, a compensation, the
//! reply) waits for its durability. An append that fails halts that saga and turns readiness red; it never goes on in
//! memory. The caller only looks on: when it goes away the saga runs to its end. A restart takes up what the journal holds
//! ([`Runner::recover`]): the same fold, the same loop.
//!
//! Knows nothing of interception or of HTTP servers. Errors: [`Refused`], why a trigger has no reply.

mod act;
mod answer;
mod clock;
mod count;
mod describe;
mod drive;
mod effects;
mod feed;
mod filter;
mod hand;
mod handle;
mod handover;
mod inbox;
mod list;
mod locks;
mod nested;
mod recover;
mod registry;
mod seal;
mod stats;
mod task;
mod trace;
mod turns;

pub use act::{ActError, Acted, Action, Decision, NoAction};
pub use describe::Line;
pub use feed::{Follower, Happening, KEPT, Next, What};
pub use filter::{Filter, NoState};
pub use handle::SagaHandle;
pub use list::Sent;
pub use nested::{Child, Found, Triggers};
pub use recover::Recovered;
pub use registry::Retain;
pub use stats::{Attempts, CLASSES, Counts, DIRECTIONS, SagaStats, StepStats, Totals};

pub use crate::journal::Load;
use crate::journal::{Journal, JournalError};
use crate::keys::Keys;
use crate::saga::{self, Event, Parent, Plan, PlanHash, Reply, SagaId, Secrets, Timestamp, Trigger};
use crate::telemetry::{self, Spans};
pub use crate::upstream::{OpenCircuit, Stats as Calls};
use crate::upstream::{Upstream, Via};
use clock::Clock;
use count::Count;
use feed::Feed;
use locks::Locks;
use registry::{Admitted, Entry, Registry};
use serde::Serialize;
use stats::Stats;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// The runner's limits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Sagas running, compensating, waiting for a lock or stuck at once; a further trigger is [`Refused::Busy`].
    pub in_flight: usize,
    /// Steps of one saga that are under way at once; see [`saga::Saga::limit`].
    pub steps_in_flight: usize,
    /// A saga that has nothing to do for that long is put down: read from the journal again when it has. (Not for retries after
    /// milliseconds.)
    pub far: Duration,
    /// How many finished ones are at hand without a look into the journal.
    pub retain: Retain,
    /// What nobody who looks on is shown.
    pub secrets: Arc<Secrets>,
    /// What of it a restart needs is sealed under these; without any it is lost by a restart.
    pub keys: Arc<Keys>,
    /// Where spans go; `None`: none are made.
    pub spans: Option<Spans>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            in_flight: 10_000,
            steps_in_flight: 64,
            far: Duration::from_secs(10),
            retain: Retain::default(),
            secrets: Arc::default(),
            keys: Arc::default(),
            spans: None,
        }
    }
}

/// Why a trigger has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many sagas are in flight as may be. Nothing was sent.
    #[error("too many sagas are in flight")]
    Busy,
    /// Another saga with the same `lock` didn't end in time. Nothing was sent.
    #[error("another saga with the same lock is still running")]
    Locked,
    /// Qbox is stopping. Nothing was sent.
    #[error("Qbox is stopping")]
    Draining,
    /// The `Idempotency-Key` was used for a different request. Nothing was sent.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// The journal did not take the saga's beginning. Nothing was sent.
    #[error("the saga could not begin: {0}")]
    NotBegun(JournalError),
    /// Qbox has stopped waiting for the saga's end. It began; what becomes of it the next start finds out.
    #[error(
        "Qbox stops before the saga has ended: a request with the same Idempotency-Key finds out how it ends"
    )]
    Unfinished,
    /// The saga that it is nested in takes no more: the step is being undone, or is. Nothing was sent.
    #[error("the saga that this one would be nested in does not let it begin: {0}")]
    Orphan(String),
    /// The saga was halted half-way: its outcome is unknown until an operator looks at it.
    #[error("the saga was halted: {0}")]
    Halted(String),
}

type Outcome = Result<Arc<Reply>, Refused>;

/// Where a saga stands, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// For its `lock`; it has not begun.
    #[default]
    Waiting,
    /// Going forward.
    Running,
    /// Done. Final.
    Committed,
    /// Being undone.
    Compensating,
    /// Undone. Final.
    Compensated,
    /// A compensation can't succeed by itself; a person has to decide.
    Stuck,
    /// The journal failed it, or what it holds of it can't be understood. Nothing more is done for it by this process.
    Halted,
}

/// A saga in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its id.
    #[serde(serialize_with = "as_text")]
    pub id: SagaId,
    /// Its plan's name.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// When its trigger came, in microseconds since 1970.
    pub arrived: Timestamp,
    /// When it ended, if it has.
    pub ended: Option<Timestamp>,
    /// The step that failed, if one has.
    pub failed_step: Option<String>,
    /// Why it failed or was halted.
    pub cause: Option<String>,
    /// The steps that wait for an operator; others may still be under way.
    pub stuck: Vec<Stuck>,
    /// Nothing new is sent for it until an operator says so.
    pub paused: bool,
    /// Nothing but an answer that may come late keeps it from its end.
    pub listening: Option<Listening>,
    /// What its callers were answered, if they have been.
    pub replied: Option<Replied>,
    /// The step of another saga that it was begun for.
    #[serde(serialize_with = "nested::parent")]
    pub parent: Option<Parent>,
    /// That saga has undone it, or is about to.
    pub revoked: bool,
}

/// How the sagas that are at hand stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct States {
    /// How many stand in each state.
    pub counts: [(State, usize); State::ALL.len()],
    /// How many of them an operator has paused.
    pub paused: usize,
    /// How many only wait for what may come late: see [`Summary::listening`].
    pub listening: usize,
    /// For how long one has been stuck, at the most; zero: none is.
    pub oldest_stuck: Duration,
    /// How long ago the trigger of one came that waits, runs or compensates, at the most; zero: there is none.
    pub oldest_running: Duration,
}

/// How the sagas that are at hand stand, those of each name too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// All of them.
    pub states: States,
    /// By the plan's name, and then as [`State::ALL`].
    pub by_saga: BTreeMap<String, [usize; State::ALL.len()]>,
}

/// A saga that is undone as far as is known, and only waits for answers that may come late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listening {
    /// The steps whose attempts were given up and may still be answered.
    pub steps: Vec<String>,
    /// No longer than until then, in microseconds since 1970.
    pub until: Timestamp,
}

/// A step that only an operator can finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// Its name.
    pub step: String,
    /// Why.
    pub cause: String,
    /// Since when, in microseconds since 1970.
    pub since: Timestamp,
    /// How the last attempt ended: `answered 500`.
    pub last: Option<String>,
}

/// A reply that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Replied {
    /// When, in microseconds since 1970.
    pub at: Timestamp,
    /// Its status.
    pub status: u16,
}

fn as_text<S: serde::Serializer>(id: &SagaId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// One saga with all that happened to it.
#[derive(Debug, Clone)]
pub struct Detail {
    /// As in the list.
    pub summary: Summary,
    /// The plan that it runs under.
    pub plan: Arc<Plan>,
    /// The sagas that were begun for its steps, oldest first, as far as they are still kept.
    pub children: Vec<Child>,
    /// Its events so far, without secrets; empty where it has not begun, or where the journal no longer keeps them.
    pub events: Vec<Event>,
    /// The requests that were sent for it, as they were filled in.
    pub sent: Vec<Sent>,
}

/// How the runner is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Sagas that have not ended.
    pub in_flight: usize,
    /// How many there may be.
    pub capacity: usize,
    /// Those of them that are stuck.
    pub stuck: usize,
    /// It takes no more triggers.
    pub draining: bool,
    /// What the journal said when it failed; not ready from then on.
    pub broken: Option<String>,
}

/// The runner. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Runner {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("health", &self.health()).finish()
    }
}

struct Shared {
    settings: Settings,
    journal: Arc<dyn Journal>,
    upstream: Upstream,
    clock: Clock,
    locks: Arc<Locks>,
    registry: Registry,
    stats: Stats,
    feed: Feed,
    room: Arc<Semaphore>,
    /// Sagas that a drain waits for: all in flight but those that wait for an operator.
    active: Count,
    draining: AtomicBool,
    /// A drain has waited long enough: nobody is waited for any more.
    closing: watch::Sender<bool>,
    /// The journal is another Qbox's yet: triggers wait.
    held: watch::Sender<bool>,
    /// The journal goes to another Qbox: sagas are let go of where they stand.
    released: watch::Sender<bool>,
    /// Sagas' tasks, of those that wait for an operator too.
    tasks: Count,
    broken: Mutex<Option<String>>,
    stuck: AtomicUsize,
    /// Sagas that are in memory whole.
    in_hand: AtomicUsize,
    /// The triggers of this node's sagas, for steps that are one.
    triggers: OnceLock<Weak<dyn Triggers>>,
    /// Held while a saga that has ended is taken up again: one at a time, and each once.
    reviving: tokio::sync::Mutex<()>,
}

impl Runner {
    /// A runner with no saga yet. It lives on the current tokio runtime.
    #[must_use]
    pub fn new(journal: Arc<dyn Journal>, upstream: Upstream, settings: Settings) -> Self {
        let room = settings.in_flight.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                registry: Registry::new(settings.retain),
                settings,
                journal,
                upstream,
                clock: Clock::new(),
                locks: Arc::default(),
                stats: Stats::new(),
                feed: Feed::new(),
                room: Arc::new(Semaphore::new(room)),
                active: Count::default(),
                draining: AtomicBool::new(false),
                closing: watch::Sender::new(false),
                held: watch::Sender::new(false),
                released: watch::Sender::new(false),
                tasks: Count::default(),
                broken: Mutex::default(),
                stuck: AtomicUsize::new(0),
                in_hand: AtomicUsize::new(0),
                triggers: OnceLock::new(),
                reviving: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// Starts the saga of `plan` for `trigger`, or joins the one that its key stands for. `pod` is where a forwarded
    /// trigger leaves from.
    ///
    /// # Errors
    /// [`Refused`], with nothing sent: no room, stopping, or the key was used for another request.
    pub fn start_saga(
        &self,
        plan: &Arc<Plan>,
        plan_hash: PlanHash,
        trigger: Trigger,
        pod: Via,
    ) -> Result<SagaHandle, Refused> {
        let stats = &self.shared.stats;
        let handle = self.enter(plan, plan_hash, trigger, pod);
        match &handle {
            Ok(handle) if handle.joined => stats.joined(),
            Ok(_) => {}
            Err(refused) => stats.refused(refused),
        }
        handle
    }

    fn enter(
        &self,
        plan: &Arc<Plan>,
        plan_hash: PlanHash,
        trigger: Trigger,
        pod: Via,
    ) -> Result<SagaHandle, Refused> {
        let shared = &self.shared;
        // Counted before the look at `draining`: either a drain waits for this saga, or it is seen here.
        let active = Active::enter(shared);
        // What is in flight may still end, with all that it needs for that.
        if shared.draining.load(Ordering::SeqCst) && !shared.is_in_flight(trigger.parent()) {
            return Err(Refused::Draining);
        }
        let stamp = registry::stamp(plan, &trigger);
        if let Some(stamp) = &stamp
            && !shared.registry.knows(stamp)
            && let Some(entry) = self.earlier(stamp)?
        {
            return Ok(self.joined(&entry));
        }
        let room = || {
            Arc::clone(&shared.room)
                .try_acquire_owned()
                .map_err(|_| Refused::Busy)
        };
        let now = shared.clock.now();
        let parent = trigger.parent();
        let (entry, permit) = match shared.registry.admit(plan, stamp, parent, now, room)? {
            (Admitted::New(entry), Some(permit)) => (entry, permit),
            (Admitted::New(entry) | Admitted::Joined(entry), _) => {
                return Ok(self.joined(&entry));
            }
        };
        let handle = SagaHandle::new(shared, &entry, false, || self.recorded(entry.id));
        // In the queue here, not in the task: order of arrival.
        let lock = shared.lock(plan, entry.id, &trigger, None);
        let origin = task::Origin::Trigger {
            plan_hash,
            trigger,
            pod,
        };
        task::spawn(active, entry, origin, Some(permit), lock);
        Ok(handle)
    }

    fn joined(&self, entry: &Entry) -> SagaHandle {
        let handle = SagaHandle::new(&self.shared, entry, true, || self.recorded(entry.id));
        if entry.is_awaited() {
            entry.inbox.stir();
        }
        handle
    }

    /// The last events of all sagas, oldest first (at most [`KEPT`], of this process alone), and those that follow on them.
    #[must_use]
    pub fn follow(&self) -> (Vec<Arc<Happening>>, Follower) {
        self.shared.feed.follow(self.secrets())
    }

    /// Whether `filter` holds for a saga as it stands now. One that is no longer at hand is not meant by any filter that asks for
    /// something.
    #[must_use]
    pub fn admits(&self, filter: &Filter, saga: SagaId) -> bool {
        if *filter == Filter::default() {
            return true;
        }
        let now = self.shared.clock.now();
        let entry = self.shared.registry.get(saga);
        entry.is_some_and(|entry| filter.matches(&entry.summary(), &entry.plan, now))
    }

    /// What has been counted since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.stats.get()
    }

    /// Counts a trigger that began none, since too many sagas are above it.
    pub fn too_deep(&self) {
        self.shared.stats.too_deep();
    }

    /// Of it what is of all sagas together, without a copy of the rest.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.stats.totals()
    }

    /// How the sagas that are at hand stand.
    #[must_use]
    pub fn states(&self) -> States {
        self.look_over(|_, _| {})
    }

    /// The same, and those of each name.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let mut by_saga = BTreeMap::new();
        let states = self.look_over(|name, state| {
            // The name is copied once, not for each saga.
            if !by_saga.contains_key(name) {
                by_saga.insert(name.to_owned(), [0; State::ALL.len()]);
            }
            let counts = by_saga.get_mut(name).into_iter().flatten();
            if let Some((_, count)) = State::ALL.iter().zip(counts).find(|(known, _)| **known == state) {
                *count += 1;
            }
        });
        Standing { states, by_saga }
    }

    fn look_over(&self, mut see: impl FnMut(&str, State)) -> States {
        let now = self.shared.clock.now();
        let mut states = States {
            counts: State::ALL.map(|state| (state, 0)),
            ..States::default()
        };
        self.shared.registry.each_youngest(|entry| {
            let (state, held, listens, since) = entry.look(|summary| {
                let stuck = summary.stuck.iter().map(|stuck| stuck.since).min();
                let since = stuck.unwrap_or(summary.arrived);
                (summary.state, summary.paused, summary.listening.is_some(), since)
            });
            see(&entry.plan.name, state);
            if let Some((_, count)) = states.counts.iter_mut().find(|(known, _)| *known == state) {
                *count += 1;
            }
            states.paused += usize::from(held);
            states.listening += usize::from(listens);
            let oldest = match state {
                State::Stuck => &mut states.oldest_stuck,
                State::Waiting | State::Running | State::Compensating => &mut states.oldest_running,
                State::Committed | State::Compensated | State::Halted => return true,
            };
            *oldest = (*oldest).max(now.since(since));
            true
        });
        states
    }

    /// What the journal has done, and has still to do.
    #[must_use]
    pub fn journal_load(&self) -> Load {
        self.shared.journal.load()
    }

    /// What nobody who looks on is shown.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.shared.settings.secrets
    }

    /// How many sagas are in memory whole. The others that have not ended wait for their lock or their turn, or are at rest: stuck,
    /// paused, or far from their next attempt.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.shared.in_hand.load(Ordering::Relaxed)
    }

    /// How the runner is.
    #[must_use]
    pub fn health(&self) -> Health {
        let shared = &self.shared;
        Health {
            in_flight: shared
                .settings
                .in_flight
                .saturating_sub(shared.room.available_permits()),
            capacity: shared.settings.in_flight,
            stuck: shared.stuck.load(Ordering::Relaxed),
            draining: shared.draining.load(Ordering::SeqCst),
            broken: shared.journal.failure().or_else(|| {
                let broken = shared.broken.lock();
                broken.unwrap_or_else(PoisonError::into_inner).clone()
            }),
        }
    }

    /// What has become of spans; `None`: there are none.
    #[must_use]
    pub fn spans(&self) -> Option<telemetry::Counts> {
        self.shared.settings.spans.as_ref().map(Spans::counts)
    }

    /// How the calls to services stand.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.shared.upstream.stats()
    }

    /// Takes no more triggers, and waits for the sagas in flight (not for those that wait for an operator), `grace` at the
    /// most. Says how many are left: what becomes of them is the journal's to know, and their callers are told so.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.shared.draining.store(true, Ordering::SeqCst);
        let active = &self.shared.active;
        drop(tokio::time::timeout(grace, active.none()).await);
        let left = active.get();
        self.shared.closing.send_replace(true);
        left
    }
}

impl Shared {
    /// `gap` is of a saga that a restart has found: one whose key is hidden shares it with no other.
    fn lock(&self, plan: &Plan, saga: SagaId, trigger: &Trigger, gap: Option<&str>) -> Option<locks::Ticket> {
        let template = plan.lock.as_ref()?;
        // Those without a value have nothing in common that they could wait for.
        let key = saga::key(plan, saga, trigger, template, gap)?;
        Some(self.locks.enter(key))
    }
}

/// What the caller, or the plan for it, says that a second trigger has in common with the first.
fn caller_key(plan: &Plan, trigger: &Trigger) -> Option<Vec<u8>> {
    match (
        trigger.request.headers.get("idempotency-key"),
        &plan.trigger.dedupe,
    ) {
        (Some(key), _) => Some(key.to_vec()),
        // It may speak of the trigger alone: no id is needed.
        (None, Some(dedupe)) => saga::key(plan, SagaId(0), trigger, dedupe, None).map(String::into_bytes),
        (None, None) => None,
    }
}

/// One saga in flight, as it is counted; dropped, it is so no longer.
struct Active {
    shared: Arc<Shared>,
    counted: As,
}

/// What a saga in flight counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    /// A drain waits for it.
    Active,
    /// It waits for its operator to resume it: what it has done is in the journal, and a drain doesn't wait.
    Paused,
    /// As paused; and it is one of the stuck.
    Stuck,
}

impl Active {
    fn enter(shared: &Arc<Shared>) -> Self {
        shared.active.add();
        Self {
            shared: Arc::clone(shared),
            counted: As::Active,
        }
    }

    fn count_as(&mut self, what: As) {
        let before = std::mem::replace(&mut self.counted, what);
        if before == what {
            return;
        }
        if what == As::Active {
            self.shared.active.add();
        }
        if what == As::Stuck {
            self.shared.stuck.fetch_add(1, Ordering::Relaxed);
        }
        self.forget(before);
    }

    fn forget(&self, counted: As) {
        if counted == As::Active {
            self.shared.active.remove();
        }
        if counted == As::Stuck {
            self.shared.stuck.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.forget(self.counted);
    }
}

/// What the tests of the rooms above use too.
#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::tests::service::{Act, Service};
    pub(crate) use super::tests::{plan, runner, start, trigger};
}

#[cfg(test)]
mod tests;
