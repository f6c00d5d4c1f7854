//! `cargo xtask lint`: formatting, clippy, rustdoc, dependencies, and the rules that none of them knows.

mod pages;
mod rooms;
mod source;

use crate::ui::{call, cargo, step};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The pages outside of docs.
const PAGES: [&str; 2] = ["README.md", "CONTRIBUTING.md"];

/// The folders that hold our own Rust files.
const SOURCES: [&str; 7] = [
    "qbox-common/src",
    "qbox-ebpf/src",
    "qbox-userspace/src",
    "tests/src",
    "tests/fuzz/src",
    "tests/tests",
    "xtask/src",
];

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// From 1.
    pub(crate) line: usize,
    /// What is wrong, and why it is a rule.
    pub(crate) what: String,
}

/// Runs all checks; stops at the first kind that fails.
pub(crate) fn run() -> Result<()> {
    let root = crate::root()?;
    step("Formatting", || {
        call(cargo().current_dir(&root).args(["fmt", "--all", "--check"]))
    })?;
    step("The rules of the rooms", || our_rules(&root))?;
    step("Clippy", || {
        let words = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        call(cargo().current_dir(&root).args(words))
    })?;
    step("Documentation", || {
        let words = ["doc", "--workspace", "--no-deps"];
        call(
            cargo()
                .current_dir(&root)
                .env("RUSTDOCFLAGS", "-D warnings")
                .args(words),
        )
    })?;
    dependencies(&root)
}

/// Licences, advisories and sources, as deny.toml says.
fn dependencies(root: &Path) -> Result<()> {
    let probe = Command::new("cargo-deny")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("==> Dependencies: not checked, cargo-deny is missing (cargo install cargo-deny --locked)");
        return Ok(());
    }
    step("Dependencies", || {
        call(cargo().current_dir(root).args(["deny", "check"]))
    })
}

fn our_rules(root: &Path) -> Result<()> {
    let mut files = PAGES.map(|page| root.join(page)).to_vec();
    collect(&root.join("docs"), "md", &mut files)?;
    for folder in SOURCES {
        collect(&root.join(folder), "rs", &mut files)?;
    }
    files.sort();
    let mut count = 0;
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
        let shown = file.strip_prefix(root).unwrap_or(file);
        let findings = if shown.extension().is_some_and(|end| end == "md") {
            pages::check(root, shown, &text)
        } else {
            check(shown, &text)
        };
        for finding in findings {
            eprintln!("{}:{}: {}", shown.display(), finding.line, finding.what);
            count += 1;
        }
    }
    let manifest =
        fs::read_to_string(root.join("xtask/Cargo.toml")).context("can't read xtask/Cargo.toml")?;
    if manifest.lines().any(|line| line.starts_with("qbox")) {
        eprintln!("xtask/Cargo.toml: xtask depends on no product crate");
        count += 1;
    }
    if count > 0 {
        bail!("{count} finding(s) in {} files", files.len());
    }
    Ok(())
}

/// All findings of one file. `path` is relative to the workspace's root.
fn check(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        let what = "a file opens with `//!`: its job, what it must not know, its errors".to_owned();
        findings.push(Finding { line: 1, what });
    }
    if let Ok(inside) = path.strip_prefix("qbox-userspace/src") {
        findings.extend(rooms::check(inside, &source::tokens(text)));
    }
    findings
}

/// Every file below the folder whose name ends so.
fn collect(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("can't list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, extension, files)?;
        } else if path.extension().is_some_and(|end| end == extension) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;
    use std::path::Path;

    #[test]
    fn a_file_without_an_opening_is_a_finding() {
        assert_eq!(check(Path::new("tests/src/lib.rs"), "//! Pods.\n").len(), 0);
        assert_eq!(check(Path::new("tests/src/lib.rs"), "fn main() {}\n").len(), 1);
    }

    #[test]
    fn a_saga_file_that_reads_a_clock_is_a_finding() {
        let text = "//! A machine.\nuse std::time::{Duration, Instant};\n";
        let findings = check(Path::new("qbox-userspace/src/saga/machine.rs"), text);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 2);
        assert_eq!(check(Path::new("qbox-userspace/src/runner.rs"), text), []);
    }
}
