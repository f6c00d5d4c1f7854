//! `GET /metrics`: what is counted here and in the rooms below, as OpenMetrics text for those that ask for it, which Prometheus
//! does, and for all others in Prometheus' older text format.
//!
//! Each scrape draws the numbers as they are; nothing is kept. Labels are names of sagas and steps that plans give, and words
//! of Qbox's own: never a caller's text, so that their number is that of the definitions. docs/metrics.md lists them all.

use super::problem::problem;
use super::routes::Shared;
use crate::durations::{BUCKETS, Durations};
use crate::runner::{CLASSES, DIRECTIONS, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

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
    /// Network namespaces that the kernel's side told of, by whether that came through; empty where nothing is captured.
    pub namespaces: Tally,
}

/// The whole document, in the format that is asked for.
pub(super) fn render(shared: &Arc<Shared>, asked: &HeaderMap) -> Response {
    let mut registry = Registry::with_prefix("qbox");
    registry.register_collector(Box::new(Scrape(Arc::clone(shared))));
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

struct Scrape(Arc<Shared>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut draw = Draw(encoder);
        self.node(&mut draw)?;
        self.sagas(&mut draw)?;
        self.observed(&mut draw)?;
        self.calls(&mut draw)?;
        self.journal(&mut draw)?;
        self.spans(&mut draw)?;
        self.traffic(&mut draw)
    }
}

impl Scrape {
    fn node(&self, draw: &mut Draw<'_>) -> fmt::Result {
        let shared = &self.0;
        draw.rows(
            Gauge,
            "build_info",
            "Always 1; the label is this Qbox's version",
            [([("version", env!("CARGO_PKG_VERSION"))], 1)],
        )?;
        let ready = u64::from(shared.amiss().is_empty());
        draw.one(Gauge, "ready", "1 when /readyz answers 200, else 0", ready)?;
        let loaded = (shared.node.definitions)();
        draw.one(
            Gauge,
            "definitions",
            "Sagas that are defined",
            loaded.definitions.len() as u64,
        )?;
        draw.one(
            Gauge,
            "definitions_current",
            "1 when what is loaded is what the files say, 0 when they can't be used",
            u64::from(loaded.error.is_none()),
        )?;
        draw.tally(
            "reloads",
            "How often changed files were read, by whether they came into force",
            "outcome",
            [("done", loaded.reloads), ("failed", loaded.failed)].into_iter(),
        )?;
        let (captured, uncaptured) = shared.pods();
        draw.rows(
            Gauge,
            "pods",
            "Pods that are known now, by whether their connections are captured",
            [
                ([("captured", "true")], captured.len() as u64),
                ([("captured", "false")], uncaptured.len() as u64),
            ],
        )
    }

