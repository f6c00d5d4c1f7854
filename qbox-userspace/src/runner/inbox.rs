//! What others want of a saga, on its way to the saga's task: operators' decisions, and what sagas that are nested in one another have to
//! tell each other. Few at a time, and each is answered, by the task or by its end.

use super::ActError;
use crate::journal::Position;
use crate::saga::{Operator, SagaId};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

/// Decisions that may wait for one saga's task. More at once are two operators against each other.
const ROOM: usize = 8;
/// Messages of other sagas that may.
const ROOM_NESTED: usize = 1_024;

/// What a task may be told.
#[derive(Debug)]
pub(super) enum Message {
    Order(Order),
    /// A saga is about to begin for a step of this one. It is answered once that is recorded; or why it may not begin.
    Nested {
        step: String,
        child: SagaId,
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// The saga that this one is nested in undoes it. It is answered when it is undone; or why it can't be.
    Revoke(oneshot::Sender<Result<(), String>>),
}

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
    waiting: VecDeque<Message>,
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
    pub(super) fn push(&self, message: Message) -> Result<(), Closed> {
        let mut orders = self.orders();
        if !orders.open {
            return Err(Closed::NotTaken);
        }
        let is_order = |message: &Message| matches!(message, Message::Order(_));
        let kind = is_order(&message);
        let room = if kind { ROOM } else { ROOM_NESTED };
        let same = orders.waiting.iter().filter(|other| is_order(other) == kind);
        if same.count() >= room {
            return Err(Closed::Full);
        }
        orders.waiting.push_back(message);
        drop(orders);
        self.arrived.notify_one();
        Ok(())
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.orders().waiting.is_empty()
    }

    /// Has a saga that waits for its turn, or is at rest, be taken up now.
    pub(super) fn stir(&self) {
        self.arrived.notify_one();
    }

    /// Waits for a message, which stays for [`Inbox::next`], or for a stir. Cancel safe.
    pub(super) async fn stirred(&self) {
        self.arrived.notified().await;
    }

    /// The next message. Cancel safe: none is lost.
    pub(super) async fn next(&self) -> Message {
        loop {
            // One task alone waits here, and a notice that nobody waits for is kept for it.
            let arrived = self.arrived.notified();
            if let Some(message) = self.orders().waiting.pop_front() {
                return message;
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

    fn order() -> (Message, oneshot::Receiver<Result<Option<Position>, ActError>>) {
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
        (Message::Order(order), heard)
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
        let Message::Order(first) = inbox.next().await else {
            panic!("an order was sent");
        };
        first.answer.send(Ok(None)).unwrap();
        assert_eq!(heard.remove(0).await, Ok(Ok(None)));
        inbox.close();
        for answer in heard {
            answer.await.unwrap_err();
        }
        assert_eq!(inbox.push(order().0), Err(Closed::NotTaken));
    }
}
