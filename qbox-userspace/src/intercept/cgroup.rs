//! The enrolled cgroups: finding or making them, walking their processes, naming what is in them after its place (cgroups(7)).
//!
//! They are configured as folders, or as patterns: `*` and `?` within one component of a path. The programs are attached to
//! the folder in front of the first such component, and see more than the pattern means; [`Cgroups::judge`] tells.

use super::InterceptError;
use super::pattern::{Pattern, trees};
use super::policy::{Judged, Policy, Ports, Rule, Verdict};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// statfs(2)'s `f_type` of a cgroup2 file system.
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// How deep a tree is walked: kubelet's trees are five deep.
const DEEPEST: usize = 32;

/// The enrolled cgroups.
pub(super) struct Cgroups {
    mount: PathBuf,
    /// None of them is in another one.
    trees: Vec<Tree>,
    patterns: Vec<Pattern>,
    policy: Arc<dyn Policy>,
    /// Qbox's own, wherever it is: its id (its folder's inode) and folder.
    own: Option<(u64, PathBuf)>,
}

/// A cgroup that the programs are attached to.
#[derive(Debug)]
pub(super) struct Tree {
    path: PathBuf,
    /// Qbox made it, and takes it away again.
    made: bool,
}

/// A process of the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process<'a> {
    pub(super) id: u32,
    /// The folder of its cgroup.
    pub(super) cgroup: &'a Path,
}

impl Cgroups {
    /// Opens the cgroups, or makes them. A relative path is one below the cgroup2 mount.
    pub(super) fn open_or_make(
        configured: &[PathBuf],
        policy: Arc<dyn Policy>,
    ) -> Result<Self, InterceptError> {
        let mount = mount().ok_or(InterceptError::NoCgroup2)?;
        let mut opened = Self {
            trees: Vec::new(),
            patterns: configured.iter().map(|one| Pattern::new(&mount, one)).collect(),
            policy,
            own: None,
            mount,
        };
        for path in trees(&opened.mount, configured) {
            let tree = Tree::open_or_make(path, &opened.mount).inspect_err(|_| opened.remove())?;
            opened.trees.push(tree);
        }
        let own = own_cgroup(&opened.mount);
        opened.own = own.filter(|(_, folder)| !opened.trees.iter().any(|tree| tree.path == *folder));
        Ok(opened)
    }

    /// The cgroups to attach to.
    pub(super) fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// The configured folders and patterns.
    pub(super) fn configured(&self) -> Vec<PathBuf> {
        self.patterns.iter().map(|pattern| pattern.0.clone()).collect()
    }

    /// A folder below which whatever is made is enrolled, unless the policy says otherwise; if all are patterns, the first
    /// that the programs are attached to.
    pub(super) fn first(&self) -> &Path {
        let literal = self.patterns.iter().find(|pattern| pattern.is_literal());
        let tree = || self.trees.first().map(|tree| &*tree.path);
        literal
            .map(|pattern| &*pattern.0)
            .or_else(tree)
            .unwrap_or(&self.mount)
    }

    /// Whether not all that the programs see is in, so that they must tell pods apart.
    pub(super) fn is_selective(&self) -> bool {
        self.policy.is_selective() || !self.patterns.iter().all(Pattern::is_literal)
    }

    /// What holds for a folder in the trees.
    pub(super) fn judge(&self, folder: &Path) -> Judged {
        let Some(fits) = self.patterns.iter().find_map(|pattern| pattern.fits(folder)) else {
            return Judged {
                pod: folder.to_path_buf(),
                shown: folder.to_path_buf(),
                name: self.name(folder),
                rule: Rule::Out,
                why: "no cgroup of [capture] fits it".to_owned(),
                on_node: true,
            };
        };
        let below = folder.strip_prefix(&self.mount).unwrap_or(folder);
        match self.policy.of(below) {
            Some(Verdict {
                depth,
                name,
                rule,
                why,
                on_node,
            }) => {
                let surplus = below.components().count().saturating_sub(depth);
                let pod = folder.ancestors().nth(surplus).unwrap_or(folder);
                Judged {
                    pod: pod.to_path_buf(),
                    shown: pod.to_path_buf(),
                    name,
                    rule,
                    why,
                    on_node,
                }
            }
            None => Judged {
                pod: fits.to_path_buf(),
                shown: folder.to_path_buf(),
                name: self.name(folder),
                rule: Rule::In(Ports::All),
                why: format!("in {}", fits.display()),
                on_node: true,
            },
        }
    }

