//! `qbox-chaos`: what `cargo xtask chaos` runs.

use clap::{Parser, Subcommand, ValueEnum};
use qbox_tests::chaos::{self, Journal, Options, Share};
use std::process::ExitCode;

/// Kills Qbox under load, again and again, and judges what became of every saga.
#[derive(Parser)]
#[command(name = "qbox-chaos", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    inner: Option<Inner>,
    #[command(flatten)]
    trial: Trial,
}

#[derive(clap::Args)]
struct Trial {
    /// What trips, faults and kills are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many sagas there have to be.
    #[arg(long, default_value_t = 20_000)]
    sagas: u64,
    /// How often Qbox is killed.
    #[arg(long, default_value_t = 300)]
    kills: u64,
    /// Let messages be lost, late, refused and delivered twice as well.
    #[arg(long)]
    faults: bool,
    /// With "memory" no saga survives a kill, and the judge has to find that.
    #[arg(long, value_enum, default_value = "disk", hide = true)]
    journal: Store,
}

#[derive(Clone, Copy, ValueEnum)]
enum Store {
    Disk,
    Memory,
}

#[derive(Subcommand)]
enum Inner {
    /// The callers of one pod.
    #[command(hide = true)]
    Callers {
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        first: u64,
        #[arg(long)]
        of: u64,
        #[arg(long)]
        trips: u64,
        #[arg(long)]
        at_once: u64,
    },
}

fn main() -> ExitCode {
    let Cli { inner, trial } = Cli::parse();
    let done = match inner {
        Some(Inner::Callers {
            seed,
            first,
            of,
            trips,
            at_once,
        }) => chaos::call(Share {
            seed,
            first,
            of,
            trips,
            at_once,
        })
        .map(|()| 0),
        None => chaos::run(&Options {
            seed: trial.seed,
            sagas: trial.sagas,
            kills: trial.kills,
            faults: trial.faults,
            journal: match trial.journal {
                Store::Disk => Journal::Disk,
                Store::Memory => Journal::Memory,
            },
        }),
    };
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
