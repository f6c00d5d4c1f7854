//! The release build: the eBPF object first, then the binaries that carry it.

use crate::ui::{call, cargo, step};
use anyhow::Result;

/// Builds `target/release/{qbox,…}`. Always the same set of packages, so that features, and with them the
/// dependencies' builds, stay the same from call to call.
pub(crate) fn release() -> Result<()> {
    step("Building the release binaries", || {
        let mut build = cargo();
        build.current_dir(crate::root()?).args([
            "build",
            "--release",
            "--bins",
            "--package=qbox-userspace",
            "--package=qbox-tests",
        ]);
        call(&mut build)
    })
}
