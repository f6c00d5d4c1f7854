//! One saga's task: wait for the lock, begin, then carry out, wait, decide, append, over and over until it has ended.

use super::describe::Line;
use super::effects::{Heard, carry_out, hear_out};
use super::feed::Of;
use super::inbox::{Message, Order};
use super::locks::{Held, Ticket};
use super::nested;
use super::recover::read_again;
use super::registry::Entry;
use super::stats::News;
use super::trace::Traced;
use super::{ActError, Active, As, Refused, Replied, Shared, State};
use crate::journal::{JournalError, Position};
use crate::saga::{
    AttemptEnd, Call, Command, Direction, Event, Input, Outcome, PlanHash, Reply, Saga, SagaId, SagaState,
    StepId, Timestamp, Trigger,
};
use crate::upstream::Via;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Of the log's lines that tell how a saga has ended: for filters.
const OUTCOME: &str = "qbox::outcome";

/// What tells one attempt from another.
type Attempt = (StepId, Direction, u32);

/// An exchange under way. It is polled by its saga's own task: a task for each would be woken on another processor each time.
type Exchange = Pin<Box<dyn Future<Output = (Attempt, Heard)> + Send>>;

fn exchange(attempt: Attempt, call: impl Future<Output = Heard> + Send + 'static) -> Exchange {
    Box::pin(async move { (attempt, call.await) })
}

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
    let mut released = guard.shared.released.subscribe();
    // The task's memory is its future: what it begins with is not a part of it for as long as it lives.
    let origin = Box::new(origin);
    // Moved into the other future below, it would be there twice.
    let work = Box::pin(work(guard, active, origin, permit, lock));
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = released.wait_for(|released| *released) => {}
            () = work => {}
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
    let mut released = guard.shared.released.subscribe();
    let wait = Box::pin(wait_for_turn(guard, active, turns, permit, lock));
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = released.wait_for(|released| *released) => {}
            () = wait => {}
        }
    });
}

async fn wait_for_turn(
    guard: Guard,
    mut active: Active,
    turns: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    lock: Option<Ticket>,
) {
    // A drain doesn't wait: all that it has done is in the journal.
    active.count_as(As::Paused);
    let lock = wait_for(lock, Duration::MAX).await.unwrap_or(None);
    let turn = tokio::select! {
        turn = turns.acquire_owned() => turn.ok(),
        // An operator decides, or a caller waits for it.
        () = guard.entry.inbox.stirred() => None,
    };
    active.count_as(As::Active);
    if turn.is_some() && guard.shared.draining.load(Ordering::SeqCst) {
        // The next start's.
        drop(turn);
        active.count_as(As::Paused);
        guard.entry.inbox.stirred().await;
        active.count_as(As::Active);
        return take_up(guard, active, None, permit, lock).await;
    }
    take_up(guard, active, turn, permit, lock).await;
}

async fn take_up(
    guard: Guard,
    active: Active,
    turn: Option<OwnedSemaphorePermit>,
    permit: Option<OwnedSemaphorePermit>,
    lock: Option<Held>,
) {
    let origin = match read_again(&guard.shared, &guard.entry, turn) {
        Ok(origin) => Box::new(origin),
        Err(cause) => return guard.halt(&cause),
    };
    Box::pin(work(guard, active, origin, permit, lock.map(Ticket::Now))).await;
}

