//! cgroup v2 directories: made, entered by name, emptied and removed (cgroups(7)).

use crate::poll::wait_for;
use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A cgroup that goes, with all in it, when this is dropped.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one.
    pub(crate) fn make(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("can't make the cgroup {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Kills whatever is in the cgroup and below it, and removes it.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    // Takes the whole subtree at once; older kernels (before 5.14) lack the file, and then the removal says so.
    drop(fs::write(path.join("cgroup.kill"), "1"));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    let what = format!("the cgroup {} to be empty", path.display());
    wait_for(&what, Duration::from_secs(5), || match fs::remove_dir(path) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(())),
        Err(_) => Ok(None),
    })
}

/// Where cgroup v2 is mounted (proc_pid_mountinfo(5)): /sys/fs/cgroup, or a folder in it on a hybrid machine.
pub(crate) fn mount() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("can't read /proc/self/mountinfo")?;
    let found = text.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4))?
    });
    found
        .map(PathBuf::from)
        .context("cgroup v2 isn't mounted on this machine, so no pod can be told from another")
}
