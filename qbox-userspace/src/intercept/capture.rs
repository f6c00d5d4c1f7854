//! The whole of capture: started, watched, stopped. Knows which parts there are, and little of what they do.

use super::accept::Task;
use super::cgroup::{Cgroups, Tree};
use super::chain::{self, Other};
use super::destination::{Destination, Destinations, Passed};
use super::entry::{Pod, PodStatus};
use super::error::InterceptError;
use super::fill::{Fill, Filled};
use super::load::{self, Constants, Links, Loaded};
use super::origin::{Found, Origins};
use super::pods::Pods;
use super::policy::Policy;
use super::probe::{LEAST_KERNEL, Probe, probe};
use super::rules::Rules;
use super::{check, look, pins, raised, watch};
use crate::config::{Unknown, WhenDown};
use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use qbox_common::{Counter, PodPort, names};
use rustix::fd::AsFd;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What capture must be told.
#[derive(Clone)]
pub struct Settings {
    /// The cgroup v2 folders above the pods' own, each made if it is missing, or patterns of folders: `*` and `?` in a
    /// component. A relative path is one below the mount.
    pub cgroups: Vec<PathBuf>,
    /// Which of the pods below them are in, and what they are called.
    pub policy: Arc<dyn Policy>,
    /// The port of the listeners, on the pods' loopback addresses.
    pub port: u16,
    /// The `SO_MARK` of Qbox's own sockets, which are never captured.
    pub mark: u32,
    /// Told when pods are captured no more: what has come from them has a [`Pod`] that says so. It must not block.
    pub left: Arc<dyn Fn() + Send + Sync>,
    /// What becomes of connections that match while Qbox is down.
    pub when_down: WhenDown,
    /// What becomes of those of a namespace that is not enrolled yet.
    pub unknown: Unknown,
    /// What is not captured, whatever destinations are set.
    pub passed: Vec<Passed>,
}

/// A connection that was captured.
#[derive(Debug)]
pub struct Accepted {
    /// The connection to the program in the pod.
    pub stream: TcpStream,
    /// That program's address.
    pub peer: SocketAddr,
    /// Where it wanted to go; a mapped IPv4 address is unmapped.
    pub destination: SocketAddr,
    /// Where it comes from.
    pub pod: Arc<Pod>,
}

/// Takes the connections. It must not block: it runs on the acceptor's task.
pub type Sink = Arc<dyn Fn(Accepted) + Send + Sync>;

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that the programs turned to a listener.
    pub captured: u64,
    /// Connections that were accepted, and handed on with their destination.
    pub accepted: u64,
    /// Connections to a listener's own address: reset.
    pub direct: u64,
    /// Connections whose client had gone, and its port been used again, before they were accepted: closed.
    pub stale: u64,
    /// Connections that matched, of a namespace that had no listener yet: they went their own way, or were refused.
    pub unenrolled: u64,
    /// Connections that matched and were refused, as the configuration asks.
    pub refused: u64,
    /// Connections that matched and went their own way because their pod is left alone, or their port by its rule.
    pub left: u64,
    /// Connections that matched and went their own way because the kernel had no memory to keep their destination.
    pub no_memory: u64,
    /// Namespaces that the programs announced.
    pub announced: u64,
    /// Announcements that were lost because the ring buffer was full; a scan finds those namespaces.
    pub unannounced: u64,
    /// What the programs turn, as entries of their map.
    pub destinations: u64,
    /// Namespaces that the programs know of, as entries of their map.
    pub namespaces: u64,
    /// The other maps, as they were at the last check.
    pub filled: Filled,
    /// Pods that the programs know a rule of, as entries of their map.
    pub rules: u64,
}

/// Capture, until this is dropped: then nothing is attached any more.
pub struct Capture {
    // In this order: first nothing is turned any more, then nobody listens.
    links: Mutex<Links>,
    handed_over: AtomicBool,
    _watch: Task,
    _check: Task,
    _speaker: Option<Task>,
    shared: Arc<Shared>,
    destinations: Mutex<Destinations>,
}

/// What the watch and the API share.
pub(super) struct Shared {
    pub(super) cgroups: Arc<Cgroups>,
    /// What holds for pods may have.
    pub(super) changed: Notify,
    pods: Mutex<Pods>,
    receiver: Arc<Receiver>,
    pub(super) fill: Fill,
    counters: PerCpuArray<MapData, u64>,
}

impl Shared {
    pub(super) fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn origins(&self) -> &Origins {
        &self.receiver.origins
    }

    /// What the programs have counted: the sum over the CPUs.
    pub(super) fn count(&self, counter: Counter) -> u64 {
        let values = self.counters.get(&(counter as u32), 0);
        values.map_or(0, |values| {
            values.iter().fold(0, |sum, value| sum.wrapping_add(*value))
        })
    }
}