/// All that a task does.
async fn work(
    guard: Guard,
    active: Active,
    origin: Box<Origin>,
    permit: Option<OwnedSemaphorePermit>,
    lock: Option<Ticket>,
) {
    // Moved out where it stands, the box would be freed only with its task.
    let origin = *std::convert::identity(origin);
    let (shared, entry) = (&guard.shared, &guard.entry);
    // Both are the saga's until it has ended: the next one would meet what a stuck one has left behind.
    let _permit = permit;
    let (mut drive, _lock) = match origin {
        Origin::Trigger {
            plan_hash,
            trigger,
            pod,
        } => {
            // As long as the saga itself might take: the caller has reckoned with that.
            let mut closing = shared.closing.subscribe();
            let lock = tokio::select! {
                biased;
                // Its turn would come when nobody waits for it any more.
                _ = closing.wait_for(|closing| *closing) => Err(Refused::Draining),
                lock = wait_for(lock, entry.plan.timeout) => lock,
            };
            let lock = match lock {
                Ok(lock) => lock,
                Err(refused) => return guard.never_began(refused),
            };
            if let Some(parent) = trigger.parent()
                && let Err(refused) = shared.announce(entry.id, &parent).await
            {
                return guard.never_began(refused);
            }
            entry.inbox.open();
            if entry.is_answered() {
                return guard.never_began(Refused::Orphan("its step is undone".to_owned()));
            }
            match Drive::begin(active, shared, entry, plan_hash, trigger, pod) {
                Ok(drive) => (drive, lock),
                Err(error) => return guard.never_began(Refused::NotBegun(error)),
            }
        }
        Origin::Journal {
            saga,
            events,
            reply,
            turn,
        } => {
            // It had begun, so the lock is its own; nothing but itself could make it give up.
            let lock = wait_for(lock, Duration::MAX).await.unwrap_or(None);
            match Drive::take_up(active, shared, entry, (*saga, events), reply, Input::Recovered) {
                Ok(mut drive) => {
                    drive.turn = turn;
                    (drive, lock)
                }
                Err(error) => return guard.halt(&error.to_string()),
            }
        }
        // Without its lock: whoever has it may be the saga that undoes this one.
        Origin::Revoked { saga, events } => {
            match Drive::take_up(active, shared, entry, (*saga, events), None, Input::Revoked) {
                Ok(drive) => (drive, None),
                Err(error) => return guard.halt(&error.to_string()),
            }
        }
    };
    match drive.run().await {
        Ok(()) => {
            if let Some(outline) = entry.outline() {
                shared.journal.finish(outline);
            }
            shared.registry.retire(entry);
        }
        Err(error) => guard.halt(&error.to_string()),
    }
}

/// However the task ends, the callers are answered, and the operators.
struct Guard {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
}

impl Guard {
    fn new(shared: &Arc<Shared>, entry: Arc<Entry>) -> Self {
        shared.tasks.send_modify(|count| *count += 1);
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
        self.shared
            .tasks
            .send_modify(|count| *count = count.saturating_sub(1));
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

/// What a task goes on with.
enum Woken {
    By(Input),
    Told(Message),
}

struct Drive<'a> {
    active: Active,
    shared: &'a Shared,
    entry: &'a Entry,
    saga: Saga,
    /// Where the trigger came from; `None` after a restart, which may have outlived the pod.
    pod: Option<Via>,
    destination: Option<SocketAddr>,
    /// The number of the next event, and how far the journal is.
    next: u64,
    position: Position,
    began: Timestamp,
    calls: FuturesUnordered<Exchange>,
    /// Exchanges whose time is over, and that are still listened to.
    late: FuturesUnordered<Exchange>,
    /// What both are about, and since when.
    in_flight: Vec<(Attempt, Timestamp)>,
    /// How long the attempt took whose end was heard of last.
    took: Option<(StepId, Direction, Duration)>,
    /// When its compensation began, if it has.
    undoing: Option<Timestamp>,
    replied: bool,
    /// As many of its steps are under way as may be.
    held_back: bool,
    /// The callers' answer, where a restart has found that it was due.
    early: Option<Arc<Reply>>,
    /// The journal doesn't have all that this process knows.
    hides: bool,
    /// How long its history was when it was last said that it is stuck.
    told: u64,
    /// The attempts of the saga above that wait for this one to be undone.
    above: Vec<oneshot::Sender<Result<(), String>>>,
    /// Until its service has been tried for it; see `turns`.
    turn: Option<OwnedSemaphorePermit>,
    /// Its spans, if they are recorded.
    traced: Option<Box<Traced>>,
}

impl<'a> Drive<'a> {
    fn begin(
        active: Active,
        shared: &'a Shared,
        entry: &'a Entry,
        plan_hash: PlanHash,
        trigger: Trigger,
        pod: Via,
    ) -> Result<Self, JournalError> {
        shared.journal.store_plan(plan_hash, &entry.plan)?;
        let destination = trigger.destination;
        // The id's own random bits: an id is never used twice, so neither is a seed.
        let seed = (entry.id.0 as u64) ^ ((entry.id.0 >> 64) as u64);
        let began = shared.clock.now();
        let at_once = shared.settings.steps_in_flight;
        let plan = Arc::clone(&entry.plan);
        let (saga, events) = Saga::begin(entry.id, plan, plan_hash, seed, trigger, began, at_once);
        let spans = shared.settings.spans.as_ref();
        let mut drive = Self {
            traced: Traced::new(spans, &saga, entry.arrived(), false),
            active,
            shared,
            entry,
            saga,
            pod: Some(pod),
            destination,
            next: 0,
            position: Position::default(),
            began,
            calls: FuturesUnordered::new(),
            late: FuturesUnordered::new(),
            in_flight: Vec::new(),
            took: None,
            undoing: None,
            replied: false,
            held_back: false,
            early: None,
            hides: false,
            told: 0,
            above: Vec::new(),
            turn: None,
        };
        drive.append(events)?;
        Ok(drive)
    }

