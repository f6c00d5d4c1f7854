//! What a connect(2) pays: in a pod whose port no trigger names, and one that is captured, against the same without any program. Ratios are of one
//! interleaved run.

use super::record::{Goal, Record};
use super::spread::median;
use super::worker::Worker;
use super::{Options, page};
use crate::node::require_root;
use crate::world::{PORT, World};
use anyhow::{Context, Result, ensure};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// A port of the service's pod that no trigger names.
const PLAIN: u16 = 9000;
/// One where nobody listens either.
const CLOSED: u16 = 9001;
/// Rounds for each one that was asked for.
const ROUNDS: usize = 40;
/// Fewer than a listener's backlog (128): a SYN that finds it full is sent again after a second.
const BATCH: usize = 100;

/// `ADDRESS:PORT`, as often as a line says so: the mean of connect(2) in nanoseconds.
///
/// # Errors
/// One is not an address, or connecting fails in another way than by a refusal.
pub fn dial() -> Result<()> {
    for line in std::io::stdin().lines() {
        let address: SocketAddr = line?.parse()?;
        let to = SockAddr::from(address);
        let mut spent = Duration::ZERO;
        for _ in 0..BATCH {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            // Closed by a reset: no port is kept waiting.
            socket.set_linger(Some(Duration::ZERO))?;
            let began = Instant::now();
            let done = socket.connect(&to);
            spent += began.elapsed();
            if let Err(error) = done {
                ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "{error}");
            }
        }
        println!("{}", spent.as_nanos() as f64 / BATCH as f64);
    }
    Ok(())
}

/// Measures, prints the table, and puts it into docs/performance.md.
///
/// # Errors
/// No root, or Qbox or a worker doesn't start.
pub fn connect(options: &Options) -> Result<()> {
    require_root()?;
    let world = World::book_trip()?;
    let trips = world.pod_of("trips")?;
    let listener = trips.listen(PLAIN)?;
    thread::spawn(move || listener.incoming().for_each(drop));
    let own = env::current_exe()?;
    // Both on one CPU: else it is their distance from the listener that is compared.
    let pinned = ["-c", "0"];
    let mut command = world.client.command_for(Duration::from_secs(1200), "taskset");
    command.args(pinned).arg(&own).arg("dial");
    let mut enrolled = Worker::start(command)?;
    // The same pod's network, in the cgroup of this process, which no program is attached to.
    let netns = fs::read_to_string(world.client.cgroup().join("cgroup.procs"))?;
    let process = netns.lines().next().context("the pod is empty")?.to_owned();
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/proc/{process}/ns/net"))
        .args(["--", "taskset"])
        .args(pinned)
        .arg(&own)
        .arg("dial");
    let mut free = Worker::start(command)?;
    let at = |port| SocketAddr::new(trips.ipv4(), port).to_string();
    let (plain, closed, captured) = (at(PLAIN), at(CLOSED), at(PORT));
    let rounds = ROUNDS * options.rounds;
    let mut rows = Vec::new();
    for round in 0..rounds {
        let mut row = [0.0; 5];
        // Each goes first as often as last, and behind each other's.
        for place in 0..5 {
            let place = if round % 2 == 0 { place } else { 4 - place };
            let which = (place + round / 2) % 5;
            // For the listeners to be done with the batch before.
            thread::sleep(Duration::from_millis(4));
            row[which] = match which {
                0 => free.ask(&plain)?,
                1 => enrolled.ask(&plain)?,
                2 => free.ask(&closed)?,
                3 => enrolled.ask(&closed)?,
                _ => enrolled.ask(&captured)?,
            }
            .parse()?;
        }
        rows.push(row);
    }
    enrolled.end()?;
    free.end()?;
    let of = |which: usize| median(rows.iter().map(|row| row[which])) / 1000.0;
    let ratio = |a: usize, b: usize| median(rows.iter().map(|row| row[a] / row[b]));
    let (accepted, refused, turned) = (ratio(1, 0), ratio(3, 2), ratio(4, 0));
    let mut text = "| connect(2) | µs | against no program |\n|---|---|---|\n".to_owned();
    writeln!(text, "| no program, accepted | {:.1} | |", of(0))?;
    let unnamed = "programs, a port that no trigger names";
    writeln!(text, "| {unnamed}, accepted | {:.1} | {accepted:.3}× |", of(1))?;
    writeln!(text, "| no program, refused | {:.1} | |", of(2))?;
    writeln!(text, "| {unnamed}, refused | {:.1} | {refused:.3}× |", of(3))?;
    writeln!(text, "| captured | {:.1} | {turned:.3}× |", of(4))?;
    writeln!(text, "\nMedians of {rounds} interleaved rounds of {BATCH}.")?;
    let record = Record {
        goals: vec![
            Goal::most(
                "connect() that no trigger matches, to no program (accepted · refused)",
                (1.03, "×"),
                [accepted, refused],
            ),
            Goal::most("connect() that is captured, to no program", (3.0, "×"), [turned]),
        ],
        ..Record::default()
    };
    page::publish("connect", &text, record, options.quick)
}
