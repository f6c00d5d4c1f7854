//! What all connections of a proxy share: limits, counters, how many are open, and whether they are to end.

use super::{Counters, Settings};
use crate::upstream::Hosts;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use tokio::sync::Notify;

/// Where the proxy is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub(super) enum Phase {
    /// Serving.
    Running = 0,
    /// Connections end when they have nothing under way.
    Draining = 1,
    /// Connections end.
    Aborting = 2,
}

/// Shared by all connections.
pub(super) struct Inner<H> {
    pub(super) handler: Arc<H>,
    pub(super) settings: Settings,
    pub(super) hosts: Hosts,
    pub(super) counters: Counters,
    phase: AtomicU8,
    next: AtomicU64,
    /// The open connections, each with the waker of its task, so that a drain reaches those that wait. Touched when a
    /// connection opens, first runs and ends; its size is bounded by `settings.connections`.
    open: Mutex<HashMap<u64, Option<Waker>>>,
    ended: Notify,
}

impl<H> std::fmt::Debug for Inner<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Inner")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<H> Inner<H> {
    pub(super) fn new(handler: Arc<H>, settings: Settings, hosts: Hosts) -> Self {
        Self {
            handler,
            settings,
            hosts,
            counters: Counters::default(),
            phase: AtomicU8::new(0),
            next: AtomicU64::new(0),
            open: Mutex::default(),
            ended: Notify::new(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Aborting,
        }
    }

    /// Where a connection is in its life, which may be left before all are.
    pub(super) fn phase_of(&self, left: &AtomicBool) -> Phase {
        match self.phase() {
            Phase::Running if left.load(Ordering::Relaxed) => Phase::Draining,
            phase => phase,
        }
    }

    /// Goes on to `phase`, and has every connection look.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
        self.wake();
    }

    /// Has every connection look.
    pub(super) fn wake(&self) {
        for waker in self.lock().values().flatten() {
            waker.wake_by_ref();
        }
    }

    /// A place for one more connection; `None` when all are taken.
    pub(super) fn admit(&self) -> Option<Open<'_, H>> {
        let mut open = self.lock();
        if open.len() >= self.settings.connections {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        open.insert(id, None);
        drop(open);
        Some(Open { inner: self, id })
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Waits until none is open.
    pub(super) async fn none_open(&self) {
        loop {
            let ended = self.ended.notified();
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Option<Waker>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task of a connection, so that a drain can wake it.
    pub(super) fn set_waker(&self, id: u64, waker: &Waker) {
        if let Some(place) = self.lock().get_mut(&id) {
            *place = Some(waker.clone());
        }
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Open<'a, H> {
    inner: &'a Inner<H>,
    pub(super) id: u64,
}

impl<H> Drop for Open<'_, H> {
    fn drop(&mut self) {
        self.inner.lock().remove(&self.id);
        self.inner.ended.notify_waiters();
    }
}
