//! Taking away what runs of Qbox have left on this node: pinned programs, and cgroups of commands that were run for a
//! while. Nothing of a living run is touched, and no cgroup in which there is somebody. What can't be taken away stays.

use super::{cgroup, pattern, pins};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the cgroups of `qbox exec` are called, their maker's process id behind it.
pub const EXEC_PREFIX: &str = "exec-";

/// Detaches the programs that are pinned for these cgroups or patterns, and for cgroups that are gone; `all`, for every one. The
/// folders that held the pins. Without a bpf file system nothing is pinned.
#[must_use]
pub fn unpin(enrolled: &[PathBuf], all: bool) -> Vec<PathBuf> {
    let id = |folder: &Path| fs::metadata(folder).ok().map(|found| found.ino());
    let mut living = BTreeSet::new();
    let mut ours = BTreeSet::new();
    if let Some(mount) = cgroup::mount() {
        cgroup::folders(&mount, &mut |folder| living.extend(id(folder)));
        ours.extend(
            pattern::trees(&mount, enrolled)
                .iter()
                .filter_map(|tree| id(tree)),
        );
    }
    let gone = pins::cgroups()
        .into_iter()
        .filter(|id| all || ours.contains(id) || !living.contains(id));
    gone.flat_map(|id| pins::replace(id, &[])).collect()
}

/// Takes away what a killed `qbox exec` has left in the enrolled cgroup; the folders that are gone now.
#[must_use]
pub fn sweep(enrolled: &Path) -> Vec<PathBuf> {
    let mut gone = Vec::new();
    for entry in fs::read_dir(enrolled).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(EXEC_PREFIX));
        let maker = maker.and_then(|number| number.parse::<u32>().ok());
        let dead = maker.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists());
        if dead && fs::remove_dir(entry.path()).is_ok() {
            gone.push(entry.path());
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_killed_left_behind_goes() {
        let folder = tempfile::tempdir().unwrap();
        // The first is above the kernel's greatest process id (2^22).
        let own = format!("exec-{}", std::process::id());
        let names = ["exec-4194305", own.as_str(), "exec-x", "pod"];
        for name in names {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        assert_eq!(sweep(folder.path()), [folder.path().join(names[0])]);
        let left = names.map(|name| folder.path().join(name).exists());
        assert_eq!(left, [false, true, true, true]);
    }
}
