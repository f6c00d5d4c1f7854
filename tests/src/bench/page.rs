//! A page of docs/ with tables that measurements write, each between marks of its own. Errors: the page or the marks are missing.

use crate::qbox::{binary, workspace};
use anyhow::{Context, Result};
use std::fs;
use std::process::Command;

const PAGE: &str = "docs/performance.md";

/// Prints `text`, and puts it into the page between the marks of `cargo xtask bench WHAT`.
pub(crate) fn publish(what: &str, text: &str) -> Result<()> {
    println!("{text}");
    let path = workspace().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    let (begin, end) = (mark(what, "from"), mark(what, "to"));
    let marks = page.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let (before, after) = marks.with_context(|| format!("{PAGE} has no marks for this table"))?;
    fs::write(path, format!("{before}{begin}\n{text}\n{end}{after}"))?;
    Ok(())
}

fn mark(what: &str, side: &str) -> String {
    format!("<!-- cargo xtask bench {what}: {side} here -->\n")
}

/// Day, machine and versions, of the run that a table is of.
pub(crate) fn machine() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model
        .and_then(|rest| rest.split_once(':'))
        .map_or("?", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let said = |command: &mut Command| -> Result<String> {
        Ok(String::from_utf8(command.output()?.stdout)?.trim().to_owned())
    };
    let qbox = said(Command::new(binary()?).arg("--version"))?;
    let rust = said(Command::new("rustc").arg("--version"))?;
    let day = said(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    Ok(format!(
        "{day}: {cores} × {model}, Linux {}, {qbox}, {rust}; all of it on the same machine",
        kernel.trim()
    ))
}
