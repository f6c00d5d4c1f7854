//! The node, its pods, the services, the hop and Qbox.

use super::files::{self, TRIPS};
use super::load::{Kind, Load};
use super::services::Services;
use super::shape::Shape;
use crate::node::Node;
use crate::pod::Pod;
use crate::poll::{DEADLINE, wait_for};
use crate::process::processor_time;
use crate::qbox::{Qbox, Settings};
use crate::world::PORT;
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where the hop listens on the node: a port that no saga names.
const HOP: u16 = 8090;
/// The node's address, as pods see it.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// Nothing here is up for longer.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What stands where a coordinator would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum System {
    /// The bound.
    Hop,
    /// Qbox, every saga in its journal on disk.
    Synced,
    /// Qbox, sagas with `durability = "none"`.
    Unsynced,
}

impl System {
    pub(super) const ALL: [Self; 3] = [Self::Hop, Self::Synced, Self::Unsynced];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hop => "the bound",
            Self::Synced => "Qbox, synced",
            Self::Unsynced => "Qbox, unsynced",
        }
    }

    /// The first segment of its paths; of Qbox the journal's durability.
    pub(super) fn way(self) -> &'static str {
        match self {
            Self::Hop => "hop",
            Self::Synced => "disk",
            Self::Unsynced => "none",
        }
    }

    /// Its trigger of a shape.
    pub(super) fn target(self, shape: Shape) -> Target {
        Target {
            hop: self == Self::Hop,
            path: format!("/{}/{}/7", self.way(), shape.key()),
        }
    }
}

/// Where a load goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) hop: bool,
    pub(super) path: String,
}

/// What has been counted of a system so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    /// Its processor time, in microseconds.
    pub(super) cpu: f64,
    /// The services', all of them together.
    pub(super) services: f64,
    /// Its syncs of the disk.
    pub(super) syncs: f64,
}

/// What a stage has.
#[derive(Debug, Default)]
pub(super) struct Setup {
    /// The shapes that can be asked for, with both ways of keeping the journal.
    pub(super) shapes: Vec<Shape>,
    /// Services below that no shape needs.
    pub(super) more_below: usize,
    /// More sagas.
    pub(super) sagas: Vec<String>,
    /// More lines of `[upstream]`.
    pub(super) upstream: &'static str,
    /// More tables of qbox.toml.
    pub(super) extra: String,
}

/// All of it, running. What is named first goes first.
pub(super) struct Stage {
    pub(super) qbox: Qbox,
    hop: Process,
    middle: Vec<Process>,
    client: Pod,
    trips: Pod,
    pub(super) services: Services,
    _pods: Vec<Pod>,
    _node: Node,
}

/// Killed when it is dropped.
struct Process(Child);

