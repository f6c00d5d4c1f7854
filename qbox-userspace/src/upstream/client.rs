//! The client: one call, one [`End`]. Waits for its turn, finds an idle connection or makes one, sends, reads, and says what is
//! certain.

use super::circuit::Breaker;
use super::dial::{Via, dial};
use super::exchange::{Fault, Prepared, Reuse, is_framing};
use super::gate::{self, Gate, Pass, Stats};
use super::http2;
use super::linger::{Late, Lingering, Talk};
use super::pool::{Bounds, Key, Pool};
use super::resolve::{Hosts, resolve};
use super::services::{Known, Services};
use super::target::Target;
use super::tls::Tls;
use super::token::is_token;
use super::wire::Wire;
use arc_swap::ArcSwap;
use bytes::{BufMut, Bytes, BytesMut};
use smol_str::SmolStr;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

/// The client's limits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names that are looked up here before the system's resolver is asked.
    pub hosts: Hosts,
    /// The worker threads that call: each keeps idle connections of its own.
    pub workers: usize,
    /// Idle connections kept per service, shared out among the workers.
    pub max_idle_per_upstream: usize,
    /// Idle connections kept in all.
    pub max_idle: usize,
    /// How long one is kept: below the 5 s after which common servers (Node's) close, so that a request seldom meets a
    /// connection that is just being closed.
    pub idle_timeout: Duration,
    /// How long one address may take to accept a connection; the call's own timeout holds too.
    pub connect_timeout: Duration,
    /// Calls in flight in all; more wait, in order of arrival, for half of their own timeout at the most.
    pub max_calls: usize,
    /// Calls in flight to one service (`host:port`, and for a forwarded trigger the address, from each pod); more wait likewise.
    pub max_calls_per_upstream: usize,
    /// When connecting to a service is given up for a while.
    pub breaker: Breaker,
    /// The most of an answer's body that is kept, in bytes.
    pub response_body: usize,
    /// How long a call that was sent whole is listened to when its time is over; zero: its connection is closed then.
    pub linger: Duration,
    /// How many are, at once; the connections of others are closed.
    pub max_lingering: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hosts: Hosts::default(),
            workers: 1,
            max_idle_per_upstream: 256,
            max_idle: 4096,
            idle_timeout: Duration::from_secs(4),
            connect_timeout: Duration::from_secs(5),
            max_calls: 4096,
            max_calls_per_upstream: 256,
            breaker: Breaker::default(),
            response_body: 1024 * 1024,
            linger: Duration::from_secs(10),
            max_lingering: 1000,
        }
    }
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// As `PUT`.
    pub method: &'a str,
    /// Absolute; `Host` is its authority.
    pub url: &'a str,
    /// Sent in this order and case; those that frame the body or belong to the connection, and `Host`, are left out.
    pub headers: &'a [(SmolStr, Bytes)],
    /// The whole body.
    pub body: Bytes,
    /// From where the connection leaves.
    pub via: &'a Via,
    /// Go here, whatever the URL's host is; `None`: look the host up.
    pub destination: Option<SocketAddr>,
    /// Over HTTP/2, which the service is known to speak in the clear; `https` is HTTP/1.1 all the same.
    pub http2: bool,
    /// The whole exchange, from the wait for a place to the answer's last byte.
    pub timeout: Duration,
    /// Show the service the credentials that are known for it. Not with what somebody else has sent, to where it wants.
    pub credentials: bool,
    /// Waits, as for a place, where the service's circuit is open. Others are turned away at once.
    pub patient: bool,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599.
    pub status: u16,
    /// In order, names as sent, without those that frame the body or belong to the connection.
    pub headers: Vec<(SmolStr, Bytes)>,
    /// Up to [`Settings::response_body`] bytes.
    pub body: Bytes,
    /// There was more.
    pub truncated: bool,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Certainly not a byte of it left this machine, or nobody has read it: the service refused the TLS that it came under.
    /// Says why.
    NotSent(String),
    /// Nor here, and nobody tried: as many calls as may be are in flight, or the service's circuit is open. Says which.
    Held(String),
    /// No whole answer in time, after at least one byte was written.
    TimedOut,
    /// The connection broke or the answer was no HTTP, after at least one byte was written. Says how.
    Broken(String),
    /// A whole answer.
    Answered(Answer),
}

