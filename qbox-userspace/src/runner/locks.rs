//! `lock`: sagas with the same key run one after the other, in order of arrival. Every waiter holds one of the runner's
//! places for sagas in flight, which is what bounds the queues.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The queues, by key. A key is there while it is held.
#[derive(Debug, Default)]
pub(super) struct Locks {
    queues: Mutex<HashMap<String, VecDeque<oneshot::Sender<Held>>>>,
}

/// The lock; dropped, it goes to the next in the queue.
#[derive(Debug)]
pub(super) struct Held {
    locks: Arc<Locks>,
    /// Taken by `drop`.
    key: Option<String>,
}

/// A place in the queue.
#[derive(Debug)]
pub(super) enum Ticket {
    /// Nobody was there.
    Now(Held),
    /// Comes in turn.
    Later(oneshot::Receiver<Held>),
}

impl Locks {
    fn queues(&self) -> MutexGuard<'_, HashMap<String, VecDeque<oneshot::Sender<Held>>>> {
        // Nothing under this lock can panic half-way through a change.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the queue of `key`.
    pub(super) fn enter(self: &Arc<Self>, key: String) -> Ticket {
        let mut queues = self.queues();
        if let Some(queue) = queues.get_mut(&key) {
            queue.retain(|waiter| !waiter.is_closed());
            let (turn, ticket) = oneshot::channel();
            queue.push_back(turn);
            return Ticket::Later(ticket);
        }
        queues.insert(key.clone(), VecDeque::new());
        Ticket::Now(Held {
            locks: Arc::clone(self),
            key: Some(key),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else {
            return;
        };
        loop {
            let next = {
                let mut queues = self.locks.queues();
                match queues.get_mut(&key).and_then(VecDeque::pop_front) {
                    Some(next) => next,
                    None => {
                        queues.remove(&key);
                        return;
                    }
                }
            };
            let held = Self {
                locks: Arc::clone(&self.locks),
                key: Some(key.clone()),
            };
            match next.send(held) {
                Ok(()) => return,
                // That one has given up; it must not pass the lock on by itself, or the queue would be walked twice.
                Err(mut held) => held.key = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn turn(ticket: Ticket) -> Held {
        match ticket {
            Ticket::Now(held) => held,
            Ticket::Later(later) => later.await.unwrap(),
        }
    }

    #[tokio::test]
    async fn first_come_first_served_per_key() {
        let locks = Arc::new(Locks::default());
        let a = turn(locks.enter("7".to_owned())).await;
        let other = turn(locks.enter("8".to_owned())).await;
        let b = locks.enter("7".to_owned());
        let gone = locks.enter("7".to_owned());
        let Ticket::Later(mut c) = locks.enter("7".to_owned()) else {
            panic!("the lock is held");
        };
        drop(gone);
        drop(a);
        let b = turn(b).await;
        assert!(c.try_recv().is_err());
        drop(b);
        drop(c.try_recv().unwrap());
        drop(other);
        assert!(locks.queues().is_empty());
    }

    #[tokio::test]
    async fn a_turn_that_comes_to_one_who_left_goes_on() {
        let locks = Arc::new(Locks::default());
        let a = turn(locks.enter("7".to_owned())).await;
        let b = locks.enter("7".to_owned());
        drop(a); // b has the lock in its mailbox, and never looks.
        let c = locks.enter("7".to_owned());
        drop(b);
        let _c = turn(c).await;
    }
}
