//! What the API shows: plain shapes, written by the server and read back by `qbox`'s own commands.

use crate::runner::{Calls, Health};
use serde::{Deserialize, Serialize};

/// How requests come to this Qbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Capture {
    /// The kernel turns the pods' sockets.
    Ebpf {
        /// The cgroup whose children are the pods.
        cgroup: String,
        /// The listeners' port.
        port: u16,
        /// What else runs on the hooks that Qbox uses.
        others: Vec<Other>,
    },
    /// Clients send to a plain port.
    Explicit {
        /// Its address.
        listen: String,
    },
}

/// Another's program on a hook that Qbox uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// The hook: `connect4`.
    pub hook: String,
    /// The program's name.
    pub program: String,
    /// Its id, as `bpftool prog show id` takes it.
    pub id: u32,
    /// The cgroup that it is attached to.
    pub cgroup: String,
    /// It runs before Qbox's.
    pub first: bool,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its cgroup's name.
    pub name: String,
    /// The cgroup's directory.
    pub cgroup: String,
    /// A process in it, if one is known.
    pub pid: Option<u32>,
    /// The inode of its network namespace.
    pub netns: u64,
    /// Why it isn't captured, if it isn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// It was captured and is no longer: Qbox is not ready then.
    #[serde(skip)]
    pub lost: bool,
}

/// `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status<'a> {
    /// This Qbox's version.
    pub version: &'a str,
    /// Its process.
    pub pid: u32,
    /// The API's TCP address.
    pub admin: String,
    /// How requests come here.
    pub capture: Capture,
    /// How many pods are captured.
    pub pods: usize,
    /// How many can't be; `/api/v1/pods` says why.
    pub uncaptured: usize,
    /// How many sagas are defined.
    pub definitions: usize,
    /// Whether these are what the files say now; if not, `/api/v1/definitions` says why.
    pub definitions_current: bool,
    /// What has changed in qbox.toml that only a restart brings into force.
    pub needs_restart: &'a [&'static str],
    /// The runner.
    pub sagas: Health,
    /// The calls to services.
    pub calls: Calls,
    /// Why it is not ready; empty: it is.
    pub amiss: Vec<String>,
}
