//! The numbers behind the metrics: asked for when a scrape comes, and drawn. Errors: what is written to takes no more.

use super::super::routes::Pods;
use super::described::*;
use super::draw::Draw;
use super::{Shared, Tally, Traffic};
use crate::allocations;
use crate::runner::{CLASSES, Calls, Counts, DIRECTIONS, State};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;
use std::sync::Arc;

/// One scrape.
pub(super) struct Scrape(Arc<Shared>);

/// What more than one part of it looks at.
struct Seen {
    counts: Counts,
    calls: Calls,
    traffic: Traffic,
}

impl Scrape {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::clone(shared))
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut draw = Draw(encoder);
        let seen = Seen {
            counts: self.0.runner.counts(),
            calls: self.0.runner.calls(),
            traffic: (self.0.node.traffic)(),
        };
        self.node(&mut draw)?;
        self.limits(&mut draw, &seen)?;
        self.sagas(&mut draw, &seen)?;
        steps(&mut draw, &seen.counts)?;
        calls(&mut draw, &seen.calls)?;
        self.journal(&mut draw)?;
        self.spans(&mut draw)?;
        self.kubernetes(&mut draw)?;
        self.capture(&mut draw, &seen.traffic)?;
        connections(&mut draw, seen.traffic)
    }
}

/// What is counted under that word.
fn under(word: &str, tally: &Tally) -> u64 {
    let found = tally.iter().find(|(known, _)| *known == word);
    found.map_or(0, |(_, count)| *count)
}

impl Scrape {
    fn node(&self, draw: &mut Draw<'_>) -> fmt::Result {
        let shared = &self.0;
        draw.rows(BUILD_INFO, [([env!("CARGO_PKG_VERSION")], 1)])?;
        draw.one(READY, u64::from(shared.amiss().is_empty()))?;
        let loaded = (shared.node.definitions)();
        draw.one(DEFINITIONS, loaded.definitions.len() as u64)?;
        draw.one(DEFINITIONS_CURRENT, u64::from(loaded.error.is_none()))?;
        draw.tally(RELOADS, [("done", loaded.reloads), ("failed", loaded.failed)])?;
        draw.one(ALLOCATIONS, allocations::count())
    }

    fn limits(&self, draw: &mut Draw<'_>, seen: &Seen) -> fmt::Result {
        let Seen {
            counts,
            calls,
            traffic,
        } = seen;
        let refused = |reason| counts.refused.get(reason).copied().unwrap_or_default();
        let error = |kind| under(kind, &traffic.errors);
        draw.tally(
            LIMIT_REACHED,
            [
                ("limits.trigger_body", error("body_too_large")),
                ("limits.response_body", calls.cut),
                ("limits.head", error("head_too_large")),
                ("limits.connections", traffic.over_limit),
                ("limits.http2_streams", error("streams")),
                ("limits.sagas_in_flight", refused("busy")),
                ("limits.steps_in_flight", counts.held_back),
                ("limits.depth", refused("too_deep")),
                ("limits.observed", self.0.node.observer.counts().dropped),
                ("upstream.concurrency", calls.crowded),
                ("upstream.lingering", calls.unlistened),
            ],
        )
    }

