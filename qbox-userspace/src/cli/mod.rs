//! The command line: what each command takes, and what the process ends with.
//!
//! Exit codes: 0 done, 1 a finding or a failure, 2 wrong use (clap's own). `qbox exec` ends as the command that it ran.
//! What is for a person goes to standard error; what was asked for, to standard output.

mod check;
mod client;
mod exec;

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Sagas for services that know nothing of them: a plain HTTP request becomes all or nothing.
#[derive(Debug, Parser)]
#[command(name = "qbox", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
    Exec(Exec),
}

/// Check configuration and saga files without running anything.
///
/// Ends 0 if all are fit to run (there may be warnings), 1 if not.
#[derive(Debug, Args)]
struct Check {
    /// Files, and folders with all the *.toml in them [default: config]
    paths: Vec<PathBuf>,
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// Run a command whose connections Qbox sees: in an enrolled cgroup of its own, or in a pod that is captured already.
///
/// Without --pod the command stays in this shell's network namespace. It ends as the command does.
#[derive(Debug, Args)]
struct Exec {
    /// Enter this pod (its name in `/api/v1/pods`): its cgroup, its network and its mounts.
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    #[command(flatten)]
    running: Running,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Which running Qbox a command speaks to.
#[derive(Debug, Args)]
struct Running {
    /// The running Qbox's admin socket (`admin.socket` of its qbox.toml).
    #[arg(
        long,
        value_name = "PATH",
        env = "QBOX_ADMIN_SOCKET",
        default_value = "/run/qbox/admin.sock"
    )]
    socket: PathBuf,
}

/// Reads the process's arguments, does what they say, and gives what the process is to end with.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Check(check) => Ok(check::check(&check.paths, check.json)),
        Command::Exec(exec) => exec::exec(exec.pod.as_deref(), &exec.running.socket, &exec.command),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_command_is_the_commands() {
        let cli = Cli::try_parse_from(["qbox", "exec", "--pod", "a", "--", "curl", "--pod", "b"]).unwrap();
        let Command::Exec(exec) = cli.command else {
            panic!("exec was parsed as something else")
        };
        assert_eq!(exec.pod.as_deref(), Some("a"));
        assert_eq!(exec.command, ["curl", "--pod", "b"]);
    }
}
