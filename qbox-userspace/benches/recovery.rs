//! How a Qbox starts on a full journal: the real binary, with 100,000 sagas that have ended and 10,000 that are open. Prints
//! how long it takes until it is ready, and what it needs then. `cargo xtask bench recovery`.
//!
//! The open ones had booked a hotel and were booking a car when Qbox was killed, so a start turns them all back at once. Who
//! is to take the cancellations is away: nobody listens there, or somebody does and never answers. Or they were stuck: the hotel
//! had said that it cancels nothing, and each waits for an operator.

mod started;

use anyhow::{Context, Result, ensure};
use qbox::journal::{self, Durable, Journal, Outline, Stamp, durable};
use qbox::saga::{
    AttemptEnd, Command, Event, Headers, Input, Outcome, Plan, PlanHash, Request, Response, Saga, SagaId,
    SagaState, Timestamp, Trigger,
};
use started::Qbox;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const FINISHED: u128 = 100_000;
const OPEN: u128 = 10_000;
/// How long it is watched once it is ready.
const WATCHED: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    // On the disk that the journal would be on, not in a /tmp that may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    println!(
        "| open sagas compensate, and their services | ready after | RSS, at most / after {WATCHED:?} | CPU | descriptors at most |"
    );
    println!("|---|---|---|---|---|");
    for (what, listens, stuck) in [
        ("refuse connections", false, false),
        ("never answer", true, false),
        ("said no: they are stuck", false, true),
    ] {
        let folder = folder.path().join(what);
        // Its backlog takes the connections; nobody reads them.
        let service = TcpListener::bind("127.0.0.1:0")?;
        let address = service.local_addr()?;
        let _service = listens.then_some(service);
        fs::create_dir_all(folder.join("sagas"))?;
        let saga = saga(address, stuck);
        fs::write(folder.join("sagas/book.toml"), &saga)?;
        let plan = qbox::config::load_saga(&saga, "book.toml");
        let (plan, _) = plan.map_err(|_| anyhow::anyhow!("the saga file is wrong"))?;
        fill(&folder.join("state"), &Arc::new(plan), stuck)?;
        let row = start(&folder)?;
        println!("| {what} | {row} |");
    }
    Ok(())
}

fn saga(services: SocketAddr, stuck: bool) -> String {
    let retry = if stuck { "retry = { attempts = 1 }\n" } else { "" };
    let step = |name: &str| {
        format!(
            "[[step]]\nname = \"{name}\"\nafter = AFTER\n\
             request = {{ method = \"PUT\", url = \"http://{services}/{name}/${{saga.id}}\", json = {{ trip = \"${{trigger.path.id}}\" }} }}\n\
             [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"http://{services}/{name}/${{saga.id}}\" }}\n{retry}"
        )
    };
    let steps = [
        step("hotel").replace("AFTER", "[]"),
        step("car").replace("AFTER", "[\"hotel\"]"),
        step("flight").replace("AFTER", "[\"car\"]"),
    ];
    format!(
        "name = \"book-trip\"\n[trigger]\nmethod = \"POST\"\nurl = \"http://trips.default.svc/trips/{{id}}\"\n{}",
        steps.concat()
    )
}

