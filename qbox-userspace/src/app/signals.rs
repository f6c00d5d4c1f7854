//! SIGTERM and SIGINT, as they ask a node's program to stop.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both, caught from now on.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them.
    ///
    /// # Errors
    /// As signalfd(2): the process has no file descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::debug!("SIGTERM"),
            _ = self.interrupt.recv() => tracing::debug!("SIGINT"),
        }
    }
}
