//! Looks for pods, for as long as capture runs: at once when the programs announce one, and in a scan of the cgroup's tree
//! every so often, which also sees which pods are gone. Knows nothing of connections.

use super::capture::Shared;
use super::pods::{MOST_RESIDENTS, Resident, Sightings};
use super::sys;
use aya::maps::{MapData, RingBuf};
use qbox_common::Newcomer;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
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
    let announced = match sys::readable(&events) {
        Ok(announced) => announced,
        Err(error) => {
            tracing::warn!(%error, "new pods are found only by scanning, every second");
            loop {
                sleep(INTERVAL).await;
                rescan(&shared).await;
            }
        }
    };
    // Before this no scan may be; by then one will have been.
    let mut earliest = Instant::now();
    let mut next = earliest + INTERVAL;
    loop {
        let ready = tokio::select! {
            ready = announced.readable() => Some(ready),
            () = sleep_until(next) => None,
        };
        match ready {
            Some(Ok(mut ready)) => {
                let (more, found) = drain(&shared, &mut events);
                if !more {
                    ready.clear_ready();
                }
                if !found {
                    next = next.min(earliest);
                }
                tokio::task::yield_now().await;
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "can't wait for new pods");
                sleep(INTERVAL).await;
            }
            None => {
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
    let (process, _) = rest.split_first_chunk::<4>()?;
    Some(Newcomer {
        namespace: u64::from_ne_bytes(*namespace),
        process: u32::from_ne_bytes(*process),
        reserved: 0,
    })
}

/// Enrols the namespace in which an announced process is; `false` if that is not the one announced. The process may be
/// gone, or elsewhere by now, or be numbered otherwise here: in a PID namespace of Qbox's own.
fn enrol(shared: &Shared, newcomer: Newcomer) -> bool {
    let Newcomer {
        namespace, process, ..
    } = newcomer;
    // Qbox may live in the tree too, beside the pods; `visit` leaves it out as well.
    if process == std::process::id() || shared.pods().knows(namespace) {
        return true;
    }
    let sighting = shared.cgroup.of_process(process).and_then(|cgroup| {
        let inode = namespace_of(process)?;
        let name = shared.cgroup.name(&cgroup);
        Some((inode, name, Resident { process, cgroup }))
    });
    let mut pods = shared.pods();
    if let Some((inode, name, resident)) = sighting {
        pods.saw(inode, name, resident);
    }
    let known = pods.knows(namespace);
    if !known {
        pods.expect(namespace);
    }
    known
}

/// The inode of the network namespace that a process is in.
fn namespace_of(process: u32) -> Option<u64> {
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
    let mut sightings = Sightings::new();
    // A cgroup's processes come one after the other.
    let (mut last, mut name) = (PathBuf::new(), String::new());
    shared.cgroup.visit(&mut |process| {
        let Some(inode) = namespace_of(process.id) else {
            return;
        };
        if last != process.cgroup {
            process.cgroup.clone_into(&mut last);
            name = shared.cgroup.name(process.cgroup);
        }
        let residents = sightings.entry(inode).or_default();
        if residents.len() < MOST_RESIDENTS && !residents.contains_key(&name) {
            let resident = Resident {
                process: process.id,
                cgroup: process.cgroup.to_path_buf(),
            };
            residents.insert(name.clone(), resident);
        }
    });
    sightings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement() {
        let mut bytes = 7_u64.to_ne_bytes().to_vec();
        bytes.extend(42_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        let newcomer = parse(&bytes).unwrap();
        assert_eq!((newcomer.namespace, newcomer.process), (7, 42));
        assert_eq!(parse(&bytes[..11]), None);
    }

    #[test]
    fn the_namespace_of_a_process() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(namespace_of(std::process::id()), Some(own));
        assert_eq!(namespace_of(0), None);
    }
}
