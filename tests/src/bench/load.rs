//! The client, a process of its own in a pod: threads with one kept connection each.
//!
//! Open: requests are due at fixed moments, and how long one took counts from when it was due, whatever held it up (no
//! coordinated omission). Closed: each client sends its next request when it has the answer.

use super::message;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
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
}

impl Load {
    /// As `Load::from_line` reads it.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("{} {} {} {}", self.count, self.rate, self.p50, self.p99)
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
        })
    }
}

/// Sends `POST path` to `address` for `span`. Every answer must be 200.
///
/// # Errors
/// One isn't, or a connection breaks.
pub fn run(address: SocketAddr, (host, path): (&str, &str), kind: Kind, span: Duration) -> Result<Load> {
    let body = r#"{"guest":"Ada","nights":3}"#;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let threads = match kind {
        Kind::Open { .. } => OPEN,
        Kind::Closed { clients } => clients,
    };
    // Every connection stands, and has carried a request, before anything counts.
    let connections = (0..threads)
        .map(|_| Client::new(address, &request))
        .collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let mut waits = thread::scope(|scope| {
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
    let took = begun.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |share: f64| -> Result<f64> {
        let place = (waits.len() as f64 * share) as usize;
        Ok(waits.get(place).context("nothing was sent")?.as_secs_f64() * 1000.0)
    };
    Ok(Load {
        count: waits.len() as u64,
        rate: waits.len() as f64 / took,
        p50: at(0.5)?,
        p99: at(0.99)?,
    })
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
