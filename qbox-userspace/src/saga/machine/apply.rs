//! The one place where a saga's state changes: each event folded into it.
//!
//! Asks nothing of its own: whether an event may happen was `decide`'s question. An event that fits nowhere changes nothing.

use super::lane::{Flight, Run, Undo};
use super::nested::Child;
use super::{Due, ReplayError, Saga, SagaState, Turned};
use crate::saga::event::{AttemptEnd, Class, Direction, Event};
use crate::saga::expr::Source;
use crate::saga::id::{StepId, Timestamp};
use crate::saga::io::OperatorAction;
use crate::saga::plan::{Kind, OnRecovery, Step};
use crate::saga::retry::Why;
use std::sync::Arc;

impl Run {
    /// A step that hasn't begun.
    pub(super) fn new(step: &Step) -> Self {
        Self {
            undo: step.compensations.iter().map(|_| Undo::default()).collect(),
            ..Self::default()
        }
    }
}

impl Saga {
    /// Whether the event can belong to a saga of this plan, behind its first one.
    pub(super) fn check(&self, event: &Event) -> Result<(), ReplayError> {
        let (step, direction) = match event {
            Event::Began { .. } => return Err(ReplayError::SecondBeginning),
            Event::Sending { step, direction, .. }
            | Event::Ended { step, direction, .. }
            | Event::RetryAt { step, direction, .. } => (*step, *direction),
            Event::Skipped { step, .. }
            | Event::StepFailed { step, .. }
            | Event::Nested { step, .. }
            | Event::Undone { step, .. }
            | Event::Stuck { step, .. }
            | Event::Failed { step: Some(step), .. } => (*step, Direction::Transaction),
            Event::Failed { step: None, .. }
            | Event::Compensating { .. }
            | Event::ReplyDue { .. }
            | Event::Committed { .. }
            | Event::Compensated { .. }
            | Event::Decided { .. }
            | Event::Revoked { .. }
            | Event::Recovered { .. } => return Ok(()),
        };
        match self.run(step).and_then(|run| run.lane(direction)) {
            Some(_) => Ok(()),
            None => Err(ReplayError::NotInPlan(step)),
        }
    }

    pub(super) fn apply(&mut self, event: &Event) {
        if matches!(self.due, Some(Due::AsItIs)) {
            self.due = Some(self.as_it_is());
        }
        // What comes from outside, where all that had followed before was done: a saga that is stuck then was answered so.
        if let Event::Ended { .. } | Event::Decided { .. } | Event::Recovered { .. } = event {
            self.keep_reply();
        }
        match event {
            // `Saga::new` is what it does.
            Event::Began { .. } => {}
            Event::Skipped { step, .. } => self.change(*step, |run| run.skipped = true),
            Event::Sending {
                step,
                direction,
                attempt,
                at,
            } => self.send(*step, *direction, *attempt, *at),
            Event::Ended {
                step,
                direction,
                attempt,
                end,
                class,
                at,
                hidden: _,
            } => self.end(*step, *direction, *attempt, (end, *class), *at),
            Event::RetryAt {
                step, direction, due, ..
            } => self.change(*step, |run| {
                if let Some(lane) = run.lane_mut(*direction) {
                    lane.due = Some(*due);
                }
            }),
            Event::StepFailed { step, cause, .. } => {
                self.change(*step, |run| run.failed = Some(cause.clone()));
            }
            Event::Failed { step, cause, .. } => {
                self.drop_retries();
                let (step, cause) = (*step, cause.clone());
                self.turned = Some(Turned { step, cause });
            }
            Event::Compensating { at } => self.compensating = Some(*at),
            Event::ReplyDue { .. } => self.overdue = true,
            Event::Nested { step, child, .. } => self.change(*step, |run| {
                let (saga, undo) = (*child, Undo::default());
                run.children.push(Child { saga, undo });
            }),
            Event::Revoked { .. } => self.revoke(),
            Event::Undone { step, .. } => self.change(*step, |run| run.undone = true),
            Event::Stuck { step, cause, .. } => self.change(*step, |run| run.stuck = Some(cause.clone())),
            Event::Committed { .. } => self.finish(SagaState::Committed),
            Event::Compensated { .. } => self.finish(SagaState::Compensated),
            Event::Decided { operator, .. } => self.obey(&operator.action, &operator.why),
            Event::Recovered { .. } => self.recover(),
        }
        let is_due = matches!(event, Event::ReplyDue { .. });
        if is_due && self.due.is_none() && self.ended.is_none() && self.answers() {
            self.due = Some(Due::AsItIs);
        }
    }

