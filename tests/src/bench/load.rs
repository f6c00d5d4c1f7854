//! The client, a process of its own in a pod: threads with one kept connection each.
//!
//! Open: requests are due at fixed moments, and how long one took counts from when it was due, whatever held it up (no
//! coordinated omission). Closed: each client sends its next request when it has the answer.

use super::message;
use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Threads of an open load: so many requests can be late at once before others wait behind them.
const OPEN: u32 = 16;

/// How requests follow on one another.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// So many are due each second.
    Open {
        /// How many.
        per_second: u32,
    },
    /// So many clients wait for their answers.
    Closed {
        /// How many.
        clients: u32,
    },
}

/// What a load has shown.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests that were answered.
    pub count: u64,
    /// Of them in a second.
    pub rate: f64,
    /// How long one took: the median, in milliseconds.
    pub p50: f64,
    /// The 99th percentile, in milliseconds.
    pub p99: f64,
    /// The client's own processor time for each, in microseconds.
    pub cpu: f64,
}

impl Load {
    /// As `Load::from_line` reads it.
    #[must_use]
    pub fn to_line(&self) -> String {
        let Self {
            count,
            rate,
            p50,
            p99,
            cpu,
        } = self;
        format!("{count} {rate} {p50} {p99} {cpu}")
    }

    /// # Errors
    /// It is none.
    pub(super) fn from_line(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let mut next = || -> Result<f64> { Ok(words.next().context("half a result")?.parse()?) };
        Ok(Self {
            count: next()? as u64,
            rate: next()?,
            p50: next()?,
            p99: next()?,
            cpu: next()?,
        })
    }

    /// Of how long each took, all within `took`.
    fn of(mut waits: Vec<Duration>, took: Duration, cpu: f64) -> Result<Self> {
        waits.sort_unstable();
        let at = |share: f64| -> Result<f64> {
            let place = (waits.len() as f64 * share) as usize;
            Ok(waits.get(place).context("nothing was sent")?.as_secs_f64() * 1000.0)
        };
        Ok(Self {
            count: waits.len() as u64,
            rate: waits.len() as f64 / took.as_secs_f64(),
            p50: at(0.5)?,
            p99: at(0.99)?,
            cpu: cpu / waits.len() as f64,
        })
    }
}

/// Sends `POST path` to `address` for `span`. Every answer must be 200.
///
/// # Errors
/// One isn't, or a connection breaks.
pub fn run(address: SocketAddr, (host, path): (&str, &str), kind: Kind, span: Duration) -> Result<Load> {
    let request = request(host, path);
    let threads = match kind {
        Kind::Open { .. } => OPEN,
        Kind::Closed { clients } => clients,
    };
    let connections = connect(address, &request, threads)?;
    let (begun, before) = (Instant::now(), own_time());
    let waits = thread::scope(|scope| {
        let each = (0..).zip(connections).map(|(number, client)| {
            scope.spawn(move || match kind {
                Kind::Open { per_second } => client.open(begun, number, per_second, span),
                Kind::Closed { .. } => client.closed(begun, span),
            })
        });
        let mut waits = Vec::new();
        for thread in each.collect::<Vec<_>>() {
            let ended = thread.join();
            waits.extend(ended.map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok::<_, anyhow::Error>(waits)
    })?;
    Load::of(waits, begun.elapsed(), own_time() - before)
}

/// The same without a pause between `windows` windows of `span`: `per_second` are due each second, and `show` is told of each window when
/// the last of its requests has been answered.
///
/// # Errors
/// As [`run`].
pub fn windows(
    address: SocketAddr,
    (host, path): (&str, &str),
    per_second: u32,
    (windows, span): (u32, Duration),
    mut show: impl FnMut(Load),
) -> Result<()> {
    let request = request(host, path);
    let connections = connect(address, &request, OPEN)?;
    let (begun, mut before) = (Instant::now(), own_time());
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, client) in (0..).zip(connections) {
            let tell = tell.clone();
            threads
                .push(scope.spawn(move || client.windows(begun, number, per_second, (windows, span), &tell)));
        }
        drop(tell);
        let mut waits: Vec<Vec<Duration>> = Vec::new();
        let mut parts = vec![0; windows as usize];
        waits.resize(windows as usize, Vec::new());
        for (window, part) in told {
            let window: usize = window;
            let (Some(all), Some(count)) = (waits.get_mut(window), parts.get_mut(window)) else {
                continue;
            };
            all.extend::<Vec<Duration>>(part);
            *count += 1;
            if *count == OPEN {
                let now = own_time();
                show(Load::of(std::mem::take(all), span, now - before)?);
                before = now;
            }
        }
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    })
}

