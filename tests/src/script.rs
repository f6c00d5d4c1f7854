//! A Python script in a pod that a test talks with while it runs: it says lines, and ends when its standard input does.

use crate::pod::Pod;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// The running script.
#[derive(Debug)]
pub struct Script {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    /// Starts one. It lives as long as any command in a pod may.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(pod: &Pod, script: &str) -> Result<Self> {
        let mut child = pod
            .command("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Self {
            input: child.stdin.take(),
            child,
            lines,
        })
    }

    /// The next line that it says; waits for it.
    ///
    /// # Errors
    /// It has ended.
    pub fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the script ended")??)
    }

    /// Has it end, and gives what it said until then, from the last line that was read on.
    ///
    /// # Errors
    /// It says what is no text.
    pub fn end(mut self) -> Result<Vec<String>> {
        drop(self.input.take());
        let said = self.lines.by_ref().collect::<Result<_, _>>()?;
        self.child.wait()?;
        Ok(said)
    }
}
