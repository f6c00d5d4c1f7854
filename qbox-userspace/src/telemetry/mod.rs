//! Spans on their way to a collector: plain data, a bounded queue, and its export over OTLP/HTTP.
//!
//! Who tells a span never waits: where the queue is full it is dropped, and counted. A collector that is down disturbs nobody.
//! Knows no saga. It has no errors: what is lost is counted ([`Counts`]), and said once.

mod export;
mod otlp;
#[cfg(test)]
mod tests;

use crate::upstream::Upstream;
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Spans that wait: at some 600 bytes each about 5 MB, or a second's of thousands of sagas.
const QUEUE: usize = 8192;

/// What happened to one part of a trace, from its beginning to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// `trace-id` and `trace-flags` (W3C Trace Context, 3.2).
    pub trace: (u128, u8),
    /// `tracestate`, as one list.
    pub state: String,
    /// Its own id.
    pub id: u64,
    /// The span that it belongs to.
    pub parent: Option<u64>,
    /// Whose part it is.
    pub kind: Kind,
    /// What it is called: one of few, whatever happens.
    pub name: String,
    /// From when to when, in microseconds since 1970.
    pub time: (u64, u64),
    /// Why it failed, if it has.
    pub failed: Option<String>,
    /// What is known of it.
    pub attributes: Vec<Attribute>,
    /// Moments in it: when, in microseconds since 1970, what, and what is known of that.
    pub moments: Vec<(u64, &'static str, Vec<Attribute>)>,
}

/// A name and its value. Names are those of OpenTelemetry's semantic conventions, or begin with `qbox.`.
pub type Attribute = (&'static str, Value);

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

/// Whose part a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of the one that was asked, by another one.
    Server,
    /// Of the one that asks another one.
    Client,
    /// Of one alone.
    Internal,
}

/// What became of spans since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// A collector has them.
    pub sent: u64,
    /// The queue was full.
    pub dropped: u64,
    /// No collector took them in time.
    pub failed: u64,
    /// They wait.
    pub queued: usize,
}

/// How a collector is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where spans are posted to: `http://collector:4318/v1/traces`.
    pub url: String,
    /// The client, of its own: a collector that is down must not show among the services of sagas.
    pub upstream: Upstream,
    /// What is said of this process.
    pub resource: Vec<Attribute>,
    /// How long a batch waits to be filled.
    pub interval: Duration,
    /// How long the collector may take for one.
    pub timeout: Duration,
}

#[derive(Debug, Default)]
struct Tally {
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// The way to the collector. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Spans {
    queue: mpsc::Sender<Span>,
    tally: Arc<Tally>,
    closing: Arc<watch::Sender<bool>>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Spans {
    /// Begins to export, on the current tokio runtime.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (closing, closed) = watch::channel(false);
        let tally = Arc::<Tally>::default();
        let task = tokio::spawn(export::run(settings, waiting, closed, Arc::clone(&tally)));
        Self {
            queue,
            tally,
            closing: Arc::new(closing),
            task: Arc::new(Mutex::new(Some(task))),
        }
    }

    /// Hands one over. Never waits.
    pub fn tell(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What has become of them.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            sent: read(&self.tally.sent),
            dropped: read(&self.tally.dropped),
            failed: read(&self.tally.failed),
            queued: self.queue.max_capacity().saturating_sub(self.queue.capacity()),
        }
    }

    /// Sends what waits, for so long at the most. What is told from now on is dropped.
    pub async fn close(&self, patience: Duration) {
        self.closing.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // Whether in time or not: nothing more can be done.
            let _ = tokio::time::timeout(patience, task).await;
        }
    }
}
