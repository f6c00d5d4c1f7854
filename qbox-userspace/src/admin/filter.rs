//! A filter as a URL's query has it: `?state=stuck,halted&name=book-trip&older_than=10m`.

use crate::config;
use crate::runner::Filter;
use serde::Deserialize;
use std::time::Duration;

/// The query's parameters. What is not given is not asked for.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct FilterQuery {
    /// One state, or several with commas between them.
    state: Option<String>,
    /// A definition's name.
    name: Option<String>,
    /// The step that failed or is stuck.
    step: Option<String>,
    /// The host, or host and port, of a step's message.
    upstream: Option<String>,
    /// `90s`, `10m`, `24h`.
    older_than: Option<String>,
    /// As `older_than`.
    younger_than: Option<String>,
}

impl FilterQuery {
    /// The parameters' names.
    pub(super) const NAMES: [&str; 6] = ["state", "name", "step", "upstream", "older_than", "younger_than"];

    /// Takes in one parameter; the error says that there is none of that name.
    pub(super) fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        let place = match key {
            "state" => &mut self.state,
            "name" => &mut self.name,
            "step" => &mut self.step,
            "upstream" => &mut self.upstream,
            "older_than" => &mut self.older_than,
            "younger_than" => &mut self.younger_than,
            _ => {
                return Err(format!(
                    "`{key}` is no filter: state, name, step, upstream, older_than and younger_than are"
                ));
            }
        };
        *place = Some(value);
        Ok(())
    }

    /// The filter that is meant; the error says which parameter can't be read, and why.
    pub(super) fn filter(self) -> Result<Filter, String> {
        let states = self.state.iter().flat_map(|states| states.split(','));
        let states = states.map(|word| word.trim().parse().map_err(|error| format!("state: {error}")));
        Ok(Filter {
            states: states.collect::<Result<_, String>>()?,
            name: self.name,
            step: self.step,
            upstream: self.upstream,
            older_than: span("older_than", self.older_than)?,
            younger_than: span("younger_than", self.younger_than)?,
        })
    }
}

fn span(key: &str, text: Option<String>) -> Result<Option<Duration>, String> {
    let read = |text: String| {
        let wrong = |why| format!("{key}: `{text}`: {why}; {}", config::DURATION_HELP);
        config::duration(&text).map_err(wrong)
    };
    text.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::State;

    #[test]
    fn a_query_is_a_filter() {
        let query = FilterQuery {
            state: Some("stuck, halted".to_owned()),
            older_than: Some("10m".to_owned()),
            ..FilterQuery::default()
        };
        let filter = query.filter().unwrap();
        assert_eq!(filter.states, [State::Stuck, State::Halted]);
        assert_eq!(filter.older_than, Some(Duration::from_secs(600)));
        assert_eq!(FilterQuery::default().filter(), Ok(Filter::default()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let state = Some("stucked".to_owned());
        let error = FilterQuery {
            state,
            ..FilterQuery::default()
        }
        .filter()
        .unwrap_err();
        assert!(error.starts_with("state: `stucked` is no state"), "{error}");
        let older_than = Some("10".to_owned());
        let error = FilterQuery {
            older_than,
            ..FilterQuery::default()
        }
        .filter()
        .unwrap_err();
        assert!(
            error.starts_with("older_than: `10`: it has no unit; write"),
            "{error}"
        );
    }
}
