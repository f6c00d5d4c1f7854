//! What is captured: ports, with or without addresses, as keys of the programs' trie, whose longest prefix decides; and before
//! that a bit for each port that the trie has.

use super::InterceptError;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, MapData, MapError};
use qbox_common::{
    Address, DESTINATION_ADDRESS_BITS, DESTINATION_PORT_BITS, Destination as Raw, MAX_DESTINATIONS, names,
    port_bit, scope,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Something a loaded trigger could match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The service's port.
    pub port: u16,
    /// Its addresses; `None` is any but the loopback's, which count only where they are named.
    pub network: Option<Network>,
}

impl Network {
    /// 127.0.0.0/8, all of it the loopback's (RFC 1122, 3.2.1.3).
    pub const V4_LOOPBACK: Self = Self {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        prefix: 8,
    };
    /// ::1 (RFC 4291, 2.5.3).
    pub const V6_LOOPBACK: Self = Self {
        address: IpAddr::V6(Ipv6Addr::LOCALHOST),
        prefix: 128,
    };

    /// One address alone.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix }
    }
}

/// Addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address of them.
    pub address: IpAddr,
    /// How many bits count: up to 32 for IPv4, 128 for IPv6.
    pub prefix: u8,
}

/// What is not captured although a destination is wider than it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The addresses.
    pub network: Network,
    /// Their port; `None` is any.
    pub port: Option<u16>,
}

/// A trie's key in a form that can be compared: prefix in bits, port, address octets; bits past the prefix are 0.
type Entry = (u32, u16, [u8; 16]);

impl Destination {
    fn entry(self) -> Result<Entry, InterceptError> {
        let Some(Network { address, prefix }) = self.network else {
            return Ok((DESTINATION_PORT_BITS, self.port, [0; 16]));
        };
        let (octets, skipped, width) = match address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), 96, 32),
            IpAddr::V6(v6) => (v6.octets(), 0, 128),
        };
        if prefix > width {
            return Err(InterceptError::Prefix { prefix });
        }
        let bits = skipped + u32::from(prefix);
        let mask = u128::MAX
            .checked_shl(DESTINATION_ADDRESS_BITS - bits)
            .unwrap_or(0);
        let octets = (u128::from_be_bytes(octets) & mask).to_be_bytes();
        Ok((DESTINATION_PORT_BITS + bits, self.port, octets))
    }
}

fn key((bits, port, octets): Entry) -> Key<Raw> {
    let raw = Raw {
        port: port.to_be(),
        address: Address::from_octets(octets),
    };
    Key::new(bits, raw)
}

/// An entry that is narrow enough to name the loopback names it.
fn scope_of((bits, ..): Entry, address: Address) -> u32 {
    let least = if address.is_v4() { 96 + 8 } else { 128 };
    if address.is_loopback() && bits >= DESTINATION_PORT_BITS + least {
        scope::LOOPBACK
    } else {
        scope::FAR
    }
}

/// What the trie holds or is to hold: for each entry its scope.
type Entries = BTreeMap<Entry, u32>;

/// What captures these destinations but for what passes. A trigger that names the very addresses is captured there.
fn entries(wanted: &[Destination], passed: &[Passed]) -> Result<Entries, InterceptError> {
    let ports: BTreeSet<u16> = wanted.iter().map(|destination| destination.port).collect();
    let mut entries = Entries::new();
    for Passed { network, port } in passed {
        // Of any other port nothing is captured.
        for port in ports.iter().filter(|one| port.is_none_or(|port| port == **one)) {
            let destination = Destination {
                port: *port,
                network: Some(*network),
            };
            entries.insert(destination.entry()?, scope::PASSED);
        }
    }
    for destination in wanted {
        let entry = destination.entry()?;
        entries.insert(entry, scope_of(entry, key(entry).data().address));
    }
    Ok(entries)
}

/// The words of PORTS that have bits.
type Words = BTreeMap<u32, u64>;

/// The bits of the entries' ports.
fn words<'a>(entries: impl Iterator<Item = &'a Entry>) -> Words {
    let mut words = Words::new();
    for (_, port, _) in entries {
        let (word, bit) = port_bit(port.to_be());
        *words.entry(word).or_default() |= bit;
    }
    words
}

/// The programs' trie and ports, and what they hold now.
pub(super) struct Destinations {
    trie: LpmTrie<MapData, Raw, u32>,
    ports: Array<MapData, u64>,
    words: Words,
    passed: Vec<Passed>,
    held: Entries,
}

