//! Which definitions' triggers a request could match: by its host and port first, so that a request to any other place
//! costs one look-up.

use super::Definition;
use crate::saga::{Mode, RequestHead, match_body, match_head};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Definitions by the host and port of their triggers.
#[derive(Debug)]
pub(super) struct Index {
    hasher: RandomState,
    /// By the hash of host and port: a look-up needs no lower-case copy of the host. Two places with one hash share a
    /// list, which does no harm, since each pattern is held against the whole head.
    places: HashMap<u64, Vec<Definition>>,
}

impl Index {
    /// Higher priority first; among equals the order given.
    pub(super) fn new(definitions: &[Definition]) -> Self {
        let hasher = RandomState::new();
        let mut places: HashMap<u64, Vec<Definition>> = HashMap::new();
        for definition in definitions {
            let trigger = &definition.plan.trigger;
            let place = hash(&hasher, trigger.host.trim_matches(['[', ']']), trigger.port);
            places.entry(place).or_default().push(definition.clone());
        }
        for list in places.values_mut() {
            list.sort_by_key(|d| std::cmp::Reverse(d.plan.trigger.priority));
        }
        Self { hasher, places }
    }

    fn place<'a, I>(&self, head: &RequestHead<'a, I>) -> &[Definition]
    where
        I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let place = hash(&self.hasher, head.host(), head.port());
        self.places.get(&place).map_or(&[], Vec::as_slice)
    }

    /// Whether a trigger matches as far as the head goes; [`Mode::Observe`] if all that do only observe. Allocates
    /// nothing, but where a segment to be captured or a query is percent-encoded.
    pub(super) fn could_match<'a, I>(&self, head: &RequestHead<'a, I>) -> Option<Mode>
    where
        I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let mut found = self
            .place(head)
            .iter()
            .filter(|d| match_head(&d.plan.trigger, head));
        let first = found.next()?;
        let enforced = std::iter::once(first)
            .chain(found)
            .any(|d| d.plan.mode == Mode::Enforce);
        Some(if enforced { Mode::Enforce } else { Mode::Observe })
    }

    /// The definition that the whole request is a trigger of.
    pub(super) fn find<'a, I>(&self, head: &RequestHead<'a, I>, body: &[u8]) -> Option<&Definition>
    where
        I: Iterator<Item = (&'a str, &'a [u8])> + Clone,
    {
        let matches =
            |d: &&Definition| match_head(&d.plan.trigger, head) && match_body(&d.plan.trigger, body);
        self.place(head).iter().find(matches)
    }
}

/// Without case, as hosts compare (RFC 9110, 4.2.3).
fn hash(hasher: &RandomState, host: &str, port: u16) -> u64 {
    let mut state = hasher.build_hasher();
    for byte in host.bytes() {
        state.write_u8(byte.to_ascii_lowercase());
    }
    state.write_u16(port);
    state.finish()
}
