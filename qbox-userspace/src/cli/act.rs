//! `qbox sagas retry`, `skip`, `resolve`, `compensate`, `pause`, `resume`: an operator's decision, for one saga or for all that
//! match.
//!
//! Ends 0 when all of it is done, 1 when a saga could not be acted on (or Qbox not be asked), 2 for wrong use.

use super::client::{Answer, Client};
use super::show::{list, number, plain, table, text};
use super::which::Which;
use super::{Asking, Cli};
use crate::saga::SagaId;
use anyhow::{Context, Result, bail};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::env;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

/// What every decision takes.
#[derive(Debug, Args)]
pub(super) struct Decision {
    /// The saga's id.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<SagaId>,
    /// All that have not ended and that the filters hold for; asks first. `retry`, `skip` and `resolve` are for the stuck, unless
    /// --state says more; the --step of `retry` and `skip` chooses the sagas and is the step that is meant.
    #[arg(long)]
    all: bool,
    /// Why, for those who read the saga's history: one line.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who decides [default: $SUDO_USER, or else $USER].
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Don't ask.
    #[arg(long, conflicts_with = "id")]
    yes: bool,
    /// Only say which sagas it would be, and whether it could be done.
    #[arg(long, conflicts_with = "id")]
    dry_run: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    asking: Asking,
}

/// Puts the decision to the running Qbox and says what became of it.
///
/// # Errors
/// Qbox can't be asked, or one saga's decision was refused.
pub(super) fn act(action: &'static str, decision: &Decision) -> Result<ExitCode> {
    check(action, decision);
    let client = decision.asking.running.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stepwise = matches!(action, "retry" | "skip");
    let wish = json!({
        "step": decision.which.step.as_ref().filter(|_| stepwise),
        "who": decision.who.clone().or_else(user),
        "why": decision.reason,
    });
    match decision.id {
        Some(id) => {
            let path = format!("/api/v1/sagas/{id}/{action}");
            let answer = runtime.block_on(client.post(&path, &wish))?;
            one(action, decision, &client, &answer)
        }
        None => {
            let post = |dry_run| {
                let path = format!(
                    "/api/v1/sagas/{action}?{}",
                    query(action, &decision.which, dry_run)
                );
                runtime.block_on(client.post(&path, &wish))
            };
            all(action, decision, &client, post)
        }
    }
}

