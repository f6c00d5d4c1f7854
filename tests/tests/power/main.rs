//! The journal on a disk whose power is cut: all that was acknowledged is there, and nothing that was never written.
//!
//! The disk is served by the test's own process, and the journal on it is another process, this program once more: one that
//! waits for itself while it holds its memory map would wait for ever. Needs root and /dev/fuse.

mod disk;
mod mount;
mod whole;

use anyhow::{Context, Result, bail, ensure};
use disk::{Chance, Disk, Sync};
use mount::Mounted;
use qbox::journal::{Durable, Journal, Outline, Page, Query, Stamp, durable};
use qbox::saga::{Event, Headers, PlanHash, Request, SCHEMA, SagaId, SagaState, StepId, Timestamp, Trigger};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, thread};
use tempfile::TempDir;

/// Different moments of the cut, and different remains.
const SEEDS: u64 = 30;
/// How often the power goes, one time after the other, on the same disk.
const CUTS: u64 = 4;
/// Sagas that run at once.
const AT_ONCE: u128 = 6;
/// A saga's events.
const EVENTS: usize = 7;

const SETTINGS: durable::Settings = durable::Settings {
    open: usize::MAX,
    keep: Duration::MAX,
    // So small that its files are written over and over.
    log: 32 << 10,
};

/// What was done with a saga.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    appended: usize,
    acknowledged: usize,
    finished: bool,
}

type Sagas = BTreeMap<u128, Done>;

fn events(id: u128, count: usize) -> Vec<Event> {
    let began = Event::Began {
        schema: SCHEMA,
        saga: SagaId(id),
        plan: PlanHash([7; 32]),
        name: "book-trip".to_owned(),
        seed: 1,
        trigger: Trigger {
            request: Request {
                method: "POST".to_owned(),
                url: format!("http://trips/trips/{id}"),
                headers: Headers::default(),
                body: format!("body of {id} ").repeat(1 + (id % 90) as usize).into(),
            },
            path: Vec::new(),
            destination: None,
            http2: false,
            depth: 0,
        },
        hidden: None,
        at: Timestamp(1),
    };
    let skipped = |step| Event::Skipped {
        step: StepId(step),
        at: Timestamp(2),
    };
    std::iter::once(began)
        .chain((1..).map(skipped))
        .take(count)
        .collect()
}

fn outline(id: u128) -> Outline {
    Outline {
        id: SagaId(id),
        name: "book-trip".to_owned(),
        state: SagaState::Compensated,
        began: Timestamp(1),
        ended: Timestamp(3),
        failed_step: Some("hotel".to_owned()),
        cause: Some(format!("the cause of {id}")),
        replied: Some((Timestamp(3), 502)),
        stamp: Some(Stamp {
            key: Chance::new(id as u64)
                .below(u64::MAX)
                .to_be_bytes()
                .repeat(4)
                .try_into()
                .unwrap_or([0; 32]),
            payload: [1; 32],
        }),
        parent: None,
        revoked: false,
    }
}

/// For [`the_store_itself`]: the state directory, the file that it tells of what it does, and its first saga.
const STATE: &str = "QBOX_POWER_STATE";
const TOLD: &str = "QBOX_POWER_TOLD";
const FIRST: &str = "QBOX_POWER_FIRST";

/// What the store's process says of saga `id`: what it is about to do, or what was acknowledged.
fn tell(told: &File, what: &str, id: u128, count: usize) {
    // Line by line in one write each, so that they stay whole. A line that is missing would show as an event too many.
    let mut told = told;
    let line = format!("{what} {id} {count}\n");
    drop(told.write_all(line.as_bytes()));
}

/// One saga, as the runner writes it. `false`: the journal takes no more.
async fn saga(journal: &Durable, told: &File, id: u128) -> bool {
    let all = events(id, EVENTS);
    let mut from = 0;
    for (to, awaited) in [(3, true), (4, false), (6, id.is_multiple_of(3)), (EVENTS, true)] {
        tell(told, "appends", id, to);
        let Ok(position) = journal.append(SagaId(id), from as u64, &all[from..to]) else {
            return false;
        };
        if awaited {
            if journal.durable(position).await.is_err() {
                return false;
            }
            tell(told, "has", id, to);
        }
        from = to;
    }
    tell(told, "finishes", id, EVENTS);
    journal.finish(outline(id));
    true
}

