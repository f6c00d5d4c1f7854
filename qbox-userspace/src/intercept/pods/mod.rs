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

use super::accept::{BACKLOG, Task, accept};
use super::capture::Receiver;
use super::cgroup::Cgroups;
use super::chain::Before;
use super::entry::{Enrolled, Entry, Member, Open, Pod, PodStatus, Sighting, Sightings, State, Wanted};
use super::error::InterceptError;
use super::fill::entries;
use super::policy::{Judged, Rule};
use super::rules::Rules;
use super::sys;
use super::watch::namespace_of;
use crate::causes::chain;
use aya::maps::{HashMap, MapData, MapError};
use qbox_common::{MAX_ANNOUNCED, MAX_NAMESPACES, names, reach};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;

/// Pods of one namespace that are shown; those beyond are captured, and are not.
const MOST_MEMBERS: usize = 1024;
/// Scans in a row that must miss a pod before it is closed.
const MISSES: u8 = 2;
/// Scans in quick succession for a pod whose loopback is down, as that of every new namespace is, before it is tried once a
/// second only, and reported.
const QUICK_TRIES: u32 = 20;
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
    /// The node's own namespace: that of its first process.
    node: Option<u64>,
    entries: BTreeMap<u64, Entry>,
    /// What was announced and led to no pod.
    expected: BTreeSet<u64>,
    /// Said once that there are too many.
    full: bool,
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
            node: namespace_of(1),
            entries: BTreeMap::new(),
            expected: BTreeSet::new(),
            full: false,
            closed: false,
        }
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
        let soon =
            |entry: &Entry| matches!(&entry.state, State::Failed { error, tries } if is_early(error, *tries));
        self.entries.values().any(soon)
    }

    /// Whether a namespace can't be opened yet, but may be in a moment.
    pub(super) fn is_early(&self, inode: u64) -> bool {
        let entry = self.entries.get(&inode);
        entry.is_some_and(
            |entry| matches!(&entry.state, State::Failed { error, tries } if is_early(error, *tries)),
        )
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
            let entry = self.entries.get_mut(&inode);
            if let Some(member) = entry.and_then(|entry| entry.members.get_mut(&judged.shown)) {
                member.judged = judged;
                member.refused = refused;
            }
            self.align(inode);
        }
        self.tell_who_leaves();
    }

    /// The connections of what is captured no more end by themselves, once they are told.
    fn tell_who_leaves(&mut self) {
        if std::mem::take(&mut self.leaving) {
            (self.left)();
        }
    }

    /// What a scan has found is all there is.
    pub(super) fn settle(&mut self, sightings: Sightings) {
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
            match self.entries.get(&inode) {
                Some(entry) if entry.members.is_empty() => self.remove(inode),
                _ => self.align(inode),
            }
        }
        for ((inode, _), sighting) in sightings {
            self.saw(inode, sighting);
        }
        self.finish_closing();
        self.tell_who_leaves();
        if let Some(rules) = &mut self.rules {
            let members = self.entries.values().flat_map(|entry| entry.members.values());
            rules.keep(&members.map(|member| member.judged.pod.clone()).collect());
        }
        for key in std::mem::take(&mut self.expected) {
            self.may_be_announced(key);
        }
    }

    /// Brings a namespace in line with what holds for its pods.
    fn align(&mut self, inode: u64) {
        let Some(entry) = self.entries.get_mut(&inode) else {
            return;
        };
        let wanted = entry.wanted();
        let state = std::mem::replace(&mut entry.state, State::Unknown);
        let state = match (wanted, state) {
            (Wanted::Captured, State::Open(open)) => State::Open(open),
            (Wanted::Captured, State::Closing { open, .. }) => self.turn(open),
            (Wanted::Captured, State::Failed { tries, .. }) => self.attempt(inode, tries.saturating_add(1)),
            (Wanted::Captured, State::Unknown | State::Left { .. }) => self.attempt(inode, 1),
            (_, State::Open(open)) => {
                self.mark(open.cookie, wanted);
                open.pod.left.store(true, Relaxed);
                self.leaving = true;
                tracing::info!(
                    pod = open.pod.name,
                    netns = inode,
                    "no longer captured: a pod is left alone"
                );
                State::Closing {
                    open,
                    until: Instant::now() + CLOSING,
                }
            }
            (_, State::Closing { open, until }) => {
                self.mark(open.cookie, wanted);
                State::Closing { open, until }
            }
            (Wanted::Left, State::Left { cookie }) => State::Left { cookie },
            (Wanted::Left, State::Unknown | State::Failed { .. }) => self.leave(inode),
            (Wanted::Unknown, State::Left { cookie }) => {
                self.mark(cookie, wanted);
                State::Unknown
            }
            (Wanted::Unknown, State::Unknown | State::Failed { .. }) => State::Unknown,
        };
        if let Some(entry) = self.entries.get_mut(&inode) {
            entry.state = state;
        }
    }

    /// Lets go of the listeners of what has been left alone for a while.
    fn finish_closing(&mut self) {
        let now = Instant::now();
        for entry in self.entries.values_mut() {
            let cookie = match &entry.state {
                State::Closing { open, until } if *until <= now => open.cookie,
                _ => continue,
            };
            entry.state = match entry.wanted() {
                Wanted::Left => State::Left { cookie },
                Wanted::Captured | Wanted::Unknown => State::Unknown,
            };
            self.receiver.origins.forget(cookie);
        }
    }

    /// Tells the programs that a namespace is left alone, or, where that is unknown, nothing of it.
    fn mark(&mut self, cookie: u64, wanted: Wanted) {
        let done = match wanted {
            Wanted::Left => self.namespaces.insert(cookie, 0, 0),
            Wanted::Captured | Wanted::Unknown => match self.namespaces.remove(&cookie) {
                Err(MapError::KeyNotFound) => Ok(()),
                done => done,
            },
        };
        if let Err(error) = done {
            tracing::warn!(error = chain(&error), "can't stop capturing a pod");
        }
        self.may_be_announced(cookie);
    }

    /// Tells the programs that a namespace is left alone.
    fn leave(&mut self, inode: u64) -> State {
        let netns = self.entries.get(&inode).and_then(|entry| entry.enter(inode));
        // It is tried again when a process is seen in it again.
        let Some(netns) = netns else { return State::Unknown };
        let cookie = netns
            .tcp_socket(Domain::IPV4)
            .and_then(|socket| sys::netns_cookie(&socket));
        match cookie {
            Ok(cookie) => {
                self.mark(cookie, Wanted::Left);
                State::Left { cookie }
            }
            Err(error) => {
                tracing::debug!(netns = inode, %error, "a namespace can't be asked for its cookie");
                State::Unknown
            }
        }
    }

    /// Has the programs turn the connections of a namespace that has listeners.
    fn turn(&mut self, open: Open) -> State {
        match self.namespaces.insert(open.cookie, open.reached, 0) {
            Ok(()) => {
                open.pod.left.store(false, Relaxed);
                tracing::info!(
                    pod = open.pod.name,
                    netns = open.pod.netns.inode(),
                    "capturing a pod again"
                );
                State::Open(open)
            }
            Err(error) => State::Failed {
                error: InterceptError::map(names::NAMESPACES, &error),
                tries: 1,
            },
        }
    }

    /// Opens a namespace, for the first time or again.
    fn attempt(&mut self, inode: u64, tries: u32) -> State {
        let entry = self.entries.get(&inode);
        let pod = entry.and_then(|entry| {
            let netns = entry.enter(inode)?;
            Some(Arc::new(Pod {
                name: entry.name(),
                netns,
                left: Arc::default(),
            }))
        });
        // All of its processes may have ended, as the next scan will tell.
        let Some(pod) = pod else { return State::Unknown };
        match self.open(&pod) {
            Ok(open) => State::Open(open),
            Err(error) => {
                // Once, and not while it may be a new namespace.
                let first = if is_early(&error, 1) { QUICK_TRIES } else { 1 };
                if tries == first {
                    tracing::warn!(pod = pod.name, error = chain(&error), "the pod isn't captured");
                }
                State::Failed { error, tries }
            }
        }
    }

    /// Listens in the pod's namespace, and then has the programs turn its connections.
    fn open(&mut self, pod: &Arc<Pod>) -> Result<Open, InterceptError> {
        let v4 =
            listen(pod, (Ipv4Addr::LOCALHOST, self.port).into()).map_err(|source| match source.kind() {
                io::ErrorKind::NetworkUnreachable => InterceptError::LoopbackDown {
                    pod: pod.name.clone(),
                },
                io::ErrorKind::AddrInUse => InterceptError::PortTaken {
                    pod: pod.name.clone(),
                    port: self.port,
                },
                _ => InterceptError::Listen {
                    pod: pod.name.clone(),
                    source,
                },
            })?;
        let cookie = sys::netns_cookie(&v4).map_err(|source| InterceptError::Io {
            what: "the kernel doesn't name a network namespace",
            source,
        })?;
        let mut sockets = vec![v4];
        let mut reached = reach::V4;
        match listen(pod, (Ipv6Addr::LOCALHOST, self.port).into()) {
            Ok(v6) => {
                sockets.push(v6);
                reached |= reach::V6;
            }
            // Turned off, most often; then there is nothing to capture.
            Err(error) => tracing::debug!(pod = pod.name, %error, "can't listen on ::1"),
        }
        let mut tasks = Vec::new();
        let mut listeners = Vec::new();
        for socket in sockets {
            let failed = |source| InterceptError::Listen {
                pod: pod.name.clone(),
                source,
            };
            let listener = TcpListener::from_std(socket.into()).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            let (receiver, pod) = (Arc::clone(&self.receiver), Arc::clone(pod));
            let name = format!("{} {address}", pod.name);
            listeners.push(address);
            tasks.push(Task::spawn(accept(listener, name, move |stream, peer| {
                receiver.receive(&pod, cookie, stream, peer);
            })));
        }
        let inserted = self.namespaces.insert(cookie, reached, 0);
        inserted.map_err(|error| InterceptError::map(names::NAMESPACES, &error))?;
        self.expected.remove(&cookie);
        let (netns, ipv6) = (pod.netns.inode(), reached & reach::V6 != 0);
        tracing::info!(pod = pod.name, netns, ipv6, "capturing a pod");
        Ok(Open {
            pod: Arc::clone(pod),
            cookie,
            reached,
            listeners,
            _tasks: tasks,
        })
    }

    fn remove(&mut self, inode: u64) {
        let Some(entry) = self.entries.remove(&inode) else {
            return;
        };
        self.full = false;
        match entry.state {
            State::Open(open) | State::Closing { open, .. } => {
                // First nothing is turned any more; then nobody listens.
                self.mark(open.cookie, Wanted::Unknown);
                let (cookie, pod) = (open.cookie, Arc::clone(&open.pod));
                drop(open);
                self.receiver.origins.forget(cookie);
                tracing::info!(pod = pod.name, netns = inode, "a pod is gone");
            }
            State::Left { cookie } => self.mark(cookie, Wanted::Unknown),
            State::Unknown | State::Failed { .. } => {}
        }
    }

    /// The pods whose connections should be captured.
    pub(super) fn enrolled(&self) -> Vec<Enrolled> {
        let open = |(_, entry): &(&u64, &Entry)| matches!(entry.state, State::Open(_));
        let entries = self.entries.iter().filter(open);
        let pods = entries.flat_map(|(inode, entry)| entry.members.iter().map(move |pod| (inode, pod)));
        pods.filter(|(_, (_, member))| matches!(member.judged.rule, Rule::In(_)))
            .map(|(inode, (shown, member))| Enrolled {
                inode: *inode,
                shown: shown.clone(),
                cgroup: member.cgroup.clone(),
            })
            .collect()
    }

    /// Says what a check of the programs has found of a pod; that it and its namespace are in the programs' maps is looked up
    /// here.
    pub(super) fn checked(&mut self, enrolled: &Enrolled, fault: Option<String>, before: Vec<Before>) {
        let Some(entry) = self.entries.get_mut(&enrolled.inode) else {
            return;
        };
        let State::Open(open) = &entry.state else {
            return;
        };
        let Some(member) = entry.members.get_mut(&enrolled.shown) else {
            return;
        };
        let rules = self.rules.as_ref();
        let fault = fault
            .or_else(|| match self.namespaces.get(&open.cookie, 0) {
                Ok(found) if found == open.reached => None,
                Ok(_) if self.closed => None,
                Ok(_) | Err(_) => Some("its namespace is no longer in qbox's map".to_owned()),
            })
            .or_else(|| {
                let told =
                    rules.is_none_or(|rules| rules.holds(&member.judged.pod)) || member.refused.is_some();
                (!told).then(|| "its rule is no longer in qbox's map".to_owned())
            });
        let pod = &member.judged.name;
        match (&member.fault, &fault) {
            (None, Some(fault)) => tracing::error!(pod, fault, "a pod is no longer captured"),
            (Some(_), None) => tracing::info!(pod, "a pod is captured again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        for new in before.iter().filter(|one| !member.before.contains(one)) {
            let Before { hook, program, id } = new;
            tracing::warn!(
                pod,
                hook,
                program,
                id,
                "another program sees the pod's connections before Qbox's"
            );
        }
        member.fault = fault;
        member.before = before;
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

    /// How many namespaces, and pods with a rule, the programs' maps hold: read there, since they are theirs.
    pub(super) fn map_entries(&self) -> (u64, u64) {
        let namespaces = entries(self.namespaces.keys(), MAX_NAMESPACES);
        (namespaces, self.rules.as_ref().map_or(0, Rules::map_entries))
    }

    /// How many namespaces and cgroups that were announced the programs' map holds.
    pub(super) fn announced_entries(&self) -> u64 {
        entries(self.announced.keys(), MAX_ANNOUNCED)
    }

    pub(super) fn status(&self) -> Vec<PodStatus> {
        let members = self.entries.iter().flat_map(|(inode, entry)| {
            let members = entry.members.values();
            members.map(move |member| member.status(*inode, &entry.state))
        });
        let mut all: Vec<PodStatus> = members.collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then(a.netns.cmp(&b.netns)));
        all
    }
}

/// Whether a failure is what a new namespace shows at first.
fn is_early(error: &InterceptError, tries: u32) -> bool {
    matches!(error, InterceptError::LoopbackDown { .. }) && tries < QUICK_TRIES
}

/// A listener in the pod's namespace. Connections that an earlier Qbox left on the port don't hinder it.
fn listen(pod: &Pod, address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = pod.netns.tcp_socket(domain)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    sys::save_syn(&socket)?;
    socket.bind(&address.into())?;
    // The kernel lets a socket be bound while the loopback is down. What is turned to it then would fail; connecting a
    // datagram socket finds out, and sends nothing.
    let probe = pod.netns.enter(|| Socket::new(domain, Type::DGRAM, None))?;
    probe.connect(&address.into())?;
    socket.listen(BACKLOG)?;
    sys::no_fast_open(&socket)?;
    Ok(socket)
}
