//! Which programs run for a hook of the cgroups: ours, and others that may come before them. Knows programs by their ids;
//! what can't be asked is told as nothing there.

use super::load::PROGRAMS;
use super::sys;
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

/// The programs of others on our hooks of the cgroup, and of those above it. `own` are our programs' ids.
pub(super) fn others(cgroup: &Path, own: &BTreeSet<u32>) -> Vec<Other> {
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
    let names: BTreeMap<u32, String> = loaded_programs()
        .flatten()
        .filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())))
        .collect();
    let named = |(hook, id, cgroup, first)| Other {
        hook,
        program: names.get(&id).cloned().unwrap_or_default(),
        id,
        cgroup,
        first,
    };
    let mut others: Vec<Other> = found.into_iter().map(named).collect();
    others.sort();
    others
}

/// The hooks on which none of our programs runs for a cgroup in the tree. `own` are our programs' ids.
pub(super) fn missing(cgroup: &Path, own: &BTreeSet<u32>) -> std::io::Result<Vec<&'static str>> {
    let open = File::open(cgroup)?;
    let mut missing = Vec::new();
    for (name, hook) in PROGRAMS {
        if !sys::effective(&open, hook)?.iter().any(|id| own.contains(id)) {
            missing.push(name);
        }
    }
    Ok(missing)
}
