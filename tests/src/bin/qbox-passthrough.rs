//! `qbox-passthrough`: what `cargo xtask bench passthrough` runs.

use anyhow::Result;
use clap::{Parser, Subcommand};
use qbox_tests::passthrough::{self, Options};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Measures what it costs to pass through Qbox, against other proxies; prints tables in Markdown, and puts them into docs/performance.md.
#[derive(Parser)]
#[command(name = "qbox-passthrough", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    inner: Option<Inner>,
    /// Of all measurements together, roughly; at least a second each.
    #[arg(long, default_value_t = 9.0)]
    minutes: f64,
    /// How often each is repeated; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Envoy's binary.
    #[arg(long, default_value = "envoy")]
    envoy: PathBuf,
    /// Only Qbox and the raw copy; docs/performance.md stays as it is.
    #[arg(long)]
    own_alone: bool,
    /// Only count system calls and memory; docs/performance.md stays as it is.
    #[arg(long)]
    calls_alone: bool,
    /// One round of a second; a copy of the page in target/bench is written instead.
    #[arg(long)]
    quick: bool,
}

#[derive(Subcommand)]
enum Inner {
    /// The raw TCP copy.
    #[command(hide = true)]
    Copy { listen: SocketAddr, target: SocketAddr },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(Inner::Copy { listen, target }) = cli.inner {
        return passthrough::copy(listen, target);
    }
    let options = Options {
        minutes: if cli.quick { 0.0 } else { cli.minutes },
        rounds: if cli.quick { 1 } else { cli.rounds.max(1) },
        envoy: cli.envoy,
        own_alone: cli.own_alone,
        calls_alone: cli.calls_alone,
        quick: cli.quick,
    };
    passthrough::measure(&options)
}
