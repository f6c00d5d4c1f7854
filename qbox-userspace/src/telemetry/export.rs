//! The export: all that waits is a batch, each posted until a collector takes it or it is given up (OTLP 1.x, "OTLP/HTTP").
//!
//! While one batch is under way the next waits in the queue, and what doesn't fit there is dropped.

use super::{MANY, Settings, Shared, otlp};
use crate::upstream::{Answer, End, Outgoing, Via};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// How often a batch is sent before it is given up.
const TRIES: u32 = 4;
/// The wait before the second; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);

pub(super) async fn run(settings: Settings, shared: Arc<Shared>, mut closing: watch::Receiver<bool>) {
    let mut well = true;
    loop {
        let last = *closing.borrow();
        if !last && shared.waiting().count < MANY {
            tokio::select! {
                () = sleep(settings.interval) => {}
                () = shared.many.notified() => {}
                () = closed(&mut closing) => {}
            }
        }
        let (spans, count) = {
            let mut waiting = shared.waiting();
            // The next ones need as much room as these.
            let room = Vec::with_capacity(waiting.bytes.len());
            let spans = std::mem::replace(&mut waiting.bytes, room);
            (spans, std::mem::take(&mut waiting.count))
        };
        if count > 0 {
            let body = otlp::batch(&settings.resource, &spans);
            drop(spans);
            let sent = deliver(&settings, &body, &closing).await;
            well = account(&settings, &shared, count, &sent, well);
        }
        if last {
            return;
        }
    }
}

/// Counts a batch, and says once each way when that changes: an outage is two lines. Gives back whether all is well.
fn account(
    settings: &Settings,
    shared: &Shared,
    count: usize,
    sent: &Result<usize, String>,
    well: bool,
) -> bool {
    let rejected = match sent {
        Ok(rejected) => count.min(*rejected),
        Err(_) => count,
    };
    let add = |to: &AtomicU64, n: usize| to.fetch_add(n as u64, Ordering::Relaxed);
    add(&shared.failed, rejected);
    add(&shared.sent, count - rejected);
    let collector = &settings.url;
    match sent {
        Err(cause) if well => {
            tracing::warn!(
                collector,
                cause,
                lost = count,
                "spans are lost: the collector takes none"
            );
        }
        Ok(0) if !well => tracing::info!(collector, "the collector takes spans again"),
        Ok(1..) if well => {
            tracing::warn!(
                collector,
                rejected,
                "the collector took some spans, and refused others"
            );
        }
        _ => {}
    }
    rejected == 0
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
            "Content-Type".into(),
            Bytes::from_static(b"application/x-protobuf"),
        ),
        (
            "User-Agent".into(),
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
