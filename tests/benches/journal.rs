//! Which engine is to hold the journal: sagas per second and the wait for durability at 1, 16 and 256 sagas at once, the
//! time to open it again with 100,000 finished and 10,000 open sagas, and its size. `cargo xtask bench journal`.
//!
//! All engines stand behind the same group commit as the product's: one thread writes all that waits as one transaction
//! and one sync. `file` is a bare file with fdatasync(2): what the disk allows. The machine's load moves all numbers, so
//! the engines take turns, and only the numbers of one run are to be compared.

use anyhow::{Context, Result};
use fjall::{KeyspaceCreateOptions, PersistMode};
use redb::{ReadableDatabase, ReadableTable};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A saga of three steps: its beginning, three intents and outcomes, its end.
const EVENTS: u64 = 8;
/// How long an event is, about, as JSON.
const LENGTH: usize = 320;
/// How long each measurement takes.
const SPAN: Duration = Duration::from_secs(2);
/// How often all engines are measured in turn. The medians are shown.
const ROUNDS: usize = 3;
const AT_ONCE: [usize; 3] = [1, 16, 256];
const FINISHED: u64 = 100_000;
const OPEN: u64 = 10_000;

/// Something to be written.
enum Op {
    Began(u64),
    Event(u64),
    Ended(u64),
}

fn key(saga: u64, number: u64) -> u64 {
    saga << 24 | number
}

/// Not compressible to nothing, and not random either: as JSON is.
fn event(key: u64) -> String {
    let mut text = String::with_capacity(LENGTH + 24);
    let mut state = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while text.len() < LENGTH {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str("{\"step\":");
        text.push_str(&state.to_string());
        text.push_str(",\"status\":200}");
    }
    text
}

trait Engine: Send + Sized {
    const NAME: &'static str;
    fn open(folder: &Path) -> Result<Self>;
    /// One transaction and one sync.
    fn commit(&mut self, ops: &[Op]) -> Result<()>;
    /// How many sagas are open, and how many events they have.
    fn recover(&self) -> Result<(u64, u64)>;
}

struct Sqlite(rusqlite::Connection);

impl Engine for Sqlite {
    const NAME: &'static str = "rusqlite";

    fn open(folder: &Path) -> Result<Self> {
        let connection = rusqlite::Connection::open(folder.join("db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS saga (n INTEGER PRIMARY KEY, ended INTEGER);
             CREATE INDEX IF NOT EXISTS saga_open ON saga (n) WHERE ended IS NULL;
             CREATE TABLE IF NOT EXISTS event (k INTEGER PRIMARY KEY, event TEXT NOT NULL);",
        )?;
        Ok(Self(connection))
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let transaction = self.0.transaction()?;
        for op in ops {
            match *op {
                Op::Began(n) => transaction
                    .prepare_cached("INSERT INTO saga (n) VALUES (?1)")?
                    .execute([n as i64])?,
                Op::Event(k) => transaction
                    .prepare_cached("INSERT INTO event (k, event) VALUES (?1, ?2)")?
                    .execute((k as i64, event(k)))?,
                Op::Ended(n) => transaction
                    .prepare_cached("UPDATE saga SET ended = 1 WHERE n = ?1")?
                    .execute([n as i64])?,
            };
        }
        Ok(transaction.commit()?)
    }

    fn recover(&self) -> Result<(u64, u64)> {
        let mut open = self
            .0
            .prepare("SELECT n FROM saga WHERE ended IS NULL ORDER BY n")?;
        let mut events = self
            .0
            .prepare("SELECT event FROM event WHERE k BETWEEN ?1 AND ?2")?;
        let (mut sagas, mut count) = (0, 0);
        for n in open.query_map([], |row| row.get::<_, i64>(0))? {
            let n = n? as u64;
            sagas += 1;
            let range = (key(n, 0) as i64, key(n, 0xff_ffff) as i64);
            for text in events.query_map(range, |row| row.get::<_, String>(0))? {
                count += u64::from(!text?.is_empty());
            }
        }
        Ok((sagas, count))
    }
}

struct Redb(redb::Database);

const OPEN_SAGAS: redb::TableDefinition<'_, u64, ()> = redb::TableDefinition::new("open");
const EVENT_TABLE: redb::TableDefinition<'_, u64, &str> = redb::TableDefinition::new("event");

impl Engine for Redb {
    const NAME: &'static str = "redb";

    fn open(folder: &Path) -> Result<Self> {
        Ok(Self(redb::Database::create(folder.join("db"))?))
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let transaction = self.0.begin_write()?;
        {
            let mut open = transaction.open_table(OPEN_SAGAS)?;
            let mut events = transaction.open_table(EVENT_TABLE)?;
            for op in ops {
                match *op {
                    Op::Began(n) => drop(open.insert(n, ())?),
                    Op::Event(k) => drop(events.insert(k, event(k).as_str())?),
                    Op::Ended(n) => drop(open.remove(n)?),
                }
            }
        }
        Ok(transaction.commit()?)
    }

