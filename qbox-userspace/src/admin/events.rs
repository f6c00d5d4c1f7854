//! `GET /api/v1/events`: what happens to all sagas, or to those that a filter holds for, one JSON object a line.
//!
//! First the newest that are known, the oldest of them first; then, for those who follow, each as it happens, and an empty line
//! where for a while there is none. Lines are drawn when they are asked for: who reads too slowly misses events, not memory.

use super::history::HappeningView;
use super::problem::{Refusal, problem};
use super::query::Parameters;
use super::routes::Shared;
use crate::runner::{Filter, Follower, Happening, KEPT, Next};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How many of the newest are shown, unless asked for fewer or more.
const NEWEST: usize = 20;
/// Followers at once. Others need a connection too.
const FOLLOWERS: usize = 16;
/// After so long without an event an empty line is sent, by which both ends learn that the other is there.
const IDLE: Duration = Duration::from_secs(10);
/// Lines on their way to one follower, beside those that the runner keeps for it.
const LINES: usize = 16;

/// Those who follow.
#[derive(Debug)]
pub(super) struct Followers {
    room: Arc<Semaphore>,
    /// Set when the API ends.
    ending: watch::Sender<bool>,
}

impl Followers {
    pub(super) fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(FOLLOWERS)),
            ending: watch::Sender::new(false),
        }
    }

    /// A place for one more, unless there is none.
    pub(super) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// Turns true when the API ends.
    pub(super) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// Ends every follower's answer, and waits until they know.
    pub(super) async fn end(&self) {
        self.ending.send_replace(true);
        // It is never closed; if it were, there would be nobody to wait for.
        drop(self.room.acquire_many(FOLLOWERS as u32).await);
    }
}

/// The route.
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    mut asked: Parameters,
) -> Result<Response, Refusal> {
    let limit = asked.count("limit", KEPT)?;
    let follow = asked.switch("follow")?;
    let filter = asked.filter()?;
    asked.done()?;
    let Some(place) = shared.followers.enter() else {
        let detail = format!("{FOLLOWERS} clients read events already, as many as may");
        return Err(problem(StatusCode::SERVICE_UNAVAILABLE, &detail).into());
    };
    let (newest, follower) = shared.runner.follow();
    let ending = shared.followers.ending();
    let (lines, body) = Channel::<Bytes, Infallible>::new(LINES);
    let reader = Reader {
        shared,
        filter,
        lines,
        _place: place,
    };
    tokio::spawn(reader.run(
        newest,
        limit.unwrap_or(NEWEST),
        follow.then_some(follower),
        ending,
    ));
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::new(body)).into_response())
}

/// One who reads.
struct Reader {
    shared: Arc<Shared>,
    filter: Filter,
    lines: Sender<Bytes, Infallible>,
    _place: OwnedSemaphorePermit,
}

/// The client has gone.
struct Gone;

impl Reader {
    async fn run(
        mut self,
        newest: Vec<Arc<Happening>>,
        limit: usize,
        follower: Option<Follower>,
        mut ending: watch::Receiver<bool>,
    ) {
        tokio::select! {
            _ = self.tell(newest, limit, follower) => {}
            // An error is an end too.
            _ = ending.wait_for(|ending| *ending) => {}
        }
    }

    async fn tell(
        &mut self,
        mut newest: Vec<Arc<Happening>>,
        limit: usize,
        follower: Option<Follower>,
    ) -> Result<(), Gone> {
        newest.retain(|happening| self.meant(happening));
        let older = newest.len().saturating_sub(limit);
        for happening in newest.iter().skip(older) {
            self.line(happening).await?;
        }
        drop(newest);
        let Some(mut follower) = follower else {
            return Ok(());
        };
        loop {
            match tokio::time::timeout(IDLE, follower.next()).await {
                Ok(Some(Next::Happened(happening))) if self.meant(&happening) => {
                    self.line(&happening).await?
                }
                Ok(Some(Next::Happened(_))) => {}
                Ok(Some(Next::Missed(missed))) => {
                    let text = format!("{missed} events were missed: they came faster than they were read");
                    let line = json!({ "kind": "missed", "missed": missed, "text": text });
                    self.send(line.to_string()).await?;
                }
                Ok(None) => return Ok(()),
                Err(_) => self.send(String::new()).await?,
            }
        }
    }

    fn meant(&self, happening: &Happening) -> bool {
        self.shared.runner.admits(&self.filter, happening.saga)
    }

    async fn line(&mut self, happening: &Happening) -> Result<(), Gone> {
        match serde_json::to_string(&HappeningView::new(happening)) {
            Ok(line) => self.send(line).await,
            // Plain data can always be written; if not, the rest still can.
            Err(_) => Ok(()),
        }
    }

    async fn send(&mut self, mut line: String) -> Result<(), Gone> {
        line.push('\n');
        self.lines.send_data(Bytes::from(line)).await.map_err(|_| Gone)
    }
}
