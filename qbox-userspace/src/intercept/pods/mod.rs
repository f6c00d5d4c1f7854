//! The pods: network namespaces in which processes of the enrolled cgroups run, each with its listeners. Knows where a pod
//! was seen, not how; and nothing of the connections but whom to hand them to.
//!
//! Most often a namespace is one pod's. Several may share one, as those on the node's network do: then it has listeners if
//! one of them is in, and the programs tell the others' connections apart by their cgroups ([`Rules`]).
//!
//! Qbox's own namespace is one like others: a process of the enrolled cgroup that is in it (a pod on the host's network, or
//! `qbox exec` on a node without namespaces) is captured there, by a listener on the node's own loopback.
//!
//! A listener, and a handle, keep a namespace alive whose last process is gone. So a pod that two scans in a row don't
//! see (one may miss a process that is born while another ends) is closed.

use super::capture::Receiver;
use super::cgroup::Cgroups;
use super::entry::{Entry, Member, Sighting, Sightings, State};
use super::error::InterceptError;
use super::look::node_namespace;
use super::policy::Judged;
use super::rules::Rules;
use crate::causes::chain;
use aya::maps::{HashMap, MapData};
use qbox_common::{MAX_ANNOUNCED, MAX_NAMESPACES, reach};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

mod bring;
mod told;

/// Pods of one namespace that are shown; those beyond are captured, and are not.
const MOST_MEMBERS: usize = 1024;
/// Scans in a row that must miss a pod before it is closed.
const MISSES: u8 = 2;
/// Tries in quick succession to open a pod whose loopback is down, as that of every new namespace is, before it is tried once a
/// second only, and reported.
const QUICK_TRIES: u32 = 100;
/// How long a pod that is left alone from now on still has its listeners: what was turned before has to be accepted.
const CLOSING: Duration = Duration::from_secs(1);

/// The pods, by their namespace's inode, and the maps that say so to the programs.
pub(super) struct Pods {
    port: u16,
    namespaces: HashMap<MapData, u64, u32>,
    announced: HashMap<MapData, u64, u32>,
    receiver: Arc<Receiver>,
    /// Told when pods are captured no more.
    left: Arc<dyn Fn() + Send + Sync>,
    /// It is to be told.
    leaving: bool,
    cgroups: Arc<Cgroups>,
    /// Where pods are told apart.
    rules: Option<Rules>,
    /// The node's own namespace.
    node: Option<u64>,
    entries: BTreeMap<u64, Entry>,
    /// What was announced and led to no pod.
    expected: BTreeSet<u64>,
    /// Said once that there are too many.
    full: bool,
    /// Some of the last scan had no room.
    crowded_out: bool,
    /// Closed for good; the watch may not know yet.
    closed: bool,
}

impl Pods {
    pub(super) fn new(
        port: u16,
        (namespaces, announced): (HashMap<MapData, u64, u32>, HashMap<MapData, u64, u32>),
        (receiver, left): (Arc<Receiver>, Arc<dyn Fn() + Send + Sync>),
        cgroups: Arc<Cgroups>,
        rules: Option<Rules>,
    ) -> Self {
        Self {
            port,
            namespaces,
            announced,
            receiver,
            left,
            leaving: false,
            cgroups,
            rules,
            node: node_namespace(),
            entries: BTreeMap::new(),
            expected: BTreeSet::new(),
            full: false,
            crowded_out: false,
            closed: false,
        }
    }

    /// The node's own namespace.
    pub(super) fn node(&self) -> Option<u64> {
        self.node
    }

    /// Whether the programs know what to do with the namespace with this cookie.
    pub(super) fn knows(&self, cookie: u64) -> bool {
        self.entries.values().any(|entry| match &entry.state {
            State::Open(open) | State::Closing { open, .. } => open.cookie == cookie,
            State::Left { cookie: left } => *left == cookie,
            State::Unknown | State::Failed { .. } => false,
        })
    }