    fn sagas(&self, draw: &mut Draw<'_>, seen: &Seen) -> fmt::Result {
        let runner = &self.0.runner;
        let (health, counts) = (runner.health(), &seen.counts);
        let mut standing = runner.standing();
        // A sum over all has a zero to begin from, whatever has run so far.
        let loaded = (self.0.node.definitions)();
        let names = loaded
            .definitions
            .iter()
            .filter_map(|saga| saga.get("name")?.as_str());
        for name in names {
            standing.by_saga.entry(name.to_owned()).or_default();
        }
        // Those that have ended are counted when they end; how many of them are still remembered says nothing.
        let ended = |state: State| matches!(state, State::Committed | State::Compensated);
        draw.rows(
            SAGAS,
            standing.by_saga.iter().flat_map(|(name, by_state)| {
                let by_state = State::ALL.into_iter().zip(by_state);
                by_state
                    .filter(|(state, _)| !ended(*state))
                    .map(|(state, count)| ([name.as_str(), state.as_str()], *count as u64))
            }),
        )?;
        let states = standing.states;
        draw.one(SAGAS_PAUSED, states.paused as u64)?;
        draw.one(SAGAS_LISTENING, states.listening as u64)?;
        draw.one(STUCK_OLDEST, states.oldest_stuck.as_secs())?;
        draw.one(RUNNING_OLDEST, states.oldest_running.as_secs())?;
        draw.one(IN_FLIGHT, health.in_flight as u64)?;
        draw.one(IN_FLIGHT_LIMIT, health.capacity as u64)?;
        draw.one(IN_HAND, runner.in_hand() as u64)?;
        let sagas = || counts.sagas.iter().map(|(name, saga)| (name.as_str(), saga));
        draw.rows(BEGUN, sagas().map(|(name, saga)| ([name], saga.begun)))?;
        let outcomes = || {
            sagas().flat_map(|(name, saga)| {
                [("committed", saga.committed), ("compensated", saga.compensated)]
                    .map(|(outcome, took)| ([name, outcome], took))
            })
        };
        draw.rows(ENDED, outcomes().map(|(labels, took)| (labels, took.count())))?;
        draw.rows(STUCK, sagas().map(|(name, saga)| ([name], saga.stuck)))?;
        draw.one(HALTED, counts.halted)?;
        draw.one(HELD_BACK, counts.held_back)?;
        draw.histogram(SAGA_DURATION, outcomes())?;
        draw.histogram(
            COMPENSATION_DURATION,
            sagas().map(|(name, saga)| ([name], saga.undoing)),
        )?;
        draw.tally(
            REFUSED,
            counts.refused.iter().map(|(reason, count)| (*reason, *count)),
        )?;
        draw.one(JOINED, counts.joined)?;
        let observed = self.0.node.observer.counts();
        draw.tally(
            OBSERVED,
            [
                ("recorded", observed.recorded),
                ("dropped", observed.dropped),
                ("unrehearsed", observed.unrehearsed),
                ("unseen", seen.traffic.unseen),
            ],
        )
    }

    fn journal(&self, draw: &mut Draw<'_>) -> fmt::Result {
        let load = self.0.runner.journal_load();
        draw.one(JOURNAL_EVENTS, load.events)?;
        draw.one(JOURNAL_SYNCS, load.syncs)?;
        draw.histogram(JOURNAL_COMMITS, [([], load.commits)])?;
        draw.one(JOURNAL_SIZE, load.size)?;
        draw.one(JOURNAL_QUEUED, load.queued_bytes as u64)?;
        let failed = self.0.runner.health().broken.is_some();
        draw.one(JOURNAL_FAILED, u64::from(failed))
    }

    fn spans(&self, draw: &mut Draw<'_>) -> fmt::Result {
        let spans = self.0.runner.spans().unwrap_or_default();
        draw.tally(
            SPANS,
            [
                ("sent", spans.sent),
                ("dropped", spans.dropped),
                ("failed", spans.failed),
            ],
        )?;
        draw.one(SPANS_QUEUED, spans.queued as u64)
    }

    /// None of them where the API isn't asked.
    fn kubernetes(&self, draw: &mut Draw<'_>) -> fmt::Result {
        let Some(api) = (self.0.node.kubernetes)() else {
            return Ok(());
        };
        draw.one(KUBERNETES_ANSWERS, u64::from(api.listed && api.away.is_none()))?;
        let others = api.pods.saturating_sub(api.enrolled);
        draw.rows(
            KUBERNETES_PODS,
            [(["true"], api.enrolled as u64), (["false"], others as u64)],
        )?;
        let requests = [
            ("list", api.lists),
            ("watch", api.watches),
            ("expired", api.expired),
            ("failed", api.failures),
        ];
        draw.tally(KUBERNETES_REQUESTS, requests)?;
        draw.one(KUBERNETES_EVENTS, api.events)
    }

