//! Fuzz targets. Each is a function of some bytes that panics when what it looks for has happened.
//!
//! `cargo xtask fuzz` builds them with coverage and lets libFuzzer look for inputs (`main.rs`); an ordinary test plays
//! each target's seeds, so that an input that was once found is never lost. A target is a file in `targets/` and a line in
//! [`TARGETS`]; its seeds are the files in `seeds/NAME/`, and what it names besides;
//! `words/NAME`, if there is one, are words of the language that its inputs are in.
//!
//! Panics are this crate's only errors, and its purpose.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod targets;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};

/// What is fuzzed.
#[derive(Debug)]
pub struct Target {
    /// Its file's name, too.
    pub name: &'static str,
    /// Panics when something is wrong.
    pub run: fn(&[u8]),
    /// Files and folders of the workspace that are seeds as well.
    pub also: &'static [&'static str],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    targets::expressions::TARGET,
    targets::http1_requests::TARGET,
    targets::http1_responses::TARGET,
    targets::http2::TARGET,
    targets::matching::TARGET,
    targets::original::TARGET,
    targets::saga_file::TARGET,
];

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Its seeds.
    ///
    /// # Panics
    /// They can't be read.
    #[must_use]
    pub fn seeds(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.ancestors().nth(2).expect("the workspace");
        let mut files = Vec::new();
        collect(&here.join("seeds").join(self.name), &mut files);
        for place in self.also {
            collect(&root.join(place), &mut files);
        }
        files.sort();
        let read = |file: PathBuf| {
            let bytes = fs::read(&file).expect("a seed");
            (file, bytes)
        };
        files.into_iter().map(read).collect()
    }
}

fn collect(place: &Path, files: &mut Vec<PathBuf>) {
    if place.is_file() {
        files.push(place.to_owned());
    }
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        collect(&entry.path(), files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_of_every_target() {
        for target in TARGETS {
            let seeds = target.seeds();
            assert!(!seeds.is_empty(), "{} has no seeds", target.name);
            (target.run)(b"");
            for (file, bytes) in seeds {
                // Shown only with the panic that follows.
                println!("{}", file.display());
                (target.run)(&bytes);
            }
        }
    }

    /// `cargo xtask fuzz` takes the files for the list.
    #[test]
    fn every_file_is_a_target() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/targets");
        let mut names: Vec<_> = (fs::read_dir(folder).unwrap().flatten())
            .map(|entry| entry.path().file_stem().unwrap().to_string_lossy().into_owned())
            .filter(|name| name != "mod")
            .collect();
        names.sort();
        let mut known: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
        known.sort();
        assert_eq!(names, known);
    }
}
