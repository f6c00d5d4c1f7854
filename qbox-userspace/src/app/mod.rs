//! Puts the rooms together: the one place that knows every module. From files to a running Qbox, and from a signal to its
//! orderly end.
//!
//! Errors end the process, each in one sentence that says what is missing (the files' own, as a drawn report before it);
//! whatever happens later is the rooms' own to handle.

mod clean;
mod counts;
mod enrolment;
mod entrance;
mod handover;
mod logs;
mod memory;
mod parts;
mod reload;
mod signals;
mod spans;
mod standby;
mod watch;

use crate::admin::{self, Admin, Node};
use crate::config::{self, CaptureMode, Config, Loaded, LoadedSaga, Store};
use crate::gateway::{Definition, Gateway};
use crate::journal::{Coming, Durable, JournalError, Page};
use crate::observe::Observer;
use crate::proxy::Proxy;
use crate::runner::{self, Filter, Recovered, Runner, State, Triggers};
use crate::saga::{Durability, Plan};
use crate::upstream::Services;
use crate::workers::{self, Spread, Workers};
use anyhow::Context;
use enrolment::Enrolment;
use entrance::{Entrance, Service};
use parts::{hosts, journal, keys, proxy_settings, runner, upstream};
use reload::Reloader;
use signals::Signals;
use standby::{Succession, Successor};
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What `qbox run` is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// `qbox.toml`.
    pub config: PathBuf,
    /// Listen on a plain port, whatever `capture.mode` says.
    pub explicit: bool,
    /// Take the place of the Qbox that runs, if one does.
    pub takeover: bool,
    /// Do so, and when another has taken this one's, stand by to take it again.
    pub standby: bool,
}

/// How long a connection that was turned just before the end may take to arrive. It is the kernel's own loopback: without
/// this, one that has no place among the open ones yet would be reset.
const ARRIVAL: Duration = Duration::from_millis(50);
/// What is left of the grace for telling the callers whose sagas have not ended.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// How long tasks that are left at the end may take to notice.
const LAST_MOMENT: Duration = Duration::from_millis(100);

pub use crate::intercept::{EXEC_PREFIX, LEAST_KERNEL, Probe, probe, sweep};
pub use clean::clean;

/// Runs Qbox until SIGTERM or SIGINT, then ends what is under way: no longer than `grace`, and at once at a second signal.
///
/// # Errors
/// Something that it needs is missing, or wrong in its files.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let files = read(options)?;
    let level = Arc::new(logs::start(&files.0.log)?);
    let workers = Workers::start(worker_threads()?).context("can't start the worker threads")?;
    let ended = workers.block_on(turns(options, files, &level, &workers.spread()));
    // After an orderly end nothing is left; after a second signal nobody waits for what is.
    workers.stop(LAST_MOMENT);
    ended.context("there is no worker thread: a bug")?
}

/// How many: as tokio's own variable says, if it says.
fn worker_threads() -> anyhow::Result<usize> {
    const NAME: &str = "TOKIO_WORKER_THREADS";
    let Some(said) = std::env::var_os(NAME) else {
        return Ok(workers::default_count());
    };
    let number = said.to_str().and_then(|said| said.parse::<NonZeroU16>().ok());
    let number =
        number.with_context(|| format!("{NAME} is {}: a number from 1 on is needed", said.display()))?;
    Ok(number.get().into())
}

/// The files, if they are fit to run; what they are warned of is drawn.
fn read(options: &Options) -> anyhow::Result<(Config, Vec<LoadedSaga>)> {
    let Loaded {
        mut config,
        sagas,
        report,
    } = config::load(&options.config).map_err(|report| {
        draw(&report);
        anyhow::anyhow!("{} is not fit to run", options.config.display())
    })?;
    if !report.diagnostics.is_empty() {
        draw(&report);
    }
    if options.explicit {
        config.capture.mode = CaptureMode::Explicit;
    }
    Ok((config, sagas))
}