impl Destinations {
    pub(super) fn new(
        trie: LpmTrie<MapData, Raw, u32>,
        ports: Array<MapData, u64>,
        passed: Vec<Passed>,
    ) -> Self {
        Self {
            trie,
            ports,
            words: Words::new(),
            passed,
            held: Entries::new(),
        }
    }

    /// Makes the trie hold `wanted` and nothing else. What is wanted before and after, if only by a wider or a narrower
    /// entry, is in it all the time: new entries go in before old ones go out, where there is room for both.
    pub(super) fn set(&mut self, wanted: &[Destination]) -> Result<(), InterceptError> {
        let wanted = entries(wanted, &self.passed)?;
        let Some(change) = change(&self.held, &wanted, MAX_DESTINATIONS as usize) else {
            return Err(InterceptError::TooMany {
                what: "the destinations to capture",
                limit: MAX_DESTINATIONS,
            });
        };
        // The ports' bits are there as long as any entry is: before it, and after it.
        self.set_ports(words(self.held.keys().chain(wanted.keys())))?;
        if change.room_for_both {
            self.insert(&change.new)?;
            self.remove(&change.old)?;
        } else {
            self.remove(&change.old)?;
            self.insert(&change.new)?;
        }
        self.set_ports(words(self.held.keys()))
    }

    fn set_ports(&mut self, wanted: Words) -> Result<(), InterceptError> {
        let gone = self.words.keys().filter(|word| !wanted.contains_key(*word));
        let gone: Vec<(u32, u64)> = gone.map(|word| (*word, 0)).collect();
        for (word, bits) in gone.into_iter().chain(wanted) {
            if self.words.get(&word) == Some(&bits) {
                continue;
            }
            let set = self.ports.set(word, bits, 0);
            set.map_err(|error| InterceptError::map(names::PORTS, &error))?;
            match bits {
                0 => drop(self.words.remove(&word)),
                bits => drop(self.words.insert(word, bits)),
            }
        }
        Ok(())
    }

    /// How many entries it holds.
    pub(super) fn count(&self) -> u64 {
        self.held.len() as u64
    }

    fn insert(&mut self, entries: &[(Entry, u32)]) -> Result<(), InterceptError> {
        for (entry, scope) in entries {
            let inserted = self.trie.insert(&key(*entry), *scope, 0);
            inserted.map_err(|error| InterceptError::map(names::DESTINATIONS, &error))?;
            self.held.insert(*entry, *scope);
        }
        Ok(())
    }

    fn remove(&mut self, entries: &[Entry]) -> Result<(), InterceptError> {
        for entry in entries {
            match self.trie.remove(&key(*entry)) {
                Ok(()) | Err(MapError::KeyNotFound) => drop(self.held.remove(entry)),
                Err(error) => return Err(InterceptError::map(names::DESTINATIONS, &error)),
            }
        }
        Ok(())
    }
}

/// How to come from some entries to others.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    new: Vec<(Entry, u32)>,
    old: Vec<Entry>,
    room_for_both: bool,
}

