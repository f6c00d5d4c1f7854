//! The profile that a release is optimised by: how often each part of the code runs under load, so that the compiler lays what runs
//! often side by side and leaves the rest out of its way (profile-guided optimisation, the rustc book).
//!
//! One file for each compiler and processor that has one, in `qbox-userspace/profiles`, whose name says which: the names that a profile
//! knows functions by are that compiler's. Another compiler builds without, which is slower and nothing else, and so does whoever sets
//! RUSTFLAGS. A function that has changed since, or that the load never called, is compiled as without. `cargo xtask profile` writes the
//! file anew: after changes to what every saga or every connection goes through.

use crate::toolchain::{self, Compiled, target_folder};
use crate::ui::{call, read, step};
use crate::{build, tools};
use anyhow::{Context, Result, bail};
use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Cargo takes none of ours beside these.
const OTHERS: [&str; 2] = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"];

/// What Qbox is loaded with: topology, journal, and how requests come.
const LOADS: [[&str; 4]; 8] = [
    ["4-0", "none", "closed", "16"],
    ["2-1", "none", "closed", "16"],
    ["5-1", "none", "closed", "16"],
    ["4-0", "none", "open", "100"],
    ["4-0", "disk", "closed", "16"],
    ["2-1", "disk", "closed", "16"],
    ["9-0", "disk", "closed", "16"],
    ["4-0", "disk", "open", "100"],
];

/// Has a release build use this compiler's profile, or says why it can't.
pub(crate) fn used_by(build: &mut Command) -> Result<()> {
    let kept = match usable()? {
        Ok(kept) => kept,
        Err(why) => {
            eprintln!("    {why}: this Qbox is built without a profile, and slower than it could be");
            return Ok(());
        }
    };
    let profile = by_content(&kept)?;
    // What has changed since is known to be without.
    flags(
        build,
        &[
            &format!("-Cprofile-use={}", profile.display()),
            "-Cllvm-args=-no-pgo-warn-mismatch",
        ],
    );
    Ok(())
}

/// Whether release builds use one here.
pub(crate) fn is_used() -> Result<bool> {
    Ok(usable()?.is_ok())
}

/// This compiler's, or why there is none to use.
fn usable() -> Result<Result<PathBuf, String>> {
    let compiled = toolchain::compiled()?;
    let kept = kept(&compiled)?;
    Ok(if !kept.is_file() {
        let (release, host) = (compiled.release, compiled.host);
        Err(format!("no profile was made with Rust {release} on {host}"))
    } else if let Some(name) = flags_are_set() {
        Err(format!("{name} is set"))
    } else {
        Ok(kept)
    })
}

/// `cargo xtask profile`.
pub(crate) fn run() -> Result<()> {
    if let Some(name) = flags_are_set() {
        bail!("{name} is set, and would take the place of what counts; unset it");
    }
    if !tools::is_root() {
        bail!("what is loaded captures the connections of pods, which needs root; run it as root");
    }
    let merger = step("Looking for what the load needs", || {
        tools::ensure(tools::PODS.iter().chain(&tools::PROXIES))?;
        toolchain::llvm_tool("llvm-profdata")
    })?;
    build::release()?;
    let folder = target_folder().join("profile");
    let counted = folder.join("counted");
    for old in [&counted, &folder.join("built")] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("can't remove {}", old.display()))?;
        }
    }
    let qbox = step("Building a Qbox that counts", || {
        build::counting(
            &folder,
            &format!("-Cprofile-generate={}", folder.join("built").display()),
        )
    })?;
    step("Loading it", || {
        let load = |name: &str, words: &[&str]| {
            let mut load = Command::new(build::binary(name));
            load.current_dir(crate::root()?).args(words);
            load.env(build::BINARY_VARIABLE, &qbox);
            call(load.env("LLVM_PROFILE_FILE", counted.join("%p.profraw")))
        };
        for words in &LOADS {
            load("qbox-bench", &[&["press"], &words[..], &["--seconds=2"]].concat())?;
        }
        let passes = ["--own-alone", "--minutes=0.3", "--rounds=1", "--envoy=none"];
        load("qbox-passthrough", &passes)
    })?;
    let kept = kept(&toolchain::compiled()?)?;
    step("Writing the profile", || {
        let of = kept.parent().context("the profile has no folder")?;
        fs::create_dir_all(of).with_context(|| format!("can't make {}", of.display()))?;
        // Without those that never ran, which are then compiled as ever and not as if they were never to.
        let mut merge = Command::new(&merger);
        merge
            .args(["merge", "--sparse", "--output"])
            .arg(&kept)
            .arg(&counted);
        call(&mut merge)?;
        let bytes = fs::metadata(&kept)
            .with_context(|| format!("can't read {}", kept.display()))?
            .len();
        println!("{}  {bytes} bytes", kept.display());
        Ok(())
    })?;
    println!("{}", read(Command::new(&merger).arg("show").arg(&kept))?);
    Ok(())
}

/// Flags of the compiler for a build by cargo.
pub(crate) fn flags(build: &mut Command, flags: &[&str]) {
    let quoted: Vec<String> = flags.iter().map(|flag| format!("'{flag}'")).collect();
    build
        .arg("--config")
        .arg(format!("build.rustflags=[{}]", quoted.join(",")));
}

fn flags_are_set() -> Option<&'static str> {
    OTHERS
        .into_iter()
        .find(|name| env::var_os(name).is_some_and(|flags| !flags.is_empty()))
}

/// Where a compiler's is kept.
fn kept(compiled: &Compiled) -> Result<PathBuf> {
    let name = format!("{}-{}.profdata", compiled.release, compiled.host);
    Ok(crate::root()?.join("qbox-userspace/profiles").join(name))
}

/// A copy whose name changes with what is in it: cargo knows a flag by its text alone.
fn by_content(kept: &Path) -> Result<PathBuf> {
    let bytes = fs::read(kept).with_context(|| format!("can't read {}", kept.display()))?;
    let mut hash = DefaultHasher::new();
    bytes.hash(&mut hash);
    let folder = target_folder().join("profile/used");
    let copy = folder.join(format!("{:016x}.profdata", hash.finish()));
    // Not each time: cargo builds anew for one that is younger. One that was half written has its name all the same.
    if fs::read(&copy).ok().as_ref() != Some(&bytes) {
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        fs::write(&copy, &bytes).with_context(|| format!("can't write {}", copy.display()))?;
    }
    Ok(copy)
}
