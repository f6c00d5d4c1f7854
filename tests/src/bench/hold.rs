//! Whether it holds: 1 to 4, synced, so many sagas a second for minutes. Latency, memory and the journal's size, window by window; finished sagas
//! are kept for a fifth of the time, so that most of it is beyond what the journal keeps. Errors: a saga fails, or all of them take too
//! long.

use super::load::Load;
use super::page;
use super::record::{Goal, Record};
use super::shape::Shape;
use super::spread::median;
use super::stage::{Setup, Stage, System};
use crate::node::require_root;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// The time is cut into so many.
const WINDOWS: u32 = 10;
/// Of those, the first that is beyond what is kept, and beyond the growth until then.
const STEADY: usize = 4;
/// How much more the last third may be than the first of the steady ones.
const FLAT: f64 = 1.1;
/// The same of latencies, which are also the machine's.
const CALM: f64 = 1.25;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    /// How long.
    pub span: Duration,
    /// Sagas a second.
    pub rate: u32,
    /// Not for docs/performance.md.
    pub quick: bool,
}

/// What one window showed.
struct Window {
    load: Load,
    resident: f64,
    journal: f64,
    cpu: f64,
}

/// Measures, prints the table, and puts it into docs/performance.md.
///
/// # Errors
/// No root, or see the module.
pub fn hold(options: &Hold) -> Result<()> {
    require_root()?;
    let window = options.span / WINDOWS;
    let keep = (options.span / 5).as_secs().max(1);
    let stage = Stage::set(&Setup {
        shapes: vec![Shape::ONE_TO_FOUR],
        extra: format!("[journal]\nkeep = \"{keep}s\"\n"),
        ..Setup::default()
    })?;
    let target = System::Synced.target(Shape::ONE_TO_FOUR);
    let mut client = stage.client("windows", &target)?;
    client.args([options.rate, WINDOWS].map(|number| number.to_string()));
    client.arg(window.as_millis().to_string());
    let mut client = client.stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(client.stdout.take().context("no output")?).lines();
    let state = stage.qbox.config().with_file_name("state");
    let mut windows = Vec::new();
    let mut before = stage.counts(System::Synced)?.cpu;
    for line in lines {
        let load = Load::from_line(&line?)?;
        let now = stage.counts(System::Synced)?.cpu;
        let found = Window {
            resident: stage.qbox.resident_bytes()? as f64 / 1e6,
            journal: size(&state)? as f64 / 1e6,
            cpu: (now - before) / load.count as f64,
            load,
        };
        before = now;
        windows.push(found);
        eprintln!("    {}", row(windows.len(), windows.last().context("no window")?));
    }
    ensure!(client.wait()?.success(), "the client failed");
    ensure!(windows.len() == WINDOWS as usize, "{} windows", windows.len());
    let mut text = "| window | sagas | p50, ms | p99, ms | Qbox in RAM, MB | journal, MB | CPU per saga, µs |\n|---|---|---|---|---|---|---|\n".to_owned();
    for (number, window) in windows.iter().enumerate() {
        writeln!(text, "{}", row(number + 1, window))?;
    }
    writeln!(
        text,
        "\n{} sagas a second, open loop, windows of {window:.0?}; finished sagas are kept for {keep} s.",
        options.rate
    )?;
    let grown = |value: fn(&Window) -> f64| {
        let steady: Vec<f64> = windows.iter().skip(STEADY - 1).map(value).collect();
        let third = steady.len() / 3;
        let first = median(steady.iter().copied().take(third.max(1)));
        [median(steady.iter().copied().rev().take(third.max(1))) / first]
    };
    let what = |what: &str| {
        format!(
            "{} sagas/s held for {:.0?}: {what}, last to first",
            options.rate, options.span
        )
    };
    let record = Record {
        goals: vec![
            Goal::most(&what("memory"), (FLAT, "×"), grown(|window| window.resident)),
            Goal::most(&what("the journal"), (FLAT, "×"), grown(|window| window.journal)),
            Goal::most(&what("p50"), (CALM, "×"), grown(|window| window.load.p50)),
        ],
        ..Record::default()
    };
    page::publish("hold", &text, record, options.quick)
}

fn row(number: usize, window: &Window) -> String {
    let Window {
        load,
        resident,
        journal,
        cpu,
    } = window;
    format!(
        "| {number} | {} | {:.2} | {:.2} | {resident:.1} | {journal:.0} | {cpu:.0} |",
        load.count, load.p50, load.p99
    )
}

/// Bytes of the files in a folder.
fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(bytes)
}
