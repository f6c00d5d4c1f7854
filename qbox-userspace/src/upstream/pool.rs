//! Idle connections, kept to be used again: the youngest first, a few per service, not for long, none that is known to
//! be dead.

use super::dial::Via;
use super::wire::Wire;
use foldhash::HashMap;
use std::collections::VecDeque;
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
    /// Idle connections per key.
    pub(super) per_key: usize,
    /// Idle connections in all.
    pub(super) total: usize,
    /// How long one may be idle.
    pub(super) idle: Duration,
}

#[derive(Debug)]
pub(super) struct Pool {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: HashMap<Key, VecDeque<Idle>>,
    total: usize,
    sweeping: bool,
}

#[derive(Debug)]
struct Idle {
    stream: Wire,
    until: Instant,
}

impl Pool {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The youngest connection that is still good.
    pub(super) fn take(&self, key: &Key) -> Option<Wire> {
        let now = Instant::now();
        let mut state = self.state();
        loop {
            let mut idle = state.idle.get_mut(key)?.pop_back()?;
            state.total -= 1;
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
        let mut state = self.state();
        let State {
            idle,
            total,
            sweeping,
        } = &mut *state;
        let queue = idle.entry(key).or_default();
        if queue.len() >= self.bounds.per_key && queue.pop_front().is_some() {
            *total -= 1;
        }
        if *total >= self.bounds.total {
            return;
        }
        *total += 1;
        queue.push_back(Idle {
            stream,
            until: Instant::now() + keep,
        });
        if !*sweeping {
            *sweeping = true;
            tokio::spawn(sweep(Arc::downgrade(self), self.bounds.idle));
        }
    }

    /// Closes what has been idle too long; says whether anything is left.
    fn expire(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let mut total = 0;
        state.idle.retain(|_, queue| {
            queue.retain(|i| i.until > now);
            total += queue.len();
            !queue.is_empty()
        });
        state.total = total;
        state.sweeping = total > 0;
        total > 0
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.state().total
    }
}

/// Runs while anything is idle, so that no dead pod's namespace is held by a connection that nobody takes.
async fn sweep(pool: Weak<Pool>, every: Duration) {
    loop {
        tokio::time::sleep(every.max(Duration::from_millis(10))).await;
        match pool.upgrade() {
            Some(pool) if pool.expire() => {}
            _ => return,
        }
    }
}
