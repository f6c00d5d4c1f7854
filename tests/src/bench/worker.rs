//! A program that is told line by line what to do, and answers each by a line. Errors: it has ended.

use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// One that runs.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// The command can't be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Self {
            input: child.stdin.take().context("no input")?,
            output: BufReader::new(child.stdout.take().context("no output")?),
            child,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its next line.
    ///
    /// # Errors
    /// See the module.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "a worker ended");
        Ok(line.trim().to_owned())
    }

    /// Tells it something, and waits for its answer.
    ///
    /// # Errors
    /// See the module.
    pub fn ask(&mut self, what: &str) -> Result<String> {
        writeln!(self.input, "{what}")?;
        self.line()
    }

    /// Ends its input, and waits for its end.
    ///
    /// # Errors
    /// As wait(2).
    pub fn end(self) -> Result<()> {
        let Self { mut child, input, .. } = self;
        drop(input);
        child.wait()?;
        Ok(())
    }
}
