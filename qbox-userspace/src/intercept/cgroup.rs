//! The enrolled cgroup: finding or making it, walking its processes, naming a pod after its place in it (cgroups(7)).

use super::InterceptError;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// statfs(2)'s `f_type` of a cgroup2 file system.
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// How deep a tree is walked: kubelet's trees are five deep.
const DEEPEST: usize = 32;

/// The enrolled cgroup.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    /// The path below the mount, as /proc/PID/cgroup has it: `/qbox`.
    relative: PathBuf,
    /// Qbox made it, and takes it away again.
    made: bool,
    /// Qbox's own, wherever it is: its id (its folder's inode) and folder.
    own: Option<(u64, PathBuf)>,
}

/// A process of the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process<'a> {
    pub(super) id: u32,
    /// The folder of its cgroup.
    pub(super) cgroup: &'a Path,
}

impl Cgroup {
    /// Opens the cgroup, or makes it. A relative path is one below the cgroup2 mount.
    pub(super) fn open_or_make(configured: &Path) -> Result<Self, InterceptError> {
        let mount = mount().ok_or(InterceptError::NoCgroup2)?;
        let path = if configured.is_absolute() {
            configured.to_path_buf()
        } else {
            mount.join(configured)
        };
        let failed = |source| InterceptError::Cgroup {
            path: path.clone(),
            source,
        };
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(failed(io::Error::other("`..` is not followed here")));
        }
        let exists = path.is_dir();
        if !exists {
            // Asked first, so that nothing is made on another file system.
            let parent = path.ancestors().skip(1).find(|folder| folder.is_dir());
            if !parent.is_some_and(is_cgroup2) {
                return Err(InterceptError::NotCgroup2 { path, mount });
            }
            fs::create_dir_all(&path).map_err(failed)?;
        } else if !is_cgroup2(&path) {
            return Err(InterceptError::NotCgroup2 { path, mount });
        }
        let below = path.strip_prefix(&mount).unwrap_or(Path::new(""));
        let relative = Path::new("/").join(below);
        let own = own_cgroup(&mount).filter(|(_, folder)| *folder != path);
        Ok(Self {
            path,
            relative,
            made: !exists,
            own,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn folder(&self) -> Result<File, InterceptError> {
        File::open(&self.path).map_err(|source| self.failed(source))
    }

    /// The id by which the programs know Qbox's own processes. `None` if Qbox lives in the enrolled cgroup itself,
    /// beside the pods: then its sockets' mark alone tells them apart.
    pub(super) fn own_id(&self) -> Option<u64> {
        self.own.as_ref().map(|(id, _)| *id)
    }

    /// Its id: the inode of its folder.
    pub(super) fn id(&self) -> Result<u64, InterceptError> {
        Ok(self
            .folder()?
            .metadata()
            .map_err(|source| self.failed(source))?
            .ino())
    }

    fn failed(&self, source: io::Error) -> InterceptError {
        InterceptError::Cgroup {
            path: self.path.clone(),
            source,
        }
    }

    /// Visits every process of the tree but Qbox's own. A cgroup that goes away meanwhile is passed over.
    pub(super) fn visit(&self, each: &mut dyn FnMut(Process<'_>)) {
        self.visit_folder(&self.path, 0, each);
    }

    fn visit_folder(&self, folder: &Path, depth: usize, each: &mut dyn FnMut(Process<'_>)) {
        if depth > DEEPEST || self.own.as_ref().is_some_and(|(_, own)| own == folder) {
            return;
        }
        let own = std::process::id();
        let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        // 0 is a process of a PID namespace that isn't below ours.
        for id in processes
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|id| *id != 0 && *id != own)
        {
            each(Process { id, cgroup: folder });
        }
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.visit_folder(&entry.path(), depth + 1, each);
            }
        }
    }

    /// The folder of a process's cgroup, if it is in the tree.
    pub(super) fn of_process(&self, id: u32) -> Option<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{id}/cgroup")).ok()?;
        let below = Path::new(cgroup2_path(&text)?);
        let below = below.strip_prefix(&self.relative).ok()?;
        // In a cgroup namespace that doesn't have the tree in it the path is another one's, or leads upwards.
        let upwards = below.components().any(|part| part == Component::ParentDir);
        let folder = self.path.join(below);
        (!upwards && folder.is_dir()).then_some(folder)
    }

