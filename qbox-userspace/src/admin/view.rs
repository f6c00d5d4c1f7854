//! What the API shows: plain shapes, written by the server and read back by `qbox`'s own commands.

use crate::runner::{Calls, Health, Load, State, States};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How requests come to this Qbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Capture {
    /// The kernel turns the pods' sockets.
    Ebpf {
        /// A cgroup below which whatever is made is captured, as far as it is no pod of which the Kubernetes API says otherwise.
        cgroup: String,
        /// All cgroups below which pods are captured, and patterns of them, as configured.
        cgroups: Vec<String>,
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

/// Another's program that sees a pod's connections before Qbox's: where it sends them elsewhere, they are not captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The hook: `connect4`.
    pub hook: String,
    /// The program's name.
    pub program: String,
    /// Its id, as `bpftool prog show id` takes it.
    pub id: u32,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `namespace/name` where the Kubernetes API tells it; else `pod-UID`, or its cgroup's name.
    pub name: String,
    /// The cgroup's directory.
    pub cgroup: String,
    /// A process in it, if one is known.
    pub pid: Option<u32>,
    /// The inode of its network namespace.
    pub netns: u64,
    /// Why it is enrolled, or not.
    pub why: String,
    /// It is not enrolled: that it isn't captured is as it should be.
    #[serde(skip)]
    pub left: bool,
    /// Why it isn't captured, if it isn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Others' programs that see its connections before Qbox's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Before>,
    /// It was captured and is no longer: Qbox is not ready then.
    #[serde(skip)]
    pub lost: bool,
}

/// How the Kubernetes API is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kubernetes {
    /// The node's name.
    pub node: String,
    /// The selector that pods have to fit.
    pub enroll: String,
    /// Whether all has been listed once.
    pub listed: bool,
    /// For how many seconds it has not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<u64>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Pods of the node, as it tells.
    pub pods: usize,
    /// How many of them are enrolled.
    pub enrolled: usize,
    /// Lists that were read.
    pub lists: u64,
    /// Watches that began.
    pub watches: u64,
    /// Events that they told.
    pub events: u64,
    /// How often all had to be listed again (410).
    pub expired: u64,
    /// Lists and watches that failed.
    pub failures: u64,
    /// What is not ready because of it.
    #[serde(skip)]
    pub amiss: Option<String>,
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
    /// How many are not enrolled.
    pub left: usize,
    /// The Kubernetes API, where it says which pods are enrolled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
    /// How many sagas are defined.
    pub definitions: usize,
    /// Whether these are what the files say now; if not, `/api/v1/definitions` says why.
    pub definitions_current: bool,
    /// What has changed in qbox.toml that only a restart brings into force.
    pub needs_restart: &'a [&'static str],
    /// The runner.
    pub sagas: Health,
    /// How the sagas stand that have not ended.
    pub standing: StandingView,
    /// The journal.
    pub journal: JournalView,
    /// How full the eBPF programs' maps are; empty where nothing is captured.
    pub maps: Vec<MapView>,
    /// How many seconds ago the capture last looked whether each pod is captured.
    pub checked: Option<u64>,
    /// The calls to services.
    pub calls: Calls,
    /// Why it is not ready; empty: it is.
    pub amiss: Vec<String>,
    /// What does not keep it from being ready, and may be amiss all the same.
    pub doubts: Vec<String>,
}

/// How the sagas stand that have not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StandingView {
    /// How many stand in each state.
    pub states: BTreeMap<&'static str, usize>,
    /// How many of them an operator has paused.
    pub paused: usize,
    /// How many of them only wait for answers that may come late.
    pub listening: usize,
    /// For how many seconds one has been stuck, at the most; 0: none is.
    pub oldest_stuck: u64,
    /// How many seconds ago the trigger of one came that is not stuck, at the most; 0: there is none.
    pub oldest_running: u64,
}

impl StandingView {
    /// From the runner's.
    #[must_use]
    pub fn new(states: &States) -> Self {
        let open = |state: &State| !matches!(state, State::Committed | State::Compensated);
        let counts = states.counts.iter().filter(|(state, _)| open(state));
        Self {
            states: counts.map(|(state, count)| (state.as_str(), *count)).collect(),
            paused: states.paused,
            listening: states.listening,
            oldest_stuck: states.oldest_stuck.as_secs(),
            oldest_running: states.oldest_running.as_secs(),
        }
    }
}

/// What the journal has done, and has still to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalView {
    /// Bytes on disk.
    pub size: u64,
    /// About how many bytes in memory wait to be written.
    pub queued: usize,
    /// Events that were appended since the start.
    pub events: u64,
    /// Transactions that were written since then, each with one sync of the disk.
    pub syncs: u64,
    /// How many microseconds one took, in the mean.
    pub commit_us: u64,
}

impl JournalView {
    /// From the journal's.
    #[must_use]
    pub fn new(load: &Load) -> Self {
        let mean = u32::try_from(load.commits.count())
            .ok()
            .and_then(|count| load.commits.sum.checked_div(count))
            .unwrap_or_default();
        Self {
            size: load.size,
            queued: load.queued_bytes,
            events: load.events,
            syncs: load.syncs,
            commit_us: u64::try_from(mean.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// One of the eBPF programs' maps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapView {
    /// Its name, as the metrics have it.
    pub map: &'static str,
    /// How many entries it has (of `events`, bytes).
    pub entries: u64,
    /// How many it can have.
    pub capacity: u64,
}
