//! How full the programs' maps are that only the kernel counts: FLOWS, ANNOUNCED, and the ring of the announcements.
//!
//! To count a hash map is one command of the kernel's for each of its entries, so it is done with each check of the pods and not for who
//! asks, and never takes more commands than the map has room for. ORIGIN is not among them: it lives in the sockets, and has no limit of
//! its own. Errors are logged: a number then stays what it was.

use super::capture::Shared;
use super::sys;
use crate::causes::chain;
use aya::maps::MapError;
use rustix::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What was counted last.
#[derive(Debug)]
pub(super) struct Fill {
    /// The ring; whoever reads it has it too.
    ring: OwnedFd,
    flows: AtomicU64,
    announced: AtomicU64,
    unread: AtomicU64,
    /// When.
    at: Mutex<Option<Instant>>,
}

/// It, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Connections that are not accepted yet.
    pub flows: u64,
    /// Namespaces that were announced and are not enrolled.
    pub announced: u64,
    /// Bytes of announcements that are not read yet.
    pub unread: u64,
    /// How long ago that was, and with it the last check of all pods; `None`: none has ended yet.
    pub age: Option<Duration>,
}

impl Fill {
    pub(super) fn new(ring: OwnedFd) -> Self {
        Self {
            ring,
            flows: AtomicU64::new(0),
            announced: AtomicU64::new(0),
            unread: AtomicU64::new(0),
            at: Mutex::default(),
        }
    }

    /// Counts anew.
    pub(super) fn count(&self, shared: &Shared) {
        self.flows.store(shared.origins().count(), Relaxed);
        self.announced.store(shared.pods().announced_entries(), Relaxed);
        match sys::unread(&self.ring) {
            Ok(unread) => self.unread.store(unread, Relaxed),
            Err(error) => tracing::debug!(%error, "can't look how full the ring buffer is"),
        }
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(super) fn get(&self) -> Filled {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        Filled {
            flows: self.flows.load(Relaxed),
            announced: self.announced.load(Relaxed),
            unread: self.unread.load(Relaxed),
            age: at.map(|at| at.elapsed()),
        }
    }
}

/// How many keys a map has; `most` is what it has room for. A key that goes while it is the iterator's place sends the iterator back to
/// the start, so that what changes quickly is counted roughly.
pub(super) fn entries<K>(keys: impl Iterator<Item = Result<K, MapError>>, most: u32) -> u64 {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut count = 0;
    for key in keys.take(most) {
        match key {
            Ok(_) => count += 1,
            Err(error) => {
                tracing::debug!(error = chain(&error), "can't count a map");
                break;
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_counted_to_its_end_and_never_beyond_its_room() {
        let keys = |count: u32| (0..count).map(Ok);
        assert_eq!(entries(keys(0), 4), 0);
        assert_eq!(entries(keys(3), 4), 3);
        assert_eq!(
            entries((0_u32..).map(Ok), 4),
            4,
            "an iterator that is sent back again and again"
        );
        let broken = [Ok(1), Err(MapError::KeyNotFound), Ok(2)];
        assert_eq!(entries(broken.into_iter(), 4), 1);
    }
}