    /// From now on the answer is as things stand now, if it is due. At the saga's end nothing can change it any more.
    fn keep_reply(&mut self) {
        if self.due.is_none() && self.ended.is_none() && self.answers() {
            self.due = Some(self.as_it_is());
        }
    }

    fn as_it_is(&self) -> Due {
        let mut then = self.clone();
        then.due = None;
        then.stop_listening();
        Due::As(Box::new(then))
    }

    fn finish(&mut self, state: SagaState) {
        self.ended = Some(state);
        self.stop_listening();
        for run in &mut self.runs {
            run.transaction.stop();
            run.probe.stop();
            run.undos_mut().for_each(|undo| undo.lane.stop());
        }
    }

    /// The saga above undoes this one. What the caller was answered, or is to be by now, it still is.
    fn revoke(&mut self) {
        if self.due.is_none() && self.answers() {
            self.due = Some(self.as_it_is());
        }
        self.revived |= self.ended.take().is_some();
        self.revoked = true;
        self.abort = Some("the saga that it is nested in undoes it".to_owned());
    }

    fn change(&mut self, step: StepId, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.runs.get_mut(step.index()) {
            change(run);
        }
    }

    fn send(&mut self, step: StepId, direction: Direction, attempt: u32, at: Timestamp) {
        let request = self.request(step, direction, attempt).map(Arc::new);
        let pivot = self
            .plan
            .steps
            .get(step.index())
            .is_some_and(|s| s.kind == Kind::Pivot);
        let first = self
            .run(step)
            .and_then(|run| run.lane(direction))
            .is_some_and(|lane| lane.used() == 0);
        let flight = Flight {
            since: at,
            durable_first: match direction {
                // Also the first that an operator has asked for: until then the records call the step refused.
                Direction::Transaction => pivot || !self.heard || (first && attempt > 1),
                Direction::Probe => false,
                // Of each round: the late success that made it necessary must not be lost behind it.
                Direction::Compensation(_) | Direction::Child(_) => first,
            },
            request,
        };
        if direction == Direction::Transaction && self.plan.reads().request(step) {
            let told = match &flight.request {
                Ok(request) => Some(Arc::clone(request)),
                Err(_) => self.told(step, attempt).map(Arc::new),
            };
            if let (Some(request), Some(exchange)) = (told, self.exchanges.get_mut(step.index())) {
                exchange.request = Some(request);
            }
        }
        self.change(step, |run| {
            if let Some(lane) = run.lane_mut(direction) {
                lane.sent = attempt;
                lane.first.get_or_insert(at);
                lane.due = None;
                lane.last = None;
                lane.flight = Some(Box::new(flight));
            }
            match direction {
                Direction::Transaction => {
                    run.probed = false;
                    run.probe.start_anew();
                }
                Direction::Compensation(_) | Direction::Child(_) => run.again = false,
                Direction::Probe => {}
            }
        });
    }

