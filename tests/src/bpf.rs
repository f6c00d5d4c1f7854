//! What the kernel has of a Qbox's programs, as bpftool(8) shows and changes it.

use crate::node::Node;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Runs bpftool; what it prints, or null.
///
/// # Errors
/// It is missing, or refuses.
pub fn bpftool(words: &[&str]) -> Result<Value> {
    let output = Command::new("bpftool").arg("--json").args(words).output()?;
    ensure!(
        output.status.success(),
        "bpftool {words:?}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// Detaches the program of that hook (`connect4`) from a node's cgroup, as somebody from outside would.
///
/// # Errors
/// There is none.
pub fn detach(node: &Node, hook: &str) -> Result<()> {
    let cgroup = fs::metadata(node.cgroup())?.ino();
    let links = bpftool(&["link", "show"])?;
    // Its name differs from version to version: `connect4`, `cgroup_inet4_connect`.
    let other = match hook {
        "connect4" => "inet4_connect",
        "connect6" => "inet6_connect",
        hook => hook,
    };
    let is_it = |link: &&Value| {
        let kind = link["attach_type"].as_str().unwrap_or_default();
        link["cgroup_id"] == cgroup && (kind.contains(hook) || kind.contains(other))
    };
    let mut links = links.as_array().context("no links")?.iter();
    let id = links.find(is_it).with_context(|| format!("no link for {hook}"))?["id"].to_string();
    bpftool(&["link", "detach", "id", &id]).map(drop)
}

/// The id of the map of that name that the programs on a node's cgroup use.
///
/// # Errors
/// There is none.
pub fn map_of(node: &Node, name: &str) -> Result<String> {
    let cgroup = node.cgroup().display().to_string();
    let programs = bpftool(&["cgroup", "show", &cgroup])?;
    for program in programs.as_array().context("no programs")? {
        let program = bpftool(&["prog", "show", "id", &program["id"].to_string()])?;
        for id in program["map_ids"].as_array().into_iter().flatten() {
            let found = bpftool(&["map", "show", "id", &id.to_string()])?;
            if found["name"] == name {
                return Ok(id.to_string());
            }
        }
    }
    bail!("there is no map {name}")
}
