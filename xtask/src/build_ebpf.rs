//! Builds `qbox-ebpf` for the kernel.
//!
//! cargo is called here, and not from a build script, because the object needs another compiler than the rest of the
//! workspace, and because a build script that installs tools would be a surprise.

use crate::toolchain::{self, Toolchain};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// The object's target: little-endian BPF, as on every machine that Qbox is built for.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Builds the object and says where it is: `target/bpfel-unknown-none/release/qbox-ebpf`. Pass the path on as
/// `QBOX_EBPF_OBJECT` to the build of the userspace crates, whose build script embeds it.
///
/// # Errors
/// The toolchain can't be had, or the programs don't compile.
pub(crate) fn build() -> Result<PathBuf> {
    let toolchain = toolchain::ensure()?;
    // A target folder of its own: the flags and the compiler are others than the workspace's, and would rebuild it.
    let folder = toolchain::target_folder().join("ebpf");
    compile(&toolchain, &folder)?;
    let built = folder.join(TARGET).join("release/qbox-ebpf");
    let object = object();
    copy_if_changed(&built, &object)?;
    Ok(object)
}

/// Where [`build`] leaves the object.
pub(crate) fn object() -> PathBuf {
    toolchain::target_folder().join(TARGET).join("release/qbox-ebpf")
}

fn compile(toolchain: &Toolchain, folder: &Path) -> Result<()> {
    let mut cargo = toolchain.cargo()?;
    cargo
        .current_dir(toolchain::root().join("qbox-ebpf"))
        .args([
            "build",
            "--release",
            "--package",
            "qbox-ebpf",
            "--bin",
            "qbox-ebpf",
        ])
        .args(["--target", TARGET, "--target-dir"])
        .arg(folder);
    // BTF is how the loader knows the maps' types and how the kernel shows the programs' names and lines.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Clink-arg=--btf\u{1f}-Cdebuginfo=2");
    // The workspace's release profile, and what the environment changes of it, is for the host: all is set anew for the kernel.
    for (key, value) in [
        ("OPT_LEVEL", "3"),
        ("INCREMENTAL", "false"),
        ("LTO", "fat"),
        ("CODEGEN_UNITS", "1"),
        ("STRIP", "none"),
        ("DEBUG", "2"),
        ("PANIC", "abort"),
    ] {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    let status = cargo
        .status()
        .context("can't start cargo for the eBPF programs")?;
    if !status.success() {
        bail!("the eBPF programs did not build (see above)");
    }
    Ok(())
}

/// Leaves the file's time alone when nothing changed, so that the userspace crates aren't rebuilt for nothing.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cargo left no {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    fs::write(to, new).with_context(|| format!("can't write {}", to.display()))
}
