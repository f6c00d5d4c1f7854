//! `/api/v1/log`: which log filter holds, and another one, while Qbox runs: until the next one, `log.level` changes in its file, or a restart.

use super::problem::{Refusal, problem};
use super::routes::Shared;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Changes the filter if there is one, and says which holds then; or why it is none.
pub type LogFilter = Box<dyn Fn(Option<&str>) -> Result<String, String> + Send + Sync>;

/// What is asked for, and what is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    filter: String,
}

/// Which holds.
pub(super) async fn told(State(shared): State<Arc<Shared>>) -> Response {
    answer((shared.node.log)(None))
}

/// Another one.
pub(super) async fn changed(
    State(shared): State<Arc<Shared>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = body.map_err(|error| problem(error.status(), &error.body_text()))?;
    let Log { filter } = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("send {{\"filter\": \"qbox=debug,info\"}}: {error}");
        problem(StatusCode::BAD_REQUEST, &detail)
    })?;
    Ok(answer((shared.node.log)(Some(&filter))))
}

fn answer(holds: Result<String, String>) -> Response {
    match holds {
        Ok(filter) => Json(Log { filter }).into_response(),
        Err(why) => problem(StatusCode::BAD_REQUEST, &why),
    }
}
