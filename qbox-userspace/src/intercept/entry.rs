//! What is known of one network namespace and of the pods in it: plain data, and what follows from it. Changes nothing.

use super::accept::Task;
use super::cgroup::processes;
use super::chain::Before;
use super::error::InterceptError;
use super::policy::{Judged, Rule};
use crate::causes::chain;
use crate::netns::NetNs;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What the policy calls it, or the path of its cgroup below the enrolled one.
    pub name: String,
    /// Its network namespace.
    pub netns: NetNs,
    /// It is captured no more.
    pub left: Arc<AtomicBool>,
}

/// A pod, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStatus {
    /// Its name.
    pub name: String,
    /// The inode of its network namespace, as `readlink /proc/PID/ns/net` shows it.
    pub netns: u64,
    /// The folder of the cgroup in which it was seen last.
    pub cgroup: PathBuf,
    /// A process in it, as this PID namespace numbers it; it may have ended a moment ago.
    pub process: u32,
    /// The addresses of its listeners, in its own namespace.
    pub listeners: Vec<SocketAddr>,
    /// Since when it has been known.
    pub since: SystemTime,
    /// Whether it is to be captured.
    pub standing: Standing,
    /// Why it is to be, or not.
    pub why: String,
    /// Why it isn't captured although it is to be, or what is wrong with what it asks for.
    pub error: Option<String>,
    /// It was captured, and is no longer: something took that away from outside.
    pub lost: bool,
    /// Others' programs that see its connections before Qbox's, as the last check has found.
    pub before: Vec<Before>,
}

/// Whether a pod is to be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    In,
    /// It is left alone.
    Out,
    /// Nobody has said yet.
    Unknown,
}

/// An enrolled pod, for the check.
#[derive(Debug)]
pub(super) struct Enrolled {
    /// Its namespace's.
    pub(super) inode: u64,
    /// The folder of what is shown.
    pub(super) shown: PathBuf,
    /// Where a process of it was seen last.
    pub(super) cgroup: PathBuf,
}

/// A process in a network namespace.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) process: u32,
    pub(super) cgroup: PathBuf,
}

/// One process of each pod in each namespace, by the namespace's inode and the folder of what is shown.
pub(super) type Sightings = BTreeMap<(u64, PathBuf), Sighting>;

/// A namespace.
pub(super) struct Entry {
    /// The pods in it, by the folders of what is shown.
    pub(super) members: BTreeMap<PathBuf, Member>,
    pub(super) state: State,
}

/// A pod in a namespace.
pub(super) struct Member {
    pub(super) judged: Judged,
    pub(super) cgroup: PathBuf,
    pub(super) process: u32,
    pub(super) since: SystemTime,
    pub(super) missed: u8,
    /// Its rule can't be brought into force.
    pub(super) refused: Option<String>,
    /// Why it isn't captured although all was done for it.
    pub(super) fault: Option<String>,
    /// Others' programs that see its connections first.
    pub(super) before: Vec<Before>,
}

pub(super) enum State {
    /// The programs don't know it.
    Unknown,
    /// All in it are left alone; the programs know that by this cookie.
    Left { cookie: u64 },
    /// Captured, as far as its pods' rules go.
    Open(Open),
    /// As before it was opened, but for the listeners.
    Closing { open: Open, until: Instant },
    /// To be opened.
    Failed { error: InterceptError, tries: u32 },
}

pub(super) struct Open {
    pub(super) pod: Arc<Pod>,
    pub(super) cookie: u64,
    pub(super) reached: u32,
    pub(super) listeners: Vec<SocketAddr>,
    pub(super) _tasks: Vec<Task>,
}

/// What is to become of a namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Captured,
    Left,
    Unknown,
}

impl Entry {
    pub(super) fn wanted(&self) -> Wanted {
        let rules = || self.members.values().map(|member| &member.judged.rule);
        if rules().any(|rule| matches!(rule, Rule::In(_))) {
            Wanted::Captured
        } else if rules().any(|rule| *rule == Rule::Unknown) {
            Wanted::Unknown
        } else {
            Wanted::Left
        }
    }

    /// The name of what is captured in it, for the log.
    pub(super) fn name(&self) -> String {
        let is_in = |member: &&Member| matches!(member.judged.rule, Rule::In(_));
        let all = || self.members.values();
        let member = all().find(is_in).or_else(|| all().next());
        member
            .map(|member| member.judged.name.clone())
            .unwrap_or_default()
    }

    /// A handle of it, through a process that is still in it.
    pub(super) fn enter(&self, inode: u64) -> Option<NetNs> {
        let open = |process: u32| NetNs::open(format!("/proc/{process}/ns/net")).ok();
        let seen = self.members.values().map(|member| member.process);
        // A process may have ended since it was seen, or have gone elsewhere: then another one of the pod.
        let others = self.members.values().flat_map(|member| processes(&member.cgroup));
        seen.chain(others)
            .filter_map(open)
            .find(|netns| netns.inode() == inode)
    }
}

impl Member {
    pub(super) fn status(&self, netns: u64, state: &State) -> PodStatus {
        let (standing, error) = match &self.judged.rule {
            Rule::In(_) => {
                let error = self.refused.clone().or_else(|| match state {
                    State::Open(_) => self.fault.clone(),
                    State::Failed { error, .. } => Some(chain(error)),
                    State::Unknown | State::Left { .. } | State::Closing { .. } => {
                        Some("its namespace could not be entered yet".to_owned())
                    }
                });
                (Standing::In, error)
            }
            Rule::Wrong => (Standing::Out, Some(self.judged.why.clone())),
            Rule::Out => (Standing::Out, None),
            Rule::Unknown => (Standing::Unknown, None),
        };
        let open = match state {
            State::Open(open) if standing == Standing::In => Some(open),
            _ => None,
        };
        PodStatus {
            name: self.judged.name.clone(),
            netns,
            cgroup: self.cgroup.clone(),
            process: self.process,
            listeners: open.map(|open| open.listeners.clone()).unwrap_or_default(),
            since: self.since,
            standing,
            why: self.judged.why.clone(),
            lost: open.is_some() && self.fault.is_some(),
            before: open.map(|_| self.before.clone()).unwrap_or_default(),
            error,
        }
    }
}
