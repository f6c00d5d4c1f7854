//! Spans on their way to a collector: written as OTLP's bytes at once, a bounded queue, and its export over OTLP/HTTP.
//!
//! Who tells a span never waits, and wakes nobody: where the queue is full it is dropped, and counted. A collector that is down disturbs
//! nobody. Knows no saga. It has no errors: what is lost is counted ([`Counts`]), and said once.

mod export;
mod otlp;
#[cfg(test)]
mod tests;

pub use otlp::{Attributes, Kind, Moments, Span};

use crate::upstream::Upstream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Spans that wait: at some 500 bytes each about 4 MB, or half a second's of thousands of sagas.
const QUEUE: usize = 8192;
/// The exporter is woken when so many wait, and otherwise looks by itself: some 300 KB, which is copied to a socket from a CPU's own memory.
const MANY: usize = 512;

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
    pub resource: Vec<(&'static str, String)>,
    /// How long spans wait for others.
    pub interval: Duration,
    /// How long the collector may take for a batch.
    pub timeout: Duration,
}

/// What waits.
#[derive(Debug, Default)]
struct Waiting {
    /// Spans, each as a field of the batch that it is going to be in.
    bytes: Vec<u8>,
    count: usize,
    /// No more are taken.
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    many: Notify,
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the collector. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Spans {
    shared: Arc<Shared>,
    closing: Arc<watch::Sender<bool>>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Spans {
    /// Begins to export, on the current tokio runtime.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let (closing, closed) = watch::channel(false);
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(export::run(settings, Arc::clone(&shared), closed));
        Self {
            shared,
            closing: Arc::new(closing),
            task: Arc::new(Mutex::new(Some(task))),
        }
    }

    /// Hands one over. Never waits.
    pub fn tell(&self, span: &Span) {
        let mut waiting = self.shared.waiting();
        if waiting.closed || waiting.count >= QUEUE {
            drop(waiting);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        span.put(&mut waiting.bytes);
        waiting.count += 1;
        let many = waiting.count == MANY;
        drop(waiting);
        if many {
            self.shared.many.notify_one();
        }
    }

    /// What has become of them.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            sent: read(&self.shared.sent),
            dropped: read(&self.shared.dropped),
            failed: read(&self.shared.failed),
            queued: self.shared.waiting().count,
        }
    }

    /// Sends what waits, for so long at the most. What is told from now on is dropped.
    pub async fn close(&self, patience: Duration) {
        self.shared.waiting().closed = true;
        self.closing.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // Whether in time or not: nothing more can be done.
            let _ = tokio::time::timeout(patience, task).await;
        }
    }
}
