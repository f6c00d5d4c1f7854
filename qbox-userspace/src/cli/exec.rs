//! `qbox exec`: a command whose connections Qbox sees.
//!
//! With a pod's name the process enters the pod and becomes the command. Without one it makes a cgroup below the enrolled
//! one, and takes it away when the command has ended: a pod without Kubernetes.

use super::client::Client;
use crate::app;
use anyhow::{Context, Result, bail};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, unlinkat};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Deserialize;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// How long a new pod may take to be captured: if the kernel's word of it was lost, it is looked for within a second.
const PATIENCE: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Of `/api/v1/status`.
#[derive(Debug, Deserialize)]
struct Status {
    pid: u32,
    capture: Capture,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
enum Capture {
    Ebpf { cgroup: PathBuf },
    Explicit { listen: String },
}

/// Of `/api/v1/pods`.
#[derive(Debug, Deserialize)]
struct Pods {
    pods: Vec<Pod>,
}

#[derive(Debug, Deserialize)]
struct Pod {
    name: String,
    cgroup: PathBuf,
    pid: Option<u32>,
    netns: u64,
}

/// Runs `command` and gives its exit code (128 and the signal's number, if a signal ended it, as a shell does).
pub(super) fn exec(pod: Option<&str>, client: &Client, command: &[OsString]) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command was given")?;
    let mut command = Command::new(program);
    command.args(arguments);
    // One thread: setns(2) refuses a process that shares its root and working folder with another thread.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match pod {
        Some(name) => {
            let pods: Pods = runtime.block_on(client.get("/api/v1/pods"))?;
            let mut pod = find(name, pods.pods)?;
            let status: Status = runtime.block_on(client.get("/api/v1/status"))?;
            drop(runtime);
            pod.cgroup = reach(pod.cgroup, status.pid);
            enter(&pod)?;
            let error = command.exec();
            Err(error).with_context(|| format!("can't run {}", program.display()))
        }
        None => {
            let status: Status = runtime.block_on(client.get("/api/v1/status"))?;
            let enrolled = match status.capture {
                Capture::Ebpf { cgroup } => cgroup,
                Capture::Explicit { listen } => bail!(
                    "this Qbox captures nothing, it runs in explicit mode: send to http://{listen} with the \
                     service's name in Host (curl -H 'Host: SERVICE:PORT' http://{listen}/…)"
                ),
            };
            let cgroup = Joined::new(&reach(enrolled, status.pid))?;
            runtime.block_on(captured(client))?;
            let status = runtime
                .block_on(run(command))
                .with_context(|| format!("can't run {}", program.display()))?;
            drop(cgroup);
            Ok(code(status))
        }
    }
}

fn find(name: &str, pods: Vec<Pod>) -> Result<Pod> {
    let names: Vec<_> = pods.iter().map(|pod| pod.name.clone()).collect();
    pods.into_iter().find(|pod| pod.name == name).with_context(|| {
        if names.is_empty() {
            format!("there is no pod `{name}`: Qbox has captured none yet")
        } else {
            format!("there is no pod `{name}`; there are: {}", names.join(", "))
        }
    })
}

/// Moves this process into the pod: first its cgroup, whose file the pod's mounts may not show, its mounts last.
fn enter(pod: &Pod) -> Result<()> {
    let name = &pod.name;
    let pid = pod
        .pid
        .with_context(|| format!("no process runs in `{name}` any more"))?;
    let open = |pid: u32, kind: &str| {
        File::open(format!("/proc/{pid}/ns/{kind}")).with_context(|| {
            format!("can't look at `{name}`'s process {pid} (it has ended, or this is not root)")
        })
    };
    let inside = |pid: u32| {
        let (net, mounts) = (open(pid, "net")?, open(pid, "mnt")?);
        if net.metadata()?.ino() != pod.netns {
            bail!("process {pid} of `{name}` has ended and its number is another's now: try again");
        }
        Ok((net, mounts))
    };
    // The one that was seen last may have been a short one; another of the pod will do.
    let (net, mounts) = inside(pid).or_else(|error| {
        let others = fs::read_to_string(pod.cgroup.join("cgroup.procs")).unwrap_or_default();
        let mut others = others.lines().filter_map(|line| line.parse().ok());
        others.find_map(|other| inside(other).ok()).ok_or(error)
    })?;
    let folder = std::env::current_dir();
    join(&pod.cgroup)?;
    let into = |file: &File, kind, what: &str| {
        move_into_link_name_space(file.as_fd(), Some(kind))
            .with_context(|| format!("can't enter `{name}`'s {what}"))
    };
    into(&net, LinkNameSpaceType::Network, "network namespace")?;
    into(&mounts, LinkNameSpaceType::Mount, "mounts")?;
    // Entering leads to the root of the pod's file system; the folder may exist there too.
    if let Ok(folder) = folder {
        drop(std::env::set_current_dir(folder));
    }
    Ok(())
}

