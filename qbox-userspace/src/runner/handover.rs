//! The journal goes from one Qbox to the next while both run: what the new one holds back until it has it, and how the old
//! one lets go of its sagas. No errors of its own.

use super::Runner;
use std::time::Duration;

/// How long tasks that are told to end may take to notice. What they were doing is over by then, or was an append, which
/// the journal's own lock orders before its closing.
const NOTICE: Duration = Duration::from_secs(2);

impl Runner {
    /// Triggers wait in [`Runner::ready`] from now on, until [`Runner::resume`].
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// The journal is here, and what it held is taken up: triggers wait no more.
    pub fn resume(&self) {
        self.shared.held.send_replace(false);
    }

    /// Waits until sagas can begin. How long is for the one who holds them back to bound.
    pub async fn ready(&self) {
        if !*self.shared.held.borrow() {
            return;
        }
        let mut held = self.shared.held.subscribe();
        // The sender lives as long as the runner.
        drop(held.wait_for(|held| !*held).await);
    }

    /// Lets go of every saga that has not ended, as a crash would, and then of the journal: another Qbox takes them up. Calls
    /// in flight are broken off, and what became of them is unknown. For after a [`Runner::drain`].
    pub async fn release(&self) {
        self.shared.released.send_replace(true);
        drop(tokio::time::timeout(NOTICE, self.shared.tasks.none()).await);
        let journal = std::sync::Arc::clone(&self.shared.journal);
        // It waits for the disk. It fails only when the runtime stops, and then the journal is closed with the process.
        drop(tokio::task::spawn_blocking(move || journal.close()).await);
    }
}
