//! `GET /api/v1/live`: how this Qbox is, again and again, as server-sent events (WHATWG HTML, 9.2). One snapshot at once, and then one whenever
//! something has changed, at most every [`TICK`]: however many sagas run, a page that is open costs the same.
//!
//! `revision` tells a page that there is something new to ask for. Nothing of any saga stands in a snapshot.

use super::problem::{Refusal, problem};
use super::query::Parameters;
use super::routes::Shared;
use crate::runner::State as SagaState;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::Channel;
use serde::Serialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often is looked whether something has changed.
const TICK: Duration = Duration::from_millis(250);
/// After so long without a change the same snapshot is sent again, by which both ends learn that the other is there.
const IDLE: Duration = Duration::from_secs(10);
/// Snapshots on their way to one client. Who reads too slowly gets fewer of them.
const QUEUE: usize = 2;

/// How it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Snapshot {
    /// Rises with whatever happens to a saga.
    revision: u64,
    /// How many sagas that have not ended stand in each state.
    states: BTreeMap<&'static str, usize>,
    /// How many of them an operator has paused.
    paused: usize,
    /// How many of them only wait for answers that may come late.
    listening: usize,
    /// Sagas that have not ended, and how many there may be.
    in_flight: usize,
    capacity: usize,
    /// Since the process began.
    totals: Totals,
    /// Pods that are captured, and that can't be.
    pods: usize,
    uncaptured: usize,
    /// How many sagas are defined.
    definitions: usize,
    /// How many of them are only observed.
    observing: usize,
    /// Rises with whatever becomes known of an observed trigger; 0: there was none.
    observed: u64,
    /// How often files that had changed were read, well or not: then the definitions are to be asked for anew.
    reloads: u64,
    /// Why it is not ready; empty: it is.
    amiss: Vec<String>,
    /// What may be amiss all the same.
    doubts: Vec<String>,
}

/// Sagas since the process began.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Totals {
    begun: u64,
    committed: u64,
    compensated: u64,
    stuck: u64,
}

impl Snapshot {
    fn take(shared: &Shared) -> Self {
        let totals = shared.runner.totals();
        let states = shared.runner.states();
        let health = shared.runner.health();
        let pods = shared.pods();
        let defined = (shared.node.definitions)();
        Self {
            revision: totals.revision,
            states: states
                .counts
                .into_iter()
                .filter(|(state, _)| !matches!(state, SagaState::Committed | SagaState::Compensated))
                .map(|(state, count)| (state.as_str(), count))
                .collect(),
            paused: states.paused,
            listening: states.listening,
            in_flight: health.in_flight,
            capacity: health.capacity,
            totals: Totals {
                begun: totals.begun,
                committed: totals.committed,
                compensated: totals.compensated,
                stuck: totals.stuck,
            },
            pods: pods.captured.len(),
            uncaptured: pods.uncaptured.len(),
            definitions: defined.definitions.len(),
            observing: defined
                .definitions
                .iter()
                .filter(|saga| saga.get("mode").is_some_and(|mode| mode == "observe"))
                .count(),
            observed: shared.node.observer.revision(),
            reloads: defined.reloads + defined.failed,
            amiss: shared.amiss(),
            doubts: shared.doubts(),
        }
    }

    /// As an event, with the moment, in microseconds since 1970.
    fn event(&self) -> Bytes {
        #[derive(Serialize)]
        struct Dated<'a> {
            at: u64,
            #[serde(flatten)]
            snapshot: &'a Snapshot,
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        // Plain data can always be written.
        let text = serde_json::to_string(&Dated { at, snapshot: self }).unwrap_or_default();
        Bytes::from(format!("data: {text}\n\n"))
    }
}

/// The route.
pub(super) async fn live(State(shared): State<Arc<Shared>>, asked: Parameters) -> Result<Response, Refusal> {
    asked.done()?;
    let Some(place) = shared.followers.enter() else {
        let detail = "as many clients as may read events already";
        return Err(problem(StatusCode::SERVICE_UNAVAILABLE, detail).into());
    };
    let mut ending = shared.followers.ending();
    let (mut events, body) = Channel::<Bytes, Infallible>::new(QUEUE);
    tokio::spawn(async move {
        let _place = place;
        let tell = async {
            let mut tick = tokio::time::interval(TICK);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut last: Option<(Snapshot, Instant)> = None;
            loop {
                tick.tick().await;
                let now = Snapshot::take(&shared);
                if last
                    .as_ref()
                    .is_some_and(|(last, at)| *last == now && at.elapsed() < IDLE)
                {
                    continue;
                }
                if events.send_data(now.event()).await.is_err() {
                    return;
                }
                last = Some((now, Instant::now()));
            }
        };
        tokio::select! {
            () = tell => {}
            // An error is an end too.
            _ = ending.wait_for(|ending| *ending) => {}
        }
    });
    let kind = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Ok((kind, Body::new(body)).into_response())
}

#[cfg(test)]
mod tests {
    use super::super::openapi_tests::check_component;
    use super::super::tests::{node, start};
    use crate::runner::testing::{self, Service, plan, runner, trigger};
    use serde_json::Value;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    /// The next event's data.
    fn next(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Value {
        let data = lines.find_map(|line| line.unwrap().strip_prefix("data: ").map(str::to_owned));
        let snapshot = serde_json::from_str(&data.unwrap()).unwrap();
        check_component("Snapshot", &snapshot);
        snapshot
    }

    #[tokio::test]
    async fn a_snapshot_comes_at_once_and_another_when_a_saga_has_run() {
        let service = Service::willing().await;
        let runner = runner();
        let (admin, _folder) = start(&runner, node());
        let mut stream = UnixStream::connect(admin.socket().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET /api/v1/live HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        let first = next(&mut lines);
        assert_eq!(
            (&first["totals"]["begun"], &first["pods"]),
            (&0.into(), &1.into())
        );
        let url = service.url("/hotel");
        let plan = plan(&format!(
            "name = \"x\"\n[trigger]\nurl = \"http://trips/trips/{{trip}}\"\n\
             [[step]]\nname = \"hotel\"\nrequest = {{ method = \"PUT\", url = \"{url}\" }}\n"
        ));
        let saga = testing::start(&runner, &plan, trigger("7", None, "")).unwrap();
        drop(saga.reply().await);
        let second = loop {
            let snapshot = next(&mut lines);
            if snapshot["totals"]["committed"] == 1 {
                break snapshot;
            }
        };
        assert!(second["revision"].as_u64() > first["revision"].as_u64());
        assert!(second["at"].as_u64() >= first["at"].as_u64());
    }
}
