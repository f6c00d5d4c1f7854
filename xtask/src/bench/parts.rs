//! `cargo xtask bench` without a name: the parts that docs/performance.md is made of, one after the other, with what is running and how much is
//! left. Errors: a part failed; the others were measured nevertheless.

use super::{Need, What, measure, prepare};
use crate::toolchain::target_folder;
use anyhow::{Result, bail};
use std::fs;
use std::time::{Duration, Instant};

/// In the order in which they run, with how long each takes, and quickly, in seconds.
const PARTS: [(What, u64, u64); 6] = [
    (What::Sagas, 520, 75),
    (What::Growth, 330, 75),
    (What::Passthrough, 520, 75),
    (What::Connect, 45, 15),
    (What::Matching, 30, 30),
    (What::Memory, 25, 15),
];

/// Runs those that are asked for, or all.
pub(super) fn run(only: &[What], quick: bool) -> Result<()> {
    let parts: Vec<_> = PARTS
        .into_iter()
        .filter(|(what, ..)| only.is_empty() || only.contains(what))
        .map(|(what, whole, short)| (what, if quick { short } else { whole }))
        .collect();
    if let Some(other) = only
        .iter()
        .find(|what| PARTS.iter().all(|(part, ..)| part != *what))
    {
        bail!(
            "`{}` is no part of the whole; `cargo xtask bench {}` runs it alone",
            other.name(),
            other.name()
        );
    }
    for need in Need::ALL {
        if parts.iter().any(|(what, _)| what.needs().contains(&need)) {
            prepare(need)?;
        }
    }
    if quick {
        // What an earlier quick run wrote.
        drop(fs::remove_dir_all(target_folder().join("bench")));
    }
    let mut left: u64 = parts.iter().map(|(_, seconds)| seconds).sum();
    eprintln!("==> {} parts, about {}", parts.len(), minutes(left));
    let mut failed = Vec::new();
    for (number, (what, seconds)) in parts.iter().enumerate() {
        eprintln!(
            "==> Part {} of {}: {}, about {} ({} left in all)",
            number + 1,
            parts.len(),
            what.name(),
            minutes(*seconds),
            minutes(left)
        );
        let begun = Instant::now();
        if let Err(error) = measure(*what, quick, &[]) {
            eprintln!("    {} failed: {error:#}", what.name());
            failed.push(what.name());
        }
        eprintln!("    after {}", minutes(begun.elapsed().as_secs()));
        left = left.saturating_sub(*seconds);
    }
    if !failed.is_empty() {
        bail!("these parts failed: {}", failed.join(", "));
    }
    eprintln!(
        "==> Written: {}",
        match quick {
            true => target_folder()
                .join("bench/docs/performance.md")
                .display()
                .to_string(),
            false => "docs/performance.md, its pictures in docs/pictures".to_owned(),
        }
    );
    Ok(())
}

fn minutes(seconds: u64) -> String {
    let took = Duration::from_secs(seconds);
    format!("{}:{:02} min", took.as_secs() / 60, took.as_secs() % 60)
}
