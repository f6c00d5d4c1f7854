//! The file: made, opened, checked and brought up to this version. What stands in the log in front of it (`log`) and not here is not
//! here yet, and gets here before all else at the next start.
//!
//! ```text
//! saga   n (its place in the order), id, name, plan (hash), began, ended (when it was; NULL: it is open); and of an ended
//!        one state, failed_step, cause, replied, status, key, payload, parent, parent_step, revoked
//! event  k = n << 24 | the first event's number, sum (see `codec`), event (a JSON array of events; up to version 3 one)
//! plan   hash, plan (JSON)
//! log    generation, filed: what of the log this file has
//! history  a view for people: id, name, number, event
//! ```
//!
//! One B-tree holds the events, ordered by saga and number, so that a history is one range of it. Errors: [`OpenError`].

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file's name in the state directory.
pub(super) const FILE: &str = "journal.db";
/// What SQLite keeps beside it ("WAL-mode File Format").
pub(super) const BESIDE: &str = "journal.db-wal";
/// What is flocked, as long as a Qbox runs.
const LOCK: &str = "lock";
/// "Qbox": tells this file from other programs' (SQLite's `application_id`).
const APPLICATION: i32 = 0x5162_6f78;
/// The tables' version (SQLite's `user_version`). The events have one of their own.
pub(super) const VERSION: i32 = 4;
/// What brings a file from version N (its place here) to N + 1. The first makes a new file.
const MIGRATIONS: [&str; VERSION as usize] = [
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
];

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state directory can't be used.
    #[error("can't use {} for the journal: {source}", path.display())]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another Qbox has it.
    #[error("another Qbox (process {holder}) works in {}: each needs a state directory of its own", path.display())]
    InUse {
        /// The state directory.
        path: PathBuf,
        /// Its process id, as far as is known.
        holder: String,
    },
    /// Written by a later Qbox.
    #[error(
        "{} is of version {found}, this Qbox knows up to {VERSION}: run the Qbox that wrote it, or a later one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i32,
    },
    /// No journal, or one that was damaged.
    #[error(
        "{} is damaged or no journal: {cause}; nothing in it was changed. Put a whole copy in its place, or move it away, \
         with {FILE}-wal and journal.log-*, to begin anew without the sagas that it holds",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        cause: String,
    },
    /// Anything else that SQLite says.
    #[error("{}", super::codec::describe(path, source))]
    Store {
        /// The file.
        path: PathBuf,
        /// What.
        source: rusqlite::Error,
    },
}

/// The state directory, held: whoever else asks for it is refused until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    folder: PathBuf,
    _lock: File,
}

impl Held {
    /// Makes the directory if it is missing, readable by its owner alone, and takes it.
    pub(super) fn take(folder: &Path) -> Result<Self, OpenError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Folder { path, source }
        };
        let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(at(folder))?;
        // A name is on the disk when its folder was synced, not before: else a power cut takes all that is below it.
        for made in missing {
            let above = made.parent().filter(|path| !path.as_os_str().is_empty());
            let above = above.unwrap_or(Path::new("."));
            sync(above).map_err(at(above))?;
        }
        let path = folder.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at(&path))?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(at(&path)(error.into()));
            }
            let mut holder = String::new();
            // Only for the message.
            let _ = lock.read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { "unknown" } else { holder };
            return Err(OpenError::InUse {
                path: folder.to_owned(),
                holder: holder.to_owned(),
            });
        }
        let written = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(at(&path))?;
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Has the disk keep the names in the directory.
    pub(super) fn sync(&self) -> Result<(), OpenError> {
        sync(&self.folder).map_err(|source| OpenError::Folder {
            path: self.folder.clone(),
            source,
        })
    }
}

/// The file, opened as often as it is used at once.
pub(super) struct Connections {
    pub(super) writer: Connection,
    /// Reads what is found at once.
    pub(super) reader: Connection,
    /// Reads what may take a while.
    pub(super) lists: Connection,
}

