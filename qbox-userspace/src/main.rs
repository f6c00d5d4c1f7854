//! The `qbox` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    qbox::cli::main()
}