/// Runs once, or as often as it is this one's turn.
async fn turns(
    options: &Options,
    files: (Config, Vec<LoadedSaga>),
    level: &Arc<logs::Level>,
    spread: &Spread,
) -> anyhow::Result<()> {
    // First of all, so that no signal ends a Qbox that is half there.
    let mut signals = Signals::new()?;
    let (mut config, mut sagas) = files;
    let mut has_run = false;
    loop {
        let (mut ours, mut successor) = (false, Successor::default());
        match serve(options, &config, sagas, Arc::clone(level), spread, &mut signals).await {
            Ok(Ended::HandedOver { ours: again, to }) if options.standby => {
                (has_run, ours, successor) = (true, again, to);
            }
            Ok(Ended::HandedOver { .. } | Ended::Stopped) => return Ok(()),
            Ok(Ended::CutOff { left }) => {
                anyhow::bail!("stopped by a second signal, with {left} sagas in flight")
            }
            // Another was faster. One that could never run must not stand by as if it could.
            Err(error) if has_run && standby::is_another(&config.admin.socket) => {
                tracing::warn!(error = format!("{error:#}"), "can't take another Qbox's place");
            }
            Err(error) => return Err(error),
        }
        if !ours && standby::wait(&config, &successor, &mut signals).await == standby::Turn::Stopped {
            return Ok(());
        }
        // They may have changed.
        (config, sagas) = read(options)?;
    }
}

fn draw(report: &config::Report) {
    let mut out = std::io::stderr().lock();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let text = report.render(out.is_terminal() && !plain);
    // Nobody is left to be told that standard error is closed.
    let _ = out.write_all(text.as_bytes());
}