    /// Goes on where the journal, of that many events, ends. The saga is told why, and decides what follows as it always does.
    fn take_up(
        active: Active,
        shared: &'a Shared,
        entry: &'a Entry,
        (saga, events): (Saga, u64),
        early: Option<Arc<Reply>>,
        why: Input,
    ) -> Result<Self, JournalError> {
        let spans = shared.settings.spans.as_ref();
        let revived = why == Input::Revoked;
        let mut drive = Self {
            traced: None,
            active,
            shared,
            entry,
            pod: None,
            destination: saga.trigger().destination,
            began: saga.began(),
            hides: saga.gap().is_some(),
            saga,
            next: events,
            position: Position::default(),
            calls: FuturesUnordered::new(),
            late: FuturesUnordered::new(),
            in_flight: Vec::new(),
            took: None,
            undoing: None,
            // One that was committed has answered.
            replied: why == Input::Revoked && entry.is_answered(),
            held_back: false,
            early,
            told: 0,
            above: Vec::new(),
            turn: None,
        };
        drive.saga.limit(shared.settings.steps_in_flight);
        let now = shared.clock.now();
        if spans.is_some() && !revived {
            drive.traced = Traced::new(spans, &drive.saga, entry.arrived(), false);
            drive.trace_what_was_sent(now);
        }
        let events = drive.saga.decide(why, now);
        if revived {
            drive.traced = Traced::new(spans, &drive.saga, now, true);
        }
        drive.append(events)?;
        if drive.replied {
            drive.saga.reply_given();
        }
        Ok(drive)
    }

    /// Runs the saga to its end. A stuck one waits here for its operator. Dropping it, as any error does, closes the
    /// connections of the calls in flight.
    async fn run(&mut self) -> Result<(), JournalError> {
        loop {
            let wake = self.carry_out().await?;
            if self.calls.is_empty() && self.is_over() {
                self.end();
                return Ok(());
            }
            // Of a paused saga time only brings the caller's answer.
            let nothing_due = wake.is_none() || (self.saga.is_paused() && !self.entry.is_awaited());
            let listens = !self.late.is_empty() && self.saga.state() == SagaState::Compensating;
            let rests = self.calls.is_empty() && nothing_due && !listens;
            let counts_as = if rests { self.rest()? } else { As::Active };
            if rests {
                self.turn = None;
            }
            self.active.count_as(counts_as);
            match self.next(wake).await {
                Woken::By(input) => {
                    let events = self.saga.decide(input, self.shared.clock.now());
                    self.append(events)?;
                }
                Woken::Told(Message::Order(order)) => self.obey(order)?,
                Woken::Told(Message::Nested { step, child, answer }) => {
                    let may = self.nest(&step, child)?;
                    // Who has gone away since never begins.
                    drop(answer.send(may));
                }
                Woken::Told(Message::Revoke(answer)) => self.revoke(answer)?,
            }
        }
    }

