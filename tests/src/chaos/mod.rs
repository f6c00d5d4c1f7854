//! The trial that `cargo xtask chaos` holds: the real Qbox under load in real pods, killed with SIGKILL again and again, with
//! participants and a network that fail as well, and then a judge who compares what Qbox says became of each saga with the
//! participants' ledgers and with what callers were answered.
//!
//! What is drawn from the seed: what each trip is and how its caller behaves (`trip.rs`), when each kill comes (`kills.rs`),
//! and what befalls each delivery of each message (`fault.rs`). What isn't: how fast the machine is, and with it what a
//! kill meets.

mod caller;
mod draw;
mod fault;
mod judge;
mod kills;
mod ledger;
mod listing;
mod participant;
mod progress;
mod record;
mod report;
mod stage;
mod trip;

pub use caller::{Share, run as call};

use crate::node::require_root;
use crate::qbox::workspace;
use crate::stop::Stop;
use anyhow::{Context, Result, bail};
use judge::Evidence;
use progress::Progress;
use serde_json::Value;
use stage::Stage;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How the trial is to be.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What all is drawn from.
    pub seed: u64,
    /// How many sagas there have to be in the end.
    pub sagas: u64,
    /// How often Qbox is killed.
    pub kills: u64,
    /// Whether messages are lost, late, refused and delivered twice as well.
    pub faults: bool,
    /// Where Qbox keeps its journal.
    pub journal: Journal,
}

/// Where Qbox keeps its journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    /// As it should.
    Disk,
    /// Nowhere: so that the judge can be seen to find something.
    Memory,
}