async fn serve(
    options: &Options,
    config: &Config,
    sagas: Vec<LoadedSaga>,
    level: Arc<logs::Level>,
    spread: &Spread,
    signals: &mut Signals,
) -> anyhow::Result<Ended> {
    if sagas.is_empty() {
        tracing::warn!(folder = %config.sagas.display(), "no saga is defined: everything passes through");
    }
    let hosts = hosts(config)?;
    let coming = Arc::new(Coming::default());
    let services = Arc::new(Services::load(&config.upstream.services)?);
    let upstream = upstream(config, hosts.clone(), spread.workers());
    upstream.know(Arc::clone(&services));
    let spans = spans::start(config, &hosts, &services);
    let runner = runner(
        config,
        keys(config)?,
        Arc::clone(&coming) as _,
        upstream.clone(),
        spans.clone(),
    );
    let plans: Vec<Arc<Plan>> = sagas.iter().map(|saga| Arc::clone(&saga.plan)).collect();
    let loaded: Vec<(Definition, String)> = sagas
        .into_iter()
        .map(|saga| Ok((Definition::new(saga.plan)?, saga.file)))
        .collect::<Result<_, JournalError>>()?;
    let definitions: Vec<Definition> = loaded.iter().map(|(definition, _)| definition.clone()).collect();
    let observer = Observer::new(config.limits.observed, Arc::new(config.secrets.names()));
    let limits = reload::limits(config);
    let gateway = Gateway::new(&definitions, runner.clone(), observer.clone(), limits);
    let gateway = Arc::new(gateway);
    // Not the other way round, or neither would ever go.
    let triggers: Weak<dyn Triggers> = Arc::downgrade(&(Arc::clone(&gateway) as Arc<dyn Triggers>));
    runner.know(triggers);
    let before = match options.takeover || options.standby {
        true => handover::find(&config.admin.socket)?,
        false => None,
    };
    let start = match before {
        Some(before) => {
            if config.journal.store == Store::Disk {
                // As long as the other one has it, and goes on if it can't be used here.
                Durable::look(&config.state_dir)
                    .context("the running Qbox's journal (`state_dir`) is none for this one")?;
            }
            runner.hold();
            Start::After(before)
        }
        // Before anything is captured: a second Qbox on the node ends here, and no pod notices.
        None => {
            // Another's last moment is waited for, where it may be the reason that this one starts.
            let (admin, journal) = match options.standby {
                true => {
                    let admin = handover::patiently(|| bind(config)).await?;
                    (admin, handover::patiently(|| journal(config)).await?)
                }
                false => (bind(config)?, journal(config)?),
            };
            coming.came(journal);
            recover(&runner);
            Start::Alone(admin)
        }
    };
    let enrolment = Enrolment::begin(config).await?;
    let proxy = Proxy::new(
        Arc::clone(&gateway),
        proxy_settings(config, start.address(config)),
        hosts,
    );
    let service = Service {
        proxy: proxy.clone(),
        spread: spread.clone(),
    };
    let mut entrance = match &start {
        Start::Alone(_) => Entrance::open(config, &enrolment, &plans, service)?,
        Start::After(before) => Entrance::open_beside(before.port, config, &enrolment, &plans, &service)?,
    };
    let reloader = Arc::new(Reloader::new(
        options.clone(),
        config.clone(),
        loaded,
        gateway,
        (upstream, services),
        &entrance,
        Arc::clone(&level),
    ));
    let admin = match start {
        Start::Alone(admin) => admin,
        Start::After(before) => take_over(before, config, &coming, &runner).await?,
    };
    let (ask, mut asked) = mpsc::channel(1);
    let succession = Succession::default();
    let successors = succession.clone();
    let can_hand_over = entrance.can_hand_over();
    let (told, again) = (Arc::clone(&reloader), Arc::clone(&reloader));
    let node = Node {
        capture: entrance.describe(),
        pods: entrance.pods(),
        kubernetes: enrolment.describe(),
        observer,
        traffic: counts::traffic(proxy.clone(), entrance.captured_so_far()),
        definitions: Box::new(move || told.told()),
        reload: Box::new(move || again.reload()),
        log: Box::new(move |filter| {
            if let Some(filter) = filter {
                level.set(filter)?;
                tracing::info!(
                    filter,
                    "another log filter holds, until the next one or a restart"
                );
            }
            Ok(level.now())
        }),
        handover: Box::new(move |process| {
            let (done, waits) = oneshot::channel();
            let next = Next {
                done,
                successor: Successor::new(process),
            };
            (can_hand_over && ask.try_send(next).is_ok()).then_some(waits)
        }),
        standby: Box::new(move || can_hand_over.then(|| successors.follow())),
    };
    if let Err(error) = memory::let_go_of_the_start() {
        tracing::debug!(%error, "what only the start needed stays in memory");
    }
    let admin = Admin::start(admin, runner.clone(), node)?;
    tracing::info!(
        sagas = plans.len(),
        admin = %admin.address(),
        socket = admin.socket().map(|path| tracing::field::display(path.display())),
        "ready: {entrance}"
    );
    watch::start(&reloader).context("can't start the thread that watches the files")?;
    let (next, told): (Option<Next>, bool) = tokio::select! {
        () = signals.next(|| reload_at_once(&reloader)) => (None, true),
        next = asked.recv() => (next, false),
    };
    let closing = Arc::clone(&reloader);
    tokio::task::spawn_blocking(move || closing.close()).await?;
    // It was handed over, and is this one's turn again before its connections have ended.
    let ours = Cell::new(false);
    let drain = async {
        let next = match next {
            Some(next) => Some(next),
            None => succession.find(&mut asked).await,
        };
        match next {
            None => {
                tracing::info!(grace = ?config.grace, "stopping: no new connections; a second signal ends this at once");
                entrance.close();
                tokio::time::sleep(ARRIVAL).await;
                let (left, ()) = tokio::join!(runner.drain(for_sagas(config)), proxy.drain(config.grace));
                if left > 0 {
                    name_left(&runner, config.journal.store);
                }
                tracing::info!(left, "stopped{}", entrance.left_behind());
                // Behind the drain, of which it tells.
                drop(admin);
                Successor::default()
            }
            Some(Next { done, successor }) => {
                tracing::info!(grace = ?config.grace, "handing over: another Qbox takes this one's place");
                entrance.hand_over();
                tokio::time::sleep(ARRIVAL).await;
                let (gone, is_gone) = oneshot::channel::<()>();
                let follow = async {
                    hand_over(config, &runner, &succession, admin, done).await;
                    drop(gone);
                    if options.standby {
                        standby::ours(config, &successor).await;
                        ours.set(true);
                    }
                    std::future::pending::<()>().await;
                };
                let drained = async { tokio::join!(proxy.drain(config.grace), is_gone) };
                tokio::select! {
                    _ = drained => {}
                    () = follow => {}
                }
                tracing::info!("handed over, and the connections that were here have ended");
                successor.clone()
            }
        }
    };
    // Who hands over of its own accord ends its connections all the same once it is told to stop, as kubelet does when the next
    // pod is ready; a second signal is one too many.
    let told = Cell::new(told);
    let second = async {
        if !told.get() {
            signals.next(|| {}).await;
            told.set(true);
            tracing::info!("told to stop: ending once the connections have");
        }
        signals.next(|| {}).await;
    };
    let to = tokio::select! {
        successor = drain => successor,
        () = second => {
            name_left(&runner, config.journal.store);
            let left = runner.health().in_flight;
            return Ok(Ended::CutOff { left });
        }
    };
    if let Some(spans) = spans {
        spans.close(spans::LAST).await;
    }
    Ok(match told.get() {
        true => Ended::Stopped,
        false => Ended::HandedOver { ours: ours.get(), to },
    })
}

