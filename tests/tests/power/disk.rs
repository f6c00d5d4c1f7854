//! A disk that can lose its power, run full and fail to sync: what POSIX leaves open, it does.
//!
//! A write is on the disk once its file was synced, a name once its folder was. When the power goes, each 512-byte sector of
//! a file holds what it held at some moment since the last sync, whatever the others hold; of what happened to a folder since
//! its last sync, a first part is there. A sync that fails drops what it should have written, and the next one says that all
//! is well, as Linux does.

use fuser::Errno;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

const SECTOR: usize = 512;
/// The root folder's number.
pub(crate) const ROOT: u64 = 1;

/// What a sync does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sync {
    /// What it says.
    #[default]
    Honest,
    /// Nothing, and says that it has done it.
    Lies,
    /// After that many honest ones, one fails; after it they are honest again.
    Fails(u32),
}

/// The disk, as programs see it and as it is.
#[derive(Debug)]
pub(crate) struct Disk {
    nodes: Vec<Node>,
    /// The power goes off after that many more changes and syncs.
    pub(crate) changes_left: Option<u64>,
    /// What the files may hold together, in bytes.
    pub(crate) space: Option<usize>,
    /// What syncs do.
    pub(crate) sync: Sync,
}

#[derive(Debug)]
pub(crate) enum Node {
    File(File),
    Folder(Folder),
}

#[derive(Debug, Default)]
pub(crate) struct File {
    /// As programs see it.
    pub(crate) now: Vec<u8>,
    disk: Vec<u8>,
    /// What has happened to it since it was synced.
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Default)]
pub(crate) struct Folder {
    pub(crate) now: BTreeMap<OsString, u64>,
    disk: BTreeMap<OsString, u64>,
    pending: Vec<Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    Put(OsString, u64),
    Take(OsString),
    Move(OsString, OsString),
}

/// Chance, from a seed: xorshift64.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        chance.below(1);
        chance
    }

    /// From 0 to `end` - 1.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { at, data } => put(to, *at, data),
            Self::Length(length) => to.resize(*length, 0),
        }
    }
}

fn put(to: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[at..end].copy_from_slice(data);
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    /// What is found of it after the power has gone.
    fn cut(&self, chance: &mut Chance) -> Vec<u8> {
        let mut left = self.disk.clone();
        // Changes of length keep their order, and writes keep theirs to them.
        for part in self
            .pending
            .chunk_by(|_, next| !matches!(next, Change::Length(_)))
        {
            if chance.below(8) == 0 {
                break;
            }
            let mut sectors: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
            for change in part {
                match change {
                    Change::Length(_) => change.apply(&mut left),
                    Change::Write { at, data } => {
                        let mut at = *at;
                        let mut rest = data.as_slice();
                        while !rest.is_empty() {
                            let (here, behind) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                            sectors.entry(at / SECTOR).or_default().push((at, here));
                            at += here.len();
                            rest = behind;
                        }
                    }
                }
            }
            // Mostly some of them, at times all or none.
            let share = chance.below(5);
            for writes in sectors.values() {
                let count = match share {
                    0 => 0,
                    1 => writes.len() as u64,
                    _ => chance.below(writes.len() as u64 + 1),
                };
                for (at, data) in writes.iter().take(count as usize) {
                    put(&mut left, *at, data);
                }
            }
        }
        left
    }
}

impl Folder {
    fn change(&mut self, entry: Entry) {
        entry.apply(&mut self.now);
        self.pending.push(entry);
    }
}

