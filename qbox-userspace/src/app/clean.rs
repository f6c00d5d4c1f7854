//! `qbox clean`: what runs of Qbox have left on this node is taken away.
//!
//! The journal stays: it is no trace, it is what sagas have done. Errors: the configuration can't be read, or a Qbox runs.

use crate::config::{self, Config, Loaded};
use crate::intercept;
use anyhow::bail;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Takes it away, and says what. `all`: the pinned programs of every cgroup, and not of the configured one alone.
///
/// # Errors
/// The configuration is unfit to run, or a Qbox runs with it.
pub fn clean(file: &Path, all: bool) -> anyhow::Result<Vec<String>> {
    let Loaded { config, .. } = config::load(file).map_err(|report| {
        super::draw(&report);
        anyhow::anyhow!("{} is not fit to run", file.display())
    })?;
    if UnixStream::connect(&config.admin.socket).is_ok() {
        let socket = config.admin.socket.display();
        bail!("a Qbox runs (it answers at {socket}): stop it first; what it needs it takes away itself");
    }
    let enrolled = &config.capture.cgroups;
    let named = |what: &str, paths: Vec<PathBuf>| {
        let lines = paths.into_iter().map(|path| format!("{what} {}", path.display()));
        lines.collect::<Vec<_>>()
    };
    let mut gone = named("pinned programs", intercept::unpin(enrolled, all));
    let usual = Config::default();
    for enrolled in enrolled {
        gone.extend(named("cgroup", intercept::sweep(enrolled)));
        // One that somebody else has made stays.
        if usual.capture.cgroups.contains(enrolled) && fs::remove_dir(enrolled).is_ok() {
            gone.push(format!("cgroup {}", enrolled.display()));
        }
    }
    let socket = &config.admin.socket;
    if fs::remove_file(socket).is_ok() {
        gone.push(format!("socket {}", socket.display()));
    }
    if *socket == usual.admin.socket
        && let Some(folder) = socket.parent()
        && fs::remove_dir(folder).is_ok()
    {
        gone.push(format!("folder {}", folder.display()));
    }
    Ok(gone)
}