fn request(host: &str, path: &str) -> String {
    let body = r#"{"guest":"Ada","nights":3}"#;
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Every connection stands, and has carried a request, before anything counts.
fn connect(address: SocketAddr, request: &str, count: u32) -> Result<Vec<Client<'_>>> {
    (0..count).map(|_| Client::new(address, request)).collect()
}

/// This process's time on processors so far, in microseconds.
fn own_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

struct Client<'a> {
    connection: TcpStream,
    request: &'a str,
    buffer: Vec<u8>,
}

impl<'a> Client<'a> {
    fn new(address: SocketAddr, request: &'a str) -> Result<Self> {
        let connection = TcpStream::connect(address)?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut client = Self {
            connection,
            request,
            buffer: Vec::with_capacity(4096),
        };
        client.ask()?;
        Ok(client)
    }

    fn ask(&mut self) -> Result<()> {
        self.connection.write_all(self.request.as_bytes())?;
        let mut part = [0; 4096];
        loop {
            if let Some(length) = message::length(&self.buffer)? {
                let fine = self.buffer.starts_with(b"HTTP/1.1 200");
                ensure!(fine, "{}", String::from_utf8_lossy(&self.buffer));
                self.buffer.drain(..length);
                return Ok(());
            }
            let count = self.connection.read(&mut part)?;
            ensure!(count > 0, "the connection was closed");
            self.buffer
                .extend_from_slice(part.get(..count).unwrap_or_default());
        }
    }

    fn open(mut self, begun: Instant, number: u32, per_second: u32, span: Duration) -> Result<Vec<Duration>> {
        let mut waits = Vec::new();
        for turn in (number..).step_by(OPEN as usize) {
            let due = Duration::from_secs(1) * turn / per_second;
            if due >= span {
                break;
            }
            thread::sleep((begun + due).saturating_duration_since(Instant::now()));
            self.ask()?;
            waits.push(begun.elapsed().saturating_sub(due));
        }
        Ok(waits)
    }

    /// What is due in a window is told of when it is over.
    fn windows(
        mut self,
        begun: Instant,
        number: u32,
        per_second: u32,
        (windows, span): (u32, Duration),
        tell: &mpsc::Sender<(usize, Vec<Duration>)>,
    ) -> Result<()> {
        let mut turns = (u64::from(number)..).step_by(OPEN as usize).peekable();
        // Turns of ten minutes at thousands a second, in nanoseconds, fit.
        let due_at = |turn: u64| Duration::from_nanos(turn * 1_000_000_000 / u64::from(per_second));
        for window in 0..windows {
            let mut waits = Vec::new();
            while let Some(turn) = turns.next_if(|turn| due_at(*turn) < span * (window + 1)) {
                let due = due_at(turn);
                thread::sleep((begun + due).saturating_duration_since(Instant::now()));
                self.ask()?;
                waits.push(begun.elapsed().saturating_sub(due));
            }
            // Whoever would hear it ends when another client has failed.
            drop(tell.send((window as usize, waits)));
        }
        Ok(())
    }

    fn closed(mut self, begun: Instant, span: Duration) -> Result<Vec<Duration>> {
        let mut waits = Vec::new();
        while begun.elapsed() < span {
            let sent = Instant::now();
            self.ask()?;
            waits.push(sent.elapsed());
        }
        Ok(waits)
    }
}
