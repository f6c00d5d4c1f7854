//! Whether the file may have a saga with some key: most triggers' keys are new, and are known to be so without a query.
//!
//! A Bloom filter of what was filed (B. H. Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970). The filer alone
//! changes it. A key that isn't in it is not in the file; one that seems to be is looked for there. No errors.

use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits for each key: of some four hundred that are not there one seems to be.
const EACH: usize = 16;
/// There are bits for so many keys at least.
const LEAST: usize = 1 << 14;
/// Of more keys there is no filter: it would take more than 8 MiB, and the look at all of them a second.
pub(super) const MOST: usize = 1 << 21;

/// The filter, once it is there: until then the file may have any key.
#[derive(Debug, Default)]
pub(super) struct Keys(ArcSwapOption<Filter>);

impl Keys {
    /// Whether the file may have it. `false` holds for what was filed before this was called.
    pub(super) fn may_have(&self, key: &[u8; 32]) -> bool {
        self.0.load().as_ref().is_none_or(|filter| filter.may_have(key))
    }

    /// One more that the file has.
    pub(super) fn add(&self, key: &[u8; 32]) {
        if let Some(filter) = &*self.0.load() {
            filter.add(key);
        }
    }

    /// See [`Filter::is_full`].
    pub(super) fn are_full(&self) -> bool {
        self.0.load().as_ref().is_some_and(|filter| filter.is_full())
    }

    /// From now on this one tells; `None`: the file may have any key.
    pub(super) fn set(&self, filter: Option<Filter>) {
        self.0.store(filter.map(Arc::new));
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Filter {
    /// A power of two of them.
    bits: Box<[AtomicU64]>,
    room: u64,
    added: AtomicU64,
}

impl Filter {
    /// With room for so many keys, and as many again.
    pub(super) fn new(keys: usize) -> Self {
        let room = (2 * keys).max(LEAST);
        let bits = (room * EACH).next_power_of_two();
        Self {
            bits: (0..bits / 64).map(|_| AtomicU64::new(0)).collect(),
            room: room as u64,
            added: AtomicU64::new(0),
        }
    }

    /// One more.
    pub(super) fn add(&self, key: &[u8; 32]) {
        for (word, bit) in self.places(key) {
            word.fetch_or(bit, Ordering::Release);
        }
        self.added.fetch_add(1, Ordering::Relaxed);
    }

    /// More were added than it was made for; of those some may have been dropped from the file since.
    fn is_full(&self) -> bool {
        self.added.load(Ordering::Relaxed) > self.room
    }

    fn may_have(&self, key: &[u8; 32]) -> bool {
        self.places(key)
            .all(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// A key is a digest: its parts are as good as hashes of it.
    fn places(&self, key: &[u8; 32]) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let (parts, _) = key.as_chunks::<8>();
        parts.iter().filter_map(|part| {
            let hash = u64::from_le_bytes(*part);
            let word = (hash >> 6) as usize & (self.bits.len() - 1);
            Some((self.bits.get(word)?, 1 << (hash & 63)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn key(number: usize) -> [u8; 32] {
        Sha256::digest(number.to_be_bytes()).into()
    }

    #[test]
    fn what_was_added_is_there_and_little_else_seems_to_be() {
        let known: Vec<_> = (0..10_000).map(key).collect();
        let keys = Keys::default();
        assert!(keys.may_have(&key(1)), "nobody knows yet");
        let filter = Filter::new(known.len());
        known.iter().for_each(|key| filter.add(key));
        keys.set(Some(filter));
        assert!(known.iter().all(|key| keys.may_have(key)));
        assert!(!keys.are_full());
        (10_000..20_001).for_each(|number| keys.add(&key(number)));
        assert!(keys.are_full());
        assert!((0..20_001).all(|number| keys.may_have(&key(number))));
        let seem = (100_000..200_000).filter(|number| keys.may_have(&key(*number)));
        let seem = seem.count();
        assert!(seem < 1_000, "{seem} of 100,000");
    }
}
