//! Files and folders: which file is what, reading them all, and `qbox check`.

use super::diagnostic::{Code, Diagnostic, Report, SourceFile};
use super::qbox_toml::{Config, Store};
use super::saga_file::{self, SagaAt};
use super::walk::Sink;
use super::{Loaded, LoadedSaga, overlap, read, read_config};
use crate::saga::Plan;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What `qbox check` looks at when it is given nothing.
const DEFAULT_PATH: &str = "config";
/// The file that makes a folder a configuration.
const CONFIG_FILE: &str = "qbox.toml";
/// How many files are read: a wrong path must not read a whole disk.
const MOST_FILES: usize = 10_000;

/// Checks what `qbox run` would load of each path. Without a path: `config`.
///
/// - A folder with a `qbox.toml` is a configuration: that file, and every `*.toml` of the folder that its `sagas` names.
///   What else lies there is not looked at, since Qbox doesn't read it.
/// - Another folder is one of sagas: every `*.toml` right in it. Hidden files and folders within are left out, as
///   Qbox leaves them out.
/// - A file is a configuration if it is named `qbox.toml`, or has one of its keys and neither a `[[step]]` nor a
///   `[trigger]`; its sagas are checked with it. Every other file is a saga.
///
/// All sagas of one call are compared with one another.
#[must_use]
pub fn check_paths(paths: &[PathBuf]) -> Report {
    let mut all = All::default();
    if paths.is_empty() {
        all.path(Path::new(DEFAULT_PATH));
    }
    for path in paths {
        all.path(path);
    }
    all.into_report()
}

/// Reads `qbox.toml` and every saga of its folder.
///
/// # Errors
/// Every mistake in any of the files, in one report.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let mut all = All::default();
    all.files
        .insert(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    match read::file(path) {
        Ok(file) => all.config(file),
        Err(finding) => all.found.push(*finding),
    }
    let loaded = |saga: &SagaAt| LoadedSaga {
        plan: Arc::new(saga.plan.clone()),
        file: saga.file.name.clone(),
    };
    let sagas = all.sagas.iter().map(loaded).collect();
    let config = all.config.take();
    let report = all.into_report();
    match config {
        Some(config) if !report.has_errors() => Ok(Loaded {
            config,
            sagas,
            report,
        }),
        _ => Err(report),
    }
}

/// Reads one file as a saga. The `Vec` of the good case holds warnings.
///
/// # Errors
/// All that is wrong with it, warnings too.
pub fn load_saga_file(path: &Path) -> Result<(Plan, Vec<Diagnostic>), Vec<Diagnostic>> {
    let file = read::file(path).map_err(|finding| vec![*finding])?;
    match saga_file::saga(file) {
        (Some(saga), warnings) => Ok((saga.plan, warnings)),
        (None, findings) => Err(findings),
    }
}

/// What was read so far.
#[derive(Default)]
struct All {
    /// Canonical where that is known, so that no file is read twice.
    files: HashSet<PathBuf>,
    config: Option<Config>,
    sagas: Vec<SagaAt>,
    found: Vec<Diagnostic>,
}

impl All {
    fn path(&mut self, path: &Path) {
        if !path.is_dir() {
            return self.file(path);
        }
        let config = path.join(CONFIG_FILE);
        if config.exists() {
            return self.file(&config);
        }
        match files_in(path) {
            Ok(files) if files.is_empty() => {
                let message = format!("no *.toml in the folder `{}`", path.display());
                let help = "name a folder with a `qbox.toml`, a folder of sagas, or a file";
                self.whole(Code::Unreadable, path, message, help);
            }
            Ok(files) => files.iter().for_each(|file| self.file(file)),
            Err(error) => {
                let message = format!("can't read the folder `{}`: {error}", path.display());
                self.whole(
                    Code::Unreadable,
                    path,
                    message,
                    "name a folder that Qbox may read",
                );
            }
        }
    }

    /// A finding about a path as a whole.
    fn whole(&mut self, code: Code, path: &Path, message: String, help: &str) {
        let file = Arc::new(SourceFile {
            name: path.display().to_string(),
            text: String::new(),
        });
        let mut finding = Sink::new(file).draft(code, 0..0, message);
        finding.span = None;
        finding.help = help.to_owned();
        self.found.push(finding);
    }

