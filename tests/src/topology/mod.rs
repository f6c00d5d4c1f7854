//! What `cargo xtask topology` shows: services that call each other as a graph says, sagas inside sagas, and whether all of them have
//! done what was asked, or none. The graph's format is that of the original Qbox's generator.

mod files;
mod graph;
mod service;
mod stage;

pub use graph::Graph;
pub use service::{Role, serve};

use crate::node::require_root;
use crate::poll::wait_for;
use crate::qbox::workspace;
use crate::stop::Stop;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use stage::Stage;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How it is to go.
#[derive(Debug, Clone)]
pub struct Options {
    /// The graph's file.
    pub graph: PathBuf,
    /// End after so many sagas; `None`: at Ctrl-C.
    pub sagas: Option<u64>,
    /// How often Qbox is killed meanwhile.
    pub kills: u64,
}

/// Sagas at once.
const AT_ONCE: u64 = 8;

/// How long sagas may take to end once nobody begins any.
const QUIET: Duration = Duration::from_secs(120);

/// Sets it up, and runs it to its end.
///
/// # Errors
/// The graph is none, something can't be started, or a ledger isn't as it has to be.
pub fn run(options: &Options) -> Result<()> {
    let graph = Graph::read(&options.graph)?;
    require_root()?;
    let stop = Stop::on_signals()?;
    let mut out = io::stdout();
    let folder = write(&options.graph, &graph)?;
    writeln!(out, "Saga files: {}", folder.display())?;
    writeln!(
        out,
        "Starting {} services, each in a pod of its own, and Qbox",
        graph.nodes.len()
    )?;
    let mut stage = Stage::set(&graph)?;
    match options.sagas {
        Some(sagas) => judge(&mut out, &mut stage, &graph, sagas, options.kills)?,
        None => {
            let qbox = stage.qbox()?.socket();
            let root = &graph.root;
            writeln!(out, "A saga, from another terminal:\n")?;
            writeln!(
                out,
                "  {} exec --socket {} --pod {root} -- curl -i -X POST http://{root}.default.svc:8080/all/ID\n",
                crate::binary()?.display(),
                qbox.display()
            )?;
            writeln!(out, "Ctrl-C ends it and leaves nothing behind.")?;
            while !stop.within(Duration::from_secs(1)) {}
        }
    }
    stage.qbox.as_mut().context("no Qbox runs")?.end()
}

/// Writes the saga files into a folder that is named for the graph.
fn write(path: &Path, graph: &Graph) -> Result<PathBuf> {
    let name = path.file_stem().context("the graph's file has no name")?;
    let folder = workspace().join("target/topology").join(name);
    if folder.is_dir() {
        fs::remove_dir_all(&folder).with_context(|| format!("can't empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    for (name, text) in files::of(graph) {
        fs::write(folder.join(format!("{name}.toml")), text)?;
    }
    Ok(folder)
}

/// Runs so many sagas, and compares the ledgers.
fn judge(out: &mut impl Write, stage: &mut Stage, graph: &Graph, sagas: u64, kills: u64) -> Result<()> {
    let began = Instant::now();
    let answers = begin(stage, graph, sagas, kills)?;
    let took = began.elapsed();
    wait_for("all sagas to end", QUIET, || {
        let health = stage.qbox()?.admin().json("/api/v1/status")?;
        let left = health.pointer("/sagas/in_flight").and_then(Value::as_u64);
        Ok((left == Some(0)).then_some(()))
    })?;
    let ledgers = stage.ledgers(graph)?;
    if sagas <= 3 {
        for (service, ids) in &ledgers {
            let bad = if graph.bad.contains(service) { " (bad)" } else { "" };
            let ids: Vec<_> = ids.iter().map(String::as_str).collect();
            writeln!(
                out,
                "  {service}{bad}: {}",
                if ids.is_empty() {
                    "-".to_owned()
                } else {
                    ids.join(" ")
                }
            )?;
        }
    }
    let (mut applied, mut wrong) = (0_u64, Vec::new());
    for (id, status) in &answers {
        let with = ledgers.values().filter(|ids| ids.contains(id)).count();
        applied += u64::from(with == ledgers.len());
        let well = matches!(status, Some(200..300));
        let expected = match (with, graph.bad.is_empty()) {
            (0, true) => kills > 0 && !well,
            (0, false) => !well,
            // An answer that a kill took may have been any.
            (with, true) => with == ledgers.len() && (well || kills > 0),
            (_, false) => false,
        };
        if !expected {
            let said = status.map_or("nothing".to_owned(), |status| status.to_string());
            let has: Vec<_> = ledgers
                .iter()
                .filter(|(_, ids)| ids.contains(id))
                .map(|(name, _)| name.as_str())
                .collect();
            wrong.push(format!("{id}: answered {said}, booked at [{}]", has.join(", ")));
        }
    }
    for line in wrong.iter().take(20) {
        writeln!(out, "  {line}")?;
    }
    let count = wrong.len();
    writeln!(
        out,
        "{sagas} sagas in {:.1} s: {applied} applied everywhere, {} nowhere, {count} partial or wrong outcomes",
        took.as_secs_f32(),
        answers.len() as u64 - applied.min(answers.len() as u64),
    )?;
    if count > 0 {
        bail!("{count} sagas are not as they must be");
    }
    Ok(())
}

/// Begins the sagas, some at once, and kills Qbox meanwhile; by id what was answered.
fn begin(stage: &mut Stage, graph: &Graph, sagas: u64, kills: u64) -> Result<BTreeMap<String, Option<u16>>> {
    let root = stage.address(&graph.root)?;
    let next = AtomicU64::new(0);
    let answers = Mutex::new(BTreeMap::new());
    let over = || answers.lock().map_or(0, |answers| answers.len() as u64);
    let namespace = stage.node.namespace().try_clone()?;
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..AT_ONCE.min(sagas) {
            workers.push(scope.spawn(|| {
                namespace.run(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= sagas {
                            return Ok(());
                        }
                        let id = format!("{number:06}");
                        let status = stage::ask("POST", root, &format!("/run/{id}"))
                            .ok()
                            .map(|(status, _)| status);
                        if let Ok(mut answers) = answers.lock() {
                            answers.insert(id, status);
                        }
                    }
                })
            }));
        }
        for kill in 1..=kills {
            let from = sagas * kill / (kills + 1);
            wait_for("sagas to be under way", QUIET, || {
                Ok((over() >= from).then_some(()))
            })?;
            let qbox = stage.qbox.as_mut().context("no Qbox runs")?;
            qbox.stop(Signal::KILL)?;
            stage.start()?;
        }
        for worker in workers {
            worker.join().ok().context("a caller panicked")??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let answers = answers.into_inner().ok().context("a caller panicked")?;
    ensure!(answers.len() as u64 == sagas, "not every saga was answered");
    Ok(answers)
}
