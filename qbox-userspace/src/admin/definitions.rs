//! What is defined: `GET /api/v1/definitions` tells which sagas are loaded and whether the files, as they are now, can be used;
//! `POST /api/v1/reload` has them read again at once.

use super::problem::problem;
use super::routes::Shared;
use crate::saga::{Plan, StepId, Timestamp};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// What is loaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Definitions {
    /// Each saga, as [`definition`] shows it.
    pub definitions: Vec<Value>,
    /// Since when this is the whole of it.
    pub loaded: Timestamp,
    /// How often files that had changed came into force, since the start.
    pub reloads: u64,
    /// How often they could not.
    pub failed: u64,
    /// Why the files as they are now are not in force; `None`: they are.
    pub error: Option<LoadError>,
    /// What has changed in qbox.toml that only a restart brings into force, by its keys and tables.
    pub needs_restart: Vec<&'static str>,
}

/// Files that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadError {
    /// Since when.
    pub since: Timestamp,
    /// What `qbox check` says of them.
    pub report: String,
}

/// A definition, as `/api/v1/definitions` lists it: in force, as it is, `since` then, read from `file`.
#[must_use]
pub fn definition(plan: &Plan, hash: &str, file: &str, since: Timestamp) -> Value {
    let names = |ids: &[StepId]| -> Vec<&str> {
        let found = ids.iter().filter_map(|id| plan.steps.get(id.index()));
        found.map(|s| s.name.as_str()).collect()
    };
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|s| {
            json!({ "name": s.name, "kind": s.kind, "after": names(&s.after), "compensations": s.compensations.len() })
        })
        .collect();
    let trigger = &plan.trigger;
    json!({
        "name": plan.name,
        "hash": hash,
        "file": file,
        "since": since,
        "mode": plan.mode,
        "trigger": { "method": trigger.method, "host": trigger.host, "port": trigger.port, "path": trigger.path },
        "steps": steps,
    })
}

/// The first route.
pub(super) async fn definitions(State(shared): State<Arc<Shared>>) -> Response {
    Json(&*(shared.node.definitions)()).into_response()
}

/// The second: what is loaded then; 422 if the files can't be used. The body is taken off the connection and says nothing.
pub(super) async fn reload(State(shared): State<Arc<Shared>>, _: Result<Bytes, BytesRejection>) -> Response {
    // It reads the disk.
    match tokio::task::spawn_blocking(move || (shared.node.reload)()).await {
        Ok(loaded) => match &loaded.error {
            None => Json(&*loaded).into_response(),
            Some(error) => problem(StatusCode::UNPROCESSABLE_ENTITY, &error.report),
        },
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
