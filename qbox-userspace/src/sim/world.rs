//! One saga in its world: services, a journal of which a crash may take the end, a clock that stands still until it is set.
//!
//! Does as the runner does (`runner/drive.rs`): appends what was decided, sends what need not wait, waits for the journal, sends the
//! rest, replies. In between, Qbox may die.

use super::laws;
use super::plans::Scene;
use super::service::Service;
use crate::saga::{
    AttemptEnd, Call, Command, Direction, Event, Headers, Input, Operator, OperatorAction, Outcome, Request,
    Response, Saga, SagaId, SagaState, StepId, StepState, StepView, Timestamp, Trigger, UndoState,
};
use bytes::Bytes;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

pub(super) const ID: SagaId = SagaId(0x018f_2c1e_7a5b_7c3d_8e9f_0a1b_2c3d_4e5f);
const OTHER: &str = "the journal's events add up to another saga than the one that wrote them";
const START: Timestamp = Timestamp(1_700_000_000_000_000);

/// What of the bad may still happen in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// Attempts that don't go well, and deadlines that pass meanwhile.
    pub(super) faults: u8,
    /// Crashes.
    pub(super) crashes: u8,
    /// Decisions of an operator.
    pub(super) decisions: u8,
    /// Sagas that begin for its steps.
    pub(super) nested: u8,
    /// Whether the saga above undoes it.
    pub(super) revoked: u8,
}

/// What a service makes of a request, and what Qbox hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Done and answered.
    Well,
    /// 409, and nothing done.
    Refused,
    /// Not a byte left.
    NotSent,
    /// Qbox itself held it back (its circuit breaker).
    Held,
    /// Done, and answered with 500.
    FailedDone,
    /// 500, and nothing done.
    Failed,
    /// Done; no answer in time.
    SilentDone,
    /// No answer in time; it may still be done later.
    Silent,
    /// Done; then the connection broke.
    BrokenDone,
}

/// `(step, direction, attempt)`.
pub(super) type Attempt = (StepId, Direction, u32);

/// One thing that can happen next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    /// The journal is on disk; what waited for that leaves.
    Durable,
    /// Qbox dies and starts again; the journal's first events are left. What was under way at the services is done if `landed`; where
    /// they are fenced, transactions may be done later.
    Crash { kept: usize, landed: bool },
    /// An attempt ends; if `landed`, an earlier one that was given up is done just before.
    End {
        attempt: Attempt,
        how: How,
        landed: bool,
    },
    /// The clock goes to the moment that the saga waits for.
    Timer,
    /// An attempt that was given up is done after all, if it wasn't before, and its answer arrives.
    Late { step: StepId, attempt: u32 },
    /// An attempt that was given up is not listened to any more, and will not be done.
    Silence { step: StepId, attempt: u32 },
    /// An operator decides.
    Decide(OperatorAction),
    /// A saga is about to begin for a step.
    Nest(StepId),
    /// The saga that it is nested in undoes it.
    Revoke,
}

/// A saga and all around it.
#[derive(Clone)]
pub(super) struct World {
    pub(super) scene: Rc<Scene>,
    pub(super) saga: Saga,
    pub(super) journal: Vec<Rc<Event>>,
    /// How many events a crash can't take.
    pub(super) durable: usize,
    pub(super) services: Vec<Service>,
    /// What the caller was told, if that was an end.
    pub(super) told: Option<SagaState>,
    /// Qbox has died before.
    pub(super) crashed: bool,
    /// A compensation was sent.
    pub(super) undoing: bool,
    /// Nothing was left of the journal.
    forgotten: bool,
    /// A crash took the record of an answer that came when all was undone: nobody can know of it.
    excused: bool,
    /// An operator has tried again what was stuck.
    pub(super) healed: bool,
    budget: Budget,
    now: Timestamp,
    /// What is held back until the journal is on disk, if anything is.
    waits: bool,
    open: Vec<Attempt>,
    /// Transactions whose time is over, and that Qbox still listens to: `(step, attempt)`. In a fenced world it never does, as
    /// where too many are.
    listening: Vec<(StepId, u32)>,
    replied: bool,
    /// What the durable events add up to.
    base: Rc<Saga>,
    /// When the saga wants to be woken.
    wake: Option<Timestamp>,
    /// Where the journal says that the last late success came.
    late_at: Option<usize>,
}

/// What happened is not what was promised.
pub(super) type Broken = String;

