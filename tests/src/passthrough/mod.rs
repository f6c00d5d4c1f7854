//! What it costs that a connection passes through Qbox, against proxies that others wrote: the measurement of `cargo xtask
//! bench passthrough`.
//!
//! One pod has the backend, another the load (wrk) and, on its loopback, each proxy; Qbox captures the same connection
//! instead. All have one worker, on the first processor, alone; load and backend are on the second. What is measured
//! takes turns within one run, so that whatever else the machine does meets all alike: only ratios mean something.
//!
//! Errors: something is not installed, does not start, or wrk reports failed requests.

mod copy;
mod peers;
mod table;

pub use copy::copy;

use crate::node::Node;
use crate::pod::Pod;
use crate::poll::{DEADLINE, wait_for};
use crate::qbox::{Qbox, Settings};
use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

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
    /// Of each single measurement.
    pub seconds: u64,
    /// How often each is repeated; the median counts.
    pub rounds: usize,
    /// Envoy's binary.
    pub envoy: PathBuf,
    /// Leave out what others wrote.
    pub own_alone: bool,
}

/// One measurement of wrk's.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// A second.
    requests: f64,
    p50: Duration,
    p99: Duration,
}

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
    /// By body and connections, in the order of [`BODIES`] and [`CONNECTIONS`]; each round's.
    samples: Vec<Vec<Sample>>,
}

/// Measures, and returns the table as Markdown.
///
/// # Errors
/// See the module.
pub fn measure(options: &Options) -> Result<String> {
    let node = Node::new()?;
    let backend = node.pod("backend")?;
    let load = node.pod("load")?;
    let _servers = peers::backend(&node, &backend)?;
    let origin = backend.ipv4();
    let mut ways = vec![Way::new("direct", format!("http://{origin}:{ALONE}"), None)];
    let saga = format!(
        "name = \"bench\"\n[trigger]\nmethod = \"POST\"\nurl = \"http://backend.default.svc:{CAPTURED}/trips\"\n\
         [[step]]\nname = \"none\"\nkind = \"pivot\"\nrequest = {{ method = \"POST\", url = \"http://backend:{ALONE}/\" }}\n"
    );
    let mut settings = Settings::saga(saga);
    settings.level = Some("warn");
    let qbox = on_first_processor(|| Qbox::start(&node, &settings))?;
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
        way.idle = resident(way.process)?;
    }
    for round in 0..options.rounds {
        for (number, (body, connections)) in cells().enumerate() {
            for way in &mut ways {
                let sample = wrk(
                    &load,
                    &format!("{}{}", way.url, body.1),
                    connections,
                    options.seconds,
                )
                .with_context(|| format!("{} with {connections} connections", way.name))?;
                way.samples[number].push(sample);
                way.loaded = way.loaded.max(resident(way.process)?);
            }
            eprintln!("    round {}: {} × {connections}", round + 1, body.0);
        }
    }
    Ok(table::markdown(&ways))
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
            samples: vec![Vec::new(); cells().count()],
        }
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

fn wrk(load: &Pod, url: &str, connections: usize, seconds: u64) -> Result<Sample> {
    let limit = Duration::from_secs(seconds + 60);
    let mut command = load.command_for(limit, "taskset");
    command.args(["-c", "1", "wrk", "--threads=1", "--latency", "--timeout=10s"]);
    command.arg(format!("--connections={connections}"));
    command.arg(format!("--duration={seconds}s")).arg(url);
    let output = command.output().context("can't start wrk")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "wrk ended with {}: {text}",
        output.status
    );
    let bad = text
        .lines()
        .find(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    ensure!(bad.is_none(), "{text}");
    read(&text).with_context(|| format!("what wrk said can't be read: {text}"))
}

/// wrk's report.
fn read(text: &str) -> Option<Sample> {
    let after = |key: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(key))
            .map(str::trim)
    };
    Some(Sample {
        requests: after("Requests/sec:")?.parse().ok()?,
        p50: time(after("50%")?)?,
        p99: time(after("99%")?)?,
    })
}

/// `85.00us`, `1.25ms` or `2.00s`.
fn time(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match text.strip_prefix(digits)? {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(digits.parse::<f64>().ok()? * unit))
}

/// Bytes of RAM of a process and its children (`Rss` of smaps_rollup, proc(5)).
fn resident(process: Option<u32>) -> Result<u64> {
    let Some(process) = process else {
        return Ok(0);
    };
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"))?;
    let mut bytes = 0;
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    bytes += kilobytes.context("no VmRSS")?.trim().parse::<u64>()? << 10;
    for child in children.split_whitespace() {
        bytes += resident(Some(child.parse()?))?;
    }
    Ok(bytes)
}

/// A command in a pod, on the first processor or the second.
fn pinned(pod: &Pod, processor: &str, program: &str) -> Command {
    let mut command = pod.command_for(Duration::from_secs(3600), "taskset");
    command.args(["-c", processor, program]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_wrk_says() {
        let text = "Running 1s test\n  Latency Distribution\n     50%   85.00us\n     75%    1.00ms\n     99%    1.25ms\n\
                    Requests/sec:  11085.10\nTransfer/sec:      1.00MB\n";
        let sample = read(text).unwrap();
        assert!((sample.requests - 11_085.1).abs() < 0.01);
        assert_eq!(sample.p50, Duration::from_micros(85));
        assert_eq!(sample.p99, Duration::from_micros(1250));
        assert!(read("Requests/sec: x").is_none());
    }
}
