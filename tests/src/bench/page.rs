//! docs/performance.md, its tables that measurements write, each between marks of its own, and its pictures. A quick run writes a copy of them in
//! `target/bench` instead. Errors: the page or the marks are missing.

use super::plot;
use super::record::{Record, Records};
use crate::qbox::{binary, workspace};
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const PAGE: &str = "docs/performance.md";
const PICTURES: &str = "docs/pictures";
const RECORDS: &str = "docs/pictures/performance.json";

/// Prints `text`, and puts it into the page between the marks of `cargo xtask bench PART`; draws the part's charts, and brings the table of
/// goals up to date.
///
/// # Errors
/// See the module.
pub fn publish(part: &str, text: &str, record: Record, quick: bool) -> Result<()> {
    let record = Record {
        when: machine()?,
        ..record
    };
    let root = root(quick)?;
    let mut pictures = String::new();
    for chart in &record.charts {
        plot::draw(chart, &root.join(PICTURES))?;
        writeln!(pictures, "![{}](pictures/{}.svg)\n", chart.title, chart.file)?;
    }
    let path = root.join(RECORDS);
    let mut records = Records::read(&path)?;
    records.put(part, record, &path)?;
    println!("{text}");
    let path = root.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    let page = between(&page, part, &format!("{pictures}{text}"))?;
    let page = between(&page, "goals", &records.table())?;
    fs::write(&path, page)?;
    eprintln!("    written: {}", path.display());
    Ok(())
}

/// The folder that has `docs/` in it.
fn root(quick: bool) -> Result<PathBuf> {
    if !quick {
        return Ok(workspace());
    }
    let target = binary()?;
    let target = target.ancestors().nth(2).context("qbox is in no target folder")?;
    let copy = target.join("bench");
    fs::create_dir_all(copy.join(PICTURES))?;
    for file in [PAGE, RECORDS] {
        let (from, to) = (workspace().join(file), copy.join(file));
        if from.exists() && !to.exists() {
            fs::copy(from, to)?;
        }
    }
    Ok(copy)
}

/// The page with `text` between the part's marks.
fn between(page: &str, part: &str, text: &str) -> Result<String> {
    let (begin, end) = (mark(part, "from"), mark(part, "to"));
    let marks = page.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let (before, after) = marks.with_context(|| format!("{PAGE} has no marks for {part}"))?;
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim_end()))
}

fn mark(part: &str, side: &str) -> String {
    format!("<!-- cargo xtask bench {part}: {side} here -->\n")
}

/// Day, machine and versions, of the run that a table is of.
fn machine() -> Result<String> {
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
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().next().unwrap_or("?");
    Ok(format!(
        "{day}: {cores} × {model}, Linux {}, {qbox}, {rust}; all of it on the same machine, whose load was {load} in the end",
        kernel.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::super::record::ORDER;
    use super::*;

    #[test]
    fn the_page_has_marks_for_every_part() {
        let page = fs::read_to_string(workspace().join(PAGE)).unwrap();
        for part in ["goals"].into_iter().chain(ORDER) {
            let changed = between(&page, part, "a table").unwrap();
            assert!(changed.contains("here -->\n\na table\n\n<!--"), "{part}");
            // Once more is the same.
            assert_eq!(between(&changed, part, "a table\n").unwrap(), changed);
        }
        between(&page, "none", "").unwrap_err();
    }
}
