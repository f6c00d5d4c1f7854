//! How many of the sagas that a start turns back are in hand at once. Thousands may be found whose next call is to the same
//! service, which takes few at a time, or none: all of them in memory would only wait there. The others wait as entries, listed
//! and found as any, and are read from the journal again when their turn comes.
//!
//! A saga gives up its turn once its service has been tried for it, or when it waits for an operator: one that can't be undone
//! stops none of the others. Those that a start finds stuck or paused come in turn too: each is looked at, and put down again. One whose timers are due, that is in two places at once, or goes forward needs none. No errors.

use crate::saga::{Command, Direction, Input, Saga, SagaState, StepState, Timestamp, UndoState};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Of each service's, in hand at once: enough for all the calls that it may be given by default, and as many again that are being
/// made ready.
pub(super) const IN_HAND: usize = 512;

/// The turns of one start.
#[derive(Debug, Default)]
pub(super) struct Turns {
    by_service: HashMap<String, Arc<Semaphore>>,
}

/// What a saga that was found has of them.
#[derive(Debug)]
pub(super) enum Turn {
    /// It needs none.
    Free,
    /// It has one.
    Now(OwnedSemaphorePermit),
    /// It comes in turn.
    Later(Arc<Semaphore>),
}

impl Turns {
    /// Called for one saga after the other, oldest first.
    pub(super) fn take(&mut self, saga: &Saga, now: Timestamp) -> Turn {
        let Some(service) = waits_only_for(saga.clone(), now) else {
            return Turn::Free;
        };
        let turns = self
            .by_service
            .entry(service)
            .or_insert_with(|| Arc::new(Semaphore::new(IN_HAND)));
        match Arc::clone(turns).try_acquire_owned() {
            Ok(turn) => Turn::Now(turn),
            Err(_) => Turn::Later(Arc::clone(turns)),
        }
    }
}

/// The service that everything which is left to be done waits for: `saga` would be turned back, and one compensation be all that
/// is under way or due. It is only asked: what is recorded is decided when it is taken up.
fn waits_only_for(mut saga: Saga, now: Timestamp) -> Option<String> {
    saga.decide(Input::Recovered, now);
    let mut steps = saga.steps();
    let busy = steps.any(|step| step.state == StepState::Running);
    let undoing = saga.steps().filter(|step| step.undo == UndoState::Running);
    let calls = saga
        .commands()
        .iter()
        .any(|command| matches!(command, Command::Call(_)));
    if (saga.state() == SagaState::Stuck || saga.is_paused()) && !calls {
        // For a person: it is looked at once, and put down again.
        return Some(String::new());
    }
    if saga.state() != SagaState::Compensating || saga.is_paused() || busy || undoing.count() != 1 {
        return None;
    }
    let mut service = None;
    for command in saga.commands() {
        match command {
            Command::Call(call)
                if matches!(call.direction, Direction::Compensation(_)) && service.is_none() =>
            {
                service = Some(service_of(&call.request.url)?.to_owned());
            }
            Command::Call(_) => return None,
            // Its caller has gone. One who asks for the reply has it taken up.
            Command::Reply | Command::Wake(_) => {}
        }
    }
    service
}

/// `host:port` as it is written. One that is no URL has no service, and its saga learns that at once.
fn service_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let place = rest.split(['/', '?', '#']).next()?;
    (!place.is_empty()).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::testing::{plan, trigger};
    use crate::saga::{AttemptEnd, Operator, OperatorAction, Outcome, Response, SagaId, StepId};

    /// Whose steps, each beside the others, are being sent.
    fn begun(top: &str, steps: &[(&str, &str)]) -> Saga {
        let steps: String = steps
            .iter()
            .map(|(name, at)| {
                format!(
                    "[[step]]\nname = \"{name}\"\nafter = []\nrequest = {{ method = \"PUT\", url = \"http://{at}/7\" }}\n\
                     [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"http://{at}/7\" }}\n"
                )
            })
            .collect();
        let (plan, hash) = plan(&format!(
            "name = \"x\"\n{top}\n[trigger]\nurl = \"http://trips/trips/{{trip}}\"\n{steps}"
        ));
        let trigger = trigger("7", None, "");
        Saga::begin(SagaId(1), plan, hash, 1, trigger, Timestamp(1), usize::MAX).0
    }

    #[test]
    fn each_service_has_its_turns_and_gets_them_back() {
        let hotel = begun("", &[("hotel", "hotel:80")]);
        let car = begun("", &[("car", "car:80")]);
        let mut turns = Turns::default();
        let mut held = Vec::new();
        for _ in 0..IN_HAND {
            let Turn::Now(turn) = turns.take(&hotel, Timestamp(2)) else {
                panic!("there were turns left");
            };
            held.push(turn);
        }
        let Turn::Later(later) = turns.take(&hotel, Timestamp(2)) else {
            panic!("one turn too many");
        };
        assert!(matches!(turns.take(&car, Timestamp(2)), Turn::Now(_)));
        held.pop();
        assert_eq!(later.available_permits(), 1);
    }

    #[test]
    fn none_waits_that_has_something_else_to_do() {
        let mut turns = Turns::default();
        let mut free = |saga: &Saga| matches!(turns.take(saga, Timestamp(2)), Turn::Free);
        assert!(!free(&begun("", &[("hotel", "hotel:80")])));
        let later = Timestamp(1).after(std::time::Duration::from_secs(3600));
        let mut overdue = begun("", &[("hotel", "hotel:80")]);
        assert_eq!(
            waits_only_for(overdue.clone(), later).as_deref(),
            Some("hotel:80")
        );
        overdue.decide(Input::Recovered, later);
        assert!(
            overdue.commands().contains(&Command::Reply),
            "the reply is no reason: its caller has gone"
        );
        assert!(
            free(&begun("on_recovery = \"resume\"", &[("hotel", "hotel:80")])),
            "it goes forward"
        );
        assert!(
            free(&begun("", &[("hotel", "hotel:80"), ("car", "car:80")])),
            "the car can be given back whatever the hotel does"
        );
        let mut done = begun("", &[("hotel", "hotel:80")]);
        let outcome = Outcome {
            step: StepId(0),
            direction: Direction::Transaction,
            attempt: 1,
            end: AttemptEnd::Answered(Response {
                status: 200,
                headers: Default::default(),
                body: Default::default(),
                truncated: false,
            }),
        };
        done.decide(Input::Outcome(outcome), Timestamp(2));
        assert!(free(&done), "only its caller's reply is left");
    }

    /// Thousands of them would otherwise be in memory at once for as long as a start takes.
    #[test]
    fn those_that_wait_for_a_person_come_in_turn_too() {
        let mut paused = begun("", &[("hotel", "hotel:80"), ("car", "car:80")]);
        let pause = Operator {
            action: OperatorAction::Pause,
            who: "ada".to_owned(),
            why: "to look".to_owned(),
        };
        paused.decide(Input::Operator(pause), Timestamp(2));
        assert_eq!(waits_only_for(paused, Timestamp(2)).as_deref(), Some(""));
    }

    #[test]
    fn a_service_is_where_its_calls_go() {
        assert_eq!(service_of("http://hotel:80/7?a=http://b/"), Some("hotel:80"));
        assert_eq!(service_of("http://hotel?x"), Some("hotel"));
        assert_eq!(service_of("http:///7"), None);
        assert_eq!(service_of("hotel/7"), None);
    }
}
