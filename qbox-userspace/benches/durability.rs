//! What the journal costs: the same saga with `durability = "disk"` and with `"none"`, in turns, through one and the same Qbox.
//! `cargo xtask bench durability`.
//!
//! Three steps, one after the other, to a service on this machine that takes a millisecond for each, which is little: the
//! journal's share is the smaller the longer services take. Clients keep their connections.

mod started;

use anyhow::{Context, Result, ensure};
use started::Qbox;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// How long each measurement takes, and how often all are made in turn. The medians are shown.
const SPAN: Duration = Duration::from_secs(2);
const ROUNDS: usize = 7;
const AT_ONCE: usize = 64;
/// How long the service takes.
const SERVICE: Duration = Duration::from_millis(1);

fn main() -> Result<()> {
    // On the disk that the journal would be on, not in a /tmp that may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let service = serve()?;
    fs::create_dir_all(folder.path().join("sagas"))?;
    for durability in ["disk", "none"] {
        fs::write(
            folder.path().join(format!("sagas/{durability}.toml")),
            saga(durability, service),
        )?;
    }
    let qbox = Qbox::start(folder.path(), "")?;
    let mut measured: [[Vec<Found>; 2]; 2] = Default::default();
    for round in 0..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for (at_once, measured) in [1, AT_ONCE].into_iter().zip(&mut measured) {
            for (durability, measured) in ["disk", "none"].into_iter().zip(measured) {
                let found = load(qbox.listen, durability, at_once)?;
                // The first round is for the caches.
                if round > 0 {
                    measured.push(found);
                }
            }
        }
    }
    println!("| sagas at once | disk: rate, p50 / p99 | none: rate, p50 / p99 | disk to none: p50, rate |");
    println!("|---|---|---|---|");
    for (at_once, [disk, none]) in [1, AT_ONCE].into_iter().zip(&measured) {
        let [disk, none] = [disk, none]
            .map(|rounds: &Vec<Found>| [0, 1, 2].map(|what| median(rounds.iter().map(|found| found[what]))));
        let show = |[rate, half, most]: [f64; 3]| format!("{rate:.0}/s, {half:.2} / {most:.2} ms");
        let (slower, fewer) = (disk[1] / none[1], disk[0] / none[0]);
        println!(
            "| {at_once} | {} | {} | {slower:.2}, {fewer:.2} |",
            show(disk),
            show(none)
        );
    }
    println!(
        "Qbox (process {}) was ready after {:.2?} and has {} MiB.",
        qbox.id(),
        qbox.ready,
        qbox.kilobytes("VmRSS:")? >> 10
    );
    ensure!(qbox.is_ready(), "it is no longer ready");
    Ok(())
}

fn saga(durability: &str, service: SocketAddr) -> String {
    let step = |name: &str| {
        format!(
            "[[step]]\nname = \"{name}\"\n\
             request = {{ method = \"PUT\", url = \"http://{service}/{name}/${{saga.id}}\", json = {{ trip = \"${{trigger.path.id}}\" }} }}\n\
             [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"http://{service}/{name}/${{saga.id}}\" }}\n"
        )
    };
    let steps = ["hotel", "car", "flight"].map(step).concat();
    format!(
        "name = \"{durability}\"\norder = \"sequential\"\ndurability = \"{durability}\"\n\
         [trigger]\nmethod = \"POST\"\nurl = \"http://trips.default.svc/{durability}/{{id}}\"\n{steps}"
    )
}

/// A service that answers everything with 200.
fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // One that breaks is Qbox's to tell of.
            thread::spawn(move || drop(answer(&connection)));
        }
    });
    Ok(address)
}

fn answer(connection: &TcpStream) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut from = BufReader::new(connection);
    let mut to = connection;
    while message(&mut from)?.is_some() {
        thread::sleep(SERVICE);
        to.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}",
        )?;
    }
    Ok(())
}

/// Reads a message whole, and gives its first line; `None` at the connection's end.
fn message(from: &mut impl BufRead) -> Result<Option<String>> {
    let mut first = String::new();
    if from.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(from.read_line(&mut line)? > 0, "a head without an end");
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some(first))
}

/// Sagas per second, and how long one took: median and 99th percentile in milliseconds.
type Found = [f64; 3];

fn load(qbox: SocketAddr, durability: &str, at_once: usize) -> Result<Found> {
    let begun = Instant::now();
    let mut waits = thread::scope(|scope| {
        let clients: Vec<_> = (0..at_once)
            .map(|_| scope.spawn(|| client(qbox, durability, begun)))
            .collect();
        let mut waits = Vec::new();
        for client in clients {
            waits.extend(
                client
                    .join()
                    .map_err(|_| anyhow::anyhow!("a client panicked"))??,
            );
        }
        Ok::<_, anyhow::Error>(waits)
    })?;
    let took = begun.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |share: f64| -> Result<f64> {
        let place = (waits.len() as f64 * share) as usize;
        Ok(waits.get(place).context("no saga was run")?.as_secs_f64() * 1000.0)
    };
    Ok([waits.len() as f64 / took, at(0.5)?, at(0.99)?])
}

fn client(qbox: SocketAddr, durability: &str, begun: Instant) -> Result<Vec<Duration>> {
    let connection = TcpStream::connect(qbox)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut from = BufReader::new(&connection);
    let mut to = &connection;
    let body = r#"{"guest":"Ada","nights":3}"#;
    let request = format!(
        "POST /{durability}/7 HTTP/1.1\r\nHost: trips.default.svc\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut waits = Vec::new();
    while begun.elapsed() < SPAN {
        let sent = Instant::now();
        to.write_all(request.as_bytes())?;
        let first = message(&mut from)?.context("Qbox has closed the connection")?;
        ensure!(first.starts_with("HTTP/1.1 200"), "{first}");
        waits.push(sent.elapsed());
    }
    Ok(waits)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
