//! What follows: from an input, and then from the state itself, until nothing more does.
//!
//! Each function of the second half looks at the state alone and gives at most one event, which `apply` then makes
//! untrue as a reason for itself; that is why the loop ends.

use super::Saga;
use super::lane::{Lane, Run};
use super::nested;
use crate::saga::event::{AttemptEnd, Class, Direction, Event};
use crate::saga::id::{StepId, Timestamp};
use crate::saga::io::{Input, Outcome};
use crate::saga::matcher;
use crate::saga::plan::{Kind, RequestPlan, RetryPolicy, Step};
use crate::saga::retry::{self, Chance, Why};

impl Saga {
    /// Takes one input in. False: it changes nothing.
    pub(super) fn take(&mut self, input: Input, now: Timestamp, events: &mut Vec<Event>) -> bool {
        match input {
            Input::Outcome(outcome) => {
                let silent = self.hears_out(&outcome);
                match self.ended_by(outcome, now) {
                    Some(event) => self.record(event, events),
                    // What waited for that answer needs wait no longer.
                    None => return silent,
                }
            }
            Input::Listening { step, attempt } => {
                self.listen(step, attempt);
                return false;
            }
            Input::Timer => {}
            Input::Operator(operator) => {
                if self.objection(&operator.action).is_some() {
                    return false;
                }
                self.record(Event::Decided { operator, at: now }, events);
            }
            Input::Nested(step, child) => {
                if self.nesting_objection(step).is_some() {
                    return false;
                }
                let at = now;
                self.record(Event::Nested { step, child, at }, events);
            }
            Input::Revoked => {
                if self.revoked || self.revoke_objection().is_some() {
                    return false;
                }
                self.record(Event::Revoked { at: now }, events);
            }
            Input::Recovered => {
                self.record(Event::Recovered { at: now }, events);
                let lost: Vec<_> = self.in_flight().collect();
                for (step, direction, attempt) in lost {
                    let event = Event::Ended {
                        step,
                        direction,
                        attempt,
                        end: AttemptEnd::Lost,
                        class: Class::Unknown,
                        at: now,
                        hidden: None,
                    };
                    self.record(event, events);
                }
            }
        }
        true
    }

    /// Records everything that follows from the state.
    pub(super) fn follow(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        while let Some(event) = self.next_event(now) {
            self.record(event, events);
        }
    }

    fn record(&mut self, event: Event, events: &mut Vec<Event>) {
        self.apply(&event);
        events.push(event);
    }

    pub(super) fn in_flight(&self) -> impl Iterator<Item = (StepId, Direction, u32)> {
        self.each().flat_map(|(id, _, run)| {
            run.lanes()
                .filter(|(_, lane)| lane.flight.is_some())
                .map(move |(direction, lane)| (id, direction, lane.sent))
        })
    }

    /// The end of the attempt in flight; or the late success of one that was given up.
    fn ended_by(&self, outcome: Outcome, at: Timestamp) -> Option<Event> {
        let Outcome {
            step,
            direction,
            attempt,
            end,
        } = outcome;
        // Only a restart loses an attempt, and such a one is not counted.
        let end = match end {
            AttemptEnd::Lost => AttemptEnd::Broken("the call was dropped".to_owned()),
            end => end,
        };
        let run = self.run(step)?;
        let lane = run.lane(direction)?;
        let awaited = lane.flight.is_some() && lane.sent == attempt;
        let may_be_late = direction == Direction::Transaction && run.unheard.contains(&attempt);
        if !awaited && !may_be_late {
            return None;
        }
        let class = self.class(step, direction, &end);
        (awaited || class == Class::Applied).then_some(Event::Ended {
            step,
            direction,
            attempt,
            end,
            class,
            at,
            hidden: None,
        })
    }

    /// What an attempt's end says.
    fn class(&self, id: StepId, direction: Direction, end: &AttemptEnd) -> Class {
        let values = self.values();
        let matches = |any, response| matcher::response_matches(any, response, &values);
        let Some(step) = self.plan.steps.get(id.index()) else {
            return Class::Unknown;
        };
        let (applied, refused) = match direction {
            Direction::Transaction => (&step.success, Some(&step.refused)),
            Direction::Probe => match &step.probe {
                Some(probe) => (&probe.applied, Some(&probe.refused)),
                None => return Class::Unknown,
            },
            Direction::Compensation(n) => match step.compensations.get(usize::from(n)) {
                Some(compensation) => (&compensation.success, None),
                None => return Class::Unknown,
            },
            Direction::Child(_) => {
                return match end {
                    AttemptEnd::Answered(response) if matches!(response.status, 200..300) => Class::Applied,
                    _ => Class::Unknown,
                };
            }
        };
        match end {
            AttemptEnd::Answered(response) if matches(applied, response) => Class::Applied,
            AttemptEnd::Answered(response) if refused.is_some_and(|any| matches(any, response)) => {
                Class::NotApplied
            }
            // A probe that isn't sent says nothing of the transaction.
            AttemptEnd::NotSent(_) | AttemptEnd::Held(_) if direction != Direction::Probe => {
                Class::NotApplied
            }
            _ => Class::Unknown,
        }
    }

