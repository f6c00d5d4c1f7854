//! The file as a crash, a bad disk, another Qbox and another version leave it.

mod ended;
mod log;
mod pen;

use super::*;
use crate::journal::Stamp;
use crate::saga::{Headers, Request, SCHEMA, SagaState, StepId, Timestamp, Trigger};
use proptest::prelude::*;
use std::fs;
use tempfile::TempDir;

fn began(saga: SagaId, body: &str) -> Event {
    Event::Began {
        schema: SCHEMA,
        saga,
        plan: PlanHash([7; 32]),
        name: "book-trip".to_owned(),
        seed: u64::MAX,
        trigger: Trigger {
            request: Request {
                method: "POST".to_owned(),
                url: "http://trips/trips/7".to_owned(),
                headers: Headers(vec![("X-Odd".into(), vec![0xff, b'"'].into())]),
                body: body.to_owned().into(),
            },
            path: vec![("trip".into(), "7".to_owned())],
            destination: Some(([10, 96, 0, 7], 8080).into()),
            http2: false,
            depth: 1,
        },
        at: Timestamp(u64::MAX >> 12),
        hidden: None,
    }
}

fn skipped(step: u16) -> Event {
    Event::Skipped {
        step: StepId(step),
        at: Timestamp(1),
    }
}

/// What saga number `id` looks like with that many events.
fn events(id: u128, count: usize) -> Vec<Event> {
    let rest = (1..).map(skipped);
    let body = format!("body of {id} ").repeat(20);
    std::iter::once(began(SagaId(id), &body))
        .chain(rest)
        .take(count)
        .collect()
}

fn open(folder: &Path) -> Durable {
    let settings = Settings {
        keep: Duration::MAX,
        ..Settings::default()
    };
    Durable::open(folder, settings).unwrap()
}

/// How saga number `id` has ended: every third was compensated.
fn outline(id: u128) -> Outline {
    let failed = id.is_multiple_of(3);
    Outline {
        id: SagaId(id),
        name: "book-trip".to_owned(),
        state: if failed {
            SagaState::Compensated
        } else {
            SagaState::Committed
        },
        began: Timestamp(u64::MAX >> 12),
        // The later one began, the earlier it ended.
        ended: Timestamp(10_000 - id as u64),
        failed_step: failed.then(|| "hotel".to_owned()),
        cause: failed.then(|| "it's full".to_owned()),
        replied: failed.then_some((Timestamp(7), 502)),
        stamp: Some(Stamp {
            key: [u8::try_from(id).unwrap_or(0); 32],
            payload: [1; 32],
        }),
        parent: id.is_multiple_of(4).then(|| crate::saga::Parent {
            saga: SagaId(9_000),
            step: "trip".to_owned(),
        }),
        revoked: id.is_multiple_of(12),
    }
}

async fn append(journal: &Durable, id: u128, count: usize) {
    let position = journal.append(SagaId(id), 0, &events(id, count)).unwrap();
    journal.durable(position).await.unwrap();
}

/// The files as they are now: what a process that is killed at this moment leaves.
fn killed(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in [schema::FILE, schema::BESIDE].iter().chain(&super::log::FILES) {
        let from = folder.join(name);
        if from.exists() {
            fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    copy
}

fn stored(journal: &Durable) -> Vec<(u128, usize)> {
    journal
        .open()
        .map(|history| {
            let History { saga, events: have } = history.unwrap();
            assert_eq!(
                have,
                events(saga.0, have.len()),
                "what is read is what was written"
            );
            (saga.0, have.len())
        })
        .collect()
}

#[tokio::test]
async fn what_was_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let (a, b) = (SagaId(1), SagaId(2));
    append(&journal, 1, 1).await;
    append(&journal, 2, 3).await;
    let position = journal.append(a, 1, &[skipped(1), skipped(2)]).unwrap();
    assert_eq!(
        journal.history(a).unwrap().unwrap(),
        events(1, 3),
        "queued events are read too"
    );
    let order = journal.append(a, 1, &[skipped(1)]).unwrap_err();
    assert_eq!(
        order,
        JournalError::Order {
            saga: a,
            first: 1,
            have: 3
        }
    );
    journal.durable(position).await.unwrap();
    journal.finish(outline(2));
    assert!(journal.append(b, 3, &[skipped(3)]).is_err(), "it has ended");
    assert_eq!(journal.history(SagaId(9)).unwrap(), None);
    drop(journal);

    let journal = open(folder.path());
    assert_eq!(stored(&journal), [(1, 3)]);
    assert_eq!(journal.ended(b).unwrap(), Some(outline(2)));
    assert_eq!(journal.ended(a).unwrap(), None);
    assert_eq!(journal.history(b).unwrap(), Some(events(2, 3)));
    journal.append(a, 3, &[skipped(3)]).unwrap();
    assert_eq!(journal.history(a).unwrap().unwrap(), events(1, 4));
    append(&journal, 3, 1).await;
    assert_eq!(stored(&journal), [(1, 4), (3, 1)]);
}

#[tokio::test]
async fn a_plan_is_kept_while_a_saga_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = "name = \"x\"\n[trigger]\nurl = \"http://a/{id}\"\n[[step]]\nname = \"s\"\n\
                request = { method = \"PUT\", url = \"http://b/${trigger.path.id}\", json = { price = 1.10, x = [1, true] } }\n\
                [[step.compensate]]\nrequest = { method = \"DELETE\", url = \"http://b/\" }\n";
    let (plan, _) = crate::config::load_saga(text, "x.toml").unwrap();
    let hash = crate::journal::plan_hash(&plan).unwrap();
    let plan = Arc::new(plan);
    let journal = open(folder.path());
    journal.store_plan(hash, &plan).unwrap();
    assert_eq!(journal.plan(hash).unwrap().as_ref(), Some(&plan), "queued");
    drop(journal);
    let journal = open(folder.path());
    assert_eq!(journal.plan(hash).unwrap(), None, "nobody began under it");
    journal.store_plan(hash, &plan).unwrap();
    let mut began = began(SagaId(1), "");
    if let Event::Began { plan, .. } = &mut began {
        *plan = hash;
    }
    journal.append(SagaId(1), 0, &[began]).unwrap();
    drop(journal);
    let journal = open(folder.path());
    assert_eq!(journal.plan(hash).unwrap(), Some(plan));
    assert_eq!(journal.plans().unwrap(), [hash]);
}