    fn end(
        &mut self,
        step: StepId,
        direction: Direction,
        attempt: u32,
        (end, class): (&AttemptEnd, Class),
        at: Timestamp,
    ) {
        let Some(run) = self.runs.get_mut(step.index()) else {
            return;
        };
        let kept = run.answered;
        let Some(lane) = run.lane_mut(direction) else {
            return;
        };
        let flight = if lane.sent == attempt {
            lane.flight.take()
        } else {
            None
        };
        let late = flight.is_none();
        if let Some(flight) = flight {
            // What can't be put together any more, because a secret is gone, may have been sent when it was there.
            let unsent = matches!(end, AttemptEnd::NotSent(_) | AttemptEnd::Lost);
            let hole = flight.request.err().filter(|_| unsent);
            self.heard |= hole.is_none() && *end != AttemptEnd::Lost;
            let why = hole.map_or_else(|| Why::of(end, direction, at), Why::Hole);
            if matches!(why, Why::Lost | Why::Held(_)) {
                lane.free = lane.free.saturating_add(1);
            }
            if matches!(why, Why::Held(_)) {
                lane.held = lane.held.saturating_add(1);
            }
            lane.last = Some(Box::new(why));
        }
        match direction {
            Direction::Transaction if late => {
                if !run.unheard.contains(&attempt) {
                    return;
                }
                run.unheard.retain(|open| *open != attempt);
                run.class = Some(class);
                run.transaction.due = None;
                run.probe.due = None;
                if run.undo_begun() || run.undone {
                    run.undo_again();
                }
            }
            Direction::Transaction => {
                run.class = run.class.max(Some(class));
                run.refused = class == Class::NotApplied && matches!(end, AttemptEnd::Answered(_));
                if class == Class::Unknown && !matches!(end, AttemptEnd::Answered(_)) {
                    run.expect_late(attempt);
                }
            }
            // An answer to the request itself, come late, says more than the probe's.
            Direction::Probe if class != Class::Unknown && run.class != Some(Class::Applied) => {
                run.class = Some(class);
                run.probed = true;
            }
            Direction::Probe => {}
            Direction::Child(n) => {
                if let Some(child) = run.children.get_mut(usize::from(n)) {
                    child.undo.done = class == Class::Applied;
                }
            }
            Direction::Compensation(n) => {
                if let Some(undo) = run.undo.get_mut(usize::from(n)) {
                    let stale = std::mem::take(&mut undo.stale);
                    undo.done = class == Class::Applied && !stale;
                    if stale {
                        undo.lane.start_anew();
                    }
                }
            }
        }
        // A probe that found the effect knows more of it than an answer that told nothing; and nothing knows more than the
        // answer that said so: others may have read it already.
        let applied = class == Class::Applied;
        let tells = direction == Direction::Transaction || (direction == Direction::Probe && applied);
        if tells && !kept {
            self.keep(step, direction, attempt, end, applied);
        }
        if self.compensating.is_none() && self.past_pivot() {
            self.go_on();
        }
    }

    /// Keeps an answer for those who read it. The one by which the transaction was applied stays, beside its own request:
    /// that of a later attempt may have taken its place.
    fn keep(&mut self, step: StepId, direction: Direction, attempt: u32, end: &AttemptEnd, applied: bool) {
        let AttemptEnd::Answered(response) = end else {
            return;
        };
        let last = applied && direction == Direction::Transaction;
        let overtaken = self.run(step).is_some_and(|run| run.transaction.sent != attempt);
        let request = if last && overtaken && self.plan.reads().request(step) {
            self.told(step, attempt)
        } else {
            None
        };
        // What has failed is quoted by the reply that stands where the file gives none.
        let failed = !applied || self.run(step).is_some_and(|run| run.failed.is_some());
        let kept = match failed && self.plan.reply_failure.is_none() {
            true => response.clone(),
            false => self.plan.reads().of_answer(step, response),
        };
        let Some(exchange) = self.exchanges.get_mut(step.index()) else {
            return;
        };
        exchange.response = Some(Arc::new(kept));
        if let Some(request) = request {
            exchange.request = Some(Arc::new(request));
        }
        if last {
            self.change(step, |run| run.answered = true);
        }
    }

    /// No further step starts, and what waits for another attempt waits no longer. Only a pivot must be known.
    fn drop_retries(&mut self) {
        for (step, run) in self.plan.steps.iter().zip(&mut self.runs) {
            if step.kind != Kind::Pivot {
                run.transaction.due = None;
                run.probe.due = None;
            }
        }
    }

    /// The pivot is applied: what had turned the saga, or was about to, no longer counts.
    fn go_on(&mut self) {
        self.abort = None;
        self.revoked = false;
        if self.turned.take().is_some() {
            for run in &mut self.runs {
                run.failed = None;
            }
        }
    }