    /// Takes an operator's decision, or says why not. Who gave it waits until it is durable.
    fn obey(&mut self, order: Order) -> Result<(), JournalError> {
        // Counted before the look at `draining`, as a saga that starts.
        self.active.count_as(As::Active);
        let answer = if self.shared.draining.load(Ordering::SeqCst) {
            Err(ActError::Draining)
        } else if let Some(cause) = self.shared.journal.failure() {
            // It would halt the saga, and help nobody.
            Err(ActError::Journal(cause))
        } else if let Some(objection) = self.saga.objection(&order.operator.action) {
            Err(ActError::NotNow(objection.to_owned()))
        } else if order.dry_run {
            Ok(None)
        } else {
            let (id, name) = (self.entry.id, &self.entry.plan.name);
            let (who, why) = (order.operator.who.clone(), order.operator.why.clone());
            let action = order.operator.action.clone();
            let input = Input::Operator(order.operator);
            let events = self.saga.decide(input, self.shared.clock.now());
            if let Err(error) = self.append(events) {
                drop(order.answer.send(Err(ActError::Journal(error.to_string()))));
                return Err(error);
            }
            tracing::info!(saga = %id, name, ?action, who, why, "an operator decided");
            Ok(Some(self.position))
        };
        // Whoever has gone away since may look at the history.
        drop(order.answer.send(answer));
        Ok(())
    }

    /// A saga is about to begin for a step of this one. Says why it may not.
    fn nest(&mut self, step: &str, child: SagaId) -> Result<Result<(), String>, JournalError> {
        if let Some(cause) = self.shared.journal.failure() {
            return Ok(Err(cause));
        }
        if self.saga.state() == SagaState::Committed {
            return Ok(Ok(()));
        }
        let steps = (0..).map(StepId).zip(&self.entry.plan.steps);
        let named = steps
            .filter(|(_, known)| known.name == step)
            .map(|(id, _)| id)
            .next();
        let Some(step) = named else {
            return Ok(Err(format!("it has no step `{step}`")));
        };
        if let Some(objection) = self.saga.nesting_objection(step) {
            return Ok(Err(objection.to_owned()));
        }
        let events = self
            .saga
            .decide(Input::Nested(step, child), self.shared.clock.now());
        self.append(events)?;
        Ok(Ok(()))
    }

    /// The saga that this one is nested in undoes it, and waits for that.
    fn revoke(&mut self, answer: oneshot::Sender<Result<(), String>>) -> Result<(), JournalError> {
        if let Some(objection) = self.saga.revoke_objection() {
            drop(answer.send(Err(objection.to_owned())));
            return Ok(());
        }
        let events = self.saga.decide(Input::Revoked, self.shared.clock.now());
        self.append(events)?;
        if self.replied {
            self.saga.reply_given();
        }
        self.above.retain(|waits| !waits.is_closed());
        self.above.push(answer);
        Ok(())
    }

    /// Tells those that wait for it to be undone.
    fn tell_above(&mut self, undone: &Result<(), String>) {
        for answer in self.above.drain(..) {
            drop(answer.send(undone.clone()));
        }
    }

