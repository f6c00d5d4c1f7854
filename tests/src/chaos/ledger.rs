//! A participant as it ought to be, and its ledger: what took effect, for which saga and step.
//!
//! It keeps the answer to each `Idempotency-Key`, so that a key has its effect once. One with fences also remembers what was
//! cancelled, or denied to a probe, before it came: a booking that comes after that is refused. It judges nothing; errors:
//! none, a request that makes no sense is answered 400.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is asked of a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Ask {
    Book,
    Cancel,
    Look,
}

/// A saga's message, as far as a participant and its ledger look at it.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) ask: Ask,
    /// The booking's number.
    pub(super) trip: u64,
    /// `Idempotency-Key`; a probe has none.
    pub(super) key: Option<String>,
    /// `X-Qbox-TransactionID`: for the ledger alone. What a participant does never depends on it.
    pub(super) saga: String,
    /// Who the booking is for, where its sagas must not overlap.
    pub(super) guest: Option<u64>,
}

/// What a participant does out of its own trade.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Policy {
    /// It never books this trip.
    pub(super) refuses: bool,
    /// It never cancels this trip.
    pub(super) sticks: bool,
}

/// What took effect for one saga at one participant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// The booking.
    pub(super) trip: u64,
    /// How often it was booked.
    pub(super) booked: u32,
    /// How often it was cancelled.
    pub(super) cancelled: u32,
}

/// A participant's books.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    fences: bool,
    answers: HashMap<(Ask, String), u16>,
    booked: BTreeSet<u64>,
    fenced: BTreeSet<u64>,
    /// By saga.
    effects: BTreeMap<String, Effects>,
    /// How often a booking was asked for after it had been cancelled or denied, and refused for that.
    held_off: u64,
    delivered: HashMap<(Ask, u64), u64>,
}

impl Ledger {
    pub(super) fn new(fences: bool) -> Self {
        Self {
            fences,
            ..Self::default()
        }
    }

    /// Which delivery of this message for this trip this is, from 0.
    pub(super) fn deliver(&mut self, ask: Ask, trip: u64) -> u64 {
        let count = self.delivered.entry((ask, trip)).or_default();
        *count += 1;
        *count - 1
    }

    /// Does what is asked, at this moment. Gives the status, and whether something took effect.
    pub(super) fn take(&mut self, message: &Message, policy: Policy) -> (u16, bool) {
        let Message { ask, trip, .. } = *message;
        if ask == Ask::Look {
            return (self.look(trip), false);
        }
        let Some(key) = &message.key else {
            return (400, false);
        };
        let key = (ask, key.clone());
        if let Some(status) = self.answers.get(&key) {
            return (*status, false);
        }
        let effects = self.effects.entry(message.saga.clone()).or_default();
        effects.trip = trip;
        let (status, effect) = match ask {
            Ask::Book if policy.refuses => (409, false),
            Ask::Book if self.fenced.contains(&trip) => {
                self.held_off += 1;
                (409, false)
            }
            Ask::Book => {
                effects.booked += 1;
                self.booked.insert(trip);
                (201, true)
            }
            Ask::Cancel if policy.sticks => (409, false),
            Ask::Cancel | Ask::Look => {
                if self.fences {
                    self.fenced.insert(trip);
                }
                match self.booked.remove(&trip) {
                    true => {
                        effects.cancelled += 1;
                        (200, true)
                    }
                    false => (404, false),
                }
            }
        };
        self.answers.insert(key, status);
        (status, effect)
    }

    /// "No" must stay true: who denies a booking once doesn't take it later.
    fn look(&mut self, trip: u64) -> u16 {
        if self.booked.contains(&trip) {
            return 200;
        }
        if self.fences {
            self.fenced.insert(trip);
        }
        404
    }

    /// What took effect, by saga; sagas that were heard of, and had none, too.
    pub(super) fn effects(&self) -> &BTreeMap<String, Effects> {
        &self.effects
    }

    pub(super) fn held_off(&self) -> u64 {
        self.held_off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(ask: Ask, key: &str) -> Message {
        Message {
            ask,
            trip: 7,
            key: Some(key.to_owned()),
            saga: "s".to_owned(),
            guest: None,
        }
    }

    fn statuses(fences: bool, asks: &[(Ask, &str)]) -> (Vec<u16>, Effects) {
        let mut ledger = Ledger::new(fences);
        let take = |(ask, key): &(Ask, &str)| ledger.take(&message(*ask, key), Policy::default()).0;
        let statuses = asks.iter().map(take).collect();
        (statuses, ledger.effects()["s"])
    }

    #[test]
    fn a_key_takes_effect_once_and_has_one_answer() {
        let asks = [
            (Ask::Book, "a"),
            (Ask::Book, "a"),
            (Ask::Cancel, "b"),
            (Ask::Cancel, "b"),
            (Ask::Book, "a"),
        ];
        let (statuses, effects) = statuses(true, &asks);
        assert_eq!(statuses, [201, 201, 200, 200, 201]);
        assert_eq!((effects.booked, effects.cancelled), (1, 1));
    }

    #[test]
    fn with_fences_what_was_cancelled_or_denied_before_it_came_is_refused() {
        for first in [Ask::Cancel, Ask::Look] {
            let (given, effects) = statuses(true, &[(first, "b"), (Ask::Book, "a"), (Ask::Book, "a")]);
            assert_eq!(given, [404, 409, 409]);
            assert_eq!(effects.booked, 0);
        }
    }

    #[test]
    fn without_fences_it_is_booked() {
        let (given, effects) = statuses(false, &[(Ask::Cancel, "b"), (Ask::Book, "a")]);
        assert_eq!(given, [404, 201]);
        assert_eq!((effects.booked, effects.cancelled), (1, 0));
    }

    #[test]
    fn its_own_trade_comes_first() {
        let mut ledger = Ledger::new(true);
        let never = Policy {
            refuses: true,
            sticks: true,
        };
        assert_eq!(ledger.take(&message(Ask::Book, "a"), never), (409, false));
        assert_eq!(ledger.take(&message(Ask::Cancel, "b"), never), (409, false));
        assert_eq!(ledger.deliver(Ask::Book, 7), 0);
        assert_eq!(ledger.deliver(Ask::Book, 7), 1);
    }
}