    /// What follows next. The order is the machine's policy: what has ended is judged before anything is begun, and
    /// a saga whose steps are all done commits, whatever else would have turned it at the same moment.
    fn next_event(&self, now: Timestamp) -> Option<Event> {
        if self.ended.is_some() {
            return None;
        }
        self.hole(now)
            .or_else(|| self.commit(now))
            .or_else(|| self.fail(now))
            .or_else(|| self.settle(now))
            .or_else(|| self.resend(now))
            .or_else(|| self.start(now))
            .or_else(|| self.compensate(now))
            .or_else(|| self.undo(now))
            .or_else(|| self.compensated(now))
            .or_else(|| self.answer(now))
    }

    /// An intent whose request can't be put together ends at once.
    fn hole(&self, at: Timestamp) -> Option<Event> {
        self.each().find_map(|(step, _, run)| {
            run.lanes().find_map(|(direction, lane)| {
                let why = lane.flight.as_ref()?.request.as_ref().err()?;
                let end = AttemptEnd::NotSent(why.clone());
                Some(Event::Ended {
                    step,
                    direction,
                    attempt: lane.sent,
                    class: self.class(step, direction, &end),
                    end,
                    at,
                    hidden: None,
                })
            })
        })
    }

    fn commit(&self, at: Timestamp) -> Option<Event> {
        let done = self.turned.is_none() && !self.revoked && self.runs.iter().all(Run::done);
        done.then_some(Event::Committed { at })
    }

    /// A step has failed, the time is over, or someone wants it undone.
    fn fail(&self, at: Timestamp) -> Option<Event> {
        if self.turned.is_some() {
            return None;
        }
        let mut failed = self
            .each()
            .filter_map(|(id, step, run)| Some((id, step, run, run.failed.as_ref()?)));
        if self.past_pivot() {
            let (step, _, _, why) = failed.find(|(_, _, run, _)| run.stuck.is_none())?;
            let cause = format!("the pivot is applied, but this step can't be: {why}");
            return Some(Event::Stuck { step, cause, at });
        }
        if let Some((id, step, run, why)) = failed.next() {
            let what = match run.class {
                Some(Class::NotApplied) | None => "was not applied",
                Some(Class::Unknown | Class::Applied) => "may or may not have been applied",
            };
            let cause = format!("`{}` {what}: {why}", step.name);
            return Some(Event::Failed {
                step: Some(id),
                cause,
                at,
            });
        }
        let late = !self.paused && at >= self.began.after(self.plan.timeout);
        let cause = match &self.abort {
            Some(cause) => cause.clone(),
            None if late => format!("not done within {:?}", self.plan.timeout),
            None => return None,
        };
        Some(Event::Failed {
            step: None,
            cause,
            at,
        })
    }

    /// A step whose last attempt has ended without success: once more, or ask, or give up.
    fn settle(&self, at: Timestamp) -> Option<Event> {
        self.each().find_map(|(id, step, run)| {
            let judged = match run.transaction.last {
                Some(_) => true,
                None => run.begun() && self.turned.is_some(),
            };
            if !judged || run.waits_forward() || run.settled() {
                return None;
            }
            if let Some(event) = self.again(id, step, run, at) {
                return Some(event);
            }
            match self.ask(id, step, run, at) {
                Ask::Now(event) => Some(*event),
                Ask::Later => None,
                Ask::No => match self.mute(id, step, run).or_else(|| self.balks(id, step, run, at)) {
                    Some(_) if run.stuck.is_some() => None,
                    Some(cause) => Some(Event::Stuck { step: id, cause, at }),
                    None => Some(give_up(id, run, at)),
                },
            }
        })
    }