    /// Qbox was restarted. A tail of the history may be lost, and what was sent in it nobody knows: unless the saga had
    /// turned, each step that isn't settled, and whose turn may have come, may have been sent.
    fn recover(&mut self) {
        // What a start reads may not be on disk yet: a process that was killed leaves it to the system to write it.
        self.heard = false;
        self.stop_listening();
        // The time in which there was no Qbox is nobody's patience.
        for run in &mut self.runs {
            run.transaction.first = None;
            run.probe.first = None;
            run.undos_mut().for_each(|undo| undo.lane.first = None);
        }
        if self.plan.on_recovery == OnRecovery::Compensate && !self.past_pivot() {
            self.abort = Some("Qbox was restarted while the saga ran".to_owned());
        }
        let anything_sent = self.runs.iter().any(|run| run.transaction.sent > 0);
        if self.turned.is_some() || !anything_sent {
            return;
        }
        let mut reached = vec![false; self.runs.len()];
        let plan = Arc::clone(&self.plan);
        for &id in plan.order() {
            let (Some(step), Some(run)) = (self.plan.steps.get(id.index()), self.run(id)) else {
                continue;
            };
            let is_reached = |before: &StepId| reached.get(before.index()).copied().unwrap_or(false);
            let its_turn = step.after.iter().all(is_reached);
            let pivot = step.kind == Kind::Pivot;
            let skipped = self.knows_when(step) && !self.holds(step);
            let maybe_sent = its_turn && !pivot && !skipped && !run.settled();
            let request = if maybe_sent && run.transaction.sent == 0 && plan.reads().request(id) {
                // As it would have been sent, for a compensation that reads it.
                self.told(id, 1)
            } else {
                None
            };
            if let Some(reached) = reached.get_mut(id.index()) {
                *reached = run.done() || run.begun() || maybe_sent || (its_turn && skipped);
            }
            if let (Some(request), Some(exchange)) = (request, self.exchanges.get_mut(id.index())) {
                exchange.request = Some(Arc::new(request));
            }
            if maybe_sent {
                self.change(id, |run| {
                    run.maybe_sent = true;
                    run.class = run.class.max(Some(Class::Unknown));
                });
            }
        }
    }

    /// Whether the step's `when` reads only what is known: it says now what it said then.
    fn knows_when(&self, step: &Step) -> bool {
        let mut read = step.when.iter().flat_map(|condition| condition.value.exprs());
        read.all(|expr| match expr.source {
            Source::Request(step, _) | Source::Response(step, _) => self.is_done(step),
            _ => true,
        }) && self.finds_when(step).is_ok()
    }

    fn obey(&mut self, action: &OperatorAction, why: &str) {
        match action {
            OperatorAction::Retry(which) => {
                let undoing = self.compensating.is_some();
                for (id, run) in (0..).map(StepId).zip(&mut self.runs) {
                    if which.is_none_or(|step| step == id) {
                        run.retry(undoing);
                    }
                }
            }
            OperatorAction::Skip(step) => {
                let undoing = self.compensating.is_some();
                self.change(*step, |run| run.finish_by_hand(undoing));
                if !undoing && self.past_pivot() {
                    self.go_on();
                }
            }
            OperatorAction::Resolve => {
                let undoing = self.turned.is_some();
                for (step, run) in self.plan.steps.iter().zip(&mut self.runs) {
                    if undoing && run.begun() && !run.settled() {
                        run.failed = Some("settled by an operator".to_owned());
                    }
                    if !undoing || (run.needs_undo(step) && !run.undone) {
                        run.finish_by_hand(undoing);
                    }
                    run.transaction.stop();
                    run.probe.stop();
                }
            }
            OperatorAction::Compensate => {
                self.abort = Some(format!("an operator: {why}"));
                for run in &mut self.runs {
                    run.give_up(why);
                }
            }
            OperatorAction::Pause => self.paused = true,
            OperatorAction::Resume => self.paused = false,
        }
    }
}

impl Run {
    /// An operator wants what is stuck, or waits, to be tried again now.
    fn retry(&mut self, undoing: bool) {
        let open = self.is_open();
        let stuck = self.stuck.take().is_some();
        if undoing {
            self.again = stuck;
            for undo in self
                .undos_mut()
                .filter(|undo| !undo.done && undo.lane.flight.is_none())
            {
                undo.lane.start_anew();
            }
        } else if open {
            // How it ended is still what another attempt follows from.
            let last = self.transaction.last.take();
            self.transaction.start_anew();
            self.transaction.last = last;
        } else if stuck {
            self.failed = None;
            self.transaction.start_anew();
            self.probe.start_anew();
        }
    }

    /// An operator wants the saga undone, and so says of a pivot that nobody could know of that it was not applied.
    fn give_up(&mut self, why: &str) {
        if self.is_open() {
            self.stuck = None;
            self.class = Some(Class::NotApplied);
            self.failed = Some(format!("an operator: {why}"));
        }
    }

    /// An operator has done what was left to do.
    fn finish_by_hand(&mut self, undoing: bool) {
        self.stuck = None;
        if undoing {
            self.by_hand = true;
            self.undos_mut().for_each(|undo| undo.lane.stop());
        } else if !self.done() {
            self.class = Some(Class::Applied);
            self.failed = None;
        }
    }
}