    /// A pod's name, from the folder of a cgroup in the tree.
    pub(super) fn name(&self, folder: &Path) -> String {
        let below = folder.strip_prefix(&self.path).unwrap_or(folder);
        if let Some(pod) = below
            .iter()
            .filter_map(|part| part.to_str())
            .find_map(kubernetes_pod)
        {
            return pod;
        }
        let name = if below.as_os_str().is_empty() {
            self.path.file_name().map(Path::new)
        } else {
            Some(below)
        };
        name.map_or_else(|| "/".to_owned(), |name| name.display().to_string())
    }

    /// Removes the cgroup if Qbox made it and nobody is in it any more.
    pub(super) fn remove(&self) {
        if self.made
            && let Err(error) = fs::remove_dir(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::info!(cgroup = %self.path.display(), %error, "the cgroup stays: it is in use");
        }
    }
}

/// kubelet's `pod<uid>` or `kubepods-burstable-pod<uid with _ for ->.slice`.
fn kubernetes_pod(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod").map(|(_, uid)| uid)?.replace('_', "-"),
        None => part.strip_prefix("pod")?.to_owned(),
    };
    let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then(|| format!("pod-{uid}"))
}

/// Visits a cgroup's folder and all below it.
pub(super) fn folders(folder: &Path, each: &mut dyn FnMut(&Path)) {
    below(folder, 0, each);
}

fn below(folder: &Path, depth: usize, each: &mut dyn FnMut(&Path)) {
    if depth > DEEPEST {
        return;
    }
    each(folder);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), depth + 1, each);
        }
    }
}

pub(super) fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == CGROUP2_MAGIC)
}

/// Where cgroup2 is mounted: /sys/fs/cgroup, or on a hybrid machine what mountinfo names first.
pub(super) fn mount() -> Option<PathBuf> {
    let unified = PathBuf::from("/sys/fs/cgroup");
    if is_cgroup2(&unified) {
        return Some(unified);
    }
    mount_in(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn mount_in(text: &str) -> Option<PathBuf> {
    mounts(text, "cgroup2").next()
}

/// The places where file systems of a type are mounted, in proc_pid_mountinfo(5): the fifth field is the mount point, the
/// type follows the lone hyphen.
pub(super) fn mounts(text: &str, wanted: &str) -> impl Iterator<Item = PathBuf> {
    text.lines().filter_map(move |line| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        let point = before.split(' ').nth(4)?;
        (kind == wanted).then(|| PathBuf::from(point.replace("\\040", " ")))
    })
}

fn own_cgroup(mount: &Path) -> Option<(u64, PathBuf)> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let folder = mount.join(cgroup2_path(&text)?.trim_start_matches('/'));
    let id = fs::metadata(&folder).ok()?.ino();
    Some((id, folder))
}

/// The line `0::/path` of /proc/PID/cgroup.
fn cgroup2_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_a_hybrid_machine() {
        let text = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    31 30 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_in(text), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_in("garbage\n"), None);
    }

    #[test]
    fn a_process_names_its_cgroup() {
        assert_eq!(cgroup2_path("4:cpu:/x\n0::/qbox/web\n"), Some("/qbox/web"));
        assert_eq!(cgroup2_path(""), None);
    }

    #[test]
    fn pods_are_named_after_their_cgroup() {
        let cgroup = Cgroup {
            path: "/sys/fs/cgroup/qbox".into(),
            relative: "/qbox".into(),
            made: false,
            own: None,
        };
        let name = |path: &str| cgroup.name(Path::new(path));
        assert_eq!(name("/sys/fs/cgroup/qbox/web"), "web");
        assert_eq!(name("/sys/fs/cgroup/qbox/a/b"), "a/b");
        assert_eq!(name("/sys/fs/cgroup/qbox"), "qbox");
        let uid = "0d1c2b3a-0000-1111-2222-333344445555";
        let slice = format!(
            "/sys/fs/cgroup/qbox/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice/cri-containerd-1.scope",
            uid.replace('-', "_")
        );
        assert_eq!(name(&slice), format!("pod-{uid}"));
        assert_eq!(
            name(&format!("/sys/fs/cgroup/qbox/burstable/pod{uid}/123")),
            format!("pod-{uid}")
        );
        assert_eq!(name("/sys/fs/cgroup/qbox/podium"), "podium");
    }
}
