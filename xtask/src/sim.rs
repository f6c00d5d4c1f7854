//! `cargo xtask sim`: every way a saga can go, walked (`qbox-userspace/src/sim`), as a test binary with an optimised machine.

use crate::ui::{call, cargo, step};
use anyhow::Result;
use clap::Args;

/// How far the walk goes. What is not given is as the walk's own table has it.
#[derive(Args)]
pub(crate) struct Sim {
    /// Plans of up to so many steps (1 to 4).
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
    steps: Option<u8>,
    /// Leave out so many rows of the walk's table, from its first.
    #[arg(long)]
    from: Option<u8>,
    /// Attempts of a run that don't go well.
    #[arg(long)]
    faults: Option<u8>,
    /// Crashes of a run.
    #[arg(long)]
    crashes: Option<u8>,
    /// An operator's decisions in a run.
    #[arg(long)]
    decisions: Option<u8>,
    /// Tell one run, as a violation names it, instead.
    #[arg(long, value_name = "RUN")]
    replay: Option<String>,
}

/// Status 0 only at 0 violations.
pub(crate) fn run(sim: &Sim) -> Result<()> {
    let mut test = cargo();
    test.current_dir(crate::root()?);
    // The crates below it stay as they are built anyway.
    test.args([
        "test",
        "--config",
        "profile.dev.package.qbox-userspace.opt-level=1",
    ]);
    test.args(["--package", "qbox-userspace", "--lib", "--"]);
    let name = match &sim.replay {
        Some(run) => {
            test.env("QBOX_SIM_REPLAY", run);
            "sim::one_run"
        }
        None => "sim::no_run_breaks_a_promise",
    };
    test.args(["--exact", name, "--ignored", "--nocapture"]);
    let bounds = [
        ("QBOX_SIM_STEPS", sim.steps),
        ("QBOX_SIM_FROM", sim.from),
        ("QBOX_SIM_FAULTS", sim.faults),
        ("QBOX_SIM_CRASHES", sim.crashes),
        ("QBOX_SIM_DECISIONS", sim.decisions),
    ];
    for (variable, bound) in bounds {
        if let Some(bound) = bound {
            test.env(variable, bound.to_string());
        }
    }
    step("Walking every way a saga can go", || call(&mut test))
}
