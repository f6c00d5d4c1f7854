//! `qbox import`: the original Python Qbox's YAML to saga files.

use super::print;
use crate::config::{self, Diagnostic, Report};
use crate::import;
use anyhow::Context;
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Turn a configuration of the original Qbox (YAML, one or several documents) into saga files that mean the same.
///
/// Comments in them say where this Qbox is stricter. docs/migration.md has the whole table.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The original's config.yaml.
    file: PathBuf,
    /// Write NAME.toml for each saga into this folder, instead of printing them. A file that is there is left alone, and is an error.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON document instead: the sagas with their texts or, with --out, their files; or what is wrong.
    #[arg(long)]
    json: bool,
}

/// Prints or writes the sagas.
///
/// # Errors
/// A file that can't be written.
pub(super) fn import(args: &Import) -> anyhow::Result<ExitCode> {
    let imported = config::read_file(&args.file)
        .map_err(|finding| vec![*finding])
        .and_then(|file| import::import(&file));
    let imported = match imported {
        Ok(imported) => imported,
        Err(found) => return Ok(refused(found, args.json)),
    };
    let Some(folder) = &args.out else {
        if args.json {
            let sagas = imported
                .iter()
                .map(|saga| json!({ "name": saga.name, "text": saga.text }));
            print(&format!("{:#}\n", json!({ "sagas": sagas.collect::<Vec<_>>() })));
            return Ok(ExitCode::SUCCESS);
        }
        let heading = |name: &str| match imported.len() {
            1 => String::new(),
            _ => format!("# ---- {name}.toml ----\n"),
        };
        for saga in &imported {
            print(&format!("{}{}\n", heading(&saga.name), saga.text));
        }
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    let mut written = Vec::new();
    for saga in &imported {
        let path = folder.join(format!("{}.toml", saga.name));
        let shown = path.display().to_string();
        let mut file = File::create_new(&path)
            .with_context(|| format!("can't make {shown}"))
            .map_err(
                |error| match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                    Some(ErrorKind::AlreadyExists) => {
                        error.context("name an empty folder, or take the file away")
                    }
                    _ => error,
                },
            )?;
        file.write_all(saga.text.as_bytes())
            .with_context(|| format!("can't write {shown}"))?;
        match args.json {
            true => written.push(json!({ "name": saga.name, "file": shown })),
            false => print(&format!("{shown}\n")),
        }
    }
    if args.json {
        print(&format!("{:#}\n", json!({ "sagas": written })));
    }
    Ok(ExitCode::SUCCESS)
}

/// Findings: on standard error for people, as `qbox check` prints them where JSON is asked for.
pub(super) fn refused(diagnostics: Vec<Diagnostic>, as_json: bool) -> ExitCode {
    let report = Report {
        diagnostics,
        files: 1,
        sagas: 0,
    };
    if as_json {
        print(&format!("{:#}\n", report.to_json()));
        return ExitCode::FAILURE;
    }
    let mut err = std::io::stderr();
    // Nobody is left to be told that standard error is closed.
    let _ = err.write_all(report.render(err.is_terminal()).as_bytes());
    ExitCode::FAILURE
}
