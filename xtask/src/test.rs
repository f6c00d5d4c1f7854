//! Every test: the unit and property tests of all crates, and the end-to-end suites against the release binary.

use crate::ui::{call, cargo, step};
use crate::{build, packages, tools};
use anyhow::Result;

/// `cargo xtask test`.
pub(crate) fn run() -> Result<()> {
    step("Looking for the programs that the suites use", || {
        tools::ensure(tools::PODS.iter().chain(&tools::SUITES))?;
        packages::suites()
    })?;
    let object = build::release()?;
    step("Running all tests", || {
        let mut test = cargo();
        test.current_dir(crate::root()?);
        test.args(["test", "--workspace", "--no-fail-fast"]);
        test.env(build::OBJECT_VARIABLE, object);
        test.env("QBOX_BIN", build::binary("qbox"));
        test.env(packages::VARIABLE, packages::folder());
        call(&mut test)
    })
}
