//! A participant's HTTP side: hyper on a thread of its own, and the faults that befall its messages.
//!
//! What takes effect, and when, is [`super::ledger`]'s. A request without Qbox's headers has come past Qbox: it is told
//! so with 503, and takes no effect.

use super::fault::{Effect, Fate, Way, Whose};
use super::ledger::{Ask, Effects, Ledger, Message, Policy};
use super::trip::{Kind, Step, Trip, WITHOUT_FENCE};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use socket2::Socket;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a participant that gives no answer holds the connection: longer than any patience in the saga files.
const SILENCE: Duration = Duration::from_secs(4);

/// By guest: the sagas that had effects for it, in order, a saga again each time that it comes after another.
pub(super) type Turns = Arc<Mutex<BTreeMap<u64, Vec<String>>>>;

/// What has gone wrong so far, counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) messages: AtomicU64,
    pub(super) resets: AtomicU64,
    pub(super) silences: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) slow: AtomicU64,
    pub(super) duplicates: AtomicU64,
    /// Requests of callers that came past Qbox.
    pub(super) direct: AtomicU64,
    /// Effects and refusals that came after whoever asked may have given up.
    pub(super) pending: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What a participant's connections share.
struct Shop {
    name: Step,
    seed: u64,
    faults: bool,
    ledger: Mutex<Ledger>,
    turns: Turns,
    tally: Arc<Tally>,
}