/// Runs sagas until the disk fails. No test by itself: [`run`] starts it.
#[test]
fn the_store_itself() -> Result<()> {
    let (Some(state), Some(told)) = (env::var_os(STATE), env::var_os(TOLD)) else {
        return Ok(());
    };
    let first: u128 = env::var(FIRST)?.parse()?;
    let told = Arc::new(File::options().append(true).open(told)?);
    let journal = match Durable::open(Path::new(&state), SETTINGS) {
        Ok(journal) => Arc::new(journal),
        Err(error) => {
            writeln!(&*told, "refused {error}")?;
            return Ok(());
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()?;
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|task| {
            let (journal, told) = (Arc::clone(&journal), Arc::clone(&told));
            runtime.spawn(async move {
                let mut id = first + task;
                while saga(&journal, &told, id).await {
                    id += AT_ONCE;
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let failure = journal
        .failure()
        .context("the journal doesn't know that it can't write")?;
    writeln!(&*told, "failed {failure}")?;
    Ok(())
}

/// What a store did on the disk before it failed.
struct Told {
    /// Why it couldn't be opened, or took nothing more.
    cause: String,
    sagas: Sagas,
}

/// Has the store run on the disk until that fails.
fn load(mounted: &Mounted, mut sagas: Sagas) -> Result<Told> {
    let file = tempfile::NamedTempFile::new()?;
    let first = sagas.keys().last().map_or(1, |last| last + 1);
    let mut store = Command::new(env::current_exe()?)
        .args(["--exact", "the_store_itself", "--nocapture"])
        .env(STATE, mounted.state())
        .env(TOLD, file.path())
        .env(FIRST, first.to_string())
        .stdout(Stdio::null())
        .spawn()?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = store.try_wait()? {
            break status;
        }
        if begun.elapsed() > Duration::from_secs(120) {
            store.kill()?;
            store.wait()?;
            bail!("the store hangs");
        }
        thread::sleep(Duration::from_millis(2));
    };
    ensure!(status.success(), "the store ended with {status}");
    let mut cause = None;
    for line in fs::read_to_string(file.path())?.lines() {
        let (what, rest) = line.split_once(' ').context("half a line")?;
        match what {
            "refused" | "failed" => cause = Some(rest.to_owned()),
            _ => {
                let (id, count) = rest.split_once(' ').context("half a line")?;
                let done = sagas.entry(id.parse()?).or_default();
                match what {
                    "appends" => done.appended = count.parse()?,
                    "has" => done.acknowledged = count.parse()?,
                    _ => done.finished = true,
                }
            }
        }
    }
    let cause = cause.context("it neither failed nor was refused")?;
    Ok(Told { cause, sagas })
}

/// Compares the journal with what was done, and gives what is there now.
fn check(journal: &Durable, sagas: &Sagas) -> Result<Sagas> {
    let mut found = Sagas::new();
    for (id, done) in sagas {
        let history = journal.history(SagaId(*id))?.unwrap_or_default();
        let count = history.len();
        ensure!(
            count >= done.acknowledged,
            "saga {id}: {count} events, but {done:?}"
        );
        ensure!(count <= done.appended, "saga {id}: {count} events, but {done:?}");
        ensure!(
            history == events(*id, count),
            "saga {id}: other events than were written"
        );
        let ended = journal.ended(SagaId(*id))?;
        if let Some(ended) = &ended {
            ensure!(
                done.finished && count == EVENTS && *ended == outline(*id),
                "saga {id}: {ended:?}"
            );
            let stamp = ended.stamp.context("no stamp")?;
            ensure!(
                journal.ended_with(&stamp.key)? == Some((SagaId(*id), stamp.payload)),
                "saga {id}: its key"
            );
        }
        if count > 0 {
            found.insert(
                *id,
                Done {
                    appended: count,
                    acknowledged: count,
                    finished: ended.is_some(),
                },
            );
        }
    }
    for history in journal.open() {
        let id = history?.saga.0;
        let known = found.get(&id).is_some_and(|done| !done.finished);
        ensure!(known, "saga {id} is open, and none has begun that isn't there");
    }
    let ended = journal.list(&Query::default(), &Page::youngest(usize::MAX))?;
    let finished = found.values().filter(|done| done.finished).count();
    ensure!(
        ended.len() == finished,
        "{} sagas have ended, {finished} are known",
        ended.len()
    );
    Ok(found)
}

/// A journal of what is on the disk, on a sound one.
fn copy(disk: &mut Disk) -> Result<(Durable, TempDir)> {
    let folder = tempfile::tempdir()?;
    for (name, bytes) in disk.files("state") {
        fs::write(folder.path().join(name), bytes)?;
    }
    Ok((Durable::open(folder.path(), SETTINGS)?, folder))
}

/// Gives how many sagas were looked for.
fn run(seed: u64, sync: Sync) -> Result<usize> {
    let mut chance = Chance::new(seed);
    let mut disk = Disk::new();
    let mut sagas = Sagas::new();
    let mut tested = 0;
    for _ in 0..CUTS {
        disk.sync = sync;
        // At times it goes while the journal is being made or opened.
        let most = if chance.below(3) == 0 { 60 } else { 400 };
        disk.changes_left = Some(chance.below(most));
        let mounted = Mounted::new(disk)?;
        let told = load(&mounted, sagas)?;
        ensure!(mounted.disk().is_off(), "with power it fails: {}", told.cause);
        disk = mounted.disk().after_a_cut(&mut chance);
        drop(mounted);
        let (journal, _folder) = copy(&mut disk)?;
        sagas = check(&journal, &told.sagas)?;
        tested += sagas.len();
    }
    Ok(tested)
}

#[test]
fn what_was_acknowledged_survives() -> Result<()> {
    let mut tested = 0;
    for seed in 0..SEEDS {
        tested += run(seed, Sync::Honest).with_context(|| format!("seed {seed}"))?;
    }
    ensure!(
        tested > SEEDS as usize * 10,
        "only {tested} sagas were looked for: that shows nothing"
    );
    Ok(())
}

/// The control: were syncs not needed for it, the test above would show nothing.
#[test]
fn without_syncs_it_would_not() {
    let lost = (0..6).filter(|seed| run(*seed, Sync::Lies).is_err()).count();
    assert!(
        lost >= 3,
        "a disk that drops what it was told to sync lost something in {lost} runs of 6"
    );
}

/// On a disk with a fault that no power cut is to blame for: why the store stopped, after nothing acknowledged was lost.
fn stops(fault: impl FnOnce(&mut Disk)) -> Result<String> {
    let mut chance = Chance::new(1);
    let mut disk = Disk::new();
    fault(&mut disk);
    let mounted = Mounted::new(disk)?;
    let told = load(&mounted, Sagas::new())?;
    let mut disk = mounted.disk().after_a_cut(&mut chance);
    drop(mounted);
    let (journal, _folder) = copy(&mut disk)?;
    let sagas = check(&journal, &told.sagas)?;
    drop(journal);
    ensure!(sagas.len() > 3, "only {} sagas: that shows nothing", sagas.len());
    // Once the fault is gone another start goes on with what there is.
    disk.changes_left = Some(300);
    let mounted = Mounted::new(disk)?;
    let more = load(&mounted, sagas.clone())?.sagas;
    ensure!(more.len() > sagas.len(), "it doesn't go on");
    Ok(told.cause)
}

#[test]
fn a_full_disk() -> Result<()> {
    let cause = stops(|disk| disk.space = Some(600 << 10))?;
    ensure!(cause.contains("no space is left"), "{cause}");
    Ok(())
}

#[test]
fn a_sync_that_fails_and_the_next_that_says_that_all_is_well() -> Result<()> {
    // Far behind those of the opening, however few commits a slow machine makes of its sagas.
    let cause = stops(|disk| disk.sync = Sync::Fails(120))?;
    ensure!(cause.contains("the disk failed"), "{cause}");
    Ok(())
}
