//! Measurements.

use crate::build;
use crate::ui::{call, cargo};
use anyhow::Result;
use clap::ValueEnum;

/// What can be measured.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum What {
    /// The engines that could hold the journal, as the table of docs/journal.md.
    Journal,
    /// A start on a journal of 100,000 sagas that have ended and 10,000 that are open.
    Recovery,
}

/// `cargo xtask bench`.
pub(crate) fn run(what: What) -> Result<()> {
    let mut bench = cargo();
    bench.current_dir(crate::root()?).arg("bench");
    match what {
        What::Journal => bench.args(["--package=qbox-tests", "--features=engines", "--bench=journal"]),
        What::Recovery => {
            build::release_without_ebpf()?;
            bench
                .args(["--package=qbox-userspace", "--bench=recovery"])
                .env("QBOX_BIN", build::binary("qbox"))
        }
    };
    call(&mut bench)
}
