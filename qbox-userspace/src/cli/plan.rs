//! `qbox plan`: a saga rehearsed. Sends nothing, and needs no running Qbox.

use super::import::refused;
use super::print;
use crate::config;
use crate::plan::{Prospect, mermaid, read_request, svg};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// A trigger's body is at most 1 MiB by default, so a longer text is none.
const LONGEST_REQUEST: u64 = 2 << 20;

/// Show what a saga would do, without doing it: its graph, every request in order, and what would be undone.
///
/// The machine that runs sagas decides here too; answers are made up, or taken from a file. Ends 0 if the saga would commit, 1 if
/// not.
#[derive(Debug, Args)]
pub(super) struct Plan {
    /// The saga's file.
    saga: PathBuf,
    /// The request that starts it, as text: `POST http://HOST/PATH`, header fields, an empty line, the body. One that
    /// matches is made up otherwise.
    #[arg(long, value_name = "REQUEST.http")]
    trigger: Option<PathBuf>,
    /// What the services answer (TOML: [[answer]] with `step` and `status`, `json`, …). All else succeeds.
    #[arg(long, value_name = "FILE")]
    responses: Option<PathBuf>,
    /// What would be undone if this step failed. Each in turn otherwise.
    #[arg(long, value_name = "STEP")]
    fail: Option<String>,
    /// What to print; the drawings are of the graph alone.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print one JSON document.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// All of it, for people.
    Text,
    /// The graph as a Mermaid flowchart.
    Mermaid,
    /// The graph as a drawing.
    Svg,
}

/// Shows it.
///
/// # Errors
/// A file that can't be read, or doesn't say what it should.
pub(super) fn plan(args: &Plan) -> anyhow::Result<ExitCode> {
    let plan = match config::load_saga_file(&args.saga) {
        Ok((plan, _)) => Arc::new(plan),
        Err(found) => return Ok(refused(found, args.json)),
    };
    match args.format {
        Format::Mermaid => print(&mermaid(&plan)),
        Format::Svg => print(&svg(&plan)),
        Format::Text => return rehearse(args, plan),
    }
    Ok(ExitCode::SUCCESS)
}

fn rehearse(args: &Plan, plan: Arc<crate::saga::Plan>) -> anyhow::Result<ExitCode> {
    let trigger = match &args.trigger {
        Some(path) => Some(trigger(path, &plan)?),
        None => None,
    };
    let answers = match args
        .responses
        .as_deref()
        .map(|path| config::load_answers(path, &plan))
    {
        Some(Ok(answers)) => answers,
        Some(Err(found)) => return Ok(refused(found, args.json)),
        None => Vec::new(),
    };
    let fail = match &args.fail {
        Some(name) => Some(plan.step(name).with_context(|| {
            let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
            format!("there is no step named `{name}`; there are: {}", names.join(", "))
        })?),
        None => None,
    };
    let prospect = Prospect::new(plan, trigger, &answers, fail);
    print(&match args.json {
        true => format!("{:#}\n", prospect.to_json()),
        false => prospect.text(),
    });
    Ok(match prospect.is_clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn trigger(path: &Path, plan: &crate::saga::Plan) -> anyhow::Result<crate::saga::Trigger> {
    let shown = path.display();
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("can't read {shown}"))?;
    let length = file
        .take(LONGEST_REQUEST + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("can't read {shown}"))?;
    if length as u64 > LONGEST_REQUEST {
        bail!("{shown} is larger than 2 MiB, which no trigger is");
    }
    let request = read_request(&text).with_context(|| format!("{shown} is no request"))?;
    let name = &plan.name;
    request
        .trigger(&plan.trigger)
        .map_err(|why| anyhow::anyhow!("{shown} does not start `{name}`: {}", why.join("; ")))
}