    /// A file that may be either.
    fn file(&mut self, path: &Path) {
        if let Some(file) = self.read(path) {
            if is_config(path, &file) {
                self.config(file);
            } else {
                self.saga(file);
            }
        }
    }

    /// Reads a file that was not read yet; that it can't be is a finding.
    fn read(&mut self, path: &Path) -> Option<Arc<SourceFile>> {
        let known = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if self.files.contains(&known) {
            return None;
        }
        if self.files.len() == MOST_FILES {
            self.whole(
                Code::OutOfRange,
                path,
                format!("more than {MOST_FILES} files"),
                "name a smaller folder",
            );
        }
        if self.files.len() >= MOST_FILES {
            return None;
        }
        self.files.insert(known);
        read::file(path).map_err(|finding| self.found.push(*finding)).ok()
    }

    fn saga(&mut self, file: Arc<SourceFile>) {
        let (saga, found) = saga_file::saga(file);
        self.sagas.extend(saga);
        self.found.extend(found);
    }

    /// A configuration, and the folder that it names: also when something else is wrong in it, so that one run tells
    /// all there is to mend.
    fn config(&mut self, file: Arc<SourceFile>) {
        let read = read_config(file.clone());
        self.found.extend(read.found);
        let Some(config) = read.config else { return };
        let others = self.sagas.len();
        match files_in(&config.sagas) {
            // All there are sagas, whatever they look like, but for the configuration itself, which was read.
            Ok(files) => {
                for path in &files {
                    if let Some(file) = self.read(path) {
                        self.saga(file);
                    }
                }
            }
            Err(error) => {
                let message = format!(
                    "can't read the folder of the sagas, `{}`: {error}",
                    config.sagas.display()
                );
                let sink = Sink::new(file);
                let help =
                    "make the folder, or name another one: sagas = \"FOLDER\", from this file's folder on";
                sink.error(
                    Code::Unreadable,
                    read.sagas_span.unwrap_or(0..0),
                    message,
                    "",
                    help,
                );
                self.found.extend(sink.into_found());
            }
        }
        self.found.extend(secrets_lost(
            &config,
            self.sagas.get(others..).unwrap_or_default(),
        ));
        self.config = read.sound.then_some(config);
    }

    fn into_report(mut self) -> Report {
        self.found.extend(overlap::check(&self.sagas));
        Report {
            diagnostics: self.found,
            files: self.files.len(),
            sagas: self.sagas.len(),
        }
    }
}

/// The sagas that need secrets after a restart, where nothing keeps them.
fn secrets_lost(config: &Config, sagas: &[SagaAt]) -> Vec<Diagnostic> {
    let secrets = config.secrets.names();
    let lost = |saga: &&SagaAt| saga.plan.needs().name_secrets(&secrets);
    let kept = config.secrets.key_file.is_some() || config.journal.store == Store::Memory;
    let lost = sagas.iter().filter(lost).filter(|_| !kept);
    lost.flat_map(|saga| {
        let sink = Sink::new(saga.file.clone());
        let message = format!(
            "after a restart `{}` needs secrets that are not kept: without them it is stuck",
            saga.plan.name
        );
        let help = "name a file of keys in qbox.toml: [secrets] key_file = \"…\"";
        sink.warning(Code::SecretLost, saga.name_span.clone(), message, "", help);
        sink.into_found()
    })
    .collect()
}

/// The `*.toml` files right in a folder, by name; hidden ones are an editor's.
fn files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.ends_with(".toml") && !name.starts_with('.') && !path.is_dir() {
            files.push(path);
        }
        // One more than is read, so that the excess is noticed.
        if files.len() > MOST_FILES {
            break;
        }
    }
    files.sort();
    Ok(files)
}

/// Whether the file is a `qbox.toml` under any name. A file that isn't TOML counts as a saga.
fn is_config(path: &Path, file: &SourceFile) -> bool {
    const KEYS: &[&str] = &[
        "sagas",
        "grace",
        "capture",
        "kubernetes",
        "explicit",
        "limits",
        "proxy",
        "upstream",
        "admin",
        "secrets",
        "log",
    ];
    if path.file_name().is_some_and(|name| name == CONFIG_FILE) {
        return true;
    }
    let (document, _) = toml::de::DeTable::parse_recoverable(&file.text);
    let has = |key: &str| document.get_ref().contains_key(key);
    KEYS.iter().any(|s| has(s)) && !has("step") && !has("trigger")
}
