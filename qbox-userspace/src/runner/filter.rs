//! Which sagas a list shows, or an operator's decision is for.

use super::{State, Summary};
use crate::saga::{Plan, RequestPlan, Step, Timestamp};
use std::str::FromStr;
use std::time::Duration;

/// All that is given must hold; a filter with nothing in it holds for every saga.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In one of these states; empty: in any.
    pub states: Vec<State>,
    /// Of this definition.
    pub name: Option<String>,
    /// This step failed, or is stuck.
    pub step: Option<String>,
    /// One of its messages goes to this host: `hotel.default.svc`, or with the port, as the saga file has it.
    pub upstream: Option<String>,
    /// Its trigger came longer ago than that.
    pub older_than: Option<Duration>,
    /// Its trigger came within that.
    pub younger_than: Option<Duration>,
}

impl Filter {
    /// Whether the saga is meant. `now` is the moment that ages count from.
    #[must_use]
    pub fn matches(&self, summary: &Summary, plan: &Plan, now: Timestamp) -> bool {
        let age = now.since(summary.arrived);
        let step = |name: &str| {
            summary.failed_step.as_deref() == Some(name)
                || summary.stuck.iter().any(|stuck| stuck.step == name)
        };
        (self.states.is_empty() || self.states.contains(&summary.state))
            && self.name.as_ref().is_none_or(|name| *name == summary.name)
            && self.step.as_deref().is_none_or(step)
            && self.upstream.as_deref().is_none_or(|host| calls(plan, host))
            && self.older_than.is_none_or(|least| age > least)
            && self.younger_than.is_none_or(|most| age <= most)
    }
}

/// Whether a message of the plan goes to `host`. A forwarded trigger's host is the trigger's.
pub(super) fn calls(plan: &Plan, host: &str) -> bool {
    let same = |authority: &str| {
        let bare = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
        authority.eq_ignore_ascii_case(host) || bare.eq_ignore_ascii_case(host)
    };
    let step = |step: &Step| {
        let first = match &step.request {
            RequestPlan::Forward => same(&plan.trigger.host),
            RequestPlan::Send(request) => same(&request.url.authority),
        };
        let probe = step.probe.iter().map(|probe| &probe.request);
        let undo = step.compensations.iter().map(|undo| &undo.request);
        first || probe.chain(undo).any(|request| same(&request.url.authority))
    };
    plan.steps.iter().any(step)
}

impl State {
    /// All of them, in the order of a saga's life.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Running,
        Self::Committed,
        Self::Compensating,
        Self::Compensated,
        Self::Stuck,
        Self::Halted,
    ];

    /// `waiting`, `running`, `committed`, `compensating`, `compensated`, `stuck`, `halted`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Committed => "committed",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::Stuck => "stuck",
            Self::Halted => "halted",
        }
    }
}

/// A word that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no state: waiting, running, committed, compensating, compensated, stuck or halted")]
pub struct NoState(String);

impl FromStr for State {
    type Err = NoState;

    fn from_str(word: &str) -> Result<Self, NoState> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == word);
        found.ok_or_else(|| NoState(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::{Stuck, testing};
    use crate::saga::SagaId;

    #[test]
    fn all_that_is_asked_for_must_hold() {
        let (plan, _) = testing::plan(
            "name = \"x\"\n[trigger]\nurl = \"http://trips/trips/{trip}\"\n\
             [[step]]\nname = \"hotel\"\nrequest = { method = \"PUT\", url = \"http://hotel:8080/7\" }\n\
             [[step.compensate]]\nrequest = { method = \"DELETE\", url = \"http://refunds/7\" }\n",
        );
        let second = |n| Timestamp::default().after(Duration::from_secs(n));
        let summary = Summary {
            id: SagaId(1),
            name: "x".to_owned(),
            state: State::Stuck,
            arrived: second(100),
            ended: None,
            failed_step: Some("hotel".to_owned()),
            cause: None,
            stuck: vec![Stuck {
                step: "refund".to_owned(),
                cause: "answered 500".to_owned(),
                since: second(120),
                last: None,
            }],
            paused: false,
            listening: None,
            parent: None,
            revoked: false,
            replied: None,
        };
        let holds = |filter: &Filter| filter.matches(&summary, &plan, second(160));
        let all = Filter {
            states: vec![State::Running, State::Stuck],
            name: Some("x".to_owned()),
            step: Some("hotel".to_owned()),
            upstream: Some("Hotel".to_owned()),
            older_than: Some(Duration::from_secs(59)),
            younger_than: Some(Duration::from_secs(60)),
        };
        assert!(holds(&Filter::default()));
        assert!(holds(&all));
        let step = Some("refund".to_owned());
        assert!(holds(&Filter { step, ..all.clone() }));
        for host in ["hotel:8080", "refunds"] {
            let upstream = Some(host.to_owned());
            assert!(
                holds(&Filter {
                    upstream,
                    ..all.clone()
                }),
                "{host}"
            );
        }
        let other = || Some("other".to_owned());
        let misses = [
            Filter {
                states: vec![State::Running],
                ..all.clone()
            },
            Filter {
                name: other(),
                ..all.clone()
            },
            Filter {
                step: other(),
                ..all.clone()
            },
            Filter {
                upstream: other(),
                ..all.clone()
            },
            Filter {
                older_than: Some(Duration::from_secs(60)),
                ..all.clone()
            },
            Filter {
                younger_than: Some(Duration::from_secs(59)),
                ..all.clone()
            },
        ];
        for filter in misses {
            assert!(!holds(&filter), "{filter:?}");
        }
    }

    #[test]
    fn states_are_read_as_they_are_written() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert!(
            "Stuck"
                .parse::<State>()
                .unwrap_err()
                .to_string()
                .contains("no state")
        );
    }
}
