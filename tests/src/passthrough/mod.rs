//! What it costs that a connection passes through Qbox, against proxies that others wrote: the measurement of `cargo xtask
//! bench passthrough`.
//!
//! One pod has the backend, another the load (wrk) and, on its loopback, each proxy; Qbox captures the same connection
//! instead. All have one worker, on the first processor, alone; load and backend are on the second. What is measured
//! takes turns within one run, so that whatever else the machine does meets all alike: only ratios mean something.
//!
//! Errors: something is not installed, does not start, or wrk reports failed requests.

mod copy;
mod goals;
mod idle;
mod memory;
mod peers;
mod table;
mod wrk;

pub use copy::copy;
pub(crate) use memory::memory;

use crate::bench;
use crate::node::Node;
use crate::pod::Pod;
use crate::poll::{DEADLINE, wait_for};
use crate::process::{self, Calls};
use crate::qbox::{Qbox, Settings};
use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use wrk::Sample;

/// Where the backend's port is a trigger's, so that a connection to it is captured.
const CAPTURED: u16 = 8080;
/// The same backend on a port that is left alone.
const ALONE: u16 = 8082;
/// Bodies' names at the backend.
const BODIES: [(&str, &str); 2] = [("tiny", "/tiny"), ("64 KiB", "/large")];
/// Connections at once.
const CONNECTIONS: [usize; 3] = [1, 32, 256];

/// What is asked for.
#[derive(Debug)]
pub struct Options {
    /// Of all measurements together, roughly.
    pub minutes: f64,
    /// How often each is repeated; the median counts.
    pub rounds: usize,
    /// Envoy's binary.
    pub envoy: PathBuf,
    /// Leave out what others wrote, and leave the page as it is.
    pub own_alone: bool,
    /// Count system calls, and measure nothing else.
    pub calls_alone: bool,
    /// What is found is not for docs/performance.md.
    pub quick: bool,
}

/// Seconds for which calls are counted, for each kind of load.
const COUNTED: u64 = 1;

/// One way to the backend.
struct Way {
    name: &'static str,
    /// Without the path.
    url: String,
    /// The proxy's process, and its children's.
    process: Option<u32>,
    /// Bytes of RAM before any load.
    idle: u64,
    /// Bytes of RAM, the most during all load.
    loaded: u64,
    /// Bytes of RAM, more with [`idle::IDLE`] connections that wait than before.
    waiting: u64,
    /// By body and connections, in the order of [`BODIES`] and [`CONNECTIONS`]; each round's.
    samples: Vec<Vec<Sample>>,
    /// System calls for each request, in the same order.
    calls: Vec<Calls>,
}

/// Measures, prints the tables, and puts them into docs/performance.md.
///
/// # Errors
/// See the module.
pub fn measure(options: &Options) -> Result<()> {
    let node = Node::new()?;
    let backend = node.pod("backend")?;
    let load = node.pod("load")?;
    let _servers = peers::backend(&node, &backend)?;
    let origin = backend.ipv4();
    let mut ways = vec![Way::new("direct", format!("http://{origin}:{ALONE}"), None)];
    let mut settings = Settings::saga(saga());
    settings.level = Some("warn");
    let mut qbox = on_first_processor(|| Qbox::start(&node, &settings))?;
    qbox.wait_for_pod("load")?;
    ways.push(Way::new(
        "Qbox",
        format!("http://{origin}:{CAPTURED}"),
        Some(qbox.id()),
    ));
    let mut children = Vec::new();
    for peer in peers::all(&node, &load, (origin, ALONE), options)? {
        let child = peers::Running::start(peer.command)?;
        ways.push(Way::new(
            peer.name,
            format!("http://127.0.0.1:{}", peer.port),
            Some(child.id()),
        ));
        children.push(child);
    }
    for way in &mut ways {
        let url = format!("{}/tiny", way.url);
        wait_for(&format!("{} to answer", way.name), DEADLINE, || {
            Ok(load
                .http([&url])
                .is_ok_and(|(status, _)| status == 200)
                .then_some(()))
        })?;
        way.idle = way.resident()?;
    }
    // First, since an allocator keeps what it needed under load.
    for way in ways.iter_mut().filter(|way| way.process.is_some()) {
        let with = idle::beside(&load, &way.url, || way.resident())?;
        way.waiting = with.saturating_sub(way.idle);
    }
    for way in ways.iter_mut().filter(|way| way.process.is_some()) {
        eprintln!("    system calls of {}", way.name);
        way.count(&load, &node)?;
    }
    if !options.calls_alone {
        take_turns(&mut ways, &load, options)?;
    }
    let text = table::markdown(&ways, !options.calls_alone);
    qbox.end()?;
    if options.own_alone || options.calls_alone {
        println!("{text}");
        return Ok(());
    }
    let text = format!(
        "{text}\nMedians of {} rounds in turns, {} s for each measurement.\n",
        options.rounds,
        seconds(options, ways.len()),
    );
    bench::publish("passthrough", &text, goals::of(&ways), options.quick)
}

