//! `cargo xtask chaos`: builds, then becomes the trial.

use crate::ui::step;
use crate::{build, tools};
use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What the trial is to be; `qbox-chaos --help` says what each means.
#[derive(clap::Args)]
pub(crate) struct Trial {
    /// What trips, faults and kills are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many sagas there have to be.
    #[arg(long, default_value_t = 20_000)]
    sagas: u64,
    /// How often Qbox is killed.
    #[arg(long, default_value_t = 300)]
    kills: u64,
    /// Let messages be lost, late, refused and delivered twice as well.
    #[arg(long)]
    faults: bool,
    /// "memory": no saga survives a kill, and the judge has to find that.
    #[arg(long, value_parser = ["disk", "memory"], default_value = "disk", hide = true)]
    journal: String,
}

/// Builds and holds the trial. It takes this process's place, so that Ctrl-C is its own affair.
pub(crate) fn run(trial: &Trial) -> Result<()> {
    if !tools::is_root() {
        bail!("the trial makes pods and captures their connections, which needs root; run it as root");
    }
    step("Looking for the programs that pods are made with", || {
        tools::ensure(&tools::PODS)
    })?;
    build::release()?;
    let mut chaos = Command::new(build::binary("qbox-chaos"));
    chaos.current_dir(crate::root()?);
    for (name, number) in [
        ("seed", trial.seed),
        ("sagas", trial.sagas),
        ("kills", trial.kills),
    ] {
        chaos.arg(format!("--{name}={number}"));
    }
    if trial.faults {
        chaos.arg("--faults");
    }
    chaos.arg(format!("--journal={}", trial.journal));
    Err(chaos.exec()).context("can't start the trial")
}