impl Capture {
    /// Loads the programs, attaches them to the cgroups, and looks for pods, inside a tokio runtime with I/O and time.
    ///
    /// Nothing is captured before [`Capture::set_destinations`]. The pods that are there are enrolled when this returns;
    /// others follow as they come.
    ///
    /// # Errors
    /// What is missing, in one sentence.
    pub fn start(settings: &Settings, sink: Sink) -> Result<Self, InterceptError> {
        load::check()?;
        raised::files();
        raised::memory();
        let cgroups = Cgroups::open_or_make(&settings.cgroups, Arc::clone(&settings.policy))?;
        let constants = Constants {
            mark: settings.mark,
            own_cgroup: cgroups.own_id().unwrap_or(0),
            port: settings.port,
            refuse_unknown: settings.unknown == Unknown::Refuse,
            by_pod: cgroups.is_selective(),
        };
        let pinned = settings.when_down == WhenDown::Refuse;
        let parts = match load::load(constants, cgroups.trees(), pinned)
            .and_then(|loaded| Parts::take(loaded, settings.passed.clone()))
        {
            Ok(parts) => parts,
            Err(error) => {
                cgroups.remove();
                return Err(named(error));
            }
        };
        let ring = parts.events.as_fd().try_clone_to_owned();
        let ring = ring.map_err(|source| InterceptError::Io {
            what: "no file descriptor is left",
            source,
        })?;
        let receiver = Arc::new(Receiver {
            origins: parts.origins,
            sink,
            tally: Tally::default(),
        });
        let cgroups = Arc::new(cgroups);
        let rules = constants.by_pod.then_some(parts.rules);
        let pods = Pods::new(
            settings.port,
            (parts.namespaces, parts.announced),
            (Arc::clone(&receiver), Arc::clone(&settings.left)),
            Arc::clone(&cgroups),
            rules,
        );
        let shared = Arc::new(Shared {
            cgroups,
            changed: Notify::new(),
            pods: Mutex::new(pods),
            receiver,
            fill: Fill::new(ring),
            counters: parts.counters,
        });
        for other in &chain::others(shared.cgroups.trees(), parts.links.programs()) {
            name(other);
        }
        look::scan(&shared);
        let own = parts.links.programs().clone();
        Ok(Self {
            links: Mutex::new(parts.links),
            handed_over: AtomicBool::new(false),
            _check: Task::spawn(check::check(Arc::clone(&shared), own)),
            _watch: Task::spawn(watch::watch(Arc::clone(&shared), parts.events)),
            _speaker: parts.speaker,
            shared,
            destinations: Mutex::new(parts.destinations),
        })
    }

    /// Captures what goes to these destinations, from now on, and nothing else. Connections that are open stay as they are.
    ///
    /// # Errors
    /// There are too many, a prefix is too long, or the kernel has no memory: then some of them may be in force.
    pub fn set_destinations(&self, destinations: &[Destination]) -> Result<(), InterceptError> {
        let mut held = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        held.set(destinations)
    }

    /// Takes the place of what an earlier run has left attached, now that this one is in force: until then that refused
    /// what it had been told to.
    pub fn replace_earlier(&self) {
        for cgroup in self.shared.cgroups.trees().iter().flat_map(Tree::id) {
            for folder in pins::replace(cgroup, self.links().pins()) {
                tracing::info!(folder = %folder.display(), "replaced the programs that an earlier run had left");
            }
        }
    }

    /// Captures no more connections. Those that were captured go on, and those that wait to be accepted still are: the
    /// first step of stopping, before this is dropped. From now on what would have been captured goes its own way, or is
    /// refused until the next start, as the configuration says.
    pub fn detach(&self) {
        let mut links = self.links();
        if links.are_pinned() {
            self.shared.pods().refuse();
        } else {
            links.stop_turning();
        }
    }

    /// Captures no more connections, so that another Qbox's programs, which are behind these, do. Nothing that is attached
    /// stays, and the cgroup is the other one's.
    pub fn hand_over(&self) {
        self.handed_over.store(true, Relaxed);
        self.links().stop_turning();
    }

    /// Whether in some pod another listens on the listeners' port.
    #[must_use]
    pub fn is_port_taken(&self) -> bool {
        self.shared.pods().is_port_taken()
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The programs of others that run on the same hooks, for the same cgroup.
    #[must_use]
    pub fn others(&self) -> Vec<Other> {
        chain::others(self.shared.cgroups.trees(), self.links().programs())
    }

    /// A folder below which whatever is made is enrolled, as far as the policy has no say in it.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        self.shared.cgroups.first()
    }

