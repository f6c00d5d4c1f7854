//! The release build: the eBPF object first, then the binaries that carry it.

use crate::toolchain::target_folder;
use crate::ui::{call, cargo, step};
use crate::{build_ebpf, profile};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable that tells suites and measurements which Qbox to run.
pub(crate) const BINARY_VARIABLE: &str = "QBOX_BIN";
/// The variable that tells suites whether that Qbox was built with a profile: `yes` or `no`.
pub(crate) const PROFILED_VARIABLE: &str = "QBOX_PROFILED";
/// The variable that tells the userspace crates' build script where the programs are.
pub(crate) const OBJECT_VARIABLE: &str = "QBOX_EBPF_OBJECT";

/// Builds `target/release/{qbox,qbox-demo}` with the eBPF programs inside, and says where those are.
pub(crate) fn release() -> Result<PathBuf> {
    let object = step("Building the eBPF programs", build_ebpf::build)?;
    binaries(Some(&object))?;
    Ok(object)
}

/// Builds the same binaries without asking for the eBPF toolchain: they carry the programs of an earlier build, or none.
pub(crate) fn release_without_ebpf() -> Result<()> {
    // The same variable as after `release`, since another value would have all rebuilt.
    let earlier = build_ebpf::object();
    binaries(Some(&earlier).filter(|object| object.is_file()))
}

/// Builds the same Qbox into another folder, with this flag in place of a release's, and says where it is: what a profile is made with.
pub(crate) fn counting(folder: &Path, flag: &str) -> Result<PathBuf> {
    let mut build = of_all(Some(&build_ebpf::object()))?;
    build.arg("--target-dir").arg(folder);
    profile::flags(&mut build, &[flag]);
    call(&mut build)?;
    Ok(folder.join("release/qbox"))
}

fn binaries(object: Option<&PathBuf>) -> Result<()> {
    step("Building the release binaries", || {
        let mut build = of_all(object)?;
        profile::used_by(&mut build)?;
        call(&mut build)
    })
}

/// Always the same packages, and with them the same features, so that no call rebuilds what another has built, and a profile fits.
fn of_all(object: Option<&PathBuf>) -> Result<Command> {
    let mut build = cargo();
    build.current_dir(crate::root()?).args([
        "build",
        "--release",
        "--bins",
        "--package=qbox-userspace",
        "--package=qbox-tests",
    ]);
    if let Some(object) = object {
        build.env(OBJECT_VARIABLE, object);
    }
    Ok(build)
}

/// Where a release binary is.
pub(crate) fn binary(name: &str) -> PathBuf {
    target_folder().join("release").join(name)
}
