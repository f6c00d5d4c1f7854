//! What is under way: the calls in flight, the next moment to wake, the reply.
//!
//! A function of the state, so that it may be asked any number of times. Puts the requests together (`apply` keeps them
//! while they are in flight).

use super::headers::Stamp;
use super::{Saga, SagaState};
use crate::saga::event::Direction;
use crate::saga::fill;
use crate::saga::id::{StepId, Timestamp};
use crate::saga::io::{Call, Command, Timer};
use crate::saga::message::Request;
use crate::saga::plan::{ReplyPlan, RequestPlan, RequestTemplate};
use crate::saga::reply::Reply;
use crate::saga::retry::Chance;
use crate::saga::secrets::Secrets;
use crate::saga::values::Values;
use std::sync::Arc;
use std::time::Duration;

impl Saga {
    /// All that is to be under way now. The runner carries out what it has not begun: a call is known by its
    /// step, direction and attempt, which never come twice.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = self.calls().map(Command::Call).collect();
        if let Some(at) = self.wake() {
            commands.push(Command::Wake(Timer { at }));
        }
        if self.answers() {
            commands.push(Command::Reply);
        }
        commands
    }

    fn calls(&self) -> impl Iterator<Item = Call> {
        self.each().flat_map(move |(id, step, run)| {
            run.lanes().filter_map(move |(direction, lane)| {
                let flight = lane.flight.as_ref()?;
                Some(Call {
                    step: id,
                    direction,
                    attempt: lane.sent,
                    request: Arc::clone(flight.request.as_ref().ok()?),
                    forward: Self::forwards(step, direction),
                    timeout: self.timeout(id, direction)?,
                    durable_first: flight.durable_first,
                })
            })
        })
    }

    fn timeout(&self, step: StepId, direction: Direction) -> Option<Duration> {
        let step = self.plan.steps.get(step.index())?;
        match direction {
            Direction::Transaction => Some(step.timeout),
            Direction::Probe => step.probe.as_ref().map(|probe| probe.timeout),
            Direction::Compensation(n) => step.compensations.get(usize::from(n)).map(|c| c.timeout),
        }
    }

    /// The next moment at which something follows from time alone. Only such moments: a timer always changes something.
    fn wake(&self) -> Option<Timestamp> {
        if self.ended.is_some() {
            return None;
        }
        let lanes = self.runs.iter().flat_map(|run| run.lanes());
        let retry = lanes
            .filter_map(|(_, lane)| lane.due)
            .min()
            .filter(|_| !self.paused);
        let goes_forward = self.turned.is_none() && !self.paused && !self.past_pivot();
        let deadline = goes_forward.then(|| self.began.after(self.plan.timeout));
        [retry, deadline, self.reply_due()].into_iter().flatten().min()
    }

    /// When the caller is answered although the saga has not ended: `reply_timeout` after compensation began, and never
    /// later than that after the deadline, whatever it waits for (a pivot that must be known, a step behind it that must be applied,
    /// an operator's pause). None: it is answered already.
    pub(super) fn reply_due(&self) -> Option<Timestamp> {
        if self.overdue || !matches!(self.state(), SagaState::Running | SagaState::Compensating) {
            return None;
        }
        let deadline = self.began.after(self.plan.timeout);
        let from = self.compensating.map_or(deadline, |began| began.min(deadline));
        Some(from.after(self.plan.reply_timeout))
    }

    fn answers(&self) -> bool {
        match self.state() {
            SagaState::Committed | SagaState::Compensated | SagaState::Stuck => true,
            SagaState::Running | SagaState::Compensating => self.overdue,
        }
    }

    /// The caller's answer, once there is one: the saga is committed, compensated or stuck, or the caller has waited long
    /// enough. As of now: a saga that is answered before its end would say something else at its end. A default reply, which
    /// repeats what a step answered, hides `secrets`; one of the file's says what the file says.
    #[must_use]
    pub fn reply(&self, secrets: &Secrets) -> Option<Reply> {
        if !self.answers() {
            return None;
        }
        let success = self.state() == SagaState::Committed;
        let plan = if success {
            &self.plan.reply_success
        } else {
            &self.plan.reply_failure
        };
        let values = Values {
            // A saga that still goes forward has an outcome in no other message.
            outcome: Some(self.state().as_str()),
            ..self.values()
        };
        let made = match plan {
            None => None,
            Some(ReplyPlan::Send(template)) => Some(fill::reply(template, &values)),
            Some(ReplyPlan::From(step)) => self.response_of(*step),
        };
        Some(made.unwrap_or_else(|| {
            if success {
                Reply::success(&self.summary(secrets))
            } else {
                Reply::failure(&self.summary(secrets))
            }
        }))
    }

    /// A step's answer as the caller's. None: there was none, or not all of it was kept.
    fn response_of(&self, step: StepId) -> Option<Reply> {
        let response = self.exchanges.get(step.index())?.response.as_ref()?;
        (!response.truncated).then(|| Reply::from_response(response))
    }

    /// The request of an attempt, complete; or why it can't be put together.
    pub(super) fn request(&self, id: StepId, direction: Direction, attempt: u32) -> Result<Request, String> {
        let step = self.plan.steps.get(id.index()).ok_or("no such step")?;
        let mut request = match (direction, &step.request) {
            (Direction::Transaction, RequestPlan::Forward) => self.trigger.request.clone(),
            (Direction::Transaction, RequestPlan::Send(template)) => self.fill(template)?,
            (Direction::Probe, _) => self.fill(&step.probe.as_ref().ok_or("no such probe")?.request)?,
            (Direction::Compensation(n), _) => {
                let compensation = step
                    .compensations
                    .get(usize::from(n))
                    .ok_or("no such compensation")?;
                let answered = self
                    .exchanges
                    .get(id.index())
                    .is_some_and(|e| e.response.is_some());
                if compensation.needs_response && !answered {
                    return Err(format!(
                        "the compensation needs the answer of `{}`, and there was none",
                        step.name
                    ));
                }
                self.fill(&compensation.request)?
            }
        };
        let stamp = Stamp {
            saga: self.id,
            step: &step.name,
            direction,
            round: self.run(id).map_or(0, |run| run.round),
            trigger: &self.trigger,
            chance: Chance::of_attempt(self.seed, id, direction, attempt),
            saga_chance: Chance::of_saga(self.seed),
        };
        let keeps_key = Self::forwards(step, direction);
        stamp.put(&mut request.headers, keeps_key);
        Ok(request)
    }

    fn fill(&self, template: &RequestTemplate) -> Result<Request, String> {
        fill::request(template, &self.values()).map_err(|missing| missing.to_string())
    }
}
