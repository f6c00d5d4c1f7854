//! The `qbox` binary.

use qbox::allocations::Allocator;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    qbox::cli::main()
}