    fn recover(&self) -> Result<(u64, u64)> {
        let transaction = self.0.begin_read()?;
        let open = transaction.open_table(OPEN_SAGAS)?;
        let events = transaction.open_table(EVENT_TABLE)?;
        let (mut sagas, mut count) = (0, 0);
        for n in open.iter()? {
            let n = n?.0.value();
            sagas += 1;
            for row in events.range(key(n, 0)..=key(n, 0xff_ffff))? {
                count += u64::from(!row?.1.value().to_owned().is_empty());
            }
        }
        Ok((sagas, count))
    }
}

struct Fjall {
    database: fjall::Database,
    open: fjall::Keyspace,
    events: fjall::Keyspace,
}

impl Engine for Fjall {
    const NAME: &'static str = "fjall";

    fn open(folder: &Path) -> Result<Self> {
        let database = fjall::Database::builder(folder.join("db")).open()?;
        Ok(Self {
            open: database.keyspace("open", KeyspaceCreateOptions::default)?,
            events: database.keyspace("event", KeyspaceCreateOptions::default)?,
            database,
        })
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for op in ops {
            match *op {
                Op::Began(n) => batch.insert(&self.open, n.to_be_bytes(), b""),
                Op::Event(k) => batch.insert(&self.events, k.to_be_bytes(), event(k)),
                Op::Ended(n) => batch.remove(&self.open, n.to_be_bytes()),
            }
        }
        Ok(batch.commit()?)
    }

    fn recover(&self) -> Result<(u64, u64)> {
        let (mut sagas, mut count) = (0, 0);
        for item in self.open.iter() {
            let name = item.key()?;
            let n = u64::from_be_bytes(name.as_ref().try_into().context("a key's length")?);
            sagas += 1;
            for row in self
                .events
                .range(key(n, 0).to_be_bytes()..=key(n, 0xff_ffff).to_be_bytes())
            {
                count += u64::from(!row.value()?.is_empty());
            }
        }
        Ok((sagas, count))
    }
}

struct Bare {
    file: File,
}

impl Engine for Bare {
    const NAME: &'static str = "file";

