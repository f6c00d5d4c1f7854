//! The operator's hand: a decision for one saga, or for all that a filter holds for.
//!
//! A decision goes to the saga's own task, which alone changes it, and is acknowledged once the journal would keep it over a
//! crash. What can be decided when is the machine's to say ([`saga::Saga::objection`](crate::saga::Saga::objection)).
//! Errors: [`ActError`].

use super::inbox::{Closed, Message, Order};
use super::registry::Entry;
use super::{Filter, Runner, State, Summary};
use crate::saga::{Operator, OperatorAction, Plan, SagaId, StepId};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// What an operator can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Try what is stuck, or waits for another attempt of its compensation, again at once: of one step, or all.
    Retry,
    /// This step was settled by hand: its compensation counts as done; or, behind an applied pivot, the step as applied.
    Skip,
    /// The whole saga was settled by hand, in the direction it was going: one that was being undone is compensated; one that
    /// was stuck behind its applied pivot is committed.
    Resolve,
    /// Abort a saga that goes forward.
    Compensate,
    /// Start nothing new until [`Action::Resume`].
    Pause,
    /// Go on.
    Resume,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Retry,
        Self::Skip,
        Self::Resolve,
        Self::Compensate,
        Self::Pause,
        Self::Resume,
    ];

    /// `retry`, `skip`, `resolve`, `compensate`, `pause`, `resume`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Resolve => "resolve",
            Self::Compensate => "compensate",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

impl Action {
    /// Whether one who means many sagas can mean this one.
    fn concerns(self, summary: &Summary, filter: &Filter) -> bool {
        match summary.state {
            State::Committed | State::Compensated => false,
            State::Halted => filter.states.contains(&State::Halted),
            State::Waiting | State::Running | State::Compensating | State::Stuck => match self {
                Self::Retry | Self::Skip | Self::Resolve => {
                    matches!(summary.state, State::Stuck | State::Compensating) || !summary.stuck.is_empty()
                }
                Self::Compensate => summary.state == State::Running,
                Self::Pause => !summary.paused,
                Self::Resume => summary.paused,
            },
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no action: retry, skip, resolve, compensate, pause or resume")]
pub struct NoAction(String);

impl FromStr for Action {
    type Err = NoAction;

    fn from_str(word: &str) -> Result<Self, NoAction> {
        let found = Self::ALL.into_iter().find(|action| action.as_str() == word);
        found.ok_or_else(|| NoAction(word.to_owned()))
    }
}

/// What an operator has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub action: Action,
    /// Of which step: needed by [`Action::Skip`], possible with [`Action::Retry`], and with no other.
    pub step: Option<String>,
    /// Who says so; stands in the saga's history.
    pub who: String,
    /// Why; stands there too.
    pub why: String,
}

/// Characters of `who` and of `why` at most.
const LONGEST_WHO: usize = 100;
const LONGEST_WHY: usize = 1000;

/// Why a decision was not taken. Nothing has changed then, but for [`ActError::Journal`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// No such saga, or no longer.
    #[error("there is no saga of that id, or no longer")]
    Unknown,
    /// It is committed or compensated, for good.
    #[error("the saga has ended: it is {}", .0.as_str())]
    Ended(State),
    /// The journal failed it, or can't be read.
    #[error("the saga was halted ({0}): mend the journal and restart Qbox, which takes the saga up again")]
    Halted(String),
    /// The decision doesn't fit the saga as it stands.
    #[error("this can't be done now: {0}")]
    NotNow(String),
    /// The saga's definition has no such step.
    #[error("the saga has no step `{step}`: its steps are {have}")]
    NoStep {
        /// That was named.
        step: String,
        /// Those that there are.
        have: String,
    },
    /// The decision itself is not in order, whatever the saga.
    #[error("{0}")]
    Malformed(String),
    /// Qbox is stopping.
    #[error("Qbox is stopping: the next start takes the saga up, and the decision then")]
    Draining,
    /// The journal could not keep the decision; whether it is there is not known.
    #[error("the decision could not be recorded: {0}")]
    Journal(String),
}

/// What became of a decision for one of many sagas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acted {
    /// The saga: after the decision, or as it was when it could not be taken.
    pub summary: Summary,
    /// Whether it was taken; in a dry run, whether it could have been.
    pub result: Result<(), ActError>,
}

impl Decision {
    fn check(&self) -> Result<(), ActError> {
        let wrong = |text: String| Err(ActError::Malformed(text));
        // A history is read in a terminal.
        let bad = |text: &str, most| {
            text.trim().is_empty() || text.chars().count() > most || text.chars().any(char::is_control)
        };
        if bad(&self.who, LONGEST_WHO) {
            return wrong(format!("`who` must be one line of 1 to {LONGEST_WHO} characters"));
        }
        if bad(&self.why, LONGEST_WHY) {
            return wrong(format!("`why` must be one line of 1 to {LONGEST_WHY} characters"));
        }
        match (self.action, &self.step) {
            (Action::Skip, None) => wrong("skip: say which step was settled by hand".to_owned()),
            (Action::Retry | Action::Skip, _) | (_, None) => Ok(()),
            (action, Some(_)) => wrong(format!("{action} is for the whole saga: it takes no step")),
        }
    }

    fn operator(&self, plan: &Plan) -> Result<Operator, ActError> {
        let step = match &self.step {
            Some(name) => Some(find(plan, name)?),
            None => None,
        };
        let action = match (self.action, step) {
            (Action::Retry, step) => OperatorAction::Retry(step),
            (Action::Skip, Some(step)) => OperatorAction::Skip(step),
            (Action::Skip, None) => return Err(ActError::Malformed("skip: say which step".to_owned())),
            (Action::Resolve, _) => OperatorAction::Resolve,
            (Action::Compensate, _) => OperatorAction::Compensate,
            (Action::Pause, _) => OperatorAction::Pause,
            (Action::Resume, _) => OperatorAction::Resume,
        };
        Ok(Operator {
            action,
            who: self.who.clone(),
            why: self.why.clone(),
        })
    }
}