/// One that asks for this one's place.
struct Next {
    /// Told once all is let go of.
    done: oneshot::Sender<usize>,
    successor: Successor,
}

/// How a Qbox's turn ended.
#[derive(Debug)]
enum Ended {
    /// It was told to stop.
    Stopped,
    /// Another one has taken its place.
    HandedOver {
        /// It is to be taken again at once.
        ours: bool,
        to: Successor,
    },
    /// It was told to stop again, with so many sagas in flight.
    CutOff {
        /// How many.
        left: usize,
    },
}

/// How this Qbox came to run.
enum Start {
    /// There was none.
    Alone(admin::Bound),
    /// One runs, and is to hand over.
    After(handover::Predecessor),
}

impl Start {
    /// Where the admin API is, or will be.
    fn address(&self, config: &Config) -> SocketAddr {
        match self {
            Self::Alone(admin) => admin.address(),
            Self::After(_) => config.admin.listen,
        }
    }
}

fn bind(config: &Config) -> anyhow::Result<admin::Bound> {
    Ok(admin::Bound::new(&admin::Settings {
        listen: config.admin.listen,
        socket: config.admin.socket.clone(),
        token_file: config.admin.token_file.clone(),
    })?)
}

/// Takes up what the journal holds.
fn recover(runner: &Runner) {
    let recovered = runner.recover();
    if recovered != Recovered::default() {
        let Recovered {
            open,
            ended,
            unreadable,
        } = recovered;
        tracing::info!(open, ended, unreadable, "sagas found in the journal");
    }
}

/// Has the Qbox that runs hand over. From its agreement on connections come here; triggers wait until the journal does.
async fn take_over(
    before: handover::Predecessor,
    config: &Config,
    coming: &Coming,
    runner: &Runner,
) -> anyhow::Result<admin::Bound> {
    let pid = before.pid;
    before.hand_over().await?;
    coming.came(handover::patiently(|| journal(config)).await?);
    recover(runner);
    runner.resume();
    let admin = handover::patiently(|| bind(config)).await?;
    tracing::info!(pid, "took the place of the Qbox that ran before");
    Ok(admin)
}

/// What of the grace is the sagas': the rest is for telling their callers.
fn for_sagas(config: &Config) -> Duration {
    config.grace.saturating_sub(LAST_ANSWERS.min(config.grace / 10))
}

/// Lets go of what only one Qbox can have, and says so: sagas, the journal, the admin sockets.
async fn hand_over(
    config: &Config,
    runner: &Runner,
    succession: &Succession,
    admin: Admin,
    done: oneshot::Sender<usize>,
) {
    let patience = match config.journal.store {
        Store::Disk => for_sagas(config).min(handover::SAGAS),
        // Nobody could take them up.
        Store::Memory => for_sagas(config),
    };
    let left = runner.drain(patience).await;
    if left > 0 {
        name_left(runner, config.journal.store);
    }
    runner.release().await;
    succession.handed_over();
    // Who asked may have gone.
    let _ = done.send(left);
    // For the answers to be on their way.
    tokio::time::sleep(ARRIVAL).await;
    drop(admin);
}

/// Reads the files again, aside.
fn reload_at_once(reloader: &Arc<Reloader>) {
    tracing::info!("SIGHUP: reading the files again");
    let reloader = Arc::clone(reloader);
    // It reads the disk.
    tokio::task::spawn_blocking(move || reloader.reload());
}

/// Names the sagas that are cut off: without a durable journal nobody else knows of them once this process is gone.
fn name_left(runner: &Runner, store: Store) {
    let open = Filter {
        states: vec![State::Waiting, State::Running, State::Compensating, State::Stuck],
        ..Filter::default()
    };
    // Those are all at hand: nothing is read that could fail.
    let left = runner
        .sagas(&open, &Page::youngest(usize::MAX))
        .unwrap_or_default();
    for runner::Summary { id, name, state, .. } in left {
        let detail = runner.saga(id).ok().flatten();
        let kept = detail.is_none_or(|saga| saga.plan.durability == Durability::Disk);
        match store {
            Store::Disk if kept => {
                tracing::warn!(saga = %id, name, ?state, "saga not ended: the journal has it, and the next start takes it up");
            }
            Store::Disk | Store::Memory => {
                tracing::error!(saga = %id, name, ?state, "saga cut off: what it has done so far is not undone");
            }
        }
    }
}