/// Ends the process where the options contradict each other, as clap does.
fn check(action: &str, decision: &Decision) {
    let step = decision.which.step.is_some();
    let wrong = match decision.id {
        Some(_) if decision.which.has_more_than_step() => {
            Some("filters choose among all sagas: give --all instead of an id")
        }
        Some(_) if step && !matches!(action, "retry" | "skip") => {
            Some("this is for the whole saga: --step only chooses sagas, with --all")
        }
        _ if action == "skip" && !step => Some("name the step that was settled by hand: --step NAME"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        Cli::command().error(ErrorKind::ArgumentConflict, wrong).exit();
    }
}

/// Who sits in front of it; the environment is the operator's own.
fn user() -> Option<String> {
    let set = |name| env::var(name).ok().filter(|name| !name.is_empty());
    ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(set)
}

/// Where no state is asked for, what is meant to help the stuck is for the stuck.
fn query(action: &str, which: &Which, dry_run: bool) -> String {
    let mut query = format!("dry_run={dry_run}{}", which.query());
    if which.state.is_none() && matches!(action, "retry" | "skip" | "resolve") {
        query.push_str("&state=stuck");
    } else if which.query().is_empty() {
        query.push_str("&all=true");
    }
    query
}

fn print(text: &str) {
    let mut out = io::stdout();
    // A reader that has gone (`| head`) has seen enough.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// What the API refuses as no decision at all is wrong use.
fn refused(client: &Client, answer: &Answer) -> Result<ExitCode> {
    let wrong_use = matches!(
        answer.status,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
    );
    let problem: Value = answer.json().unwrap_or_default();
    let detail = problem.get("detail").and_then(Value::as_str);
    let said = match detail.filter(|_| answer.status != StatusCode::UNAUTHORIZED) {
        Some(detail) => plain(detail).into_owned(),
        None => client.refusal(answer),
    };
    if !wrong_use {
        bail!("{said}");
    }
    let _ = writeln!(io::stderr(), "error: {said}");
    Ok(ExitCode::from(2))
}

fn one(action: &str, decision: &Decision, client: &Client, answer: &Answer) -> Result<ExitCode> {
    if !answer.status.is_success() {
        return refused(client, answer);
    }
    let saga = answer.json()?;
    if decision.asking.json {
        print(&format!("{saga:#}\n"));
    } else {
        let (name, id, state) = (text(&saga, "name"), text(&saga, "id"), text(&saga, "state"));
        print(&format!("{name} {id}: {action} is recorded; it is {state} now\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn all(
    action: &str,
    decision: &Decision,
    client: &Client,
    post: impl Fn(bool) -> Result<Answer>,
) -> Result<ExitCode> {
    let asks_first = !decision.yes && !decision.dry_run;
    if asks_first && !io::stdin().is_terminal() {
        let wrong = "nobody is here to be asked: give --yes, or look first with --dry-run";
        Cli::command()
            .error(ErrorKind::MissingRequiredArgument, wrong)
            .exit();
    }
    if asks_first {
        let answer = post(true)?;
        if !answer.status.is_success() {
            return refused(client, &answer);
        }
        let report = answer.json()?;
        let count = number(&report, "done").unwrap_or_default();
        let _ = io::stderr().write_all(draw(&report).as_bytes());
        if count == 0 {
            return Ok(ended(&report));
        }
        let _ = write!(io::stderr(), "{action} {count} sagas? [y/N] ");
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).context("no answer")?;
        if !matches!(line.trim(), "y" | "Y" | "yes") {
            bail!("nothing was done");
        }
    }
    let answer = post(decision.dry_run)?;
    if !answer.status.is_success() {
        return refused(client, &answer);
    }
    let report = answer.json()?;
    print(&match decision.asking.json {
        true => format!("{report:#}\n"),
        false => draw(&report),
    });
    Ok(ended(&report))
}

fn ended(report: &Value) -> ExitCode {
    match number(report, "refused") {
        Some(0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// A row for each saga, and a line that counts them.
fn draw(report: &Value) -> String {
    let dry = report.get("dry_run").and_then(Value::as_bool).unwrap_or_default();
    let sagas = list(report, "sagas");
    if sagas.is_empty() {
        return "no saga that has not ended matches\n".to_owned();
    }
    let rows = sagas.iter().map(|saga| {
        let done = saga.get("done").and_then(Value::as_bool).unwrap_or_default();
        let result = match (done, dry) {
            (true, true) => "can be done".into(),
            (true, false) => "done".into(),
            (false, _) => text(saga, "detail"),
        };
        [
            text(saga, "id").to_string(),
            text(saga, "name").to_string(),
            text(saga, "state").to_string(),
            result.to_string(),
        ]
    });
    let mut out = table(["ID", "NAME", "STATE", "RESULT"], rows);
    let count = |key| number(report, key).unwrap_or_default();
    let (can, cannot) = match dry {
        true => ("can be done", "can't"),
        false => ("done", "refused"),
    };
    let (done, refused) = (count("done"), count("refused"));
    out.push_str(&format!(
        "{}: {done} {can}, {refused} {cannot}\n",
        text(report, "action")
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["qbox", "sagas"].iter().chain(words))
    }

    #[test]
    fn a_decision_is_for_one_or_for_all_and_has_a_reason() {
        let id = "00000000-0000-0000-0000-000000000007";
        parse(&["retry", id, "--reason", "x"]).unwrap();
        parse(&[
            "retry",
            "--all",
            "--state",
            "stuck",
            "--older-than",
            "10m",
            "--dry-run",
            "--reason",
            "x",
        ])
        .unwrap();
        for wrong in [
            &["retry", id][..],
            &["retry", "--reason", "x"],
            &["retry", id, "--all", "--reason", "x"],
            &["retry", id, "--yes", "--reason", "x"],
            &["retry", "7", "--reason", "x"],
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn what_helps_the_stuck_is_for_the_stuck() {
        let none = Which::default();
        assert_eq!(query("retry", &none, false), "dry_run=false&state=stuck");
        assert_eq!(query("pause", &none, true), "dry_run=true&all=true");
        let mut which = Which::default();
        which.state = Some("compensating".to_owned());
        assert_eq!(query("retry", &which, false), "dry_run=false&state=compensating");
    }

    #[test]
    fn a_report_counts() {
        let report = json!({ "action": "retry", "dry_run": false, "done": 1, "refused": 1, "sagas": [
            { "id": "a", "name": "x", "state": "compensating", "done": true },
            { "id": "b", "name": "x", "state": "running", "done": false, "detail": "this can't be done now" },
        ]});
        assert_eq!(
            draw(&report),
            "ID  NAME  STATE         RESULT\n\
             a   x     compensating  done\n\
             b   x     running       this can't be done now\n\
             retry: 1 done, 1 refused\n"
        );
    }
}