fn trigger() -> Trigger {
    let mut headers = Headers::default();
    headers.push("X-Qbox-TransactionID", SagaId(1).to_string());
    headers.push("X-Qbox-Step", "above");
    Trigger {
        request: Request {
            method: "POST".to_owned(),
            url: "http://trips/trips/7".to_owned(),
            headers,
            body: Bytes::new(),
        },
        path: vec![("trip".to_owned(), "7".to_owned())],
        destination: None,
        http2: false,
        depth: 0,
    }
}

impl World {
    pub(super) fn new(scene: &Rc<Scene>, budget: Budget) -> Result<Self, Broken> {
        let (saga, events) = Saga::begin(
            ID,
            scene.plan.clone(),
            scene.hash,
            42,
            trigger(),
            START,
            usize::MAX,
        );
        let began = events.iter().take(1).cloned();
        let unsent = Saga::replay(scene.plan.clone(), began).map_err(|error| error.to_string())?;
        let mut world = Self {
            scene: Rc::clone(scene),
            saga,
            journal: events.into_iter().map(Rc::new).collect(),
            durable: 0,
            services: Service::all(&scene.plan),
            told: None,
            crashed: false,
            undoing: false,
            forgotten: false,
            excused: false,
            healed: false,
            budget,
            now: START,
            waits: false,
            open: Vec::new(),
            listening: Vec::new(),
            replied: false,
            base: Rc::new(unsent),
            wake: None,
            late_at: None,
        };
        world.carry_out()?;
        Ok(world)
    }

