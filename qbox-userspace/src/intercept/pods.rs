//! The pods: network namespaces in which processes of the enrolled cgroup run, each with its listeners. Knows where a pod
//! was seen, not how; and nothing of the connections but whom to hand them to.
//!
//! Qbox's own namespace is one like others: a process of the enrolled cgroup that is in it (a pod on the host's network, or
//! `qbox exec` on a node without namespaces) is captured there, by a listener on the node's own loopback. Pods that share a
//! namespace share its listeners, and go one by one; the last takes them with it.
//!
//! A listener, and a handle, keep a namespace alive whose last process is gone. So a pod that two scans in a row don't
//! see (one may miss a process that is born while another ends) is closed.

use super::accept::{BACKLOG, Task, accept};
use super::capture::Receiver;
use super::chain::Before;
use super::error::{InterceptError, chain};
use super::fill::entries;
use super::sys;
use crate::netns::NetNs;
use aya::maps::{HashMap, MapData, MapError};
use qbox_common::{MAX_ANNOUNCED, MAX_NAMESPACES, names, reach};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpListener;

/// Pods of one namespace that are named; those beyond are captured, and are not.
pub(super) const MOST_RESIDENTS: usize = 1024;
/// Scans in a row that must miss a pod before it is closed.
const MISSES: u8 = 2;
/// Scans in quick succession for a pod whose loopback is down, as that of every new namespace is, before it is tried once a
/// second only, and reported.
const QUICK_TRIES: u32 = 20;

/// Where a connection comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The path of its cgroup below the enrolled one; for a Kubernetes pod `pod-<uid>`. Of several that share the namespace, the
    /// one that was seen first.
    pub name: String,
    /// Its network namespace.
    pub netns: NetNs,
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
    /// A process in it, as this PID namespace numbers it; it may have ended since the last scan.
    pub process: u32,
    /// The addresses of its listeners, in its own namespace.
    pub listeners: Vec<SocketAddr>,
    /// Since when its namespace has been known.
    pub since: SystemTime,
    /// Why it isn't captured, if it isn't.
    pub error: Option<String>,
    /// It was captured, and is no longer: something took that away from outside.
    pub lost: bool,
    /// Others' programs that see its connections before Qbox's, as the last check has found.
    pub before: Vec<Before>,
}

/// An enrolled pod, for the check.
#[derive(Debug)]
pub(super) struct Enrolled {
    /// Its namespace's.
    pub(super) inode: u64,
    /// Where processes of it were seen last.
    pub(super) cgroups: Vec<PathBuf>,
}

/// A process in a network namespace: one of a pod that lives there.
#[derive(Clone, Debug)]
pub(super) struct Resident {
    pub(super) process: u32,
    pub(super) cgroup: PathBuf,
}

/// The pods that share a network namespace, most often one, by their names.
pub(super) type Residents = BTreeMap<String, Resident>;

/// What a scan has found, by the namespaces' inodes.
pub(super) type Sightings = BTreeMap<u64, Residents>;

/// The pods, by their namespace's inode, and the maps that say so to the programs.
pub(super) struct Pods {
    port: u16,
    namespaces: HashMap<MapData, u64, u32>,
    announced: HashMap<MapData, u64, u32>,
    receiver: Arc<Receiver>,
    pods: BTreeMap<u64, Entry>,
    /// Cookies that were announced and led to no pod.
    expected: BTreeSet<u64>,
    /// Said once that there are too many.
    full: bool,
    /// Closed for good; the watch may not know yet.
    closed: bool,
}

struct Entry {
    pod: Arc<Pod>,
    residents: Residents,
    since: SystemTime,
    state: State,
    missed: u8,
}

enum State {
    Open(Open),
    Failed { error: InterceptError, tries: u32 },
}

struct Open {
    cookie: u64,
    reached: u32,
    listeners: Vec<SocketAddr>,
    /// Why it isn't captured although it was opened.
    fault: Option<String>,
    /// Others' programs that see its connections first.
    before: Vec<Before>,
    _tasks: Vec<Task>,
}

impl Pods {
    pub(super) fn new(
        port: u16,
        namespaces: HashMap<MapData, u64, u32>,
        announced: HashMap<MapData, u64, u32>,
        receiver: Arc<Receiver>,
    ) -> Self {
        Self {
            port,
            namespaces,
            announced,
            receiver,
            pods: BTreeMap::new(),
            expected: BTreeSet::new(),
            full: false,
            closed: false,
        }
    }

    /// Whether the namespace with this cookie is captured.
    pub(super) fn knows(&self, cookie: u64) -> bool {
        self.pods
            .values()
            .any(|entry| matches!(&entry.state, State::Open(open) if open.cookie == cookie))
    }

