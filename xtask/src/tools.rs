//! Programs of the system that runs and tests ask for: found, or installed after saying so.

use crate::ui::call;
use anyhow::{Result, bail};
use std::env;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// A program, the Debian package that has it, and why it is wanted.
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    pub(crate) why: &'static str,
}

/// What pods are made with and spoken to.
pub(crate) const PODS: [Tool; 3] = [
    Tool {
        program: "ip",
        package: "iproute2",
        why: "connects the pods",
    },
    Tool {
        program: "unshare",
        package: "util-linux",
        why: "makes the pods' namespaces",
    },
    Tool {
        program: "curl",
        package: "curl",
        why: "is the program in the pod",
    },
];

/// What the end-to-end suites use besides.
pub(crate) const SUITES: [Tool; 11] = [
    Tool {
        program: "python3",
        package: "python3-venv",
        why: "is a client in a pod",
    },
    Tool {
        program: "node",
        package: "nodejs",
        why: "is a client in a pod",
    },
    Tool {
        program: "npm",
        package: "npm",
        why: "installs Node's HTTP clients, and what drives the browser",
    },
    Tool {
        program: "chromium",
        package: "chromium",
        why: "is the browser that looks at the page",
    },
    Tool {
        program: "javac",
        package: "default-jdk-headless",
        why: "is a client in a pod",
    },
    Tool {
        program: "promtool",
        package: "prometheus",
        why: "reads the metrics and tries the alerts",
    },
    Tool {
        program: "bpftool",
        package: "bpftool",
        why: "shows which programs are attached where",
    },
    Tool {
        program: "nft",
        package: "nftables",
        why: "shows that no firewall rule changes",
    },
    Tool {
        program: "iptables-save",
        package: "iptables",
        why: "shows that no firewall rule changes",
    },
    Tool {
        program: "strace",
        package: "strace",
        why: "counts system calls",
    },
    Tool {
        program: "valgrind",
        package: "valgrind",
        why: "counts instructions",
    },
];

/// What `cargo xtask bench passthrough` compares Qbox with, and the load.
pub(crate) const PROXIES: [Tool; 4] = [
    Tool {
        program: "wrk",
        package: "wrk",
        why: "is the load",
    },
    Tool {
        program: "nginx",
        package: "nginx-light",
        why: "is the backend, and compared",
    },
    Tool {
        program: "haproxy",
        package: "haproxy",
        why: "is compared",
    },
    Tool {
        program: "strace",
        package: "strace",
        why: "counts system calls",
    },
];

/// Whether this process may do all.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Installs what is missing, after saying so.
pub(crate) fn ensure<'a>(tools: impl IntoIterator<Item = &'a Tool>) -> Result<()> {
    let missing: Vec<_> = tools.into_iter().filter(|tool| !is_there(tool.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        eprintln!("    `{}` is missing; it {}", tool.program, tool.why);
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    let words = packages.join(" ");
    if !is_there("apt-get") {
        bail!("install these programs first (Debian's packages are {words})");
    }
    if !is_root() {
        bail!("as root: apt-get install --no-install-recommends {words}");
    }
    eprintln!("    installing Debian's {words}");
    let install = || {
        let install = ["install", "--yes", "--no-install-recommends"];
        call(apt().args(install).args(&packages))
    };
    // The package lists may be missing or old.
    install().or_else(|_| {
        call(apt().arg("update"))?;
        install()
    })
}

/// apt-get, which asks nothing and waits for another one that is at work.
pub(crate) fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["--quiet", "--option", "DPkg::Lock::Timeout=120"]);
    command
}

/// Whether a program is installed.
pub(crate) fn is_there(program: &str) -> bool {
    // Not every root's PATH has the system's folders.
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    env::split_paths(&path)
        .chain(system)
        .any(|folder| folder.join(program).is_file())
}
