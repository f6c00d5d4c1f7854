//! The export: spans gathered to batches, each posted until a collector takes it or it is given up (OTLP 1.x, "OTLP/HTTP").
//!
//! While one batch is under way the next waits in the queue, and what doesn't fit there is dropped.

use super::{Counts, Settings, Span, Tally, otlp};
use crate::upstream::{Answer, End, Outgoing, Via};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

/// Spans in one request, at the most.
const BATCH: usize = 1024;
/// How often a batch is sent before it is given up.
const TRIES: u32 = 4;
/// The wait before the second; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);

pub(super) async fn run(
    settings: Settings,
    mut waiting: mpsc::Receiver<Span>,
    mut closing: watch::Receiver<bool>,
    tally: Arc<Tally>,
) {
    let mut well = true;
    let mut batch = Vec::new();
    while fill(&mut batch, &mut waiting, &mut closing, settings.interval).await {
        let count = batch.len();
        let body = otlp::encode(&settings.resource, batch.drain(..));
        let sent = deliver(&settings, &body, &closing).await;
        let add = |to: &AtomicU64, n: usize| to.fetch_add(n as u64, Ordering::Relaxed);
        let rejected = match &sent {
            Ok(rejected) => count.min(*rejected),
            Err(_) => count,
        };
        add(&tally.failed, rejected);
        add(&tally.sent, count - rejected);
        // Once each way: an outage is two lines.
        match sent {
            Err(cause) if well => {
                tracing::warn!(
                    collector = settings.url,
                    cause,
                    lost = count,
                    "spans are lost: the collector takes none"
                );
            }
            Ok(0) if !well => tracing::info!(collector = settings.url, "the collector takes spans again"),
            Ok(rejected) if rejected > 0 && well => {
                tracing::warn!(
                    collector = settings.url,
                    rejected,
                    "the collector took some spans, and refused others"
                );
            }
            _ => {}
        }
        well = rejected == 0;
    }
    tracing::debug!(counts = ?Counts {
        sent: tally.sent.load(Ordering::Relaxed),
        dropped: tally.dropped.load(Ordering::Relaxed),
        failed: tally.failed.load(Ordering::Relaxed),
        queued: 0,
    }, "no more spans");
}

/// Waits for a batch: full, or an interval behind its first. `false`: there is none, and will be none.
async fn fill(
    batch: &mut Vec<Span>,
    waiting: &mut mpsc::Receiver<Span>,
    closing: &mut watch::Receiver<bool>,
    interval: Duration,
) -> bool {
    let count = tokio::select! {
        biased;
        count = waiting.recv_many(batch, BATCH) => count,
        () = closed(closing) => {
            waiting.close();
            waiting.recv_many(batch, BATCH).await
        }
    };
    if count == 0 {
        return false;
    }
    let end = Instant::now() + interval;
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        tokio::select! {
            count = timeout_at(end, waiting.recv_many(batch, room)) => match count {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            },
            () = closed(closing) => break,
        }
    }
    true
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error is an end too.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Sends a batch until it is taken; says how many of its spans were refused.
async fn deliver(
    settings: &Settings,
    body: &Bytes,
    closing: &watch::Receiver<bool>,
) -> Result<usize, String> {
    let headers = [
        (
            "Content-Type".to_owned(),
            Bytes::from_static(b"application/x-protobuf"),
        ),
        (
            "User-Agent".to_owned(),
            Bytes::from_static(concat!("qbox/", env!("CARGO_PKG_VERSION")).as_bytes()),
        ),
    ];
    let mut wait = FIRST_WAIT;
    let mut tries = 0;
    loop {
        let (end, _) = settings
            .upstream
            .call(Outgoing {
                method: "POST",
                url: &settings.url,
                headers: &headers,
                body: body.clone(),
                via: &Via::Node,
                destination: None,
                http2: false,
                timeout: settings.timeout,
                credentials: true,
                patient: false,
            })
            .await;
        let cause = match end {
            End::Answered(Answer {
                status: 200..=299,
                body,
                ..
            }) => return Ok(otlp::rejected(&body)),
            // What may be tried again (OTLP, "Failures").
            End::Answered(Answer {
                status: status @ (429 | 502 | 503 | 504),
                ..
            }) => format!("answered {status}"),
            End::Answered(Answer { status, .. }) => return Err(format!("answered {status}")),
            End::NotSent(cause) | End::Held(cause) | End::Broken(cause) => cause,
            End::TimedOut => format!("no answer within {:?}", settings.timeout),
        };
        tries += 1;
        if tries >= TRIES || *closing.borrow() {
            return Err(cause);
        }
        sleep(wait).await;
        wait *= 2;
    }
}
