//! A headless Chromium on the node, driven through `browser.mjs`.

use anyhow::{Context, Result, bail, ensure};
use qbox_tests::{DEADLINE, Node, wait_for, workspace};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by a test for as long as it lasts: two browsers that draw without a graphics card take all of a small machine.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    // What a test that failed held is nothing.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running browser. Dropping it ends it.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Where pictures of what was seen are left for a look: `target/page`.
fn pictures() -> PathBuf {
    tools()
        .parent()
        .map(PathBuf::from)
        .unwrap_or_default()
        .join("page")
}

fn tools() -> PathBuf {
    match env::var_os("QBOX_TEST_TOOLS") {
        Some(folder) => folder.into(),
        None => workspace().join("target/test-tools"),
    }
}

/// Waits until the addresses of the node's new interfaces are there to stay: each change makes a browser drop what it loads.
fn settled(node: &Node) -> Result<()> {
    /// `IFA_F_TENTATIVE` of `linux/if_addr.h`: not yet known to be nobody else's (RFC 4862, 5.4).
    const TENTATIVE: u8 = 0x40;
    wait_for("the node's addresses", DEADLINE, || {
        let addresses = node
            .namespace()
            .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/if_inet6")?))?;
        let tentative = addresses.lines().any(|line| {
            let flags = line.split_ascii_whitespace().nth(4);
            flags.is_none_or(|flags| u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & TENTATIVE != 0))
        });
        Ok((!tentative).then_some(()))
    })
}

impl Browser {
    /// Starts one that reaches what the node's own programs reach.
    pub(crate) fn start(node: &Node) -> Result<Self> {
        let libraries = tools().join("page");
        ensure!(
            libraries.join("node_modules/playwright-core").is_dir(),
            "{} has no playwright-core: `cargo xtask test` installs it",
            libraries.display()
        );
        let pictures = pictures();
        std::fs::create_dir_all(&pictures)?;
        settled(node)?;
        let mut command = node.command("setpriv");
        command.args(["--pdeathsig", "TERM", "--", "node"]);
        command.arg(workspace().join("tests/tests/page/browser.mjs"));
        command.arg(libraries).arg(pictures);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().context("can't start node")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, input, output })
    }

    fn ask(&mut self, words: &Value) -> Result<Value> {
        writeln!(self.input, "{words}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let mut answer: Value =
            serde_json::from_str(&line).with_context(|| format!("the browser ended at {words}"))?;
        if let Some(error) = answer["error"].as_str() {
            let seen = self
                .ask(&json!(["evaluate", "document.body.innerText"]))
                .unwrap_or_default();
            let console = self.ask(&json!(["console"])).unwrap_or_default();
            drop(self.ask(&json!(["shot", "failed"])));
            bail!(
                "{error}\nthe page says:\n{}\nits console: {console}",
                seen.as_str().unwrap_or_default()
            );
        }
        Ok(answer["ok"].take())
    }

    pub(crate) fn open(&mut self, url: &str, (width, height): (u32, u32), scheme: &str) -> Result<()> {
        self.ask(&json!(["open", url, width, height, scheme])).map(drop)
    }

    pub(crate) fn see(&mut self, selector: &str, text: &str) -> Result<()> {
        self.ask(&json!(["see", selector, text])).map(drop)
    }

    pub(crate) fn gone(&mut self, selector: &str) -> Result<()> {
        self.ask(&json!(["gone", selector])).map(drop)
    }

    pub(crate) fn click(&mut self, selector: &str) -> Result<()> {
        self.ask(&json!(["click", selector])).map(drop)
    }

    pub(crate) fn fill(&mut self, selector: &str, text: &str) -> Result<()> {
        self.ask(&json!(["fill", selector, text])).map(drop)
    }

    pub(crate) fn press(&mut self, key: &str) -> Result<()> {
        self.ask(&json!(["press", key])).map(drop)
    }

    pub(crate) fn count(&mut self, selector: &str) -> Result<u64> {
        self.ask(&json!(["count", selector]))?
            .as_u64()
            .context("no count")
    }

    pub(crate) fn evaluate(&mut self, script: &str) -> Result<Value> {
        self.ask(&json!(["evaluate", script]))
    }

    /// A picture for people, and what is true of every view: no barrier, nothing on the console, nothing beside the window.
    pub(crate) fn look(&mut self, name: &str) -> Result<()> {
        self.ask(&json!(["shot", name]))?;
        let barriers = self.ask(&json!(["barriers"]))?;
        ensure!(barriers == json!([]), "{name} has barriers: {barriers:#}");
        let said = self.ask(&json!(["console"]))?;
        ensure!(said == json!([]), "{name}: the browser complains: {said:#}");
        let wide = self.evaluate("document.documentElement.scrollWidth <= innerWidth")?;
        ensure!(wide == json!(true), "{name} is wider than its window");
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It takes its browser with it.
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // Gone already is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
        drop(self.child.wait());
    }
}