    /// Whether the programs know what holds for the pod with this folder.
    pub(super) fn knows_rule(&self, pod: &Path) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.holds(pod))
    }

    /// Whether somebody else listens on the port in a pod.
    pub(super) fn is_port_taken(&self) -> bool {
        let taken = |entry: &Entry| {
            let State::Failed { error, .. } = &entry.state else {
                return false;
            };
            matches!(error, InterceptError::PortTaken { .. })
        };
        self.entries.values().any(taken)
    }

    /// Whether a pod can't be opened yet, and so lately that it is worth another try soon.
    pub(super) fn want_retry(&self) -> bool {
        self.entries.values().any(|entry| is_early(&entry.state))
    }

    /// Whether a namespace can't be opened yet, but may be in a moment.
    pub(super) fn is_early(&self, inode: u64) -> bool {
        let entry = self.entries.get(&inode);
        entry.is_some_and(|entry| is_early(&entry.state))
    }

    /// Some are captured by nobody for want of room; there may be some by now.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded_out
    }

    /// Something was announced, and could not be found: after the next scan it may be announced again.
    pub(super) fn expect(&mut self, key: u64) {
        if u32::try_from(self.expected.len()).is_ok_and(|count| count < MAX_ANNOUNCED) {
            self.expected.insert(key);
        }
    }

    /// A process of the cgroups' trees is in this namespace.
    pub(super) fn saw(&mut self, inode: u64, sighting: Sighting) {
        // Judged here, and not when it was seen: what holds may have changed in between.
        let judged = self.cgroups.judge(&sighting.cgroup);
        if self.closed || (self.node == Some(inode) && !judged.on_node) {
            return;
        }
        if !self.entries.contains_key(&inode) && !self.has_room(&judged.name) {
            return;
        }
        let Sighting { process, cgroup } = sighting;
        let refused = self.rule(&judged);
        let entry = self.entries.entry(inode).or_insert_with(|| Entry {
            members: BTreeMap::new(),
            state: State::Unknown,
        });
        let full = entry.members.len() >= MOST_MEMBERS;
        match entry.members.get_mut(&judged.shown) {
            Some(member) => {
                member.missed = 0;
                member.process = process;
                member.cgroup = cgroup;
                member.judged = judged;
                member.refused = refused;
            }
            // The others are captured, and not shown.
            None if full => {}
            None => {
                let member = Member {
                    cgroup,
                    process,
                    since: SystemTime::now(),
                    missed: 0,
                    refused,
                    fault: None,
                    before: Vec::new(),
                    judged,
                };
                entry.members.insert(member.judged.shown.clone(), member);
            }
        }
        self.align(inode);
    }

    fn has_room(&mut self, name: &str) -> bool {
        let room = u32::try_from(self.entries.len()).is_ok_and(|count| count < MAX_NAMESPACES);
        if !room && !self.full {
            tracing::error!(
                limit = MAX_NAMESPACES,
                pod = name,
                "too many pods: some aren't captured"
            );
        }
        self.full = !room;
        self.crowded_out |= !room;
        room
    }

    /// Tells the programs what holds for a pod; why they can't be told.
    fn rule(&mut self, judged: &Judged) -> Option<String> {
        let rules = self.rules.as_mut()?;
        let error = rules.set(&judged.pod, &judged.rule).err()?;
        Some(chain(&error))
    }

    /// What holds for pods may have changed.
    pub(super) fn reconsider(&mut self) {
        if self.closed {
            return;
        }
        let mut changed = Vec::new();
        for (inode, entry) in &self.entries {
            for (shown, member) in &entry.members {
                let judged = self.cgroups.judge(&member.cgroup);
                if judged != member.judged && judged.shown == *shown {
                    changed.push((*inode, judged));
                }
            }
        }
        for (inode, judged) in changed {
            let refused = self.rule(&judged);
            let Some(entry) = self.entries.get_mut(&inode) else {
                continue;
            };
            if self.node == Some(inode) && !judged.on_node {
                // It was seen there before anybody had said that it watches over the pod from outside.
                entry.members.remove(&judged.shown);
            } else if let Some(member) = entry.members.get_mut(&judged.shown) {
                member.judged = judged;
                member.refused = refused;
            }
            self.align_or_remove(inode);
        }
        self.tell_who_leaves();
    }

    /// The connections of what is captured no more end by themselves, once they are told.
    fn tell_who_leaves(&mut self) {
        if std::mem::take(&mut self.leaving) {
            (self.left)();
        }
    }

    /// The processes by which the pods are known, each with its namespace.
    pub(super) fn known(&self) -> Vec<(u64, u32)> {
        let members = |(inode, entry): (&u64, &Entry)| {
            let inode = *inode;
            let processes = entry.members.values().map(move |member| (inode, member.process));
            processes.collect::<Vec<_>>()
        };
        self.entries.iter().flat_map(members).collect()
    }

    /// The pods that are known by these, each with its namespace.
    pub(super) fn known_by(&self, processes: &BTreeSet<(u64, u32)>) -> BTreeSet<(u64, PathBuf)> {
        let members = self.entries.iter().flat_map(|(inode, entry)| {
            let members = entry.members.iter();
            let wanted = members.filter(|(_, member)| processes.contains(&(*inode, member.process)));
            wanted.map(|(shown, _)| (*inode, shown.clone()))
        });
        members.collect()
    }

    /// What a scan has found is all there is.
    pub(super) fn settle(&mut self, sightings: Sightings) {
        self.crowded_out = false;
        let mut changed = Vec::new();
        for (inode, entry) in &mut self.entries {
            let before = entry.members.len();
            entry.members.retain(|shown, member| {
                if !sightings.contains_key(&(*inode, shown.clone())) {
                    member.missed += 1;
                }
                member.missed < MISSES
            });
            if entry.members.len() < before {
                changed.push(*inode);
            }
        }
        for inode in changed {
            self.align_or_remove(inode);
        }
        for ((inode, _), sighting) in sightings {
            self.saw(inode, sighting);
        }
        // What was announced and isn't there may be announced again.
        for key in std::mem::take(&mut self.expected) {
            self.may_be_announced(key);
        }
    }

    /// Does what is due once a while.
    pub(super) fn tend(&mut self) {
        self.try_again(|state| matches!(state, State::Failed { .. } | State::Unknown));
        self.finish_closing();
        self.tell_who_leaves();
        if let Some(rules) = &mut self.rules {
            let members = self.entries.values().flat_map(|entry| entry.members.values());
            rules.keep(&members.map(|member| member.judged.pod.clone()).collect());
        }
    }

    /// Opens what could not be opened yet, but may be in a moment.
    pub(super) fn retry(&mut self) {
        self.try_again(is_early);
    }

    fn may_be_announced(&mut self, key: u64) {
        // The map may have forgotten it by itself.
        let _ = self.announced.remove(&key);
    }

    /// Has the programs refuse what they would turn, for good, and enrols nobody any more.
    pub(super) fn refuse(&mut self) {
        self.closed = true;
        for entry in self.entries.values() {
            let State::Open(open) = &entry.state else { continue };
            if let Err(error) = self
                .namespaces
                .insert(open.cookie, open.reached | reach::REFUSED, 0)
            {
                tracing::warn!(
                    pod = open.pod.name,
                    error = chain(&error),
                    "a pod's connections can't be refused"
                );
            }
        }
    }

    /// Closes all, for good.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.entries.clear();
    }
}

/// Whether it is what a new namespace shows at first.
fn is_early(state: &State) -> bool {
    match state {
        State::Failed { error, tries } => error.is_passing() && *tries < QUICK_TRIES,
        State::Unknown | State::Left { .. } | State::Open(_) | State::Closing { .. } => false,
    }
}
