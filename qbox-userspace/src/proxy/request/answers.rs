//! Answers that end a connection: a request that can't be read, or has nowhere to go. Each waits for its turn among the
//! responses of the upstream. Errors end as [`RequestEnd`].

use super::super::connection::Failure;
use super::super::reply::{self, Terms};
use super::super::{Handler, sock};
use super::{RequestEnd, RequestSide};
use std::time::SystemTime;

impl<H: Handler> RequestSide<'_, H> {
    /// 502 or the like: a request that passes has nowhere to go.
    pub(super) async fn unreachable(&mut self, failure: &Failure) -> RequestEnd {
        // No upstream, no response: what was noted for this connection is not coming.
        let head = self.link.update(|state| {
            let head = state.awaited.front().is_some_and(|awaited| awaited.head);
            state.awaited.clear();
            head
        });
        self.answer_last(failure.status, &failure.cause, head).await
    }

    /// Answers with a problem after all responses that are due, and ends the connection.
    pub(super) async fn refuse(&mut self, status: u16, message: &str) -> RequestEnd {
        self.answer_last(status, message, false).await
    }

    async fn answer_last(&mut self, status: u16, message: &str, head: bool) -> RequestEnd {
        match self.claim().await {
            Ok(true) => {}
            Ok(false) => return self.unclaimed(),
            Err(end) => return end,
        }
        match self.write_problem(status, message, head).await {
            Ok(()) => RequestEnd::Answered { broken: false },
            Err(end) => end,
        }
    }

    /// Waits until the client has every response that is due, and keeps the upstream's bytes back from then on.
    /// `false`: this connection is not going to carry another response.
    ///
    /// # Errors
    /// The client has broken it.
    pub(super) async fn claim(&mut self) -> Result<bool, RequestEnd> {
        self.link.update(|state| state.taking = true);
        let claimed = self
            .link
            .until_client(|state| {
                if state.opaque || state.lost || state.closing {
                    Some(false)
                } else {
                    state.awaited.is_empty().then_some(true)
                }
            })
            .await?;
        if !claimed {
            self.link.update(|state| state.taking = false);
        }
        Ok(claimed)
    }

    /// How the connection ends when the client can't be given another response.
    pub(super) fn unclaimed(&self) -> RequestEnd {
        // A request that must not reach the upstream has come, and where its answer would begin nobody knows: the
        // client has to send it again on another connection.
        if self.link.peek(|state| state.lost) {
            RequestEnd::Reset
        } else {
            RequestEnd::Stopped
        }
    }

    /// The head is with the upstream already. If nothing of a response is with the client, it gets a 400.
    pub(super) async fn malformed_body(&mut self) -> RequestEnd {
        self.link.inner.counters.errors.malformed.add();
        let silent = self.link.update(|state| {
            state.aborting = true;
            state.awaited.len() == 1 && !state.started
        });
        if !silent {
            return RequestEnd::Reset;
        }
        match self.write_problem(400, "malformed chunked body", false).await {
            Ok(()) => RequestEnd::Answered { broken: true },
            Err(end) => end,
        }
    }

    async fn write_problem(&self, status: u16, message: &str, head: bool) -> Result<(), RequestEnd> {
        let terms = Terms {
            head,
            close: true,
            ..Terms::default()
        };
        let bytes = reply::serialize(&reply::problem(status, message), terms, SystemTime::now());
        sock::write_all(self.link.client, &bytes)
            .await
            .map_err(|_| RequestEnd::ClientBroke)
    }
}