/// Its trigger's port is the backend's, and nothing that is sent here is a trigger.
fn saga() -> String {
    format!(
        "name = \"bench\"\n[trigger]\nmethod = \"POST\"\nurl = \"http://backend.default.svc:{CAPTURED}/trips\"\n\
         [[step]]\nname = \"none\"\nkind = \"pivot\"\nrequest = {{ method = \"POST\", url = \"http://backend:{ALONE}/\" }}\n"
    )
}

/// Each way in turn, under each load, as often as is asked for.
fn take_turns(ways: &mut [Way], load: &Pod, options: &Options) -> Result<()> {
    let seconds = seconds(options, ways.len());
    for round in 0..options.rounds {
        for (number, (body, connections)) in cells().enumerate() {
            eprintln!(
                "    round {} of {}: {} × {connections}",
                round + 1,
                options.rounds,
                body.0
            );
            for way in &mut *ways {
                let before = way.processor_time()?;
                let mut sample = wrk::run(load, &format!("{}{}", way.url, body.1), connections, seconds)
                    .with_context(|| format!("{} with {connections} connections", way.name))?;
                sample.cpu = (way.processor_time()? - before) / sample.requests;
                way.samples[number].push(sample);
                way.loaded = way.loaded.max(way.resident()?);
            }
        }
    }
    Ok(())
}

/// For each measurement.
fn seconds(options: &Options, ways: usize) -> u64 {
    let measurements = ways * cells().count() * options.rounds.max(1);
    // Thousands at the most, and never negative.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    let seconds = (options.minutes * 60.0 / measurements as f64) as u64;
    seconds.max(1)
}

fn cells() -> impl Iterator<Item = ((&'static str, &'static str), usize)> {
    BODIES
        .into_iter()
        .flat_map(|body| CONNECTIONS.map(|connections| (body, connections)))
}

impl Way {
    fn new(name: &'static str, url: String, process: Option<u32>) -> Self {
        Self {
            name,
            url,
            process,
            idle: 0,
            loaded: 0,
            waiting: 0,
            samples: vec![Vec::new(); cells().count()],
            calls: Vec::new(),
        }
    }

    fn tree(&self) -> Result<Vec<u32>> {
        self.process.map_or(Ok(Vec::new()), process::tree)
    }

    fn resident(&self) -> Result<u64> {
        process::resident(&self.tree()?)
    }

    fn processor_time(&self) -> Result<f64> {
        process::processor_time(&self.tree()?)
    }

    fn count(&mut self, load: &Pod, node: &Node) -> Result<()> {
        let tree = self.tree()?;
        let file = node.folder().join("calls");
        for (body, connections) in cells() {
            let url = format!("{}{}", self.url, body.1);
            let (calls, sample) =
                process::calls(&tree, &file, || wrk::run(load, &url, connections, COUNTED))?;
            self.calls.push(calls.each(sample.requests));
        }
        Ok(())
    }
}

/// What starts a process in `start` starts it on the first processor, where what is measured has to be.
fn on_first_processor<T>(start: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    let mut first = CpuSet::new();
    first.set(0);
    sched_setaffinity(None, &first)?;
    let started = start();
    sched_setaffinity(None, &before)?;
    started
}

/// A command in a pod, on the first processor or the second.
fn pinned(pod: &Pod, processor: &str, program: &str) -> Command {
    let mut command = pod.command_for(Duration::from_secs(3600), "taskset");
    command.args(["-c", processor, program]);
    command
}
