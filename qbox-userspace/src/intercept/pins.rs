//! Links that outlive Qbox: pinned in a bpf file system, so that what triggers could match is refused while it is down.
//!
//! Each run has a folder of its own, `qbox/CGROUP/RUN` below the mount (the cgroup's id, a number), and holds its lock for
//! as long as it lives: a folder whose lock can be taken is what an earlier run has left. Maps are not pinned and no run
//! uses another's, so that a run of any version replaces one of any other. Errors: [`InterceptError`].

use super::error::InterceptError;
use super::sys;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Below the mount.
const FOLDER: &str = "qbox";
/// Where bpffs is mounted by custom (systemd does), for the message.
const CUSTOM: &str = "/sys/fs/bpf";
/// Numbers tried for a run's folder.
const MOST_RUNS: u32 = 1000;

/// This run's folder.
#[derive(Debug)]
pub(super) struct Pins {
    folder: PathBuf,
    _lock: OwnedFd,
}

impl Pins {
    /// Makes a folder for the links to a cgroup.
    ///
    /// # Errors
    /// No bpf file system is mounted, or nothing can be made in it.
    pub(super) fn make(cgroup: u64) -> Result<Self, InterceptError> {
        let mount = mount().ok_or(InterceptError::NoBpffs { custom: CUSTOM })?;
        let above = mount.join(FOLDER).join(cgroup.to_string());
        let failed = |source| InterceptError::Pin {
            path: above.clone(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder.recursive(true).create(&above).map_err(failed)?;
        builder.recursive(false);
        for number in 0..MOST_RUNS {
            let folder = above.join(number.to_string());
            match builder.create(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed(error)),
            }
            // Another start may have taken it for left behind, in between.
            if let Some(lock) = lock(&folder).map_err(failed)? {
                return Ok(Self { folder, _lock: lock });
            }
        }
        Err(failed(io::ErrorKind::AlreadyExists.into()))
    }

    /// Pins a link.
    ///
    /// # Errors
    /// As bpf(2).
    pub(super) fn pin(&self, name: &str, link: impl AsFd) -> Result<(), InterceptError> {
        let path = self.folder.join(name);
        sys::pin(link, &path).map_err(|source| InterceptError::Pin { path, source })
    }

    /// Takes the pins away, and detaches what they kept.
    pub(super) fn remove(&self) {
        remove(&self.folder);
    }

    /// Whether `folder` is this run's.
    fn is(&self, folder: &Path) -> bool {
        self.folder == folder
    }
}

/// Takes away what earlier runs have left for a cgroup; the folders that are gone now. What a living run holds stays, and
/// so does `own`.
pub(super) fn replace(cgroup: u64, own: &[Pins]) -> Vec<PathBuf> {
    let Some(above) = mount().map(|mount| mount.join(FOLDER).join(cgroup.to_string())) else {
        return Vec::new();
    };
    let gone = entries(&above)
        .filter(|folder| !own.iter().any(|own| own.is(folder)))
        .filter(|folder| match lock(folder) {
            Ok(Some(_lock)) => {
                remove(folder);
                true
            }
            Ok(None) | Err(_) => false,
        })
        .collect();
    // As long as there is a run they stay.
    drop(fs::remove_dir(&above));
    if let Some(folder) = above.parent() {
        drop(fs::remove_dir(folder));
    }
    gone
}

/// The ids of all cgroups for which something is pinned.
pub(super) fn cgroups() -> Vec<u64> {
    let folder = mount().map(|mount| mount.join(FOLDER));
    let below = folder.iter().flat_map(|folder| entries(folder));
    below
        .filter_map(|folder| folder.file_name()?.to_str()?.parse().ok())
        .collect()
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// The folder's lock, unless a living run has it.
fn lock(folder: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open(folder, flags, Mode::empty())?;
    match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(fd)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn remove(folder: &Path) {
    for path in entries(folder) {
        // The link's cgroup may be gone, and the link with it.
        if let Err(error) = sys::detach_pinned(&path) {
            tracing::debug!(path = %path.display(), %error, "can't detach a pinned program");
        }
        drop(fs::remove_file(&path));
    }
    if let Err(error) = fs::remove_dir(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %folder.display(), %error, "can't take pinned programs away");
    }
}

/// Where a bpf file system is mounted: where it is by custom, or what mountinfo names first.
fn mount() -> Option<PathBuf> {
    mount_in(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn mount_in(text: &str) -> Option<PathBuf> {
    let all = super::cgroup::mounts(text, "bpf");
    let mut all: Vec<PathBuf> = all.collect();
    all.sort_by_key(|path| path != Path::new(CUSTOM));
    all.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_customary_mount_goes_first() {
        let text = "30 25 0:26 / /mnt/bpf rw - bpf none rw\n31 30 0:27 / /sys/fs/bpf rw,relatime shared:9 - bpf bpf rw\n";
        assert_eq!(mount_in(text), Some(PathBuf::from("/sys/fs/bpf")));
        assert_eq!(
            mount_in("30 25 0:26 / /mnt/x rw - bpf none rw\n"),
            Some(PathBuf::from("/mnt/x"))
        );
        assert_eq!(mount_in("30 25 0:26 / /mnt/x rw - tmpfs none rw\n"), None);
    }

    #[test]
    fn a_folder_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        assert!(first.is_some());
        assert!(lock(folder.path()).unwrap().is_none());
        drop(first);
        assert!(lock(folder.path()).unwrap().is_some());
    }
}
