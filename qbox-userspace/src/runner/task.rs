//! One saga's task, from its trigger or from the journal to its end: in hand while there is something to do, and at rest in between.
//!
//! A saga at rest is its entry and what the journal doesn't hold: stuck, paused, or far from its next attempt, thousands of them may
//! last for days. It is read from the journal again when its moment comes, an operator decides, or a caller asks. A saga that a start
//! finds may begin at rest too, until its turn comes (see `turns`). Errors halt the saga, with their cause.

use super::drive::{Drive, Kept, Pause};
use super::hand::Hand;
use super::locks::{Held, Ticket};
use super::recover::{Again, read_again};
use super::registry::Entry;
use super::{Active, As, Refused, Shared, State};
use crate::journal::JournalError;
use crate::saga::{Input, PlanHash, Reply, Saga, Timestamp, Trigger};
use crate::upstream::Via;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// From where a saga goes on.
pub(super) enum Origin {
    /// Its trigger, just come from `pod`.
    Trigger {
        plan_hash: PlanHash,
        trigger: Trigger,
        pod: Via,
    },
    /// Its history, of that many events, which a restart has found; and its callers' answer, if that was due before.
    Journal {
        saga: Box<Saga>,
        events: u64,
        reply: Option<Arc<Reply>>,
        /// If it needs one; see `turns`.
        turn: Option<OwnedSemaphorePermit>,
    },
    /// Its history, from its end on which it is undone by the saga that it is nested in.
    Revoked { saga: Box<Saga>, events: u64 },
    /// Its history, from where it was put down.
    Kept {
        saga: Box<Saga>,
        reply: Option<Arc<Reply>>,
        kept: Kept,
    },
}

/// What is a saga's until its end: the next one would meet what a stuck one has left behind.
struct Own {
    active: Active,
    lock: Option<Ticket>,
    _permit: Option<OwnedSemaphorePermit>,
    /// The last to go: its task is counted as long as there is anything of it.
    guard: Guard,
}

/// What a saga at rest waits for; and an operator's decision, or a caller, always.
enum Rest {
    /// Found by a start.
    Turn(Arc<Semaphore>),
    /// Put down, until the moment at which something is due.
    Kept(Kept, Option<Timestamp>),
}

/// Starts the task.
pub(super) fn spawn(
    active: Active,
    entry: Arc<Entry>,
    origin: Origin,
    permit: Option<OwnedSemaphorePermit>,
    lock: Option<Ticket>,
) {
    if !matches!(origin, Origin::Trigger { .. }) {
        // It has begun: decisions that come before its task runs are kept for it.
        entry.inbox.open();
    }
    let guard = Guard::new(&active.shared, entry);
    let own = Own {
        active,
        lock,
        _permit: permit,
        guard,
    };
    // The task's memory is its future: what it begins with is not a part of it for as long as it lives.
    let origin = Box::new(origin);
    start(&Arc::clone(&own.guard.shared), async move {
        if let Some((own, rest)) = Box::pin(work(own, origin)).await {
            alternate(own, rest).await;
        }
    });
}

/// As [`spawn`], for a saga of the journal that waits for its turn: until then the journal alone has it.
pub(super) fn spawn_later(
    active: Active,
    entry: Arc<Entry>,
    turns: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    lock: Option<Ticket>,
) {
    entry.inbox.open();
    let guard = Guard::new(&active.shared, entry);
    let own = Own {
        active,
        lock,
        _permit: permit,
        guard,
    };
    start(&Arc::clone(&own.guard.shared), alternate(own, Rest::Turn(turns)));
}

/// Until it has ended, or its process is to.
fn start(shared: &Shared, life: impl Future<Output = ()> + Send + 'static) {
    let mut released = shared.released.subscribe();
    // Moved into the other future below, it would be there twice.
    let life = Box::pin(life);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = released.wait_for(|released| *released) => {}
            () = life => {}
        }
    });
}