    fn append(&mut self, events: Vec<Event>) -> Result<(), JournalError> {
        if events.is_empty() {
            return Ok(());
        }
        let (id, stamp) = (self.entry.id, self.entry.stamp.as_ref());
        let recorded = self
            .shared
            .sealed(id, self.entry.plan.needs(), stamp, self.next, &events);
        self.hides |= matches!(recorded, Cow::Owned(_));
        self.position = self.shared.journal.append(id, self.next, &recorded)?;
        self.next += events.len() as u64;
        let plan = &self.entry.plan;
        if tracing::enabled!(tracing::Level::DEBUG) {
            for event in &events {
                let event = &self.shared.settings.secrets.event(event);
                tracing::debug!(saga = %self.entry.id, "{}", Line { event, plan, sent: None });
            }
        }
        let undoing = |event: &Event| match event {
            Event::Compensating { at } => Some(*at),
            _ => None,
        };
        self.undoing = events.iter().find_map(undoing).or(self.undoing);
        self.shared.stats.learn(&News {
            plan,
            began: self.began,
            undoing: self.undoing,
            events: &events,
            took: self.took.take(),
        });
        if let Some(traced) = &mut self.traced {
            traced.learn(&self.saga, plan, &self.shared.settings.secrets, &events);
        }
        // Few plans have as many steps.
        if plan.steps.len() > self.shared.settings.steps_in_flight {
            let held_back = self.saga.is_held_back();
            if held_back && !self.held_back {
                self.shared.stats.held_back();
            }
            self.held_back = held_back;
        }
        self.entry.update(|summary| summary.learn(&self.saga, &events));
        self.shared
            .feed
            .events(&self.of(), events, &self.shared.settings.secrets);
        Ok(())
    }

    /// For those who look on.
    fn of(&self) -> Of<'_> {
        Of {
            saga: self.entry.id,
            plan: &self.entry.plan,
            arrived: self.entry.arrived(),
        }
    }

    /// Carries out what has not begun, and says when the machine wants to be woken.
    async fn carry_out(&mut self) -> Result<Option<Timestamp>, JournalError> {
        let mut wake: Option<Timestamp> = None;
        let mut held_back = Vec::new();
        let mut reply = false;
        for command in self.saga.commands() {
            match command {
                Command::Call(call) if self.has_begun(&call) => {}
                Command::Call(call) if call.durable_first => held_back.push(call),
                Command::Call(call) => self.send(call),
                Command::Wake(timer) => wake = Some(wake.map_or(timer.at, |w| w.min(timer.at))),
                Command::Reply => reply = !self.replied,
            }
        }
        if reply || !held_back.is_empty() {
            self.shared.journal.durable(self.position).await?;
        }
        for call in held_back {
            self.send(call);
        }
        if reply {
            let secrets = &self.shared.settings.secrets;
            let early = self.early.take();
            if let Some(reply) = early.or_else(|| self.saga.reply(secrets).map(Arc::new)) {
                self.saga.reply_given();
                let (at, status) = (self.shared.clock.now(), reply.status);
                let replied = Replied { at, status };
                if let Some(traced) = &mut self.traced {
                    traced.answered(status);
                }
                self.entry.update(|summary| summary.replied = Some(replied));
                self.shared.feed.replied(&self.of(), replied, secrets);
                self.replied = true;
                match self.is_over() || self.hides {
                    true => self.entry.answer(Ok(reply)),
                    // It may last for days; its events tell the same.
                    false => self.entry.answer_once(Ok(reply)),
                }
            }
        }
        Ok(wake)
    }

    /// Final, and everybody knows.
    fn is_over(&self) -> bool {
        self.replied && matches!(self.saga.state(), SagaState::Committed | SagaState::Compensated)
    }

    fn has_begun(&self, call: &Call) -> bool {
        let attempt = (call.step, call.direction, call.attempt);
        self.in_flight.iter().any(|(begun, _)| *begun == attempt)
    }

