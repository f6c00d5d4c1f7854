//! Who writes: the one who waits, or the journal's thread for several.

use super::*;
use futures_util::FutureExt;

fn syncs(journal: &Durable) -> u64 {
    journal.shared.state().commits.count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_is_alone_writes_itself() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    for id in 1..=20 {
        let position = journal.append(SagaId(id), 0, &events(id, 4)).unwrap();
        let kept = journal.durable(position).now_or_never();
        assert_eq!(kept, Some(Ok(())), "nobody is waited for");
        // What nobody waits for comes with the next.
        journal.append(SagaId(id), 4, &[skipped(4)]).unwrap();
    }
    assert_eq!(syncs(&journal), 20);
    let found = stored(&open(killed(folder.path()).path()));
    assert_eq!(found[..19], (1..=19).map(|id| (id, 5)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_thread_with_nobody_to_take_over_its_tasks_waits_for_the_journals_own() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let position = journal.append(SagaId(1), 0, &events(1, 4)).unwrap();
    let waits = journal.durable(position);
    waits.await.unwrap();
    assert_eq!(syncs(&journal), 1);
}

#[tokio::test]
async fn who_comes_while_it_is_written_shares_the_sync_if_they_wait() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let mut id = 0;
    let mut begin = || {
        id += 1;
        journal.append(SagaId(id), 0, &events(id, 4)).unwrap()
    };
    for waits in [false, true] {
        let before = syncs(&journal);
        let mut pen = journal.shared.state().pen.take().unwrap();
        let first = begin();
        let next = {
            let mut state = journal.shared.state();
            state.wanted = first.0;
            pen.take(&mut state)
        };
        let second = begin();
        let waiting = waits.then(|| journal.durable(second));
        let (last, synced) = journal.shared.write_and_sync(&mut pen, next).unwrap();
        assert_eq!(last, if waits { second.0 } else { first.0 });
        assert_eq!(
            journal.shared.written(pen, last, synced),
            usize::from(waits),
            "so many are told"
        );
        assert_eq!(syncs(&journal), before + 1);
        // Nothing is left for the journal's thread, which would take the pen.
        let kept = waiting.unwrap_or_else(|| journal.durable(second));
        kept.await.unwrap();
    }
    assert_eq!(
        stored(&open(killed(folder.path()).path())).len(),
        4,
        "a frame for each, and all of them whole"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_share_their_syncs_and_all_are_told() {
    const CLIENTS: u128 = 64;
    const EACH: u128 = 20;
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(folder.path()));
    let clients = (0..CLIENTS).map(|client| {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            for n in 0..EACH {
                append(&journal, 1 + client * EACH + n, 2).await;
            }
        })
    });
    futures_util::future::try_join_all(clients).await.unwrap();
    let (syncs, waits) = (syncs(&journal), CLIENTS * EACH);
    assert!(
        u128::from(syncs) < waits / 2,
        "{syncs} syncs for {waits} that waited"
    );
    // They are still there when nobody has closed it.
    let copy = killed(folder.path());
    assert_eq!(stored(&open(copy.path())).len() as u128, waits);
    drop(journal);
    assert_eq!(stored(&open(folder.path())).len() as u128, waits);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_room_is_filed_first() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        keep: Duration::MAX,
        log: 8 * 4096,
        ..Settings::default()
    };
    let journal = Durable::open(folder.path(), settings).unwrap();
    for id in 1..=100 {
        append(&journal, id, 4).await;
    }
    drop(journal);
    assert_eq!(stored(&open(folder.path())).len(), 100);
}
