//! Looks for pods, for as long as capture runs: at once when the programs announce one, when a cgroup is new or when what holds
//! for pods has changed, and in a scan of the cgroups' trees every so often, which also sees which pods are gone. Knows nothing of connections.

use super::births::Births;
use super::capture::Shared;
use super::entry::{Sighting, Sightings};
use super::sys;
use aya::maps::{MapData, RingBuf};
use qbox_common::{Newcomer, announced};
use rustix::fd::OwnedFd;
use std::collections::BTreeMap;
use std::fs;
use std::future::pending;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::time::{Instant, sleep, sleep_until};

/// Between two scans, if nothing happens.
const INTERVAL: Duration = Duration::from_secs(1);
/// The least between two scans, when something was announced that only a scan can find.
const LEAST: Duration = Duration::from_millis(50);
/// A scan may take one part in this many of a CPU's time: on a node with many processes they are further apart.
const SHARE: u32 = 50;
/// Announcements handled before others get their turn.
const BATCH: usize = 64;

/// Runs until it is dropped.
pub(super) async fn watch(shared: Arc<Shared>, mut events: RingBuf<MapData>) {
    let announced = sys::readable(&events).map_err(
        |error| tracing::warn!(%error, "new pods are found by their cgroups and by scanning, not by their sockets"),
    );
    let births = Births::of(&shared.cgroups)
        .map_err(|error| tracing::warn!(%error, "new pods are found by their sockets and by scanning alone"));
    let (announced, mut births) = (announced.ok(), births.ok());
    // Before this no scan may be; by then one will have been.
    let mut earliest = Instant::now();
    let mut next = earliest + INTERVAL;
    loop {
        let look = births.as_ref().and_then(Births::next);
        tokio::select! {
            ready = readable(announced.as_ref()) => match ready {
                Ok(mut ready) => {
                    let (more, found) = drain(&shared, &mut events);
                    if !more {
                        ready.clear_ready();
                    }
                    if !found {
                        next = next.min(earliest);
                    }
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "can't wait for new pods");
                    sleep(INTERVAL).await;
                }
            },
            told = told(births.as_ref()) => match told {
                Ok(()) => births.iter_mut().for_each(Births::take),
                Err(error) => {
                    tracing::warn!(%error, "can't wait for new cgroups");
                    births = None;
                }
            },
            () = sleep_until(look.unwrap_or(next).min(next)), if look.is_some_and(|look| look < next) => {
                if let Some(births) = &mut births {
                    look_at_new(&shared, births);
                }
                if shared.pods().want_retry() {
                    next = next.min(earliest);
                }
            }
            () = shared.changed.notified() => {
                shared.pods().reconsider();
                // What is in now may not have been seen yet.
                next = next.min(earliest);
            }
            () = sleep_until(next) => {
                let rest = rescan(&shared).await * SHARE;
                let interval = if shared.pods().want_retry() {
                    LEAST
                } else {
                    INTERVAL
                };
                earliest = Instant::now() + rest.max(LEAST);
                next = Instant::now() + rest.max(interval);
            }
        }
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

/// Looks whether a process of a new cgroup is in its network namespace by now: until then it is in the node's. Those that stay
/// there a scan finds.
fn look_at_new(shared: &Shared, births: &mut Births) {
    let node = namespace_of(1);
    for folder in births.due() {
        let mut found = BTreeMap::new();
        shared.cgroups.visit_below(&folder, &mut |process| {
            let inode = namespace_of(process.id).filter(|inode| Some(*inode) != node);
            if let Some(inode) = inode {
                found.insert(inode, (process.id, process.cgroup.to_path_buf()));
            }
        });
        let mut pods = shared.pods();
        let mut settled = !found.is_empty();
        for (inode, (process, cgroup)) in found {
            pods.saw(inode, Sighting { process, cgroup });
            settled &= !pods.is_early(inode);
        }
        if settled {
            births.found(&folder);
        }
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

/// The inode of the network namespace that a process is in.
pub(super) fn namespace_of(process: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{process}/ns/net"))
        .ok()
        .map(|found| found.ino())
}

/// Scans once, and brings the pods in line with what was found.
pub(super) fn scan(shared: &Shared) {
    let sightings = look(shared);
    shared.pods().settle(sightings);
}

/// Scans on a thread that may wait for files; how long that took.
async fn rescan(shared: &Arc<Shared>) -> Duration {
    let start = Instant::now();
    let looking = tokio::task::spawn_blocking({
        let shared = Arc::clone(shared);
        move || look(&shared)
    });
    // It fails only when the runtime stops.
    if let Ok(sightings) = looking.await {
        shared.pods().settle(sightings);
    }
    start.elapsed()
}

fn look(shared: &Shared) -> Sightings {
    let mut sightings = BTreeMap::new();
    // The processes of a cgroup come one after the other.
    let mut last: Option<(PathBuf, PathBuf)> = None;
    shared.cgroups.visit(&mut |process| {
        let Some(inode) = namespace_of(process.id) else {
            return;
        };
        let pod = match &last {
            Some((cgroup, pod)) if cgroup == process.cgroup => pod.clone(),
            _ => {
                let pod = shared.cgroups.judge(process.cgroup).shown;
                last = Some((process.cgroup.to_path_buf(), pod.clone()));
                pod
            }
        };
        sightings.entry((inode, pod)).or_insert_with(|| Sighting {
            process: process.id,
            cgroup: process.cgroup.to_path_buf(),
        });
    });
    sightings
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_namespace_of_a_process() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(namespace_of(std::process::id()), Some(own));
        assert_eq!(namespace_of(0), None);
    }
}
