//! `cargo xtask fuzz`: the targets of `tests/fuzz`, each under libFuzzer for a while.
//!
//! The coverage that libFuzzer goes by comes from flags that any stable compiler has, so neither a nightly nor cargo-fuzz
//! is needed. What is built for it has a folder of its own, `target/fuzz`, where corpora and findings are kept, too.

use crate::toolchain::{self, target_folder};
use crate::ui::{call, cargo, step};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Every edge of the program counted, comparisons seen.
const COVERAGE: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// What is fuzzed, and how long.
#[derive(clap::Args)]
pub(crate) struct Fuzz {
    /// The targets; all, if none is named.
    targets: Vec<String>,
    /// For each target.
    #[arg(long, default_value_t = 1)]
    minutes: u32,
    /// Play this one input instead, and tell what it does.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
}

/// Status 0 only if no target has found anything.
pub(crate) fn run(fuzz: &Fuzz) -> Result<()> {
    let known = known()?;
    if let Some(unknown) = fuzz.targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no target `{unknown}`; there are {}", known.join(", "));
    }
    let chosen = match fuzz.targets.is_empty() {
        true => &known,
        false => &fuzz.targets,
    };
    if fuzz.replay.is_some() && chosen.len() != 1 {
        bail!("which target is the input for? `cargo xtask fuzz TARGET --replay FILE`");
    }
    let binary = step("Building the targets with coverage", build)?;
    let mut found = Vec::new();
    for target in chosen {
        let folder = target_folder().join("fuzz");
        let (corpus, findings) = (folder.join("corpus").join(target), folder.join("found"));
        for folder in [&corpus, &findings] {
            fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        }
        let mut command = Command::new(&binary);
        command
            .current_dir(crate::root()?)
            .env("QBOX_FUZZ_TARGET", target)
            .env("QBOX_FUZZ_SEEDS", &corpus);
        let ended = match &fuzz.replay {
            Some(input) => call(command.arg(input)),
            None => step(&format!("Fuzzing {target}"), || {
                command
                    .arg(format!("-max_total_time={}", u64::from(fuzz.minutes) * 60))
                    .arg(format!("-artifact_prefix={}/{target}-", findings.display()))
                    .args([
                        "-timeout=20",
                        "-rss_limit_mb=2048",
                        "-max_len=16384",
                        "-print_final_stats=1",
                    ])
                    .args(dictionary(target)?)
                    .arg(&corpus);
                call(&mut command)
            }),
        };
        if let Err(error) = ended {
            eprintln!("    {target}: {error:#}");
            found.push(target.as_str());
        }
    }
    if !found.is_empty() {
        bail!(
            "{} found something; the inputs are in target/fuzz/found (`--replay FILE` plays one, and in \
             tests/fuzz/seeds/TARGET it is a test)",
            found.join(", ")
        );
    }
    Ok(())
}

/// libFuzzer's option for the target's words, if it has any.
fn dictionary(target: &str) -> Result<Option<String>> {
    let path = crate::root()?.join("tests/fuzz/words").join(target);
    Ok(path.is_file().then(|| format!("-dict={}", path.display())))
}

/// One file a target.
fn known() -> Result<Vec<String>> {
    let folder = crate::root()?.join("tests/fuzz/src/targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("can't list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        names.extend(name.filter(|name| name != "mod"));
    }
    names.sort();
    Ok(names)
}

fn build() -> Result<PathBuf> {
    let host = toolchain::compiled()?.host;
    let folder = target_folder().join("fuzz");
    let mut build = cargo();
    // With a target named, the flags are for the program alone and not for what runs while it is built.
    build
        .current_dir(crate::root()?)
        .args([
            "build",
            "--profile=fuzz",
            "--package=qbox-fuzz",
            "--features=libfuzzer",
        ])
        .args(["--target", &host, "--target-dir"])
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"));
    call(&mut build)?;
    Ok(folder.join(host).join("fuzz/qbox-fuzz"))
}
