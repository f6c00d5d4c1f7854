//! A bpf file system, where systemd would have mounted one. It is left there: other tests may be using it.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::Command;
use std::sync::Mutex;

/// Mounts it, unless one is mounted.
///
/// # Errors
/// No root, or a kernel without it.
pub fn ensure_bpffs() -> Result<()> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    if mounts.contains(" - bpf ") {
        return Ok(());
    }
    let status = Command::new("mount")
        .args(["-t", "bpf", "bpf", "/sys/fs/bpf"])
        .status()
        .context("can't start `mount`")?;
    ensure!(status.success(), "no bpf file system can be mounted");
    Ok(())
}
