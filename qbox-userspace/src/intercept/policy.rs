//! What is in and what is out: asked of whoever knows, for each cgroup. Knows neither how that is decided nor how it is
//! brought into force.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Tells pods apart.
pub trait Policy: Send + Sync {
    /// Whether some pods may be out: then the programs ask, for each connection that matches, which pod it is from.
    fn is_selective(&self) -> bool;

    /// What holds for the cgroup with this path below the cgroup2 mount (`kubepods/burstable/pod1/x`). `None`: it is no pod
    /// that the policy knows of, and the configured cgroups alone decide.
    fn of(&self, cgroup: &Path) -> Option<Verdict>;
}

/// What holds for a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How many components of its path lead to the pod: the cgroup for which, with all below it, this holds.
    pub depth: usize,
    /// The pod's name, for people.
    pub name: String,
    /// In or out.
    pub rule: Rule,
    /// Why, in a few words.
    pub why: String,
    /// Its processes may be in the node's own network namespace. If not, one that is there watches over the pod from
    /// outside, as some runtimes' do, and is not of it.
    pub on_node: bool,
}

/// In or out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Captured.
    In(Ports),
    /// Left alone.
    Out,
    /// Left alone, since what it asks for can't be understood.
    Wrong,
    /// Nobody has said yet.
    Unknown,
}

/// To which of the ports that triggers name a pod's connections are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// All.
    All,
    /// These, and no other.
    Only(BTreeSet<u16>),
    /// All but these.
    Except(BTreeSet<u16>),
}

/// A verdict on a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// The folder for which, with all below it, this holds.
    pub(super) pod: PathBuf,
    /// The folder of what is shown as a pod: that of the policy's, or else the cgroup's own.
    pub(super) shown: PathBuf,
    pub(super) name: String,
    pub(super) rule: Rule,
    pub(super) why: String,
    pub(super) on_node: bool,
}