    /// Two worlds in which the same can happen have the same number.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        (self.saga.fingerprint(self.now), &self.services, self.budget).hash(&mut hash);
        let mut open = self.open.clone();
        open.sort_unstable_by_key(|(step, direction, _)| (*step, place(*direction)));
        open.hash(&mut hash);
        let mut listening = self.listening.clone();
        listening.sort_unstable();
        listening.hash(&mut hash);
        (self.told, self.crashed, self.undoing, self.healed).hash(&mut hash);
        (self.waits, self.replied, self.late_at.is_some()).hash(&mut hash);
        if self.budget.crashes > 0 {
            (self.durable == 0, self.base.fingerprint(self.now)).hash(&mut hash);
            for event in &self.journal[self.durable..] {
                put_event(event, &mut hash);
            }
        }
        hash.finish()
    }

    /// It has ended, and the caller knows.
    fn is_over(&self) -> bool {
        let state = self.saga.state();
        matches!(state, SagaState::Committed | SagaState::Compensated) && !self.waits
    }

    /// All that can happen next. Nothing: the run is over.
    pub(super) fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        if self.forgotten || self.excused {
            return acts;
        }
        if self.is_over() {
            if self.durable < self.journal.len() {
                // The caller was answered before the end.
                self.crashes(&mut acts);
            }
            if self.saga.state() == SagaState::Committed && self.may_be_revoked() {
                acts.push(Act::Revoke);
            }
            return acts;
        }
        if self.waits {
            acts.push(Act::Durable);
            self.crashes(&mut acts);
            return acts;
        }
        for (step, direction, _) in &self.open {
            self.ends(*step, *direction, &mut acts);
        }
        if self.wake.is_some() {
            acts.push(Act::Timer);
        }
        for (step, attempt) in self.listening.iter().copied() {
            acts.extend([Act::Late { step, attempt }, Act::Silence { step, attempt }]);
        }
        if self.may_be_revoked() {
            acts.push(Act::Revoke);
        }
        if self.budget.nested > 0 {
            let sent = (0..)
                .map(StepId)
                .zip(&self.services)
                .filter(|(_, service)| service.sent);
            acts.extend(sent.map(|(step, _)| Act::Nest(step)));
        }
        if self.saga.is_paused() {
            acts.push(Act::Decide(OperatorAction::Resume));
        } else if self.is_stuck() && !self.healed {
            acts.push(Act::Decide(OperatorAction::Retry(None)));
        }
        if self.budget.decisions > 0 {
            acts.extend([OperatorAction::Pause, OperatorAction::Compensate].map(Act::Decide));
            acts.push(Act::Decide(OperatorAction::Retry(None)));
            for step in (0..).take(self.services.len()).map(StepId) {
                acts.push(Act::Decide(OperatorAction::Skip(step)));
                acts.push(Act::Decide(OperatorAction::Retry(Some(step))));
            }
        }
        self.crashes(&mut acts);
        acts
    }

    /// Stuck, and nothing is under way any more.
    pub(super) fn is_stuck(&self) -> bool {
        self.saga.state() == SagaState::Stuck && self.open.is_empty() && self.wake.is_none()
    }

    fn crashes(&self, acts: &mut Vec<Act>) {
        if self.budget.crashes == 0 {
            return;
        }
        let fenced = self.scene.fenced;
        let matters = |(_, direction, _): &Attempt| match direction {
            Direction::Transaction => !fenced,
            Direction::Probe => false,
            Direction::Compensation(_) | Direction::Child(_) => true,
        };
        for kept in self.durable..=self.journal.len() {
            acts.push(Act::Crash { kept, landed: false });
            if self.open.iter().any(matters) {
                acts.push(Act::Crash { kept, landed: true });
            }
        }
    }

    fn ends(&self, step: StepId, direction: Direction, acts: &mut Vec<Act>) {
        let hangs = self.services[step.index()].may_land(self.scene.fenced)
            && !matches!(direction, Direction::Child(_));
        let attempt = *self
            .open
            .iter()
            .find(|open| (open.0, open.1) == (step, direction))
            .unwrap();
        let hows: &[How] = match direction {
            _ if self.budget.faults == 0 => &[How::Well],
            Direction::Transaction => &[
                How::Well,
                How::Refused,
                How::NotSent,
                How::Held,
                How::FailedDone,
                How::Failed,
                How::SilentDone,
                How::Silent,
                How::BrokenDone,
            ],
            Direction::Probe => &[How::Well, How::Failed],
            // Not sent: it says that it can't be undone.
            Direction::Child(_) => &[How::Well, How::NotSent, How::SilentDone, How::Silent],
            Direction::Compensation(_) => &[
                How::Well,
                How::NotSent,
                How::Held,
                How::FailedDone,
                How::Failed,
                How::SilentDone,
                How::Silent,
            ],
        };
        for how in hows {
            let landed = false;
            acts.push(Act::End {
                attempt,
                how: *how,
                landed,
            });
            if hangs && direction != Direction::Transaction {
                let landed = true;
                acts.push(Act::End {
                    attempt,
                    how: *how,
                    landed,
                });
            }
        }
    }

    /// The world after it; nothing, if it can't happen now.
    pub(super) fn after(&self, act: &Act) -> Result<Option<Self>, Broken> {
        let mut world = self.clone();
        let possible = match act {
            Act::Durable => {
                world.sync();
                world.carry_out()?;
                true
            }
            Act::Crash { kept, landed } => {
                world.crash(*kept, *landed)?;
                true
            }
            Act::End { attempt, how, landed } => {
                if *how != How::Well {
                    world.budget.faults -= 1;
                }
                world.end(*attempt, *how, *landed)?;
                true
            }
            Act::Timer => world.sleep()?,
            Act::Late { step, attempt } => {
                world.late(*step, *attempt)?;
                true
            }
            Act::Silence { step, attempt } => {
                world.silence(*step, *attempt)?;
                true
            }
            Act::Decide(action) => world.decide(action)?,
            Act::Nest(step) => {
                world.nest(*step)?;
                true
            }
            Act::Revoke => {
                world.budget.revoked -= 1;
                if world.saga.state() == SagaState::Committed {
                    world.stop_listening();
                }
                world.input(Input::Revoked)? > 0
            }
        };
        if !possible {
            return Ok(None);
        }
        if !world.forgotten && !world.excused {
            laws::always(&world)?;
            if world.is_over() {
                laws::at_the_end(&world)?;
            }
        }
        Ok(Some(world))
    }

    /// The journal's events, read as a start reads them, are this saga.
    pub(super) fn check_journal(&self) -> Result<(), Broken> {
        let events = self.journal.iter().map(|event| (**event).clone());
        let folded = Saga::replay(self.scene.plan.clone(), events).map_err(|error| error.to_string())?;
        match folded.fingerprint(self.now) == self.saga.fingerprint(self.now) {
            true => Ok(()),
            false => Err(OTHER.to_owned()),
        }
    }

    /// All that was appended is on disk.
    fn sync(&mut self) {
        // What waited for that begins: its first transactions leave.
        self.begin_nested(true);
        self.durable = self.journal.len();
        if self.budget.crashes > 0 {
            self.base = Rc::new(self.saga.clone());
        }
        self.waits = false;
    }

    /// The sagas whose beginning is on record since the last look do what they do, or never will.
    fn begin_nested(&mut self, begin: bool) {
        for (at, service) in self.services.iter_mut().enumerate() {
            let of_it =
                |event: &&Rc<Event>| matches!(&***event, Event::Nested { step, .. } if step.index() == at);
            let known = self.journal.iter().filter(of_it).count();
            service.children.resize(known, begin);
        }
    }

    /// What the journal's first events add up to. The durable ones have been added up before.
    fn folded(&self, kept: usize) -> Result<Saga, Broken> {
        let mut folded = Saga::clone(&self.base);
        let known = self.durable.max(1);
        for event in self.journal.iter().take(kept).skip(known) {
            folded.fold(event).map_err(|error| error.to_string())?;
        }
        Ok(folded)
    }

    /// The saga above has undone it, as far as is on record.
    pub(super) fn is_revoked(&self) -> bool {
        self.journal
            .iter()
            .any(|event| matches!(**event, Event::Revoked { .. }))
    }

    /// Nothing is under way, and nothing will be by itself.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.wake.is_none() && self.listening.is_empty() && !self.waits
    }

    fn input(&mut self, input: Input) -> Result<usize, Broken> {
        let events = self.saga.decide(input, self.now);
        let new = events.len();
        self.journal.extend(events.into_iter().map(Rc::new));
        self.carry_out()?;
        Ok(new)
    }

    /// Sends what may be sent, and replies; or waits for the journal.
    fn carry_out(&mut self) -> Result<(), Broken> {
        let (mut held, mut reply) = (false, false);
        self.wake = None;
        for command in self.saga.commands() {
            match command {
                Command::Call(call) => {
                    if self.open.contains(&attempt(&call)) {
                    } else if call.durable_first && self.durable < self.journal.len() {
                        held = true;
                    } else {
                        self.send(&call)?;
                    }
                }
                Command::Reply => reply = !self.replied,
                Command::Wake(timer) => self.wake = Some(timer.at),
            }
        }
        if reply && self.durable == self.journal.len() {
            laws::replied(self)?;
            self.replied = true;
            let state = self.saga.state();
            let ended = matches!(state, SagaState::Committed | SagaState::Compensated);
            self.told = self.told.or(Some(state).filter(|_| ended));
            reply = false;
        }
        let begins = |event: &Rc<Event>| matches!(**event, Event::Nested { .. });
        self.waits = reply || held || self.journal[self.durable..].iter().any(begins);
        if self.waits && self.budget.crashes == 0 {
            // Only a crash could tell the difference.
            self.sync();
            self.carry_out()?;
        }
        Ok(())
    }

    fn send(&mut self, call: &Call) -> Result<(), Broken> {
        laws::sent(self, call)?;
        self.open.push(attempt(call));
        match call.direction {
            Direction::Transaction => self.services[call.step.index()].sent = true,
            Direction::Compensation(_) | Direction::Child(_) => self.undoing = true,
            Direction::Probe => {}
        }
        Ok(())
    }

    fn end(&mut self, attempt: Attempt, how: How, landed: bool) -> Result<(), Broken> {
        self.open.retain(|open| *open != attempt);
        let (step, direction, number) = attempt;
        let round = self.saga.undo_round(step);
        let fenced = self.scene.fenced;
        let service = &mut self.services[step.index()];
        if landed {
            service.land();
        }
        let done = matches!(
            how,
            How::Well | How::FailedDone | How::SilentDone | How::BrokenDone
        );
        let mut status = 200;
        match direction {
            Direction::Transaction => {
                if done {
                    service.happen();
                } else if how == How::Silent {
                    service.hanging.push(number);
                }
                service.may_have |= !matches!(how, How::NotSent | How::Held | How::Refused);
            }
            Direction::Probe if done => {
                if !service.look(fenced) {
                    service.may_have = false;
                    status = 404;
                }
            }
            Direction::Compensation(n) if done => {
                if !service.undo(n, round, fenced) {
                    status = 404;
                }
            }
            Direction::Child(n) if done => service.undo_child(n),
            Direction::Probe | Direction::Compensation(_) | Direction::Child(_) => {}
        }
        let silent = matches!(how, How::SilentDone | How::Silent);
        if silent && direction == Direction::Transaction && !fenced {
            self.listening.push((step, number));
            let listening = Input::Listening {
                step,
                attempt: number,
            };
            if !self.saga.decide(listening, self.now).is_empty() {
                return Err("something followed from listening alone".to_owned());
            }
        }
        let end = match how {
            How::Well => answered(status),
            How::Refused => answered(409),
            How::NotSent => AttemptEnd::NotSent("connection refused".to_owned()),
            How::Held => AttemptEnd::Held("the circuit is open".to_owned()),
            How::FailedDone | How::Failed => answered(500),
            How::SilentDone | How::Silent => AttemptEnd::TimedOut,
            How::BrokenDone => AttemptEnd::Broken("reset".to_owned()),
        };
        self.input(Input::Outcome(outcome(attempt, end)))?;
        Ok(())
    }

    /// None begins without the saga's leave.
    fn nest(&mut self, step: StepId) -> Result<(), Broken> {
        self.budget.nested -= 1;
        let undoing = self.undoing;
        let asked = self.saga.nesting_objection(step).is_none();
        let taken = self.input(Input::Nested(step, SagaId(u128::from(step.0) + 2)))? > 0;
        match (asked == taken, taken && undoing) {
            (false, _) => Err("a saga is let begin that nobody knows of, or the other way round".to_owned()),
            (true, true) => Err("a saga begins for a step when it is being undone".to_owned()),
            (true, false) => Ok(()),
        }
    }

    fn late(&mut self, step: StepId, number: u32) -> Result<(), Broken> {
        self.listening.retain(|open| *open != (step, number));
        let service = &mut self.services[step.index()];
        let hung = service.hanging.len();
        service.hanging.retain(|hanging| *hanging != number);
        let settled = service.happened || service.by_hand;
        service.late |= settled || self.undoing || !service.may_have;
        service.may_have = true;
        if service.hanging.len() < hung {
            service.happen();
        }
        self.late_at = Some(self.journal.len());
        let attempt = (step, Direction::Transaction, number);
        match self.input(Input::Outcome(outcome(attempt, answered(200))))? {
            0 => Err("an answer that came late was not looked at".to_owned()),
            _ => Ok(()),
        }
    }

    fn silence(&mut self, step: StepId, number: u32) -> Result<(), Broken> {
        self.listening.retain(|open| *open != (step, number));
        let hanging = &mut self.services[step.index()].hanging;
        hanging.retain(|hanging| *hanging != number);
        let attempt = (step, Direction::Transaction, number);
        self.input(Input::Outcome(outcome(attempt, AttemptEnd::TimedOut)))?;
        Ok(())
    }

    /// False: it would be a fault more than may be.
    fn sleep(&mut self) -> Result<bool, Broken> {
        let wake = self.wake.ok_or("there is nothing to wait for")?;
        let (from, hurried) = (self.journal.len(), !self.open.is_empty());
        self.now = self.now.max(wake);
        if self.input(Input::Timer)? == 0 {
            return Err("woken for nothing".to_owned());
        }
        let overdue =
            |event: &Rc<Event>| matches!(**event, Event::Failed { step: None, .. } | Event::ReplyDue { .. });
        if hurried && self.journal[from..].iter().any(overdue) {
            match self.budget.faults.checked_sub(1) {
                Some(left) => self.budget.faults = left,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// False: it can't be decided now.
    fn decide(&mut self, action: &OperatorAction) -> Result<bool, Broken> {
        let heals = self.is_stuck() && !self.healed && *action == OperatorAction::Retry(None);
        if heals {
            self.healed = self.budget.faults == 0;
        } else if *action != OperatorAction::Resume {
            let Some(left) = self.budget.decisions.checked_sub(1) else {
                return Ok(false);
            };
            self.budget.decisions = left;
        }
        if let OperatorAction::Skip(step) = action {
            self.services[step.index()].settle();
        }
        if *action == OperatorAction::Compensate {
            let open =
                |view: &StepView<'_>| view.state == StepState::Running && view.undo == UndoState::Stuck;
            for (service, _) in self
                .services
                .iter_mut()
                .zip(self.saga.steps())
                .filter(|(_, view)| open(view))
            {
                service.forbid();
            }
        }
        let operator = Operator {
            action: action.clone(),
            who: "ada".to_owned(),
            why: "a test".to_owned(),
        };
        Ok(self.input(Input::Operator(operator))? > 0)
    }

    /// One that is committed is revoked once none of its calls is in flight any more.
    fn may_be_revoked(&self) -> bool {
        self.budget.revoked > 0 && (self.saga.state() != SagaState::Committed || self.open.is_empty())
    }

    /// The connections are closed of what is in nobody's hand any more.
    fn stop_listening(&mut self) {
        if !self.scene.fenced {
            // Nobody hears of them any more; that is promised by nobody.
            self.services
                .iter_mut()
                .for_each(|service| service.hanging.clear());
        }
        self.listening.clear();
    }

    fn crash(&mut self, kept: usize, landed: bool) -> Result<(), Broken> {
        self.budget.crashes -= 1;
        for (step, direction, number) in std::mem::take(&mut self.open) {
            let round = self.saga.undo_round(step);
            let service = &mut self.services[step.index()];
            match direction {
                Direction::Transaction => {
                    service.may_have = true;
                    if self.scene.fenced {
                        service.hanging.push(number);
                    } else if landed {
                        service.happen();
                    }
                }
                Direction::Compensation(n) if landed => {
                    service.undo(n, round, self.scene.fenced);
                }
                Direction::Child(n) if landed => service.undo_child(n),
                Direction::Probe | Direction::Compensation(_) | Direction::Child(_) => {}
            }
        }
        self.stop_listening();
        self.excused = self.late_at.is_some_and(|at| kept <= at);
        if kept == 0 {
            self.forgotten = true;
            return match self.services.iter().any(|service| service.sent) {
                true => Err("the journal has lost a saga that has sent".to_owned()),
                false => Ok(()),
            };
        }
        let (before, all) = (self.saga.state(), kept == self.journal.len());
        let folded = self.folded(kept)?;
        if all && folded.fingerprint(self.now) != self.saga.fingerprint(self.now) {
            return Err(OTHER.to_owned());
        }
        self.journal.truncate(kept);
        // What was written, but not known to be, may be there: the saga that waited for it never began.
        self.begin_nested(false);
        self.saga = folded;
        (self.crashed, self.healed, self.replied, self.waits) = (true, false, false, false);
        self.input(Input::Recovered)?;
        let ended = matches!(before, SagaState::Committed | SagaState::Compensated);
        if all && ended && self.saga.state() != before {
            return Err(format!(
                "{before:?} before a restart, {:?} after it",
                self.saga.state()
            ));
        }
        Ok(())
    }
}

fn attempt(call: &Call) -> Attempt {
    (call.step, call.direction, call.attempt)
}

fn answered(status: u16) -> AttemptEnd {
    AttemptEnd::Answered(Response {
        status,
        headers: Headers::default(),
        body: Bytes::new(),
        truncated: false,
    })
}

fn outcome((step, direction, attempt): Attempt, end: AttemptEnd) -> Outcome {
    Outcome {
        step,
        direction,
        attempt,
        end,
    }
}

fn place(direction: Direction) -> u32 {
    match direction {
        Direction::Transaction => 0,
        Direction::Probe => 1,
        Direction::Compensation(n) => 2 + u32::from(n),
        Direction::Child(n) => 0x1_0002 + u32::from(n),
    }
}

/// What an event is, but for its moments.
fn put_event(event: &Event, hash: &mut DefaultHasher) {
    std::mem::discriminant(event).hash(hash);
    match event {
        Event::Skipped { step, .. }
        | Event::StepFailed { step, .. }
        | Event::Nested { step, .. }
        | Event::Undone { step, .. }
        | Event::Stuck { step, .. } => step.hash(hash),
        Event::Sending {
            step,
            direction,
            attempt,
            ..
        }
        | Event::RetryAt {
            step,
            direction,
            attempt,
            ..
        } => {
            (step, direction, attempt).hash(hash);
        }
        Event::Ended {
            step,
            direction,
            attempt,
            end,
            class,
            ..
        } => {
            (step, direction, attempt, class, std::mem::discriminant(end)).hash(hash);
            if let AttemptEnd::Answered(response) = end {
                response.status.hash(hash);
            }
        }
        Event::Failed { step, .. } => step.hash(hash),
        Event::Decided { operator, .. } => format!("{:?}", operator.action).hash(hash),
        Event::Began { .. }
        | Event::Compensating { .. }
        | Event::ReplyDue { .. }
        | Event::Committed { .. }
        | Event::Compensated { .. }
        | Event::Revoked { .. }
        | Event::Recovered { .. } => {}
    }
}
