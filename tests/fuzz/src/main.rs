//! One target under libFuzzer: `$QBOX_FUZZ_TARGET` says which, `$QBOX_FUZZ_SEEDS` is a folder that its seeds
//! are put in before libFuzzer reads it. `cargo xtask fuzz` sets both.
//!
//! A target that does not exist is a panic.

#![no_main]
#![allow(clippy::expect_used)]

use libfuzzer_sys::fuzz_target;
use qbox_fuzz::Target;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::{env, fs};

static TARGET: OnceLock<&Target> = OnceLock::new();

fn start() {
    let name = env::var("QBOX_FUZZ_TARGET").expect("QBOX_FUZZ_TARGET");
    let target = Target::named(&name).expect("a target of that name");
    let folder = PathBuf::from(env::var_os("QBOX_FUZZ_SEEDS").expect("QBOX_FUZZ_SEEDS"));
    for (number, (_, bytes)) in target.seeds().into_iter().enumerate() {
        fs::write(folder.join(format!("seed-{number:03}")), bytes).expect("a seed is written");
    }
    TARGET.set(target).expect("one start");
}

fuzz_target!(init: start(), |input: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.run)(input);
    }
});