    fn open(folder: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .read(true)
            .append(true)
            .open(folder.join("db"))?;
        Ok(Self { file })
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let mut bytes = Vec::new();
        for op in ops {
            let (kind, key, text) = match *op {
                Op::Began(n) => (0_u8, n, String::new()),
                Op::Event(k) => (1, k, event(k)),
                Op::Ended(n) => (2, n, String::new()),
            };
            bytes.push(kind);
            bytes.extend(key.to_be_bytes());
            bytes.extend((text.len() as u32).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        self.file.write_all(&bytes)?;
        Ok(self.file.sync_data()?)
    }

    fn recover(&self) -> Result<(u64, u64)> {
        let mut bytes = Vec::new();
        let mut file = &self.file;
        file.read_to_end(&mut bytes)?;
        let mut open = std::collections::HashMap::new();
        let mut rest = bytes.as_slice();
        while let Some((head, tail)) = rest.split_at_checked(13) {
            let number = u64::from_be_bytes(head[1..9].try_into()?);
            let length = u32::from_be_bytes(head[9..13].try_into()?) as usize;
            match head[0] {
                0 => drop(open.insert(number, 0)),
                1 => *open.get_mut(&(number >> 24)).context("an event of no saga")? += 1,
                _ => drop(open.remove(&number)),
            }
            rest = &tail[length..];
        }
        Ok((open.len() as u64, open.values().sum()))
    }
}

#[derive(Default)]
struct Queue {
    ops: Vec<Op>,
    position: u64,
    written: u64,
    wanted: u64,
    sagas: u64,
    waits: Vec<Duration>,
    over: bool,
}

/// `at_once` sagas after each other, for [`SPAN`]: sagas per second, and the waits for durability, sorted.
fn load<E: Engine>(engine: &mut E, at_once: usize, first: u64) -> Result<(f64, Vec<Duration>)> {
    let queue = Mutex::new(Queue {
        sagas: first,
        ..Queue::default()
    });
    let (work, done) = (Condvar::new(), Condvar::new());
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while started.elapsed() < SPAN {
                    let n = {
                        let mut queue = lock();
                        queue.sagas += 1;
                        queue.sagas
                    };
                    let append = |ops: Vec<Op>, wait: bool| {
                        let begun = Instant::now();
                        let mut queue = lock();
                        queue.ops.extend(ops);
                        queue.position += 1;
                        if wait {
                            let mine = queue.position;
                            queue.wanted = mine;
                            work.notify_one();
                            while queue.written < mine {
                                queue = done.wait(queue).unwrap_or_else(PoisonError::into_inner);
                            }
                            queue.waits.push(begun.elapsed());
                        }
                    };
                    let events = |from: u64, to: u64| (from..to).map(move |e| Op::Event(key(n, e)));
                    append(std::iter::once(Op::Began(n)).chain(events(0, 4)).collect(), true);
                    for outcome in 4..7 {
                        append(events(outcome, outcome + 1).collect(), false);
                    }
                    append(events(7, EVENTS).collect(), true);
                    append(vec![Op::Ended(n)], false);
                }
                let mut queue = lock();
                queue.over = true;
                work.notify_one();
            });
        }
        let mut living = true;
        while living {
            let (ops, position) = {
                let mut queue = lock();
                while queue.wanted <= queue.written && !queue.over {
                    queue = work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
                living = started.elapsed() < SPAN || queue.wanted > queue.written;
                (std::mem::take(&mut queue.ops), queue.position)
            };
            engine.commit(&ops)?;
            lock().written = position;
            done.notify_all();
            // Whoever had begun another saga still waits for it.
            if !living {
                thread::sleep(Duration::from_millis(50));
                let queue = lock();
                living = queue.wanted > queue.written;
            }
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let took = started.elapsed().as_secs_f64();
    let mut queue = lock();
    let mut waits = std::mem::take(&mut queue.waits);
    waits.sort_unstable();
    Ok(((queue.sagas - first) as f64 / took, waits))
}

fn size(path: &Path) -> Result<u64> {
    if path.is_file() {
        return Ok(path.metadata()?.len());
    }
    fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}

/// Rate, and the wait's median and 99th percentile in milliseconds, for each of [`AT_ONCE`].
type Round = [[f64; 3]; 3];

fn round<E: Engine>(folder: &Path) -> Result<Round> {
    let under = tempfile::tempdir_in(folder)?;
    let mut engine = E::open(under.path())?;
    let mut measured = Round::default();
    for (place, (at_once, first)) in AT_ONCE.into_iter().zip([0, 100_000_000, 200_000_000]).enumerate() {
        let (rate, waits) = load(&mut engine, at_once, first)?;
        let at = |share: f64| {
            let place = (waits.len() as f64 * share) as usize;
            waits.get(place).map_or(0.0, |wait| wait.as_secs_f64() * 1000.0)
        };
        measured[place] = [rate, at(0.5), at(0.99)];
    }
    Ok(measured)
}

fn recovery<E: Engine>(folder: &Path) -> Result<(Duration, u64)> {
    let under = tempfile::tempdir_in(folder)?;
    let mut engine = E::open(under.path())?;
    let all: Vec<u64> = (1..=FINISHED + OPEN).collect();
    for some in all.chunks(500) {
        let whole = |n: u64| {
            let open = n.is_multiple_of(11);
            let events = if open { 4 } else { EVENTS };
            let events = (0..events).map(move |e| Op::Event(key(n, e)));
            std::iter::once(Op::Began(n))
                .chain(events)
                .chain((!open).then_some(Op::Ended(n)))
        };
        engine.commit(&some.iter().copied().flat_map(whole).collect::<Vec<_>>())?;
    }
    drop(engine);
    let bytes = size(under.path())?;
    let begun = Instant::now();
    let found = E::open(under.path())?.recover()?;
    let took = begun.elapsed();
    anyhow::ensure!(found == (OPEN, 4 * OPEN), "{}: found {found:?}", E::NAME);
    Ok((took, bytes))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn row<E: Engine>(folder: &Path, rounds: &[Round]) -> Result<()> {
    print!("| {} |", E::NAME);
    for place in 0..AT_ONCE.len() {
        let [rate, half, most] = [0, 1, 2].map(|what| median(rounds.iter().map(|round| round[place][what])));
        print!(" {rate:.0}/s, {half:.2} / {most:.2} ms |");
    }
    let (took, bytes) = recovery::<E>(folder)?;
    println!(" {:.0} ms | {} MiB |", took.as_secs_f64() * 1000.0, bytes >> 20);
    Ok(())
}

fn main() -> Result<()> {
    // On the disk that the journal would be on, not in a /tmp that may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let folder = folder.path();
    let mut rounds: [Vec<Round>; 4] = Default::default();
    for number in 1..=ROUNDS {
        eprintln!("round {number} of {ROUNDS}");
        let [sqlite, redb, fjall, bare] = &mut rounds;
        sqlite.push(round::<Sqlite>(folder)?);
        redb.push(round::<Redb>(folder)?);
        fjall.push(round::<Fjall>(folder)?);
        bare.push(round::<Bare>(folder)?);
    }
    let [sqlite, redb, fjall, bare] = &rounds;
    println!("| engine | 1 saga at once: rate, wait p50 / p99 | 16 | 256 | opened and read again | size |");
    println!("|---|---|---|---|---|---|");
    row::<Sqlite>(folder, sqlite)?;
    row::<Redb>(folder, redb)?;
    row::<Fjall>(folder, fjall)?;
    row::<Bare>(folder, bare)
}
