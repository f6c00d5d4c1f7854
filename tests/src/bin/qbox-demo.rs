//! `qbox-demo`: what `cargo xtask run` shows.

use clap::Parser;
use qbox_tests::demo::{self, Options};
use std::process::ExitCode;

/// Shows Qbox at work: two bookings of a trip, one of which has to be undone.
#[derive(Parser)]
#[command(name = "qbox-demo")]
struct Cli {
    /// End after the two bookings, with status 0 if the ledgers are right.
    #[arg(long)]
    once: bool,
    /// Without root and eBPF: through a plain listening port.
    #[arg(long)]
    explicit: bool,
}

fn main() -> ExitCode {
    let Cli { once, explicit } = Cli::parse();
    match demo::run(Options { once, explicit }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
