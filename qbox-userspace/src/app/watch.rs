//! When the files are read again: when the kernel says that something in their folders has changed (inotify(7)), and every so
//! often where the looks of the files have changed, since a network file system tells of no change made elsewhere. On a thread
//! of its own, which reads files whenever it does not wait.
//!
//! A Kubernetes ConfigMap is a folder whose files are links through `..data`, which the kubelet exchanges as a whole: that is a
//! change in the folder itself. A folder that is a link, or is reached through some, is watched where each of them stands.

use super::reload::Reloader;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Files are read once nothing has changed for so long: whoever writes several does it at once.
const QUIET: Duration = Duration::from_millis(100);
/// And no later than this after the first change.
const LATEST: Duration = Duration::from_millis(500);
/// Between two looks at the files, if nobody tells of a change.
const LOOK: Duration = Duration::from_secs(5);
/// How many links a path may lead through (as the kernel has it, path_resolution(7)).
const LINKS: usize = 40;

/// All that can make a file another one. Reading changes nothing.
fn changes() -> WatchFlags {
    WatchFlags::CLOSE_WRITE
        | WatchFlags::MODIFY
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVE
        | WatchFlags::ATTRIB
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
}

/// Reads the files again whenever there may be something new in them, for as long as there is a reloader.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn start(reloader: &Arc<Reloader>) -> io::Result<()> {
    let reloader = Arc::downgrade(reloader);
    let thread = std::thread::Builder::new().name("qbox-files".to_owned());
    // It ends by itself; nobody waits for it, since it may be asleep.
    thread.spawn(move || watch(&reloader)).map(drop)
}

fn watch(reloader: &Weak<Reloader>) {
    let mut watched = Watched::default();
    // None: what came between the start's reading and the first watches is read too.
    let mut seen = None;
    let mut told = true;
    while let Some(reloader) = reloader.upgrade() {
        let (files, sagas) = reloader.places();
        let (places, looks) = (places(&files, &sagas), looks(&files, &sagas));
        if told || seen != Some(looks) || watched.places != places {
            // Before the reading, so that what comes after it is told.
            watched.follow(places);
            seen = Some(looks);
            told = false;
            reloader.reload();
            // The folder may be another one now.
            continue;
        }
        drop(reloader);
        told = watched.changed();
    }
}

/// Folders that the kernel tells of.
#[derive(Default)]
struct Watched {
    /// None yet, or it can't be had.
    inotify: Option<OwnedFd>,
    places: Places,
}

/// Folders, and the names in them that matter beside `*.toml` and Kubernetes' `..data`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    folders: BTreeSet<PathBuf>,
    names: BTreeSet<OsString>,
}

impl Watched {
    /// Watches these, and no others. Always anew, since under a name there may be another folder by now; what had been told
    /// is forgotten, and is read after this.
    fn follow(&mut self, places: Places) {
        self.places = places;
        match self.open() {
            Ok(inotify) => self.inotify = Some(inotify),
            Err(error) => {
                tracing::warn!(%error, "changed files are noticed only every {LOOK:?}");
                self.inotify = None;
            }
        }
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        for folder in &self.places.folders {
            match inotify::add_watch(&inotify, folder, changes()) {
                // One that is missing is told of by its parent when it comes.
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(inotify)
    }

    /// Waits for a change and then until it is over, or until it is time for a look: whether there was one.
    fn changed(&self) -> bool {
        let Some(inotify) = &self.inotify else {
            std::thread::sleep(LOOK);
            return false;
        };
        if !self.told(inotify, Instant::now() + LOOK) {
            return false;
        }
        let latest = Instant::now() + LATEST;
        while self.told(inotify, (Instant::now() + QUIET).min(latest)) {}
        true
    }

    /// Waits for word of something that matters, until then.
    fn told(&self, inotify: &OwnedFd, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            // A signal only wakes it early.
            if poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&timeout)).is_ok() && self.drain(inotify)
            {
                return true;
            }
        }
    }

    /// Takes all that was told; says whether any of it matters.
    fn drain(&self, inotify: &OwnedFd) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut matters = false;
        while let Ok(event) = reader.next() {
            // Without a name it is the folder itself, or the kernel's queue was too short.
            let named = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            matters |= named.is_none_or(|name| self.places.matters(name));
        }
        matters
    }
}

