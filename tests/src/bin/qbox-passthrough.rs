//! `qbox-passthrough`: what `cargo xtask bench passthrough` runs.

use anyhow::Result;
use clap::{Parser, Subcommand};
use qbox_tests::passthrough::{self, Options};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Measures what it costs to pass through Qbox, against other proxies; prints tables in Markdown.
#[derive(Parser)]
#[command(name = "qbox-passthrough", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    inner: Option<Inner>,
    /// Of each single measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often each is repeated; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Envoy's binary.
    #[arg(long, default_value = "envoy")]
    envoy: PathBuf,
    /// Only Qbox and the raw copy.
    #[arg(long)]
    own_alone: bool,
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
        seconds: cli.seconds,
        rounds: cli.rounds,
        envoy: cli.envoy,
        own_alone: cli.own_alone,
    };
    println!("{}", passthrough::measure(&options)?);
    Ok(())
}