    /// Whether somebody else listens on the port in a pod.
    pub(super) fn is_port_taken(&self) -> bool {
        let taken = |entry: &Entry| {
            let State::Failed { error, .. } = &entry.state else {
                return false;
            };
            matches!(error, InterceptError::PortTaken { .. })
        };
        self.pods.values().any(taken)
    }

    /// Whether a pod can't be opened yet, and so lately that it is worth another try soon.
    pub(super) fn want_retry(&self) -> bool {
        let soon =
            |entry: &Entry| matches!(&entry.state, State::Failed { error, tries } if is_early(error, *tries));
        self.pods.values().any(soon)
    }

    /// A namespace was announced, and could not be found: after the next scan it may be announced again.
    pub(super) fn expect(&mut self, cookie: u64) {
        if u32::try_from(self.expected.len()).is_ok_and(|count| count < MAX_ANNOUNCED) {
            self.expected.insert(cookie);
        }
    }

    /// A process of the cgroup's tree is in this namespace: a pod.
    pub(super) fn saw(&mut self, inode: u64, name: String, resident: Resident) {
        match self.pods.get_mut(&inode) {
            Some(entry) => {
                entry.missed = 0;
                if entry.residents.len() < MOST_RESIDENTS || entry.residents.contains_key(&name) {
                    entry.residents.insert(name, resident);
                }
                self.try_again(inode);
            }
            None => self.add(Residents::from([(name, resident)])),
        }
    }

    /// A scan has found these, and no others, in this namespace.
    fn found(&mut self, inode: u64, residents: Residents) {
        match self.pods.get_mut(&inode) {
            Some(entry) => {
                entry.missed = 0;
                for name in residents
                    .keys()
                    .filter(|name| !entry.residents.contains_key(*name))
                {
                    tracing::info!(
                        pod = name,
                        netns = inode,
                        "a pod shares a namespace that is captured"
                    );
                }
                for name in entry
                    .residents
                    .keys()
                    .filter(|name| !residents.contains_key(*name))
                {
                    tracing::info!(
                        pod = name,
                        netns = inode,
                        "a pod is gone from a namespace that others share"
                    );
                }
                entry.residents = residents;
                self.try_again(inode);
            }
            None => self.add(residents),
        }
    }

    /// What a scan has found is all there is.
    pub(super) fn settle(&mut self, sightings: Sightings) {
        let mut gone = Vec::new();
        for (inode, entry) in &mut self.pods {
            if !sightings.contains_key(inode) {
                entry.missed += 1;
                if entry.missed >= MISSES {
                    gone.push(*inode);
                }
            }
        }
        for inode in gone {
            self.remove(inode);
        }
        for (inode, residents) in sightings {
            self.found(inode, residents);
        }
        for cookie in std::mem::take(&mut self.expected) {
            self.may_be_announced(cookie);
        }
    }

    fn add(&mut self, residents: Residents) {
        if self.closed {
            return;
        }
        // Each may have ended since it was seen.
        let mut namespaces = residents.iter().filter_map(|(name, resident)| {
            let netns = NetNs::open(format!("/proc/{}/ns/net", resident.process)).ok()?;
            Some((name.clone(), netns))
        });
        let Some((name, netns)) = namespaces.next() else {
            return;
        };
        // Or have gone elsewhere.
        let inode = netns.inode();
        if self.pods.contains_key(&inode) {
            return;
        }
        if u32::try_from(self.pods.len()).is_ok_and(|count| count >= MAX_NAMESPACES) {
            if !self.full {
                tracing::error!(
                    limit = MAX_NAMESPACES,
                    pod = name,
                    "too many pods: some aren't captured"
                );
            }
            self.full = true;
            return;
        }
        let pod = Arc::new(Pod { name, netns });
        let state = self.attempt(&pod, 1);
        self.pods.insert(
            inode,
            Entry {
                pod,
                residents,
                since: SystemTime::now(),
                state,
                missed: 0,
            },
        );
    }

    fn try_again(&mut self, inode: u64) {
        let Some(Entry {
            pod,
            state: State::Failed { tries, .. },
            ..
        }) = self.pods.get(&inode)
        else {
            return;
        };
        let (pod, tries) = (Arc::clone(pod), tries.saturating_add(1));
        let state = self.attempt(&pod, tries);
        if let Some(entry) = self.pods.get_mut(&inode) {
            entry.state = state;
        }
    }

