//! The release binary, run as a node runs it.

use crate::admin::Admin;
use crate::node::Node;
use crate::poll::{DEADLINE, wait_for};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{env, thread};

/// What a Qbox is given.
#[derive(Debug, Default, Clone)]
pub struct Settings {
    /// The saga files' texts.
    pub sagas: Vec<String>,
    /// More lines of `[capture]`.
    pub capture: &'static str,
    /// More lines of `[upstream]`.
    pub upstream: &'static str,
    /// More tables of qbox.toml.
    pub extra: String,
    /// `log.level`, unless `QBOX_TEST_LOG` says another: else `info`.
    pub level: Option<&'static str>,
    /// `upstream.linger`; else one second.
    pub linger: Option<&'static str>,
    /// `state_dir`; else a folder beside its other files.
    pub state: Option<PathBuf>,
}

impl Settings {
    /// One saga.
    #[must_use]
    pub fn saga(text: impl Into<String>) -> Self {
        Self::sagas([text])
    }

    /// Several sagas.
    #[must_use]
    pub fn sagas<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> Self {
        Self {
            sagas: texts.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    fn write(&self, folder: &Path, capture: &str, hosts: &Path) -> Result<()> {
        fs::create_dir_all(folder.join("sagas"))?;
        for (number, text) in self.sagas.iter().enumerate() {
            fs::write(folder.join(format!("sagas/{number}.toml")), text)?;
        }
        let state = self.state.as_deref().unwrap_or(Path::new("state"));
        let mut text = format!("grace = \"2s\"\nstate_dir = {state:?}\n{capture}{}", self.capture);
        let linger = self.linger.unwrap_or("1s");
        let more = self.upstream;
        write!(text, "[upstream]\nhosts = {hosts:?}\nlinger = {linger:?}\n{more}")?;
        write!(
            text,
            "[admin]\nlisten = \"127.0.0.1:0\"\nsocket = {:?}\n",
            folder.join("admin.sock")
        )?;
        write!(text, "[log]\nlevel = {:?}\n{}", log_level(self.level), self.extra)?;
        fs::write(folder.join("qbox.toml"), text)?;
        Ok(())
    }
}

fn log_level(level: Option<&str>) -> String {
    env::var("QBOX_TEST_LOG").unwrap_or_else(|_| level.unwrap_or("info").to_owned())
}

/// A running Qbox. Dropping it kills it; in a failing test its log is shown.
#[derive(Debug)]
pub struct Qbox {
    child: Child,
    ended: Option<ExitStatus>,
    folder: PathBuf,
    log: PathBuf,
    admin: Admin,
}

impl Qbox {
    /// Starts one that captures the node's pods, and waits until it is ready.
    ///
    /// # Errors
    /// The binary is missing, or it ends or isn't ready in time: then with its log.
    pub fn start(node: &Node, settings: &Settings) -> Result<Self> {
        Self::start_in(node, node.cgroup(), settings)
    }

    /// Starts one that captures the pods of a cgroup.
    ///
    /// # Errors
    /// As [`Qbox::start`].
    pub fn start_in(node: &Node, cgroup: &Path, settings: &Settings) -> Result<Self> {
        Self::launch(node, cgroup, settings)?.when_ready()
    }

    /// Starts one that captures the pods of a cgroup, and waits for nothing.
    ///
    /// # Errors
    /// The binary is missing.
    pub fn launch(node: &Node, cgroup: &Path, settings: &Settings) -> Result<Self> {
        let folder = node.folder().join("qbox");
        let capture = format!("[capture]\nmode = \"ebpf\"\ncgroup = {cgroup:?}\n");
        settings.write(&folder, &capture, &node.hosts())?;
        let command = tied(node.command("setpriv"), &[])?;
        Self::spawn(command, folder, &[])
    }

    /// Starts another with the same files that takes this one's place, and waits until it has.
    ///
    /// # Errors
    /// The binary is missing, or it ends or isn't ready in time: then with its log.
    pub fn take_over(&self, node: &Node) -> Result<Self> {
        let command = tied(node.command("setpriv"), &[])?;
        Self::spawn(command, self.folder.clone(), &["--takeover"])?.when_ready()
    }

    /// Starts another with the same files that takes this one's place, and stands by when another has taken its own; waits until
    /// it has.
    ///
    /// # Errors
    /// As [`Qbox::take_over`].
    pub fn roll_out(&self, node: &Node) -> Result<Self> {
        self.begin_to_roll_out(node)?.when_ready()
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// The binary is missing.
    pub fn begin_to_roll_out(&self, node: &Node) -> Result<Self> {
        let command = tied(node.command("setpriv"), &[])?;
        Self::spawn(command, self.folder.clone(), &["--standby"])
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It doesn't end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        let status = wait_for("Qbox to end", DEADLINE, || Ok(child.try_wait()?))?;
        self.ended = Some(status);
        Ok(status)
    }

    /// Starts one with a plain listening port, without root; by another program, if words for one are given.
    ///
    /// # Errors
    /// The binary is missing, or it ends or isn't ready in time: then with its log.
    pub fn start_explicit(
        folder: &Path,
        hosts: &Path,
        listen: &str,
        settings: &Settings,
        by: &[String],
    ) -> Result<Self> {
        let folder = folder.join("qbox");
        let capture = format!("[capture]\nmode = \"explicit\"\n[explicit]\nlisten = {listen:?}\n");
        settings.write(&folder, &capture, hosts)?;
        let command = tied(Command::new("setpriv"), by)?;
        Self::spawn(command, folder, &[])?.when_ready()
    }

    /// `command` ends in the binary.
    fn spawn(mut command: Command, folder: PathBuf, more: &[&str]) -> Result<Self> {
        let log_path = match more {
            [] => folder.join("log"),
            // Two run with the same files.
            [..] => (0..)
                .map(|number| folder.join(format!("log-{number}")))
                .find(|path| !path.exists())
                .context("no name is left for a log")?,
        };
        let log = File::create(&log_path)?;
        command
            .args(["run", "--config"])
            .arg(folder.join("qbox.toml"))
            .args(more);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C is for the owner, who stops it.
        command.process_group(0);
        let child = command.spawn().context("can't start Qbox")?;
        let admin = Admin::at(&folder.join("admin.sock"));
        Ok(Self {
            child,
            ended: None,
            log: log_path,
            folder,
            admin,
        })
    }

    /// Waits until it is the one that has the place, again or for the first time.
    ///
    /// # Errors
    /// It ends, or isn't in time.
    pub fn wait_for_turn(&mut self) -> Result<()> {
        let turn = wait_for("Qbox to have its place", DEADLINE, || {
            Ok(self.is_ready()?.then_some(()))
        });
        turn.with_context(|| format!("Qbox's log:\n{}", self.log()))
    }

    /// Waits until it is ready.
    fn when_ready(mut self) -> Result<Self> {
        let ready = wait_for("Qbox to be ready", DEADLINE, || {
            Ok(self.is_ready()?.then_some(()))
        });
        match ready {
            Ok(()) => Ok(self),
            Err(error) => Err(error.context(format!("Qbox's log:\n{}", self.log()))),
        }
    }

    /// Whether it is ready now.
    ///
    /// # Errors
    /// It has ended.
    pub fn is_ready(&mut self) -> Result<bool> {
        if let Some(status) = self.child.try_wait()? {
            self.ended = Some(status);
            bail!("Qbox ended at once with {status}");
        }
        // Until it listens nobody answers.
        let answer = self.admin.get("/readyz").ok();
        if answer.is_none_or(|answer| answer.status != 200) {
            return Ok(false);
        }
        // It may be one that is still to hand over.
        let status = self.admin.json("/api/v1/status").ok();
        Ok(status.is_some_and(|status| status["pid"] == self.child.id()))
    }

    /// Waits until the pod is captured.
    ///
    /// # Errors
    /// It isn't in time.
    pub fn wait_for_pod(&self, name: &str) -> Result<()> {
        wait_for(&format!("the pod {name} to be captured"), DEADLINE, || {
            Ok(self.admin.has_pod(name)?.then_some(()))
        })
    }

    /// Its admin API.
    #[must_use]
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Its admin API's Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// The folder of its saga files: `0.toml` and so on, as [`Settings::sagas`] has them.
    #[must_use]
    pub fn sagas(&self) -> PathBuf {
        self.folder.join("sagas")
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("qbox.toml")
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory in RAM now (`VmRSS` of proc_pid_status(5)), in bytes; the peak is counted from now on.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?;
        self.status_bytes("VmRSS:")
    }

    /// The most memory in RAM (`VmHWM`) since [`Qbox::resident_bytes`], in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, key: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let kilobytes = line.and_then(|rest| rest.trim().strip_suffix("kB"));
        let kilobytes: u64 = kilobytes
            .with_context(|| format!("no {key} in /proc"))?
            .trim()
            .parse()?;
        Ok(kilobytes * 1024)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// As kill(2).
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(id.context("no process id")?, signal)?)
    }

    /// Sends a signal and waits for the end. One that has ended by a [`Qbox::signal`] is only waited for.
    ///
    /// # Errors
    /// It doesn't end in time.
    pub fn stop(&mut self, signal: Signal) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            self.signal(signal)?;
        }
        self.wait()
    }

    /// Has it end in good order. One that counts (`cargo xtask profile`) tells then what it counted.
    ///
    /// # Errors
    /// It ends with another status than 0.
    pub fn end(&mut self) -> Result<()> {
        let status = self.stop(Signal::TERM)?;
        ensure!(status.success(), "Qbox ended with {status}:\n{}", self.log());
        Ok(())
    }
}

