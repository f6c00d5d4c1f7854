//! The log in front of the file: what is to be durable now is appended to it with one write and one sync, and goes into the file
//! later, with much else.
//!
//! Two files, `journal.log-a` and `-b`, in turns: one is written again from its beginning once the journal's file has all that it
//! holds. They are as long as they will be from the beginning, so that a sync has no new length to write (fdatasync(2)). A frame
//! holds some records and begins at a page's beginning, so that no write touches what was acknowledged before. It goes past the
//! page cache (`O_DIRECT`, open(2)) where the file system knows how: a sync then has only the disk to wait for, which halves it.
//!
//! ```text
//! 0   "QboxLog1"
//! 8   the generation: another one with each start
//! 16  the number of its first record
//! 24  its records' length in bytes
//! 32  CRC-32 of them and of all above
//! 36  four zeros; then the records
//! ```
//!
//! All numbers are little-endian. A frame that is torn was never acknowledged. Errors: the disk's, and [`OpenError::Damaged`] where
//! one is missing that was.

use super::OpenError;
use super::record::Record;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The files' names in the state directory.
pub(super) const FILES: [&str; 2] = ["journal.log-a", "journal.log-b"];
const MAGIC: [u8; 8] = *b"QboxLog1";
/// A frame's header.
pub(super) const HEADER: usize = 40;
/// So much of it is in its sum.
const SUMMED: usize = 32;
/// Where frames begin, in the file and in memory: no file system asks more of what goes past the page cache.
const PAGE: usize = 4096;
/// How much is written at once, at most.
const CHUNK: usize = 128 << 10;

/// The files, for one writer.
#[derive(Debug)]
pub(super) struct Log {
    /// The one that is written.
    segment: Segment,
    other: Segment,
    length: u64,
    generation: u64,
    /// Written and not synced.
    dirty: bool,
    /// A [`CHUNK`] that begins at a page's beginning lies in it.
    room: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    path: PathBuf,
    /// Where its next frame begins.
    end: u64,
    /// The last record in it.
    last: u64,
}

/// What a start finds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Records that the file hasn't, each with its number, in order; as bytes of whole frames.
    frames: Vec<Frame>,
}

#[derive(Debug)]
struct Frame {
    /// Its first record's number.
    first: u64,
    records: Vec<u8>,
}

