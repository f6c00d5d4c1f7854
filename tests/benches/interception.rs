//! What interception costs: `connect` (a connect(2) that is captured, or not, against one without programs), `pods` (250 of
//! them), `connections` (100,000 in 50 pods, and what they leave behind). Ratios are of one interleaved run.

use anyhow::{Context, Result, bail, ensure};
use qbox_tests::{Node, Pod, Qbox, SERVICES, Settings, World, workspace};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// A port of the service's pod that no trigger names.
const PLAIN: u16 = 9000;
/// One where nobody listens either.
const CLOSED: u16 = 9001;
const CAPTURED: u16 = qbox_tests::PORT;
const ROUNDS: usize = 200;
/// Fewer than a listener's backlog (128): a SYN that finds it full is sent again after a second.
const BATCH: usize = 100;
const PODS: usize = 250;
const CLIENTS: usize = 50;
const EACH: usize = 2000;

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["connect"] => connect(),
        ["pods"] => pods(),
        ["connections"] => connections(),
        // What runs inside pods.
        ["dial"] => dial(),
        ["enrolled"] => enrolled(),
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

    fn ask(&mut self, what: &str) -> Result<f64> {
        writeln!(self.input, "{what}")?;
        Ok(self.line()?.parse()?)
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// `ADDRESS:PORT`, as often as a line says so: the mean of connect(2) in nanoseconds.
fn dial() -> Result<()> {
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

fn connect() -> Result<()> {
    let world = World::book_trip()?;
    let trips = world.pod_of("trips")?;
    let listener = trips.listen(PLAIN)?;
    thread::spawn(move || listener.incoming().for_each(drop));
    // Both on one CPU: else it is their distance from the listener that is compared.
    let pinned = ["-c", "0"];
    let mut command = world.client.command_for(Duration::from_secs(1200), "taskset");
    command.args(pinned).arg(own()?).arg("dial");
    let mut enrolled = Worker::start(command)?;
    // The same pod's network, in the cgroup of this process, which no program is attached to.
    let netns = fs::read_to_string(world.client.cgroup().join("cgroup.procs"))?;
    let process = netns.lines().next().context("the pod is empty")?.to_owned();
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/proc/{process}/ns/net"))
        .args(["--", "taskset"])
        .args(pinned)
        .arg(own()?)
        .arg("dial");
    let mut free = Worker::start(command)?;
    let at = |port| SocketAddr::new(trips.ipv4(), port).to_string();
    let (plain, closed, captured) = (at(PLAIN), at(CLOSED), at(CAPTURED));
    let mut rows = Vec::new();
    for round in 0..ROUNDS {
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
            };
        }
        rows.push(row);
    }
    enrolled.end()?;
    free.end()?;
    let of = |which: usize| median(rows.iter().map(|row| row[which]).collect());
    let ratio = |a: usize, b: usize| median(rows.iter().map(|row| row[a] / row[b]).collect());
    println!("connect(2), medians of {ROUNDS} interleaved rounds of {BATCH}:");
    println!("| | µs | against no program |\n|---|---|---|");
    println!("| no program, accepted | {:.1} | |", of(0) / 1000.0);
    println!(
        "| programs, a port that no trigger names, accepted | {:.1} | ×{:.3} |",
        of(1) / 1000.0,
        ratio(1, 0)
    );
    println!("| no program, refused | {:.1} | |", of(2) / 1000.0);
    println!(
        "| programs, a port that no trigger names, refused | {:.1} | ×{:.3} |",
        of(3) / 1000.0,
        ratio(3, 2)
    );
    println!("| captured | {:.1} | ×{:.3} |", of(4) / 1000.0, ratio(4, 0));
    Ok(())
}

/// In a new network namespace with nothing but a loopback: whatever is not captured has no way to go. Prints how long it took
/// from the first socket to a connect that is captured, in microseconds.
fn enrolled() -> Result<()> {
    ensure!(
        Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()?
            .success(),
        "no loopback"
    );
    let to = SockAddr::from(SocketAddr::from(([10, 9, 9, 9], CAPTURED)));
    let began = Instant::now();
    loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if socket.connect(&to).is_ok() {
            break;
        }
        ensure!(began.elapsed() < Duration::from_secs(30), "never captured");
        thread::sleep(Duration::from_micros(200));
    }
    println!("{}", began.elapsed().as_micros());
    // It lives on until its input ends.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn book_trip() -> Result<Settings> {
    Ok(Settings::saga(fs::read_to_string(
        workspace().join(qbox_tests::BOOK_TRIP),
    )?))
}

fn cpu(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = text.rsplit_once(')').context("no stat")?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || {
        fields
            .next()
            .and_then(|field| field.parse::<u64>().ok())
            .context("no times")
    };
    Ok(next()? + next()?)
}

fn files(process: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

fn pods() -> Result<()> {
    let node = Node::new()?;
    let qbox = Qbox::start(&node, &book_trip()?)?;
    let (memory, open) = (qbox.resident_bytes()?, files(qbox.id())?);
    let mut workers = Vec::new();
    let mut took = Vec::new();
    for number in 0..PODS {
        let cgroup = node.cgroup().join(format!("pod-{number}"));
        fs::create_dir(&cgroup)?;
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                r#"echo $$ > "$0/cgroup.procs" && exec unshare --net -- "$1" enrolled"#,
            ])
            .arg(&cgroup)
            .arg(own()?)
            .process_group(0);
        let mut worker = Worker::start(command)?;
        took.push(worker.line()?.parse::<f64>()? / 1000.0);
        workers.push(worker);
    }
    let captured = qbox.admin().json("/api/v1/pods")?["pods"]
        .as_array()
        .map_or(0, Vec::len);
    ensure!(captured == PODS, "{captured} of {PODS} are captured");
    let longest = took.iter().copied().fold(0.0, f64::max);
    let each = qbox.resident_bytes()?.saturating_sub(memory) / PODS as u64;
    let files_each = (files(qbox.id())? - open) as f64 / PODS as f64;
    let (before, period) = (cpu(qbox.id())?, Duration::from_secs(20));
    thread::sleep(period);
    // A clock tick is 10 ms (USER_HZ).
    let idle = (cpu(qbox.id())? - before) as f64 * 0.01 / period.as_secs_f64() * 100.0;
    println!("{PODS} pods:");
    println!(
        "| from the first socket to being captured | median {:.2} ms, longest {longest:.2} ms |\n|---|---|",
        median(took)
    );
    println!("| memory for each | {:.1} KiB |", each as f64 / 1024.0);
    println!("| files for each | {files_each:.1} |");
    println!("| CPU while idle | {idle:.2} % of one |");
    let gone = Instant::now();
    for worker in workers {
        worker.end()?;
    }
    qbox_tests::wait_for("all to be let go of", qbox_tests::DEADLINE, || {
        let pods = qbox.admin().json("/api/v1/pods")?;
        Ok((pods["pods"] == Value::Array(Vec::new())).then_some(()))
    })?;
    let listed = gone.elapsed().as_secs_f64();
    qbox_tests::wait_for("their files to be closed", qbox_tests::DEADLINE, || {
        Ok((files(qbox.id())? <= open).then_some(()))
    })?;
    let closed = gone.elapsed().as_secs_f64();
    println!("| all gone, and no longer listed, within | {listed:.1} s |");
    println!("| all of their files closed within | {closed:.1} s |");
    Ok(())
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
