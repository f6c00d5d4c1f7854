//! Which sagas a command is about: the filter of the API, as options.

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write;

/// All that is given must hold.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Which {
    /// In this state, or in one of these: waiting, running, committed, compensating, compensated, stuck, halted.
    #[arg(long, value_name = "STATE[,STATE]")]
    pub(super) state: Option<String>,
    /// Of this definition.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// This step failed, or is stuck.
    #[arg(long, value_name = "STEP")]
    pub(super) step: Option<String>,
    /// A message goes to this host, or host and port, as the saga file has it.
    #[arg(long, value_name = "HOST")]
    upstream: Option<String>,
    /// The trigger came longer ago than that: 90s, 10m, 24h.
    #[arg(long, value_name = "AGE")]
    older_than: Option<String>,
    /// The trigger came within that.
    #[arg(long, value_name = "AGE")]
    younger_than: Option<String>,
}

impl Which {
    /// Whether anything but a step is asked for.
    pub(super) fn has_more_than_step(&self) -> bool {
        let step = Self {
            step: self.step.clone(),
            ..Self::default()
        };
        self.query() != step.query()
    }

    /// The parameters of a query, each with its `&`; empty where nothing is asked for.
    pub(super) fn query(&self) -> String {
        pairs(&[
            ("state", self.state.as_ref()),
            ("name", self.name.as_ref()),
            ("step", self.step.as_ref()),
            ("upstream", self.upstream.as_ref()),
            ("older_than", self.older_than.as_ref()),
            ("younger_than", self.younger_than.as_ref()),
        ])
    }
}

/// Parameters of a query, each with its `&`; those without a value are left out.
pub(super) fn pairs(pairs: &[(&str, Option<&String>)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            let _ = write!(query, "&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_asked_for() {
        let which = Which {
            state: Some("stuck,halted".to_owned()),
            upstream: Some("hotel:8080&x".to_owned()),
            ..Which::default()
        };
        assert_eq!(which.query(), "&state=stuck%2Chalted&upstream=hotel%3A8080%26x");
        assert_eq!(Which::default().query(), "");
    }
}