    /// The folders and patterns of what is enrolled.
    #[must_use]
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.shared.cgroups.configured()
    }

    /// What the policy says may have changed: it is asked again, of every pod.
    pub fn reconsider(&self) {
        self.shared.changed.notify_one();
    }

    /// The pods, by name.
    #[must_use]
    pub fn pods(&self) -> Vec<PodStatus> {
        self.shared.pods().status()
    }

    /// What has happened since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let Tally {
            accepted,
            direct,
            stale,
        } = &self.shared.receiver.tally;
        let (namespaces, rules) = self.shared.pods().map_entries();
        Counters {
            captured: self.shared.count(Counter::Captured),
            accepted: accepted.load(Relaxed),
            direct: direct.load(Relaxed),
            stale: stale.load(Relaxed),
            unenrolled: self.shared.count(Counter::Unenrolled),
            refused: self.shared.count(Counter::Refused),
            no_memory: self.shared.count(Counter::NoMemory),
            announced: self.shared.count(Counter::Announced),
            unannounced: self.shared.count(Counter::Unannounced),
            destinations: {
                let held = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
                held.count()
            },
            left: self.shared.count(Counter::Left),
            namespaces,
            rules,
            filled: self.shared.fill.get(),
        }
    }
}

/// Another's program may change destinations before ours see them, or be why a connection is refused.
fn name(other: &Other) {
    let Other {
        hook,
        program,
        id,
        cgroup,
        first,
    } = other;
    let order = if *first { "before" } else { "after" };
    tracing::warn!(hook, program, id, cgroup = %cgroup.display(), "another program runs on this hook, {order} Qbox's");
}

/// Names what the kernel lacks, if that is why it refused.
fn named(error: InterceptError) -> InterceptError {
    if !matches!(
        error,
        InterceptError::Load { .. } | InterceptError::Program { .. }
    ) {
        return error;
    }
    let Probe { kernel, features } = probe();
    let missing: Vec<&str> = features
        .iter()
        .filter(|one| one.missing.is_some())
        .map(|one| one.name)
        .collect();
    if missing.is_empty() {
        return error;
    }
    tracing::error!(%error, "the kernel's own words");
    InterceptError::Kernel {
        kernel,
        missing: missing.join(", "),
        least: LEAST_KERNEL,
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let pinned = {
            let mut links = self.links();
            let pinned = links.are_pinned();
            if pinned {
                self.shared.pods().refuse();
            }
            *links = Links::default();
            pinned
        };
        self.shared.pods().close();
        // With it the programs would go that are to stay, or another's.
        if !pinned && !self.handed_over.load(Relaxed) {
            self.shared.cgroups.remove();
        }
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Capture").finish_non_exhaustive()
    }
}

/// What was loaded, each map as its type.
struct Parts {
    links: Links,
    speaker: Option<Task>,
    destinations: Destinations,
    origins: Origins,
    namespaces: HashMap<MapData, u64, u32>,
    announced: HashMap<MapData, u64, u32>,
    rules: Rules,
    events: RingBuf<MapData>,
    counters: PerCpuArray<MapData, u64>,
}

impl Parts {
    fn take(loaded: Loaded, passed: Vec<Passed>) -> Result<Self, InterceptError> {
        let Loaded {
            links,
            mut maps,
            speaker,
        } = loaded;
        Ok(Self {
            links,
            speaker,
            destinations: Destinations::new(
                maps.take(names::DESTINATIONS)?,
                maps.take(names::PORTS)?,
                passed,
            ),
            origins: maps.take(names::FLOWS)?,
            namespaces: maps.take(names::NAMESPACES)?,
            announced: maps.take(names::ANNOUNCED)?,
            rules: Rules::new(
                maps.take(names::PODS)?,
                maps.take::<HashMap<MapData, PodPort, u32>>(names::POD_PORTS)?,
            ),
            events: maps.take(names::EVENTS)?,
            counters: maps.take(names::COUNTERS)?,
        })
    }
}

/// Where every listener's connections go.
pub(super) struct Receiver {
    pub(super) origins: Origins,
    sink: Sink,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    accepted: AtomicU64,
    direct: AtomicU64,
    stale: AtomicU64,
}

impl Receiver {
    /// A connection was accepted in the pod's namespace, which has this cookie.
    pub(super) fn receive(&self, pod: &Arc<Pod>, cookie: u64, stream: TcpStream, peer: SocketAddr) {
        match self.origins.take(cookie, peer, &stream) {
            Ok(Found::Destination(destination)) => {
                self.tally.accepted.fetch_add(1, Relaxed);
                (self.sink)(Accepted {
                    stream,
                    peer,
                    destination,
                    pod: Arc::clone(pod),
                });
            }
            Ok(Found::Direct) => {
                self.tally.direct.fetch_add(1, Relaxed);
                tracing::debug!(pod = pod.name, %peer, "a connection to the listener's own address; resetting it");
                reset(&stream);
            }
            Ok(Found::Stale) => {
                self.tally.stale.fetch_add(1, Relaxed);
                tracing::debug!(pod = pod.name, %peer, "the client of a connection is gone");
            }
            Err(error) => {
                tracing::error!(pod = pod.name, %peer, %error, "can't look up where a connection was going; resetting it");
                reset(&stream);
            }
        }
    }
}

/// Has the client see a reset, and not an end that could be taken for an answer, when the stream is dropped.
fn reset(stream: &TcpStream) {
    // It fails for a socket that has no connection any more, which needs no reset.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
