//! What is decided of a saga in hand, and recorded: its machine, and how far the journal is. Its task has it while it works, and lends it
//! while it waits, so that a saga that begins for one of its steps can be written down by whoever begins it: two tasks that tell each
//! other of it would each have to be woken, perhaps on another processor.
//!
//! Errors: the journal's, with which the saga can't go on; its task hears of one that somebody else has met.

use super::Shared;
use super::describe::Line;
use super::feed::Of;
use super::registry::Entry;
use super::stats::News;
use super::trace::Traced;
use crate::journal::{JournalError, Position};
use crate::saga::{Command, Direction, Event, Input, Saga, SagaId, SagaState, StepId, Timestamp};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Hand {
    pub(super) saga: Saga,
    /// The number of the next event, and how far the journal is.
    pub(super) next: u64,
    pub(super) position: Position,
    pub(super) began: Timestamp,
    /// The step whose attempt's end was heard of last, if it was neither applied nor had failed before.
    pub(super) open: Option<StepId>,
    /// How long the attempt took whose end was heard of last.
    pub(super) took: Option<(StepId, Direction, Duration)>,
    /// When its compensation began, if it has.
    pub(super) undoing: Option<Timestamp>,
    /// As many of its steps are under way as may be.
    pub(super) held_back: bool,
    /// The journal doesn't have all that this process knows.
    pub(super) hides: bool,
    /// Its spans, if they are recorded.
    pub(super) traced: Option<Box<Traced>>,
}

/// A [`Hand`] while its task waits.
#[derive(Debug, Default)]
pub(super) struct Lent(Mutex<Held>);

/// An error: with it somebody could not record what was decided, so that it is of no use any more.
type Held = Option<Result<Box<Hand>, JournalError>>;

impl Lent {
    fn held(&self) -> MutexGuard<'_, Held> {
        // A panic half-way through a change ends the process, or its saga with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the task, which waits.
    pub(super) fn lend(&self, hand: Box<Hand>) {
        *self.held() = Some(Ok(hand));
    }

    /// For the task, which goes on.
    ///
    /// # Errors
    /// Somebody has met one meanwhile.
    pub(super) fn take_back(&self) -> Result<Box<Hand>, JournalError> {
        let nowhere = || JournalError::Store("what is decided of the saga is nowhere: a bug".to_owned());
        self.held().take().unwrap_or_else(|| Err(nowhere()))
    }

    /// The task has gone.
    pub(super) fn clear(&self) {
        *self.held() = None;
    }

    /// Records that a saga begins for a step, or says why it may not. `None`: the task is at work, and has to be asked.
    pub(super) fn nest(
        &self,
        shared: &Shared,
        entry: &Entry,
        step: &str,
        child: SagaId,
    ) -> Option<Result<(), String>> {
        let mut held = self.held();
        let Some(Ok(hand)) = held.as_mut() else {
            return None;
        };
        match hand.nest(shared, entry, step, child) {
            Ok(may) => Some(may),
            Err(error) => {
                *held = Some(Err(error));
                None
            }
        }
    }
}

impl Hand {
    /// Of a saga whose journal has so many events.
    pub(super) fn new(saga: Saga, next: u64) -> Box<Self> {
        Box::new(Self {
            began: saga.began(),
            saga,
            next,
            position: Position::default(),
            open: None,
            took: None,
            undoing: None,
            held_back: false,
            hides: false,
            traced: None,
        })
    }

    /// A saga is about to begin for a step of this one. Says why it may not.
    pub(super) fn nest(
        &mut self,
        shared: &Shared,
        entry: &Entry,
        step: &str,
        child: SagaId,
    ) -> Result<Result<(), String>, JournalError> {
        if let Some(cause) = shared.journal.failure() {
            return Ok(Err(cause));
        }
        if self.saga.state() == SagaState::Committed {
            return Ok(Ok(()));
        }
        let steps = (0..).map(StepId).zip(&entry.plan.steps);
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
        self.decide(shared, entry, Input::Nested(step, child))?;
        Ok(Ok(()))
    }

    /// Has the machine decide what follows, now, and records that.
    pub(super) fn decide(
        &mut self,
        shared: &Shared,
        entry: &Entry,
        input: Input,
    ) -> Result<(), JournalError> {
        let events = self.saga.decide(input, shared.clock.now());
        self.append(shared, entry, events)
    }