#[tokio::test]
async fn what_is_durable_survives_a_kill_and_the_rest_is_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    append(&journal, 1, 4).await;
    append(&journal, 2, 2).await;
    journal.append(SagaId(2), 2, &[skipped(2), skipped(3)]).unwrap();
    let copy = killed(folder.path());
    let found = stored(&open(copy.path()));
    assert_eq!(found[0], (1, 4));
    assert!(found[1] == (2, 2) || found[1] == (2, 4), "{found:?}");
}

#[tokio::test]
async fn many_wait_for_one_sync() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(folder.path()));
    let tasks = (1..=200).map(|id| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move { append(&journal, id, 2).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let copy = killed(folder.path());
    assert_eq!(stored(&open(copy.path())).len(), 200);
}

#[test]
fn one_qbox_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let error = Durable::open(folder.path(), Settings::default()).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, OpenError::InUse { .. }), "{said}");
    assert!(said.contains(&std::process::id().to_string()), "{said}");
    drop(first);
    drop(open(folder.path()));
}

#[tokio::test]
async fn open_sagas_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        open: 1,
        ..Settings::default()
    };
    let journal = Durable::open(folder.path(), settings).unwrap();
    append(&journal, 1, 1).await;
    let second = SagaId(2);
    assert_eq!(journal.append(second, 0, &events(2, 1)), Err(JournalError::Full));
    journal.append(SagaId(1), 1, &[skipped(1)]).unwrap();
    journal.finish(outline(1));
    journal.append(second, 0, &events(2, 1)).unwrap();
}

#[tokio::test]
async fn old_finished_sagas_go_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    for id in 1..=300 {
        append(&journal, id, 3).await;
        if id > 1 {
            journal.finish(outline(id));
        }
    }
    drop(journal);
    let settings = Settings {
        keep: Duration::ZERO,
        ..Settings::default()
    };
    let journal = Durable::open(folder.path(), settings).unwrap();
    // The writer tidies when it looks, a few hundred at a time.
    for id in 1001.. {
        append(&journal, id, 1).await;
        if journal
            .list(&Query::default(), &Page::youngest(1))
            .unwrap()
            .is_empty()
        {
            break;
        }
    }
    assert_eq!(journal.history(SagaId(300)).unwrap(), None);
    assert_eq!(journal.history(SagaId(1)).unwrap().unwrap().len(), 3);
}

#[tokio::test]
async fn a_full_disk_ends_it_and_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    append(&open(folder.path()), 1, 2).await;
    let held = schema::Held::take(folder.path()).unwrap();
    let connections = schema::open(&held).unwrap();
    let writer = &connections.writer;
    let pages: i64 = writer
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    writer
        .pragma_update_and_check(None, "max_page_count", pages + 4, |_| Ok(()))
        .unwrap();
    let journal = Durable::start(held, connections, Settings::default()).unwrap();
    assert_eq!(journal.failure(), None);
    let mut kept = vec![(1, 2)];
    let error = loop {
        let id = kept.len() as u128 + 1;
        let done = match journal.append(SagaId(id), 0, &events(id, 2)) {
            Ok(position) => journal.durable(position).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => kept.push((id, 2)),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("no space is left"), "{error}");
    assert!(journal.failure().is_some());
    let further = journal.append(SagaId(1), 2, &[skipped(2)]);
    assert!(
        matches!(further, Err(JournalError::Store(_))),
        "it never goes on in memory"
    );
    drop(journal);
    let found = stored(&open(folder.path()));
    assert_eq!(
        found[..kept.len()],
        kept,
        "the log has what the file had no space for"
    );
}