impl Found {
    /// Gives each record that the journal's file hasn't, which has those up to `filed`; and the last one's number.
    ///
    /// # Errors
    /// One is missing or of another version: why.
    pub(super) fn each(
        &self,
        filed: u64,
        mut take: impl FnMut(&Record<'_>) -> Result<(), String>,
    ) -> Result<u64, String> {
        let mut last = filed;
        for frame in &self.frames {
            let records = Record::decode(&frame.records)?;
            if frame.first > last + 1 {
                return Err(format!(
                    "of the log the records from {} to {} are missing",
                    last + 1,
                    frame.first - 1
                ));
            }
            for (number, record) in (frame.first..).zip(&records) {
                if number > last {
                    take(record)?;
                    last = number;
                }
            }
        }
        Ok(last)
    }
}

impl Log {
    /// Reads what `generation` has left in `folder`.
    ///
    /// # Errors
    /// [`OpenError`]: a file can't be read.
    pub(super) fn find(folder: &Path, generation: u64) -> Result<Found, OpenError> {
        let mut frames = Vec::new();
        for name in FILES {
            let path = folder.join(name);
            match fs::read(&path) {
                Ok(bytes) => frames.extend(frames_of(&bytes, generation)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(OpenError::Folder { path, source }),
            }
        }
        frames.sort_by_key(|frame| frame.first);
        Ok(Found { frames })
    }

    /// Makes the files ready for `generation`, which no frame in them is of: each `length` bytes long.
    ///
    /// # Errors
    /// [`OpenError`]: they can't be made or written.
    pub(super) fn begin(folder: &Path, generation: u64, length: u64) -> Result<Self, OpenError> {
        let [segment, other] = FILES.map(|name| Segment::open(folder.join(name), length));
        Ok(Self {
            segment: segment?,
            other: other?,
            length,
            generation,
            dirty: false,
            room: vec![0; CHUNK + PAGE],
        })
    }

    /// Whether a frame that takes `length` bytes before [`Log::frame`] can be appended, the file having all records up to `filed`.
    pub(super) fn has_room(&self, length: usize, filed: u64) -> bool {
        self.fits(length.next_multiple_of(PAGE)) || self.other.last <= filed
    }

    /// Whether less than half of one file is left before the other one is written again, which has records that the file hasn't.
    pub(super) fn needs_filing(&self, filed: u64) -> bool {
        self.other.last > filed && 2 * self.segment.end > self.length
    }

    fn fits(&self, frame: usize) -> bool {
        let end = self.segment.end;
        // The largest gets a file for itself, which is longer then.
        end == 0 || end + frame as u64 <= self.length
    }

    /// The bytes of a frame: its records, from number `first` on, stand in `frame` behind the room for a header.
    pub(super) fn frame(&self, frame: &mut Vec<u8>, first: u64) {
        if let Some((header, records)) = frame.split_at_mut_checked(HEADER) {
            let fields = [self.generation, first, records.len() as u64].map(u64::to_le_bytes);
            let fields = [MAGIC].into_iter().chain(fields);
            for (to, field) in header.chunks_exact_mut(8).zip(fields) {
                to.copy_from_slice(&field);
            }
            if let Some((summed, sum)) = header.split_at_mut_checked(SUMMED) {
                let sum_of_it = u64::from(checksum(summed, records)).to_le_bytes();
                sum.copy_from_slice(&sum_of_it);
            }
        }
        frame.resize(frame.len().next_multiple_of(PAGE), 0);
    }

    /// Appends a frame that there is room for, whose last record is number `last`.
    ///
    /// # Errors
    /// The disk's. Nobody knows then what it holds.
    pub(super) fn append(&mut self, frame: &[u8], last: u64) -> io::Result<()> {
        if !self.fits(frame.len()) {
            self.sync()?;
            std::mem::swap(&mut self.segment, &mut self.other);
            self.segment.end = 0;
            if self.segment.file.metadata()?.len() > self.length {
                self.segment.file.set_len(self.length)?;
            }
        }
        let segment = &mut self.segment;
        let begin = self.room.as_ptr().align_offset(PAGE);
        for chunk in frame.chunks(CHUNK) {
            let aligned = self.room.get_mut(begin..begin + chunk.len());
            let aligned = aligned.ok_or(io::ErrorKind::OutOfMemory)?;
            aligned.copy_from_slice(chunk);
            segment.file.write_all_at(aligned, segment.end)?;
            segment.end += chunk.len() as u64;
        }
        segment.last = last;
        self.dirty = true;
        Ok(())
    }

    /// Has the disk keep what was appended.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.segment.file.sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }

    /// The file that is written, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.segment.path
    }
}

impl Segment {
    fn open(path: PathBuf, length: u64) -> Result<Self, OpenError> {
        let ready = Self::prepare(&path, length).and_then(|file| Ok(Self::direct(&path)?.unwrap_or(file)));
        match ready {
            Ok(file) => Ok(Self {
                file,
                path,
                end: 0,
                last: 0,
            }),
            Err(source) => Err(OpenError::Folder { path, source }),
        }
    }

    fn prepare(path: &Path, length: u64) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let mut at = file.metadata()?.len();
        if at != length {
            file.set_len(at.min(length))?;
            let zeros = vec![0; 1 << 18];
            while at < length {
                let most = usize::try_from(length - at).unwrap_or(usize::MAX);
                let zeros = &zeros[..most.min(zeros.len())];
                file.write_all_at(zeros, at)?;
                at += zeros.len() as u64;
            }
            file.sync_all()?;
        }
        Ok(file)
    }

    /// The file, for what goes past the page cache; nothing where the file system doesn't know how, which some say only when they are
    /// written to.
    fn direct(path: &Path) -> io::Result<Option<File>> {
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(path);
        // No frame that anyone needs is in it.
        let tried = opened.and_then(|file| {
            let room = [0; 2 * PAGE];
            let begin = room.as_ptr().align_offset(PAGE);
            file.write_all_at(room.get(begin..begin + PAGE).unwrap_or_default(), 0)?;
            Ok(file)
        });
        match tried {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The whole frames of one generation.
fn frames_of(bytes: &[u8], generation: u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        at += match frame_of(rest, generation) {
            Some(frame) => {
                let length = HEADER + frame.records.len();
                frames.push(frame);
                length.next_multiple_of(PAGE)
            }
            // Behind one that is damaged there may be others: then it is known that one is missing.
            None => PAGE,
        };
    }
    frames
}

fn frame_of(bytes: &[u8], generation: u64) -> Option<Frame> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let fields: Vec<u64> = header
        .chunks_exact(8)
        .filter_map(|field| Some(u64::from_le_bytes(field.try_into().ok()?)))
        .collect();
    let [magic, of, first, length, sum] = fields.try_into().ok()?;
    if magic != u64::from_le_bytes(MAGIC) || of != generation {
        return None;
    }
    let records = rest.get(..usize::try_from(length).ok()?)?;
    let whole = sum == u64::from(checksum(header.get(..SUMMED)?, records));
    whole.then(|| Frame {
        first,
        records: records.to_vec(),
    })
}

fn checksum(header: &[u8], records: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(header);
    sum.update(records);
    sum.finalize()
}
