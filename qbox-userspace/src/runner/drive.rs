//! A saga in hand: carry out, wait, decide, append, over and over until it has ended, or there is nothing to do for long. Errors:
//! the journal's, with which it can't go on.

use super::effects::{Heard, carry_out, hear_out};
use super::hand::{Hand, of};
use super::inbox::{Message, Order};
use super::nested;
use super::registry::Entry;
use super::trace::Traced;
use super::{ActError, Active, As, Listening, Refused, Replied, Shared};
use crate::journal::{JournalError, Position};
use crate::saga::{
    AttemptEnd, Call, Command, Direction, Input, Outcome, PlanHash, Reply, Saga, SagaState, StepId,
    Timestamp, Trigger,
};
use crate::upstream::Via;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

/// Of the log's lines that tell how a saga has ended: for filters.
const OUTCOME: &str = "qbox::outcome";

/// What tells one attempt from another.
type Attempt = (StepId, Direction, u32);

/// An exchange under way. It is polled by its saga's own task: a task for each would be woken on another processor each time.
type Exchange = Pin<Box<dyn Future<Output = (Attempt, Heard)> + Send>>;

fn exchange(attempt: Attempt, call: impl Future<Output = Heard> + Send + 'static) -> Exchange {
    Box::pin(async move { (attempt, call.await) })
}

/// What a task goes on with.
enum Woken {
    /// That exchange has ended so; `true`: beyond its time.
    Heard(Attempt, Heard, bool),
    /// The moment has come that the machine wanted to be woken at.
    Due,
    Told(Message),
}

/// Why a saga is no longer in hand.
#[derive(Debug)]
pub(super) enum Pause {
    /// It is final, and everybody knows.
    Ended,
    /// Nothing is to be done until that moment, or until somebody wants something of it.
    Until(Option<Timestamp>, Kept),
}

/// What the journal doesn't hold of a saga that is put down.
#[derive(Debug)]
pub(super) struct Kept {
    pod: Option<Via>,
    next: u64,
    position: Position,
    replied: bool,
    held_back: bool,
    told: u64,
    undoing: Option<Timestamp>,
    traced: Option<Box<Traced>>,
}

impl Kept {
    /// How long its history is.
    pub(super) fn events(&self) -> u64 {
        self.next
    }
}

pub(super) struct Drive<'a> {
    active: &'a mut Active,
    shared: &'a Shared,
    entry: &'a Entry,
    /// Where the trigger came from; `None` after a restart, which may have outlived the pod.
    pod: Option<Via>,
    destination: Option<SocketAddr>,
    calls: FuturesUnordered<Exchange>,
    /// Exchanges whose time is over, and that are still listened to; most sagas have none.
    late: Option<FuturesUnordered<Exchange>>,
    /// What both are about, and since when.
    in_flight: Vec<(Attempt, Timestamp)>,
    /// Until when something may be heard of those.
    late_until: Option<Timestamp>,
    /// It was said that nothing but these keeps the saga from its end.
    listens: bool,
    replied: bool,
    /// The callers' answer, where a restart has found that it was due.
    early: Option<Arc<Reply>>,
    /// How long its history was when it was last said that it is stuck.
    told: u64,
    /// The attempts of the saga above that wait for this one to be undone.
    above: Vec<oneshot::Sender<Result<(), String>>>,
    /// Until its service has been tried for it; see `turns`.
    turn: Option<OwnedSemaphorePermit>,
    _in_hand: InHand<'a>,
}

/// Counts it.
struct InHand<'a>(&'a Shared);

