//! Who may call a service now: as many calls at once as it is given, in order of arrival, and none while its circuit is
//! open. Asked before a byte is sent, so that whoever is turned away has certainly sent nothing.
//!
//! One door per service, made when it is first called. Idle ones go when there are too many. Knows no HTTP. Being turned away
//! is an `Err` with the reason, for people.

use super::circuit::{Breaker, Circuit, Refusal};
use super::pool::Key;
use foldhash::HashMap;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

/// With more services than this, those that nobody calls are forgotten, with their circuits.
const DOORS: usize = 1024;

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Calls at once to one service.
    pub(super) per_key: usize,
    /// Calls at once in all.
    pub(super) total: usize,
    pub(super) breaker: Breaker,
}

/// How the calls stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Calls in flight.
    pub in_flight: usize,
    /// Calls that wait for a place, or for a circuit to close.
    pub waiting: usize,
    /// Calls that were turned away so far, nothing sent.
    pub held: u64,
    /// Calls so far that found as many in flight to their service as may be.
    pub crowded: u64,
    /// How often a circuit has opened.
    pub opened: u64,
    /// Calls whose time is over, and that are still listened to.
    pub lingering: usize,
    /// Those so far that were not listened to as long as it takes: no place, or no answer in that time either.
    pub unheard: u64,
    /// Of these, those that there was no place for.
    pub unlistened: u64,
    /// Answers so far that were longer than is kept of them.
    pub cut: u64,
    /// The circuits that are open.
    pub open: Vec<OpenCircuit>,
}

/// A circuit that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenCircuit {
    /// To which service: `host:port`, or an address.
    pub upstream: String,
    /// For how long; written as seconds.
    #[serde(serialize_with = "seconds")]
    pub open: Duration,
    /// How the last connect failed.
    pub cause: String,
}

fn seconds<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(span.as_secs())
}

#[derive(Debug)]
pub(super) struct Gate {
    bounds: Bounds,
    all: Arc<Semaphore>,
    doors: Mutex<Doors>,
    waiting: AtomicUsize,
    held: AtomicU64,
    crowded: AtomicU64,
    opened: AtomicU64,
}

#[derive(Debug)]
struct Doors {
    by_key: HashMap<Key, Arc<Door>>,
    /// How many there may be before the idle ones are looked for.
    sweep_at: usize,
}

#[derive(Debug)]
struct Door {
    upstream: String,
    room: Arc<Semaphore>,
    circuit: Mutex<Circuit>,
    /// The circuit has closed, or its trial has ended.
    changed: Notify,
}

/// What a call is given that may go on. Dropped, it gives its place to the next.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    door: Arc<Door>,
    /// It is the trial of an open circuit.
    trial: bool,
    told: bool,
    _places: [OwnedSemaphorePermit; 2],
}

