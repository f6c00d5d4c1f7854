//! Measurements.

use crate::build;
use crate::ui::{call, cargo};
use anyhow::Result;
use clap::ValueEnum;
use std::process::Command;

/// What can be measured.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum What {
    /// The engines that could hold the journal, as the table of docs/journal.md.
    Journal,
    /// A saga with `durability = "disk"` against the same with `"none"`.
    Durability,
    /// A start on a journal of 100,000 sagas that have ended and 10,000 that are open.
    Recovery,
}

/// `cargo xtask bench`.
pub(crate) fn run(what: What) -> Result<()> {
    let mut bench = cargo();
    bench.current_dir(crate::root()?).arg("bench");
    match what {
        What::Journal => bench.args(["--package=qbox-tests", "--features=engines", "--bench=journal"]),
        What::Durability => of_the_binary(&mut bench, "--bench=durability")?,
        What::Recovery => of_the_binary(&mut bench, "--bench=recovery")?,
    };
    call(&mut bench)
}

/// Against the release binary, which is built first.
fn of_the_binary<'a>(bench: &'a mut Command, which: &str) -> Result<&'a mut Command> {
    build::release_without_ebpf()?;
    Ok(bench
        .args(["--package=qbox-userspace", which])
        .env("QBOX_BIN", build::binary("qbox")))
}
