//! Why capture can't start, or a pod can't be enrolled.

use crate::causes::chain;
use std::io;
use std::path::PathBuf;

/// What every failure to start ends in: there is another way.
const WITHOUT: &str = "`--explicit` runs without eBPF";

/// Each message is one sentence: what is missing, and how to go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InterceptError {
    /// build.rs found no object.
    #[error(
        "this qbox was built without its eBPF object: build with `cargo xtask build` (or cargo xtask run); {WITHOUT}"
    )]
    NoObject,
    /// The object is of another version of Qbox.
    #[error(
        "the embedded eBPF object is of another version of qbox: build with `cargo xtask build`; {WITHOUT}"
    )]
    OtherObject,
    /// The process lacks capabilities(7).
    #[error("capturing needs {missing}, which this process lacks: run qbox as root; {WITHOUT}")]
    Privileges {
        /// Their names.
        missing: String,
    },
    /// The kernel was built without CONFIG_DEBUG_INFO_BTF.
    #[error("this kernel has no type information (BTF; /sys/kernel/btf/vmlinux is missing); {WITHOUT}")]
    NoBtf,
    /// No cgroup2 file system is mounted.
    #[error("no cgroup v2 file system is mounted: mount one, or run on a system that does; {WITHOUT}")]
    NoCgroup2,
    /// The folder is on something else.
    #[error("{path} is not in a cgroup v2 file system (one is at {mount}); {WITHOUT}")]
    NotCgroup2 {
        /// As configured.
        path: PathBuf,
        /// Where it would have to be.
        mount: PathBuf,
    },
    /// The cgroup is missing and can't be made, or can't be opened.
    #[error("can't make or open the cgroup {path} ({WITHOUT})")]
    Cgroup {
        /// As configured.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel or the loader refuses the object or a map.
    #[error("the eBPF object can't be loaded: {cause}; {WITHOUT}")]
    Load {
        /// The loader's words.
        cause: String,
    },
    /// The kernel refuses a program.
    #[error("the kernel refuses the eBPF program {program}: {cause}; {WITHOUT}{log}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The error of BPF_PROG_LOAD or BPF_LINK_CREATE.
        cause: String,
        /// The end of the verifier's log, on lines of its own; empty if it wrote none.
        log: String,
    },
    /// Loading failed, and this is why.
    #[error(
        "this kernel ({kernel}) lacks {missing}: capturing needs Linux {least} or later, and `qbox status --probe` says what else; {WITHOUT}"
    )]
    Kernel {
        /// As uname(2) has it.
        kernel: String,
        /// What it lacks, by name.
        missing: String,
        /// The oldest kernel that would do.
        least: &'static str,
    },
    /// No bpf file system is mounted.
    #[error(
        "`when_down = \"refuse\"` keeps its programs in a bpf file system, and none is mounted: mount -t bpf bpf {custom} \
         (for a container, the node's, as a volume), or set `when_down = \"direct\"` under [capture]"
    )]
    NoBpffs {
        /// Where it is mounted by custom.
        custom: &'static str,
    },
    /// A link can't be pinned.
    #[error("can't pin programs at {path}, as `when_down = \"refuse\"` needs")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A map refuses an entry.
    #[error("the eBPF map {map} can't be changed: {cause}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's words.
        cause: String,
    },
    /// The tables are of a fixed size.
    #[error("{what} are more than the {limit} that qbox handles on a node")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: u32,
    },
    /// A prefix is longer than its address.
    #[error("a network's prefix of {prefix} bits is longer than its address")]
    Prefix {
        /// As given.
        prefix: u8,
    },
    /// Somebody listens on the port in the pod.
    #[error("port {port} is taken in the namespace of pod {pod}: set another `port` under [capture]")]
    PortTaken {
        /// The pod's name.
        pod: String,
        /// The port.
        port: u16,
    },
    /// A new namespace, or one that will never have a loopback.
    #[error("the loopback of pod {pod} is down")]
    LoopbackDown {
        /// The pod's name.
        pod: String,
    },
    /// The namespace can't be entered, or no file descriptor is left.
    #[error("can't listen in the namespace of pod {pod}")]
    Listen {
        /// The pod's name.
        pod: String,
        /// Why.
        source: io::Error,
    },
    /// Something of the process's own: a task, a file descriptor.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl InterceptError {
    /// Whether it is what a new namespace shows for a moment.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::LoopbackDown { .. })
    }

    pub(super) fn map(map: &'static str, cause: &dyn std::error::Error) -> Self {
        Self::Map {
            map,
            cause: chain(cause),
        }
    }
}
