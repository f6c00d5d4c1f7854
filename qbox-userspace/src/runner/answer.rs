//! What a saga's callers are told: the first answer stands, and whoever asks later is told the same. Small while nobody waits,
//! since every saga has one.

use super::Outcome;
use crate::saga::Reply;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Answer(Mutex<Stage>);

#[derive(Debug, Default)]
enum Stage {
    /// There is none, and nobody has asked.
    #[default]
    Unasked,
    /// There is none, and somebody has asked.
    Asked(watch::Sender<Option<Outcome>>),
    Given(Outcome),
    /// It was given, and only the journal has it.
    OnRecord,
}

impl Answer {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it comes, or has come; `None`: it has, and only the journal has it.
    pub(super) fn subscribe(&self) -> Option<watch::Receiver<Option<Outcome>>> {
        let mut stage = self.stage();
        Some(match &*stage {
            Stage::Unasked => {
                let (sender, receiver) = watch::channel(None);
                *stage = Stage::Asked(sender);
                receiver
            }
            Stage::Asked(sender) => sender.subscribe(),
            // What is there is seen before it is seen that nothing more will come.
            Stage::Given(outcome) => given(outcome.clone()),
            Stage::OnRecord => return None,
        })
    }

    /// Whether a caller waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(&*self.stage(), Stage::Asked(sender) if sender.receiver_count() > 0)
    }

    /// Whether there is one.
    pub(super) fn is_given(&self) -> bool {
        matches!(&*self.stage(), Stage::Given(_) | Stage::OnRecord)
    }

    /// Gives it, unless there is one.
    pub(super) fn give(&self, outcome: Outcome) {
        self.set(outcome, true);
    }

    /// As [`Answer::give`], to those who have asked: the journal tells those who do later.
    pub(super) fn give_once(&self, outcome: Outcome) {
        self.set(outcome, false);
    }

    fn set(&self, outcome: Outcome, keep: bool) {
        let mut stage = self.stage();
        if matches!(*stage, Stage::Given(_) | Stage::OnRecord) {
            return;
        }
        let next = match keep {
            true => Stage::Given(outcome.clone()),
            false => Stage::OnRecord,
        };
        if let Stage::Asked(sender) = std::mem::replace(&mut *stage, next) {
            sender.send_replace(Some(outcome));
        }
    }

    /// Bytes of the reply.
    pub(super) fn weight(&self) -> usize {
        match &*self.stage() {
            Stage::Given(Ok(reply)) => weight(reply),
            _ => 0,
        }
    }
}

/// Where an outcome that is known is waited for.
pub(super) fn given(outcome: Outcome) -> watch::Receiver<Option<Outcome>> {
    watch::channel(Some(outcome)).1
}

fn weight(reply: &Reply) -> usize {
    let headers: usize = reply.headers.0.iter().map(|(n, v)| n.len() + v.len()).sum();
    reply.body.len() + headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::Refused;

    #[tokio::test]
    async fn the_first_answer_stands_for_all() {
        let answer = Answer::default();
        let gone = answer.subscribe().unwrap();
        assert!(answer.is_awaited());
        drop(gone);
        assert!(!answer.is_awaited() && !answer.is_given());
        let mut early = answer.subscribe().unwrap();
        let mut another = answer.subscribe().unwrap();
        answer.give(Err(Refused::Busy));
        answer.give(Err(Refused::Locked));
        let mut late = answer.subscribe().unwrap();
        for asked in [&mut early, &mut another, &mut late] {
            let outcome = asked.wait_for(Option::is_some).await.unwrap().clone();
            assert_eq!(outcome, Some(Err(Refused::Busy)));
        }
        assert!(!answer.is_awaited());
    }

    #[tokio::test]
    async fn what_is_on_record_is_not_kept() {
        let answer = Answer::default();
        let mut asked = answer.subscribe().unwrap();
        answer.give_once(Err(Refused::Busy));
        answer.give(Err(Refused::Locked));
        let outcome = asked.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(outcome, Some(Err(Refused::Busy)));
        assert!(answer.subscribe().is_none());
        assert!(!answer.is_awaited() && answer.is_given());
    }
}