impl Journal {
    fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

/// How long sagas may take to end once nobody calls or kills any more.
const QUIET: Duration = Duration::from_secs(120);

/// Holds the trial. Says how many violations were found.
///
/// # Errors
/// It could not be held to its end: Qbox wasn't ready in time, sagas didn't end, or Ctrl-C.
pub fn run(options: &Options) -> Result<usize> {
    require_root()?;
    let stop = Stop::on_signals()?;
    // Some callers go away before Qbox has their request: they come on top.
    let trips = options.sagas + options.sagas / 20 + 10;
    let mut progress = Progress::of(trips, options.kills);
    progress.say(&format!(
        "Seed {}: {} sagas, {} kills, {}",
        options.seed,
        options.sagas,
        options.kills,
        if options.faults {
            "with faults"
        } else {
            "without faults"
        },
    ))?;
    let mut stage = Stage::set(options)?;
    let outcome = hold(&mut stage, options, trips, &stop, &mut progress);
    match &outcome {
        Ok(0) => {}
        _ if stop.asked() => {}
        _ => keep(&stage, options, &mut progress)?,
    }
    outcome
}

fn hold(
    stage: &mut Stage,
    options: &Options,
    trips: u64,
    stop: &Stop,
    progress: &mut Progress,
) -> Result<usize> {
    stage.call(options.seed, trips)?;
    let kills = kills::kill(stage, (options.seed, trips, options.kills), stop, progress)?;
    let cut_short = || bail!("stopped before its end, at seed {}", options.seed);
    wait("the callers to have their answers", caller::LONGEST, stop, || {
        progress.show(stage.over(), options.kills)?;
        stage.all_called()
    })?;
    if stop.asked() {
        return cut_short();
    }
    progress.say("All callers have their answers; waiting until nothing is in flight")?;
    wait("all sagas to end", QUIET, stop, || at_rest(stage))?;
    // What stuck is must survive this too.
    stage.launch()?;
    wait("Qbox to be ready once more", crate::poll::DEADLINE, stop, || {
        let qbox = stage.qbox.as_mut().context("no Qbox runs")?;
        Ok(qbox.is_ready()? && stage.uncaptured()?.is_empty())
    })?;
    wait("all sagas to have ended still", QUIET, stop, || at_rest(stage))?;
    if stop.asked() {
        return cut_short();
    }
    let evidence = collect(stage)?;
    let mut found = judge::violations(&evidence);
    let begun = evidence.sagas.len() as u64;
    if begun < options.sagas && options.journal == Journal::Disk {
        found.push(format!("there are only {begun} sagas of {}", options.sagas));
    }
    found.extend(panics(stage));
    report::write(options, stage, &kills, &evidence, &found)?;
    Ok(found.len())
}

/// Waits; returns early, too, once the user wants an end.
fn wait(what: &str, limit: Duration, stop: &Stop, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    while !done()? {
        if Instant::now() > end {
            bail!("waited {limit:?} in vain for {what}");
        }
        if stop.within(Duration::from_millis(20)) {
            break;
        }
    }
    Ok(())
}

/// Nothing is in flight but what is stuck, and no message is under way to a participant.
fn at_rest(stage: &Stage) -> Result<bool> {
    let qbox = stage.qbox.as_ref().context("no Qbox runs")?;
    let status = qbox.admin().json("/api/v1/status")?;
    let number = |name| {
        status
            .pointer(name)
            .and_then(Value::as_u64)
            .context("a status without numbers")
    };
    let moving = number("/sagas/in_flight")?.saturating_sub(number("/sagas/stuck")?);
    Ok(moving == 0 && stage.tally.pending.load(Ordering::Relaxed) == 0)
}

fn collect(stage: &Stage) -> Result<Evidence> {
    let qbox = stage.qbox.as_ref().context("no Qbox runs")?;
    let (ledgers, records) = (stage.ledgers(), stage.records());
    let listed = listing::list(qbox.admin())?;
    let known = ledgers.iter().flat_map(|(_, effects)| effects.keys());
    let answered = records
        .iter()
        .flat_map(|record| record.answers.iter().map(|(_, id, _)| id));
    let ids: BTreeSet<_> = listed
        .keys()
        .chain(known)
        .chain(answered)
        .filter(|id| !id.is_empty())
        .collect();
    let sagas = listing::shown(qbox.admin(), ids)?;
    Ok(Evidence {
        sagas,
        listed,
        ledgers,
        records,
        turns: stage.turns(),
    })
}

/// A bug that a log tells of is one, whatever the ledgers say.
fn panics(stage: &Stage) -> Vec<String> {
    let log = fs::read_to_string(stage.logs()).unwrap_or_default();
    let last = stage.qbox.as_ref().map(|qbox| qbox.log()).unwrap_or_default();
    let bad = |line: &&str| line.contains("panicked at") || line.contains("a bug");
    log.lines()
        .chain(last.lines())
        .filter(bad)
        .map(|line| format!("Qbox's log: {line}"))
        .collect()
}

/// Keeps what a person needs to find out what happened.
fn keep(stage: &Stage, options: &Options, progress: &mut Progress) -> Result<()> {
    let folder = workspace().join(format!("target/chaos/seed-{}", options.seed));
    fs::create_dir_all(&folder)?;
    let copy = |from: PathBuf| {
        let name = from.file_name().context("no name")?;
        // One that isn't there was not written.
        drop(fs::copy(&from, folder.join(name)));
        anyhow::Ok(())
    };
    copy(stage.logs())?;
    for file in ["journal.db", "journal.db-wal", "journal.log-a", "journal.log-b"] {
        copy(stage.state().join(file))?;
    }
    if let Some(qbox) = &stage.qbox {
        fs::write(folder.join("last-log"), qbox.log())?;
    }
    let records: Vec<_> = stage.records().iter().map(record::Record::to_line).collect();
    fs::write(folder.join("records"), records.join("\n"))?;
    let mut text = String::new();
    for (name, effects) in stage.ledgers() {
        for (saga, effects) in effects {
            text.push_str(&format!("{name} {saga} {effects:?}\n"));
        }
    }
    fs::write(folder.join("ledgers"), text)?;
    progress.say(&format!(
        "Logs, journal, ledgers and answers are in {}",
        folder.display()
    ))
}
