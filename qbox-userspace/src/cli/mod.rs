//! The command line: what each command takes, and what the process ends with.
//!
//! Exit codes: 0 done, 1 a finding or a failure, 2 wrong use (clap's own). `qbox exec` ends as the command that it ran.
//! What is for a person goes to standard error; what was asked for, to standard output.

mod act;
mod check;
mod client;
mod colour;
mod completions;
mod exec;
mod import;
mod observed;
mod plan;
mod probe;
mod show;
mod tail;
mod time;
mod timeline;
mod which;

use crate::{app, config, saga};
use clap::{Args, Parser, Subcommand};
use client::Client;
use serde_json::Value;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use which::Which;

/// Sagas for services that know nothing of them: a plain HTTP request becomes all or nothing.
#[derive(Debug, Parser)]
#[command(name = "qbox", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Run),
    Check(Check),
    Plan(plan::Plan),
    Import(import::Import),
    /// Print the JSON Schema of a saga file, for editors.
    Schema,
    Exec(Exec),
    /// Look at the sagas of the running Qbox.
    #[command(subcommand)]
    Sagas(Box<Sagas>),
    Status(Status),
    Clean(Clean),
    Reload(Reload),
    Log(Log),
    /// Print the completions of a shell: `source <(qbox completions bash)`.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command.
    Man {
        /// Into this folder.
        folder: PathBuf,
    },
}

/// Run Qbox on this node, until SIGTERM or Ctrl-C.
#[derive(Debug, Args)]
struct Run {
    /// The configuration; the folder of its sagas is read with it.
    #[arg(long, value_name = "FILE", default_value = "config/qbox.toml")]
    config: PathBuf,
    /// Listen on a plain port ([explicit] in the configuration) instead of capturing with eBPF. Needs no root.
    #[arg(long)]
    explicit: bool,
    /// Take the place of the Qbox that runs on this node with the same configuration, if one does: an upgrade without a gap.
    #[arg(long, conflicts_with = "explicit")]
    takeover: bool,
    /// As --takeover; and when another has taken this one's place, stand by: take it again once that one is told to stop, or ends.
    #[arg(long, conflicts_with = "explicit")]
    standby: bool,
}

#[derive(Debug, Subcommand)]
enum Sagas {
    /// Sagas, youngest first: those in flight, and those that have ended as long as the journal keeps them.
    List {
        #[command(flatten)]
        which: Which,
        /// Instead, triggers of sagas with `mode = "observe"`, youngest first: what they were answered, and where their sagas would
        /// have ended. Of the filters, --name alone.
        #[arg(long)]
        observed: bool,
        /// By `arrived`, `ended` or `name`; with `-` before it, the last first.
        #[arg(
            long,
            value_name = "KEY",
            default_value = "-arrived",
            allow_hyphen_values = true
        )]
        sort: String,
        /// How many at most.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Go on behind a page: the `next` that it ended with.
        #[arg(long, value_name = "NEXT")]
        cursor: Option<String>,
        #[command(flatten)]
        asking: Asking,
    },
    /// The newest events of all sagas, one a line (with --json one JSON object a line).
    Tail {
        #[command(flatten)]
        which: Which,
        /// Go on with what happens from now on, until Ctrl-C or Qbox's end.
        #[arg(long, short)]
        follow: bool,
        /// How many of the newest to begin with: at most 1000, of this run of Qbox.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        asking: Asking,
    },
    /// Try what is stuck, or waits for another attempt of its compensation, again at once.
    Retry(act::Decision),
    /// One step was settled by hand: its compensation counts as done.
    Skip(act::Decision),
    /// The whole saga was settled by hand, in the direction it was going: compensated, or committed behind its pivot.
    Resolve(act::Decision),
    /// Abort a saga that goes forward: what may have happened is undone.
    Compensate(act::Decision),
    /// Start nothing new of the saga until it is resumed.
    Pause(act::Decision),
    /// Go on with a paused saga.
    Resume(act::Decision),
    /// One saga, with all that happened to it: where its time went, and each attempt with its answer. Or a trigger that was only
    /// observed: what its saga would have sent, and what it was answered.
    Show {
        /// Its id, as X-Qbox-TransactionID of its reply has it, or a list.
        id: saga::SagaId,
        #[command(flatten)]
        asking: Asking,
    },
}

/// Say how the running Qbox is.
#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    asking: Asking,
    /// Say instead what capturing needs of this machine and whether it is there; ends with 1 if something is missing.
    /// Needs no running Qbox, but root, since the kernel answers nobody else.
    #[arg(long)]
    probe: bool,
    /// Say of every pod whether it is captured, and why. Without this the first few are told of.
    #[arg(long, conflicts_with = "probe")]
    pods: bool,
}