/// Opens the file; makes it if it is missing.
pub(super) fn open(held: &Held) -> Result<Connections, OpenError> {
    let path = held.file();
    if !path.exists() {
        make(held)?;
    }
    // Also where a Qbox that was killed had made it.
    held.sync()?;
    let of = |source| fault(&path, source);
    let mut writer = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(of)?;
    let found = version(&writer, &path)?;
    write_ahead(&writer).map_err(of)?;
    migrate(&mut writer, &path, found)?;
    let read = || connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(of);
    Ok(Connections {
        reader: read()?,
        lists: read()?,
        writer,
    })
}

/// Makes the file whole beside its place and moves it there: an empty file in that place is never one that was begun.
fn make(held: &Held) -> Result<(), OpenError> {
    let path = held.file();
    let new = held.folder.join("journal.new");
    let io = |source| OpenError::Folder {
        path: held.folder.clone(),
        source,
    };
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(io)?;
    {
        let of = |source| fault(&new, source);
        let mut connection = Connection::open(&new).map_err(of)?;
        // Must come before the first table.
        connection
            .pragma_update(None, "auto_vacuum", "INCREMENTAL")
            .map_err(of)?;
        connection
            .pragma_update(None, "application_id", APPLICATION)
            .map_err(of)?;
        migrate(&mut connection, &new, 0)?;
        connection.close().map_err(|(_, source)| of(source))?;
    }
    sync(&new).map_err(io)?;
    fs::rename(&new, &path).map_err(io)
}

/// A file or a folder.
fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // Someone who looks into the file with sqlite3(1) may hold it for a moment.
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}

/// Only for a file that is known to be ours: it changes it.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Each commit is synced.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A page that is written again and again goes into the file once for all of that. In pages of 4 KiB.
    connection.pragma_update(None, "wal_autocheckpoint", 8192)?;
    // What one filing changes stays in memory until it is committed: pages that had to make room would be written and read again. In KiB.
    connection.pragma_update(None, "cache_size", -8192)?;
    // After a checkpoint the log is cut back to this.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)
}

/// Whether this Qbox knows the version of the file in a directory that another one holds. Where there is none it can be made.
pub(super) fn look(folder: &Path) -> Result<(), OpenError> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok(());
    }
    let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let connection = connection.map_err(|source| fault(&path, source))?;
    version(&connection, &path).map(drop)
}

/// The tables' version; an error if they are not Qbox's, or this Qbox doesn't know it.
fn version(connection: &Connection, path: &Path) -> Result<usize, OpenError> {
    let application: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(|source| fault(path, source))?;
    if application != APPLICATION {
        return Err(OpenError::Damaged {
            path: path.to_owned(),
            cause: "it is not Qbox's (its application_id differs)".to_owned(),
        });
    }
    let found: i32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| fault(path, source))?;
    if found > VERSION {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
        });
    }
    // Below 1 there is none: a file gets its place when it is whole.
    usize::try_from(found)
        .ok()
        .filter(|found| *found > 0)
        .ok_or_else(|| OpenError::Damaged {
            path: path.to_owned(),
            cause: format!("its version is {found}"),
        })
}

/// Each version in a transaction of its own, so that a crash leaves a whole one.
fn migrate(connection: &mut Connection, path: &Path, from: usize) -> Result<(), OpenError> {
    let of = |source| fault(path, source);
    for (step, version) in MIGRATIONS.iter().zip(1..).skip(from) {
        let transaction = connection.transaction().map_err(of)?;
        transaction.execute_batch(step).map_err(of)?;
        transaction
            .pragma_update(None, "user_version", version)
            .map_err(of)?;
        transaction.commit().map_err(of)?;
    }
    Ok(())
}

/// What SQLite says of the file.
pub(super) fn fault(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => OpenError::Damaged {
            path,
            cause: source.to_string(),
        },
        _ => OpenError::Store { path, source },
    }
}