    /// Its attempts that the end of a process has cut off.
    fn trace_what_was_sent(&mut self, now: Timestamp) {
        let Some(traced) = &mut self.traced else {
            return;
        };
        for command in self.saga.commands() {
            if let Command::Call(call) = command {
                let since = self.saga.in_flight_since(call.step, call.direction);
                let secrets = &self.shared.settings.secrets;
                traced.sends(&call, since.unwrap_or(now), &self.entry.plan, secrets);
            }
        }
    }

    fn send(&mut self, call: Call) {
        let attempt = (call.step, call.direction, call.attempt);
        if let Some(traced) = &mut self.traced {
            let secrets = &self.shared.settings.secrets;
            traced.sends(&call, self.shared.clock.now(), &self.entry.plan, secrets);
        }
        let shared = || Arc::clone(&self.active.shared);
        let nested = match call.direction {
            Direction::Transaction if !call.forward => self.shared.nested(&self.entry.plan, &call),
            _ => Ok(None),
        };
        self.calls.push(match (call.direction, nested) {
            (Direction::Child(n), _) => {
                let child = self.saga.child(call.step, n);
                exchange(attempt, shared().undo(call, child))
            }
            (_, Err(nested::Stopped)) => exchange(attempt, std::future::pending()),
            (_, Ok(Some(found))) => exchange(attempt, nested::carry_out(shared(), call, found)),
            (_, Ok(None)) => {
                let (upstream, pod) = (self.shared.upstream.clone(), self.pod.clone());
                let http2 = self.saga.trigger().http2;
                exchange(attempt, carry_out(upstream, call, pod, self.destination, http2))
            }
        });
        self.in_flight.push((attempt, self.shared.clock.now()));
    }

