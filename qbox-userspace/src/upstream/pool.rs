//! Idle connections, kept to be used again: the youngest first, a few per service, not for long, none that is known to
//! be dead.

use super::dial::Via;
use super::wire::Wire;
use crate::workers;
use foldhash::HashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Connections with the same key are the same to a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The namespace's inode. It can't be another namespace's while a connection lives: a socket pins its own.
    namespace: Option<u64>,
    /// `host:port` as named, or the address where it is forced.
    place: String,
    /// Under TLS.
    secure: bool,
}

impl Key {
    pub(super) fn new(via: &Via, place: String, secure: bool) -> Self {
        let namespace = match via {
            Via::Node => None,
            Via::Pod(namespace) => Some(namespace.inode()),
        };
        Self {
            namespace,
            place,
            secure,
        }
    }

    /// For people.
    pub(super) fn place(&self) -> &str {
        &self.place
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Idle connections per key, shared out among the worker threads.
    pub(super) per_key: usize,
    /// Idle connections in all.
    pub(super) total: usize,
    /// How long one may be idle.
    pub(super) idle: Duration,
}

/// A part for each worker thread, which none of the others takes from: a connection's readiness is told by the reactor of the
/// worker that made it.
#[derive(Debug)]
pub(super) struct Pool {
    bounds: Bounds,
    parts: Box<[Mutex<Part>]>,
    total: AtomicUsize,
}

#[derive(Debug, Default)]
struct Part {
    idle: HashMap<Key, VecDeque<Idle>>,
    sweeping: bool,
}

#[derive(Debug)]
struct Idle {
    stream: Wire,
    until: Instant,
}

impl Pool {
    /// For so many worker threads.
    pub(super) fn new(bounds: Bounds, workers: usize) -> Arc<Self> {
        let workers = workers.max(1);
        Arc::new(Self {
            bounds: Bounds {
                per_key: bounds.per_key.div_ceil(workers),
                ..bounds
            },
            parts: (0..workers).map(|_| Mutex::default()).collect(),
            total: AtomicUsize::new(0),
        })
    }

    /// This thread's.
    fn part(&self, number: usize) -> Option<MutexGuard<'_, Part>> {
        let part = self.parts.get(number).or(self.parts.first())?;
        // Nothing under this lock can panic half-way through a change.
        Some(part.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The youngest connection that is still good.
    pub(super) fn take(&self, key: &Key) -> Option<Wire> {
        let now = Instant::now();
        let mut part = self.part(workers::current())?;
        loop {
            let mut idle = part.idle.get_mut(key)?.pop_back()?;
            self.total.fetch_sub(1, Ordering::Relaxed);
            if idle.until > now && idle.stream.is_quiet() {
                return Some(idle.stream);
            }
        }
    }

    /// Keeps `stream`, for no longer than the service says it does (`said`).
    pub(super) fn put(self: &Arc<Self>, key: Key, mut stream: Wire, said: Option<Duration>) {
        // A second less than the service's own patience: who closes first must be us, or the next request is lost.
        let said = said.map_or(Duration::MAX, |s| s.saturating_sub(Duration::from_secs(1)));
        let keep = self.bounds.idle.min(said);
        if keep.is_zero() || self.bounds.per_key == 0 || !stream.is_quiet() {
            return;
        }
        let number = workers::current();
        let Some(mut part) = self.part(number) else {
            return;
        };
        let queue = part.idle.entry(key).or_default();
        let replaced = queue.len() >= self.bounds.per_key && queue.pop_front().is_some();
        // Others may take the last place at the same time: then both have looked in vain.
        if !replaced && self.total.fetch_add(1, Ordering::Relaxed) >= self.bounds.total {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        queue.push_back(Idle {
            stream,
            until: Instant::now() + keep,
        });
        if !part.sweeping {
            part.sweeping = true;
            tokio::spawn(sweep(Arc::downgrade(self), number, self.bounds.idle));
        }
    }

    /// Closes what has been idle too long in a part; says whether anything is left.
    fn expire(&self, number: usize) -> bool {
        let now = Instant::now();
        let Some(mut part) = self.part(number) else {
            return false;
        };
        let (mut before, mut after) = (0, 0);
        part.idle.retain(|_, queue| {
            before += queue.len();
            queue.retain(|i| i.until > now);
            after += queue.len();
            !queue.is_empty()
        });
        self.total.fetch_sub(before - after, Ordering::Relaxed);
        part.sweeping = after > 0;
        after > 0
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }
}

/// Runs while anything is idle, so that no dead pod's namespace is held by a connection that nobody takes.
async fn sweep(pool: Weak<Pool>, number: usize, every: Duration) {
    loop {
        tokio::time::sleep(every.max(Duration::from_millis(10))).await;
        match pool.upgrade() {
            Some(pool) if pool.expire(number) => {}
            _ => return,
        }
    }
}
