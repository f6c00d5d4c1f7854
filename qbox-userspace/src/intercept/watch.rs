//! When to look for pods, for as long as capture runs: at once when the programs announce one, when a cgroup is new or when what holds
//! for pods has changed; every two seconds whether those that are known are still there. The cgroups' trees are scanned when something was
//! announced that only a scan can find, when a pod is not where it was, where the kernel can't tell of what is new, and now and then, for what
//! all that has missed.
//! Knows nothing of connections.

use super::births::Births;
use super::capture::Shared;
use super::entry::Sighting;
use super::look::{look, look_at_new, namespace_of, rescan};
use super::sys;
use aya::maps::{MapData, RingBuf};
use qbox_common::{Counter, Newcomer, announced};
use rustix::fd::OwnedFd;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::time::{Instant, sleep, sleep_until};

/// Between two looks at the pods that are known; between two scans, where the kernel doesn't tell of what is new.
const INTERVAL: Duration = Duration::from_secs(2);
/// Between two scans that nothing has asked for.
const SELDOM: Duration = Duration::from_secs(30);
/// The least between two scans.
const LEAST: Duration = Duration::from_millis(50);
/// Between two tries to listen in a new namespace whose loopback is down.
const RETRY: Duration = Duration::from_millis(10);
/// Looks and scans may each take one part in this many of a CPU's time: on a node with many processes they are further apart.
const SHARE: u32 = 50;
/// Announcements handled before others get their turn.
const BATCH: usize = 64;

/// When what is due.
struct Clock {
    look: Instant,
    scan: Instant,
    /// Before this no scan may be.
    earliest: Instant,
    retry: Option<Instant>,
}

impl Clock {
    /// A scan has just been.
    fn new() -> Self {
        let now = Instant::now();
        Self {
            look: now + INTERVAL,
            scan: now + INTERVAL,
            earliest: now,
            retry: None,
        }
    }

    /// Something wants a scan.
    fn scan_soon(&mut self) {
        self.scan = self.scan.min(self.earliest);
    }

    fn looked(&mut self, took: Duration) {
        self.look = Instant::now() + (took * SHARE).max(INTERVAL);
    }

    fn scanned(&mut self, took: Duration, interval: Duration) {
        let now = Instant::now();
        self.earliest = now + (took * SHARE).max(LEAST);
        self.scan = now + (took * SHARE).max(interval);
    }

    /// Some pod wants another try, or none does.
    fn want_retry(&mut self, wanted: bool) {
        self.retry = match self.retry {
            Some(at) if wanted => Some(at),
            _ => wanted.then(|| Instant::now() + RETRY),
        };
    }
}

/// Runs until it is dropped.
pub(super) async fn watch(shared: Arc<Shared>, mut events: RingBuf<MapData>) {
    let announced = sys::readable(&events).map_err(
        |error| tracing::warn!(%error, "new pods are found by their cgroups and by scanning, not by their sockets"),
    );
    let births = Births::of(&shared.cgroups)
        .map_err(|error| tracing::warn!(%error, "new pods are found by their sockets and by scanning alone"));
    let (announced, mut births) = (announced.ok(), births.ok());
    let mut unannounced = shared.count(Counter::Unannounced);
    let mut clock = Clock::new();
    loop {
        let new = births.as_ref().and_then(Births::next);
        clock.want_retry(shared.pods().want_retry());
        tokio::select! {
            ready = readable(announced.as_ref()) => match ready {
                Ok(mut ready) => {
                    let (more, found) = drain(&shared, &mut events);
                    if !more {
                        ready.clear_ready();
                    }
                    if !found {
                        clock.scan_soon();
                    }
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "can't wait for new pods");
                    sleep(INTERVAL).await;
                }
            },
            told = told(births.as_ref()) => match told {
                Ok(()) => births.iter_mut().for_each(|births| births.take(&shared.cgroups)),
                Err(error) => {
                    tracing::warn!(%error, "can't wait for new cgroups");
                    births = None;
                }
            },
            () = at(new) => births.iter_mut().for_each(|births| look_at_new(&shared, births)),
            () = at(clock.retry) => {
                clock.retry = None;
                shared.pods().retry();
            }
            () = shared.changed.notified() => shared.pods().reconsider(),
            () = sleep_until(clock.scan) => {
                let took = rescan(&shared).await;
                let told = announced.is_some() && births.as_ref().is_some_and(Births::is_complete);
                let seldom = told && !shared.pods().is_crowded();
                clock.scanned(took, if seldom { SELDOM } else { INTERVAL });
                clock.looked(took);
            }
            () = sleep_until(clock.look) => {
                let (all, took) = look(&shared).await;
                clock.looked(took);
                if !all {
                    clock.scan_soon();
                }
                let lost = shared.count(Counter::Unannounced);
                if lost != unannounced {
                    unannounced = lost;
                    clock.scan_soon();
                }
            }
        }
        if births.as_mut().is_some_and(Births::has_missed) {
            clock.scan_soon();
        }
    }
}

