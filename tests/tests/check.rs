//! `qbox check` on the files of `config/`: what is right passes, and each mistake is shown where it is, with what to do.

use anyhow::{Context, Result, ensure};
use qbox_tests::{binary, workspace};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What it prints, and its exit status.
fn check(path: &Path) -> Result<(String, Option<i32>)> {
    let output = Command::new(binary()?)
        .arg("check")
        .arg(path)
        .current_dir(workspace())
        .output()?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    Ok((text, output.status.code()))
}

fn invalid() -> Result<Vec<PathBuf>> {
    let folder = workspace().join("config/invalid");
    let entries = fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

#[test]
fn what_the_demo_runs_is_fit_to_run() -> Result<()> {
    let (text, status) = check(Path::new("config/"))?;
    assert_eq!(status, Some(0), "{text}");
    Ok(())
}

/// file:line:column, the line itself, what is wrong, and how to mend it.
#[test]
fn each_mistake_is_shown_where_it_is() -> Result<()> {
    let files = invalid()?;
    let mut mistakes = BTreeSet::new();
    for path in &files {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("no name")?;
        let (text, status) = check(path)?;
        assert_eq!(status, Some(1), "{name}: {text}");
        let error = text.lines().find(|line| line.starts_with("error"));
        mistakes.insert(
            error
                .with_context(|| format!("{name}: no error in {text}"))?
                .to_owned(),
        );

        let place = text.lines().find_map(|line| line.trim().strip_prefix("--> "));
        let place = place.with_context(|| format!("{name}: no place in {text}"))?;
        let mut parts = place.rsplitn(3, ':');
        let column: usize = parts
            .next()
            .context("no column")?
            .parse()
            .context(place.to_owned())?;
        let line: usize = parts
            .next()
            .context("no line")?
            .parse()
            .context(place.to_owned())?;
        let file = parts.next().context("no file")?;
        ensure!(file.ends_with(name), "{name}: shown in {file}");
        // One of the mistakes is a byte that isn't UTF-8.
        let source = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        let shown = source
            .lines()
            .nth(line - 1)
            .with_context(|| format!("{name} has no line {line}"))?;
        ensure!(
            (1..=shown.chars().count() + 1).contains(&column),
            "{name}: no column {column} in {shown:?}"
        );
        ensure!(
            text.contains(shown.trim_end()),
            "{name}: the line isn't shown:\n{text}"
        );
        ensure!(
            text.contains("help: "),
            "{name}: it doesn't say what to do:\n{text}"
        );
    }
    ensure!(files.len() >= 25, "only {} files", files.len());
    ensure!(
        mistakes.len() >= 25,
        "only {} different mistakes: {mistakes:#?}",
        mistakes.len()
    );
    Ok(())
}

/// What is legal and probably not meant is shown in the same way, and keeps nobody from running it.
#[test]
fn a_warning_is_shown_and_is_no_error() -> Result<()> {
    let entries = fs::read_dir(workspace().join("config/warned"))?;
    let mut codes = BTreeSet::new();
    for entry in entries {
        let path = entry?.path();
        let (text, status) = check(&path)?;
        assert_eq!(status, Some(0), "{}: {text}", path.display());
        let said = text.lines().filter_map(|line| line.strip_prefix("warning["));
        codes.extend(said.filter_map(|line| line.split(']').next()).map(str::to_owned));
        ensure!(text.contains("--> ") && text.contains("help: "), "{text}");
    }
    ensure!(codes.len() >= 7, "only {codes:?}");
    Ok(())
}

/// Two sagas beside one another are compared.
#[test]
fn two_sagas_that_get_in_each_others_way_are_named_both() -> Result<()> {
    for (folder, files) in [
        ("one-name-twice", ["first.toml", "second.toml"]),
        ("one-trigger-twice", ["one.toml", "other.toml"]),
    ] {
        let (text, status) = check(&workspace().join("config/invalid").join(folder))?;
        assert_eq!(status, Some(1), "{text}");
        ensure!(files.iter().all(|file| text.contains(file)), "{text}");
    }
    Ok(())
}

/// One that can't be read isn't passed over.
#[test]
fn a_path_that_is_not_there_is_an_error() -> Result<()> {
    let (text, status) = check(Path::new("config/no-such-file.toml"))?;
    ensure!(matches!(status, Some(1 | 2)), "{status:?}: {text}");
    ensure!(text.contains("no-such-file.toml"), "{text}");
    Ok(())
}
