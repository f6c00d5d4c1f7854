//! A caller's end of a saga: it waits for the reply, or for the end of the runner's patience. Errors: [`Refused`].

use super::registry::Entry;
use super::{Outcome, Refused, Shared, answer};
use crate::saga::{Reply, SagaId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A saga that was started or joined.
#[derive(Debug)]
pub struct SagaHandle {
    /// Its id.
    pub id: SagaId,
    /// Another trigger with the same key had started it.
    pub joined: bool,
    pub(super) outcome: watch::Receiver<Option<Outcome>>,
    pub(super) closing: watch::Receiver<bool>,
}

/// What a saga that ends at the same moment as the drain may take to say so, or one that waits for its lock that it never began.
const LAST_WORD: Duration = Duration::from_millis(50);

impl SagaHandle {
    /// `recorded` reads an outcome that only the journal has.
    pub(super) fn new(
        shared: &Shared,
        entry: &Entry,
        joined: bool,
        recorded: impl FnOnce() -> Outcome,
    ) -> Self {
        Self {
            id: entry.id,
            joined,
            outcome: entry.subscribe().unwrap_or_else(|| answer::given(recorded())),
            closing: shared.closing.subscribe(),
        }
    }

    /// Waits for the reply. Dropping the future changes nothing for the saga.
    ///
    /// # Errors
    /// There is none: see [`Refused`].
    pub async fn reply(mut self) -> Result<Arc<Reply>, Refused> {
        let halted = || Refused::Halted("the runner has gone".to_owned());
        let outcome = self.outcome.wait_for(Option::is_some);
        let closed = async {
            // The sender lives as long as the runner: without one nothing is waited for either.
            drop(self.closing.wait_for(|closing| *closing).await);
            tokio::time::sleep(LAST_WORD).await;
        };
        tokio::select! {
            biased;
            outcome = outcome => outcome
                .map_err(|_| halted())?
                .clone()
                .unwrap_or_else(|| Err(halted())),
            () = closed => Err(Refused::Unfinished),
        }
    }
}
