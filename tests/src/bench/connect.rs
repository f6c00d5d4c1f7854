//! What a connect(2) pays: to a port that no trigger names, and one that is captured, against the same by a process that no program is
//! attached to. The two take turns, connect by connect, and one pair is the same twice: what the measurement is worth.

use super::record::{Goal, Record};
use super::spread::median;
use super::worker::Worker;
use super::{Options, page};
use crate::node::require_root;
use crate::poll::{DEADLINE, wait_for};
use crate::world::{PORT, World};
use anyhow::{Context, Result, ensure};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

/// A port of the service's pod that no trigger names.
const PLAIN: u16 = 9000;
/// One where nobody listens either.
const CLOSED: u16 = 9001;
/// Rounds for each one that was asked for.
const ROUNDS: usize = 80;
/// Twice this is fewer than a listener's backlog (128): a SYN that finds it full is sent again after a second. Odd, so that
/// [`dial`] ends in the order that it began with.
const BATCH: usize = 51;

/// A line has two ways to connect, each `FOLDER ADDRESS:PORT`: a socket that is made by a process of that cgroup. They take
/// turns, connect by connect, so that whatever else the machine does meets both alike. Prints the median of each in nanoseconds.
///
/// # Errors
/// One is no such way, or connecting fails in another way than by a refusal.
pub fn dial() -> Result<()> {
    for line in std::io::stdin().lines() {
        let line = line?;
        let mut words = line.split(' ');
        let mut ways = Vec::new();
        while let (Some(folder), Some(address)) = (words.next(), words.next()) {
            fs::write(format!("{folder}/cgroup.procs"), process::id().to_string())?;
            let address: SocketAddr = address.parse()?;
            let sockets = (0..BATCH)
                .map(|_| {
                    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
                    // Closed by a reset: no port is kept waiting.
                    socket.set_linger(Some(Duration::ZERO))?;
                    Ok(socket)
                })
                .collect::<Result<Vec<_>>>()?;
            ways.push((SockAddr::from(address), sockets, Vec::new()));
        }
        for number in 0..BATCH {
            // Each is first as often as last.
            if number > 0 {
                ways.reverse();
            }
            for (to, sockets, took) in &mut ways {
                let socket = sockets.pop().context("no socket")?;
                let began = Instant::now();
                let done = socket.connect(to);
                took.push(began.elapsed().as_nanos() as f64);
                if let Err(error) = done {
                    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
                }
            }
        }
        let medians: Vec<String> = ways
            .into_iter()
            .map(|(_, _, took)| median(took).to_string())
            .collect();
        println!("{}", medians.join(" "));
    }
    Ok(())
}

/// What is compared: its name, and the two ways' cgroups and ports.
type Pair<'a> = (&'static str, (&'a str, u16), (&'a str, u16));

/// Measures, prints the table, and puts it into docs/performance.md.
///
/// # Errors
/// No root, or Qbox or the worker doesn't start.
pub fn connect(options: &Options) -> Result<()> {
    require_root()?;
    let world = World::book_trip()?;
    let trips = world.pod_of("trips")?;
    let listener = trips.listen(PLAIN)?;
    thread::spawn(move || listener.incoming().for_each(drop));
    let enrolled = world.client.cgroup().display().to_string();
    // Beside the node's, so that no program is attached to it.
    let free = world.node.cgroup().with_extension("free");
    fs::create_dir(&free)?;
    let none = free.display().to_string();
    let (on, off) = (enrolled.as_str(), none.as_str());
    let pairs: [Pair; 4] = [
        (
            "no program, twice: what the measurement is worth",
            (off, PLAIN),
            (off, PLAIN),
        ),
        (
            "a port that no trigger names, accepted",
            (off, PLAIN),
            (on, PLAIN),
        ),
        (
            "a port that no trigger names, refused",
            (off, CLOSED),
            (on, CLOSED),
        ),
        ("captured", (off, PLAIN), (on, PORT)),
    ];
    // On one CPU: else it is their distance from the listener that is compared.
    let mut command = world.client.command_for(Duration::from_secs(1200), "taskset");
    command.args(["-c", "0"]).arg(env::current_exe()?).arg("dial");
    let mut worker = Worker::start(command)?;
    let mut rows = vec![Vec::new(); pairs.len()];
    let rounds = ROUNDS * options.rounds;
    for round in 0..rounds {
        for place in 0..pairs.len() {
            let number = (place + round) % pairs.len();
            let (_, one, other) = pairs[number];
            // For the listeners to be done with the batch before.
            thread::sleep(Duration::from_millis(4));
            let to = |(cgroup, port)| format!("{cgroup} {}", SocketAddr::new(trips.ipv4(), port));
            let line = worker.ask(&format!("{} {}", to(one), to(other)))?;
            let (one, other) = line.split_once(' ').context("two numbers")?;
            rows[number].push((one.parse::<f64>()?, other.parse::<f64>()?));
        }
    }
    worker.end()?;
    wait_for("the cgroup to be empty", DEADLINE, || {
        Ok(fs::remove_dir(&free).is_ok().then_some(()))
    })?;
    let mut text = "| connect(2) | no program, µs | programs, µs | ratio | half of the rounds between |\n|---|---|---|---|---|\n".to_owned();
    let mut ratios = Vec::new();
    for ((name, ..), row) in pairs.iter().zip(rows) {
        let micros = |of: fn(&(f64, f64)) -> f64| median(row.iter().map(of)) / 1000.0;
        let (one, other) = (micros(|row| row.0), micros(|row| row.1));
        let mut ratio: Vec<f64> = row.iter().map(|(one, other)| other / one).collect();
        ratio.sort_by(f64::total_cmp);
        let quartile = |of: usize| ratio.get(ratio.len() * of / 4).copied().unwrap_or_default();
        let (low, middle, high) = (quartile(1), quartile(2), quartile(3));
        writeln!(
            text,
            "| {name} | {one:.2} | {other:.2} | {middle:.3}× | {low:.3}, {high:.3} |"
        )?;
        ratios.push(middle);
    }
    writeln!(text, "\nMedians of {rounds} rounds, each of {BATCH} in turns.")?;
    let [_, accepted, refused, captured] = ratios[..] else {
        anyhow::bail!("a pair is missing");
    };
    let record = Record {
        goals: vec![
            Goal::most(
                "connect() that no trigger matches, to no program (accepted · refused)",
                (1.03, "×"),
                [accepted, refused],
            ),
            Goal::most(
                "connect() that is captured, to no program",
                (3.0, "×"),
                [captured],
            ),
        ],
        ..Record::default()
    };
    page::publish("connect", &text, record, options.quick)
}
