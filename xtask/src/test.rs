//! Every test: the unit and property tests of all crates, and the end-to-end suites against the release binary.

use crate::ui::{call, cargo, step};
use crate::{build, hardened, packages, profile, tools};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// `cargo xtask test`, or what `words` choose of it.
pub(crate) fn run(hardened: bool, words: &[String]) -> Result<()> {
    step("Looking for the programs that the suites use", || {
        tools::ensure(tools::PODS.iter().chain(&tools::SUITES))?;
        packages::suites()?;
        packages::conformance()
    })?;
    let object = build::release()?;
    step("Running the tests", || {
        let mut test = with_binary(&object)?;
        if hardened {
            test.env(build::BINARY_VARIABLE, hardened::script(&build::binary("qbox"))?);
        }
        test.args(["test", "--workspace", "--no-fail-fast"]).args(words);
        call(&mut test)
    })
}

/// `cargo xtask conformance`: what `cargo xtask test` runs of other projects' suites, and those that take longer.
pub(crate) fn conformance() -> Result<()> {
    step("Looking for the suites", || {
        tools::ensure(&tools::PODS)?;
        packages::conformance()
    })?;
    let object = build::release()?;
    step("Running other projects' suites, with Qbox and without", || {
        let mut test = with_binary(&object)?;
        test.args(["test", "--package=qbox-tests", "--test=conformance", "--"]);
        call(test.args(["--include-ignored", "--nocapture", "--test-threads=1"]))
    })
}

fn with_binary(object: &Path) -> Result<Command> {
    let mut test = cargo();
    test.current_dir(crate::root()?);
    test.env(build::OBJECT_VARIABLE, object);
    test.env(build::BINARY_VARIABLE, build::binary("qbox"));
    test.env(packages::VARIABLE, packages::folder());
    let profiled = profile::is_used()?;
    test.env(build::PROFILED_VARIABLE, if profiled { "yes" } else { "no" });
    Ok(test)
}