fn find(plan: &Plan, name: &str) -> Result<StepId, ActError> {
    let found = (0..)
        .map(StepId)
        .zip(&plan.steps)
        .find(|(_, step)| step.name == name);
    found.map(|(id, _)| id).ok_or_else(|| {
        let names: Vec<_> = plan.steps.iter().map(|step| step.name.as_str()).collect();
        ActError::NoStep {
            step: name.to_owned(),
            have: names.join(", "),
        }
    })
}

/// Sagas that a bulk decision is put to at once: enough for the journal to commit them in groups.
const AT_ONCE: usize = 64;

/// How long a decision may take to be durable: a saga's task waits for nothing else than the disk.
const PATIENCE: Duration = Duration::from_secs(30);

impl Runner {
    /// Puts an operator's decision to a saga, and gives the saga as it stands once the decision is durable.
    ///
    /// # Errors
    /// [`ActError`].
    pub async fn act(&self, id: SagaId, decision: &Decision) -> Result<Summary, ActError> {
        decision.check()?;
        let Some(entry) = self.shared.registry.get(id) else {
            return Err(match self.shared.journal.ended(id) {
                Ok(Some(ended)) => ActError::Ended(ended.state.into()),
                Ok(None) => ActError::Unknown,
                Err(error) => ActError::Journal(error.to_string()),
            });
        };
        self.order(&entry, decision, false).await?;
        Ok(entry.summary())
    }

    /// Puts a decision to every saga that it can be meant for and that `filter` holds for, oldest first, and says what became
    /// of each. With `dry_run` it is only asked whether it could be taken.
    ///
    /// It can be meant for a saga that has not ended: to be helped, for one that is stuck or compensates; to be turned back, for
    /// one that goes forward; to be resumed, for one that is paused. A halted one takes no decision, and is told of only
    /// where the filter asks for it.
    ///
    /// # Errors
    /// [`ActError::Malformed`]: the decision is none, for any saga.
    pub async fn act_all(
        &self,
        filter: &Filter,
        decision: &Decision,
        dry_run: bool,
    ) -> Result<Vec<Acted>, ActError> {
        decision.check()?;
        let now = self.shared.clock.now();
        let mut entries = self.shared.registry.all();
        entries.retain(|entry| {
            let summary = entry.summary();
            decision.action.concerns(&summary, filter) && filter.matches(&summary, &entry.plan, now)
        });
        let mut waiting = (0..).zip(entries);
        let decision = Arc::new(decision.clone());
        let mut under_way = JoinSet::new();
        let mut acted: Vec<(usize, Acted)> = Vec::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some((place, entry)) = waiting.next()
            {
                let (runner, decision) = (self.clone(), Arc::clone(&decision));
                under_way.spawn(async move {
                    let result = runner.order(&entry, &decision, dry_run).await;
                    let summary = entry.summary();
                    (place, Acted { summary, result })
                });
            }
            match under_way.join_next().await {
                Some(Ok(one)) => acted.push(one),
                Some(Err(error)) => tracing::error!(%error, "an operator's decision was lost"),
                None => break,
            }
        }
        acted.sort_unstable_by_key(|(place, _)| *place);
        Ok(acted.into_iter().map(|(_, acted)| acted).collect())
    }

    async fn order(&self, entry: &Entry, decision: &Decision, dry_run: bool) -> Result<(), ActError> {
        let put = tokio::time::timeout(PATIENCE, self.put(entry, decision, dry_run)).await;
        put.unwrap_or_else(|_| {
            let cause = format!("not within {PATIENCE:?}; whether it was, the saga's history says");
            Err(ActError::Journal(cause))
        })
    }

    async fn put(&self, entry: &Entry, decision: &Decision, dry_run: bool) -> Result<(), ActError> {
        ended(&entry.summary())?;
        let operator = decision.operator(&entry.plan)?;
        let (answer, heard) = oneshot::channel();
        let order = Order {
            operator,
            dry_run,
            answer,
        };
        // Its state says more of why no task takes orders.
        let not_taken = || match ended(&entry.summary()) {
            Err(error) => error,
            Ok(()) if entry.summary().state == State::Waiting => {
                ActError::NotNow("it waits for its lock, and has not begun".to_owned())
            }
            Ok(()) => ActError::NotNow("it is about to be taken up, or to end".to_owned()),
        };
        entry
            .inbox
            .push(Message::Order(order))
            .map_err(|closed| match closed {
                Closed::NotTaken => not_taken(),
                Closed::Full => ActError::NotNow("too many decisions wait for it".to_owned()),
            })?;
        let position = heard.await.map_err(|_| not_taken())??;
        match position {
            Some(position) => {
                let durable = self.shared.journal.durable(position).await;
                durable.map_err(|error| ActError::Journal(error.to_string()))
            }
            None => Ok(()),
        }
    }
}

fn ended(summary: &Summary) -> Result<(), ActError> {
    match summary.state {
        State::Committed | State::Compensated => Err(ActError::Ended(summary.state)),
        State::Halted => {
            let cause = summary.cause.clone();
            Err(ActError::Halted(
                cause.unwrap_or_else(|| "why is not known".to_owned()),
            ))
        }
        State::Waiting | State::Running | State::Compensating | State::Stuck => Ok(()),
    }
}
