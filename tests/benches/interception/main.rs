//! What interception costs: `connect` (a connect(2) that is captured, or not, against one without programs), `pods` (250 of
//! them, with the Kubernetes API and without), `connections` (100,000 in 50 pods, and what they leave behind). Ratios are of one interleaved run.

use anyhow::{Context, Result, bail, ensure};
use qbox_tests::{Pod, SERVICES, Settings, World, workspace};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

mod pods;

/// A port of the service's pod that no trigger names.
const PLAIN: u16 = 9000;
/// One where nobody listens either.
const CLOSED: u16 = 9001;
const CAPTURED: u16 = qbox_tests::PORT;
const ROUNDS: usize = 400;
/// Twice this is fewer than a listener's backlog (128): a SYN that finds it full is sent again after a second. Odd, so that
/// [`dial`] ends in the order that it began with.
const BATCH: usize = 51;
const CLIENTS: usize = 50;
const EACH: usize = 2000;

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["connect"] => connect(),
        ["pods"] => pods::pods(),
        ["connections"] => connections(),
        // What runs inside pods.
        ["dial"] => dial(),
        ["connects"] => pods::connects(),
        ["stays"] => pods::stays(),
        ["ask", count, seed, ref hosts @ ..] => ask(count.parse()?, seed.parse()?, hosts),
        _ => bail!("one of connect, pods, connections"),
    }
}

/// This program, as a child that is told line by line what to do.
struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Self {
            input: child.stdin.take().context("no input")?,
            output: BufReader::new(child.stdout.take().context("no output")?),
            child,
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "a worker ended");
        Ok(line.trim().to_owned())
    }

    fn end(self) -> Result<()> {
        let Self { mut child, input, .. } = self;
        drop(input);
        child.wait()?;
        Ok(())
    }
}

fn own() -> Result<std::path::PathBuf> {
    Ok(env::current_exe()?)
}

/// In the pod's cgroup and namespaces.
fn inside(pod: &Pod, words: &[&str]) -> Result<Worker> {
    let mut command = pod.command_for(Duration::from_secs(1200), own()?);
    command.args(words);
    Worker::start(command)
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// A quartile, of one to three.
fn at(sorted: &[f64], quartile: usize) -> f64 {
    sorted
        .get(sorted.len() * quartile / 4)
        .copied()
        .unwrap_or(f64::NAN)
}

fn median(values: Vec<f64>) -> f64 {
    at(&sorted(values), 2)
}

/// A line has two ways to connect, each `FOLDER ADDRESS:PORT`: a socket that is made by a process of that cgroup. They take
/// turns, connect by connect, so that whatever else the machine does meets both alike. Prints the median of each in nanoseconds.
fn dial() -> Result<()> {
    for line in std::io::stdin().lines() {
        let line = line?;
        let mut words = line.split(' ');
        let mut ways = Vec::new();
        while let (Some(folder), Some(address)) = (words.next(), words.next()) {
            fs::write(format!("{folder}/cgroup.procs"), std::process::id().to_string())?;
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
                    ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "{error}");
                }
            }
        }
        let medians: Vec<String> = (ways.into_iter())
            .map(|(_, _, took)| median(took).to_string())
            .collect();
        println!("{}", medians.join(" "));
    }
    Ok(())
}

/// What is compared: its name, and the two ways' cgroups and ports.
type Pair<'a> = (&'static str, (&'a str, u16), (&'a str, u16));

fn connect() -> Result<()> {
    let world = World::book_trip()?;
    let trips = world.pod_of("trips")?;
    let listener = trips.listen(PLAIN)?;
    thread::spawn(move || listener.incoming().for_each(drop));
    let enrolled = world.client.cgroup().display().to_string();
    // Beside the node's, so that no program is attached to it.
    let free = world.node.cgroup().with_extension("free");
    fs::create_dir(&free)?;
    let free = free.display().to_string();
    let (on, off) = (enrolled.as_str(), free.as_str());
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
        ("captured", (off, PLAIN), (on, CAPTURED)),
    ];
    // On one CPU: else it is their distance from the listener that is compared.
    let mut command = world.client.command_for(Duration::from_secs(1200), "taskset");
    command.args(["-c", "0"]).arg(own()?).arg("dial");
    let mut worker = Worker::start(command)?;
    let mut rows = vec![Vec::new(); pairs.len()];
    for round in 0..ROUNDS {
        for place in 0..pairs.len() {
            let number = (place + round) % pairs.len();
            let (_, one, other) = pairs[number];
            // For the listeners to be done with the batch before.
            thread::sleep(Duration::from_millis(4));
            let to = |(cgroup, port)| format!("{cgroup} {}", SocketAddr::new(trips.ipv4(), port));
            writeln!(worker.input, "{} {}", to(one), to(other))?;
            let line = worker.line()?;
            let (one, other) = line.split_once(' ').context("two numbers")?;
            rows[number].push((one.parse::<f64>()?, other.parse::<f64>()?));
        }
    }
    worker.end()?;
    qbox_tests::wait_for("the cgroup to be empty", qbox_tests::DEADLINE, || {
        Ok(fs::remove_dir(&free).is_ok().then_some(()))
    })?;
    println!("connect(2), medians of {ROUNDS} rounds, each of {BATCH} in turns:");
    println!(
        "| | no program, µs | programs, µs | ratio | half of the rounds between |\n|---|---|---|---|---|"
    );
    for ((name, ..), row) in pairs.iter().zip(rows) {
        let column = |of: fn(&(f64, f64)) -> f64| sorted(row.iter().map(of).collect());
        let ratios = column(|(one, other)| other / one);
        println!(
            "| {name} | {:.2} | {:.2} | ×{:.3} | {:.3}, {:.3} |",
            at(&column(|(one, _)| *one), 2) / 1000.0,
            at(&column(|(_, other)| *other), 2) / 1000.0,
            at(&ratios, 2),
            at(&ratios, 1),
            at(&ratios, 3)
        );
    }
    Ok(())
}

