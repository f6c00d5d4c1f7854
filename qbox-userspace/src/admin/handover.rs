//! `POST /api/v1/handover`: another Qbox on this node takes this one's place. Only over the Unix socket: who asks has to be
//! a process of the socket's owner.

use super::peer::Peer;
use super::problem::problem;
use super::routes::Shared;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Asks for it, as this process (`None`: that can't be said). What comes back resolves once this Qbox has let go of what only
/// one can have, to how many sagas it has not ended; `None`: it has nothing that it could hand over, or does so already.
pub type HandOver = Box<dyn Fn(Option<u32>) -> Option<oneshot::Receiver<usize>> + Send + Sync>;

/// Answers when it is done. The body is taken off the connection and says nothing.
pub(super) async fn handover(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    _: Result<Bytes, BytesRejection>,
) -> Response {
    let Peer::Unix { process, .. } = peer else {
        return problem(StatusCode::FORBIDDEN, "this is asked on the Unix socket only");
    };
    let Some(done) = (shared.node.handover)(process) else {
        let detail = "there is nothing to hand over: explicit mode, or it stops already";
        return problem(StatusCode::CONFLICT, detail);
    };
    match done.await {
        Ok(left) => Json(json!({ "left": left })).into_response(),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "it was told to end at once"),
    }
}