/// At rest, in hand, at rest. What either needs is in memory for no longer than it lasts.
async fn alternate(mut own: Own, mut rest: Rest) {
    loop {
        let (turn, kept) = match rest {
            Rest::Turn(turns) => (Box::pin(wait_for_turn(&mut own, turns)).await, None),
            Rest::Kept(kept, until) => {
                Box::pin(wait_at_rest(&own, until)).await;
                (None, Some(kept))
            }
        };
        let again = match read_again(&own.guard.shared, &own.guard.entry) {
            Ok(again) => again,
            Err(cause) => return own.guard.halt(&cause),
        };
        let Again { saga, events, reply } = again;
        let origin = Box::new(match kept {
            None => Origin::Journal {
                saga,
                events,
                reply,
                turn,
            },
            Some(kept) if kept.events() == events => Origin::Kept { saga, reply, kept },
            Some(_) => {
                return own
                    .guard
                    .halt("its history is not the one that it was put down with");
            }
        });
        match Box::pin(work(own, origin)).await {
            Some(next) => (own, rest) = next,
            None => return,
        }
    }
}

async fn wait_for_turn(own: &mut Own, turns: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    // A drain doesn't wait: all that it has done is in the journal.
    own.active.count_as(As::Paused);
    let lock = wait_for(own.lock.take(), Duration::MAX).await.unwrap_or(None);
    own.lock = lock.map(Ticket::Now);
    let inbox = &own.guard.entry.inbox;
    let turn = tokio::select! {
        turn = turns.acquire_owned() => turn.ok(),
        // An operator decides, or a caller waits for it.
        () = inbox.stirred() => None,
    };
    own.active.count_as(As::Active);
    if turn.is_some() && own.guard.shared.draining.load(Ordering::SeqCst) {
        // The next start's.
        drop(turn);
        own.active.count_as(As::Paused);
        inbox.stirred().await;
        own.active.count_as(As::Active);
        return None;
    }
    turn
}