/// The cgroup's folder as it can be reached from here. `ip netns exec` mounts a /sys of its own, without cgroupfs: then
/// the way leads through the mounts of the Qbox process.
fn reach(cgroup: PathBuf, qbox: u32) -> PathBuf {
    if cgroup.is_dir() {
        return cgroup;
    }
    let through = PathBuf::from(format!("/proc/{qbox}/root{}", cgroup.display()));
    // Where neither leads there, the message names the folder as the configuration does.
    if through.is_dir() { through } else { cgroup }
}

/// Writes this process into a cgroup.
fn join(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0").with_context(|| {
        format!(
            "can't join {} (cgroup v2, as root, and of this cgroup namespace?)",
            cgroup.display()
        )
    })
}

/// A cgroup of this process's own below the enrolled one; dropped, the process goes back and the cgroup is removed.
///
/// Both ways are held open: they may lead through the Qbox process (see [`reach`]), which can end before the command.
struct Joined {
    enrolled: File,
    name: String,
    home: File,
}

impl Joined {
    fn new(enrolled: &Path) -> Result<Self> {
        let home = home(enrolled)?.join("cgroup.procs");
        let home = File::options()
            .write(true)
            .open(&home)
            .with_context(|| format!("can't open {} (is this root?)", home.display()))?;
        drop(app::sweep(enrolled));
        let name = format!("{}{}", app::EXEC_PREFIX, std::process::id());
        let cgroup = enrolled.join(&name);
        let made = fs::create_dir(&cgroup).and_then(|()| File::open(enrolled));
        let enrolled =
            made.with_context(|| format!("can't make the cgroup {} (is this root?)", cgroup.display()))?;
        let joined = Self { enrolled, name, home };
        join(&cgroup)?;
        Ok(joined)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        // What the command left running in the background keeps the cgroup, and stays captured.
        let _ = self.home.write_all(b"0");
        let _ = unlinkat(&self.enrolled, self.name.as_str(), AtFlags::REMOVEDIR);
    }
}

/// The directory of the cgroup that this process is in now: `0::/path` of /proc/self/cgroup (cgroups(7)), below the mount
/// that `enrolled` is on.
fn home(enrolled: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").context("can't read /proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.context("this process is in no cgroup of version 2")?;
    let device = |folder: &Path| fs::metadata(folder).map(|m| m.dev());
    let on = device(enrolled).with_context(|| format!("can't look at {}", enrolled.display()))?;
    let mount = enrolled
        .ancestors()
        .take_while(|folder| device(folder).is_ok_and(|d| d == on))
        .last();
    Ok(mount.unwrap_or(enrolled).join(path))
}

/// Makes this namespace known by a socket, as any program would, and waits until its connections are turned.
async fn captured(client: &Client) -> Result<()> {
    let own = fs::metadata("/proc/self/ns/net")?.ino();
    let since = Instant::now();
    loop {
        drop(TcpListener::bind(("127.0.0.1", 0)));
        let pods: Pods = client.get("/api/v1/pods").await?;
        if pods.pods.iter().any(|pod| pod.netns == own) {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            bail!("Qbox has not captured this network namespace within {PATIENCE:?}; its log says why");
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Runs the command to its end. A terminal's Ctrl-C reaches it by itself; a signal sent to this process is passed on.
async fn run(command: Command) -> Result<ExitStatus> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut child = tokio::process::Command::from(command).spawn()?;
    loop {
        let passed_on = tokio::select! {
            status = child.wait() => return Ok(status?),
            _ = interrupt.recv() => continue,
            _ = terminate.recv() => rustix::process::Signal::TERM,
            _ = hangup.recv() => rustix::process::Signal::HUP,
        };
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(rustix::process::Pid::from_raw) {
            // It may have ended this moment.
            let _ = rustix::process::kill_process(pid, passed_on);
        }
    }
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|number| 128 + number));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Pod {
        Pod {
            name: name.to_owned(),
            cgroup: PathBuf::new(),
            pid: None,
            netns: 1,
        }
    }

    #[test]
    fn an_unknown_pod_is_answered_with_those_there_are() {
        let error = find("c", vec![pod("a"), pod("b")]).unwrap_err();
        assert_eq!(error.to_string(), "there is no pod `c`; there are: a, b");
        let error = find("c", vec![]).unwrap_err();
        assert!(error.to_string().contains("captured none yet"), "{error}");
    }

    #[test]
    fn a_cgroup_is_taken_where_it_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().to_owned();
        assert_eq!(reach(there.clone(), 1), there);
        let hidden = PathBuf::from("/nonexistent");
        assert_eq!(reach(hidden.clone(), std::process::id()), hidden);
    }

    #[test]
    fn the_end_of_the_command_is_passed_on() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), ExitCode::from(7));
        assert_eq!(code(ExitStatus::from_raw(9)), ExitCode::from(137));
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_an_error() {
        assert!(run(Command::new("/nowhere/no-such-command")).await.is_err());
        let status = run(Command::new("true")).await.unwrap();
        assert!(status.success());
    }
}
