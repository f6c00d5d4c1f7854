//! A pod: a network namespace on the node's bridge, a mount namespace with a hosts file, and a cgroup.

use crate::cgroup::Cgroup;
use crate::netns::Namespace;
use crate::pause::Pause;
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

/// One pod.
#[derive(Debug)]
pub struct Pod {
    name: String,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    namespace: Namespace,
    pause: Pause,
    // Last, so that it is removed once the processes are gone.
    cgroup: Cgroup,
}

/// What a command in a pod left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: String,
}

impl Finished {
    /// The output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The output, if the command ended well.
    ///
    /// # Errors
    /// It didn't.
    pub fn ok(self) -> Result<String> {
        anyhow::ensure!(
            self.status.success(),
            "the command in the pod ended with {}: {}{}",
            self.status,
            self.stderr,
            self.text()
        );
        Ok(self.text())
    }
}

/// How long a command in a pod may take, unless it says so itself.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);

impl Pod {
    pub(crate) fn new(
        name: &str,
        address: (Ipv4Addr, Ipv6Addr),
        pause: Pause,
        cgroup: Cgroup,
    ) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            ipv4: address.0,
            ipv6: address.1,
            namespace: Namespace::of_process(pause.id())?,
            pause,
            cgroup,
        })
    }

    /// Its name, which is its cgroup's too.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn ipv4(&self) -> IpAddr {
        self.ipv4.into()
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> IpAddr {
        self.ipv6.into()
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its addresses.
    pub(crate) fn addresses(&self) -> (Ipv4Addr, Ipv6Addr) {
        (self.ipv4, self.ipv6)
    }

    /// A process in it.
    pub(crate) fn process(&self) -> u32 {
        self.pause.id()
    }

    /// The folder of its cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &std::path::Path {
        self.cgroup.path()
    }

    /// Listens inside, on all its addresses of both families.
    ///
    /// # Errors
    /// The port is taken.
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        self.namespace.run(|| {
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
                .with_context(|| format!("can't listen on port {port} in the pod {}", self.name))
        })
    }

    /// A command that runs inside: in the pod's cgroup and both its namespaces, and not for ever.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_for(COMMAND_LIMIT, program)
    }

    /// The same, for as long as `limit` (in whole seconds).
    #[must_use]
    pub fn command_for(&self, limit: Duration, program: impl AsRef<OsStr>) -> Command {
        let id = self.pause.id();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{id}/ns/net"))
            .arg(format!("--mount=/proc/{id}/ns/mnt"))
            .args([
                "--",
                "sh",
                "-c",
                r#"echo $$ > "$0/cgroup.procs" && exec timeout "$@""#,
            ])
            .arg(self.cgroup.path())
            .arg(limit.as_secs().to_string())
            .arg(program)
            .process_group(0);
        command
    }

    /// Runs a command inside to its end.
    ///
    /// # Errors
    /// It can't be started.
    pub fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Finished> {
        self.run_with_input(words, b"")
    }

    /// Runs a command inside to its end, with `input` as its standard input.
    ///
    /// # Errors
    /// It can't be started.
    pub fn run_with_input<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Result<Finished> {
        let mut words = words.into_iter();
        let program = words.next().context("no command was given")?;
        let mut child = self
            .command(program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("can't start `nsenter` (Debian's util-linux has it)")?;
        let pipe = child.stdin.take();
        let output = thread::scope(|scope| {
            scope.spawn(move || {
                // A command that doesn't read to the end is no error here: its own ending tells.
                pipe.map(|mut pipe| pipe.write_all(input))
            });
            child.wait_with_output()
        })?;
        Ok(Finished {
            status: output.status,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// curl, quiet but for errors.
    ///
    /// # Errors
    /// It can't be started.
    pub fn curl<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Finished> {
        let fixed = ["curl", "--silent", "--show-error", "--max-time", "80"];
        let words: Vec<_> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self.run(fixed.iter().map(|word| OsStr::new(word).to_owned()).chain(words))
    }

    /// One request with curl: the answer's status and body.
    ///
    /// # Errors
    /// curl failed.
    pub fn http<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<(u16, String)> {
        let words: Vec<_> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let written = ["--write-out", "\n%{http_code}"].map(|word| OsStr::new(word).to_owned());
        split_status(&self.curl(words.into_iter().chain(written))?.ok()?)
    }

    /// Runs a Python script inside, to its good end.
    ///
    /// # Errors
    /// It failed: then with what it said.
    pub fn python(&self, script: &str, words: &[&str]) -> Result<String> {
        self.run(["python3", "-c", script].iter().chain(words))?.ok()
    }
}

/// What curl wrote with `--write-out "\n%{http_code}"`.
pub(crate) fn split_status(text: &str) -> Result<(u16, String)> {
    let (body, status) = text.rsplit_once('\n').context("curl says no status")?;
    Ok((status.parse()?, body.to_owned()))
}
