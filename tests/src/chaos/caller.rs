//! The callers: a process inside a pod, whose plain requests the kernel turns to Qbox. It is told on its standard input how
//! many trips may have begun by now, and says on its standard output what each trip's caller was answered, a JSON object a
//! line ([`super::record`]).
//!
//! A caller does what a careful client does: it asks again, with the same key, until it has an answer. What comes from the
//! service itself, past a Qbox that is not there, is none.

use super::draw::Draw;
use super::record::{Heard, Record};
use super::trip::{Caller, Trip};
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::io::{BufRead, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{io, process, thread};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// What the sagas' triggers are addressed to.
const HOST: &str = "trips.default.svc:8080";

/// How long one request may go without an answer; longer than any saga of the trial may take.
const PATIENCE: Duration = Duration::from_secs(100);

/// No caller has to wait for longer once Qbox is left alone.
pub(super) const LONGEST: Duration = Duration::from_secs(260);

/// How long a caller asks again and again before it gives up.
const PERSEVERANCE: Duration = Duration::from_secs(150);

/// Which trips this process has the callers of.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// What all is drawn from.
    pub seed: u64,
    /// Its trips are `first`, `first + of`, `first + 2 * of`, …
    pub first: u64,
    /// How many such processes there are.
    pub of: u64,
    /// All trips are below this.
    pub trips: u64,
    /// How many callers there are at once.
    pub at_once: u64,
}

impl Share {
    /// As `qbox-chaos` reads it.
    pub(super) fn to_words(self) -> Vec<String> {
        let Self {
            seed,
            first,
            of,
            trips,
            at_once,
        } = self;
        let numbers = [
            ("seed", seed),
            ("first", first),
            ("of", of),
            ("trips", trips),
            ("at-once", at_once),
        ];
        let words = numbers
            .into_iter()
            .map(|(name, number)| format!("--{name}={number}"));
        ["callers".to_owned()].into_iter().chain(words).collect()
    }
}

/// Runs until all trips of the share are over, or standard input ends.
///
/// # Errors
/// The host's name isn't known, or nobody reads the output.
pub fn run(share: Share) -> Result<()> {
    let hosts: Vec<_> = HOST.to_socket_addrs().context("no address of `trips`")?.collect();
    let (allow, allowed) = watch::channel(0);
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let number = line.ok().and_then(|line| line.parse::<u64>().ok());
            let Some(number) = number else { break };
            allow.send_replace(number);
        }
        // Whoever started this has gone.
        process::exit(1);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let next = Arc::new(AtomicU64::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..share.at_once {
            let work = Work {
                share,
                hosts: hosts.clone(),
                next: Arc::clone(&next),
                allowed: allowed.clone(),
            };
            callers.spawn(work.run());
        }
        while let Some(ended) = callers.join_next().await {
            ended??;
        }
        Ok(())
    })
}

/// One caller after the other.
struct Work {
    share: Share,
    hosts: Vec<SocketAddr>,
    next: Arc<AtomicU64>,
    allowed: watch::Receiver<u64>,
}

impl Work {
    async fn run(mut self) -> Result<()> {
        let mut line = Line::default();
        loop {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let number = turn * self.share.of + self.share.first;
            if number >= self.share.trips {
                return Ok(());
            }
            self.allowed.wait_for(|allowed| number < *allowed).await?;
            let trip = Trip::of(self.share.seed, number);
            line.host = self
                .hosts
                .get(usize::try_from(number)? % self.hosts.len().max(1))
                .copied();
            let record = self.accompany(&trip, &mut line).await;
            let mut text = record.to_line();
            text.push('\n');
            io::stdout().lock().write_all(text.as_bytes())?;
        }
    }

    async fn accompany(&self, trip: &Trip, line: &mut Line) -> Record {
        let mut draw = Draw::of(self.share.seed, "caller", trip.number);
        let mut record = Record::of(trip.number);
        let moment = |draw: &mut Draw, most| Duration::from_millis(draw.below(most));
        match trip.caller {
            Caller::Patient => insist(trip, line, &mut record).await,
            Caller::Again => {
                insist(trip, line, &mut record).await;
                sleep(moment(&mut draw, 1500)).await;
                insist(trip, line, &mut record).await;
            }
            Caller::Twice => {
                let mut other = Line {
                    host: line.host,
                    kept: None,
                };
                let mut second = Record::of(trip.number);
                tokio::join!(
                    insist(trip, line, &mut record),
                    insist(trip, &mut other, &mut second)
                );
                record.join(second);
            }
            Caller::Returns | Caller::Leaves => {
                let patience = moment(&mut draw, 60);
                line.kept = None;
                // Dropping the request in the middle closes its connection.
                match timeout(patience, ask(trip, line)).await {
                    Ok(heard) => record.heard(heard),
                    Err(_) => line.kept = None,
                }
                if trip.caller == Caller::Returns {
                    sleep(moment(&mut draw, 2500)).await;
                    insist(trip, line, &mut record).await;
                }
            }
        }
        record.left = trip.caller == Caller::Leaves;
        record
    }
}

/// Asks until there is an answer.
async fn insist(trip: &Trip, line: &mut Line, record: &mut Record) {
    let end = Instant::now() + PERSEVERANCE;
    let mut wait = 5;
    while Instant::now() < end {
        let heard = ask(trip, line).await;
        let answered = matches!(heard, Heard::Answer(_));
        record.heard(heard);
        if answered {
            return;
        }
        sleep(Duration::from_millis(wait)).await;
        wait = (wait * 2).min(100);
    }
    record.given_up = true;
}

/// A connection to the host, kept from one request to the next.
#[derive(Default)]
struct Line {
    host: Option<SocketAddr>,
    kept: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    async fn open(&mut self) -> Result<SendRequest<Full<Bytes>>> {
        if let Some(kept) = self.kept.take().filter(|kept| !kept.is_closed()) {
            return Ok(kept);
        }
        let stream = TcpStream::connect(self.host.context("no host")?).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// Asks once.
async fn ask(trip: &Trip, line: &mut Line) -> Heard {
    match timeout(PATIENCE, exchange(trip, line)).await {
        Ok(Ok(heard)) => heard,
        Ok(Err(error)) => Heard::Broken(format!("{error:#}")),
        Err(_) => Heard::Broken(format!("no answer within {PATIENCE:?}")),
    }
}

async fn exchange(trip: &Trip, line: &mut Line) -> Result<Heard> {
    let mut sender = line.open().await?;
    sender.ready().await?;
    let mut request = Request::post(format!("/{}/{}", trip.kind.name(), trip.number)).header("host", HOST);
    if let Some(key) = trip.key() {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Full::new(Bytes::from(trip.wish())))?;
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
    let status = head.status.as_u16();
    let saga = head.headers.get("x-qbox-transactionid");
    let Some(saga) = saga else {
        // Not Qbox's: the connection was made while there was none, and is not captured for as long as it stands.
        return Ok(match status {
            500..600 => Heard::NotNow(status),
            _ => Heard::Answer((status, String::new(), body)),
        });
    };
    // A connection every few trips is enough to be seen, and to be met by a kill while it is idle.
    if !trip.number.is_multiple_of(4) {
        line.kept = Some(sender);
    }
    Ok(match status {
        503 => Heard::NotNow(status),
        _ => Heard::Answer((status, saga.to_str()?.to_owned(), body)),
    })
}