#[test]
fn files_that_are_none_of_ours() {
    let refused = |prepare: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        prepare(&folder.path().join("journal.db"));
        let before = fs::read(folder.path().join("journal.db")).unwrap();
        assert!(Durable::look(folder.path()).is_err());
        let error = Durable::open(folder.path(), Settings::default()).unwrap_err();
        let after = fs::read(folder.path().join("journal.db")).unwrap();
        assert!(after == before, "nothing is changed: {error}");
        error
    };
    let made = |path: &Path| drop(open(path.parent().unwrap()));
    let newer = refused(&|path| {
        made(path);
        let connection = Connection::open(path).unwrap();
        connection.pragma_update(None, "user_version", 5).unwrap();
    });
    assert!(matches!(newer, OpenError::Newer { found: 5, .. }), "{newer}");
    let damaged: [&dyn Fn(&Path); 4] = [
        &|path| fs::write(path, "").unwrap(),
        &|path| {
            fs::write(
                path,
                "not a database, but long enough to be looked at ".repeat(50),
            )
            .unwrap()
        },
        &|path| {
            Connection::open(path)
                .unwrap()
                .execute_batch("CREATE TABLE x (y)")
                .unwrap()
        },
        &|path| {
            made(path);
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(4096 * 2).unwrap();
        },
    ];
    for prepare in damaged {
        let error = refused(prepare);
        assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn one_damaged_record_hides_no_other_saga() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    for id in 1..=4 {
        for (number, event) in (0..).zip(events(id, 3)) {
            journal.append(SagaId(id), number, &[event]).unwrap();
            // A row for each.
            journal.have_filed();
        }
    }
    drop(journal);
    let connection = Connection::open(folder.path().join("journal.db")).unwrap();
    let harm = [
        "UPDATE event SET event = replace(event, 'body', 'BODY') WHERE k = 1 << 24",
        "DELETE FROM event WHERE k = (2 << 24) + 1",
        "UPDATE event SET k = (3 << 24) + 3 WHERE k = (3 << 24) + 2",
    ];
    for harm in harm {
        assert_eq!(connection.execute(harm, []).unwrap(), 1, "{harm}");
    }
    drop(connection);
    let journal = open(folder.path());
    let mut causes = Vec::new();
    let mut whole = Vec::new();
    for history in journal.open() {
        match history {
            Ok(history) => whole.push(history.saga.0),
            Err(JournalError::Record { saga, cause }) => causes.push((saga.0, cause)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(whole, [4]);
    let of = |n: usize| &causes[n];
    assert!(
        of(0).0 == 1 && of(0).1.contains("event 0 was damaged"),
        "{causes:?}"
    );
    assert!(
        of(1).0 == 2 && of(1).1.contains("event 1 is missing"),
        "{causes:?}"
    );
    assert!(
        of(2).0 == 3 && of(2).1.contains("event 2 is missing"),
        "{causes:?}"
    );
}

/// A journal with 30 sagas, all filed, what SQLite has beside the file not yet moved into it, as files.
fn sample() -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let journal = open(folder.path());
    for id in 1..=30 {
        runtime.block_on(append(&journal, id, 4));
        journal.have_filed();
    }
    let copy = killed(folder.path());
    let read = |name: &str| fs::read(copy.path().join(name)).unwrap();
    (read("journal.db"), read("journal.db-wal"))
}

fn put(file: &[u8], log: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("journal.db"), file).unwrap();
    fs::write(folder.path().join("journal.db-wal"), log).unwrap();
    folder
}

#[test]
fn a_log_torn_anywhere_leaves_whole_commits() {
    let (file, log) = sample();
    let whole = stored(&open(put(&file, &log).path()));
    assert_eq!(whole.len(), 30);
    proptest!(ProptestConfig::with_cases(48), |(cut in 0..log.len(), junk: bool)| {
        let mut torn = log[..cut].to_vec();
        if junk {
            torn.resize(log.len(), 0xa5);
        }
        let folder = put(&file, &torn);
        let found = stored(&open(folder.path()));
        prop_assert_eq!(&found[..], &whole[..found.len()], "each commit is whole, and none is skipped");
    });
}

#[test]
fn damage_anywhere_invents_nothing() {
    let (file, log) = sample();
    // All in the file itself, as after an orderly end.
    let folder = put(&file, &log);
    drop(open(folder.path()));
    let file = fs::read(folder.path().join("journal.db")).unwrap();
    proptest!(ProptestConfig::with_cases(64), |(at in 0..file.len(), harm in prop::collection::vec(any::<u8>(), 1..64))| {
        let mut damaged = file.clone();
        for (to, from) in damaged[at..].iter_mut().zip(&harm) {
            *to = *from;
        }
        let folder = put(&damaged, &[]);
        // Refused is right; so is a journal whose every history is true, or says that it can't be read.
        if let Ok(journal) = Durable::open(folder.path(), Settings::default()) {
            for history in journal.open().flatten() {
                prop_assert_eq!(&history.events, &events(history.saga.0, history.events.len()));
            }
        }
    });
}
