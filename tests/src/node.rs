//! A node: the network namespace that Qbox lives in, its bridge, and the cgroup above its pods'.

use crate::cgroup::{self, Cgroup};
use crate::leftovers;
use crate::netns::Namespace;
use crate::pause::Pause;
use crate::pod::Pod;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

/// One node. Its addresses mean something in it alone, so that every node has the same.
#[derive(Debug)]
pub struct Node {
    name: String,
    folder: TempDir,
    /// The last octet of the next pod, and the names of all so far.
    next: Mutex<u8>,
    namespace: Namespace,
    pause: Pause,
    // Last, so that it is removed once the processes are gone.
    cgroup: Cgroup,
}

/// Fails with a sentence that says what to do, unless this process is root.
///
/// # Errors
/// It isn't.
pub fn require_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "this needs root: it loads eBPF programs and makes network namespaces and cgroups. \
         Run it as root, or try `cargo xtask run --explicit`, which needs neither"
    );
}

impl Node {
    /// Makes one, after taking away what earlier owners that were killed left.
    ///
    /// # Errors
    /// No root, no cgroup v2, or a kernel without namespaces, bridges or veth pairs.
    pub fn new() -> Result<Self> {
        require_root()?;
        leftovers::sweep()?;
        let name = leftovers::fresh_name();
        let cgroup = Cgroup::make(cgroup::mount()?.join(&name))?;
        let folder = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir()?;
        fs::write(
            folder.path().join("hosts"),
            "127.0.0.1 localhost\n::1 localhost\n",
        )?;
        let pause = Pause::start(None, None)?;
        let namespace = Namespace::of_process(pause.id())?;
        let node = Self {
            name,
            folder,
            next: Mutex::new(2),
            namespace,
            pause,
            cgroup,
        };
        ip(
            node.pause.id(),
            "link set lo up\n\
             link add br0 type bridge forward_delay 0\n\
             link set br0 up\n\
             addr add 10.88.0.1/24 dev br0\n\
             addr add fd42:88::1/64 dev br0 nodad\n",
        )?;
        Ok(node)
    }

    /// Makes a pod of that name. `NAME`, `NAME.default.svc` and `NAME.default.svc.cluster.local` lead to it from all pods
    /// of this node.
    ///
    /// # Errors
    /// The namespaces or the links can't be made.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        self.pod_at(name, Path::new(name))
    }

    /// Makes a pod whose cgroup is at this place below the node's, as a runtime lays it out.
    ///
    /// # Errors
    /// As [`Node::pod`].
    pub fn pod_at(&self, name: &str, place: &Path) -> Result<Pod> {
        let number = {
            let Ok(mut next) = self.next.lock() else {
                bail!("making a pod has panicked before");
            };
            let number = *next;
            *next = number
                .checked_add(1)
                .context("a node has no more than 253 pods")?;
            number
        };
        let (ipv4, ipv6) = address(number);
        self.name_host(name, ipv4)?;
        let place = self.cgroup.path().join(place);
        if let Some(above) = place.parent() {
            fs::create_dir_all(above)?;
        }
        let cgroup = Cgroup::make(place)?;
        let pause = Pause::start(Some(cgroup.path()), Some(&self.hosts()))?;
        let id = pause.id();
        ip(
            self.pause.id(),
            &format!(
                "link add veth{number} type veth peer name eth0 netns {id}\n\
                 link set veth{number} master br0 up\n"
            ),
        )?;
        ip(
            id,
            &format!(
                "link set lo up\n\
                 addr add {ipv4}/24 dev eth0\n\
                 addr add {ipv6}/64 dev eth0 nodad\n\
                 link set eth0 up\n"
            ),
        )?;
        Pod::new(name, (ipv4, ipv6), pause, cgroup)
    }

    /// Makes a pod that shares another's network namespace: its addresses and ports, but not its cgroup.
    ///
    /// # Errors
    /// As [`Node::pod`].
    pub fn pod_beside(&self, name: &str, other: &Pod) -> Result<Pod> {
        self.resident(name, other.process(), other.addresses())
    }

    /// Makes a pod on the host's network: in the node's own namespace, where Qbox is.
    ///
    /// # Errors
    /// As [`Node::pod`].
    pub fn host_pod(&self, name: &str) -> Result<Pod> {
        self.resident(name, self.pause.id(), address(1))
    }

    fn resident(&self, name: &str, process: u32, own: (Ipv4Addr, Ipv6Addr)) -> Result<Pod> {
        self.name_host(name, own.0)?;
        let cgroup = Cgroup::make(self.cgroup.path().join(name))?;
        let pause = Pause::share(process, cgroup.path(), &self.hosts())?;
        Pod::new(name, own, pause, cgroup)
    }

    fn name_host(&self, name: &str, ipv4: Ipv4Addr) -> Result<()> {
        // Appended, so that the file stays the one that the pods see.
        let mut hosts = fs::OpenOptions::new().append(true).open(self.hosts())?;
        let line = format!("{ipv4} {name} {name}.default.svc {name}.default.svc.cluster.local\n");
        Ok(hosts.write_all(line.as_bytes())?)
    }

    /// Its name, which no other node on this machine has.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cgroup to enrol: the pods' cgroups are in it.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// A folder of its own, for configuration and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The names of the pods, in the format of hosts(5).
    #[must_use]
    pub fn hosts(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    /// The network namespace that Qbox lives in.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A command that runs in the node's network namespace, but in no pod and no cgroup.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.pause.id()))
            .arg("--")
            .arg(program);
        command
    }
}

/// The addresses of the node's pod of that number; the node's own is 1.
fn address(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    (
        Ipv4Addr::new(10, 88, 0, number),
        Ipv6Addr::new(0xfd42, 0x88, 0, 0, 0, 0, 0, number.into()),
    )
}

/// Runs lines of ip-batch in a process's network namespace.
fn ip(process: u32, lines: &str) -> Result<()> {
    let mut child = Command::new("nsenter")
        .arg(format!("--net=/proc/{process}/ns/net"))
        .args(["--", "ip", "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("can't start `nsenter` (Debian's util-linux has it)")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`ip` can't make the pods' links: does the kernel have bridges and veth pairs?");
    }
    Ok(())
}
