//! `qbox-bench`: what `cargo xtask bench` runs of most parts.

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use qbox_tests::bench::{self, Hold, Kind, Middle, Options, Press};
use std::net::SocketAddr;
use std::path::PathBuf;
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
    Sagas(Measured<5, 3>),
    /// One system in one topology, to look at with perf: prints what it does five times, and leaves the page alone.
    Press {
        /// CALLS-EACH, as 2-1.
        shape: String,
        /// hop (the bound), disk (synced) or none (unsynced).
        way: String,
        /// open: so many a second; closed: so many clients.
        kind: How,
        number: u32,
        #[arg(long, default_value_t = 2)]
        seconds: u64,
    },
    /// Sagas with spans and scrapes against the same without.
    Telemetry(Measured<9, 4>),
    /// Sagas among many in flight, of many steps, among many definitions.
    Growth(Measured<5, 1>),
    /// Memory, idle and while connections pass, and the binary's size.
    Memory(Measured<1, 3>),
    /// A connect(2) with Qbox's programs against one without.
    Connect(Measured<5, 1>),
    /// 250 pods, with the Kubernetes API and without: how soon each is captured, and what it costs.
    Pods,
    /// 100,000 captured connections in 50 pods, and what they leave behind.
    Connections,
    /// So many sagas a second for minutes.
    Hold {
        /// How long.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// Sagas a second.
        #[arg(long, default_value_t = 2000)]
        rate: u32,
        /// Write a copy of the page in target/bench.
        #[arg(long)]
        quick: bool,
    },
    /// Put into docs/performance.md what another measurement has found.
    #[command(hide = true)]
    Take {
        part: String,
        file: PathBuf,
        #[arg(long)]
        quick: bool,
    },
    /// The hop.
    #[command(hide = true)]
    Hop {
        listen: SocketAddr,
        #[arg(long)]
        below: Vec<SocketAddr>,
        #[arg(long)]
        middle: Vec<SocketAddr>,
    },
    /// A service in the middle.
    #[command(hide = true)]
    Middle {
        number: usize,
        host: String,
        own: SocketAddr,
        hop: SocketAddr,
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
    /// The client of what is held.
    #[command(hide = true)]
    Windows {
        address: SocketAddr,
        host: String,
        path: String,
        per_second: u32,
        windows: u32,
        milliseconds: u64,
    },
    /// The client whose sagas stay in flight.
    #[command(hide = true)]
    HoldOpen {
        address: SocketAddr,
        host: String,
        path: String,
    },
    /// The client of connect.
    #[command(hide = true)]
    Dial,
    /// A client of connections.
    #[command(hide = true)]
    Ask {
        count: usize,
        seed: usize,
        hosts: Vec<String>,
    },
    /// A pod that connects.
    #[command(hide = true)]
    Connects,
    /// A pod that makes no socket.
    #[command(hide = true)]
    Stays,
}

/// How often and how long, if nothing else is said.
#[derive(Args)]
struct Measured<const ROUNDS: usize, const SECONDS: u64> {
    /// How often each is measured, in turns.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = SECONDS)]
    seconds: u64,
    /// One round of a second, and a copy of the page in target/bench.
    #[arg(long)]
    quick: bool,
}

impl<const ROUNDS: usize, const SECONDS: u64> From<Measured<ROUNDS, SECONDS>> for Options {
    fn from(measured: Measured<ROUNDS, SECONDS>) -> Self {
        let Measured {
            rounds,
            seconds,
            quick,
        } = measured;
        let (rounds, seconds) = if quick {
            (1, 1)
        } else {
            (rounds.max(1), seconds.max(1))
        };
        Self {
            rounds,
            span: Duration::from_secs(seconds),
            quick,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    Open,
    Closed,
}

impl How {
    fn of(self, number: u32) -> Kind {
        match self {
            Self::Open => Kind::Open { per_second: number },
            Self::Closed => Kind::Closed { clients: number },
        }
    }
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
        What::Sagas(measured) => bench::sagas(&measured.into()),
        What::Press {
            shape,
            way,
            kind,
            number,
            seconds,
        } => bench::press(&Press {
            shape,
            way,
            kind: kind.of(number),
            span: Duration::from_secs(seconds),
        }),
        What::Telemetry(measured) => bench::telemetry(&measured.into()),
        What::Growth(measured) => bench::growth(&measured.into()),
        What::Memory(measured) => bench::memory(&measured.into()),
        What::Connect(measured) => bench::connect(&measured.into()),
        What::Hold { minutes, rate, quick } => bench::hold(&Hold {
            span: Duration::try_from_secs_f64(minutes * 60.0)?,
            rate,
            quick,
        }),
        What::Take { part, file, quick } => bench::take(&part, &file, quick),
        What::Hop {
            listen,
            below,
            middle,
        } => bench::hop(listen, below, middle),
        What::Middle {
            number,
            host,
            own,
            hop,
        } => bench::middle(Middle {
            number,
            host,
            own,
            hop,
        }),
        What::Load {
            address,
            host,
            path,
            kind,
            number,
            milliseconds,
        } => {
            let span = Duration::from_millis(milliseconds);
            let load = bench::load(address, (&host, &path), kind.of(number), span)?;
            println!("{}", load.to_line());
            Ok(())
        }
        What::Windows {
            address,
            host,
            path,
            per_second,
            windows,
            milliseconds,
        } => {
            let windows = (windows, Duration::from_millis(milliseconds));
            bench::windows(address, (&host, &path), per_second, windows, |load| {
                println!("{}", load.to_line());
            })
        }
        What::HoldOpen { address, host, path } => bench::hold_open(address, &host, &path),
        What::Dial => bench::dial(),
        What::Pods => bench::pods(),
        What::Connections => bench::connections(),
        What::Ask { count, seed, hosts } => bench::ask(count, seed, &hosts),
        What::Connects => bench::connects(),
        What::Stays => bench::stays(),
    }
}