/// A participant that listens until it is dropped.
pub(super) struct Participant {
    shop: Arc<Shop>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Participant {
    /// Serves on the listener, which belongs to whatever namespace it was made in.
    pub(super) fn start(
        name: Step,
        (seed, faults): (u64, bool),
        listener: TcpListener,
        turns: Turns,
        tally: Arc<Tally>,
    ) -> Result<Self> {
        let shop = Arc::new(Shop {
            name,
            seed,
            faults,
            ledger: Mutex::new(Ledger::new(name != WITHOUT_FENCE)),
            turns,
            tally,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime")?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&shop);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(accept(listener, served));
                drop(stopped.await);
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        })?;
        Ok(Self {
            shop,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(super) fn name(&self) -> Step {
        self.shop.name
    }

    /// What took effect, by saga.
    pub(super) fn effects(&self) -> BTreeMap<String, Effects> {
        lock(&self.shop.ledger).effects().clone()
    }

    /// How many bookings came too late, and were refused for that.
    pub(super) fn held_off(&self) -> u64 {
        lock(&self.shop.ledger).held_off()
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A panic elsewhere leaves the books as they are.
pub(super) fn lock<T>(books: &Mutex<T>) -> MutexGuard<'_, T> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: tokio::net::TcpListener, shop: Arc<Shop>) {
    loop {
        // Accepting fails for want of descriptors, or because a client was faster: neither is the end.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let shop = Arc::clone(&shop);
        // A client that goes away is its own affair, and a reset is meant.
        tokio::spawn(async move { drop(serve(stream, shop).await) });
    }
}

async fn serve(stream: tokio::net::TcpStream, shop: Arc<Shop>) -> Result<()> {
    let stream = stream.into_std()?;
    // A second descriptor of the same socket, to have it reset when both are closed.
    let socket = Arc::new(Socket::from(stream.try_clone()?));
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let handler = service_fn(move |request| answer(request, Arc::clone(&shop), Arc::clone(&socket)));
    http1::Builder::new()
        .serve_connection(TokioIo::new(stream), handler)
        .await?;
    Ok(())
}

async fn answer(
    request: Request<Incoming>,
    shop: Arc<Shop>,
    socket: Arc<Socket>,
) -> Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    body.collect().await?;
    let Some((message, policy)) = shop.read(&head)? else {
        count(&shop.tally.direct);
        return respond(503, &json!({ "direct": true }));
    };
    let fate = shop.fate(&message);
    if let Some(after) = fate.again {
        count(&shop.tally.duplicates);
        shop.later(after, message.clone(), policy);
    }
    let now = |effect| shop.effect(effect, &message, policy);
    let status = match fate.way {
        Way::Plain => {
            let early = (!fate.after_work).then(|| shop.take(&message, policy));
            tokio::time::sleep(fate.work).await;
            early.unwrap_or_else(|| shop.take(&message, policy))
        }
        Way::Slow(time, effect) => {
            count(&shop.tally.slow);
            let status = now(effect);
            tokio::time::sleep(time).await;
            status.unwrap_or_else(|| shop.take(&message, policy))
        }
        Way::Fails(effect) => {
            count(&shop.tally.failures);
            now(effect);
            500
        }
        Way::Reset(effect) => {
            count(&shop.tally.resets);
            now(effect);
            // Without lingering, close(2) sends RST (socket(7), tcp(7)).
            socket.set_linger(Some(Duration::ZERO))?;
            bail!("reset on purpose");
        }
        Way::Silent(effect) => {
            count(&shop.tally.silences);
            now(effect);
            tokio::time::sleep(SILENCE).await;
            bail!("silent on purpose");
        }
    };
    respond(
        status,
        &json!({ "service": shop.name, "trip": message.trip.to_string(), "status": status }),
    )
}

impl Shop {
    /// Reads a saga's message. `None`: it comes from no saga.
    fn read(&self, head: &hyper::http::request::Parts) -> Result<Option<(Message, Policy)>> {
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let Some(saga) = header("x-qbox-transactionid") else {
            return Ok(None);
        };
        count(&self.tally.messages);
        let last = head.uri.path().rsplit('/').next();
        let number = last.and_then(|number| number.parse().ok());
        let trip = Trip::of(self.seed, number.context("the path ends in no trip")?);
        let ask = match header("x-qbox-message-type") {
            Some("TRANSACTION") => Ask::Book,
            Some("COMPENSATION") => Ask::Cancel,
            Some("PROBE") => Ask::Look,
            other => bail!("a message of type {other:?}"),
        };
        let policy = Policy {
            refuses: trip.refused == Some(self.name),
            sticks: trip.sticks && self.name == "hotel",
        };
        let message = Message {
            ask,
            trip: trip.number,
            key: header("idempotency-key").map(str::to_owned),
            saga: saga.to_owned(),
            guest: (trip.kind == Kind::Locked).then_some(trip.guest),
        };
        Ok(Some((message, policy)))
    }

    fn fate(&self, message: &Message) -> Fate {
        let Message { ask, trip, .. } = *message;
        let mut ledger = lock(&self.ledger);
        let delivery = ledger.deliver(ask, trip);
        let whose = Whose {
            name: self.name,
            faults: self.faults,
            late: self.name != WITHOUT_FENCE,
        };
        Fate::draw(self.seed, &whose, ask, trip, delivery)
    }

    fn take(&self, message: &Message, policy: Policy) -> u16 {
        let mut ledger = lock(&self.ledger);
        let (status, effect) = ledger.take(message, policy);
        if let Some(guest) = message.guest.filter(|_| effect) {
            let mut turns = lock(&self.turns);
            let turns = turns.entry(guest).or_default();
            if turns.last() != Some(&message.saga) {
                turns.push(message.saga.clone());
            }
        }
        status
    }

    /// `None`: nothing has taken effect yet.
    fn effect(self: &Arc<Self>, effect: Effect, message: &Message, policy: Policy) -> Option<u16> {
        match effect {
            Effect::None => None,
            Effect::Now => Some(self.take(message, policy)),
            Effect::Late(after) => {
                self.later(after, message.clone(), policy);
                None
            }
        }
    }

    /// Takes the message after that time, whatever becomes of the connection that it came on.
    fn later(self: &Arc<Self>, after: Duration, message: Message, policy: Policy) {
        let shop = Arc::clone(self);
        count(&shop.tally.pending);
        tokio::spawn(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            shop.take(&message, policy);
            shop.tally.pending.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn respond(status: u16, body: &serde_json::Value) -> Result<Response<Full<Bytes>>> {
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(body.to_string())))?)
}
