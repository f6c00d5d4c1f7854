//! Measurements.

use crate::ui::{call, cargo};
use anyhow::Result;
use clap::ValueEnum;

/// What can be measured.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum What {
    /// The engines that could hold the journal, as the table of docs/journal.md.
    Journal,
}

/// `cargo xtask bench`.
pub(crate) fn run(what: What) -> Result<()> {
    let mut bench = cargo();
    bench.current_dir(crate::root()?);
    match what {
        What::Journal => bench.args([
            "bench",
            "--package=qbox-tests",
            "--features=engines",
            "--bench=journal",
        ]),
    };
    call(&mut bench)
}
