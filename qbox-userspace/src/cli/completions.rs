//! `qbox completions` and `qbox man`: made from the command line's own definition, so that they say what it takes.

use super::{Cli, print};
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;
use std::process::ExitCode;

/// Prints what `shell` completes `qbox` from.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "qbox", &mut out);
    print(&String::from_utf8_lossy(&out));
    ExitCode::SUCCESS
}

/// Writes a page for each command into the folder.
///
/// # Errors
/// It can't be made, or can't be written to.
pub(super) fn man(folder: &Path) -> anyhow::Result<ExitCode> {
    let shown = folder.display();
    std::fs::create_dir_all(folder).with_context(|| format!("can't make {shown}"))?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(|| format!("can't write to {shown}"))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_completed_and_has_a_page() {
        let mut shell = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Cli::command(), "qbox", &mut shell);
        let shell = String::from_utf8(shell).unwrap();
        let folder = tempfile::tempdir().unwrap();
        man(folder.path()).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(shell.contains(&format!("qbox,{name})")), "{name}");
            let page = std::fs::read_to_string(folder.path().join(format!("qbox-{name}.1"))).unwrap();
            assert!(page.contains(name), "{name}");
        }
        assert!(folder.path().join("qbox.1").exists() && folder.path().join("qbox-sagas-list.1").exists());
    }
}
