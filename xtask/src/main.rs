//! Build, run, test and lint Qbox: `cargo xtask --help`. Knows no product crate: it only calls cargo and the binaries.

mod bench;
mod build;
mod build_ebpf;
mod chaos;
mod docs;
mod fuzz;
mod hardened;
mod image;
mod lint;
mod packages;
mod profile;
mod run;
mod sim;
mod test;
mod toolchain;
mod tools;
mod topology;
mod ui;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Build, run, test and lint Qbox.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the eBPF object and the release binaries.
    Build,
    /// Build the eBPF object alone; what that needs and is missing is installed first.
    BuildEbpf,
    /// Build, then write `target/image/qbox.oci.tar`: Qbox as an OCI image, and beside it what it is made of (CycloneDX).
    Image,
    /// Write anew what of docs/ is written from the code.
    Docs,
    /// Check formatting, clippy and the rules of the rooms.
    Lint,
    /// Walk every way a saga can go, with crashes at every event; ends with a line `N violations`, and status 0 only at 0.
    Sim(sim::Sim),
    /// Build, then run every test; the end-to-end ones need root.
    Test {
        /// With every Qbox held to the capabilities that `config/kubernetes/hardened` grants.
        #[arg(long)]
        hardened: bool,
        /// For `cargo test`, behind `--`: `--test capture`.
        #[arg(last = true)]
        words: Vec<String>,
    },
    /// Measure, in release mode and on this machine: without a name all that docs/performance.md is made of, which writes that page and
    /// its plots; or one measurement.
    Bench {
        /// One alone.
        what: Option<bench::What>,
        /// Of the whole only these parts, with commas between.
        #[arg(long, value_delimiter = ',')]
        only: Vec<bench::What>,
        /// In a few minutes instead of some twenty; docs/performance.md stays as it is, and a copy in target/bench is written.
        #[arg(long)]
        quick: bool,
        /// For one that runs in pods, behind `--`: how long, for one (`--help` names them).
        #[arg(last = true)]
        words: Vec<String>,
    },
    /// Build, then show Qbox at work: two bookings by sample services, and it stays up to be tried until Ctrl-C.
    Run {
        /// End after the two bookings, with status 0 if the services' ledgers are right.
        #[arg(long)]
        once: bool,
        /// Without root and eBPF: through a plain listening port.
        #[arg(long)]
        explicit: bool,
    },
    /// Build, then kill Qbox under load again and again, and judge what became of every saga: status 0 at 0 violations.
    Chaos(chaos::Trial),
    /// Build, then run services that call each other as a graph says, in pods: it stays up until Ctrl-C, or ends after some sagas with
    /// status 0 if the ledgers are as they must be.
    Topology(topology::Topology),
    /// Let libFuzzer look for input that breaks a promise: a minute each target, status 0 if there is none.
    Fuzz(fuzz::Fuzz),
    /// Count what of Qbox runs under load, and write the profile that release builds are optimised by; needs root, and some minutes.
    Profile,
    /// Run other projects' test suites in a pod, without Qbox and through it, and compare each test's end.
    Conformance,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Build => build::release().map(drop),
        Task::BuildEbpf => build_ebpf::build().map(|object| println!("{}", object.display())),
        Task::Bench {
            what,
            only,
            quick,
            words,
        } => bench::run(what, &only, quick, &words),
        Task::Image => image::run(),
        Task::Docs => docs::run(),
        Task::Lint => lint::run(),
        Task::Sim(sim) => sim::run(&sim),
        Task::Test { hardened, words } => test::run(hardened, &words),
        Task::Run { once, explicit } => run::run(once, explicit),
        Task::Chaos(trial) => chaos::run(&trial),
        Task::Topology(topology) => topology::run(&topology),
        Task::Fuzz(fuzz) => fuzz::run(&fuzz),
        Task::Profile => profile::run(),
        Task::Conformance => test::conformance(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root: every path in xtask starts here, so that it works from any folder.
fn root() -> Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .map(PathBuf::from)
        .context("xtask has no parent folder")
}