impl Places {
    /// Logs, sockets and an editor's own files lie in the same folders.
    fn matters(&self, name: &OsStr) -> bool {
        let bytes = name.as_bytes();
        bytes == b"..data"
            || (bytes.ends_with(b".toml") && !bytes.starts_with(b"."))
            || self.names.contains(name)
    }

    /// A path, by every name on it that is a link, and the last: where each stands, what it is called.
    fn add(&mut self, path: &Path, links: &mut usize) {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut here = PathBuf::new();
        let last = path.components().count().saturating_sub(1);
        for (at, part) in path.components().enumerate() {
            let parent = here.clone();
            here.push(part);
            let target = fs::read_link(&here).ok();
            if (at == last || target.is_some())
                && let Some(name) = here.file_name()
            {
                self.folders.insert(parent.clone());
                self.names.insert(name.to_owned());
            }
            if let Some(target) = target
                && *links < LINKS
            {
                *links += 1;
                self.add(&parent.join(target), links);
            }
        }
    }
}

fn places(files: &[PathBuf], sagas: &Path) -> Places {
    let mut places = Places::default();
    for path in files.iter().map(PathBuf::as_path).chain([sagas]) {
        places.add(path, &mut 0);
    }
    places.folders.insert(sagas.to_owned());
    places
}

/// What the files look like from outside. A link counts as what it leads to.
fn looks(files: &[PathBuf], sagas: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut paths: Vec<PathBuf> = fs::read_dir(sagas)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    paths.extend_from_slice(files);
    for path in paths {
        path.hash(&mut hasher);
        let looks = fs::metadata(&path).ok();
        looks
            .map(|m| (m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec(), m.mode()))
            .hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_watched_where_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("releases/1/sagas")).unwrap();
        symlink("releases/1", root.join("current")).unwrap();
        let places = places(&[root.join("qbox.toml")], &root.join("current/sagas"));
        for watched in [
            root.clone(),
            root.join("releases"),
            root.join("current"),
            root.join("current/sagas"),
        ] {
            assert!(places.folders.contains(&watched), "{watched:?} in {places:?}");
        }
        for name in ["qbox.toml", "current", "sagas", "..data", "x.toml"] {
            assert!(places.matters(OsStr::new(name)), "{name}");
        }
        for name in ["log", "admin.sock", ".x.toml", ".x.toml.swp", "x.toml~", "state"] {
            assert!(!places.matters(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn links_in_a_circle_end() {
        let folder = tempfile::tempdir().unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        let places = places(&[folder.path().join("a")], &folder.path().join("b"));
        assert!(places.folders.len() < 10);
    }

    #[test]
    fn a_change_is_told_and_a_log_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let sagas = folder.path().join("sagas");
        fs::create_dir(&sagas).unwrap();
        let mut watched = Watched::default();
        watched.follow(places(&[folder.path().join("qbox.toml")], &sagas));
        let inotify = watched.inotify.as_ref().unwrap();
        let told = |write: PathBuf| {
            fs::write(write, "x").unwrap();
            // The kernel tells before write(2) returns.
            watched.told(inotify, Instant::now() + Duration::from_millis(20))
        };
        assert!(!told(folder.path().join("log")));
        assert!(told(sagas.join("a.toml")));
        assert!(told(folder.path().join("qbox.toml")));
        let before = looks(&[folder.path().join("qbox.toml")], &sagas);
        fs::write(sagas.join("a.toml"), "longer").unwrap();
        assert_ne!(before, looks(&[folder.path().join("qbox.toml")], &sagas));
        assert!(watched.changed());
    }
}
