//! Where a topology plays: a pod for each of its services, and one Qbox.

use super::files;
use super::graph::Graph;
use crate::node::Node;
use crate::pod::Pod;
use crate::poll::{DEADLINE, wait_for};
use crate::qbox::{Qbox, Settings};
use crate::world::PORT;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

/// None is up for longer.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// All of it. What is named first goes first.
pub(super) struct Stage {
    pub(super) qbox: Option<Qbox>,
    services: Vec<Service>,
    settings: Settings,
    pub(super) node: Node,
}

/// One pod's process, which ends with its input.
struct Service {
    child: Child,
    pod: Pod,
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Both fail only if it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Stage {
    /// Starts everything, and waits until it is there.
    pub(super) fn set(graph: &Graph) -> Result<Self> {
        let node = Node::new()?;
        let mut settings = Settings::sagas(files::of(graph).into_iter().map(|(_, text)| text));
        settings.level = Some("warn");
        settings.extra = format!("[limits]\ndepth = {}\n", graph.depth.max(8));
        let program = std::env::current_exe().context("this program has no path")?;
        let mut services = Vec::new();
        for name in &graph.nodes {
            let pod = node.pod(name)?;
            let mut command = pod.command_for(LIMIT, &program);
            command.args(["serve", "--name", name]);
            if !graph.called_by(name).is_empty() {
                command.arg("--calls");
            }
            if graph.bad.contains(name) {
                command.arg("--bad");
            }
            let child = command.stdin(Stdio::piped()).spawn();
            let child = child.context("can't start a service")?;
            services.push(Service { child, pod });
        }
        let mut stage = Self {
            qbox: None,
            services,
            settings,
            node,
        };
        for service in &stage.services {
            wait_for(
                &format!("the service {} to listen", service.pod.name()),
                DEADLINE,
                || Ok(stage.ask("GET", service.pod.ipv4(), "/ledger").ok()),
            )?;
        }
        stage.start()?;
        Ok(stage)
    }

    /// Starts Qbox, on the state directory that it always has, and waits until all is captured.
    pub(super) fn start(&mut self) -> Result<()> {
        // The one before goes first: it holds the directory.
        self.qbox = None;
        let qbox = Qbox::start(&self.node, &self.settings)?;
        for service in &self.services {
            qbox.wait_for_pod(service.pod.name())?;
        }
        self.qbox = Some(qbox);
        Ok(())
    }

    /// The running Qbox.
    pub(super) fn qbox(&self) -> Result<&Qbox> {
        self.qbox.as_ref().context("no Qbox runs")
    }

    /// A service's address.
    pub(super) fn address(&self, name: &str) -> Result<IpAddr> {
        let found = self.services.iter().find(|service| service.pod.name() == name);
        Ok(found.context("no such service")?.pod.ipv4())
    }

    /// One request from the node, past Qbox: status and body.
    pub(super) fn ask(&self, method: &str, to: IpAddr, target: &str) -> Result<(u16, String)> {
        self.node.namespace().run(|| ask(method, to, target))
    }

    /// By service the ids that it has booked; of all but the root, which books none.
    pub(super) fn ledgers(&self, graph: &Graph) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut all = BTreeMap::new();
        for service in self
            .services
            .iter()
            .filter(|service| service.pod.name() != graph.root)
        {
            let (_, body) = self.ask("GET", service.pod.ipv4(), "/ledger")?;
            let ids: Value = serde_json::from_str(&body).context("a ledger is no JSON")?;
            let ids = ids.as_array().into_iter().flatten().filter_map(Value::as_str);
            all.insert(service.pod.name().to_owned(), ids.map(str::to_owned).collect());
        }
        Ok(all)
    }
}

/// One request over a connection of its own, from the network namespace that the thread is in.
pub(super) fn ask(method: &str, to: IpAddr, target: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect((to, PORT))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {target} HTTP/1.0\r\nHost: service\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    match (status, text.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
        _ => bail!("half an answer to {method} {target}"),
    }
}