/// Waits until then, if there is a then.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Waits for announcements, if they can be waited for.
async fn readable(announced: Option<&AsyncFd<OwnedFd>>) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
    match announced {
        Some(announced) => announced.readable().await,
        None => pending().await,
    }
}

/// Waits for word of new cgroups, if there is any.
async fn told(births: Option<&Births>) -> io::Result<()> {
    match births {
        Some(births) => births.told().await,
        None => pending().await,
    }
}

/// Handles announcements: whether there may be more, and whether all could be followed to their namespace.
fn drain(shared: &Shared, events: &mut RingBuf<MapData>) -> (bool, bool) {
    let mut found = true;
    for _ in 0..BATCH {
        let Some(newcomer) = events.next().and_then(|item| parse(&item)) else {
            return (false, found);
        };
        found &= enrol(shared, newcomer);
    }
    (true, found)
}

fn parse(bytes: &[u8]) -> Option<Newcomer> {
    let (namespace, rest) = bytes.split_first_chunk::<8>()?;
    let (cgroup, rest) = rest.split_first_chunk::<8>()?;
    let (process, _) = rest.split_first_chunk::<4>()?;
    Some(Newcomer {
        namespace: u64::from_ne_bytes(*namespace),
        cgroup: u64::from_ne_bytes(*cgroup),
        process: u32::from_ne_bytes(*process),
        reserved: 0,
    })
}

/// Enrols the namespace in which an announced process is, or its pod; `false` if that is not the one announced, or nobody can
/// say yet what holds for it. The process may be gone, or elsewhere by now, or be numbered otherwise here: in a PID namespace
/// of Qbox's own.
fn enrol(shared: &Shared, newcomer: Newcomer) -> bool {
    let Newcomer {
        namespace,
        cgroup: unruled,
        process,
        ..
    } = newcomer;
    // Qbox may live in the tree too, beside the pods; `visit` leaves it out as well.
    if process == std::process::id() || (unruled == 0 && shared.pods().knows(namespace)) {
        return true;
    }
    let found = shared.cgroups.of_process(process).zip(namespace_of(process));
    let mut pods = shared.pods();
    let mut known = false;
    if let Some((cgroup, inode)) = found {
        let pod = shared.cgroups.judge(&cgroup).pod;
        pods.saw(inode, Sighting { process, cgroup });
        known = pods.knows(namespace) && pods.knows_rule(&pod);
    }
    if !known {
        pods.expect(announced(namespace, unruled));
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_looked_for_takes_no_more_than_its_share() {
        let mut clock = Clock::new();
        let now = Instant::now();
        clock.scanned(Duration::from_millis(100), SELDOM);
        assert_eq!(clock.scan, now + SELDOM);
        clock.scan_soon();
        assert_eq!(clock.scan, now + Duration::from_secs(5));
        clock.scanned(Duration::from_micros(1), INTERVAL);
        clock.scan_soon();
        assert_eq!(clock.scan, now + LEAST);
        clock.looked(Duration::from_millis(1));
        assert_eq!(clock.look, now + INTERVAL);
        clock.looked(Duration::from_secs(1));
        assert_eq!(clock.look, now + Duration::from_secs(50));
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_is_not_put_off_by_what_happens_meanwhile() {
        let mut clock = Clock::new();
        clock.want_retry(true);
        let first = clock.retry;
        assert_eq!(first, Some(Instant::now() + RETRY));
        tokio::time::advance(RETRY / 2).await;
        clock.want_retry(true);
        assert_eq!(clock.retry, first);
        clock.want_retry(false);
        assert_eq!(clock.retry, None);
    }

    #[test]
    fn an_announcement() {
        let mut bytes = 7_u64.to_ne_bytes().to_vec();
        bytes.extend(8_u64.to_ne_bytes());
        bytes.extend(42_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        let newcomer = parse(&bytes).unwrap();
        assert_eq!(
            (newcomer.namespace, newcomer.cgroup, newcomer.process),
            (7, 8, 42)
        );
        assert_eq!(parse(&bytes[..19]), None);
    }
}
