//! How many of something there are, and the moment when there are none: one atomic step for each that comes or goes. No errors.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Count {
    number: AtomicUsize,
    none: Notify,
}

impl Count {
    /// One more.
    pub(super) fn add(&self) {
        self.number.fetch_add(1, Ordering::SeqCst);
    }

    /// One of those that were added is none any more.
    pub(super) fn remove(&self) {
        if self.number.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.none.notify_waiters();
        }
    }

    pub(super) fn get(&self) -> usize {
        self.number.load(Ordering::SeqCst)
    }

    /// Waits until there are none, if only for a moment.
    pub(super) async fn none(&self) {
        loop {
            // Whoever is the last after this is heard.
            let mut none = std::pin::pin!(self.none.notified());
            none.as_mut().enable();
            if self.get() == 0 {
                return;
            }
            none.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn the_last_to_go_is_heard() {
        let count = Arc::new(Count::default());
        count.none().await;
        (0..3).for_each(|_| count.add());
        let waits = tokio::spawn({
            let count = Arc::clone(&count);
            async move { count.none().await }
        });
        while count.get() > 0 {
            assert!(!waits.is_finished());
            tokio::task::yield_now().await;
            count.remove();
        }
        waits.await.unwrap();
    }
}
