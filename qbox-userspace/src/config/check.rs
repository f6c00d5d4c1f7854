//! Files and folders: which file is what, reading them all, and `qbox check`.

use super::diagnostic::{Code, Diagnostic, Report, SourceFile};
use super::qbox_toml::Config;
use super::saga_file::{self, SagaAt};
use super::walk::{self, Sink};
use super::{Loaded, overlap, read_config};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What `qbox check` looks at when it is given nothing.
const DEFAULT_PATH: &str = "config";
/// The folder of files that are wrong on purpose; never descended into.
const WRONG_ON_PURPOSE: &str = "invalid";
/// How deep folders are followed, and how many files are read: a wrong path must not read a whole disk.
const DEEPEST: usize = 8;
const MOST_FILES: usize = 10_000;

/// Checks files, and all `*.toml` of folders and theirs (but for folders named `invalid`, and hidden ones). A file is a
/// configuration if it is named `qbox.toml`, or has an `[admin]`, `[capture]`, `[explicit]`, `[limits]`, `[proxy]`, `[upstream]`
/// or `[log]` section and no `[[step]]`; the folder of its sagas is checked with it. All other files are sagas, and all
/// sagas of one call are compared with one another. Without a path: `config`.
#[must_use]
pub fn check_paths(paths: &[PathBuf]) -> Report {
    let mut all = All::default();
    if paths.is_empty() {
        all.path(Path::new(DEFAULT_PATH), 0);
    }
    for path in paths {
        all.path(path, 0);
    }
    all.into_report()
}

/// Reads `qbox.toml` and every saga of its folder.
///
/// # Errors
/// Every mistake in any of the files, in one report.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let mut all = All::default();
    all.files.push(path.to_owned());
    match walk::read(path) {
        Ok(file) => all.config(file),
        Err(finding) => all.found.push(*finding),
    }
    let plans = all.sagas.iter().map(|saga| Arc::new(saga.plan.clone())).collect();
    let config = all.config.take();
    let report = all.into_report();
    match config {
        Some(config) if !report.has_errors() => Ok(Loaded {
            config,
            plans,
            report,
        }),
        _ => Err(report),
    }
}

/// What was read so far.
#[derive(Default)]
struct All {
    /// Canonical where that is known, so that no file is read twice.
    files: Vec<PathBuf>,
    config: Option<Config>,
    sagas: Vec<SagaAt>,
    found: Vec<Diagnostic>,
}

impl All {
    fn path(&mut self, path: &Path, depth: usize) {
        if path.is_dir() {
            for entry in self.entries(path) {
                let name = entry.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let wanted = if entry.is_dir() {
                    depth < DEEPEST && name != WRONG_ON_PURPOSE && !name.starts_with('.')
                } else {
                    name.ends_with(".toml") && !name.starts_with('.')
                };
                if wanted {
                    self.path(&entry, depth + 1);
                }
            }
        } else {
            self.file(path);
        }
    }

    /// A folder's entries by name. A folder that can't be read is a finding.
    fn entries(&mut self, folder: &Path) -> Vec<PathBuf> {
        let read = std::fs::read_dir(folder).and_then(|entries| {
            entries
                .map(|e| e.map(|e| e.path()))
                .take(MOST_FILES)
                .collect::<Result<Vec<_>, _>>()
        });
        match read {
            Ok(mut entries) => {
                entries.sort();
                entries
            }
            Err(error) => {
                let message = format!("can't read the folder `{}`: {error}", folder.display());
                self.whole(
                    Code::Unreadable,
                    folder,
                    message,
                    "make the folder, or name another one",
                );
                Vec::new()
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

    fn file(&mut self, path: &Path) {
        let known = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if self.files.contains(&known) {
            return;
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
            return;
        }
        self.files.push(known);
        match walk::read(path) {
            Ok(file) if is_config(path, &file) => self.config(file),
            Ok(file) => self.saga(file),
            Err(finding) => self.found.push(*finding),
        }
    }

    fn saga(&mut self, file: Arc<SourceFile>) {
        let (saga, found) = saga_file::saga(file);
        self.sagas.extend(saga);
        self.found.extend(found);
    }

    /// A configuration, and the folder that it names.
    fn config(&mut self, file: Arc<SourceFile>) {
        let (config, found) = read_config(file);
        self.found.extend(found);
        let Some(config) = config else { return };
        for entry in self.entries(&config.sagas) {
            if entry.extension().is_some_and(|e| e == "toml") && entry.is_file() {
                self.file(&entry);
            }
        }
        self.config = Some(config);
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

/// Whether the file is a `qbox.toml` under any name. A file that isn't TOML counts as a saga.
fn is_config(path: &Path, file: &SourceFile) -> bool {
    const SECTIONS: &[&str] = &[
        "capture", "explicit", "limits", "proxy", "upstream", "admin", "log",
    ];
    if path.file_name().is_some_and(|name| name == "qbox.toml") {
        return true;
    }
    let (document, _) = toml::de::DeTable::parse_recoverable(&file.text);
    let has = |key: &str| document.get_ref().contains_key(key);
    SECTIONS.iter().any(|s| has(s)) && !has("step") && !has("trigger")
}