    /// Another attempt of the transaction, after a wait.
    fn again(&self, id: StepId, step: &Step, run: &Run, at: Timestamp) -> Option<Event> {
        let lane = &run.transaction;
        let why = lane.last.as_deref()?;
        let unknown = run.class == Some(Class::Unknown);
        let forward = self.turned.is_none();
        let endless = match step.kind {
            Kind::Compensatable => false,
            Kind::Pivot => unknown && (step.probe.is_none() || asks_in_vain(run)),
            Kind::Retriable => forward,
        };
        let limit = match why {
            Why::Hole(_) => return None,
            _ if self.balks(id, step, run, at).is_some() => return None,
            _ if endless => Limit::None,
            _ if forward => Limit::Policy,
            _ => return None,
        };
        self.retry_at(id, Direction::Transaction, lane, &step.retry, limit, at)
    }

    /// The probe, while the outcome is unknown: as its policy says; once, where the saga has turned meanwhile; without
    /// end for a pivot, which must be known.
    fn ask(&self, id: StepId, step: &Step, run: &Run, at: Timestamp) -> Ask {
        let unknown = run.class == Some(Class::Unknown) && !run.probed;
        let Some(probe) = step.probe.as_ref().filter(|_| unknown) else {
            return Ask::No;
        };
        let lane = &run.probe;
        match lane.last.as_deref() {
            None if self.paused => Ask::Later,
            None => Ask::Now(Box::new(sending(id, Direction::Probe, lane, at))),
            Some(Why::Hole(_)) => Ask::No,
            Some(_) => {
                let limit = match step.kind {
                    Kind::Pivot => Limit::None,
                    _ if self.turned.is_none() => Limit::Policy,
                    _ => return Ask::No,
                };
                match self.retry_at(id, Direction::Probe, lane, &probe.retry, limit, at) {
                    Some(event) => Ask::Now(Box::new(event)),
                    None => Ask::No,
                }
            }
        }
    }

    /// The attempt after the last one of the lane, if there is to be one.
    fn retry_at(
        &self,
        step: StepId,
        direction: Direction,
        lane: &Lane,
        policy: &RetryPolicy,
        limit: Limit,
        at: Timestamp,
    ) -> Option<Event> {
        let why = lane.last.as_deref()?;
        let attempt = lane.next();
        let chance = Chance::of_attempt(self.seed, step, direction, attempt);
        let due = at.after(retry::wait(policy, lane.tried(at), why, chance));
        let allowed = limit == Limit::None || retry::allows(policy, lane.tried(due), why);
        allowed.then_some(Event::RetryAt {
            step,
            direction,
            attempt,
            due,
            at,
        })
    }

    /// An attempt whose time has come.
    fn resend(&self, now: Timestamp) -> Option<Event> {
        if self.paused {
            return None;
        }
        self.each().find_map(|(id, _, run)| {
            run.lanes()
                .find(|(_, lane)| lane.due.is_some_and(|due| due <= now))
                .map(|(direction, lane)| sending(id, direction, lane, now))
        })
    }

    /// A step whose turn has come.
    fn start(&self, at: Timestamp) -> Option<Event> {
        if self.paused || self.turned.is_some() || self.is_full() {
            return None;
        }
        let (id, step, run) = self.next_step()?;
        Some(if self.holds(step) {
            sending(id, Direction::Transaction, &run.transaction, at)
        } else {
            Event::Skipped { step: id, at }
        })
    }

    /// The first step that could start.
    pub(super) fn next_step(&self) -> Option<(StepId, &Step, &Run)> {
        self.each().find(|(_, step, run)| {
            // Not begun; or begun anew by an operator.
            let pending = run.transaction.last.is_none() && run.transaction.is_idle() && !run.settled();
            pending && step.after.iter().all(|before| self.is_done(*before))
        })
    }

    /// What comes after this step may run.
    pub(super) fn is_done(&self, step: StepId) -> bool {
        self.run(step).is_none_or(Run::done)
    }

    /// Whether the step's `when` holds, as far as is known. Where a part of it can't be known any more the step's turn comes,
    /// and its request is a hole.
    pub(super) fn holds(&self, step: &Step) -> bool {
        self.conditions(step).all(|holds| holds.unwrap_or(true))
    }

    /// The saga has turned and everything that was begun is settled.
    fn compensate(&self, at: Timestamp) -> Option<Event> {
        let quiet = |run: &Run| !run.waits_forward() && (!run.begun() || run.settled());
        let due = self.turned.is_some() && self.compensating.is_none() && self.runs.iter().all(quiet);
        due.then_some(Event::Compensating { at })
    }

