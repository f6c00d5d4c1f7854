//! `qbox-bench`: what `cargo xtask bench sagas` and `telemetry` run.

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use qbox_tests::bench::{self, Kind, Options};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

/// Measures Qbox in pods beside what bounds it.
#[derive(Parser)]
#[command(name = "qbox-bench")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Sagas against a stateless hop.
    Sagas {
        /// How often each is measured, in turns.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Seconds for each measurement.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
    },
    /// Sagas with spans and scrapes against the same without.
    Telemetry {
        /// How often each is measured, in turns.
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// Seconds for each measurement.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
    },
    /// The hop.
    #[command(hide = true)]
    Hop {
        listen: SocketAddr,
        services: Vec<SocketAddr>,
    },
    /// The client.
    #[command(hide = true)]
    Load {
        address: SocketAddr,
        host: String,
        path: String,
        kind: How,
        number: u32,
        milliseconds: u64,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    Open,
    Closed,
}

fn main() -> ExitCode {
    match run(Cli::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<()> {
    match what {
        What::Sagas { rounds, seconds } => bench::sagas(&Options {
            rounds: rounds.max(1),
            span: Duration::from_secs(seconds.max(1)),
        }),
        What::Telemetry { rounds, seconds } => bench::telemetry(&Options {
            rounds: rounds.max(1),
            span: Duration::from_secs(seconds.max(1)),
        }),
        What::Hop { listen, services } => bench::hop(listen, services),
        What::Load {
            address,
            host,
            path,
            kind,
            number,
            milliseconds,
        } => {
            let kind = match kind {
                How::Open => Kind::Open { per_second: number },
                How::Closed => Kind::Closed { clients: number },
            };
            let load = bench::load(address, (&host, &path), kind, Duration::from_millis(milliseconds))?;
            println!("{}", load.to_line());
            Ok(())
        }
    }
}
