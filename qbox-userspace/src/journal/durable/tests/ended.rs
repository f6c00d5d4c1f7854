//! What is known of sagas that have ended; and a file whose version didn't know it.

use super::*;
use crate::journal::{Memory, Place, Retention, Sort};

/// As [`outline`], with one of two names, and a time of its own.
fn varied(id: u128) -> Outline {
    Outline {
        name: format!("book-{}", id % 2),
        began: Timestamp(1_000 + id as u64),
        ..outline(id)
    }
}

/// The sagas of [`varied`] from 1 to 12, ended, and an open one: on disk and in memory.
async fn both(folder: &Path) -> [Box<dyn Journal>; 2] {
    let journals: [Box<dyn Journal>; 2] = [
        Box::new(open(folder)),
        Box::new(Memory::new(Retention::default())),
    ];
    for journal in &journals {
        for id in 1..=12 {
            let ended = varied(id);
            let mut events = events(id, 3);
            if let Some(Event::Began { name, at, .. }) = events.first_mut() {
                (*name, *at) = (ended.name.clone(), ended.began);
            }
            journal.append(ended.id, 0, &events).unwrap();
            journal.finish(ended);
        }
        let position = journal.append(SagaId(13), 0, &events(13, 3)).unwrap();
        journal.durable(position).await.unwrap();
    }
    journals
}

#[tokio::test]
async fn lists_of_what_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    for journal in both(folder.path()).await {
        let ids = |query: &Query, page: &Page| -> Vec<u128> {
            let found = journal.list(query, page).unwrap();
            found.iter().for_each(|saga| assert_eq!(*saga, varied(saga.id.0)));
            found.iter().map(|saga| saga.id.0).collect()
        };
        let all = Query::default();
        assert_eq!(ids(&all, &Page::youngest(4)), [12, 11, 10, 9]);
        let page = Page {
            after: Some(Place::Began(SagaId(9))),
            ..Page::youngest(100)
        };
        assert_eq!(ids(&all, &page), [8, 7, 6, 5, 4, 3, 2, 1]);
        let ended = |states: &[SagaState]| Query {
            states: states.to_vec(),
            ..Query::default()
        };
        let (undone, done) = (SagaState::Compensated, SagaState::Committed);
        assert_eq!(ids(&ended(&[undone]), &Page::youngest(100)), [12, 9, 6, 3]);
        assert_eq!(ids(&ended(&[undone, done]), &Page::youngest(100)).len(), 12);
        let some = Query {
            name: Some("book-0".to_owned()),
            from: Some(Timestamp(1_003)),
            until: Some(Timestamp(1_012)),
            failed_step: Some("hotel".to_owned()),
            plans: Some(vec![PlanHash([7; 32]), PlanHash([8; 32])]),
            ..ended(&[undone])
        };
        assert_eq!(ids(&some, &Page::youngest(100)), [6]);
        let none = Query {
            plans: Some(Vec::new()),
            ..some
        };
        assert!(ids(&none, &Page::youngest(100)).is_empty());
        let by = |sort, descending, after| Page {
            sort,
            descending,
            after,
            limit: 3,
        };
        assert_eq!(ids(&all, &by(Sort::Ended, false, None)), [12, 11, 10]);
        let last = varied(10);
        let after = Place::new(Sort::Ended, last.id, Some(last.ended), &last.name);
        assert_eq!(ids(&all, &by(Sort::Ended, false, Some(after))), [9, 8, 7]);
        assert_eq!(ids(&all, &by(Sort::Name, true, None)), [11, 9, 7]);
        let after = Place::Name("book-1".to_owned(), SagaId(3));
        assert_eq!(ids(&all, &by(Sort::Name, true, Some(after))), [1, 12, 10]);
    }
}