    async fn next(&mut self, wake: Option<Timestamp>) -> Woken {
        let clock = self.shared.clock;
        let timer = async {
            match wake {
                Some(at) => tokio::time::sleep_until(clock.instant(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((attempt, heard)) = self.calls.next() => Woken::By(self.heard(attempt, heard, false)),
            Some((attempt, heard)) = self.late.next() => Woken::By(self.heard(attempt, heard, true)),
            () = timer => Woken::By(Input::Timer),
            message = self.entry.inbox.next() => Woken::Told(message),
        }
    }

    /// What an exchange, or what was heard of it beyond its time, tells the machine.
    fn heard(&mut self, attempt: Attempt, (end, late): Heard, lingered: bool) -> Input {
        let now = self.shared.clock.now();
        let begun = self.in_flight.iter().find(|(begun, _)| *begun == attempt);
        let began = begun.map(|(_, began)| *began);
        self.in_flight.retain(|(begun, _)| *begun != attempt);
        if self.in_flight.is_empty() {
            // A saga may rest for days.
            self.in_flight = Vec::new();
        }
        let (step, direction, number) = attempt;
        // What is heard beyond its time took all of that.
        self.took = began
            .filter(|_| !lingered)
            .map(|began| (step, direction, now.since(began)));
        if !matches!(end, AttemptEnd::Held(_)) {
            self.turn = None;
        }
        if let Some(late) = late {
            let listening = Input::Listening {
                step,
                attempt: number,
            };
            // Nothing follows from that alone.
            self.saga.decide(listening, now);
            self.late.push(exchange(attempt, hear_out(late)));
            self.in_flight.push((attempt, now));
        }
        Input::Outcome(Outcome {
            step,
            direction,
            attempt: number,
            end,
        })
    }

    fn end(&mut self) {
        let undone = match self.saga.state() {
            SagaState::Compensated => Ok(()),
            _ => Err("its pivot is applied, and can't be undone".to_owned()),
        };
        self.tell_above(&undone);
        let now = self.shared.clock.now();
        self.entry.update(|summary| summary.ended = Some(now));
        if let Some(traced) = self.traced.take() {
            traced.end(&self.saga, now);
        }
        let (id, name) = (self.entry.id, &self.entry.plan.name);
        let (state, took) = (self.saga.state().as_str(), now.since(self.began));
        let summary = self.entry.summary();
        let failed_step = summary.failed_step.as_deref();
        // What goes well is counted; a line for each would be most of the log, and of what a saga costs.
        match failed_step {
            None => {
                tracing::debug!(target: OUTCOME, saga = %id, name, state, ?took, trace = %self.trace(), "saga ended")
            }
            Some(failed_step) => {
                tracing::info!(target: OUTCOME, saga = %id, name, state, ?took, failed_step, trace = %self.trace(), "saga ended");
            }
        }
    }

    /// As `traceparent` has it.
    fn trace(&self) -> String {
        format!("{:032x}", self.saga.trace().id)
    }

    /// Nothing is in flight, and no moment that anybody waits for is due: for whom it waits.
    fn rest(&mut self) -> Result<As, JournalError> {
        match self.saga.state() {
            SagaState::Stuck => {
                if self.told != self.next {
                    self.told = self.next;
                    let (id, name) = (self.entry.id, &self.entry.plan.name);
                    for stuck in self.entry.summary().stuck {
                        let (step, cause) = (stuck.step, stuck.cause);
                        tracing::error!(saga = %id, name, step, cause, "saga is stuck: it waits for an operator");
                    }
                }
                if !self.above.is_empty() {
                    let stuck = self.entry.summary().stuck.into_iter();
                    let causes: Vec<_> = stuck
                        .map(|stuck| format!("{}: {}", stuck.step, stuck.cause))
                        .collect();
                    self.tell_above(&Err(format!("it is stuck ({})", causes.join("; "))));
                }
                // A caller that has no reply by now would wait for a person.
                self.entry.answer(Err(Refused::Halted(
                    "a compensation can't succeed by itself".to_owned(),
                )));
                Ok(As::Stuck)
            }
            SagaState::Running | SagaState::Compensating if self.saga.is_paused() => Ok(As::Paused),
            // A machine that waits for nothing and has not ended would be a saga left behind unseen.
            state => Err(JournalError::Store(format!(
                "the saga is {state:?} and waits for nothing: a bug"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::registry::Admitted;
    use crate::runner::testing::{plan, runner, trigger};
    use crate::saga::{AttemptEnd, Operator, OperatorAction};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_paused_saga_waits_for_its_operator() {
        let (plan, hash) = plan(
            "name = \"x\"\n[trigger]\nurl = \"http://trips/trips/{trip}\"\n\
             [[step]]\nname = \"hotel\"\nrequest = { method = \"PUT\", url = \"http://hotel/7\" }\n\
             [[step.compensate]]\nrequest = { method = \"DELETE\", url = \"http://hotel/7\" }\n",
        );
        let runner = runner();
        let shared = &runner.shared;
        let trigger = trigger("7", None, "");
        let now = shared.clock.now();
        let admitted = shared.registry.admit(&plan, None, None, now, || Ok(())).unwrap();
        let (Admitted::New(entry), _) = admitted else {
            panic!("no key: a new saga");
        };
        let active = Active::enter(shared);
        let mut drive = Drive::begin(active, shared, &entry, hash, trigger, Via::Node).unwrap();
        // Its request fails, and nothing of it is sent: it waits to be turned back, but is paused.
        let pause = Operator {
            action: OperatorAction::Pause,
            who: "me".to_owned(),
            why: "to look".to_owned(),
        };
        let ended = Outcome {
            step: StepId(0),
            direction: Direction::Transaction,
            attempt: 1,
            end: AttemptEnd::TimedOut,
        };
        for input in [Input::Operator(pause), Input::Outcome(ended)] {
            let events = drive.saga.decide(input, now);
            drive.append(events).unwrap();
        }
        let ended = tokio::time::timeout(Duration::from_secs(3600), drive.run()).await;
        assert!(ended.is_err(), "a paused saga was given up");
        assert_eq!(
            entry.summary().replied.unwrap().status,
            502,
            "its caller has a reply"
        );
    }
}