async fn wait_at_rest(own: &Own, until: Option<Timestamp>) {
    let clock = own.guard.shared.clock;
    let due = async {
        match until {
            Some(at) => tokio::time::sleep_until(clock.instant(at)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = due => {}
        () = own.guard.entry.inbox.stirred() => {}
    }
}

/// In hand: to its end, or until there is nothing to do for long.
async fn work(mut own: Own, origin: Box<Origin>) -> Option<(Own, Rest)> {
    // Moved out where it stands, the box would be freed only with its task.
    let origin = *std::convert::identity(origin);
    let (guard, active) = (&own.guard, &mut own.active);
    let (shared, entry, lock) = (&guard.shared, &guard.entry, own.lock.take());
    let ((mut drive, hand), lock) = match origin {
        Origin::Trigger {
            plan_hash,
            trigger,
            pod,
        } => match begin(guard, active, plan_hash, trigger, pod, lock).await {
            Ok(begun) => begun,
            Err(refused) => {
                guard.never_began(refused);
                return None;
            }
        },
        Origin::Journal {
            saga,
            events,
            reply,
            turn,
        } => {
            // It had begun, so the lock is its own; nothing but itself could make it give up.
            let lock = wait_for(lock, Duration::MAX).await.unwrap_or(None);
            match Drive::take_up(active, shared, entry, (*saga, events), reply, Input::Recovered) {
                Ok((drive, hand)) => ((drive.with_turn(turn), hand), lock),
                Err(error) => {
                    guard.halt(&error.to_string());
                    return None;
                }
            }
        }
        // Without its lock: whoever has it may be the saga that undoes this one.
        Origin::Revoked { saga, events } => {
            match Drive::take_up(active, shared, entry, (*saga, events), None, Input::Revoked) {
                Ok(begun) => (begun, None),
                Err(error) => {
                    guard.halt(&error.to_string());
                    return None;
                }
            }
        }
        Origin::Kept { saga, reply, kept } => {
            let lock = wait_for(lock, Duration::MAX).await.unwrap_or(None);
            (Drive::pick_up(active, shared, entry, *saga, reply, kept), lock)
        }
    };
    match drive.run(hand).await {
        Ok(Pause::Ended) => {
            // Its callers' answer is on its way first: what follows is for nobody who waits.
            tokio::task::yield_now().await;
            if let Some(outline) = entry.outline() {
                shared.journal.finish(outline);
            }
            shared.registry.retire(entry);
            None
        }
        Ok(Pause::Until(until, kept)) => {
            drop(drive);
            own.lock = lock.map(Ticket::Now);
            Some((own, Rest::Kept(kept, until)))
        }
        Err(error) => {
            guard.halt(&error.to_string());
            None
        }
    }
}

/// A trigger's saga: once it has the lock, and the saga that it is nested in knows of it.
async fn begin<'a>(
    guard: &'a Guard,
    active: &'a mut Active,
    plan_hash: PlanHash,
    trigger: Trigger,
    pod: Via,
    lock: Option<Ticket>,
) -> Result<((Drive<'a>, Box<Hand>), Option<Held>), Refused> {
    let (shared, entry) = (&guard.shared, &guard.entry);
    // As long as the saga itself might take: the caller has reckoned with that.
    let mut closing = shared.closing.subscribe();
    let lock = tokio::select! {
        biased;
        // Its turn would come when nobody waits for it any more.
        _ = closing.wait_for(|closing| *closing) => Err(Refused::Draining),
        lock = wait_for(lock, entry.plan.timeout) => lock,
    }?;
    if let Some(parent) = trigger.parent() {
        shared.announce(entry.id, &parent).await?;
    }
    entry.inbox.open();
    if entry.is_answered() {
        return Err(Refused::Orphan("its step is undone".to_owned()));
    }
    let begun = Drive::begin(active, shared, entry, plan_hash, trigger, pod).map_err(Refused::NotBegun)?;
    Ok((begun, lock))
}

/// However the task ends, the callers are answered, and the operators.
struct Guard {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
}

impl Guard {
    fn new(shared: &Arc<Shared>, entry: Arc<Entry>) -> Self {
        shared.tasks.add();
        Self {
            shared: Arc::clone(shared),
            entry,
        }
    }

    fn never_began(&self, refused: Refused) {
        let (id, name) = (self.entry.id, &self.entry.plan.name);
        tracing::warn!(saga = %id, name, "saga did not begin: {refused}");
        if let Refused::NotBegun(error @ (JournalError::Store(_) | JournalError::Order { .. })) = &refused {
            self.shared.set_broken(&error.to_string());
        }
        self.shared.stats.refused(&refused);
        self.entry.answer(Err(refused));
        self.shared.registry.forget(&self.entry);
    }

    fn halt(&self, cause: &str) {
        let (id, name) = (self.entry.id, &self.entry.plan.name);
        tracing::error!(saga = %id, name, cause, "saga halted: its outcome is unknown until someone looks at it");
        self.shared.set_broken(cause);
        self.shared.stats.halted();
        let now = self.shared.clock.now();
        self.entry.update(|summary| {
            summary.state = State::Halted;
            summary.ended = Some(now);
            summary.cause = Some(cause.to_owned());
        });
        self.entry.answer(Err(Refused::Halted(cause.to_owned())));
        self.shared.registry.retire(&self.entry);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.halt("a bug stopped its task");
        }
        self.entry.inbox.close();
        // Let go of where it stood, it takes nothing more.
        self.entry.lent.clear();
        self.shared.tasks.remove();
    }
}

impl Shared {
    fn set_broken(&self, cause: &str) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.get_or_insert_with(|| cause.to_owned());
    }
}

async fn wait_for(lock: Option<Ticket>, limit: Duration) -> Result<Option<Held>, Refused> {
    match lock {
        None => Ok(None),
        Some(Ticket::Now(held)) => Ok(Some(held)),
        Some(Ticket::Later(turn)) => match tokio::time::timeout(limit, turn).await {
            Ok(Ok(held)) => Ok(Some(held)),
            Ok(Err(_)) | Err(_) => Err(Refused::Locked),
        },
    }
}