/// `None` if the wanted ones are more than the limit.
fn change(held: &Entries, wanted: &Entries, limit: usize) -> Option<Change> {
    let is_new = |(entry, scope): &(&Entry, &u32)| held.get(*entry) != Some(*scope);
    let new: Vec<(Entry, u32)> = wanted.iter().filter(is_new).map(|(e, s)| (*e, *s)).collect();
    let old: Vec<Entry> = held
        .keys()
        .filter(|e| !wanted.contains_key(*e))
        .copied()
        .collect();
    let room_for_both = wanted.len() + old.len() <= limit;
    (wanted.len() <= limit).then_some(Change {
        new,
        old,
        room_for_both,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(port: u16, address: &str, prefix: u8) -> Entry {
        let network = Some(Network {
            address: address.parse().unwrap(),
            prefix,
        });
        Destination { port, network }.entry().unwrap()
    }

    #[test]
    fn keys() {
        let any = Destination {
            port: 8080,
            network: None,
        }
        .entry()
        .unwrap();
        assert_eq!(any, (16, 8080, [0; 16]));
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 0];
        assert_eq!(entry(80, "10.1.2.3", 16), (16 + 96 + 16, 80, mapped));
        assert_eq!(entry(80, "10.1.2.3", 0).0, 112);
        assert_eq!(entry(80, "fd00::1", 128).0, 144);
        assert_eq!(entry(80, "fd00::1", 0), (16, 80, [0; 16]));
        let long = Network {
            address: "10.0.0.1".parse().unwrap(),
            prefix: 33,
        };
        assert!(
            Destination {
                port: 1,
                network: Some(long)
            }
            .entry()
            .is_err()
        );
    }

    #[test]
    fn loopback_is_meant_where_it_is_named() {
        let scope = |entry: Entry| scope_of(entry, key(entry).data().address);
        let named = |network: Network| entry(80, &network.address.to_string(), network.prefix);
        assert_eq!(scope(named(Network::V4_LOOPBACK)), scope::LOOPBACK);
        assert_eq!(scope(named(Network::V6_LOOPBACK)), scope::LOOPBACK);
        assert_eq!(scope(entry(80, "127.0.0.1", 32)), scope::LOOPBACK);
        for wider in [
            entry(80, "127.0.0.1", 0),
            entry(80, "126.0.0.0", 7),
            entry(80, "::1", 0),
            entry(80, "10.0.0.1", 32),
        ] {
            assert_eq!(scope(wider), scope::FAR);
        }
    }

    #[test]
    fn each_port_has_a_bit() {
        let entries: Vec<Entry> = [80, 81, 8080, u16::MAX].map(|port| (16, port, [0; 16])).to_vec();
        let words = words(entries.iter().chain(&entries[..1]));
        let set: u32 = words.values().map(|bits| bits.count_ones()).sum();
        assert_eq!(set, 4, "{words:?}");
        for (_, port, _) in entries {
            // As a program has it: the bytes of the wire, read as a number of its own.
            let (word, bit) = port_bit(u16::from_ne_bytes(port.to_be_bytes()));
            assert_ne!(words[&word] & bit, 0, "{port}");
        }
    }

    #[test]
    fn old_entries_make_room_only_where_there_is_none() {
        let entries = |ports: &[u16]| -> Entries {
            let entry = |port: &u16| ((16, *port, [0; 16]), scope::FAR);
            ports.iter().map(entry).collect()
        };
        let (held, wanted) = (entries(&[1, 2]), entries(&[2, 3]));
        let found = change(&held, &wanted, 3).unwrap();
        let (new, old) = (vec![((16, 3, [0; 16]), scope::FAR)], vec![(16, 1, [0; 16])]);
        assert_eq!(
            found,
            Change {
                new,
                old,
                room_for_both: true
            }
        );
        assert!(!change(&held, &wanted, 2).unwrap().room_for_both);
        assert_eq!(change(&held, &wanted, 1), None);
    }

    #[test]
    fn what_passes_is_narrower_than_what_is_captured() {
        let network = |address: &str, prefix| Network {
            address: address.parse().unwrap(),
            prefix,
        };
        let at = |port, network| Destination { port, network };
        let ten = network("10.0.0.0", 8);
        let wanted = [at(80, None), at(81, None), at(80, Some(network("10.0.0.7", 32)))];
        let passed = [
            Passed {
                network: ten,
                port: None,
            },
            Passed {
                network: network("fd00::1", 128),
                port: Some(81),
            },
            // Nothing is captured on that port, and a trigger names this address.
            Passed {
                network: ten,
                port: Some(82),
            },
            Passed {
                network: network("10.0.0.7", 32),
                port: Some(80),
            },
        ];
        let expected = [
            (entry(80, "10.0.0.0", 8), scope::PASSED),
            (entry(81, "10.0.0.0", 8), scope::PASSED),
            (entry(81, "fd00::1", 128), scope::PASSED),
            ((16, 80, [0; 16]), scope::FAR),
            ((16, 81, [0; 16]), scope::FAR),
            (entry(80, "10.0.0.7", 32), scope::FAR),
        ];
        assert_eq!(super::entries(&wanted, &passed).unwrap(), Entries::from(expected));
        // A trigger comes that names what passes: the entry changes, and stays.
        let (before, after) = (
            super::entries(&wanted[..1], &passed).unwrap(),
            super::entries(&wanted[..], &passed).unwrap(),
        );
        let change = change(&before, &after, 100).unwrap();
        assert!(change.new.contains(&(entry(80, "10.0.0.7", 32), scope::FAR)));
        assert!(change.old.is_empty());
    }

    #[test]
    fn a_key_is_in_the_wires_order() {
        let raw = key((144, 0x1f90, core::array::from_fn(|n| u8::try_from(n).unwrap()))).data();
        assert_eq!({ raw.port }.to_ne_bytes(), [0x1f, 0x90]);
        let address = raw.address;
        assert_eq!(address.octets()[..4], [0, 1, 2, 3]);
    }
}
