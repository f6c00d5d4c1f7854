//! Which programs run for a hook of the cgroups: ours, and others that may come before them. Knows programs by their ids;
//! what can't be asked is told as nothing there.

use super::cgroup::Tree;
use super::load::PROGRAMS;
use super::sys::{self, Hook};
use aya::programs::loaded_programs;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Another's program on a hook that Qbox uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Other {
    /// The hook, as the kernel calls it: `connect4`.
    pub hook: &'static str,
    /// The program's name, which its author chose; at most 15 bytes.
    pub program: String,
    /// Its id, as `bpftool prog show id` takes it.
    pub id: u32,
    /// The cgroup that it is attached to: an enrolled one, or one above.
    pub cgroup: PathBuf,
    /// It runs before Qbox's, which see the destination as it leaves it.
    pub first: bool,
}

/// The programs of others on our hooks of the cgroups, and of those above them. `own` are our programs' ids.
pub(super) fn others(trees: &[Tree], own: &BTreeSet<u32>) -> Vec<Other> {
    let mut others: Vec<Other> = trees
        .iter()
        .flat_map(|tree| others_of(tree.path(), own))
        .collect();
    // Two cgroups may be below the same.
    others.sort();
    others.dedup();
    others
}

fn others_of(cgroup: &Path, own: &BTreeSet<u32>) -> Vec<Other> {
    let mut found = Vec::new();
    for folder in cgroup
        .ancestors()
        .take_while(|folder| super::cgroup::is_cgroup2(folder))
    {
        let Ok(open) = File::open(folder) else { continue };
        for (hook, kind) in PROGRAMS {
            // Those of the cgroup itself run first, in the order of attaching; then those of the one above.
            let mut first = folder == cgroup;
            for id in sys::attached(&open, kind).unwrap_or_default() {
                if own.contains(&id) {
                    first = false;
                } else {
                    found.push((hook, id, folder.to_path_buf(), first));
                }
            }
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let names = names();
    let named = |(hook, id, cgroup, first)| Other {
        hook,
        program: names.get(&id).cloned().unwrap_or_default(),
        id,
        cgroup,
        first,
    };
    found.into_iter().map(named).collect()
}

/// Another's program that sees a pod's connections before Qbox's: where it sends them elsewhere, they are not captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// The hook, as the kernel calls it: `connect4`.
    pub hook: &'static str,
    /// The program's name, which its author chose; at most 15 bytes.
    pub program: String,
    /// Its id, as `bpftool prog show id` takes it.
    pub id: u32,
}

/// What runs for a cgroup in the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chains {
    /// The hooks on which none of our programs does.
    pub(super) missing: Vec<&'static str>,
    /// Those of others that see a connection's destination before ours.
    pub(super) before: Vec<Before>,
}

/// Looks at every hook. `own` are our programs' ids.
///
/// # Errors
/// The cgroup is gone, or can't be asked.
pub(super) fn look(cgroup: &Path, own: &BTreeSet<u32>) -> std::io::Result<Chains> {
    let open = File::open(cgroup)?;
    let mut chains = Chains::default();
    for (hook, kind) in PROGRAMS {
        let running = sys::effective(&open, kind)?;
        let ours = running.iter().position(|id| own.contains(id));
        if ours.is_none() {
            chains.missing.push(hook);
        }
        if matches!(kind, Hook::Connect4 | Hook::Connect6) {
            let before = running.into_iter().take(ours.unwrap_or_default());
            chains.before.extend(before.map(|id| Before {
                hook,
                program: String::new(),
                id,
            }));
        }
    }
    if !chains.before.is_empty() {
        let mut names = names();
        for before in &mut chains.before {
            before.program = names.remove(&before.id).unwrap_or_default();
        }
    }
    Ok(chains)
}

/// The names of all programs in the kernel, by id.
fn names() -> BTreeMap<u32, String> {
    let programs = loaded_programs().flatten();
    programs
        .filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())))
        .collect()
}
