//! The `qbox` binary.

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A saga's memory is taken on one worker and given back on another, hundreds of times.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    qbox::cli::main()
}
