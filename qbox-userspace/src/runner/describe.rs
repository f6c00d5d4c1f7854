//! One line of plain words for each event: for the log, the API and `qbox sagas show`; and what a list says of a saga, as
//! its events tell it.

use super::{Sent, State, Stuck, Summary};
use crate::saga::{
    AttemptEnd, Class, Direction, Event, OperatorAction, Plan, Saga, SagaState, StepId, UndoState,
};
use std::fmt;

/// An event beside its plan, which knows the steps' names.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// What happened.
    pub event: &'a Event,
    /// The plan of the saga that it happened to.
    pub plan: &'a Plan,
    /// The request that it sends, where that is known.
    pub sent: Option<&'a Sent>,
}

impl Line<'_> {
    fn name(&self, step: StepId) -> &str {
        self.plan.steps.get(step.index()).map_or("?", |s| &s.name)
    }

    fn message(&self, direction: Direction, step: StepId) -> String {
        let several = self
            .plan
            .steps
            .get(step.index())
            .is_some_and(|s| s.compensations.len() > 1);
        match direction {
            Direction::Transaction => "transaction".to_owned(),
            Direction::Probe => "probe".to_owned(),
            Direction::Compensation(n) if several => format!("compensation {}", u32::from(n) + 1),
            Direction::Compensation(_) => "compensation".to_owned(),
            Direction::Child(_) => "undoing of a nested saga".to_owned(),
        }
    }
}

fn class(direction: Direction, class: Class) -> &'static str {
    match (direction, class) {
        (Direction::Compensation(_) | Direction::Child(_), Class::Applied) => "undone",
        (Direction::Compensation(_) | Direction::Child(_), _) => "not undone",
        (_, Class::Applied) => "applied",
        (_, Class::Unknown) => "unknown",
        (_, Class::NotApplied) => "not applied",
    }
}

impl From<SagaState> for State {
    fn from(state: SagaState) -> Self {
        match state {
            SagaState::Running => Self::Running,
            SagaState::Committed => Self::Committed,
            SagaState::Compensating => Self::Compensating,
            SagaState::Compensated => Self::Compensated,
            SagaState::Stuck => Self::Stuck,
        }
    }
}

impl Summary {
    /// Takes in further events of the saga, which stands behind them.
    pub(super) fn learn(&mut self, saga: &Saga, events: &[Event]) {
        self.state = saga.state().into();
        self.paused = saga.is_paused();
        self.revoked = saga.is_revoked();
        let name = |step: &StepId| {
            let step = saga.plan().steps.get(step.index());
            step.map(|step| step.name.clone())
        };
        for event in events {
            match event {
                Event::Failed { step, cause, .. } => {
                    self.failed_step = step.as_ref().and_then(name);
                    self.cause = Some(cause.clone());
                }
                Event::Stuck { step, cause, at } => {
                    let step_name = name(step).unwrap_or_default();
                    self.stuck.retain(|stuck| stuck.step != step_name);
                    self.stuck.push(Stuck {
                        step: step_name,
                        cause: cause.clone(),
                        since: *at,
                        last: saga.last_answer(*step),
                    });
                }
                // Its pivot won over what had failed before.
                Event::Committed { .. } => {
                    self.failed_step = None;
                    self.cause = None;
                }
                _ => {}
            }
        }
        // Those that an operator, or a late answer, has set going again are no longer.
        self.stuck.retain(|stuck| {
            let mut steps = saga.steps();
            steps.any(|step| step.name == stuck.step && step.undo == UndoState::Stuck)
        });
        let names = saga.plan().steps.iter().map(|step| &step.name);
        self.stuck
            .sort_by_cached_key(|stuck| names.clone().position(|name| *name == stuck.step));
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.event {
            Event::Began { name, trigger, .. } => {
                write!(
                    f,
                    "saga {name} began: {} {}",
                    trigger.request.method, trigger.request.url
                )
            }
            Event::Skipped { step, .. } => write!(f, "{}: skipped", self.name(*step)),
            Event::Sending {
                step,
                direction,
                attempt,
                ..
            } => {
                write!(
                    f,
                    "{}: {} sent",
                    self.name(*step),
                    self.message(*direction, *step)
                )?;
                if *attempt > 1 {
                    write!(f, ", attempt {attempt}")?;
                }
                if let Some(sent) = self.sent {
                    write!(f, ": {} {}", sent.method, sent.url)?;
                }
                Ok(())
            }
            Event::Ended {
                step,
                direction,
                end,
                class: found,
                ..
            } => {
                write!(f, "{}: {} ", self.name(*step), self.message(*direction, *step))?;
                match end {
                    AttemptEnd::NotSent(cause) => write!(f, "not sent ({cause})")?,
                    AttemptEnd::Held(cause) => write!(f, "held back ({cause})")?,
                    AttemptEnd::Answered(response) => write!(f, "answered {}", response.status)?,
                    AttemptEnd::TimedOut => write!(f, "timed out")?,
                    AttemptEnd::Broken(how) => write!(f, "broke ({how})")?,
                    AttemptEnd::Lost => write!(f, "was in flight when Qbox stopped")?,
                }
                write!(f, ": {}", class(*direction, *found))
            }
            Event::RetryAt {
                step,
                direction,
                attempt,
                due,
                at,
            } => write!(
                f,
                "{}: {} again in {:.0?} (attempt {attempt})",
                self.name(*step),
                self.message(*direction, *step),
                due.since(*at),
            ),
            Event::StepFailed {
                step,
                class: found,
                cause,
                ..
            } => write!(
                f,
                "{}: failed, {} ({cause})",
                self.name(*step),
                class(Direction::Transaction, *found)
            ),
            // The cause names the step.
            Event::Failed { cause, .. } => write!(f, "saga failed: {cause}"),
            Event::Compensating { .. } => write!(f, "saga compensates"),
            Event::Nested { step, child, .. } => {
                write!(f, "{}: saga {child} begins for it", self.name(*step))
            }
            Event::Revoked { .. } => write!(f, "the saga that it is nested in undoes it"),
            Event::Undone { step, .. } => write!(f, "{}: undone", self.name(*step)),
            Event::Stuck { step, cause, .. } => {
                write!(f, "{}: stuck: {cause}", self.name(*step))
            }
            Event::Committed { .. } => write!(f, "saga committed"),
            Event::Compensated { .. } => write!(f, "saga compensated"),
            Event::ReplyDue { .. } => write!(f, "the caller is answered before the saga has ended"),
            Event::Decided { operator, .. } => {
                let step = |s: &StepId| self.name(*s).to_owned();
                let what = match &operator.action {
                    OperatorAction::Retry(None) => "retry".to_owned(),
                    OperatorAction::Retry(Some(s)) => format!("retry {}", step(s)),
                    OperatorAction::Skip(s) => format!("skip {}", step(s)),
                    OperatorAction::Resolve => "resolve".to_owned(),
                    OperatorAction::Compensate => "compensate".to_owned(),
                    OperatorAction::Pause => "pause".to_owned(),
                    OperatorAction::Resume => "resume".to_owned(),
                };
                write!(f, "{} decided: {what} ({})", operator.who, operator.why)
            }
            Event::Recovered { .. } => write!(f, "found running after a restart"),
        }
    }
}