    /// Records what was decided, and tells those who look on.
    pub(super) fn append(
        &mut self,
        shared: &Shared,
        entry: &Entry,
        events: Vec<Event>,
    ) -> Result<(), JournalError> {
        if events.is_empty() {
            return Ok(());
        }
        // One allocation for all who keep them.
        let events = Arc::new(events);
        let (id, stamp) = (entry.id, entry.stamp.as_ref());
        let recorded = shared.sealed(id, entry.plan.needs(), stamp, self.next, &events);
        let apart = match recorded {
            Cow::Borrowed(_) => None,
            Cow::Owned(recorded) => Some(Arc::new(recorded)),
        };
        self.hides |= apart.is_some();
        let recorded = apart.as_ref().unwrap_or(&events);
        self.position = shared.journal.append_shared(id, self.next, recorded)?;
        self.next += events.len() as u64;
        let plan = &entry.plan;
        if tracing::enabled!(tracing::Level::DEBUG) {
            for event in events.iter() {
                let event = &shared.settings.secrets.event(event);
                tracing::debug!(saga = %entry.id, "{}", Line { event, plan, sent: None });
            }
        }
        let undoing = |event: &Event| match event {
            Event::Compensating { at } => Some(*at),
            _ => None,
        };
        self.undoing = events.iter().find_map(undoing).or(self.undoing);
        shared.stats.learn(&News {
            plan,
            saga: &self.saga,
            open: self.open.take(),
            began: self.began,
            undoing: self.undoing,
            events: &events,
            took: self.took.take(),
        });
        if let Some(traced) = &mut self.traced {
            traced.learn(&self.saga, plan, &shared.settings.secrets, &events);
        }
        // Few plans have as many steps.
        if plan.steps.len() > shared.settings.steps_in_flight {
            let held_back = self.saga.is_held_back();
            if held_back && !self.held_back {
                shared.stats.held_back();
            }
            self.held_back = held_back;
        }
        entry.update(|summary| summary.learn(&self.saga, &events));
        shared.feed.events(&of(entry), &events, &shared.settings.secrets);
        Ok(())
    }

    /// Its attempts that the end of a process has cut off.
    pub(super) fn trace_what_was_sent(&mut self, shared: &Shared, entry: &Entry, now: Timestamp) {
        let Some(traced) = &mut self.traced else {
            return;
        };
        for command in self.saga.commands() {
            if let Command::Call(call) = command {
                let since = self.saga.in_flight_since(call.step, call.direction);
                let secrets = &shared.settings.secrets;
                traced.sends(&call, since.unwrap_or(now), &entry.plan, secrets);
            }
        }
    }

    /// As `traceparent` has it.
    pub(super) fn trace(&self) -> String {
        format!("{:032x}", self.saga.trace().id)
    }
}

/// For those who look on.
pub(super) fn of(entry: &Entry) -> Of<'_> {
    Of {
        saga: entry.id,
        plan: &entry.plan,
        arrived: entry.arrived(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::registry::Admitted;
    use crate::runner::testing::{plan, runner, trigger};
    use crate::saga::Saga;

    #[tokio::test]
    async fn who_begins_for_a_step_writes_it_down_while_the_task_waits() {
        let (plan, hash) = plan(
            "name = \"x\"\n[trigger]\nurl = \"http://trips/trips/{trip}\"\n\
             [[step]]\nname = \"hotel\"\nrequest = { method = \"PUT\", url = \"http://hotel/7\" }\n",
        );
        let runner = runner();
        let shared = &runner.shared;
        let now = shared.clock.now();
        let admitted = shared.registry.admit(&plan, None, None, now, || Ok(())).unwrap();
        let (Admitted::New(entry), _) = admitted else {
            panic!("no key: a new saga");
        };
        let (saga, events) = Saga::begin(
            entry.id,
            Arc::clone(&plan),
            hash,
            1,
            trigger("7", None, ""),
            now,
            8,
        );
        let mut hand = Hand::new(saga, 0);
        hand.append(shared, &entry, events).unwrap();
        let (before, child) = (hand.next, SagaId(9));
        let nest = |step: &str| entry.lent.nest(shared, &entry, step, child);
        assert_eq!(nest("hotel"), None, "the task is at work");

        entry.lent.lend(hand);
        assert_eq!(nest("hotel"), Some(Ok(())));
        assert_eq!(nest("car"), Some(Err("it has no step `car`".to_owned())));
        let mut hand = entry.lent.take_back().unwrap();
        assert_eq!(
            (hand.next, hand.saga.child(StepId(0), 0)),
            (before + 1, Some(child))
        );
        let history = shared.journal.history(entry.id).unwrap().unwrap();
        assert!(
            matches!(history.last(), Some(Event::Nested { .. })),
            "{history:?}"
        );

        // The journal takes it for another one's: the task hears of that, and the saga doesn't go on.
        hand.next += 1;
        entry.lent.lend(hand);
        assert_eq!(nest("hotel"), None);
        assert_eq!(nest("car"), None, "nor is it asked again");
        assert!(matches!(entry.lent.take_back(), Err(JournalError::Order { .. })));
        entry.lent.clear();
        assert!(entry.lent.take_back().is_err());
    }
}