impl<'a> InHand<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.in_hand.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.in_hand.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'a> Drive<'a> {
    fn new(active: &'a mut Active, shared: &'a Shared, entry: &'a Entry, saga: &Saga) -> Self {
        Self {
            active,
            shared,
            entry,
            pod: None,
            destination: saga.trigger().destination,
            calls: FuturesUnordered::new(),
            late: None,
            in_flight: Vec::new(),
            late_until: None,
            listens: false,
            replied: false,
            early: None,
            told: 0,
            above: Vec::new(),
            turn: None,
            _in_hand: InHand::new(shared),
        }
    }

    /// Begins it. What is decided is what [`Drive::run`] goes on with.
    pub(super) fn begin(
        active: &'a mut Active,
        shared: &'a Shared,
        entry: &'a Entry,
        plan_hash: PlanHash,
        trigger: Trigger,
        pod: Via,
    ) -> Result<(Self, Box<Hand>), JournalError> {
        shared.journal.store_plan(plan_hash, &entry.plan)?;
        // The id's own random bits: an id is never used twice, so neither is a seed.
        let seed = (entry.id.0 as u64) ^ ((entry.id.0 >> 64) as u64);
        let began = shared.clock.now();
        let at_once = shared.settings.steps_in_flight;
        let plan = Arc::clone(&entry.plan);
        let (saga, events) = Saga::begin(entry.id, plan, plan_hash, seed, trigger, began, at_once);
        let mut drive = Self::new(active, shared, entry, &saga);
        drive.pod = Some(pod);
        let mut hand = Hand::new(saga, 0);
        hand.traced = Traced::new(shared.settings.spans.as_ref(), &hand.saga, entry.arrived(), false);
        hand.append(shared, entry, events)?;
        Ok((drive, hand))
    }

    /// Goes on where the journal, of that many events, ends. The saga is told why, and decides what follows as it always does.
    pub(super) fn take_up(
        active: &'a mut Active,
        shared: &'a Shared,
        entry: &'a Entry,
        (saga, events): (Saga, u64),
        early: Option<Arc<Reply>>,
        why: Input,
    ) -> Result<(Self, Box<Hand>), JournalError> {
        let spans = shared.settings.spans.as_ref();
        let revived = why == Input::Revoked;
        let mut drive = Self::new(active, shared, entry, &saga);
        // One that was committed has answered.
        drive.replied = revived && entry.is_answered();
        drive.early = early;
        let mut hand = Hand::new(saga, events);
        hand.hides = hand.saga.gap().is_some();
        hand.saga.limit(shared.settings.steps_in_flight);
        let now = shared.clock.now();
        if spans.is_some() && !revived {
            hand.traced = Traced::new(spans, &hand.saga, entry.arrived(), false);
            hand.trace_what_was_sent(shared, entry, now);
        }
        let events = hand.saga.decide(why, now);
        if revived {
            hand.traced = Traced::new(spans, &hand.saga, now, true);
        }
        hand.append(shared, entry, events)?;
        if drive.replied {
            hand.saga.reply_given();
        }
        Ok((drive, hand))
    }

    pub(super) fn with_turn(mut self, turn: Option<OwnedSemaphorePermit>) -> Self {
        self.turn = turn;
        self
    }

    /// Goes on where it was put down: nothing has happened since, so nothing is decided. (`reply` is for callers that have none.)
    pub(super) fn pick_up(
        active: &'a mut Active,
        shared: &'a Shared,
        entry: &'a Entry,
        mut saga: Saga,
        reply: Option<Arc<Reply>>,
        kept: Kept,
    ) -> (Self, Box<Hand>) {
        saga.limit(shared.settings.steps_in_flight);
        if kept.replied {
            saga.reply_given();
        }
        let mut drive = Self::new(active, shared, entry, &saga);
        drive.pod = kept.pod;
        drive.replied = kept.replied;
        drive.early = reply.filter(|_| !kept.replied);
        drive.told = kept.told;
        let mut hand = Hand::new(saga, kept.next);
        hand.position = kept.position;
        hand.undoing = kept.undoing;
        hand.traced = kept.traced;
        hand.held_back = kept.held_back;
        (drive, hand)
    }

    /// Of a saga that nothing is to be done for.
    fn put_down(&mut self, hand: Box<Hand>) -> Kept {
        Kept {
            pod: self.pod.take(),
            next: hand.next,
            position: hand.position,
            replied: self.replied,
            held_back: hand.held_back,
            told: self.told,
            undoing: hand.undoing,
            traced: hand.traced,
        }
    }

    /// Runs the saga to its end, or until it can be put down. Dropping it, as any error does, closes the connections of the calls in
    /// flight.
    pub(super) async fn run(&mut self, mut lent: Box<Hand>) -> Result<Pause, JournalError> {
        loop {
            let hand = &mut *lent;
            // Before its caller is answered, who may ask at once.
            if self.listens || self.hears_out() {
                self.tell_listening(hand);
            }
            let wake = self.carry_out(hand).await?;
            if self.calls.is_empty() && self.is_over(hand) {
                self.end(hand);
                return Ok(Pause::Ended);
            }
            // Of a paused saga time only brings the caller's answer.
            let nothing_due = wake.is_none() || (hand.saga.is_paused() && !self.entry.is_awaited());
            let listens = self.hears_out() && hand.saga.state() == SagaState::Compensating;
            let rests = self.calls.is_empty() && nothing_due && !listens;
            let counts_as = if rests { self.rest(hand)? } else { As::Active };
            self.active.count_as(counts_as);
            let until = wake.filter(|_| !nothing_due);
            // Where the disk has failed it stays: it couldn't be read again as it is.
            if self.can_be_put_down(hand, until) && self.shared.journal.durable(hand.position).await.is_ok() {
                return Ok(Pause::Until(until, self.put_down(lent)));
            }
            if rests {
                self.turn = None;
            }
            // Who begins for a step of it meanwhile writes that down without this task.
            self.entry.lent.lend(lent);
            let woken = self.next(wake).await;
            lent = self.entry.lent.take_back()?;
            let hand = &mut *lent;
            match woken {
                Woken::Heard(attempt, heard, lingered) => {
                    let input = self.heard(hand, attempt, heard, lingered);
                    hand.decide(self.shared, self.entry, input)?;
                }
                Woken::Due => hand.decide(self.shared, self.entry, Input::Timer)?,
                Woken::Told(Message::Order(order)) => self.obey(hand, order)?,
                Woken::Told(Message::Nested { step, child, answer }) => {
                    let may = hand.nest(self.shared, self.entry, &step, child)?;
                    // Who has gone away since never begins.
                    drop(answer.send(may));
                }
                Woken::Told(Message::Revoke(answer)) => self.revoke(hand, answer).await?,
            }
        }
    }

    /// Whether something is still listened to.
    fn hears_out(&self) -> bool {
        self.late.as_ref().is_some_and(|late| !late.is_empty())
    }

    /// Says whether the saga only waits for what may come late.
    fn tell_listening(&mut self, hand: &Hand) {
        let steps = match self.calls.is_empty() {
            true => hand.saga.only_listens(),
            false => Vec::new(),
        };
        self.listens = !steps.is_empty();
        let listening = self.late_until.filter(|_| self.listens).map(|until| {
            let steps = steps
                .iter()
                .filter_map(|step| self.entry.plan.steps.get(step.index()));
            Listening {
                steps: steps.map(|step| step.name.clone()).collect(),
                until,
            }
        });
        self.entry.update(|summary| summary.listening = listening);
    }

    /// The journal has all of it, nothing is in flight or listened to, and nothing is due soon.
    fn can_be_put_down(&self, hand: &Hand, until: Option<Timestamp>) -> bool {
        let quiet = self.calls.is_empty() && !self.hears_out() && self.above.is_empty();
        let far = until.is_none_or(|at| at.since(self.shared.clock.now()) >= self.shared.settings.far);
        quiet && far && !hand.hides && !self.entry.is_awaited() && self.entry.inbox.is_empty()
    }

    /// Takes an operator's decision, or says why not. Who gave it waits until it is durable.
    fn obey(&mut self, hand: &mut Hand, order: Order) -> Result<(), JournalError> {
        // Counted before the look at `draining`, as a saga that starts.
        self.active.count_as(As::Active);
        let answer = if self.shared.draining.load(Ordering::SeqCst) {
            Err(ActError::Draining)
        } else if let Some(cause) = self.shared.journal.failure() {
            // It would halt the saga, and help nobody.
            Err(ActError::Journal(cause))
        } else if let Some(objection) = hand.saga.objection(&order.operator.action) {
            Err(ActError::NotNow(objection.to_owned()))
        } else if order.dry_run {
            Ok(None)
        } else {
            let (id, name) = (self.entry.id, &self.entry.plan.name);
            let (who, why) = (order.operator.who.clone(), order.operator.why.clone());
            let action = order.operator.action.clone();
            let input = Input::Operator(order.operator);
            if let Err(error) = hand.decide(self.shared, self.entry, input) {
                drop(order.answer.send(Err(ActError::Journal(error.to_string()))));
                return Err(error);
            }
            tracing::info!(saga = %id, name, ?action, who, why, "an operator decided");
            Ok(Some(hand.position))
        };
        // Whoever has gone away since may look at the history.
        drop(order.answer.send(answer));
        Ok(())
    }

    /// The saga that this one is nested in undoes it, and waits for that.
    async fn revoke(
        &mut self,
        hand: &mut Hand,
        answer: oneshot::Sender<Result<(), String>>,
    ) -> Result<(), JournalError> {
        if hand.saga.state() == SagaState::Committed {
            // By a late answer it can be, with another attempt in flight: what that does must not come behind its undoing.
            while let Some((attempt, heard)) = self.calls.next().await {
                let input = self.heard(hand, attempt, heard, false);
                hand.decide(self.shared, self.entry, input)?;
            }
            self.late = None;
            self.in_flight = Vec::new();
        }
        if let Some(objection) = hand.saga.revoke_objection() {
            drop(answer.send(Err(objection.to_owned())));
            return Ok(());
        }
        hand.decide(self.shared, self.entry, Input::Revoked)?;
        if self.replied {
            hand.saga.reply_given();
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

    /// Carries out what has not begun, and says when the machine wants to be woken.
    async fn carry_out(&mut self, hand: &mut Hand) -> Result<Option<Timestamp>, JournalError> {
        let mut wake: Option<Timestamp> = None;
        let mut held_back = Vec::new();
        let mut reply = false;
        for command in hand.saga.commands() {
            match command {
                Command::Call(call) if self.has_begun(&call) => {}
                Command::Call(call) if call.durable_first => held_back.push(call),
                Command::Call(call) => self.send(hand, call),
                Command::Wake(timer) => wake = Some(wake.map_or(timer.at, |w| w.min(timer.at))),
                Command::Reply => reply = !self.replied,
            }
        }
        // What is in memory alone has no place to wait for.
        if (reply || !held_back.is_empty()) && hand.position != Position::default() {
            self.shared.journal.durable(hand.position).await?;
        }
        for call in held_back {
            self.send(hand, call);
        }
        if reply {
            let secrets = &self.shared.settings.secrets;
            let early = self.early.take();
            if let Some(reply) = early.or_else(|| hand.saga.reply(secrets).map(Arc::new)) {
                hand.saga.reply_given();
                let (at, status) = (self.shared.clock.now(), reply.status);
                let replied = Replied { at, status };
                if let Some(traced) = &mut hand.traced {
                    traced.answered(status);
                }
                self.entry.update(|summary| summary.replied = Some(replied));
                self.shared.feed.replied(&of(self.entry), replied, secrets);
                self.replied = true;
                match self.is_over(hand) || hand.hides {
                    true => self.entry.answer(Ok(reply)),
                    // It may last for days; its events tell the same.
                    false => self.entry.answer_once(Ok(reply)),
                }
            }
        }
        Ok(wake)
    }

    /// Final, and everybody knows.
    fn is_over(&self, hand: &Hand) -> bool {
        self.replied && matches!(hand.saga.state(), SagaState::Committed | SagaState::Compensated)
    }

    fn has_begun(&self, call: &Call) -> bool {
        let attempt = (call.step, call.direction, call.attempt);
        self.in_flight.iter().any(|(begun, _)| *begun == attempt)
    }

    fn send(&mut self, hand: &mut Hand, call: Call) {
        let attempt = (call.step, call.direction, call.attempt);
        if let Some(traced) = &mut hand.traced {
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
                let child = hand.saga.child(call.step, n);
                exchange(attempt, shared().undo(call, child))
            }
            (_, Err(nested::Stopped)) => exchange(attempt, std::future::pending()),
            (_, Ok(Some(found))) => exchange(attempt, nested::carry_out(shared(), call, found)),
            (_, Ok(None)) => {
                let (upstream, pod) = (self.shared.upstream.clone(), self.pod.clone());
                let http2 = hand.saga.trigger().http2;
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
        let late = async {
            match &mut self.late {
                Some(late) => late.next().await,
                None => None,
            }
        };
        tokio::select! {
            Some((attempt, heard)) = self.calls.next() => Woken::Heard(attempt, heard, false),
            Some((attempt, heard)) = late => Woken::Heard(attempt, heard, true),
            () = timer => Woken::Due,
            message = self.entry.inbox.next() => Woken::Told(message),
        }
    }

    /// What an exchange, or what was heard of it beyond its time, tells the machine.
    fn heard(&mut self, hand: &mut Hand, attempt: Attempt, (end, late): Heard, lingered: bool) -> Input {
        let now = self.shared.clock.now();
        let begun = self.in_flight.iter().find(|(begun, _)| *begun == attempt);
        let began = begun.map(|(_, began)| *began);
        self.in_flight.retain(|(begun, _)| *begun != attempt);
        if self.in_flight.is_empty() {
            // A saga may rest for days.
            self.in_flight = Vec::new();
        }
        let (step, direction, number) = attempt;
        hand.open = (!hand.saga.is_settled(step)).then_some(step);
        // What is heard beyond its time took all of that.
        hand.took = began
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
            hand.saga.decide(listening, now);
            let until = late.until().saturating_duration_since(Instant::now());
            self.late_until = self.late_until.max(Some(now.after(until)));
            self.late
                .get_or_insert_default()
                .push(exchange(attempt, hear_out(late)));
            self.in_flight.push((attempt, now));
        }
        Input::Outcome(Outcome {
            step,
            direction,
            attempt: number,
            end,
        })
    }

    fn end(&mut self, hand: &mut Hand) {
        let undone = match hand.saga.state() {
            SagaState::Compensated => Ok(()),
            _ => Err("its pivot is applied, and can't be undone".to_owned()),
        };
        self.tell_above(&undone);
        let now = self.shared.clock.now();
        self.entry.update(|summary| {
            summary.ended = Some(now);
            summary.listening = None;
        });
        if let Some(traced) = hand.traced.take() {
            traced.end(&hand.saga, now);
        }
        let (id, name) = (self.entry.id, &self.entry.plan.name);
        let (state, took) = (hand.saga.state().as_str(), now.since(hand.began));
        let summary = self.entry.summary();
        let failed_step = summary.failed_step.as_deref();
        // What goes well is counted; a line for each would be most of the log, and of what a saga costs.
        match failed_step {
            None => {
                tracing::debug!(target: OUTCOME, saga = %id, name, state, ?took, trace = %hand.trace(), "saga ended")
            }
            Some(failed_step) => {
                tracing::info!(target: OUTCOME, saga = %id, name, state, ?took, failed_step, trace = %hand.trace(), "saga ended");
            }
        }
    }

    /// Nothing is in flight, and no moment that anybody waits for is due: for whom it waits.
    fn rest(&mut self, hand: &mut Hand) -> Result<As, JournalError> {
        match hand.saga.state() {
            SagaState::Stuck => {
                if self.told != hand.next {
                    self.told = hand.next;
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
            SagaState::Running | SagaState::Compensating if hand.saga.is_paused() => Ok(As::Paused),
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
        let mut active = Active::enter(shared);
        let (mut drive, mut hand) =
            Drive::begin(&mut active, shared, &entry, hash, trigger, Via::Node).unwrap();
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
            let events = hand.saga.decide(input, now);
            hand.append(shared, &entry, events).unwrap();
        }
        let _caller = entry.subscribe();
        let paused = tokio::time::timeout(Duration::from_secs(3600), drive.run(hand)).await;
        assert!(matches!(paused, Ok(Ok(Pause::Until(None, _)))), "{paused:?}");
        assert_eq!(
            entry.summary().replied.unwrap().status,
            502,
            "its caller has a reply"
        );
    }
}