impl Entry {
    fn apply(&self, to: &mut BTreeMap<OsString, u64>) {
        match self {
            Self::Put(name, node) => drop(to.insert(name.clone(), *node)),
            Self::Take(name) => drop(to.remove(name)),
            Self::Move(from, name) => {
                if let Some(node) = to.remove(from) {
                    to.insert(name.clone(), node);
                }
            }
        }
    }
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![Node::Folder(Folder::default())],
            changes_left: None,
            space: None,
            sync: Sync::Honest,
        }
    }

    /// The disk as it is found when the power is back.
    pub(crate) fn after_a_cut(&self, chance: &mut Chance) -> Self {
        let nodes = self.nodes.iter().map(|node| match node {
            Node::File(file) => {
                let left = file.cut(chance);
                Node::File(File {
                    now: left.clone(),
                    disk: left,
                    pending: Vec::new(),
                })
            }
            Node::Folder(folder) => {
                let mut left = folder.disk.clone();
                let count = chance.below(folder.pending.len() as u64 + 1) as usize;
                folder
                    .pending
                    .iter()
                    .take(count)
                    .for_each(|entry| entry.apply(&mut left));
                Node::Folder(Folder {
                    now: left.clone(),
                    disk: left,
                    pending: Vec::new(),
                })
            }
        });
        Self {
            nodes: nodes.collect(),
            ..Self::new()
        }
    }

    /// The files of a folder below the root, by name.
    pub(crate) fn files(&mut self, folder: &str) -> Vec<(OsString, Vec<u8>)> {
        let mut files = Vec::new();
        let number = self
            .folder(ROOT)
            .ok()
            .and_then(|root| root.now.get(OsStr::new(folder)).copied());
        let names = number.and_then(|number| self.folder(number).ok().map(|folder| folder.now.clone()));
        for (name, number) in names.unwrap_or_default() {
            if let Ok(file) = self.file(number) {
                files.push((name, file.now.clone()));
            }
        }
        files
    }

    /// What the files hold together, in bytes.
    pub(crate) fn used(&self) -> usize {
        let files = self.nodes.iter().map(|node| match node {
            Node::File(file) => file.now.len(),
            Node::Folder(_) => 0,
        });
        files.sum()
    }

    /// Whether the power is gone.
    pub(crate) fn is_off(&self) -> bool {
        self.changes_left == Some(0)
    }

    pub(crate) fn node(&mut self, number: u64) -> Result<&mut Node, Errno> {
        let place = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
        place
            .and_then(|place| self.nodes.get_mut(place))
            .ok_or(Errno::ENOENT)
    }

    pub(crate) fn folder(&mut self, number: u64) -> Result<&mut Folder, Errno> {
        match self.node(number)? {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(Errno::ENOTDIR),
        }
    }

    pub(crate) fn file(&mut self, number: u64) -> Result<&mut File, Errno> {
        match self.node(number)? {
            Node::File(file) => Ok(file),
            Node::Folder(_) => Err(Errno::EISDIR),
        }
    }

    /// Without power nothing changes any more. What was read before can still be read, from the memory of a machine that
    /// is about to go.
    fn powered(&mut self) -> Result<(), Errno> {
        match &mut self.changes_left {
            None => Ok(()),
            Some(0) => Err(Errno::EIO),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    pub(crate) fn make(&mut self, folder: u64, name: &OsStr, node: Node) -> Result<u64, Errno> {
        self.powered()?;
        let number = self.nodes.len() as u64 + 1;
        if self.folder(folder)?.now.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.nodes.push(node);
        self.folder(folder)?.change(Entry::Put(name.to_owned(), number));
        Ok(number)
    }

    pub(crate) fn remove(&mut self, folder: u64, name: &OsStr) -> Result<(), Errno> {
        self.powered()?;
        let folder = self.folder(folder)?;
        if !folder.now.contains_key(name) {
            return Err(Errno::ENOENT);
        }
        folder.change(Entry::Take(name.to_owned()));
        Ok(())
    }

    pub(crate) fn rename(&mut self, folder: u64, name: &OsStr, to: &OsStr) -> Result<(), Errno> {
        self.powered()?;
        let folder = self.folder(folder)?;
        if !folder.now.contains_key(name) {
            return Err(Errno::ENOENT);
        }
        folder.change(Entry::Move(name.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(crate) fn write(&mut self, number: u64, at: usize, data: &[u8]) -> Result<(), Errno> {
        self.powered()?;
        if let Some(space) = self.space {
            let used = self.used();
            let more = (at + data.len()).saturating_sub(self.file(number)?.now.len());
            if more > 0 && used + more > space {
                return Err(Errno::ENOSPC);
            }
        }
        let data = data.to_vec();
        self.file(number)?.change(Change::Write { at, data });
        Ok(())
    }

    pub(crate) fn set_length(&mut self, number: u64, length: usize) -> Result<(), Errno> {
        self.powered()?;
        self.file(number)?.change(Change::Length(length));
        Ok(())
    }

    /// Of a file or a folder.
    pub(crate) fn sync(&mut self, number: u64) -> Result<(), Errno> {
        self.powered()?;
        let sync = self.sync;
        if let Sync::Fails(after) = sync {
            self.sync = after.checked_sub(1).map_or(Sync::Honest, Sync::Fails);
        }
        match (sync, self.node(number)?) {
            (Sync::Lies, _) => {}
            (Sync::Fails(0), Node::File(file)) => {
                file.pending.clear();
                return Err(Errno::EIO);
            }
            (Sync::Fails(0), Node::Folder(folder)) => {
                folder.pending.clear();
                return Err(Errno::EIO);
            }
            (_, Node::File(file)) => {
                for change in file.pending.drain(..) {
                    change.apply(&mut file.disk);
                }
            }
            (_, Node::Folder(folder)) => {
                for entry in folder.pending.drain(..) {
                    entry.apply(&mut folder.disk);
                }
            }
        }
        Ok(())
    }
}