impl Gate {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            all: Arc::new(Semaphore::new(bounds.total.clamp(1, Semaphore::MAX_PERMITS))),
            bounds,
            doors: Mutex::new(Doors {
                by_key: HashMap::default(),
                sweep_at: DOORS,
            }),
            waiting: AtomicUsize::new(0),
            held: AtomicU64::new(0),
            crowded: AtomicU64::new(0),
            opened: AtomicU64::new(0),
        }
    }

    /// Waits for a place, until `until` at the most. Who is `patient` also waits for an open circuit; others are turned away
    /// at once.
    pub(super) async fn enter(&self, key: &Key, patient: bool, until: Instant) -> Result<Pass<'_>, String> {
        let door = self.door(key);
        let _waiting = Waiting::new(&self.waiting);
        let entered = self.wait(door, patient, until).await;
        if entered.is_err() {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    async fn wait(&self, door: Arc<Door>, patient: bool, until: Instant) -> Result<Pass<'_>, String> {
        let mut crowded = false;
        loop {
            // First, so that nobody holds a place that waits for a circuit.
            door.wait_for_circuit(patient, until).await?;
            if !crowded && door.room.available_permits() == 0 {
                crowded = true;
                self.crowded.fetch_add(1, Ordering::Relaxed);
            }
            let place = timeout_at(until, Arc::clone(&door.room).acquire_owned()).await;
            let Ok(Ok(place)) = place else {
                return Err(format!(
                    "as many calls as may be are in flight to {}",
                    door.upstream
                ));
            };
            let Ok(Ok(of_all)) = timeout_at(until, Arc::clone(&self.all).acquire_owned()).await else {
                return Err("as many calls as may be are in flight".to_owned());
            };
            let entered = door.circuit().enter(Instant::now());
            match entered {
                Ok(trial) => {
                    return Ok(Pass {
                        gate: self,
                        door,
                        trial,
                        told: false,
                        _places: [place, of_all],
                    });
                }
                Err(_) if patient => {}
                Err(refusal) => return Err(door.says(&refusal)),
            }
        }
    }

    fn doors(&self) -> MutexGuard<'_, Doors> {
        // Nothing under this lock can panic half-way through a change.
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn door(&self, key: &Key) -> Arc<Door> {
        let mut doors = self.doors();
        if let Some(door) = doors.by_key.get(key) {
            return Arc::clone(door);
        }
        doors.sweep();
        let door = Arc::new(Door {
            upstream: key.place().to_owned(),
            room: Arc::new(Semaphore::new(
                self.bounds.per_key.clamp(1, Semaphore::MAX_PERMITS),
            )),
            circuit: Mutex::default(),
            changed: Notify::new(),
        });
        doors.by_key.insert(key.clone(), Arc::clone(&door));
        door
    }

    pub(super) fn stats(&self) -> Stats {
        let now = Instant::now();
        let doors: Vec<_> = self.doors().by_key.values().cloned().collect();
        let mut open: Vec<_> = doors
            .iter()
            .filter_map(|door| {
                let circuit = door.circuit();
                let (open, cause) = circuit.is_open(now)?;
                Some(OpenCircuit {
                    upstream: door.upstream.clone(),
                    open,
                    cause: cause.to_owned(),
                })
            })
            .collect();
        open.sort_by(|a, b| a.upstream.cmp(&b.upstream));
        let total = self.bounds.total.clamp(1, Semaphore::MAX_PERMITS);
        Stats {
            in_flight: total.saturating_sub(self.all.available_permits()),
            waiting: self.waiting.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
            crowded: self.crowded.load(Ordering::Relaxed),
            opened: self.opened.load(Ordering::Relaxed),
            open,
            // The client's to tell.
            lingering: 0,
            unheard: 0,
            unlistened: 0,
            cut: 0,
        }
    }
}

impl Doors {
    /// Forgets what nobody uses, where there is much of it: first what has nothing to tell, then also what has.
    fn sweep(&mut self) {
        if self.by_key.len() < self.sweep_at {
            return;
        }
        let now = Instant::now();
        let used = |door: &Arc<Door>| Arc::strong_count(door) > 1;
        self.by_key
            .retain(|_, door| used(door) || door.circuit().is_open(now).is_some());
        if self.by_key.len() >= DOORS {
            self.by_key.retain(|_, door| used(door));
        }
        // Where as many are in use, not at every call.
        let in_use = self.by_key.values().filter(|door| used(door)).count();
        self.sweep_at = DOORS.max(in_use.saturating_mul(2));
    }
}

impl Door {
    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn says(&self, refusal: &Refusal) -> String {
        format!(
            "the circuit to {} has been open for {:.1?}: {}",
            self.upstream, refusal.open, refusal.cause
        )
    }

    async fn wait_for_circuit(&self, patient: bool, until: Instant) -> Result<(), String> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From before the look at it, or a change between the two would be missed.
            changed.as_mut().enable();
            let now = Instant::now();
            let Some(refusal) = self.circuit().refuses(now) else {
                return Ok(());
            };
            if !patient || now >= until {
                return Err(self.says(&refusal));
            }
            let next = refusal.until.map_or(until, |next| next.min(until));
            tokio::select! {
                () = changed => {}
                () = sleep_until(next) => {}
            }
        }
    }
}

impl Pass<'_> {
    /// There is a connection.
    pub(super) fn connected(&mut self) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let closed = self.door.circuit().connected(Instant::now());
        if let Some(open) = closed {
            tracing::info!(
                upstream = self.door.upstream,
                ?open,
                "circuit closed: the service takes connections again"
            );
            self.door.changed.notify_waiters();
        }
    }

    /// There is none to be had.
    pub(super) fn failed(&mut self, cause: &str) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let breaker = self.gate.bounds.breaker;
        let opened = self
            .door
            .circuit()
            .failed(breaker, self.trial, cause, Instant::now());
        if opened {
            self.gate.opened.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                upstream = self.door.upstream,
                failures = breaker.failures,
                cause,
                "circuit opened: no calls, but for a trial every {:?}",
                breaker.open_for
            );
        }
        if self.trial {
            self.door.changed.notify_waiters();
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.trial && !self.told {
            self.door.circuit().abandoned();
            self.door.changed.notify_waiters();
        }
    }
}

/// Counts one who waits, however that ends.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
