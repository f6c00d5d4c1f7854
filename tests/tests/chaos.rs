//! The trial of `cargo xtask chaos`, short: no violation with faults and kills, and a judge who finds some where there
//! are some.

use anyhow::{Context, Result};
use std::process::Command;

/// The trial's status, and what it said.
fn trial(words: &[&str]) -> Result<(bool, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_qbox-chaos"))
        .args(words)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), said.into_owned()))
}

#[test]
fn killed_and_harassed_it_breaks_no_promise() -> Result<()> {
    let (good, said) = trial(&["--seed=3", "--sagas=400", "--kills=6", "--faults"])?;
    assert!(good && said.contains("\n0 violations\n"), "{said}");
    assert!(said.contains("kills        6,"), "{said}");
    Ok(())
}

#[test]
fn a_qbox_that_forgets_is_found_out() -> Result<()> {
    let (good, said) = trial(&["--seed=3", "--sagas=200", "--kills=3", "--journal=memory"])?;
    let count = said.lines().find_map(|line| line.strip_suffix(" violations"));
    let count: u64 = count.with_context(|| said.clone())?.parse()?;
    assert!(!good && count > 0, "{said}");
    Ok(())
}