#[tokio::test]
async fn keys_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let journals = both(folder.path()).await;
    // The same key once more, by a younger saga.
    for journal in &journals {
        let younger = Outline {
            id: SagaId(20),
            stamp: outline(5).stamp,
            ..outline(5)
        };
        journal.append(younger.id, 0, &events(20, 1)).unwrap();
        journal.finish(younger.clone());
        assert_eq!(journal.ended(younger.id).unwrap(), Some(younger), "queued or not");
        assert_eq!(journal.ended_with(&[5; 32]).unwrap(), Some((SagaId(20), [1; 32])));
        assert_eq!(journal.ended_with(&[4; 32]).unwrap(), Some((SagaId(4), [1; 32])));
        assert_eq!(journal.ended_with(&[99; 32]).unwrap(), None);
    }
    drop(journals);
    let journal = open(folder.path());
    assert_eq!(journal.ended_with(&[5; 32]).unwrap(), Some((SagaId(20), [1; 32])));
    let held = journal.unfiled(|batch| (!batch.is_empty()).then_some(()));
    assert_eq!(held, [], "none is held for longer than it takes");
}

/// A file of version 1, with saga 1 open and saga 2 ended.
fn version_1(folder: &Path) {
    let connection = Connection::open(folder.join("journal.db")).unwrap();
    connection.execute_batch(include_str!("../schema_1.sql")).unwrap();
    connection
        .execute_batch("PRAGMA application_id = 0x51626f78; PRAGMA user_version = 1")
        .unwrap();
    for (n, ended) in [(1, None), (2, Some(77))] {
        let id = SagaId(n as u128);
        connection
            .execute(
                "INSERT INTO saga (n, id, name, plan, began, ended) VALUES (?1, ?2, 'book-trip', ?3, ?5, ?4)",
                (
                    n,
                    id.to_string(),
                    PlanHash([7; 32]).to_string(),
                    ended,
                    i64::MAX >> 11,
                ),
            )
            .unwrap();
        for (number, event) in (0..).zip(events(id.0, 3)) {
            let event = serde_json::to_string(&event).unwrap();
            connection
                .execute(
                    "INSERT INTO event (k, sum, event) VALUES (?1, ?2, ?3)",
                    (codec::key(n, number), codec::sum(id, number, &event), event),
                )
                .unwrap();
        }
    }
}

#[tokio::test]
async fn a_file_of_version_1_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    version_1(folder.path());
    let journal = open(folder.path());
    assert_eq!(
        stored(&journal),
        [(1, 3), (2, 3)],
        "of an ended saga it must be learnt how it ended"
    );
    assert_eq!(journal.ended(SagaId(2)).unwrap(), None);
    journal.finish(outline(2));
    journal.append(SagaId(1), 3, &[skipped(3)]).unwrap();
    drop(journal);
    let journal = open(folder.path());
    assert_eq!(stored(&journal), [(1, 4)]);
    assert_eq!(journal.ended(SagaId(2)).unwrap(), Some(outline(2)));
}

/// In both journals, before and after the file was closed.
#[tokio::test]
async fn those_begun_for_another_are_found_and_may_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let journals = both(folder.path()).await;
    let above = SagaId(9_000);
    for journal in &journals {
        let found: Vec<_> = journal.children(above).unwrap();
        assert_eq!(found, [varied(4), varied(8), varied(12)]);
        assert_eq!(journal.children(SagaId(1)).unwrap(), []);
        journal.reopen(SagaId(4)).unwrap();
        assert!(journal.reopen(SagaId(400)).is_err());
        journal.append(SagaId(4), 3, &[skipped(3)]).unwrap();
        let open = journal.open().map(|history| history.unwrap());
        let again = open
            .into_iter()
            .find(|history| history.saga == SagaId(4))
            .unwrap();
        assert_eq!(again.events.len(), 4);
    }
    drop(journals);
    let journal = open(folder.path());
    assert_eq!(journal.ended(SagaId(4)).unwrap(), None, "it goes on");
    assert_eq!(journal.ended_with(&[4; 32]).unwrap(), None);
    assert_eq!(journal.children(above).unwrap(), [varied(8), varied(12)]);
    let ended = Outline {
        revoked: true,
        ..varied(4)
    };
    journal.finish(ended.clone());
    assert_eq!(journal.children(above).unwrap()[0], ended, "queued or not");
    drop(journal);
    assert_eq!(
        open(folder.path()).children(above).unwrap(),
        [ended, varied(8), varied(12)]
    );
}
