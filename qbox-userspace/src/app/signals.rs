//! SIGTERM and SIGINT, as they ask a node's program to stop; and SIGHUP, as it asks one to read its files again.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// All three, caught from now on.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
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
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one that asks to stop. At every SIGHUP until then `reload` is called.
    pub(super) async fn next(&mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return tracing::debug!("SIGTERM"),
                _ = self.interrupt.recv() => return tracing::debug!("SIGINT"),
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}