/// The client. Cheap to clone; all clones share the idle connections.
#[derive(Debug, Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    pool: Arc<Pool>,
    gate: Gate,
    lingering: Lingering,
    /// Answers that were longer than is kept of them.
    cut: AtomicU64,
    services: ArcSwap<Services>,
    /// TLS with whom nothing is known of; made when it is first asked for.
    common: OnceCell<Tls>,
}

impl Upstream {
    /// A client with no connection yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let bounds = Bounds {
            per_key: settings.max_idle_per_upstream,
            total: settings.max_idle,
            idle: settings.idle_timeout,
        };
        let pool = Pool::new(bounds, settings.workers);
        let gate = Gate::new(gate::Bounds {
            per_key: settings.max_calls_per_upstream,
            total: settings.max_calls,
            breaker: settings.breaker,
        });
        Self {
            shared: Arc::new(Shared {
                lingering: Lingering::new(settings.linger, settings.max_lingering),
                cut: AtomicU64::new(0),
                settings,
                pool,
                gate,
                services: ArcSwap::default(),
                common: OnceCell::new(),
            }),
        }
    }

    /// From now on these are known; idle connections that were made with other certificates are not used again.
    pub fn know(&self, services: Arc<Services>) {
        self.shared.services.store(services);
    }

    /// Sends a request once and waits for its end. (Once: only where an idle connection turns out to be dead before it took
    /// a byte is a fresh one tried.) Dropping the future closes the connection. With [`End::TimedOut`] comes the exchange
    /// itself, where it may be listened to for longer; dropping that closes the connection too.
    pub async fn call(&self, call: Outgoing<'_>) -> (End, Option<Late>) {
        let target = match Target::parse(call.url) {
            Ok(target) => target,
            Err(error) => return (End::NotSent(error.to_string()), None),
        };
        let Shared {
            settings, pool, gate, ..
        } = &*self.shared;
        let known = self
            .shared
            .services
            .load()
            .find(target.host, target.port)
            .cloned();
        let key = Key::new(call.via, place(&call, &target), target.secure);
        let deadline = Instant::now() + call.timeout;
        // What is sent when the time is nearly over has an outcome that nobody knows: half of it is left.
        let turn = Instant::now() + call.timeout / 2;
        let mut pass = match gate.enter(&key, call.patient, turn).await {
            Ok(pass) => pass,
            Err(cause) => return (End::Held(cause), None),
        };
        // Thousands may wait at the gate: what an exchange needs is made behind it, and on the heap.
        let credentials = known.as_ref().filter(|_| call.credentials);
        let credentials = credentials.map_or(&[][..], |known| &known.credentials);
        let prepared = match prepare(&call, &target, credentials) {
            Ok(prepared) => prepared,
            Err(cause) => return (End::NotSent(cause.to_owned()), None),
        };
        if call.http2 && !target.secure {
            let end = Box::pin(self.over_http2(&call, &target, &mut pass, deadline)).await;
            return (end, None);
        }
        let late = || format!("no connection to {} within {:?}", key.place(), call.timeout);
        let tls = match target.secure {
            false => None,
            true => match Box::pin(self.tls(known.as_deref())).await {
                Ok(tls) => Some(tls),
                Err(cause) => return (End::NotSent(cause), None),
            },
        };
        let mut fresh = false;
        loop {
            let mut idle = if fresh { None } else { pool.take(&key) };
            while idle.as_ref().is_some_and(|wire| !wire.is_as(tls.as_ref())) {
                idle = pool.take(&key);
            }
            fresh = idle.is_none();
            let stream = match idle {
                Some(stream) => stream,
                None => {
                    let connect = Box::pin(connect(settings, &call, &target, tls.as_ref(), deadline));
                    let connected = timeout_at(deadline, connect).await;
                    match connected.unwrap_or_else(|_| Err(late())) {
                        Ok(stream) => stream,
                        Err(cause) => {
                            pass.failed(&cause);
                            return (End::NotSent(cause), None);
                        }
                    }
                }
            };
            if fresh {
                pass.connected();
            }
            let mut talk = Talk::new(stream, prepared.clone(), settings.response_body);
            let ended = talk.by(deadline).await;
            if ended.is_some() && talk.has_begun() {
                pass.connected();
            }
            return match ended {
                Some((Err(fault), _)) if fresh && fault.is_refusal() => {
                    (End::NotSent(fault.to_string()), None)
                }
                Some((result, stream)) if result.is_ok() || talk.has_begun() => {
                    (self.finish(result, &key, stream), None)
                }
                Some((Err(fault), _)) if fresh => (End::NotSent(fault.to_string()), None),
                Some(_) => {
                    fresh = true;
                    continue;
                }
                None if !talk.has_begun() => {
                    let cause = late();
                    pass.failed(&cause);
                    (End::NotSent(cause), None)
                }
                None => {
                    // Its place is the next one's.
                    drop(pass);
                    (End::TimedOut, self.shared.lingering.enter(talk, key, self))
                }
            };
        }
    }

    /// On a connection of its own. What comes after its time is not listened to.
    async fn over_http2(
        &self,
        call: &Outgoing<'_>,
        target: &Target<'_>,
        pass: &mut Pass<'_>,
        deadline: Instant,
    ) -> End {
        let settings = &self.shared.settings;
        let connected = timeout_at(deadline, connect(settings, call, target, None, deadline)).await;
        let late = || Err(format!("no connection within {:?}", call.timeout));
        let stream = match connected.unwrap_or_else(|_| late()) {
            Ok(stream) => stream,
            Err(cause) => {
                pass.failed(&cause);
                return End::NotSent(cause);
            }
        };
        pass.connected();
        let sent = AtomicU64::new(0);
        let exchange = http2::exchange(stream, call, settings.response_body, &sent);
        match timeout_at(deadline, exchange).await {
            Ok(End::Answered(answer)) => self.answered(answer),
            Ok(end) => end,
            Err(_) if sent.load(Ordering::Relaxed) == 0 => {
                End::NotSent("HTTP/2: no hello in time".to_owned())
            }
            Err(_) => End::TimedOut,
        }
    }

    /// How the calls stand.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.shared.gate.stats();
        self.shared.lingering.tell(&mut stats);
        stats.cut = self.shared.cut.load(Ordering::Relaxed);
        stats
    }

    /// How to speak TLS with a service.
    async fn tls(&self, known: Option<&Known>) -> Result<Tls, String> {
        if let Some(tls) = known.and_then(|known| known.tls.clone()) {
            return Ok(tls);
        }
        let made = self.shared.common.get_or_try_init(|| async {
            // It reads the disk.
            let made = tokio::task::spawn_blocking(|| Tls::new(None, None)).await;
            made.map_err(|error| error.to_string())?
                .map_err(|wrong| wrong.into_why())
        });
        made.await.cloned()
    }

    pub(super) fn finish(&self, result: Result<(Answer, Reuse), Fault>, key: &Key, stream: Wire) -> End {
        match result {
            Ok((answer, reuse)) => {
                if let Reuse::For(said) = reuse {
                    self.shared.pool.put(key.clone(), stream, said);
                }
                self.answered(answer)
            }
            Err(fault) => End::Broken(fault.to_string()),
        }
    }

    fn answered(&self, answer: Answer) -> End {
        if answer.truncated {
            self.shared.cut.fetch_add(1, Ordering::Relaxed);
        }
        End::Answered(answer)
    }

    pub(super) fn lingering(&self) -> &Lingering {
        &self.shared.lingering
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.shared.pool.len()
    }
}