/// Puts the sagas into a journal: their events are the machine's own.
fn fill(state: &Path, plan: &Arc<Plan>, stuck: bool) -> Result<()> {
    let settings = durable::Settings {
        open: usize::MAX,
        ..durable::Settings::default()
    };
    let journal = Durable::open(state, settings)?;
    let hash = journal::plan_hash(plan)?;
    journal.store_plan(hash, plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let milliseconds = now.as_millis();
    for n in 0..FINISHED + OPEN {
        // As ids of version 7 are: milliseconds, and then chance.
        let id = SagaId((milliseconds << 80) | (7 << 76) | (1 << 63) | n);
        let open = n % 11 == 10;
        let statuses: &[u16] = match (open, stuck) {
            (false, _) => &[201, 201, 201],
            (true, false) => &[201],
            // The car's, and that of the hotel's compensation.
            (true, true) => &[201, 409, 409],
        };
        let (saga, events) = run(id, plan, hash, statuses, Timestamp::default().after(now));
        ensure!(
            !open || !stuck || saga.state() == SagaState::Stuck,
            "{:?}",
            saga.state()
        );
        let position = journal.append(id, 0, &events)?;
        if !open {
            ensure!(saga.state() == SagaState::Committed, "{:?}", saga.state());
            let mut key = [0; 32];
            key[..16].copy_from_slice(&n.to_be_bytes());
            journal.finish(Outline {
                id,
                name: plan.name.clone(),
                state: saga.state(),
                began: saga.began(),
                ended: saga.began(),
                failed_step: None,
                cause: None,
                replied: Some((saga.began(), 200)),
                parent: None,
                revoked: false,
                stamp: Some(Stamp { key, payload: key }),
            });
        }
        if n % 1000 == 0 {
            runtime.block_on(journal.durable(position))?;
        }
    }
    drop(journal);
    Ok(())
}

/// A saga until so many of its calls were answered, with these.
fn run(id: SagaId, plan: &Arc<Plan>, hash: PlanHash, statuses: &[u16], now: Timestamp) -> (Saga, Vec<Event>) {
    let headers = [
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "4c1b1a3e-8a53-4b2f-9f58-0a6f0f9a2c11"),
        ("User-Agent", "bench/1.0"),
    ];
    let trigger = Trigger {
        request: Request {
            method: "POST".to_owned(),
            url: "http://trips.default.svc/trips/7".to_owned(),
            headers: Headers(headers.map(|(name, value)| (name.into(), value.into())).to_vec()),
            body: r#"{"guest":"Ada","nights":3,"car":"small"}"#.into(),
        },
        path: vec![("id".to_owned(), "7".to_owned())],
        destination: Some(([10, 96, 0, 7], 80).into()),
        http2: false,
        depth: 0,
    };
    let seed = id.0 as u64;
    let (mut saga, mut events) = Saga::begin(id, Arc::clone(plan), hash, seed, trigger, now, usize::MAX);
    for &status in statuses {
        let calls = saga.commands();
        for command in calls {
            if let Command::Call(call) = command {
                let end = AttemptEnd::Answered(Response {
                    status,
                    headers: Headers(vec![("Content-Type".into(), "application/json".into())]),
                    body: r#"{"booked":true,"reference":"A7-31337"}"#.into(),
                    truncated: false,
                });
                let outcome = Outcome {
                    step: call.step,
                    direction: call.direction,
                    attempt: call.attempt,
                    end,
                };
                events.extend(saga.decide(Input::Outcome(outcome), now));
            }
        }
    }
    (saga, events)
}

fn start(folder: &Path) -> Result<String> {
    let qbox = Qbox::start(folder, "")?;
    let ready = qbox.ready;
    let before = ticks(qbox.id())?;
    let watched = Instant::now();
    let mut files = 0;
    while watched.elapsed() < WATCHED {
        files = files.max(fs::read_dir(format!("/proc/{}/fd", qbox.id()))?.count());
        thread::sleep(Duration::from_millis(50));
    }
    // USER_HZ is 100 wherever Linux runs.
    let cpu = (ticks(qbox.id())? - before) as f64 / watched.elapsed().as_secs_f64();
    ensure!(qbox.is_ready(), "it is no longer ready");
    TcpStream::connect(qbox.listen).context("it takes no clients")?;
    let (most, last) = (qbox.kilobytes("VmHWM:")? >> 10, qbox.kilobytes("VmRSS:")? >> 10);
    Ok(format!(
        "{ready:.2?} | {most} / {last} MiB | {cpu:.0} % of one core | {files}"
    ))
}

/// Processor time so far (proc_pid_stat(5), fields 14 and 15), in ticks.
fn ticks(process: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no process name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |n: usize| -> Result<u64> { Ok(fields.get(n - 3).context("too few fields")?.parse()?) };
    Ok(field(14)? + field(15)?)
}