    /// The id by which the programs know Qbox's own processes. `None` if Qbox lives in an enrolled cgroup itself,
    /// beside the pods: then its sockets' mark alone tells them apart.
    pub(super) fn own_id(&self) -> Option<u64> {
        self.own.as_ref().map(|(id, _)| *id)
    }

    /// Visits every process of one cgroup of the trees and of those below it, or of all, but Qbox's own. A cgroup that goes away
    /// meanwhile is passed over.
    pub(super) fn visit(&self, folder: Option<&Path>, each: &mut dyn FnMut(Process<'_>)) {
        match folder {
            Some(folder) => self.visit_folder(folder, 0, each),
            None => self
                .trees
                .iter()
                .for_each(|tree| self.visit_folder(&tree.path, 0, each)),
        }
    }

    fn visit_folder(&self, folder: &Path, depth: usize, each: &mut dyn FnMut(Process<'_>)) {
        if depth > DEEPEST || self.own.as_ref().is_some_and(|(_, own)| own == folder) {
            return;
        }
        let own = std::process::id();
        for id in processes(folder).into_iter().filter(|id| *id != own) {
            each(Process { id, cgroup: folder });
        }
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.visit_folder(&entry.path(), depth + 1, each);
            }
        }
    }

    /// The folder of a process's cgroup, if it is in the trees.
    pub(super) fn of_process(&self, id: u32) -> Option<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{id}/cgroup")).ok()?;
        let below = Path::new(cgroup2_path(&text)?.trim_start_matches('/'));
        // In a cgroup namespace that doesn't have the trees in it the path is another one's, or leads upwards.
        let upwards = below.components().any(|part| part == Component::ParentDir);
        let folder = self.mount.join(below);
        let inside = self.trees.iter().any(|tree| folder.starts_with(&tree.path));
        (!upwards && inside && folder.is_dir()).then_some(folder)
    }

    /// What a folder in the trees is called, unless the policy knows a name.
    fn name(&self, folder: &Path) -> String {
        let tree = self.trees.iter().find(|tree| folder.starts_with(&tree.path));
        let tree = tree.map_or(&*self.mount, |tree| &*tree.path);
        let below = folder.strip_prefix(tree).unwrap_or(folder);
        let name = if below.as_os_str().is_empty() {
            tree.file_name().map(Path::new)
        } else {
            Some(below)
        };
        name.map_or_else(|| "/".to_owned(), |name| name.display().to_string())
    }

    /// Removes the cgroups that Qbox made and nobody is in any more.
    pub(super) fn remove(&self) {
        for tree in &self.trees {
            tree.remove();
        }
    }
}

