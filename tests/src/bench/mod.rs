//! What `cargo xtask bench` measures of Qbox in pods: sagas beside what bounds them, how they grow, its memory, what a connect(2) pays,
//! what many pods and connections cost, and what holds for ten minutes. The tables, goals and charts go into docs/performance.md.
//!
//! Knows the binary, its files and its metrics, and nothing of its inside.

mod connect;
mod connections;
mod files;
mod growth;
mod hold;
mod hop;
mod load;
mod memory;
mod message;
mod middle;
mod page;
mod plot;
mod pods;
mod record;
mod report;
mod sagas;
mod services;
mod shape;
pub(crate) mod spread;
mod stage;
mod taken;
mod telemetry;
mod worker;

pub use connect::{connect, dial};
pub use connections::{ask, connections};
pub use growth::{growth, hold_open};
pub use hold::{Hold, hold};
pub use hop::run as hop;
pub use load::{Kind, Load, run as load, windows};
pub use memory::memory;
pub use middle::{Middle, run as middle};
pub use page::publish;
pub use pods::{connects, pods, stays};
pub use record::Record;
pub(crate) use record::{Chart, Goal, Series};
pub(crate) use sagas::Found;
pub use sagas::{Press, press, sagas};
pub use spread::median;
pub use taken::take;
pub use telemetry::telemetry;
pub use worker::Worker;

use crate::Settings;
use anyhow::Result;
use std::fs;
use std::time::Duration;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Every system is measured so often, in turns.
    pub rounds: usize,
    /// How long each measurement takes.
    pub span: Duration,
    /// What is found is not for docs/performance.md: a copy of it in `target/bench` has it.
    pub quick: bool,
}

/// The trip's saga.
fn book_trip() -> Result<Settings> {
    Ok(Settings::saga(crate::book_trip()?))
}

/// How many a process has.
fn open_files(process: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}
