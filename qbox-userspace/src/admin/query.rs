//! The parameters of a URL's query, each taken by its name once. A parameter that nobody takes, one that comes twice and one that
//! can't be read are refused by name: a filter that is silently not applied would show, or undo, the wrong sagas.

use super::problem::{Refusal, bad_parameter};
use crate::config;
use crate::runner::{Filter, NoState};
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Parameters {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let unreadable = |_| Refusal::from(bad_parameter("?", "this query is no list of NAME=VALUE"));
        let Query(left) = Query::try_from_uri(&parts.uri).map_err(unreadable)?;
        Ok(Self {
            left,
            known: Vec::new(),
        })
    }
}

impl Parameters {
    /// The text of one; empty is as good as none.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let place = self.left.iter().position(|(given, _)| given == name)?;
        let (_, value) = self.left.swap_remove(place);
        Some(value).filter(|value| !value.is_empty())
    }

    /// One that is read by `read`, whose error is for people.
    pub(super) fn read<T, E: Display>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let wrong = |error: E| Refusal::from(bad_parameter(name, &format!("`{text}`: {error}")));
        read(&text).map(Some).map_err(wrong)
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(&mut self, name: &'static str, most: usize) -> Result<Option<usize>, Refusal> {
        self.read(name, |text| match usize::from_str(text) {
            Ok(count) if (1..=most).contains(&count) => Ok(count),
            _ => Err(format!("it must be a whole number from 1 to {most}")),
        })
    }

    /// One that is `1` (or `true`), `0` (or `false`).
    pub(super) fn switch(&mut self, name: &'static str) -> Result<bool, Refusal> {
        let on = self.read(name, |text| match text {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err("it must be 1 or 0"),
        })?;
        Ok(on.unwrap_or_default())
    }

    /// Those of a filter: `?state=stuck,halted&name=book-trip&older_than=10m`. What is not given is not asked for.
    pub(super) fn filter(&mut self) -> Result<Filter, Refusal> {
        let states = self.text("state").unwrap_or_default();
        let states = states.split(',').map(str::trim).filter(|_| !states.is_empty());
        let states: Result<_, NoState> = states.map(str::parse).collect();
        Ok(Filter {
            states: states.map_err(|error| bad_parameter("state", &error.to_string()))?,
            name: self.text("name"),
            step: self.text("step"),
            upstream: self.text("upstream"),
            older_than: self.span("older_than")?,
            younger_than: self.span("younger_than")?,
        })
    }

    /// `90s`, `10m`, `24h`.
    fn span(&mut self, name: &'static str) -> Result<Option<Duration>, Refusal> {
        self.read(name, |text| {
            config::duration(text).map_err(|why| format!("{why}; {}", config::DURATION_HELP))
        })
    }

    /// Nothing may be left over.
    pub(super) fn done(self) -> Result<(), Refusal> {
        let Some((name, _)) = self.left.first() else {
            return Ok(());
        };
        let detail = match self.known.contains(&name.as_str()) {
            true => "it is given twice".to_owned(),
            false => format!("there is no such parameter; there are {}", self.known.join(", ")),
        };
        Err(bad_parameter(name, &detail).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::State;
    use axum::http::Request;
    use axum::response::IntoResponse;

    async fn parameters(query: &str) -> Parameters {
        let request = Request::get(format!("/x?{query}")).body(()).unwrap();
        let (mut parts, ()) = request.into_parts();
        Parameters::from_request_parts(&mut parts, &()).await.unwrap()
    }

    async fn problem(refused: Refusal) -> serde_json::Value {
        let body = axum::body::to_bytes(refused.into_response().into_body(), 10_000)
            .await
            .unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn each_is_taken_once_by_its_name() {
        let mut parameters = parameters("limit=7&follow=1&name=a%20b&state=").await;
        assert_eq!(parameters.count("limit", 10).unwrap(), Some(7));
        assert!(parameters.switch("follow").unwrap());
        let filter = parameters.filter().unwrap();
        assert_eq!((filter.name.as_deref(), filter.states), (Some("a b"), Vec::new()));
        parameters.done().unwrap();
    }

    #[tokio::test]
    async fn a_query_is_a_filter() {
        let filter = parameters("state=stuck,%20halted&older_than=10m").await.filter();
        let filter = filter.unwrap();
        assert_eq!(filter.states, [State::Stuck, State::Halted]);
        assert_eq!(filter.older_than, Some(Duration::from_secs(600)));
        assert_eq!(parameters("").await.filter().unwrap(), Filter::default());
    }

    #[tokio::test]
    async fn what_is_wrong_is_named() {
        let mut asked = parameters("limit=11").await;
        let refused = problem(asked.count("limit", 10).unwrap_err()).await;
        assert_eq!(refused["parameter"], "limit");
        assert_eq!(
            refused["detail"],
            "limit: `11`: it must be a whole number from 1 to 10"
        );
        let mut asked = parameters("older_than=soon").await;
        let refused = problem(asked.filter().unwrap_err()).await;
        assert_eq!(
            (&refused["parameter"], &refused["status"]),
            (&"older_than".into(), &400.into())
        );
        let mut asked = parameters("state=stucked").await;
        let refused = problem(asked.filter().unwrap_err()).await;
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.starts_with("state: `stucked` is no state"), "{detail}");
        let mut asked = parameters("older_than=10").await;
        let refused = problem(asked.filter().unwrap_err()).await;
        let detail = refused["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("older_than: `10`: it has no unit; write"),
            "{detail}"
        );
        let mut asked = parameters("limit=1&stat=stuck").await;
        asked.count("limit", 10).unwrap();
        let refused = problem(asked.done().unwrap_err()).await;
        assert_eq!(
            refused["detail"],
            "stat: there is no such parameter; there are limit"
        );
        let mut asked = parameters("limit=1&limit=2").await;
        asked.count("limit", 10).unwrap();
        let refused = problem(asked.done().unwrap_err()).await;
        assert_eq!(refused["detail"], "limit: it is given twice");
    }
}
