//! What the programs' maps say of pods: for each the id of its cgroup, whether it is in, and its ports. Knows no namespace.

use super::error::InterceptError;
use super::fill::entries;
use super::policy::{Ports, Rule};
use crate::causes::chain;
use aya::maps::{HashMap, MapData, MapError};
use qbox_common::{MAX_PODS, PodPort, names, rule};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The rules of pods, by their folders.
pub(super) struct Rules {
    pods: HashMap<MapData, u64, u32>,
    ports: HashMap<MapData, PodPort, u32>,
    held: BTreeMap<PathBuf, Held>,
}

/// As the maps have it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    id: u64,
    bits: u32,
    ports: BTreeSet<u16>,
}

impl Rules {
    pub(super) fn new(pods: HashMap<MapData, u64, u32>, ports: HashMap<MapData, PodPort, u32>) -> Self {
        Self {
            pods,
            ports,
            held: BTreeMap::new(),
        }
    }

    /// Has a rule hold for a pod, from now on. Of one that is unknown the programs know nothing.
    pub(super) fn set(&mut self, pod: &Path, rule: &Rule) -> Result<(), InterceptError> {
        let Some((bits, ports)) = bits(rule) else {
            self.forget(pod);
            return Ok(());
        };
        // A cgroup that has gone has no process; if one of the same name has come, it is another.
        let Ok(found) = fs::metadata(pod) else {
            return Ok(());
        };
        let id = found.ino();
        let before = self.held.get(pod);
        let same = before.is_some_and(|held| held.id == id && held.bits == bits && held.ports == *ports);
        if same {
            return Ok(());
        }
        if before.is_some_and(|held| held.id != id) {
            self.forget(pod);
        }
        let mut held = self.held.remove(pod).unwrap_or_default();
        held.id = id;
        let done = self.change(&mut held, bits, ports);
        self.held.insert(pod.to_path_buf(), held);
        done
    }

    /// What the rule before and the one after both name is in the map all the time.
    fn change(&mut self, held: &mut Held, bits: u32, ports: &BTreeSet<u16>) -> Result<(), InterceptError> {
        for port in ports.difference(&held.ports.clone()) {
            let inserted = self.ports.insert(key(held.id, *port), 1, 0);
            inserted.map_err(|error| InterceptError::map(names::POD_PORTS, &error))?;
            held.ports.insert(*port);
        }
        let inserted = self.pods.insert(held.id, bits, 0);
        inserted.map_err(|error| InterceptError::map(names::PODS, &error))?;
        held.bits = bits;
        for port in held.ports.difference(ports) {
            gone(names::POD_PORTS, self.ports.remove(&key(held.id, *port)));
        }
        held.ports = ports.clone();
        Ok(())
    }

    /// Forgets all but these pods.
    pub(super) fn keep(&mut self, pods: &BTreeSet<PathBuf>) {
        let away: Vec<PathBuf> = self
            .held
            .keys()
            .filter(|pod| !pods.contains(*pod))
            .cloned()
            .collect();
        for pod in away {
            self.forget(&pod);
        }
    }

    fn forget(&mut self, pod: &Path) {
        let Some(Held { id, ports, .. }) = self.held.remove(pod) else {
            return;
        };
        gone(names::PODS, self.pods.remove(&id));
        for port in ports {
            gone(names::POD_PORTS, self.ports.remove(&key(id, port)));
        }
    }

    /// Whether the programs' map says of a pod what it should.
    pub(super) fn holds(&self, pod: &Path) -> bool {
        let held = self.held.get(pod);
        held.is_some_and(|held| self.pods.get(&held.id, 0).is_ok_and(|bits| bits == held.bits))
    }

    /// How many pods the programs' map has: read there, since it is theirs.
    pub(super) fn map_entries(&self) -> u64 {
        entries(self.pods.keys(), MAX_PODS)
    }
}

/// The bits of a rule, and the ports that go with them.
fn bits(rule: &Rule) -> Option<(u32, &BTreeSet<u16>)> {
    static NONE: BTreeSet<u16> = BTreeSet::new();
    match rule {
        Rule::In(Ports::All) => Some((rule::IN, &NONE)),
        Rule::In(Ports::Only(ports)) => Some((rule::IN | rule::ONLY, ports)),
        Rule::In(Ports::Except(ports)) => Some((rule::IN | rule::EXCEPT, ports)),
        Rule::Out | Rule::Wrong => Some((0, &NONE)),
        Rule::Unknown => None,
    }
}

fn key(pod: u64, port: u16) -> PodPort {
    PodPort {
        pod,
        port: u32::from(port.to_be()),
        reserved: 0,
    }
}

fn gone(map: &'static str, removed: Result<(), MapError>) {
    if let Err(error) = removed
        && !matches!(error, MapError::KeyNotFound)
    {
        tracing::warn!(map, error = chain(&error), "an entry can't be taken out");
    }
}
