//! `GET /api/v1/observed`: the triggers of sagas that are only observed, youngest first, page by page; and one of them, with all that its
//! saga would have sent and what the trigger was answered.

use super::problem::{Refusal, problem};
use super::query::Parameters;
use super::routes::Shared;
use crate::observe::Sighting;
use crate::saga::SagaId;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;

/// How many records a page holds, unless asked for fewer or more; and the most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// A page.
#[derive(Debug, Serialize)]
struct ObservedPage {
    observed: Vec<Sighting>,
    /// The next page's cursor; none: this is the last.
    next: Option<String>,
}

/// The first route.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    mut asked: Parameters,
) -> Result<Response, Refusal> {
    let limit = asked.count("limit", MAX_PAGE)?.unwrap_or(PAGE);
    let before = asked.read("cursor", str::parse::<SagaId>)?;
    let name = asked.text("name");
    asked.done()?;
    // One more, which says that there is a next page.
    let mut observed = shared.node.observer.list(name.as_deref(), before, limit + 1);
    let more = observed.len() > limit;
    observed.truncate(limit);
    let last = observed.last().filter(|_| more);
    let next = last.map(|last| last.id.to_string());
    Ok(Json(ObservedPage { observed, next }).into_response())
}

/// The second.
pub(super) async fn one(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<SagaId>() else {
        return problem(StatusCode::BAD_REQUEST, "that is no saga's id");
    };
    match shared.node.observer.get(id) {
        Some(record) => Json(record).into_response(),
        None => problem(
            StatusCode::NOT_FOUND,
            "nothing of that id was observed, or its record has made room for newer ones (limits.observed)",
        ),
    }
}