impl Drop for Qbox {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Both fail only if it is gone already.
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if thread::panicking() || env::var_os("QBOX_TEST_LOG").is_some() {
            eprintln!("--- Qbox's log:\n{}---", self.log());
        }
    }
}

/// Qbox by setpriv(1), and by another program if words for one are given: the kernel kills it when the thread that started it ends.
fn tied(mut setpriv: Command, by: &[String]) -> Result<Command> {
    setpriv.args(["--pdeathsig", "KILL", "--"]);
    setpriv.args(by).arg(binary()?);
    Ok(setpriv)
}

/// The workspace's folder.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The `qbox` to test: `$QBOX_BIN`, or the release build beside this program's own.
///
/// # Errors
/// It isn't built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("QBOX_BIN") {
        return Ok(path.into());
    }
    let own = env::current_exe().context("this program has no path")?;
    // target/release/qbox-demo, or target/PROFILE/deps/SUITE.
    let beside = own.ancestors().skip(1).take(3);
    let found = beside
        .flat_map(|folder| [folder.join("qbox"), folder.join("release/qbox")])
        .find(|path| path.is_file() && path.parent().is_some_and(|folder| folder.ends_with("release")));
    found.context(
        "target/release/qbox isn't built: `cargo xtask build` does, `cargo xtask test` and `run` too",
    )
}