    /// The next message of a step that is being undone.
    fn undo(&self, at: Timestamp) -> Option<Event> {
        self.compensating?;
        let (blocked, full) = (self.blocked(), self.undoes_its_most());
        self.each().find_map(|(id, step, run)| {
            if !run.needs_undo(step) || run.undone || run.stuck.is_some() {
                return None;
            }
            if run.is_lost_pivot(step) && !run.by_hand {
                let cause = "the pivot was applied after all when compensation had begun: it can't be undone";
                return Some(Event::Stuck {
                    step: id,
                    cause: cause.to_owned(),
                    at,
                });
            }
            let Some((direction, undo)) = run.next_undo(step).filter(|_| !run.by_hand) else {
                return Some(Event::Undone { step: id, at });
            };
            let blocked = blocked.get(id.index()).copied().unwrap_or(false);
            let begins = run.again || !run.undo_begun();
            // A step that came after it may have been applied late, and has to be undone first, when of this one a part is already.
            let waits = begins && full || blocked && (begins || undo.lane.sent == 0);
            if waits || !undo.lane.is_idle() {
                return None;
            }
            let Some(why) = undo.lane.last.as_deref() else {
                return (!self.paused).then(|| sending(id, direction, &undo.lane, at));
            };
            let (again, cause) = match direction {
                Direction::Compensation(n) => {
                    let policy = &step.compensations.get(usize::from(n))?.retry;
                    let again = self.retry_at(id, direction, &undo.lane, policy, Limit::Policy, at);
                    (again, why.to_string())
                }
                // It says itself that it can't be.
                Direction::Child(_) if let Why::NotSent(cause) = why => (None, cause.clone()),
                _ => {
                    let policy = nested::policy();
                    let again = self.retry_at(id, direction, &undo.lane, &policy, Limit::None, at);
                    (again, why.to_string())
                }
            };
            again.or(Some(Event::Stuck { step: id, cause, at }))
        })
    }

    /// For each step whether one that came after it, at any distance, is still to be undone. A stuck one is not waited for.
    fn blocked(&self) -> Vec<bool> {
        let mut blocked = vec![false; self.runs.len()];
        for id in self.plan.order().iter().rev() {
            let (Some(step), Some(run)) = (self.plan.steps.get(id.index()), self.run(*id)) else {
                continue;
            };
            let waits = run.needs_undo(step) && !run.undone && run.stuck.is_none();
            if waits || blocked.get(id.index()).copied().unwrap_or(false) {
                for before in &step.after {
                    if let Some(blocked) = blocked.get_mut(before.index()) {
                        *blocked = true;
                    }
                }
            }
        }
        blocked
    }

    fn compensated(&self, at: Timestamp) -> Option<Event> {
        self.compensating?;
        (self.all_undone() && !self.listens()).then_some(Event::Compensated { at })
    }

    /// As far as is known.
    pub(super) fn all_undone(&self) -> bool {
        self.each()
            .all(|(_, step, run)| !run.needs_undo(step) || run.undone)
    }

    /// The caller of a saga that takes too long; or that could end, but for what may be heard yet.
    fn answer(&self, at: Timestamp) -> Option<Event> {
        let due = self.reply_due()?;
        let listens = self.compensating.is_some() && self.all_undone();
        (at >= due || listens).then_some(Event::ReplyDue { at })
    }

    /// Whether the step's request is the trigger itself.
    pub(super) fn forwards(step: &Step, direction: Direction) -> bool {
        direction == Direction::Transaction && step.request == RequestPlan::Forward
    }
}

/// What ends the attempts.
#[derive(Clone, Copy, PartialEq)]
enum Limit {
    /// The policy, in whatever way it does.
    Policy,
    /// Only an answer: it must be known, or applied.
    None,
}

/// Whether a probe is sent.
enum Ask {
    Now(Box<Event>),
    /// Once the saga is no longer paused.
    Later,
    No,
}

/// The probe can't be put together, so that it will never tell.
pub(super) fn asks_in_vain(run: &Run) -> bool {
    matches!(run.probe.last.as_deref(), Some(Why::Hole(_)))
}

fn sending(step: StepId, direction: Direction, lane: &Lane, at: Timestamp) -> Event {
    Event::Sending {
        step,
        direction,
        attempt: lane.next(),
        at,
    }
}

fn give_up(step: StepId, run: &Run, at: Timestamp) -> Event {
    let cause = match run.transaction.last.as_deref() {
        _ if run.probed => "its probe says that it was not applied".to_owned(),
        Some(why) => why.to_string(),
        None => "Qbox was restarted; it may have been sent before".to_owned(),
    };
    Event::StepFailed {
        step,
        class: run.class.unwrap_or(Class::NotApplied),
        cause,
        at,
    }
}
