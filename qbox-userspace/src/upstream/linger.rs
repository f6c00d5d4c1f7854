//! Exchanges that are listened to beyond their time: the attempt counts as timed out, its place has gone to the next call, and
//! the service may still answer.
//!
//! As many at once as may be, each for a bounded time; then the connection is closed, and what comes later nobody hears.

use super::client::{End, Upstream};
use super::exchange::{Fault, Prepared, Reuse, exchange};
use super::pool::Key;
use super::wire::Wire;
use super::{Answer, Stats};
use crate::outbox::Place;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// How an exchange ended, and its connection.
pub(super) type Ended = (Result<(Answer, Reuse), Fault>, Wire);

/// One exchange under way. Dropped, it closes its connection.
pub(super) struct Talk {
    ends: Pin<Box<dyn Future<Output = Ended> + Send>>,
    written: Arc<Place>,
    length: u64,
}

impl Talk {
    pub(super) fn new(mut stream: Wire, request: Prepared, body_limit: usize) -> Self {
        let written = Arc::new(Place::default());
        let count = Arc::clone(&written);
        Self {
            written,
            length: (request.head.len() + request.body.len()) as u64,
            ends: Box::pin(async move {
                let result = exchange(&mut stream, &request, body_limit, &count).await;
                (result, stream)
            }),
        }
    }

    /// A byte of it has left. If none has by now, none will.
    pub(super) fn has_begun(&self) -> bool {
        self.written.withdraw();
        self.written.taken() > 0
    }

    /// All of it has left. Of one that hasn't, no more should: half a request is none.
    fn is_sent(&self) -> bool {
        self.written.taken() == self.length
    }

    /// Its end, if it ends by then.
    pub(super) async fn by(&mut self, deadline: Instant) -> Option<Ended> {
        timeout_at(deadline, &mut self.ends).await.ok()
    }
}

/// The places of those that linger.
#[derive(Debug)]
pub(super) struct Lingering {
    time: Duration,
    most: usize,
    room: Arc<Semaphore>,
    unheard: AtomicU64,
    /// Of these, those that there was no place for.
    unlistened: AtomicU64,
}

impl Lingering {
    pub(super) fn new(time: Duration, most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            time,
            most,
            room: Arc::new(Semaphore::new(most)),
            unheard: AtomicU64::new(0),
            unlistened: AtomicU64::new(0),
        }
    }

    /// Listens on to an exchange whose time is over. `None`: its connection is closed.
    pub(super) fn enter(&self, talk: Talk, key: Key, upstream: &Upstream) -> Option<Late> {
        if self.time.is_zero() || !talk.is_sent() {
            return None;
        }
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            self.unheard.fetch_add(1, Ordering::Relaxed);
            self.unlistened.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        Some(Late {
            talk,
            key,
            upstream: upstream.clone(),
            until: Instant::now() + self.time,
            _place: place,
        })
    }

    pub(super) fn tell(&self, stats: &mut Stats) {
        stats.lingering = self.most.saturating_sub(self.room.available_permits());
        stats.unheard = self.unheard.load(Ordering::Relaxed);
        stats.unlistened = self.unlistened.load(Ordering::Relaxed);
    }
}

/// An exchange whose time is over, and that may still be answered. Dropped, it closes its connection.
pub struct Late {
    talk: Talk,
    key: Key,
    upstream: Upstream,
    until: Instant,
    _place: OwnedSemaphorePermit,
}

impl Late {
    /// Until when it is listened to, at the most.
    #[must_use]
    pub fn until(&self) -> Instant {
        self.until
    }

    /// What came of it; [`End::TimedOut`]: nothing, and the connection is closed.
    pub async fn end(mut self) -> End {
        match self.talk.by(self.until).await {
            Some((result, stream)) => self.upstream.finish(result, &self.key, stream),
            None => {
                self.upstream.lingering().unheard.fetch_add(1, Ordering::Relaxed);
                End::TimedOut
            }
        }
    }
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Late")
            .field("upstream", &self.key.place())
            .finish_non_exhaustive()
    }
}