    fn sagas(&self, draw: &mut Draw<'_>) -> fmt::Result {
        let runner = &self.0.runner;
        let health = runner.health();
        // Those that have ended are counted when they end; how many of them are still remembered says nothing.
        let ended = |state: &State| matches!(state, State::Committed | State::Compensated);
        let standing = runner.states();
        let states = standing.counts.into_iter().filter(|(state, _)| !ended(state));
        draw.rows(
            Gauge,
            "sagas",
            "Sagas that have not ended, by state; each that is stuck or halted waits for a person",
            states.map(|(state, count)| ([("state", state.as_str())], count as u64)),
        )?;
        draw.one(
            Gauge,
            "sagas_paused",
            "Sagas that an operator has paused",
            standing.paused as u64,
        )?;
        draw.measured(
            "saga_stuck_oldest",
            "For how long a saga has been stuck, at the most; 0: none is",
            &Unit::Seconds,
            standing.oldest_stuck.as_secs(),
        )?;
        draw.measured(
            "saga_running_oldest",
            "How long ago the trigger of a saga came that has neither ended nor is stuck, at the most; 0: there is none",
            &Unit::Seconds,
            standing.oldest_running.as_secs(),
        )?;
        draw.one(
            Gauge,
            "sagas_in_flight",
            "Sagas that have a place: waiting, running, compensating or stuck",
            health.in_flight as u64,
        )?;
        draw.one(
            Gauge,
            "sagas_in_flight_limit",
            "How many places there are (limits.sagas_in_flight)",
            health.capacity as u64,
        )?;
        draw.one(
            Gauge,
            "sagas_in_hand",
            "Sagas that are in memory whole; the others wait for their lock or their turn, or are at rest: stuck, paused, far from their next attempt",
            runner.in_hand() as u64,
        )?;
        let counts = runner.counts();
        let sagas = || counts.sagas.iter().map(|(name, saga)| (name.as_str(), saga));
        draw.rows(
            Count,
            "sagas_begun",
            "Sagas that began",
            sagas().map(|(name, saga)| ([("saga", name)], saga.begun)),
        )?;
        draw.rows(
            Count,
            "sagas_ended",
            "Sagas that ended, by outcome",
            sagas().flat_map(|(name, saga)| {
                [("committed", saga.committed), ("compensated", saga.compensated)]
                    .map(|(outcome, took)| ([("saga", name), ("outcome", outcome)], took.count()))
            }),
        )?;
        draw.rows(
            Count,
            "sagas_stuck",
            "How often a saga got stuck",
            sagas().map(|(name, saga)| ([("saga", name)], saga.stuck)),
        )?;
        draw.one(
            Count,
            "sagas_halted",
            "Sagas that were halted: their journal failed them, or a bug",
            counts.halted,
        )?;
        draw.one(
            Count,
            "sagas_held_back",
            "How often a saga had as many steps under way as may be (limits.steps_in_flight), and more to begin",
            counts.held_back,
        )?;
        draw.histogram(
            "saga_duration",
            "From a saga's beginning (its trigger's arrival, or the end of its wait for a lock) to its end",
            sagas().flat_map(|(name, saga)| {
                [("committed", saga.committed), ("compensated", saga.compensated)]
                    .map(|(outcome, took)| ([("saga", name), ("outcome", outcome)], took))
            }),
        )?;
        draw.histogram(
            "saga_compensation_duration",
            "From the beginning of a saga's compensation to its end, of those that were compensated",
            sagas().map(|(name, saga)| ([("saga", name)], saga.undoing)),
        )?;
        // One step's messages after the other.
        let steps = || {
            sagas().flat_map(|(saga, stats)| {
                stats.steps.iter().flat_map(move |(step, stats)| {
                    let label =
                        move |direction| [("saga", saga), ("step", step.as_str()), ("direction", direction)];
                    (0..)
                        .zip(DIRECTIONS)
                        .map(move |(place, direction): (usize, _)| (label(direction), place, stats))
                })
            })
        };
        draw.rows(
            Count,
            "attempts",
            "Attempts that ended, by what their end says of the effect; a compensation that is `applied` has undone its step",
            steps().flat_map(|([saga, step, direction], place, stats)| {
                let classes = stats.attempts.get(place).into_iter().flatten();
                CLASSES
                    .into_iter()
                    .zip(classes)
                    .map(move |(class, count)| ([saga, step, direction, ("class", class)], *count))
            }),
        )?;
        draw.rows(
            Count,
            "retries",
            "How often another attempt was to follow",
            steps().filter_map(|(labels, place, stats)| Some((labels, *stats.retries.get(place)?))),
        )?;
        // Of what a step has never sent there is nothing to tell.
        draw.histogram(
            "attempt_duration",
            "From when an attempt was to be sent to its end, with its wait for a place",
            steps().filter_map(|(labels, place, stats)| {
                let took = *stats.took.get(place)?;
                (took.count() > 0).then_some((labels, took))
            }),
        )?;
        draw.tally(
            "triggers_refused",
            "Triggers that began no saga",
            "reason",
            counts.refused.into_iter(),
        )?;
        draw.one(
            Count,
            "triggers_joined",
            "Triggers that were joined to a saga with the same key",
            counts.joined,
        )
    }

    fn observed(&self, draw: &mut Draw<'_>) -> fmt::Result {
        let counts = self.0.node.observer.counts();
        let unseen = (self.0.node.traffic)().unseen;
        draw.tally(
            "observed",
            "Triggers of sagas that are only observed, by what became of their records",
            "fate",
            [
                ("recorded", counts.recorded),
                ("dropped", counts.dropped),
                ("unrehearsed", counts.unrehearsed),
                ("unseen", unseen),
            ]
            .into_iter(),
        )
    }

    fn calls(&self, draw: &mut Draw<'_>) -> fmt::Result {
        let calls = self.0.runner.calls();
        draw.one(
            Gauge,
            "calls_in_flight",
            "Calls to services that are in flight",
            calls.in_flight as u64,
        )?;
        draw.one(
            Gauge,
            "calls_waiting",
            "Calls that wait for a place, or for a circuit to close",
            calls.waiting as u64,
        )?;
        draw.one(
            Count,
            "calls_held",
            "Calls that were held back, nothing sent: no place in time, or an open circuit",
            calls.held,
        )?;
        draw.one(
            Gauge,
            "calls_lingering",
            "Calls whose timeout is over, and that are still listened to",
            calls.lingering as u64,
        )?;
        draw.one(
            Count,
            "calls_unheard",
            "Calls that were closed without an answer: linger is over, or as many as may be lingered",
            calls.unheard,
        )?;
        draw.one(
            Gauge,
            "circuits_open",
            "Services whose circuit is open",
            calls.open.len() as u64,
        )?;
        draw.one(
            Count,
            "circuits_opened",
            "How often a circuit opened, after that many failed connects in a row",
            calls.opened,
        )
    }

    fn spans(&self, draw: &mut Draw<'_>) -> fmt::Result {
        let spans = self.0.runner.spans().unwrap_or_default();
        draw.tally(
            "spans",
            "Spans of sagas, by what became of them; none where telemetry.otlp names no collector",
            "fate",
            [
                ("sent", spans.sent),
                ("dropped", spans.dropped),
                ("failed", spans.failed),
            ]
            .into_iter(),
        )?;
        draw.one(
            Gauge,
            "spans_queued",
            "Spans that wait to be sent to the collector",
            spans.queued as u64,
        )
    }

