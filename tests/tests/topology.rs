//! Sagas inside sagas: the topologies of the paper, whose services in the middle send their own triggers; all is done, or nothing.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Runs `qbox-topology`: whether it was as it must be, and what it said.
fn run(words: &[&str]) -> Result<(bool, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_qbox-topology"))
        .args(words)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), said.into_owned()))
}

/// One of the five, with these services refusing.
fn topology(name: &str, bad: &[&str]) -> Result<Value> {
    let path = qbox_tests::workspace().join(format!("config/topologies/{name}.json"));
    let mut graph: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    *graph.get_mut("bad").context("no `bad`")? = json!(bad);
    Ok(graph)
}

fn goes(name: &str, bad: &[&str], words: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Each run's saga files have a folder of their own.
    let file = folder.path().join(format!("{name}-{}.json", bad.join("-")));
    fs::write(&file, topology(name, bad)?.to_string())?;
    let file = file.to_str().context("no text")?;
    let (good, said) = run(&[&[file], words].concat())?;
    ensure!(
        good && said.contains(" 0 partial or wrong outcomes"),
        "{name} {bad:?}: {said}"
    );
    let kept = said.contains(": 0 applied everywhere");
    let killed = words.iter().any(|word| word.starts_with("--kills"));
    ensure!(killed || kept != bad.is_empty(), "{name} {bad:?}: {said}");
    Ok(())
}

#[test]
fn one_to_four() -> Result<()> {
    goes("1-to-4", &[], &["--once"])?;
    goes("1-to-4", &["s3"], &["--sagas=5"])
}

#[test]
fn one_to_two_each_to_one() -> Result<()> {
    goes("1-to-2-each-to-1", &[], &["--once"])?;
    goes("1-to-2-each-to-1", &["s2"], &["--sagas=5"])?;
    goes("1-to-2-each-to-1", &["s2a"], &["--sagas=5"])
}

#[test]
fn one_to_nine() -> Result<()> {
    goes("1-to-9", &[], &["--once"])?;
    goes("1-to-9", &["s9"], &["--sagas=5"])
}

#[test]
fn one_to_three_each_to_two() -> Result<()> {
    goes("1-to-3-each-to-2", &[], &["--once"])?;
    goes("1-to-3-each-to-2", &["s1"], &["--sagas=5"])?;
    goes("1-to-3-each-to-2", &["s3b"], &["--sagas=5"])
}

#[test]
fn one_to_five_each_to_one() -> Result<()> {
    goes("1-to-5-each-to-1", &[], &["--once"])?;
    goes("1-to-5-each-to-1", &["s4"], &["--sagas=5"])?;
    goes("1-to-5-each-to-1", &["s1a", "s5"], &["--sagas=5"])
}

/// Each saga is applied everywhere or nowhere, and what was answered is so, when Qbox dies in the middle of many.
#[test]
fn killed_in_the_middle_all_levels_agree() -> Result<()> {
    goes("1-to-3-each-to-2", &[], &["--sagas=200", "--kills=4"])?;
    goes("1-to-2-each-to-1", &["s2a"], &["--sagas=200", "--kills=3"])
}

#[test]
fn a_graph_that_is_none_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("round.json");
    fs::write(
        &file,
        r#"{"root": "a", "nodes": ["a", "b"], "edges": [["a", "b"], ["b", "a"]]}"#,
    )?;
    let (good, said) = run(&[file.to_str().context("no text")?, "--once"])?;
    ensure!(!good && said.contains("a -> b -> a is a cycle"), "{said}");
    Ok(())
}
