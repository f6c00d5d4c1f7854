//! The log in front of the file: torn, damaged, written over and over.

use super::super::log::FILES;
use super::*;

const PAGE: usize = 4096;

/// A journal with 30 sagas, one frame of the log each, and nothing of them in the file.
fn unfiled() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let settings = Settings {
        keep: Duration::MAX,
        log: 256 << 10,
        ..Settings::default()
    };
    let journal = Durable::open(folder.path(), settings).unwrap();
    for id in 1..=30 {
        runtime.block_on(append(&journal, id, 4));
    }
    let copy = killed(folder.path());
    let there = Connection::open(copy.path().join("journal.db")).unwrap();
    let filed: u64 = there
        .query_row("SELECT count(*) FROM saga", [], |row| row.get(0))
        .unwrap();
    assert_eq!(filed, 0, "it was filed: a slow machine");
    copy
}

fn copied(folder: &Path, log: &[u8]) -> TempDir {
    let copy = killed(folder);
    fs::write(copy.path().join(FILES[0]), log).unwrap();
    copy
}

fn tried(folder: &Path) -> Result<Vec<(u128, usize)>, OpenError> {
    let settings = Settings {
        log: 64 << 10,
        ..Settings::default()
    };
    Durable::open(folder, settings).map(|journal| stored(&journal))
}

/// As the kernel tells (proc_pid_fdinfo(5)): of each file that this process has open by that name.
fn goes_past_the_cache(path: &Path) -> Vec<bool> {
    let mut found = Vec::new();
    for file in fs::read_dir("/proc/self/fd").unwrap() {
        let file = file.unwrap();
        if !fs::read_link(file.path()).is_ok_and(|to| to == path) {
            continue;
        }
        let info = Path::new("/proc/self/fdinfo").join(file.file_name());
        let info = fs::read_to_string(info).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        found.push(flags & rustix::fs::OFlags::DIRECT.bits() != 0);
    }
    found
}

#[tokio::test]
async fn frames_of_any_length_go_past_the_page_cache() {
    // On a disk, as a journal is; some file systems of memory know only the cache.
    let here = std::env::current_exe().unwrap();
    let folder = tempfile::tempdir_in(here.parent().unwrap()).unwrap();
    let journal = open(folder.path());
    for (id, many) in [(1, 2), (2, 3000), (3, 1), (4, 20_000)] {
        append(&journal, id, many).await;
    }
    assert_eq!(goes_past_the_cache(&folder.path().join(FILES[0])), [true]);
    let copy = killed(folder.path());
    let found: Vec<_> = [(1, 2), (2, 3000), (3, 1), (4, 20_000)]
        .map(|(id, many)| (id, many as usize))
        .into();
    assert_eq!(stored(&open(copy.path())), found);
}

#[test]
fn torn_anywhere_it_leaves_whole_frames() {
    let folder = unfiled();
    let log = fs::read(folder.path().join(FILES[0])).unwrap();
    let whole: Vec<_> = (1..=30).map(|id| (id, 4)).collect();
    assert_eq!(tried(killed(folder.path()).path()).unwrap(), whole);
    let frames: Vec<usize> = (0..log.len())
        .step_by(PAGE)
        .filter(|at| log[*at..].starts_with(b"QboxLog1"))
        .collect();
    assert_eq!(frames.len(), 30);
    let ends = frames[29] + PAGE;
    proptest!(ProptestConfig::with_cases(48), |(cut in 0..ends, junk: bool)| {
        let mut torn = log[..cut].to_vec();
        if junk {
            torn.resize(log.len(), 0xa5);
        }
        let found = tried(copied(folder.path(), &torn).path()).unwrap();
        let before = frames.iter().filter(|at| **at < cut).count();
        prop_assert!(found.len() == before || found.len() + 1 == before);
        prop_assert_eq!(&found[..], &whole[..found.len()]);
    });
    // A frame that others follow was acknowledged.
    proptest!(ProptestConfig::with_cases(48), |(frame in 0..29usize, at in 0..400usize, harm in 1..=255u8)| {
        let mut damaged = log.clone();
        damaged[frames[frame] + at] ^= harm;
        let folder = copied(folder.path(), &damaged);
        match tried(folder.path()) {
            Err(OpenError::Damaged { cause, .. }) => prop_assert!(cause.contains("missing"), "{}", cause),
            // The header's last bytes and the room behind the records mean nothing.
            other => prop_assert_eq!(other.unwrap(), whole.clone()),
        }
        prop_assert_eq!(fs::read(folder.path().join(FILES[0])).unwrap(), damaged, "nothing is changed");
    });
}

#[tokio::test]
async fn it_is_written_over_and_over_and_takes_what_is_larger_than_itself() {
    let mut folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        log: 16 << 10,
        ..Settings::default()
    };
    let large = |id: u128| {
        let mut all = events(id, 2);
        all[0] = began(SagaId(id), &"x".repeat(100_000));
        all
    };
    let mut journal = Durable::open(folder.path(), settings).unwrap();
    for id in 1..=60 {
        if id % 20 == 0 {
            let position = journal.append(SagaId(id), 0, &large(id)).unwrap();
            journal.durable(position).await.unwrap();
        } else {
            append(&journal, id, 2).await;
        }
        if id % 25 == 0 {
            // It goes on where it would be had it been killed.
            folder = killed(folder.path());
            journal = Durable::open(folder.path(), settings).unwrap();
            let found = journal.open().map(|history| history.unwrap().saga.0);
            assert!(found.eq(1..=id));
        }
    }
    for id in 1..=60 {
        let wanted = if id % 20 == 0 { large(id) } else { events(id, 2) };
        assert_eq!(journal.history(SagaId(id)).unwrap().unwrap(), wanted);
    }
    drop(journal);
    let lengths = FILES.map(|name| fs::metadata(folder.path().join(name)).unwrap().len());
    assert!(lengths.iter().sum::<u64>() < 400 << 10, "{lengths:?}");
    drop(Durable::open(folder.path(), settings).unwrap());
    let lengths = FILES.map(|name| fs::metadata(folder.path().join(name)).unwrap().len());
    assert_eq!(lengths, [16 << 10; 2]);
}

#[tokio::test]
async fn a_person_reads_each_event_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    append(&journal, 1, 4).await;
    journal.have_filed();
    journal.append(SagaId(1), 4, &[skipped(4)]).unwrap();
    journal.have_filed();
    let connection = Connection::open(folder.path().join(schema::FILE)).unwrap();
    let rows: Vec<(String, u64, String)> = connection
        .prepare("SELECT id, number, event FROM history ORDER BY number")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let numbers: Vec<u64> = rows.iter().map(|(_, number, _)| *number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    for ((id, _, text), event) in rows.iter().zip(events(1, 5)) {
        assert_eq!(*id, SagaId(1).to_string());
        assert_eq!(serde_json::from_str::<Event>(text).unwrap(), event);
    }
}
