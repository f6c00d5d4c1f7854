//! `qbox status --probe`: what this machine has for capturing, and a word on what to do where it hasn't.

use anyhow::{Result, ensure};
use qbox_tests::{binary, require_root};
use serde_json::Value;
use std::process::{Command, Output};

fn probe(before: &[&str], words: &[&str]) -> Result<Output> {
    let mut command = Command::new("setpriv");
    command.args(before).arg("--").arg(binary()?);
    Ok(command.args(["status", "--probe"]).args(words).output()?)
}

#[test]
fn a_machine_that_has_all() -> Result<()> {
    require_root()?;
    let output = probe(&[], &[])?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(0), "{text}");
    for name in [
        "BTF",
        "cgroup v2",
        "map ringbuf",
        "map sk_storage",
        "program sock_ops",
        "SO_NETNS_COOKIE",
    ] {
        let there = text
            .lines()
            .any(|line| line.starts_with("yes") && line.contains(name));
        ensure!(there, "{name} is not there: {text}");
    }
    ensure!(text.contains("Pods can be captured here"), "{text}");
    Ok(())
}

#[test]
fn a_process_that_may_not() -> Result<()> {
    require_root()?;
    let output = probe(
        &["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"],
        &["--json"],
    )?;
    let value: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(output.status.code(), Some(1), "{value:#}");
    assert_eq!(value["modes"], serde_json::json!(["explicit"]));
    let missing: Vec<_> = value["features"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|feature| feature["found"] == false)
        .collect();
    assert_eq!(missing.len(), 1, "{missing:#?}");
    assert_eq!(missing[0]["why"], "this process lacks CAP_SYS_PTRACE");
    let output = probe(&["--reuid=65534", "--clear-groups"], &[])?;
    let text = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("this process lacks CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SYS_PTRACE"),
        "{text}"
    );
    assert!(text.contains("`qbox run --explicit`"), "{text}");
    Ok(())
}
