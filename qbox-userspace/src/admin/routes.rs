//! The routes, and serving them on both listeners.

use super::Node;
use super::actions;
use super::bounded::Bounded;
use super::definitions::{definitions, reload};
use super::events::{Followers, events};
use super::handover::handover;
use super::history::SagaView;
use super::list;
use super::live::live;
use super::log;
use super::observed;
use super::page;
use super::peer::Peer;
use super::problem::problem;
use super::standby::standby;
use super::token::Token;
use super::view::{Before, JournalView, MapView, Pod, StandingView, Status};
use crate::runner::Runner;
use crate::saga::SagaId;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

pub(super) struct Shared {
    pub(super) runner: Runner,
    pub(super) node: Node,
    pub(super) address: SocketAddr,
    pub(super) token: Option<Token>,
    pub(super) followers: Followers,
}

/// Every route. A test holds docs/openapi.json to them.
pub(super) fn all() -> Vec<(&'static str, MethodRouter<Arc<Shared>>)> {
    vec![
        ("/healthz", get(async || "ok\n")),
        ("/readyz", get(ready)),
        ("/metrics", get(metrics)),
        ("/api/v1/openapi.json", get(openapi)),
        ("/api/v1/status", get(status)),
        ("/api/v1/pods", get(pods)),
        ("/api/v1/sagas", get(list::sagas)),
        // One pattern for both: the second is an action's name.
        ("/api/v1/sagas/{id}", get(saga).post(actions::all)),
        ("/api/v1/sagas/{id}/{action}", post(actions::one)),
        ("/api/v1/observed", get(observed::list)),
        ("/api/v1/observed/{id}", get(observed::one)),
        ("/api/v1/events", get(events)),
        ("/api/v1/live", get(live)),
        ("/api/v1/definitions", get(definitions)),
        ("/api/v1/reload", post(reload)),
        ("/api/v1/log", get(log::told).put(log::changed)),
        ("/api/v1/handover", post(handover)),
        ("/api/v1/standby", post(standby)),
    ]
}

/// What all of it takes and answers.
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// How long those who follow events may take to learn of the end.
const LAST_WORD: Duration = Duration::from_millis(100);

/// Serves until `stopped` resolves. Requests in flight are given up then: a decision among them
/// may have been taken, as its saga's history says.
pub(super) async fn serve(
    shared: Arc<Shared>,
    tcp: std::net::TcpListener,
    unix: Option<std::os::unix::net::UnixListener>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let routes = all()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| {
            router.route(path, methods)
        })
        .merge(page::routes())
        .fallback(async || problem(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "this can't be asked so: Allow says how",
            )
        })
        .layer(DefaultBodyLimit::max(actions::LONGEST))
        .layer(from_fn(actions::no_forgery))
        .with_state(Arc::clone(&shared));
    let tcp = tokio::net::TcpListener::from_std(tcp)?;
    let unix = unix.map(tokio::net::UnixListener::from_std).transpose()?;
    // The Unix socket is guarded by its mode.
    let guarded = routes
        .clone()
        .layer(from_fn_with_state(Arc::clone(&shared), guard));
    tokio::select! {
        result = async { axum::serve(Bounded::new(tcp), guarded.into_make_service_with_connect_info::<Peer>()).await } => result,
        result = async {
            match unix {
                Some(unix) => axum::serve(Bounded::new(unix), routes.into_make_service_with_connect_info::<Peer>()).await,
                None => std::future::pending().await,
            }
        } => result,
        _ = async {
            drop(stopped.await);
            // Those who follow are told of the end; a client that takes nothing is not waited for.
            drop(tokio::time::timeout(LAST_WORD, shared.followers.end()).await);
        } => Ok(()),
    }
}

/// Who may ask over TCP: with a token, those that know it (RFC 6750); the routes that load balancers and kubelets ask need none,
/// nor do the page's files, which ask the API themselves.
///
/// Without one, a page from elsewhere, whose name an attacker has turned to this address, must not read the API through a
/// browser here (DNS rebinding): whoever means it names it by the address that it listens on, or as `localhost`. With one a
/// browser has nothing to send.
async fn guard(State(shared): Asked, request: Request, next: Next) -> Response {
    if let Some(token) = &shared.token {
        let path = request.uri().path();
        let open = matches!(path, "/healthz" | "/readyz") || page::is_page(path);
        return match token.challenge(request.headers()) {
            Some(challenge) if !open => challenge,
            _ => next.run(request).await,
        };
    }
    let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    if host.is_some_and(|host| names_us(host, shared.address)) {
        next.run(request).await
    } else {
        problem(
            StatusCode::FORBIDDEN,
            "name this API by its address, not by another name",
        )
    }
}

