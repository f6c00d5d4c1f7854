//! What the judge lets pass, and what it does not.

use super::*;
use crate::chaos::trip::Kind;

/// One saga of three steps that ended so, with `(booked, cancelled)` at each, and its caller's answer.
fn evidence(end: End, effects: [(u32, u32); 3], answer: Option<(u16, &str)>) -> Evidence {
    let saga = Saga {
        kind: Kind::Parallel,
        trip: 7,
        end,
        stuck: if end == End::Stuck {
            vec!["car"]
        } else {
            Vec::new()
        },
        restarts: 0,
    };
    let ledgers = Kind::Parallel
        .steps()
        .iter()
        .zip(effects)
        .map(|(name, (booked, cancelled))| {
            let effects = Effects {
                trip: 7,
                booked,
                cancelled,
            };
            (*name, BTreeMap::from([("id".to_owned(), effects)]))
        });
    let mut record = Record::of(7);
    record.answers.extend(answer.map(|(status, outcome)| {
        let body = format!(r#"{{"outcome":"{outcome}"}}"#);
        (status, "id".to_owned(), body)
    }));
    let sagas = Sagas::from([("id".to_owned(), saga)]);
    Evidence {
        listed: BTreeMap::from([("id".to_owned(), end)]),
        sagas,
        ledgers: ledgers.collect(),
        records: vec![record],
        turns: BTreeMap::from([(1, vec!["id".to_owned()])]),
    }
}

fn count(evidence: &Evidence) -> usize {
    violations(evidence).len()
}

const BOOKED: (u32, u32) = (1, 0);
const UNDONE: (u32, u32) = (1, 1);
const NONE: (u32, u32) = (0, 0);

#[test]
fn what_agrees_is_no_violation() {
    for evidence in [
        evidence(End::Committed, [BOOKED; 3], Some((201, ""))),
        evidence(
            End::Compensated,
            [UNDONE, NONE, UNDONE],
            Some((502, "compensated")),
        ),
        evidence(End::Compensated, [NONE; 3], Some((502, "compensating"))),
        evidence(End::Stuck, [UNDONE, NONE, BOOKED], Some((502, "stuck"))),
        evidence(End::Committed, [BOOKED; 3], Some((502, "running"))),
        evidence(End::Committed, [BOOKED; 3], None),
    ] {
        assert_eq!(violations(&evidence), Vec::<String>::new());
    }
}

#[test]
fn a_ledger_that_disagrees_with_the_end_is_one() {
    assert_eq!(count(&evidence(End::Committed, [BOOKED, NONE, BOOKED], None)), 1);
    assert_eq!(
        count(&evidence(End::Committed, [BOOKED, UNDONE, BOOKED], None)),
        1
    );
    assert_eq!(
        count(&evidence(End::Committed, [BOOKED, (2, 0), BOOKED], None)),
        1
    );
    assert_eq!(
        count(&evidence(End::Compensated, [BOOKED, UNDONE, NONE], None)),
        1
    );
    assert_eq!(
        count(&evidence(End::Compensated, [UNDONE, (2, 2), NONE], None)),
        1
    );
    assert_eq!(count(&evidence(End::Stuck, [BOOKED, NONE, BOOKED], None)), 1);
    assert_eq!(count(&evidence(End::Open, [BOOKED; 3], None)), 1);
}

#[test]
fn an_answer_that_is_not_so_is_one() {
    assert_eq!(count(&evidence(End::Compensated, [NONE; 3], Some((201, "")))), 1);
    assert_eq!(
        count(&evidence(End::Committed, [BOOKED; 3], Some((502, "compensated")))),
        1
    );
    assert_eq!(
        count(&evidence(
            End::Committed,
            [BOOKED; 3],
            Some((502, "compensating"))
        )),
        1
    );
    assert_eq!(count(&evidence(End::Committed, [BOOKED; 3], Some((422, "")))), 1);
}

#[test]
fn a_key_with_two_sagas_or_two_answers_is_one() {
    let mut two = evidence(End::Compensated, [NONE; 3], Some((502, "compensated")));
    let twin = two.sagas["id"].clone();
    two.sagas.insert("other".to_owned(), twin);
    two.listed.insert("other".to_owned(), End::Compensated);
    assert_eq!(count(&two), 1);

    let mut two = evidence(End::Compensated, [NONE; 3], Some((502, "compensated")));
    two.records[0]
        .answers
        .push((502, "id".to_owned(), r#"{"outcome":"compensating"}"#.to_owned()));
    assert_eq!(count(&two), 1);
}

#[test]
fn what_qbox_does_not_know_of_is_one() {
    let mut lost = evidence(End::Committed, [BOOKED; 3], Some((201, "")));
    lost.sagas.clear();
    assert_eq!(count(&lost), 4, "three ledgers and a caller know it");

    let mut unlisted = evidence(End::Stuck, [NONE, NONE, BOOKED], None);
    unlisted.listed.clear();
    assert_eq!(count(&unlisted), 1);

    let mut given_up = evidence(End::Committed, [BOOKED; 3], None);
    given_up.records[0].given_up = true;
    assert_eq!(count(&given_up), 1);
}

#[test]
fn sagas_that_overlap_under_one_lock_are_one() {
    let mut overlap = evidence(End::Committed, [BOOKED; 3], None);
    overlap
        .turns
        .insert(2, ["a", "b", "a"].map(str::to_owned).to_vec());
    assert_eq!(count(&overlap), 1);
}
