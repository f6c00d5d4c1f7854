//! `cargo xtask run`: builds, then becomes the demo.

use crate::ui::step;
use crate::{build, tools};
use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Builds and shows Qbox at work. The demo takes this process's place, so that Ctrl-C is its own affair.
pub(crate) fn run(once: bool, explicit: bool) -> Result<()> {
    if explicit {
        build::release_without_ebpf()?;
    } else {
        if !tools::is_root() {
            bail!(
                "capturing a pod's connections needs root (to load eBPF programs and make network namespaces); \
                 run as root, or try `cargo xtask run --explicit`, which does the same through a plain port"
            );
        }
        step("Looking for the programs that pods are made with", || {
            tools::ensure(&tools::PODS)
        })?;
        build::release()?;
    }
    let mut demo = Command::new(build::binary("qbox-demo"));
    demo.current_dir(crate::root()?);
    if once {
        demo.arg("--once");
    }
    if explicit {
        demo.arg("--explicit");
    }
    Err(demo.exec()).context("can't start the demo")
}