/// What the connection is known by, for the gate, the pool and for people.
fn place(call: &Outgoing<'_>, target: &Target<'_>) -> String {
    match call.destination {
        Some(address) => address.to_string(),
        None => format!("{}:{}", target.host, target.port),
    }
}

async fn connect(
    settings: &Settings,
    call: &Outgoing<'_>,
    target: &Target<'_>,
    tls: Option<&Tls>,
    deadline: Instant,
) -> Result<Wire, String> {
    let addresses = match call.destination {
        Some(address) => vec![address],
        None => resolve(&settings.hosts, target.host, target.port)
            .await
            .map_err(|e| format!("{} can't be resolved: {e}", target.host))?,
    };
    let mut last = String::new();
    for (at, address) in addresses.iter().enumerate() {
        // An address that swallows packets leaves the others their share of the time.
        let share = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - at) as u32;
        let share = share.min(settings.connect_timeout);
        let made = async {
            let stream = dial(call.via, *address)
                .await
                .map_err(|error| format!("connecting to {address}: {error}"))?;
            let Some(tls) = tls else {
                return Ok(Wire::Plain(stream));
            };
            match tls.handshake(target.host, stream).await {
                Ok(stream) => Ok(Wire::Tls(Box::new(stream), tls.generation)),
                Err(error) => Err(format!("TLS with {} at {address}: {error}", target.host)),
            }
        };
        match timeout_at(Instant::now() + share, Box::pin(made)).await {
            Ok(Ok(wire)) => return Ok(wire),
            Ok(Err(cause)) => last = cause,
            Err(_) => last = format!("connecting to {address}: no answer within {share:.1?}"),
        }
    }
    Err(last)
}

