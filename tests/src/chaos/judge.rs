//! The judge: does what Qbox says became of each saga, what its callers were answered and what stands in the participants'
//! ledgers agree? It knows the three accounts and the rules of docs/saga-reference.md, and nothing of Qbox's inside.

use super::ledger::Effects;
use super::listing::{End, Saga, Sagas};
use super::record::{Answer, Record};
use super::trip::Step;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// All that is known in the end.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// All sagas that Qbox knows, with what their histories say.
    pub(super) sagas: Sagas,
    /// What its lists say.
    pub(super) listed: BTreeMap<String, End>,
    /// Each participant's effects, by saga.
    pub(super) ledgers: Vec<(Step, BTreeMap<String, Effects>)>,
    /// What callers were answered.
    pub(super) records: Vec<Record>,
    /// By guest: the sagas that had effects for it, in order.
    pub(super) turns: BTreeMap<u64, Vec<String>>,
}

/// Everything that must not be, in words.
pub(super) fn violations(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    sagas(evidence, &mut found);
    ledgers(evidence, &mut found);
    callers(evidence, &mut found);
    turns(evidence, &mut found);
    found
}

/// Each saga's end, against the ledgers, the API and the other sagas.
fn sagas(evidence: &Evidence, found: &mut Vec<String>) {
    let mut of_trip: BTreeMap<u64, &String> = BTreeMap::new();
    for (id, saga) in &evidence.sagas {
        let Saga { kind, trip, end, .. } = saga;
        if let Some(other) = of_trip.insert(*trip, id) {
            found.push(format!("trip {trip} has two sagas: {other} and {id}"));
        }
        if *end == End::Open {
            found.push(format!(
                "saga {id} (trip {trip}, {kind:?}) has not ended, and is not stuck"
            ));
        }
        for step in kind.steps() {
            let effects = effects(evidence, step, id);
            let (booked, cancelled) = (effects.booked, effects.cancelled);
            let wrong = match end {
                End::Committed => (booked, cancelled) != (1, 0),
                End::Compensated => booked != cancelled || booked > 1,
                End::Stuck if !saga.stuck.contains(step) => booked != cancelled || booked > 1,
                End::Stuck | End::Open => false,
            };
            if wrong {
                found.push(format!(
                    "saga {id} (trip {trip}, {kind:?}) is {end:?}, but {step} has booked {booked} and cancelled {cancelled}"
                ));
            }
        }
        match evidence.listed.get(id) {
            Some(listed) if listed == end => {}
            listed => found.push(format!("saga {id} is {end:?}, and in the list {listed:?}")),
        }
    }
}

fn effects(evidence: &Evidence, step: Step, saga: &str) -> Effects {
    let ledger = evidence.ledgers.iter().find(|(name, _)| *name == step);
    let effects = ledger.and_then(|(_, effects)| effects.get(saga));
    effects.copied().unwrap_or_default()
}

/// Nothing may stand in a ledger that no saga stands for.
fn ledgers(evidence: &Evidence, found: &mut Vec<String>) {
    for (name, effects) in &evidence.ledgers {
        for (id, effects) in effects {
            let Effects {
                trip,
                booked,
                cancelled,
            } = *effects;
            match evidence.sagas.get(id) {
                None => found.push(format!(
                    "{name} knows a saga {id} (trip {trip}, booked {booked}, cancelled {cancelled}), which Qbox doesn't"
                )),
                Some(saga) if saga.trip != trip || !saga.kind.steps().contains(name) => found.push(format!(
                    "{name} has trip {trip} of saga {id}, which is {:?} of trip {}",
                    saga.kind, saga.trip
                )),
                Some(_) => {}
            }
        }
    }
}

/// No answer may say what isn't so, and no two for one key may differ.
fn callers(evidence: &Evidence, found: &mut Vec<String>) {
    for record in &evidence.records {
        let trip = record.trip;
        if record.given_up {
            found.push(format!("trip {trip}'s caller got no answer; {}", record.why));
        }
        for answer in &record.answers {
            if let Some(wrong) = contradiction(evidence, trip, answer) {
                found.push(format!(
                    "trip {trip}'s caller was answered {answer:?}, but {wrong}"
                ));
            }
        }
        let different: BTreeSet<_> = record.answers.iter().collect();
        if different.len() > 1 {
            found.push(format!(
                "trip {trip} was answered in different ways: {different:?}"
            ));
        }
    }
}

fn contradiction(evidence: &Evidence, trip: u64, answer: &Answer) -> Option<String> {
    let (status, id, body) = answer;
    let Some(saga) = evidence.sagas.get(id) else {
        return Some("there is no such saga".to_owned());
    };
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let outcome = body.get("outcome").and_then(Value::as_str);
    let agrees = match (status, outcome) {
        _ if saga.trip != trip => false,
        (200..300, _) => saga.end == End::Committed,
        (502, Some("compensated")) => saga.end == End::Compensated,
        (502, Some("stuck")) => saga.end == End::Stuck,
        // The caller could wait no longer: what it was told is that nothing is sure but that.
        (502, Some("compensating")) => matches!(saga.end, End::Compensated | End::Stuck),
        (502, Some("running")) => true,
        _ => false,
    };
    (!agrees).then(|| format!("its saga is {:?} of trip {}", saga.end, saga.trip))
}

/// Sagas with one lock have their effects one saga after the other.
fn turns(evidence: &Evidence, found: &mut Vec<String>) {
    for (guest, turns) in &evidence.turns {
        let sagas: BTreeSet<_> = turns.iter().collect();
        if sagas.len() < turns.len() {
            let mut seen = BTreeSet::new();
            let again: Vec<_> = turns.iter().filter(|id| !seen.insert(*id)).collect();
            found.push(format!(
                "guest {guest}'s sagas ran at once in spite of their lock: {again:?}"
            ));
        }
    }
}

#[cfg(test)]
mod tests;
