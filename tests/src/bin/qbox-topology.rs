//! `qbox-topology`: what `cargo xtask topology` runs.

use clap::{Parser, Subcommand};
use qbox_tests::topology::{self, Options, Role};
use std::path::PathBuf;
use std::process::ExitCode;

/// Services that call each other as a graph says, in pods, and Qbox.
#[derive(Parser)]
#[command(
    name = "qbox-topology",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    inner: Option<Inner>,
    /// `{"root": NAME, "nodes": [NAME, …], "edges": [[FROM, TO], …], "bad": [NAME, …]}`
    #[arg(required = true)]
    graph: Option<PathBuf>,
    /// End after one saga, with status 0 if the services' ledgers are as they must be.
    #[arg(long)]
    once: bool,
    /// End after so many.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    sagas: Option<u64>,
    /// Kill Qbox so often meanwhile.
    #[arg(long, default_value_t = 0, hide = true)]
    kills: u64,
}

#[derive(Subcommand)]
enum Inner {
    /// One service, in its pod.
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        name: String,
        #[arg(long)]
        calls: bool,
        #[arg(long)]
        bad: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match (cli.inner, cli.graph) {
        (Some(Inner::Serve { name, calls, bad }), _) => topology::serve(Role { name, calls, bad }),
        (None, Some(graph)) => topology::run(&Options {
            graph,
            sagas: cli.sagas.or(cli.once.then_some(1)),
            kills: cli.kills,
        }),
        (None, None) => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