    fn journal(&self, draw: &mut Draw<'_>) -> fmt::Result {
        let load = self.0.runner.journal_load();
        let failed = u64::from(self.0.runner.health().broken.is_some());
        draw.one(
            Count,
            "journal_events",
            "Events that were appended to the journal",
            load.events,
        )?;
        draw.one(
            Count,
            "journal_syncs",
            "Transactions that the journal wrote, each with one sync of the disk",
            load.syncs,
        )?;
        draw.histogram(
            "journal_commit_duration",
            "How long the journal's transactions took, with their syncs",
            std::iter::once(([], load.commits)),
        )?;
        draw.measured("journal_size", "The journal on disk", &Unit::Bytes, load.size)?;
        draw.measured(
            "journal_queued",
            "About how much waits in memory to be written to the journal",
            &Unit::Bytes,
            load.queued_bytes as u64,
        )?;
        draw.one(
            Gauge,
            "journal_failed",
            "1 when the journal failed, or failed a saga: not ready until a restart",
            failed,
        )
    }

    fn traffic(&self, draw: &mut Draw<'_>) -> fmt::Result {
        let traffic = (self.0.node.traffic)();
        draw.one(
            Gauge,
            "connections_open",
            "Clients' connections that are open now",
            traffic.open as u64,
        )?;
        draw.one(
            Count,
            "connections",
            "Clients' connections that were taken on",
            traffic.connections,
        )?;
        draw.one(
            Count,
            "connections_http2",
            "Clients' connections that spoke HTTP/2",
            traffic.http2,
        )?;
        draw.one(
            Count,
            "connections_over_limit",
            "Clients' connections that were closed at once (limits.connections)",
            traffic.over_limit,
        )?;
        let tallies = [
            (
                "requests",
                "HTTP requests, by what was done with them",
                "handling",
                traffic.requests,
            ),
            (
                "connections_through",
                "Connections that were copied through unread, by reason",
                "reason",
                traffic.through,
            ),
            (
                "proxy_errors",
                "What went wrong between a client and its upstream, by kind",
                "kind",
                traffic.errors,
            ),
            (
                "captured_connections",
                "Pods' connections, by what the eBPF programs and the listeners did with them",
                "fate",
                traffic.captured,
            ),
            (
                "announced_namespaces",
                "Network namespaces that the eBPF programs told of, by whether there was room for the news",
                "fate",
                traffic.namespaces,
            ),
        ];
        for (name, help, label, tally) in tallies {
            draw.tally(name, help, label, tally.into_iter())?;
        }
        draw.histogram(
            "relay_duration",
            "What Qbox adds to a request that it passes on: from the arrival of its head to when it was written to the service",
            std::iter::once(([], traffic.relay)),
        )?;
        let maps = || traffic.maps.iter();
        draw.rows(
            Gauge,
            "ebpf_map_entries",
            "Entries of the eBPF programs' maps",
            maps().map(|(map, held, _)| ([("map", *map)], *held)),
        )?;
        draw.rows(
            Gauge,
            "ebpf_map_capacity",
            "How many entries the eBPF programs' maps can hold",
            maps().map(|(map, _, most)| ([("map", *map)], *most)),
        )
    }
}

/// What kind of number it is.
#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Count,
}
use Kind::{Count, Gauge};

type Label<'a> = (&'static str, &'a str);

/// One metric after the other.
struct Draw<'a>(DescriptorEncoder<'a>);

impl Draw<'_> {
    fn head<'s>(
        &'s mut self,
        kind: Kind,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        let kind = match kind {
            Gauge => MetricType::Gauge,
            Count => MetricType::Counter,
        };
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn one(&mut self, kind: Kind, name: &str, help: &str, value: u64) -> fmt::Result {
        put(kind, value, self.head(kind, name, help, None)?)
    }

    fn measured(&mut self, name: &str, help: &str, unit: &Unit, value: u64) -> fmt::Result {
        put(Gauge, value, self.head(Gauge, name, help, Some(unit))?)
    }

    fn rows<'l, const N: usize>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = ([Label<'l>; N], u64)>,
    ) -> fmt::Result {
        let mut metric = self.head(kind, name, help, None)?;
        for (labels, value) in rows {
            put(kind, value, metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn tally(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        rows: impl Iterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        self.rows(
            Count,
            name,
            help,
            rows.map(|(word, count)| ([(label, word)], count)),
        )
    }

    fn histogram<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = ([Label<'l>; N], Durations)>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, took) in rows {
            let ends = BUCKETS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = ends.zip(took.buckets).collect();
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                took.sum.as_secs_f64(),
                took.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

fn put(kind: Kind, value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Gauge => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder),
        Count => ConstCounter::new(value).encode(encoder),
    }
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
