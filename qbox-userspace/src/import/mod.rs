//! The import room: the original Python Qbox's YAML to saga files.
//!
//! What the original did with a key is what its code did (its `configuration.py`, `coordinator.py`, `interpolate.py` and
//! `server.py`), and where that was a slip, what its documentation says. docs/migration.md has the whole table. Nothing here knows the
//! running Qbox. Errors are findings with places, as everywhere in `config`.

mod convert;
mod expressions;
mod original;
mod yaml;

use crate::config::{Code, Diagnostic, Severity, SourceFile};
use crate::saga::Plan;
use std::ops::Range;
use std::sync::Arc;

/// One document of the file as a saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// Its name; `NAME.toml` is its file.
    pub name: String,
    /// What it runs.
    pub plan: Plan,
    /// The saga file.
    pub text: String,
}

/// Reads a file of the original, a saga for each of its documents.
///
/// # Errors
/// All that is wrong with it, and all that a saga file can't say.
pub fn import(file: &Arc<SourceFile>) -> Result<Vec<Imported>, Vec<Diagnostic>> {
    let sink = Findings {
        file: Arc::clone(file),
        found: Vec::new(),
    };
    convert::all(sink)
}

/// What was found so far.
struct Findings {
    file: Arc<SourceFile>,
    found: Vec<Diagnostic>,
}

impl Findings {
    fn error(&mut self, code: Code, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.found.push(Diagnostic {
            severity: Severity::Error,
            code,
            file: Arc::clone(&self.file),
            span: Some(span),
            message: message.into(),
            label: String::new(),
            help: help.into(),
            suggestion: None,
            related: Vec::new(),
        });
    }
}

#[cfg(test)]
mod tests;
