//! Every test: the unit and property tests of all crates, then the end-to-end suites against the release binaries.

use crate::build;
use crate::ui::{call, cargo, step};
use anyhow::Result;

/// `cargo xtask test`.
pub(crate) fn run() -> Result<()> {
    build::release()?;
    step("Unit and property tests", || {
        call(cargo().current_dir(crate::root()?).args(["test", "--workspace"]))
    })
}