/// Whether `Host` is a loopback address or `localhost`; where the API listens on another address, any address will do,
/// since a rebound name is never one.
fn names_us(host: &str, listen: SocketAddr) -> bool {
    let name = match host.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || !listen.ip().is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

/// The node's pods.
#[derive(Default)]
pub(super) struct Pods {
    pub(super) captured: Vec<Pod>,
    /// Those that should be and can't be.
    pub(super) uncaptured: Vec<Pod>,
    /// Those that are not enrolled.
    pub(super) left: Vec<Pod>,
}

impl Shared {
    pub(super) fn pods(&self) -> Pods {
        let mut pods = Pods::default();
        for pod in (self.node.pods)() {
            let list = match &pod {
                Pod { error: Some(_), .. } => &mut pods.uncaptured,
                Pod { left: true, .. } => &mut pods.left,
                _ => &mut pods.captured,
            };
            list.push(pod);
        }
        pods
    }

    pub(super) fn amiss(&self) -> Vec<String> {
        let mut amiss = Vec::new();
        let health = self.runner.health();
        if let Some(cause) = health.broken {
            amiss.push(format!("the journal failed: {cause}"));
        }
        if health.draining {
            amiss.push("stopping".to_owned());
        }
        if health.in_flight >= health.capacity {
            amiss.push(format!(
                "{} sagas are in flight, as many as may be",
                health.in_flight
            ));
        }
        amiss.extend((self.node.kubernetes)().and_then(|kubernetes| kubernetes.amiss));
        let lost = (self.node.pods)().into_iter().filter(|pod| pod.lost);
        amiss.extend(lost.map(|Pod { name, error, .. }| {
            format!(
                "the pod {name} is no longer captured: {}",
                error.unwrap_or_default()
            )
        }));
        amiss
    }

    /// What may be amiss with pods that are captured, as far as can be told.
    pub(super) fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        for pod in (self.node.pods)() {
            doubts.extend(pod.before.iter().map(|Before { hook, program, id }| {
                let name = &pod.name;
                format!("the pod {name}: {program} (id {id}) sees its connections before Qbox's {hook}, and may send them elsewhere")
            }));
        }
        doubts
    }
}

type Asked = State<Arc<Shared>>;

async fn ready(State(shared): Asked) -> Response {
    let amiss = shared.amiss();
    let status = match amiss.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let told = json!({ "ready": amiss.is_empty(), "amiss": amiss, "doubts": shared.doubts() });
    (status, Json(told)).into_response()
}

async fn metrics(State(shared): Asked, headers: HeaderMap) -> Response {
    super::metrics::render(&shared, &headers)
}

async fn status(State(shared): Asked) -> Response {
    let pods = shared.pods();
    let loaded = (shared.node.definitions)();
    let traffic = (shared.node.traffic)();
    let maps = traffic.maps.iter().map(|(map, entries, capacity)| MapView {
        map,
        entries: *entries,
        capacity: *capacity,
    });
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        admin: shared.address.to_string(),
        capture: (shared.node.capture)(),
        pods: pods.captured.len(),
        uncaptured: pods.uncaptured.len(),
        left: pods.left.len(),
        kubernetes: (shared.node.kubernetes)(),
        definitions: loaded.definitions.len(),
        definitions_current: loaded.error.is_none(),
        needs_restart: &loaded.needs_restart,
        sagas: shared.runner.health(),
        standing: StandingView::new(&shared.runner.states()),
        journal: JournalView::new(&shared.runner.journal_load()),
        maps: maps.collect(),
        checked: traffic.checked.map(|age| age.as_secs()),
        calls: shared.runner.calls(),
        amiss: shared.amiss(),
        doubts: shared.doubts(),
    })
    .into_response()
}

async fn pods(State(shared): Asked) -> Json<Value> {
    let Pods {
        captured,
        uncaptured,
        left,
    } = shared.pods();
    Json(json!({ "pods": captured, "uncaptured": uncaptured, "left": left }))
}

async fn saga(State(shared): Asked, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<SagaId>() else {
        return problem(StatusCode::BAD_REQUEST, "that is no saga's id");
    };
    // It reads the disk, and goes through the history again.
    let found = tokio::task::spawn_blocking(move || {
        let detail = shared.runner.saga(id);
        detail.map(|detail| detail.map(|detail| SagaView::new(&detail)))
    });
    let wrong =
        |error: &dyn std::fmt::Display| problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string());
    match found.await {
        Ok(Ok(Some(saga))) => Json(saga).into_response(),
        Ok(Ok(None)) => problem(StatusCode::NOT_FOUND, "there is no saga of that id, or no longer"),
        Ok(Err(error)) => wrong(&error),
        Err(error) => wrong(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_ours_names_us() {
        let loopback = "127.0.0.1:9901".parse().unwrap();
        for host in [
            "127.0.0.1:9901",
            "localhost",
            "LOCALHOST:9901",
            "[::1]:9901",
            "127.8.8.8",
        ] {
            assert!(names_us(host, loopback), "{host}");
        }
        for host in [
            "",
            "evil.example:9901",
            "10.0.0.7:9901",
            "127.0.0.1.evil.example",
            "[fd00::7]",
        ] {
            assert!(!names_us(host, loopback), "{host}");
        }
        let anywhere = "0.0.0.0:9901".parse().unwrap();
        assert!(names_us("10.0.0.7:9901", anywhere));
        assert!(!names_us("evil.example", anywhere));
    }
}
