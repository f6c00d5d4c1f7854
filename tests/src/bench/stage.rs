//! The node, its pods, the services, the hop and Qbox.

use super::TOPOLOGIES;
use super::load::{Kind, Load};
use super::services::Services;
use crate::node::Node;
use crate::pod::Pod;
use crate::poll::{DEADLINE, wait_for};
use crate::qbox::{Qbox, Settings};
use crate::world::PORT;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

/// The trigger's service, as the sagas name it. Nothing of a saga reaches it.
const TRIPS: &str = "trips.default.svc";
/// Where the hop listens on the node: a port that no saga names.
const HOP: u16 = 8090;
/// The node's address, as pods see it.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);

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

    fn durability(self) -> &'static str {
        match self {
            Self::Unsynced => "none",
            Self::Hop | Self::Synced => "disk",
        }
    }

    /// The path of a trigger that calls so many services.
    pub(super) fn target(self, services: usize) -> Target {
        match self {
            Self::Hop => Target {
                hop: true,
                path: format!("/{services}/7"),
            },
            _ => Target {
                hop: false,
                path: format!("/{}/{services}/7", self.durability()),
            },
        }
    }
}

/// Where a load goes.
#[derive(Debug)]
pub(super) struct Target {
    hop: bool,
    path: String,
}

/// What has been counted of a system so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    /// Its processor time, in microseconds.
    pub(super) cpu: f64,
    /// Its syncs of the disk.
    pub(super) syncs: f64,
}

/// All of it, running. What is named first goes first.
pub(super) struct Stage {
    qbox: Qbox,
    hop: Process,
    client: Pod,
    trips: Pod,
    _services: Services,
    _pods: Vec<Pod>,
    _node: Node,
}

/// Killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Stage {
    /// With more tables of qbox.toml.
    pub(super) fn set(extra: &str) -> Result<Self> {
        let node = Node::new()?;
        let most = TOPOLOGIES.into_iter().max().unwrap_or_default();
        let trips = node.pod("trips")?;
        let mut listeners = vec![trips.listen(PORT)?];
        let mut pods = Vec::new();
        for number in 0..most {
            let pod = node.pod(&name(number))?;
            listeners.push(pod.listen(PORT)?);
            pods.push(pod);
        }
        let services = Services::start(listeners)?;
        let client = node.pod("client")?;
        let mut command = node.command(std::env::current_exe().context("this program has no path")?);
        command.arg("hop").arg(SocketAddr::from((NODE, HOP)).to_string());
        command.args(
            pods.iter()
                .map(|pod| SocketAddr::from((pod.ipv4(), PORT)).to_string()),
        );
        let hop = Process(
            command
                .stdin(Stdio::null())
                .spawn()
                .context("can't start the hop")?,
        );
        let systems = [System::Synced, System::Unsynced];
        let sagas = systems
            .into_iter()
            .flat_map(|system| TOPOLOGIES.map(|services| saga(system, services)));
        let settings = Settings {
            extra: extra.to_owned(),
            ..Settings::sagas(sagas)
        };
        let qbox = Qbox::start(&node, &settings)?;
        qbox.wait_for_pod(client.name())?;
        wait_for("the hop to listen", DEADLINE, || {
            let connected = node
                .namespace()
                .run(|| Ok(TcpStream::connect((NODE, HOP)).is_ok()))?;
            Ok(connected.then_some(()))
        })?;
        Ok(Self {
            qbox,
            hop,
            client,
            trips,
            _services: services,
            _pods: pods,
            _node: node,
        })
    }

    /// Loads the target from the client's pod.
    pub(super) fn load(&self, target: &Target, kind: Kind, span: Duration) -> Result<Load> {
        let address = match target.hop {
            true => SocketAddr::from((NODE, HOP)),
            false => SocketAddr::from((self.trips.ipv4(), PORT)),
        };
        let (kind, number) = match kind {
            Kind::Open { per_second } => ("open", per_second),
            Kind::Closed { clients } => ("closed", clients),
        };
        let output = self
            .client
            .command(std::env::current_exe().context("this program has no path")?)
            .args([
                "load",
                &address.to_string(),
                &format!("{TRIPS}:{PORT}"),
                &target.path,
                kind,
            ])
            .args([number.to_string(), span.as_millis().to_string()])
            .stderr(Stdio::inherit())
            .output()
            .context("can't start the client")?;
        ensure!(output.status.success(), "the client ended with {}", output.status);
        Load::from_line(&String::from_utf8(output.stdout)?)
    }

    pub(super) fn counts(&self, system: System) -> Result<Counts> {
        let (process, syncs) = match system {
            // `command` runs the hop through nsenter(1), which becomes it.
            System::Hop => (self.hop.0.id(), 0.0),
            System::Synced | System::Unsynced => (self.qbox.id(), self.syncs()?),
        };
        Ok(Counts {
            cpu: processor_time(process)?,
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

    fn metric(&self, name: &str) -> Result<f64> {
        let metrics = self.scrape()?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
    }
}

fn name(number: usize) -> String {
    format!("service-{number}")
}

fn saga(system: System, services: usize) -> String {
    let durability = system.durability();
    let mut text = format!(
        "name = \"{durability}-{services}\"\ndurability = \"{durability}\"\n\
         [trigger]\nmethod = \"POST\"\nurl = \"http://{TRIPS}:{PORT}/{durability}/{services}/{{trip}}\"\n"
    );
    for number in 0..services {
        let name = name(number);
        let url = format!("http://{name}.default.svc:{PORT}/bookings/${{trigger.path.trip}}");
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "[[step]]\nname = \"{name}\"\n\
             request = {{ method = \"PUT\", url = \"{url}\", json = {{ trip = \"${{trigger.path.trip}}\" }} }}\n\
             [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"{url}\" }}\n"
        );
    }
    text
}

/// A process's time on processors so far, in microseconds (schedstat, in nanoseconds, of each of its threads).
fn processor_time(process: u32) -> Result<f64> {
    let mut sum = 0.0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().context("an empty schedstat")?;
        sum += first.parse::<f64>()? / 1000.0;
    }
    Ok(sum)
}
