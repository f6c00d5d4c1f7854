//! What a person sees while tasks run: a heading for each step, the command's own progress, the time it took.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs one step under a heading and says how long it took.
pub(crate) fn step<T>(heading: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {heading}");
    let start = Instant::now();
    let result = work();
    let seconds = start.elapsed().as_secs_f32();
    match &result {
        Ok(_) => eprintln!("    done in {seconds:.1} s"),
        Err(_) => eprintln!("    failed after {seconds:.1} s"),
    }
    result
}

/// Runs a command with its output on the terminal; an exit code other than 0 is an error.
pub(crate) fn call(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let status = command
        .status()
        .with_context(|| format!("can't start `{name}`"))?;
    if !status.success() {
        bail!("`{name} {}` ended with {status}", words.join(" "));
    }
    Ok(())
}

/// Runs a command and returns what it prints; its errors go to the terminal. An exit code other than 0 is an error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let words = format!("{command:?}");
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("can't start {words}"))?;
    if !output.status.success() {
        bail!("{words} ended with {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{words} prints no UTF-8"))
}

/// The cargo that called us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
