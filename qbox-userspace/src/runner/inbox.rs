//! Operators' decisions on their way to a saga's task: few at a time, and each is answered, by the task or by its end.

use super::ActError;
use crate::journal::Position;
use crate::saga::Operator;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

/// Decisions that may wait for one saga's task. More at once are two operators against each other.
const ROOM: usize = 8;

/// A decision, and where its answer goes.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) operator: Operator,
    /// Only asks whether it could be carried out now.
    pub(super) dry_run: bool,
    /// Where it stands in the journal; `None` for a dry run.
    pub(super) answer: oneshot::Sender<Result<Option<Position>, ActError>>,
}

/// One saga's; small, since every saga has one (a channel keeps room for a whole block of messages).
#[derive(Debug, Default)]
pub(super) struct Inbox {
    orders: Mutex<Orders>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Orders {
    waiting: VecDeque<Order>,
    /// A task takes them.
    open: bool,
}

impl Inbox {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on there is a task that will answer.
    pub(super) fn open(&self) {
        self.orders().open = true;
    }

    /// The task has gone. Who waits for an answer learns that none comes.
    pub(super) fn close(&self) {
        let mut orders = self.orders();
        orders.open = false;
        let left = std::mem::take(&mut orders.waiting);
        drop(orders);
        drop(left);
    }

    /// For the task. The error says why it will not be answered.
    pub(super) fn push(&self, order: Order) -> Result<(), Closed> {
        let mut orders = self.orders();
        if !orders.open {
            return Err(Closed::NotTaken);
        }
        if orders.waiting.len() >= ROOM {
            return Err(Closed::Full);
        }
        orders.waiting.push_back(order);
        drop(orders);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next order. Cancel safe: none is lost.
    pub(super) async fn next(&self) -> Order {
        loop {
            // One task alone waits here, and a notice that nobody waits for is kept for it.
            let arrived = self.arrived.notified();
            if let Some(order) = self.orders().waiting.pop_front() {
                return order;
            }
            arrived.await;
        }
    }
}

/// Why an order was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// No task takes orders.
    NotTaken,
    /// Too many wait.
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::OperatorAction;

    fn order() -> (Order, oneshot::Receiver<Result<Option<Position>, ActError>>) {
        let (answer, heard) = oneshot::channel();
        let operator = Operator {
            action: OperatorAction::Pause,
            who: "me".to_owned(),
            why: "to look".to_owned(),
        };
        let order = Order {
            operator,
            dry_run: false,
            answer,
        };
        (order, heard)
    }

    #[tokio::test]
    async fn an_inbox_takes_few_and_answers_all() {
        let inbox = Inbox::default();
        assert_eq!(inbox.push(order().0), Err(Closed::NotTaken));
        inbox.open();
        let mut heard = Vec::new();
        for _ in 0..ROOM {
            let (order, answer) = order();
            inbox.push(order).unwrap();
            heard.push(answer);
        }
        assert_eq!(inbox.push(order().0), Err(Closed::Full));
        let first = inbox.next().await;
        first.answer.send(Ok(None)).unwrap();
        assert_eq!(heard.remove(0).await, Ok(Ok(None)));
        inbox.close();
        for answer in heard {
            answer.await.unwrap_err();
        }
        assert_eq!(inbox.push(order().0), Err(Closed::NotTaken));
    }
}
