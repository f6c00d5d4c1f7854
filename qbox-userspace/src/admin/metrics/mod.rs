//! `GET /metrics`: what is counted here and in the rooms below, as OpenMetrics text for those that ask for it, which Prometheus
//! does, and for all others in Prometheus' older text format.
//!
//! Each scrape draws the numbers as they are; nothing is kept. Labels are names of sagas and steps that plans give, and words
//! of Qbox's own: never a caller's text, so that their number is that of the definitions. [`described`] has them all.

mod described;
mod draw;
#[cfg(test)]
mod page;
mod scrape;

use super::problem::problem;
use super::routes::Shared;
use crate::durations::Durations;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
#[cfg(test)]
pub(super) use page::names as described;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use scrape::Scrape;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Numbers under words of Qbox's own.
pub type Tally = Vec<(&'static str, u64)>;

/// What the data path counts.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Connections that are open now.
    pub open: usize,
    /// Connections that were taken on.
    pub connections: u64,
    /// Connections that were closed at once, since as many as may be were open.
    pub over_limit: u64,
    /// Connections of HTTP/2 among those that were taken on.
    pub http2: u64,
    /// HTTP requests, by what was done with them.
    pub requests: Tally,
    /// Requests that passed unseen, though they could have been observed.
    pub unseen: u64,
    /// Connections that were copied through unread, by reason.
    pub through: Tally,
    /// What went wrong, by kind.
    pub errors: Tally,
    /// Connections of pods, by what the kernel's side and the listeners did with them; empty where nothing is captured.
    pub captured: Tally,
    /// How long passing a request's head on took.
    pub relay: Durations,
    /// The kernel's side's maps, with how many entries they have and can have; empty where nothing is captured.
    pub maps: Vec<(&'static str, u64, u64)>,
    /// How long ago the capture last checked itself to the end; `None` where nothing is captured, or it has not yet.
    pub checked: Option<Duration>,
    /// Network namespaces that the kernel's side told of, by whether that came through; empty where nothing is captured.
    pub namespaces: Tally,
}

/// The whole document, in the format that is asked for.
pub(super) fn render(shared: &Arc<Shared>, asked: &HeaderMap) -> Response {
    let mut registry = Registry::with_prefix("qbox");
    registry.register_collector(Box::new(Scrape::of(shared)));
    let mut out = String::new();
    if text::encode(&mut out, &registry).is_err() {
        // A string takes all that is written to it.
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be drawn");
    }
    let mut accepted = asked.get_all(header::ACCEPT).iter();
    let open = accepted.any(|kinds| {
        let kinds = kinds.to_str().unwrap_or_default();
        kinds.contains("application/openmetrics-text")
    });
    match open {
        true => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], out).into_response()
        }
        false => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], classic(&out)).into_response()
        }
    }
}

/// OpenMetrics text in the format that was before it (Prometheus' "Exposition formats"): there a counter's samples, its help and its
/// type all have its one name, `_total` included, and there are no units and no end.
fn classic(open: &str) -> String {
    let lines: Vec<_> = open.lines().collect();
    let counters: HashSet<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open.len());
    for line in lines {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name)) if counters.contains(name) => {
                let rest = words.next().unwrap_or_default();
                text.extend(["# ", what, " ", name, "_total ", rest, "\n"]);
            }
            (Some("#"), Some("UNIT" | "EOF"), _) => {}
            _ => text.extend([line, "\n"]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_has_one_name_for_a_counter_and_no_end() {
        let open = "# HELP q_a What is counted.\n# TYPE q_a counter\nq_a_total{x=\"# TYPE b counter\"} 1\n\
                    # HELP q_s_seconds How long.\n# TYPE q_s_seconds histogram\n# UNIT q_s_seconds seconds\nq_s_seconds_sum 1.0\n# EOF\n";
        let older = "# HELP q_a_total What is counted.\n# TYPE q_a_total counter\nq_a_total{x=\"# TYPE b counter\"} 1\n\
                     # HELP q_s_seconds How long.\n# TYPE q_s_seconds histogram\nq_s_seconds_sum 1.0\n";
        assert_eq!(classic(open), older);
    }
}
