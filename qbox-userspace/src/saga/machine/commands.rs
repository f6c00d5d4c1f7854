//! What is under way: the calls in flight, the next moment to wake, the reply.
//!
//! A function of the state, so that it may be asked any number of times. Puts the requests together (`apply` keeps them
//! while they are in flight).

use super::headers::Stamp;
use super::lane::Run;
use super::nested;
use super::{Due, Saga, SagaState};
use crate::saga::event::Direction;
use crate::saga::fill;
use crate::saga::id::{StepId, Timestamp};
use crate::saga::io::{Call, Command, Timer};
use crate::saga::message::{Headers, Request};
use crate::saga::plan::{ReplyPlan, RequestPlan, RequestTemplate, Step};
use crate::saga::reply::Reply;
use crate::saga::secrets::Secrets;
use crate::saga::trace::{self, Trace};
use crate::saga::values::{Missing, Values};
use bytes::Bytes;
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

    pub(super) fn calls(&self) -> impl Iterator<Item = Call> {
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

    /// Where it stands in its trace.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let trace = Trace::new(&self.trigger.request.headers, self.seed);
        match self.revived {
            true => trace.again(self.seed),
            false => trace,
        }
    }

    /// What vendors keep beside its trace, one list.
    #[must_use]
    pub fn trace_state(&self) -> String {
        let state = trace::state(&self.trigger.request.headers);
        let state: Vec<_> = state.map(|(_, value)| String::from_utf8_lossy(value)).collect();
        state.join(",")
    }

    /// The span of an attempt: the one that its request names.
    #[must_use]
    pub fn span(&self, step: StepId, direction: Direction, attempt: u32) -> u64 {
        trace::span_of(self.seed, step, direction, attempt)
    }

    /// Since when what is in flight is.
    #[must_use]
    pub fn in_flight_since(&self, step: StepId, direction: Direction) -> Option<Timestamp> {
        Some(self.run(step)?.lane(direction)?.flight.as_ref()?.since)
    }

    /// When the first attempt of the step's transaction was sent; since a restart or a new start, the first after it.
    #[must_use]
    pub fn first_sent(&self, step: StepId) -> Option<Timestamp> {
        self.run(step)?.transaction.first
    }

    /// The step is applied, was skipped, or has failed.
    #[must_use]
    pub fn is_settled(&self, step: StepId) -> bool {
        self.run(step).is_some_and(Run::settled)
    }

    /// A call of the past that can't be made any more, since secrets of it are gone: there are marks in their places.
    pub(super) fn marked_call(&self, id: StepId, direction: Direction, attempt: u32) -> Option<Call> {
        self.gap()?;
        let request = self.put_together(id, direction, attempt, true).ok()?;
        Some(Call {
            step: id,
            direction,
            attempt,
            request: Arc::new(request),
            forward: Self::forwards(self.plan.steps.get(id.index())?, direction),
            timeout: self.timeout(id, direction)?,
            durable_first: false,
        })
    }

    fn timeout(&self, step: StepId, direction: Direction) -> Option<Duration> {
        let step = self.plan.steps.get(step.index())?;
        match direction {
            Direction::Transaction => Some(step.timeout),
            Direction::Probe => step.probe.as_ref().map(|probe| probe.timeout),
            Direction::Compensation(n) => step.compensations.get(usize::from(n)).map(|c| c.timeout),
            Direction::Child(_) => Some(nested::PATIENCE),
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
        if self.answers() {
            return None;
        }
        let deadline = self.began.after(self.plan.timeout);
        let from = self.compensating.map_or(deadline, |began| began.min(deadline));
        Some(from.after(self.plan.reply_timeout))
    }

    pub(super) fn answers(&self) -> bool {
        match self.state() {
            SagaState::Committed | SagaState::Compensated | SagaState::Stuck => true,
            SagaState::Running | SagaState::Compensating => self.overdue || self.due.is_some(),
        }
    }

    /// The caller's answer, once there is one: the saga is committed, compensated or stuck, or the caller has waited long
    /// enough. It says how things stood then, and never changes, over restarts either. A default reply, which repeats what a
    /// step answered, hides `secrets`; one of the file's says what the file says.
    #[must_use]
    pub fn reply(&self, secrets: &Secrets) -> Option<Reply> {
        match &self.due {
            Some(Due::As(then)) => Some(then.reply_now(secrets)),
            Some(Due::AsItIs) => Some(self.reply_now(secrets)),
            Some(Due::Fetched) => None,
            None => self.answers().then(|| self.reply_now(secrets)),
        }
    }

    /// As [`Saga::reply`], for the last time: an answer before the saga's end is not kept any longer.
    #[must_use]
    pub fn fetch_reply(&mut self, secrets: &Secrets) -> Option<Reply> {
        let reply = self.reply(secrets);
        self.reply_given();
        reply
    }

    /// Nobody will ask for the answer once more.
    pub fn reply_given(&mut self) {
        if let Some(due) = &mut self.due {
            *due = Due::Fetched;
        }
    }

    fn reply_now(&self, secrets: &Secrets) -> Reply {
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
            None => Ok(None),
            Some(ReplyPlan::Send(template)) => fill::reply(template, &values)
                .map(Some)
                .map_err(|hidden| hidden.to_string()),
            Some(ReplyPlan::From(step)) => self.response_of(*step),
        };
        let made = match made {
            Ok(made) => made,
            Err(why) => return Reply::gone(&self.summary(secrets), &why),
        };
        made.unwrap_or_else(|| {
            if success {
                Reply::success(&self.summary(secrets))
            } else {
                Reply::failure(&self.summary(secrets))
            }
        })
    }

    /// A step's answer as the caller's. None: there was none, or not all of it was kept. An error: a secret of it is gone.
    fn response_of(&self, step: StepId) -> Result<Option<Reply>, String> {
        let exchange = self.exchanges.get(step.index());
        let Some(response) = exchange.and_then(|exchange| exchange.response.as_ref()) else {
            return Ok(None);
        };
        match self.gap() {
            Some(why) if response.is_marked() => Err(why.to_owned()),
            _ => Ok((!response.truncated).then(|| Reply::from_response(response))),
        }
    }

    /// The request of an attempt, complete; or why it can't be put together.
    pub(super) fn request(&self, id: StepId, direction: Direction, attempt: u32) -> Result<Request, String> {
        self.put_together(id, direction, attempt, false)
    }

    /// A transaction's request for expressions that read it: with marks where a secret of it is gone.
    pub(super) fn told(&self, id: StepId, attempt: u32) -> Option<Request> {
        let marks = self.gap.is_some();
        self.put_together(id, Direction::Transaction, attempt, marks).ok()
    }

    /// Whether each condition of the step's `when` holds; an error: nobody knows any more.
    pub(super) fn conditions(&self, step: &Step) -> impl Iterator<Item = Result<bool, Missing>> {
        let values = self.values();
        step.when
            .iter()
            .map(move |condition| fill::condition(condition, &values))
    }

    /// Whether all that the step's `when` asks is known.
    pub(super) fn finds_when(&self, step: &Step) -> Result<(), String> {
        self.conditions(step)
            .try_for_each(|found| found.map(drop))
            .map_err(|hidden| hidden.to_string())
    }

    fn put_together(
        &self,
        id: StepId,
        direction: Direction,
        attempt: u32,
        marks: bool,
    ) -> Result<Request, String> {
        let step = self.plan.steps.get(id.index()).ok_or("no such step")?;
        if direction == Direction::Transaction && !marks {
            self.finds_when(step)?;
        }
        let fill = |template: &RequestTemplate| {
            let filled = match marks {
                true => fill::marked_request(template, &self.values()),
                false => fill::request(template, &self.values()),
            };
            filled.map_err(|missing| missing.to_string())
        };
        let mut request = match (direction, &step.request) {
            (Direction::Transaction, RequestPlan::Forward) => {
                let request = &self.trigger.request;
                match self.gap() {
                    Some(why) if !marks && request.is_marked() => {
                        return Err(format!("the trigger can't be forwarded any more: {why}"));
                    }
                    _ => request.clone(),
                }
            }
            (Direction::Transaction, RequestPlan::Send(template)) => fill(template)?,
            (Direction::Probe, _) => fill(&step.probe.as_ref().ok_or("no such probe")?.request)?,
            // No request, but what stands for one in a history.
            (Direction::Child(n), _) => {
                let child = self.child(id, n).ok_or("no such child")?;
                Request {
                    method: "UNDO".to_owned(),
                    url: format!("saga:{child}"),
                    headers: Headers::default(),
                    body: Bytes::new(),
                }
            }
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
                fill(&compensation.request)?
            }
        };
        let stamp = Stamp {
            saga: self.id,
            step: &step.name,
            direction,
            round: self.run(id).map_or(0, |run| run.round),
            trigger: &self.trigger,
            trace: Trace::new(&self.trigger.request.headers, self.seed),
            span: self.span(id, direction, attempt),
        };
        let keeps_key = Self::forwards(step, direction);
        stamp.put(&mut request.headers, keeps_key);
        Ok(request)
    }
}
