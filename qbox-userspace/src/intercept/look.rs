//! Looks where the pods' processes are: of the pods that are known by the process that each was seen by, of all cgroups' processes in
//! a scan. What it finds it tells the pods. Knows neither when to look nor what becomes of a pod.
//!
//! A look at 250 pods is 250 stat(2)s; a scan reads each cgroup of the node and asks for each of its processes.

use super::births::{Births, Due};
use super::capture::Shared;
use super::entry::{Sighting, Sightings};
use super::policy::Judged;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

/// The inode of the network namespace that a process is in.
pub(super) fn namespace_of(process: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{process}/ns/net"))
        .ok()
        .map(|found| found.ino())
}

/// The node's own: that of its first process; or Qbox's, where it may not look at that one.
pub(super) fn node_namespace() -> Option<u64> {
    namespace_of(1).or_else(|| namespace_of(std::process::id()))
}

/// Scans once, and brings the pods in line with what was found.
pub(super) fn scan(shared: &Shared) {
    settle(shared, visit_all(shared));
}

fn settle(shared: &Shared, sightings: Sightings) {
    let mut pods = shared.pods();
    pods.settle(sightings);
    pods.tend();
}

/// Scans on a thread that may wait for files; how long that took.
pub(super) async fn rescan(shared: &Arc<Shared>) -> Duration {
    let start = Instant::now();
    let looking = spawn_blocking({
        let shared = Arc::clone(shared);
        move || visit_all(&shared)
    });
    // It fails only when the runtime stops.
    if let Ok(sightings) = looking.await {
        settle(shared, sightings);
    }
    start.elapsed()
}

/// Looks whether the pods that are known are still there, and does what is due; whether all are, and how long that took.
pub(super) async fn look(shared: &Arc<Shared>) -> (bool, Duration) {
    let start = Instant::now();
    let known = shared.pods().known();
    let looking = spawn_blocking({
        let shared = Arc::clone(shared);
        move || look_for(&shared, known)
    });
    // As above.
    let (sightings, all) = looking.await.unwrap_or_default();
    let mut pods = shared.pods();
    for ((inode, _), sighting) in sightings {
        pods.saw(inode, sighting);
    }
    pods.tend();
    (all, start.elapsed())
}

/// Where a pod's process has ended, or is elsewhere, all of the pod's are looked at: what was found, and whether that is every pod.
fn look_for(shared: &Shared, known: Vec<(u64, u32)>) -> (Sightings, bool) {
    let away = |(inode, process): &(u64, u32)| namespace_of(*process) != Some(*inode);
    let away: BTreeSet<_> = known.into_iter().filter(away).collect();
    let mut sightings = BTreeMap::new();
    if away.is_empty() {
        return (sightings, true);
    }
    let pods = shared.pods().known_by(&away);
    for (_, folder) in &pods {
        visit(shared, Some(folder), &mut sightings);
    }
    let all = pods.iter().all(|pod| sightings.contains_key(pod));
    (sightings, all)
}

fn visit_all(shared: &Shared) -> Sightings {
    let mut sightings = BTreeMap::new();
    visit(shared, None, &mut sightings);
    sightings
}

/// Looks at the processes of a folder and those below it, or of all.
fn visit(shared: &Shared, folder: Option<&Path>, sightings: &mut Sightings) {
    // The processes of a cgroup come one after the other.
    let mut last: Option<(PathBuf, PathBuf)> = None;
    shared.cgroups.visit(folder, &mut |process| {
        let Some(inode) = namespace_of(process.id) else {
            return;
        };
        let shown = match &last {
            Some((cgroup, shown)) if cgroup == process.cgroup => shown.clone(),
            _ => {
                let Judged { shown, .. } = shared.cgroups.judge(process.cgroup);
                last = Some((process.cgroup.to_path_buf(), shown.clone()));
                shown
            }
        };
        sightings.entry((inode, shown)).or_insert_with(|| Sighting {
            process: process.id,
            cgroup: process.cgroup.to_path_buf(),
        });
    });
}

/// Looks whether a process of a new cgroup is in its network namespace by now: at first it is in the node's.
pub(super) fn look_at_new(shared: &Shared, births: &mut Births) {
    let node = shared.pods().node();
    for Due { folder, at_home } in births.due() {
        let mut found = BTreeMap::new();
        visit(shared, Some(&folder), &mut found);
        found.retain(|(inode, _), _| at_home || Some(*inode) != node);
        let mut pods = shared.pods();
        let mut settled = !found.is_empty();
        for ((inode, _), sighting) in found {
            pods.saw(inode, sighting);
            settled &= !pods.is_early(inode) && Some(inode) != node;
        }
        if settled {
            births.found(&folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_of_a_process() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(namespace_of(std::process::id()), Some(own));
        assert_eq!(namespace_of(0), None);
    }
}