/// Request line, `Host`, the fields, and the framing (RFC 9112, 3 and 6).
///
/// A credential stands in for a field of its name that the message has.
fn prepare(
    call: &Outgoing<'_>,
    target: &Target<'_>,
    credentials: &[(SmolStr, Bytes)],
) -> Result<Prepared, &'static str> {
    if !is_a_token(call.method) {
        return Err("the method is no token");
    }
    let mut head = BytesMut::with_capacity(256 + call.headers.len() * 64);
    for part in [
        call.method,
        " ",
        target.slash(),
        target.rest(),
        " HTTP/1.1\r\nHost: ",
        target.authority,
        "\r\n",
    ] {
        head.put_slice(part.as_bytes());
    }
    let own = call.headers.iter().filter(|(name, _)| {
        let replaced = |(other, _): &(SmolStr, Bytes)| other.eq_ignore_ascii_case(name);
        !credentials.iter().any(replaced)
    });
    for (name, value) in own.chain(credentials) {
        // The body is sent at once, so nothing is to be expected before it.
        if is_framing(name) || name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case("expect") {
            continue;
        }
        if !is_a_token(name) {
            return Err("a header's name is no token");
        }
        if memchr::memchr3(b'\r', b'\n', 0, value).is_some() {
            return Err("a header's value holds a line's end");
        }
        head.put_slice(name.as_bytes());
        head.put_slice(b": ");
        head.put_slice(value);
        head.put_slice(b"\r\n");
    }
    // Where a body has a meaning its absence is said too (RFC 9110, 8.6).
    if !call.body.is_empty() || matches!(call.method, "POST" | "PUT" | "PATCH") {
        let length = write!(head, "Content-Length: {}\r\n", call.body.len());
        length.map_err(|_| "the head is too long")?;
    }
    head.put_slice(b"\r\n");
    Ok(Prepared {
        head: head.freeze(),
        body: call.body.clone(),
        is_head: call.method == "HEAD",
    })
}

fn is_a_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
