//! Measurements: all that docs/performance.md is made of, or one by its name.

mod parts;

use crate::toolchain::target_folder;
use crate::ui::{call, cargo, step};
use crate::{build, packages, profile, tools};
use anyhow::{Result, bail};
use clap::ValueEnum;
use std::process::Command;

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// The engines that could hold the journal, as the table of docs/journal.md.
    Journal,
    /// A saga with `durability = "disk"` against the same with `"none"`.
    Durability,
    /// Finding a request's saga among 10 and among 1,000, and loading so many; status 0 only below three times. A part of the whole.
    Matching,
    /// The parts of a saga by themselves, with criterion: matching, expressions, the state machine, the journal.
    Micro,
    /// What 1 MiB of the worst input costs each parser and the matcher; status 0 only below 100 ms.
    Inputs,
    /// A start on a journal of 100,000 sagas that have ended and 10,000 that are open.
    Recovery,
    /// Sagas in pods beside a stateless hop, in five topologies. A part of the whole; needs root.
    Sagas,
    /// A saga's cost among many in flight, of many steps, among many definitions. A part of the whole; needs root.
    Growth,
    /// Memory, idle and while connections pass, and the binary's size. A part of the whole; needs root.
    Memory,
    /// 2,000 sagas a second for ten minutes (`-- --minutes N --rate N`): latency, memory and journal. Needs root.
    Hold,
    /// Sagas with spans to a collector and metrics asked for, against the same without either. Needs root.
    Telemetry,
    /// A connect(2) with Qbox's programs against one without; captured, too. A part of the whole; needs root.
    Connect,
    /// 250 pods: how soon each is captured, and what it costs. Needs root.
    Pods,
    /// 100,000 captured connections in 50 pods, and what they leave behind. Needs root.
    Connections,
    /// What passes through Qbox, against a raw TCP copy, nginx, HAProxy and Envoy. A part of the whole; needs root.
    Passthrough,
}

/// What has to be there first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Root, and the programs that pods are made with.
    Pods,
    /// wrk, nginx and the proxies that are compared.
    Proxies,
    /// The release binaries with the eBPF programs.
    Binaries,
    /// The benches of qbox-userspace.
    Matching,
}

impl Need {
    const ALL: [Self; 4] = [Self::Pods, Self::Proxies, Self::Binaries, Self::Matching];
}

impl What {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn needs(self) -> &'static [Need] {
        match self {
            Self::Sagas
            | Self::Growth
            | Self::Hold
            | Self::Telemetry
            | Self::Connect
            | Self::Pods
            | Self::Connections => &[Need::Pods, Need::Binaries],
            Self::Passthrough | Self::Memory => &[Need::Pods, Need::Proxies, Need::Binaries],
            Self::Matching => &[Need::Binaries, Need::Matching],
            Self::Journal | Self::Durability | Self::Micro | Self::Inputs | Self::Recovery => &[],
        }
    }
}

/// `cargo xtask bench`.
pub(crate) fn run(what: Option<What>, only: &[What], quick: bool, words: &[String]) -> Result<()> {
    if let Some((name, _)) = std::env::vars().find(|(name, _)| name.starts_with("CARGO_PROFILE_RELEASE_")) {
        eprintln!("==> {name} is set: this is not the profile that a release is built with");
    }
    let Some(what) = what else {
        if !words.is_empty() {
            bail!("words behind `--` are for one measurement alone");
        }
        return parts::run(only, quick);
    };
    if !only.is_empty() {
        bail!(
            "`--only` chooses parts of the whole: leave `{}` out, or `--only`",
            what.name()
        );
    }
    for need in what.needs() {
        prepare(*need)?;
    }
    measure(what, quick, words)
}

fn prepare(need: Need) -> Result<()> {
    match need {
        Need::Pods => {
            if !tools::is_root() {
                bail!("this makes pods and captures their connections, which needs root; run it as root");
            }
            step("Looking for the programs that pods are made with", || {
                tools::ensure(&tools::PODS)
            })
        }
        Need::Proxies => step("Looking for the programs that are compared", || {
            let list = crate::root()?.join("tests/src/passthrough/requirements.txt");
            tools::ensure(&tools::PROXIES)?;
            packages::python("proxies", &list)
        }),
        Need::Binaries => build::release().map(drop),
        Need::Matching => step("Building the bench of matching", || {
            call(of_userspace("matching")?.arg("--no-run"))
        }),
    }
}

/// Once all that it needs is there.
fn measure(what: What, quick: bool, words: &[String]) -> Result<()> {
    let plain = matches!(what, What::Pods | What::Connections);
    let takes_words = matches!(what.needs(), [Need::Pods, ..]) && !plain;
    if !words.is_empty() && !takes_words {
        bail!("this measurement takes no options");
    }
    match what {
        What::Journal => {
            call(bench()?.args(["--package=qbox-tests", "--features=engines", "--bench=journal"]))
        }
        What::Durability => call(&mut of_the_binary("durability")?),
        What::Matching => matching(quick),
        What::Micro => call(&mut of_userspace("micro")?),
        What::Inputs => call(&mut of_userspace("inputs")?),
        What::Recovery => call(&mut of_the_binary("recovery")?),
        What::Sagas
        | What::Growth
        | What::Memory
        | What::Hold
        | What::Telemetry
        | What::Connect
        | What::Pods
        | What::Connections => {
            let mut measure = own("qbox-bench", quick && !plain)?;
            // Short, where the others are quick by themselves.
            let short = quick && what == What::Hold && words.is_empty();
            let words = words.iter().map(String::as_str);
            let words = words.chain(short.then_some("--minutes=1"));
            call(measure(&what.name()).args(words))
        }
        What::Passthrough => {
            let envoy = packages::folder().join("proxies/bin/envoy");
            let mut measure = own("qbox-passthrough", quick)?;
            call(measure(&format!("--envoy={}", envoy.display())).args(words))
        }
    }
}

/// In a folder of its own: cargo builds the package's binaries for its benches too, and those would take the place of the release's,
/// without the eBPF programs.
fn bench() -> Result<Command> {
    let mut bench = cargo();
    let folder = target_folder().join("benches");
    bench.current_dir(crate::root()?).args(["bench", "--target-dir"]);
    profile::used_by(bench.arg(folder))?;
    Ok(bench)
}

/// One of our binaries with its first word, in the workspace's folder.
fn own(name: &str, quick: bool) -> Result<impl FnMut(&str) -> Command> {
    let root = crate::root()?;
    let binary = build::binary(name);
    Ok(move |word: &str| {
        let mut command = Command::new(&binary);
        command
            .current_dir(&root)
            .env(build::BINARY_VARIABLE, build::binary("qbox"));
        command.arg(word);
        if quick {
            command.arg("--quick");
        }
        command
    })
}

fn of_userspace(which: &str) -> Result<Command> {
    let mut bench = bench()?;
    bench.args(["--package=qbox-userspace", "--bench", which]);
    Ok(bench)
}

/// Against the release binary, which is built first.
fn of_the_binary(which: &str) -> Result<Command> {
    build::release_without_ebpf()?;
    let mut bench = of_userspace(which)?;
    bench.env(build::BINARY_VARIABLE, build::binary("qbox"));
    Ok(bench)
}

/// What it finds it leaves in a file, which goes into the page.
fn matching(quick: bool) -> Result<()> {
    let found = target_folder().join("bench-matching.json");
    call(of_userspace("matching")?.env("QBOX_BENCH_FOUND", &found))?;
    call(own("qbox-bench", quick)?("take").arg("matching").arg(found))
}