fn book_trip() -> Result<Settings> {
    Ok(Settings::saga(fs::read_to_string(
        workspace().join(qbox_tests::BOOK_TRIP),
    )?))
}

fn files(process: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

/// Requests to the hosts in turn, each on a connection of its own. Prints how many were answered by another.
fn ask(count: usize, seed: usize, hosts: &[&str]) -> Result<()> {
    let mut wrong = 0;
    for number in 0..count {
        let (name, address) = hosts[(number * 7 + seed) % hosts.len()]
            .split_once('=')
            .context("NAME=ADDRESS")?;
        let address: IpAddr = address.parse()?;
        let mut stream = TcpStream::connect((address, CAPTURED))?;
        write!(
            stream,
            "GET /bookings/1 HTTP/1.1\r\nHost: {name}:{CAPTURED}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.contains(&format!("\"service\":\"{name}\"")) {
            wrong += 1;
            eprintln!("{name}: {answer}");
        }
    }
    println!("{wrong}");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Entries of all of a process's maps that have a fixed name, by that name.
fn entries(process: u32, name: &str) -> Result<usize> {
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let Some(id) = text.lines().find_map(|line| line.strip_prefix("map_id:")) else {
            continue;
        };
        let show = |what: &str| -> Result<Value> {
            let output = Command::new("bpftool")
                .args(["--json", "map", what, "id", id.trim()])
                .output()?;
            Ok(serde_json::from_slice(&output.stdout)?)
        };
        if show("show")?["name"] == name {
            return Ok(show("dump")?.as_array().map_or(0, Vec::len));
        }
    }
    bail!("no map {name}")
}

fn connections() -> Result<()> {
    let world = World::book_trip()?;
    let mut hosts = Vec::new();
    for name in SERVICES {
        hosts.push(format!("{name}={}", world.pod_of(name)?.ipv4()));
    }
    let clients = (0..CLIENTS)
        .map(|n| world.node.pod(&format!("c{n}")))
        .collect::<Result<Vec<_>>>()?;
    for client in &clients {
        world.qbox.wait_for_pod(client.name())?;
    }
    let run = |each: usize| -> Result<u64> {
        let mut workers = Vec::new();
        for (seed, client) in clients.iter().enumerate() {
            let (each, seed) = (each.to_string(), seed.to_string());
            let words = ["ask", each.as_str(), seed.as_str()].into_iter();
            let words: Vec<&str> = words.chain(hosts.iter().map(String::as_str)).collect();
            workers.push(inside(client, &words)?);
        }
        let mut wrong = 0;
        for mut worker in workers {
            wrong += worker.line()?.parse::<u64>()?;
            worker.end()?;
        }
        Ok(wrong)
    };
    // Pools, caches and buffers are what they will be.
    run(EACH / 10)?;
    let process = world.qbox.id();
    thread::sleep(Duration::from_secs(1));
    let (memory, open) = (world.qbox.resident_bytes()?, files(process)?);
    let began = Instant::now();
    let wrong = run(EACH)?;
    let took = began.elapsed();
    thread::sleep(Duration::from_secs(1));
    let total = CLIENTS * EACH;
    println!(
        "{total} captured connections in {CLIENTS} pods, {:.0} a second:",
        total as f64 / took.as_secs_f64()
    );
    println!("| answered by another than was asked | {wrong} |\n|---|---|");
    println!(
        "| destinations left in the kernel's map | {} |",
        entries(process, "FLOWS")?
    );
    println!("| files before and after | {open}, {} |", files(process)?);
    println!(
        "| memory before and after | {:.1} MiB, {:.1} MiB |",
        memory as f64 / 1048576.0,
        world.qbox.resident_bytes()? as f64 / 1048576.0
    );
    ensure!(wrong == 0, "{wrong} wrong destinations");
    Ok(())
}