    fn capture(&self, draw: &mut Draw<'_>, traffic: &Traffic) -> fmt::Result {
        let Pods {
            captured,
            uncaptured,
            left,
        } = self.0.pods();
        draw.one(PODS_LEFT, left.len() as u64)?;
        draw.rows(
            PODS,
            [
                (["true"], captured.len() as u64),
                (["false"], uncaptured.len() as u64),
            ],
        )?;
        let lost = uncaptured.iter().filter(|pod| pod.lost).count();
        draw.one(PODS_LOST, lost as u64)?;
        let preceded = captured.iter().filter(|pod| !pod.before.is_empty()).count();
        draw.one(PODS_PRECEDED, preceded as u64)?;
        draw.one(CHECK_AGE, traffic.checked.unwrap_or_default().as_secs())?;
        draw.tally(CAPTURED, traffic.captured.iter().copied())?;
        draw.tally(ANNOUNCED, traffic.namespaces.iter().copied())?;
        let maps = || traffic.maps.iter();
        draw.rows(MAP_ENTRIES, maps().map(|(map, held, _)| ([*map], *held)))?;
        draw.rows(MAP_CAPACITY, maps().map(|(map, _, most)| ([*map], *most)))
    }
}

fn steps(draw: &mut Draw<'_>, counts: &Counts) -> fmt::Result {
    let all = || {
        counts.sagas.iter().flat_map(|(saga, stats)| {
            let steps = stats.steps.iter();
            steps.map(move |(step, stats)| (saga.as_str(), step.as_str(), stats))
        })
    };
    // One step's messages after the other.
    let messages = || {
        all().flat_map(|(saga, step, stats)| {
            (0..)
                .zip(DIRECTIONS)
                .map(move |(place, direction): (usize, _)| ([saga, step, direction], place, stats))
        })
    };
    draw.histogram(
        STEP_DURATION,
        all().flat_map(|(saga, step, stats)| {
            [("applied", stats.applied), ("failed", stats.failed)]
                .into_iter()
                .filter(|(_, took)| took.count() > 0)
                .map(move |(outcome, took)| ([saga, step, outcome], took))
        }),
    )?;
    // Of what a step has never sent there is nothing to tell.
    draw.histogram(
        ATTEMPT_DURATION,
        messages().filter_map(|(labels, place, stats)| {
            let took = *stats.took.get(place)?;
            (took.count() > 0).then_some((labels, took))
        }),
    )?;
    draw.rows(
        ATTEMPTS,
        messages().flat_map(|([saga, step, direction], place, stats)| {
            let classes = stats.attempts.get(place).into_iter().flatten();
            CLASSES
                .into_iter()
                .zip(classes)
                .map(move |(class, count)| ([saga, step, direction, class], *count))
        }),
    )?;
    draw.rows(
        RETRIES,
        messages().filter_map(|(labels, place, stats)| Some((labels, *stats.retries.get(place)?))),
    )
}

fn calls(draw: &mut Draw<'_>, calls: &Calls) -> fmt::Result {
    draw.one(CALLS_IN_FLIGHT, calls.in_flight as u64)?;
    draw.one(CALLS_WAITING, calls.waiting as u64)?;
    draw.one(CALLS_HELD, calls.held)?;
    draw.one(CALLS_LINGERING, calls.lingering as u64)?;
    draw.one(CALLS_UNHEARD, calls.unheard)?;
    draw.one(CIRCUITS_OPEN, calls.open.len() as u64)?;
    draw.one(CIRCUITS_OPENED, calls.opened)
}

fn connections(draw: &mut Draw<'_>, traffic: Traffic) -> fmt::Result {
    draw.one(CONNECTIONS_OPEN, traffic.open as u64)?;
    draw.one(CONNECTIONS, traffic.connections)?;
    draw.one(CONNECTIONS_HTTP2, traffic.http2)?;
    draw.one(CONNECTIONS_OVER_LIMIT, traffic.over_limit)?;
    draw.tally(REQUESTS, traffic.requests)?;
    draw.tally(THROUGH, traffic.through)?;
    draw.tally(ERRORS, traffic.errors)?;
    draw.histogram(RELAY, [([], traffic.relay)])
}
