//! Memory and size: Qbox idle, as it is started on a node; with one worker while 256 connections pass; the binary's bytes. Errors: a program
//! isn't there, or requests failed.

use super::record::{Goal, Record};
use super::{Options, page};
use crate::node::require_root;
use crate::passthrough;
use crate::qbox::binary;
use anyhow::Result;
use std::fs;

/// Measures, prints the table, and puts it into docs/performance.md.
///
/// # Errors
/// See the module.
pub fn memory(options: &Options) -> Result<()> {
    require_root()?;
    let used = passthrough::memory(options.span)?;
    let binary = fs::metadata(binary()?)?.len();
    // Whole bytes up to 2^53 are exact.
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let (idle, one, passing) = (
        megabytes(used.idle),
        megabytes(used.idle_one),
        megabytes(used.passing),
    );
    let size = megabytes(binary);
    let text = format!(
        "| | MB (10⁶ bytes) |\n|---|---|\n| in RAM, idle | {idle:.1} |\n| in RAM, idle, one worker | {one:.1} |\n\
         | in RAM, one worker, the most while 256 connections carry requests | {passing:.1} |\n| the binary, eBPF programs included | {size:.2} |\n"
    );
    let record = Record {
        goals: vec![
            Goal::most("memory idle", (16.0, " MB"), [idle]),
            Goal::most(
                "memory with 256 passing connections, one worker",
                (24.0, " MB"),
                [passing],
            ),
            Goal::most("the binary", (20.0, " MB"), [size]),
        ],
        ..Record::default()
    };
    page::publish("memory", &text, record, options.quick)
}