/// Take away what runs of Qbox have left on this node, and say what: pinned programs, cgroups of `qbox exec`, its socket.
///
/// Nothing of a running Qbox is touched, and the journal (`state_dir`) stays. Twice in a row does no harm.
#[derive(Debug, Args)]
struct Clean {
    /// The configuration that Qbox ran with.
    #[arg(long, value_name = "FILE", default_value = "config/qbox.toml")]
    config: PathBuf,
    /// The pinned programs of every cgroup, whatever the configuration names.
    #[arg(long)]
    all: bool,
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// Have the running Qbox read its files again now, as SIGHUP does, and say what is loaded then.
///
/// It also does so by itself, soon after a file has changed. Ends with 1 if the files can't be used; what was loaded before is
/// in force then.
#[derive(Debug, Args)]
struct Reload {
    #[command(flatten)]
    asking: Asking,
}

/// Say which log filter holds, or have another one hold: until the next, a change of `log.level` in the configuration, or a restart.
#[derive(Debug, Args)]
struct Log {
    /// `debug`, or a list as `qbox=debug,info`.
    filter: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// What every question takes.
#[derive(Debug, Args)]
struct Asking {
    #[command(flatten)]
    running: Running,
    /// Print the API's JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Check configuration and saga files without running anything.
///
/// A folder with a qbox.toml is checked as `qbox run` would load it: that file and the folder of sagas that it names.
/// Of any other folder every *.toml right in it is checked. Ends 0 if all are fit to run (there may be warnings), 1 if not.
#[derive(Debug, Args)]
struct Check {
    /// Files and folders [default: config]
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
    /// The admin API over TCP instead, as `http://HOST:PORT` (`admin.listen`).
    #[arg(long, value_name = "URL", env = "QBOX_ADMIN")]
    admin: Option<String>,
    /// A file with the token that the API asks for over TCP (`admin.token_file`).
    #[arg(long, value_name = "FILE", env = "QBOX_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl Running {
    fn client(&self) -> anyhow::Result<Client> {
        match &self.admin {
            Some(url) => Client::tcp(url, self.token_file.as_deref()),
            None => Ok(Client::unix(&self.socket)),
        }
    }
}

/// Reads the process's arguments, does what they say, and gives what the process is to end with.
#[must_use]
pub fn main() -> ExitCode {
    colour::look();
    let done = match Cli::parse().command {
        Command::Run(Run {
            config,
            explicit,
            takeover,
            standby,
        }) => app::run(&app::Options {
            config,
            explicit,
            takeover,
            standby,
        })
        .map(|()| ExitCode::SUCCESS),
        Command::Clean(Clean { config, all, json }) => app::clean(&config, all).map(|gone| {
            print(&match (json, gone.is_empty()) {
                (true, _) => format!("{:#}\n", serde_json::json!({ "removed": gone })),
                (false, true) => "nothing to remove\n".to_owned(),
                (false, false) => gone.iter().map(|what| format!("removed {what}\n")).collect(),
            });
            ExitCode::SUCCESS
        }),
        Command::Check(check) => Ok(check::check(&check.paths, check.json)),
        Command::Completions { shell } => Ok(completions::completions(shell)),
        Command::Man { folder } => completions::man(&folder),
        Command::Plan(args) => plan::plan(&args),
        Command::Schema => {
            print(&format!("{:#}\n", config::saga_schema()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Import(args) => import::import(&args),
        Command::Exec(exec) => exec
            .running
            .client()
            .and_then(|client| exec::exec(exec.pod.as_deref(), &client, &exec.command)),
        Command::Sagas(about) => sagas(*about),
        Command::Status(Status {
            asking, probe: true, ..
        }) => Ok(probe::run(asking.json)),
        Command::Reload(Reload { asking }) => reload(&asking),
        Command::Log(Log { filter: None, asking }) => ask(&asking, "/api/v1/log", show::log),
        Command::Log(Log {
            filter: Some(filter),
            asking,
        }) => log(&filter, &asking),
        Command::Status(Status { asking, pods, .. }) => status(&asking, pods),
    };
    done.unwrap_or_else(|error| {
        // Nobody is left to be told that standard error is closed.
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

fn sagas(about: Sagas) -> anyhow::Result<ExitCode> {
    match about {
        Sagas::List {
            which,
            observed,
            sort,
            limit,
            cursor,
            asking,
        } => {
            if observed {
                // One that is not the default is refused, as all that the API doesn't know.
                let sort = Some(&sort).filter(|sort| *sort != "-arrived");
                let place = which::pairs(&[("sort", sort), ("cursor", cursor.as_ref())]);
                let path = format!("/api/v1/observed?limit={limit}{place}{}", which.query());
                return ask(&asking, &path, observed::page);
            }
            let place = which::pairs(&[("sort", Some(&sort)), ("cursor", cursor.as_ref())]);
            let path = format!("/api/v1/sagas?limit={limit}{place}{}", which.query());
            ask(&asking, &path, show::sagas)
        }
        Sagas::Tail {
            which,
            follow,
            limit,
            asking,
        } => {
            let follow_too = if follow { "&follow=1" } else { "" };
            let path = format!("/api/v1/events?limit={limit}{follow_too}{}", which.query());
            tail::tail(&asking, &path, follow)
        }
        Sagas::Show { id, asking } => observed::show(&asking, id),
        Sagas::Retry(decision) => act::act("retry", &decision),
        Sagas::Skip(decision) => act::act("skip", &decision),
        Sagas::Resolve(decision) => act::act("resolve", &decision),
        Sagas::Compensate(decision) => act::act("compensate", &decision),
        Sagas::Pause(decision) => act::act("pause", &decision),
        Sagas::Resume(decision) => act::act("resume", &decision),
    }
}

/// Asks the running Qbox and prints what it says.
fn ask(asking: &Asking, path: &str, draw: fn(&Value) -> String) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = asking.running.client()?;
    let answer: Value = runtime.block_on(client.get(path))?;
    print(&if asking.json {
        format!("{answer:#}\n")
    } else {
        draw(&answer)
    });
    Ok(ExitCode::SUCCESS)
}

/// How many pods `qbox status` tells of, unless it is asked for all.
const FEW_PODS: usize = 20;

/// How the running Qbox is, and of its pods which are captured; as JSON, either of these.
fn status(asking: &Asking, all_pods: bool) -> anyhow::Result<ExitCode> {
    if asking.json {
        let path = if all_pods {
            "/api/v1/pods"
        } else {
            "/api/v1/status"
        };
        return ask(asking, path, show::status);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = asking.running.client()?;
    let answer: Value = runtime.block_on(client.get("/api/v1/status"))?;
    let mut shown = show::status(&answer);
    let pods: Value = runtime.block_on(client.get("/api/v1/pods"))?;
    let most = if all_pods { usize::MAX } else { FEW_PODS };
    shown.push_str(&show::pods(&pods, most));
    print(&shown);
    Ok(ExitCode::SUCCESS)
}

/// Has the files read again.
fn reload(asking: &Asking) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = asking.running.client()?;
    let answer = runtime.block_on(client.post("/api/v1/reload", &Value::Object(serde_json::Map::new())))?;
    if !answer.status.is_success() {
        anyhow::bail!("{}", client.refusal(&answer));
    }
    let loaded = answer.json()?;
    print(&match asking.json {
        true => format!("{loaded:#}\n"),
        false => show::definitions(&loaded),
    });
    Ok(ExitCode::SUCCESS)
}

/// Has another log filter hold.
fn log(filter: &str, asking: &Asking) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = asking.running.client()?;
    let wish = serde_json::json!({ "filter": filter });
    let answer = runtime.block_on(client.put("/api/v1/log", &wish))?;
    if !answer.status.is_success() {
        anyhow::bail!("{}", client.refusal(&answer));
    }
    let holds = answer.json()?;
    print(&match asking.json {
        true => format!("{holds:#}\n"),
        false => show::log(&holds),
    });
    Ok(ExitCode::SUCCESS)
}

/// Prints what was asked for.
fn print(text: &str) {
    let mut out = std::io::stdout();
    // A reader that has gone (`| head`) has seen enough.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    /// But for what prints JSON, a script or pages anyway, or is another program's to print.
    #[test]
    fn whatever_is_for_people_can_be_had_as_json() {
        fn look(command: &clap::Command, missing: &mut Vec<String>) {
            command.get_subcommands().for_each(|inner| look(inner, missing));
            let json = command
                .get_arguments()
                .any(|argument| argument.get_id() == "json");
            if !command.has_subcommands() && !json {
                missing.push(command.get_name().to_owned());
            }
        }
        let mut missing = Vec::new();
        look(&Cli::command(), &mut missing);
        assert_eq!(missing, ["run", "schema", "exec", "completions", "man"]);
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