impl Process {
    fn start(mut command: Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self(child.context("can't start a process of the bench")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn own() -> Result<PathBuf> {
    std::env::current_exe().context("this program has no path")
}

impl Stage {
    /// Starts all of it, and waits until it is there.
    pub(super) fn set(setup: &Setup) -> Result<Self> {
        let node = Node::new()?;
        let trips = node.pod("trips")?;
        let needs = setup.shapes.iter().map(|shape| shape.needs());
        let (below, between) = needs.fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
        let below = (0..below + setup.more_below).map(|number| node.pod(&files::below(number)));
        let below = below.collect::<Result<Vec<_>>>()?;
        let between = (0..between).map(|number| node.pod(&files::middle(number)));
        let between = between.collect::<Result<Vec<_>>>()?;
        let mut listeners = vec![trips.listen(PORT)?];
        for pod in &below {
            listeners.push(pod.listen(PORT)?);
        }
        let services = Services::start(listeners)?;
        let client = node.pod("client")?;
        let place = |pod: &Pod| SocketAddr::from((pod.ipv4(), PORT)).to_string();
        let mut command = node.command(own()?);
        command.arg("hop").arg(SocketAddr::from((NODE, HOP)).to_string());
        command.args(below.iter().map(|pod| format!("--below={}", place(pod))));
        command.args(between.iter().map(|pod| format!("--middle={}", place(pod))));
        let hop = Process::start(command)?;
        let systems = [System::Synced, System::Unsynced];
        let sagas = systems.into_iter().flat_map(|system| {
            setup
                .shapes
                .iter()
                .flat_map(move |shape| files::of(*shape, system.way()))
        });
        let settings = Settings {
            upstream: setup.upstream,
            extra: setup.extra.clone(),
            ..Settings::sagas(sagas.chain(setup.sagas.iter().cloned()))
        };
        let qbox = Qbox::start(&node, &settings)?;
        for pod in between.iter().chain([&client]) {
            qbox.wait_for_pod(pod.name())?;
        }
        let mut middle = Vec::new();
        for (number, pod) in between.iter().enumerate() {
            let mut command = pod.command_for(LIMIT, own()?);
            command.arg("middle").arg(number.to_string());
            command.arg(format!("{}.default.svc:{PORT}", pod.name()));
            command
                .arg(place(pod))
                .arg(SocketAddr::from((NODE, HOP)).to_string());
            middle.push(Process::start(command)?);
        }
        let servers = between.iter().map(|pod| SocketAddr::from((pod.ipv4(), PORT)));
        for server in servers.chain([(NODE, HOP).into()]) {
            wait_for(&format!("{server} to listen"), DEADLINE, || {
                let connected = node.namespace().run(|| Ok(TcpStream::connect(server).is_ok()))?;
                Ok(connected.then_some(()))
            })?;
        }
        Ok(Self {
            qbox,
            hop,
            middle,
            client,
            trips,
            services,
            _pods: below.into_iter().chain(between).collect(),
            _node: node,
        })
    }

    /// Loads the target from the client's pod.
    pub(super) fn load(&self, target: &Target, kind: Kind, span: Duration) -> Result<Load> {
        let (kind, number) = match kind {
            Kind::Open { per_second } => ("open", per_second),
            Kind::Closed { clients } => ("closed", clients),
        };
        let mut command = self.client("load", target)?;
        command.args([kind, &number.to_string(), &span.as_millis().to_string()]);
        let output = command.output().context("can't start the client")?;
        ensure!(output.status.success(), "the client ended with {}", output.status);
        Load::from_line(&String::from_utf8(output.stdout)?)
    }

    /// This program in the client's pod, with the target as its first words.
    pub(super) fn client(&self, what: &str, target: &Target) -> Result<Command> {
        let address = match target.hop {
            true => SocketAddr::from((NODE, HOP)),
            false => SocketAddr::from((self.trips.ipv4(), PORT)),
        };
        let mut command = self.client.command_for(LIMIT, own()?);
        command.args([
            what,
            &address.to_string(),
            &format!("{TRIPS}:{PORT}"),
            &target.path,
        ]);
        command.stderr(Stdio::inherit());
        Ok(command)
    }

    pub(super) fn counts(&self, system: System) -> Result<Counts> {
        let (process, syncs) = match system {
            // `command` runs the hop through nsenter(1), which becomes it.
            System::Hop => (self.hop.0.id(), 0.0),
            System::Synced | System::Unsynced => (self.qbox.id(), self.syncs()?),
        };
        let mut services = vec![std::process::id()];
        for middle in &self.middle {
            services.extend(crate::process::tree(middle.0.id())?);
        }
        Ok(Counts {
            cpu: processor_time(&[process])?,
            services: processor_time(&services)?,
            syncs,
        })
    }

    /// Listens where `trips` is.
    pub(super) fn listen(&self, port: u16) -> Result<TcpListener> {
        self.trips.listen(port)
    }

    /// The metrics.
    pub(super) fn scrape(&self) -> Result<String> {
        Ok(self.qbox.admin().get("/metrics")?.body)
    }

    /// How many spans were sent, and how many lost.
    pub(super) fn spans(&self) -> Result<(f64, f64)> {
        let of = |fate: &str| self.metric(&format!("qbox_spans_total{{fate=\"{fate}\"}} "));
        Ok((of("sent")?, of("dropped")? + of("failed")?))
    }

    fn syncs(&self) -> Result<f64> {
        self.metric("qbox_journal_syncs_total ")
    }

    /// One metric, by its name and a space.
    pub(super) fn metric(&self, name: &str) -> Result<f64> {
        let metrics = self.scrape()?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
    }
}
