//! Names of what a node leaves in the file system, and the sweep of what a killed owner could not take away.

use crate::cgroup;
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "qbox-e2e-";

/// A name that no other node has, on this machine and now: it says which process owns it.
pub(crate) fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}", process::id())
}

/// Whether the owner that the name speaks of has died.
fn is_orphan(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    owner
        .and_then(|owner| owner.parse::<u32>().ok())
        .is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists())
}

/// Removes the cgroups, and the processes in them, and the folders of owners that were killed.
///
/// # Errors
/// cgroup v2 isn't mounted, or a cgroup resists.
pub fn sweep() -> Result<()> {
    for folder in orphans(&cgroup::mount()?) {
        cgroup::remove(&folder)?;
    }
    for folder in orphans(&std::env::temp_dir()) {
        // Another sweep may have been faster.
        drop(fs::remove_dir_all(folder));
    }
    Ok(())
}

fn orphans(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_orphan))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_owners_are_orphans() {
        assert!(!is_orphan(&fresh_name()));
        assert!(!is_orphan("somebody-elses"));
        assert!(!is_orphan("qbox-e2e-x-1"));
        // Linux's greatest process id is below 2^22 (proc_sys_kernel(5)).
        assert!(is_orphan("qbox-e2e-4194305-0"));
    }
}
