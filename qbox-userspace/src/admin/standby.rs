//! `POST /api/v1/standby`: another Qbox on this node stands by. Only over the Unix socket, as [`handover`](super::handover).
//!
//! The answer is text, a line for each thing that it is to know: an empty one as long as nothing changes, `stopping` when
//! this one was told to stop and waits to be taken over from, `handed-over` when another has taken its place. An end without
//! either is this one's. No errors of its own.

use super::peer::Peer;
use super::problem::problem;
use super::routes::Shared;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::Channel;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Between two lines that say nothing: by then it is noticed that the other one has gone.
const IDLE: Duration = Duration::from_secs(2);

/// How it stands with this Qbox, for one that stands by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    #[default]
    On,
    /// It was told to stop, and goes on until it is taken over from, for a while.
    Stopping,
    /// Another one has its place.
    HandedOver,
}

impl Standing {
    fn line(self) -> &'static str {
        match self {
            Self::On => "\n",
            Self::Stopping => "stopping\n",
            Self::HandedOver => "handed-over\n",
        }
    }
}

/// Stands by: what comes back tells how it stands, and counts as one that waits for as long as it lives. `None`: there is
/// nothing that could be taken over.
pub type StandBy = Box<dyn Fn() -> Option<watch::Receiver<Standing>> + Send + Sync>;

/// Answers for as long as nothing changes. The body is taken off the connection and says nothing.
pub(super) async fn standby(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    _: Result<Bytes, BytesRejection>,
) -> Response {
    if !matches!(peer, Peer::Unix { .. }) {
        return problem(StatusCode::FORBIDDEN, "this is asked on the Unix socket only");
    }
    let Some(mut standing) = (shared.node.standby)() else {
        return problem(StatusCode::CONFLICT, "explicit mode is not handed over");
    };
    let (mut lines, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        loop {
            let now = *standing.borrow_and_update();
            let said = lines.send_data(Bytes::from_static(now.line().as_bytes())).await;
            if said.is_err() || now != Standing::On {
                return;
            }
            // Time is up, or something has changed, or this one ends: all are told above, or by the end.
            if let Ok(Err(_)) = timeout(IDLE, standing.changed()).await {
                return;
            }
        }
    });
    ([(header::CONTENT_TYPE, "text/plain")], Body::new(body)).into_response()
}
