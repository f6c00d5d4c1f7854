//! Ctrl-C and its like, as something that can be asked for and waited for.

use anyhow::{Context, Result};
use std::cell::Cell;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// The wish to end.
#[derive(Debug)]
pub(crate) struct Stop {
    signals: Receiver<()>,
    asked: Cell<bool>,
}

impl Stop {
    /// From now on SIGINT, SIGTERM and SIGHUP no longer end this process.
    pub(crate) fn on_signals() -> Result<Self> {
        let (sender, signals) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime")?;
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [mut interrupt, mut terminate, mut hangup] = {
            let _inside = runtime.enter();
            let [a, b, c] = kinds.map(signal);
            [a?, b?, c?]
        };
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            // Nobody waits any more if the program is ending already.
            let _ = sender.send(());
        })?;
        Ok(Self {
            signals,
            asked: Cell::new(false),
        })
    }

    /// Whether a signal has come.
    pub(crate) fn asked(&self) -> bool {
        self.within(Duration::ZERO)
    }

    /// Waits for a signal, and says whether one has come.
    pub(crate) fn within(&self, time: Duration) -> bool {
        if !self.asked.get() {
            let none = self.signals.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
            self.asked.set(!none);
        }
        self.asked.get()
    }
}