    /// Opens a pod, for the first time or again.
    fn attempt(&mut self, pod: &Arc<Pod>, tries: u32) -> State {
        match self.open(pod) {
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
            cookie,
            reached,
            listeners,
            fault: None,
            before: Vec::new(),
            _tasks: tasks,
        })
    }

    fn remove(&mut self, inode: u64) {
        let Some(entry) = self.pods.remove(&inode) else {
            return;
        };
        self.full = false;
        let State::Open(open) = entry.state else { return };
        // First nothing is turned any more; then nobody listens.
        if let Err(error) = self.namespaces.remove(&open.cookie)
            && !matches!(error, MapError::KeyNotFound)
        {
            tracing::warn!(
                pod = entry.pod.name,
                error = chain(&error),
                "can't stop capturing a pod"
            );
        }
        let cookie = open.cookie;
        drop(open);
        self.receiver.origins.forget(cookie);
        self.may_be_announced(cookie);
        tracing::info!(pod = entry.pod.name, netns = inode, "a pod is gone");
    }

    /// The pods whose connections should be captured.
    pub(super) fn enrolled(&self) -> Vec<Enrolled> {
        let open = |entry: &&Entry| matches!(entry.state, State::Open(_));
        let pods = self.pods.iter().filter(|(_, entry)| open(entry));
        pods.map(|(inode, entry)| Enrolled {
            inode: *inode,
            cgroups: (entry.residents.values())
                .map(|resident| resident.cgroup.clone())
                .collect(),
        })
        .collect()
    }

    /// Says what a check of the programs has found of a pod; that its namespace is in the programs' map is looked up here.
    pub(super) fn checked(&mut self, inode: u64, fault: Option<String>, before: Vec<Before>) {
        let Some(entry) = self.pods.get_mut(&inode) else {
            return;
        };
        let State::Open(open) = &mut entry.state else {
            return;
        };
        let fault = fault.or_else(|| match self.namespaces.get(&open.cookie, 0) {
            Ok(found) if found == open.reached => None,
            Ok(_) if self.closed => None,
            Ok(_) | Err(_) => Some("its namespace is no longer in qbox's map".to_owned()),
        });
        let pod = &entry.pod.name;
        match (&open.fault, &fault) {
            (None, Some(fault)) => tracing::error!(pod, fault, "a pod is no longer captured"),
            (Some(_), None) => tracing::info!(pod, "a pod is captured again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        for new in before.iter().filter(|one| !open.before.contains(one)) {
            let Before { hook, program, id } = new;
            tracing::warn!(
                pod,
                hook,
                program,
                id,
                "another program sees the pod's connections before Qbox's"
            );
        }
        open.fault = fault;
        open.before = before;
    }

    fn may_be_announced(&mut self, cookie: u64) {
        // The map may have forgotten it by itself.
        let _ = self.announced.remove(&cookie);
    }

    /// Has the programs refuse what they would turn, for good, and enrols nobody any more.
    pub(super) fn refuse(&mut self) {
        self.closed = true;
        for entry in self.pods.values() {
            let State::Open(open) = &entry.state else { continue };
            if let Err(error) = self
                .namespaces
                .insert(open.cookie, open.reached | reach::REFUSED, 0)
            {
                tracing::warn!(
                    pod = entry.pod.name,
                    error = chain(&error),
                    "a pod's connections can't be refused"
                );
            }
        }
    }

    /// Closes all, for good.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.pods.clear();
    }

    /// How many namespaces the programs' map holds: read there, since it is theirs.
    pub(super) fn map_entries(&self) -> u64 {
        entries(self.namespaces.keys(), MAX_NAMESPACES)
    }

    /// How many announced namespaces the programs' map holds.
    pub(super) fn announced_entries(&self) -> u64 {
        entries(self.announced.keys(), MAX_ANNOUNCED)
    }

    pub(super) fn status(&self) -> Vec<PodStatus> {
        let mut all: Vec<PodStatus> = self.pods.values().flat_map(Entry::status).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name).then(a.netns.cmp(&b.netns)));
        all
    }
}

impl Entry {
    /// Of each pod that lives there.
    fn status(&self) -> Vec<PodStatus> {
        let open = match &self.state {
            State::Open(open) => Some(open),
            State::Failed { .. } => None,
        };
        let error = match &self.state {
            State::Open(open) => open.fault.clone(),
            State::Failed { error, .. } => Some(chain(error)),
        };
        let status = |(name, resident): (&String, &Resident)| PodStatus {
            name: name.clone(),
            netns: self.pod.netns.inode(),
            cgroup: resident.cgroup.clone(),
            process: resident.process,
            listeners: open.map(|open| open.listeners.clone()).unwrap_or_default(),
            since: self.since,
            lost: open.is_some() && error.is_some(),
            error: error.clone(),
            before: open.map(|open| open.before.clone()).unwrap_or_default(),
        };
        self.residents.iter().map(status).collect()
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
