//! New cgroups, told of by the kernel (inotify(7)): a pod's is there before its first container, and with its sandbox in it before an
//! application's first socket. A new one is looked at again and again for a moment, since a process is in its cgroup
//! before it is in its network namespace. What is missed here is said, and found by a scan.

use super::cgroup::{Cgroups, folders};
use super::sys;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// Cgroups that are watched: many times those of a node's pods and their containers.
const MOST: usize = 16_384;
/// Cgroups that are new at once; more are left to the scan.
const MOST_NEW: usize = 1024;
/// The time between two looks at a new one, which doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// For how long a process of a new one that is in the node's namespace may be on its way to its own.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// How long one is new.
const NEW: Duration = Duration::from_secs(3);

/// The watch.
pub(super) struct Births {
    inotify: AsyncFd<OwnedFd>,
    /// By their watches' descriptors.
    watched: BTreeMap<i32, PathBuf>,
    new: BTreeMap<PathBuf, New>,
    /// Not all are watched; said once.
    full: bool,
    /// Some that are new aren't among those to be looked at.
    missed: bool,
}

/// A new cgroup that is to be looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) folder: PathBuf,
    /// A process of it that is in the node's namespace is there to stay.
    pub(super) at_home: bool,
}

struct New {
    since: Instant,
    next: Instant,
    pause: Duration,
}

impl Births {
    /// Watches the trees.
    ///
    /// # Errors
    /// The kernel gives no inotify instance.
    pub(super) fn of(cgroups: &Cgroups) -> io::Result<Self> {
        let mut births = Self::empty()?;
        births.follow_all(cgroups);
        Ok(births)
    }

    fn empty() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self {
            inotify: sys::readable(&inotify)?,
            watched: BTreeMap::new(),
            new: BTreeMap::new(),
            full: false,
            missed: false,
        })
    }

    fn follow_all(&mut self, cgroups: &Cgroups) {
        for tree in cgroups.trees() {
            folders(tree.path(), &mut |folder| self.follow(folder));
        }
    }

    /// Whether every new cgroup is told of.
    pub(super) fn is_complete(&self) -> bool {
        !self.full
    }

    /// Whether a scan alone can find some of what is new; asked once.
    pub(super) fn has_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    fn follow(&mut self, folder: &Path) {
        if self.watched.len() >= MOST {
            self.overflow("too many cgroups");
            return;
        }
        let flags = WatchFlags::CREATE | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        match inotify::add_watch(self.inotify.get_ref(), folder, flags) {
            Ok(descriptor) => {
                self.watched.insert(descriptor, folder.to_path_buf());
            }
            // It has gone already.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => self.overflow(&error.to_string()),
        }
    }

    fn overflow(&mut self, why: &str) {
        if !self.full {
            tracing::warn!(
                why,
                "not every new cgroup is told of: some pods are found by their first socket, or by a scan"
            );
        }
        self.full = true;
    }

    /// When a new cgroup is to be looked at next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.new.values().map(|new| new.next).min()
    }

    /// Waits until there may be something to take in.
    pub(super) async fn told(&self) -> io::Result<()> {
        self.inotify.readable().await.map(|mut ready| {
            // Taken in at once by whoever waits; what comes after that makes it ready again.
            ready.clear_ready();
        })
    }

    /// Takes in what the kernel has told. Where it has lost some of that, the trees are gone through anew.
    pub(super) fn take(&mut self, cgroups: &Cgroups) {
        if self.take_told() {
            tracing::debug!("the kernel's queue of new cgroups was full");
            self.missed = true;
            self.follow_all(cgroups);
        }
    }

    /// Whether some of it was lost.
    fn take_told(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut born = BTreeSet::new();
        let mut gone = Vec::new();
        let mut lost = false;
        let mut reader = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                lost = true;
            } else if event.events().contains(ReadFlags::IGNORED) {
                gone.push(event.wd());
            } else if event.events().contains(ReadFlags::CREATE | ReadFlags::ISDIR)
                && let (Some(name), Some(parent)) = (event.file_name(), self.watched.get(&event.wd()))
            {
                born.insert(parent.join(OsStr::from_bytes(name.to_bytes())));
            }
        }
        for descriptor in gone {
            self.watched.remove(&descriptor);
        }
        let now = Instant::now();
        for folder in born {
            // What was made in it before it was watched is told of by nobody.
            folders(&folder, &mut |folder| self.follow(folder));
            if self.new.len() < MOST_NEW {
                let new = New {
                    since: now,
                    next: now,
                    pause: FIRST_PAUSE,
                };
                self.new.insert(folder, new);
            } else {
                self.missed = true;
            }
        }
        lost
    }

    /// The new cgroups that are to be looked at now.
    pub(super) fn due(&mut self) -> Vec<Due> {
        let now = Instant::now();
        self.new.retain(|_, new| now.duration_since(new.since) < NEW);
        let due = self.new.iter_mut().filter(|(_, new)| new.next <= now);
        due.map(|(folder, new)| {
            new.next = now + new.pause;
            new.pause = (new.pause * 2).min(LONGEST_PAUSE);
            Due {
                folder: folder.clone(),
                at_home: now.duration_since(new.since) >= ON_ITS_WAY,
            }
        })
        .collect()
    }

    /// A process of it was found in a network namespace of its own, and all is done for that.
    pub(super) fn found(&mut self, folder: &Path) {
        self.new.remove(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On another file system: the kernel tells of folders there likewise.
    #[tokio::test(start_paused = true)]
    async fn what_is_made_is_told_and_looked_at_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let mut births = Births::empty().unwrap();
        births.follow(folder.path());
        assert_eq!(births.next(), None);
        let pod = folder.path().join("pod");
        std::fs::create_dir(&pod).unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        births.told().await.unwrap();
        assert!(!births.take_told());
        let due = |folder: &Path, at_home| Due {
            folder: folder.to_path_buf(),
            at_home,
        };
        assert_eq!(births.due(), [due(&pod, false)]);
        assert!(births.due().is_empty(), "not before its pause is over");
        assert!(births.next().is_some());
        // In one that is new itself.
        let container = pod.join("container");
        std::fs::create_dir(&container).unwrap();
        births.told().await.unwrap();
        births.take_told();
        assert!(births.due().contains(&due(&container, false)));
        tokio::time::advance(ON_ITS_WAY).await;
        assert_eq!(births.due(), [due(&pod, true), due(&container, true)]);
        births.found(&container);
        births.found(&pod);
        assert_eq!(births.next(), None);
        std::fs::remove_dir(&container).unwrap();
        std::fs::remove_dir(&pod).unwrap();
        births.told().await.unwrap();
        births.take_told();
        assert_eq!(births.watched.len(), 1, "what has gone is watched no more");
        assert!(births.is_complete() && !births.has_missed());
    }

    /// More at once than are looked at one by one.
    #[tokio::test]
    async fn what_is_missed_is_said_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut births = Births::empty().unwrap();
        births.follow(folder.path());
        for number in 0..=MOST_NEW {
            std::fs::create_dir(folder.path().join(number.to_string())).unwrap();
        }
        births.told().await.unwrap();
        births.take_told();
        assert_eq!(births.due().len(), MOST_NEW);
        assert!(births.has_missed() && !births.has_missed());
    }
}
