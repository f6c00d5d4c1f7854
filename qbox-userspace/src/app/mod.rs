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
mod reload;
mod signals;
mod spans;
mod watch;

use crate::admin::{self, Admin, Node};
use crate::config::{self, CaptureMode, Config, Loaded, LoadedSaga, Store};
use crate::gateway::{Definition, Gateway};
use crate::journal::{
    Coming, Durable, Journal, JournalError, Memory, OpenError, Page, Retention, Split, durable,
};
use crate::keys::Keys;
use crate::observe::Observer;
use crate::proxy::{self, Proxy};
use crate::runner::{self, Filter, Recovered, Retain, Runner, State, Triggers};
use crate::saga::{Durability, Plan};
use crate::telemetry::Spans;
use crate::upstream::{self, Breaker, Hosts, Services, Upstream};
use anyhow::Context;
use enrolment::Enrolment;
use entrance::Entrance;
use reload::Reloader;
use signals::Signals;
use std::io::{ErrorKind, IsTerminal, Write};
use std::net::SocketAddr;
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
    let level = Arc::new(logs::start(&config.log)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("qbox")
        .build()
        .context("can't start the worker threads")?;
    let ended = runtime.block_on(serve(options, &config, sagas, level));
    // After an orderly end nothing is left; after a second signal nobody waits for what is.
    runtime.shutdown_timeout(LAST_MOMENT);
    ended
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
) -> anyhow::Result<()> {
    // First of all, so that no signal ends a Qbox that is half there.
    let mut signals = Signals::new()?;
    if sagas.is_empty() {
        tracing::warn!(folder = %config.sagas.display(), "no saga is defined: everything passes through");
    }
    let hosts = hosts(config)?;
    let coming = Arc::new(Coming::default());
    let services = Arc::new(Services::load(&config.upstream.services)?);
    let upstream = upstream(config, hosts.clone());
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
    let before = match options.takeover {
        true => handover::find(&config.admin.socket)?,
        false => None,
    };
    let start = match before {
        Some(before) => {
            runner.hold();
            Start::After(before)
        }
        // Before anything is captured: a second Qbox on the node ends here, and no pod notices.
        None => {
            let admin = bind(config)?;
            coming.came(journal(config)?);
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
    let mut entrance = match &start {
        Start::Alone(_) => Entrance::open(config, &enrolment, &plans, proxy.clone())?,
        Start::After(before) => Entrance::open_beside(before.port, config, &enrolment, &plans, &proxy)?,
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
        handover: Box::new(move || {
            let (done, waits) = oneshot::channel();
            (can_hand_over && ask.try_send(done).is_ok()).then_some(waits)
        }),
    };
    let admin = Admin::start(admin, runner.clone(), node)?;
    tracing::info!(
        sagas = plans.len(),
        admin = %admin.address(),
        socket = admin.socket().map(|path| tracing::field::display(path.display())),
        "ready: {entrance}"
    );
    watch::start(&reloader).context("can't start the thread that watches the files")?;
    let next: Option<oneshot::Sender<usize>> = tokio::select! {
        () = signals.next(|| reload_at_once(&reloader)) => None,
        next = asked.recv() => next,
    };
    let closing = Arc::clone(&reloader);
    tokio::task::spawn_blocking(move || closing.close()).await?;
    let drain = async {
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
            }
            Some(done) => {
                tracing::info!(grace = ?config.grace, "handing over: another Qbox takes this one's place");
                entrance.hand_over();
                tokio::time::sleep(ARRIVAL).await;
                tokio::join!(hand_over(config, &runner, admin, done), proxy.drain(config.grace));
                tracing::info!("handed over, and the connections that were here have ended");
            }
        }
    };
    let ended = tokio::select! {
        () = drain => Ok(()),
        () = signals.next(|| {}) => {
            name_left(&runner, config.journal.store);
            let left = runner.health().in_flight;
            Err(anyhow::anyhow!("stopped by a second signal, with {left} sagas in flight"))
        }
    };
    if let (Some(spans), Ok(())) = (spans, &ended) {
        spans.close(spans::LAST).await;
    }
    ended
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
async fn hand_over(config: &Config, runner: &Runner, admin: Admin, done: oneshot::Sender<usize>) {
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
    // Who asked may have gone.
    let _ = done.send(left);
    // For the answer to be on its way.
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

/// The hosts file, if there is one.
fn hosts(config: &Config) -> anyhow::Result<Hosts> {
    let Some(path) = &config.upstream.hosts else {
        return Ok(Hosts::default());
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("can't read {} (`hosts` of [upstream])", path.display()))?;
    Ok(Hosts::parse(&text))
}

/// How much is kept of finished sagas with `durability = "none"`, in bytes.
const MEMORY_BESIDE_DISK: usize = 8 << 20;

/// The journal that the configuration asks for. It never falls back on memory by itself.
fn journal(config: &Config) -> anyhow::Result<Arc<dyn Journal>> {
    let (open, keep) = (config.limits.sagas_in_flight, config.journal.keep);
    let memory = |bytes| {
        Memory::new(Retention {
            open,
            bytes,
            age: keep,
            ..Retention::default()
        })
    };
    match config.journal.store {
        Store::Disk => {
            let opened = Durable::open(&config.state_dir, durable::Settings { open, keep });
            let journal = opened.map_err(|error| {
                let denied = matches!(&error, OpenError::Folder { source, .. }
                    if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem));
                match denied {
                    true => anyhow::anyhow!(
                        "{error}; name a folder that this process may write with `state_dir`, or, to try Qbox out \
                         without a journal that survives it, set `store = \"memory\"` in [journal]"
                    ),
                    false => anyhow::Error::new(error).context("no journal (`state_dir`)"),
                }
            })?;
            tracing::debug!(file = %journal.path().display(), "journal");
            Ok(Arc::new(Split::new(journal, memory(MEMORY_BESIDE_DISK))))
        }
        Store::Memory => {
            tracing::warn!("the journal is in memory: when Qbox ends, sagas in flight are lost half-way");
            Ok(Arc::new(memory(Retention::default().bytes)))
        }
    }
}

/// The keys that the configuration names, or one that ends with this process.
fn keys(config: &Config) -> anyhow::Result<Keys> {
    match &config.secrets.key_file {
        Some(path) => Keys::read(path)
            .with_context(|| format!("no keys in {} (`key_file` of [secrets])", path.display())),
        None => Keys::in_memory().context("no key for secrets"),
    }
}

fn upstream(config: &Config, hosts: Hosts) -> Upstream {
    let limits = &config.limits;
    Upstream::new(upstream::Settings {
        hosts,
        max_idle_per_upstream: limits.upstream_connections,
        idle_timeout: config.upstream.idle_timeout,
        connect_timeout: config.upstream.connect_timeout,
        response_body: limits.response_body,
        max_calls_per_upstream: config.upstream.concurrency,
        linger: config.upstream.linger,
        max_lingering: config.upstream.lingering,
        breaker: Breaker {
            failures: config.upstream.breaker.failures,
            open_for: config.upstream.breaker.open_for,
        },
        ..upstream::Settings::default()
    })
}

fn runner(
    config: &Config,
    keys: Keys,
    journal: Arc<dyn Journal>,
    upstream: Upstream,
    spans: Option<Spans>,
) -> Runner {
    let settings = runner::Settings {
        in_flight: config.limits.sagas_in_flight,
        steps_in_flight: config.limits.steps_in_flight,
        retain: Retain {
            age: config.journal.keep,
            ..Retain::default()
        },
        secrets: Arc::new(config.secrets.names()),
        keys: Arc::new(keys),
        spans,
        ..runner::Settings::default()
    };
    Runner::new(journal, upstream, settings)
}

fn proxy_settings(config: &Config, admin: SocketAddr) -> proxy::Settings {
    proxy::Settings {
        head: config.limits.head,
        connections: config.limits.connections,
        streams: config.limits.http2_streams,
        detect_timeout: config.proxy.detect_timeout,
        head_timeout: config.proxy.head_timeout,
        connect_timeout: config.proxy.connect_timeout,
        private: Some(admin),
        ..proxy::Settings::default()
    }
}