impl Tree {
    fn open_or_make(path: PathBuf, mount: &Path) -> Result<Self, InterceptError> {
        let failed = |source| InterceptError::Cgroup {
            path: path.clone(),
            source,
        };
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(failed(io::Error::other("`..` is not followed here")));
        }
        let not_cgroup2 = || InterceptError::NotCgroup2 {
            path: path.clone(),
            mount: mount.to_path_buf(),
        };
        let exists = path.is_dir();
        if !exists {
            // Asked first, so that nothing is made on another file system.
            let parent = path.ancestors().skip(1).find(|folder| folder.is_dir());
            if !parent.is_some_and(is_cgroup2) {
                return Err(not_cgroup2());
            }
            fs::create_dir_all(&path).map_err(failed)?;
        } else if !is_cgroup2(&path) {
            return Err(not_cgroup2());
        }
        Ok(Self { path, made: !exists })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn folder(&self) -> Result<File, InterceptError> {
        File::open(&self.path).map_err(|source| self.failed(source))
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

    fn remove(&self) {
        if self.made
            && let Err(error) = fs::remove_dir(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::info!(cgroup = %self.path.display(), %error, "the cgroup stays: it is in use");
        }
    }
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

/// The processes in a cgroup, without those below it.
pub(super) fn processes(folder: &Path) -> Vec<u32> {
    let all = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let ids = all.lines().filter_map(|line| line.parse().ok());
    // 0 is a process of a PID namespace that isn't below ours.
    ids.filter(|id| *id != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows pods by a component `pod…`, and has them out.
    struct Out;

    impl Policy for Out {
        fn is_selective(&self) -> bool {
            true
        }

        fn of(&self, cgroup: &Path) -> Option<Verdict> {
            let is_pod = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b"pod");
            let at = cgroup.components().position(is_pod)?;
            Some(Verdict {
                depth: at + 1,
                name: "a pod".to_owned(),
                rule: Rule::Out,
                why: "because".to_owned(),
                on_node: false,
            })
        }
    }

    fn cgroups(configured: &[&str]) -> Cgroups {
        let mount = PathBuf::from("/sys/fs/cgroup");
        let configured: Vec<PathBuf> = configured.iter().map(PathBuf::from).collect();
        let tree = |path| Tree { path, made: false };
        Cgroups {
            trees: trees(&mount, &configured).into_iter().map(tree).collect(),
            patterns: configured.iter().map(|one| Pattern::new(&mount, one)).collect(),
            policy: Arc::new(Out),
            own: None,
            mount,
        }
    }

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
        // Hybrid: version 1's controllers name the pod too, and it is version 2's line that counts.
        let hybrid =
            "12:pids:/kubepods/besteffort/podx/1\n1:name=systemd:/kubepods/podx/1\n0::/kubepods/podx/2\n";
        assert_eq!(cgroup2_path(hybrid), Some("/kubepods/podx/2"));
        assert_eq!(cgroup2_path(""), None);
    }

    #[test]
    fn pods_are_named_after_their_cgroup() {
        let cgroups = cgroups(&["qbox", "/sys/fs/cgroup/other"]);
        let name = |path: &str| cgroups.name(Path::new(path));
        assert_eq!(name("/sys/fs/cgroup/qbox/web"), "web");
        assert_eq!(name("/sys/fs/cgroup/qbox/a/b"), "a/b");
        assert_eq!(name("/sys/fs/cgroup/qbox"), "qbox");
        assert_eq!(name("/sys/fs/cgroup/other/b"), "b");
    }

    #[test]
    fn what_is_in_and_what_is_not() {
        let cgroups = cgroups(&["system.slice/docker-*.scope", "qbox"]);
        assert!(cgroups.is_selective());
        let judge = |path: &str| {
            let judged = cgroups.judge(&Path::new("/sys/fs/cgroup").join(path));
            let pod = judged.pod.strip_prefix("/sys/fs/cgroup").unwrap();
            (pod.display().to_string(), judged.name, judged.rule)
        };
        let is = |pod: &str, name: &str, rule: Rule| (pod.to_owned(), name.to_owned(), rule);
        let all = || Rule::In(Ports::All);
        let (scope, inner) = ("system.slice/docker-1.scope", "system.slice/docker-1.scope/init");
        assert_eq!(judge(scope), is(scope, "docker-1.scope", all()));
        assert_eq!(judge(inner), is(scope, "docker-1.scope/init", all()));
        let other = "system.slice/sshd.service";
        assert_eq!(judge(other), is(other, "sshd.service", Rule::Out));
        assert_eq!(judge("qbox/web"), is("qbox", "web", all()));
        assert_eq!(
            judge("qbox/k/pod1/x"),
            is("qbox/k/pod1", "a pod", Rule::Out),
            "the policy goes first"
        );
        assert_eq!(cgroups.first(), Path::new("/sys/fs/cgroup/qbox"));
    }
}
