//! `cargo xtask topology`: builds, then becomes the topology.

use crate::ui::step;
use crate::{build, tools};
use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// What is to be run; `qbox-topology --help` says what each means.
#[derive(clap::Args)]
pub(crate) struct Topology {
    /// The graph; config/topologies has some.
    graph: PathBuf,
    /// End after one saga, with status 0 if the services' ledgers are as they must be.
    #[arg(long)]
    once: bool,
    /// End after so many.
    #[arg(long)]
    sagas: Option<u64>,
}

/// Builds and runs it. It takes this process's place, so that Ctrl-C is its own affair.
pub(crate) fn run(topology: &Topology) -> Result<()> {
    if !tools::is_root() {
        bail!("a topology's pods need root; run it as root");
    }
    step("Looking for the programs that pods are made with", || {
        tools::ensure(&tools::PODS)
    })?;
    build::release()?;
    let mut command = Command::new(build::binary("qbox-topology"));
    command.arg(&topology.graph);
    if topology.once {
        command.arg("--once");
    }
    if let Some(sagas) = topology.sagas {
        command.arg(format!("--sagas={sagas}"));
    }
    Err(command.exec()).context("can't start the topology")
}
