//! What a measurement of another crate has found, as JSON: its table in Markdown and its goals. It is published as this crate's own are.
//! Errors: it is no such JSON.

use super::record::Record;
use super::{Goal, page};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs;
use std::path::Path;

#[derive(Deserialize)]
struct Taken {
    text: String,
    goals: Vec<Goal>,
}

/// Publishes what is in the file as that part.
///
/// # Errors
/// See the module.
pub fn take(part: &str, file: &Path, quick: bool) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let Taken { text, goals } = serde_json::from_str(&text).with_context(|| format!("{}", file.display()))?;
    let record = Record {
        goals,
        ..Record::default()
    };
    page::publish(part, &text, record, quick)
}
