//! What `cargo xtask bench sagas` measures: sagas as users run them, captured by eBPF in a pod, beside the bound: a hop of
//! our own that stands where a coordinator would, is addressed directly, keeps no log and undoes nothing.
//!
//! Both call the same services, which answer at once, and are called by the same client, in turns within one run; so the ratios
//! count, and the numbers are this machine's. Knows the binary, its files and its metrics, and nothing of its inside.

mod hop;
mod load;
mod message;
pub(crate) mod page;
mod report;
mod services;
mod stage;
mod telemetry;

pub use hop::run as hop;
pub use load::{Kind, Load, run as load};
pub use telemetry::telemetry;

use crate::node::require_root;
use anyhow::Result;
use report::Report;
use stage::{Stage, System};
use std::time::Duration;

/// A trigger's saga calls that many services at once.
pub(crate) const TOPOLOGIES: [usize; 2] = [4, 9];

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Every system is measured so often, in turns.
    pub rounds: usize,
    /// How long each measurement takes.
    pub span: Duration,
}

/// What one system showed in one round.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    /// Median and 99th percentile at 10 a second, in milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Sagas a second with 16 clients.
    pub(crate) rate: f64,
    /// The coordinator's processor time for each of those, in microseconds.
    pub(crate) cpu: f64,
    /// Syncs of the disk for each saga, with one client and with 16.
    pub(crate) syncs_at_1: f64,
    pub(crate) syncs_at_16: f64,
}

/// Measures, prints the table, and puts it into docs/performance.md.
///
/// # Errors
/// No root, or something fails or is answered wrongly.
pub fn sagas(options: &Options) -> Result<()> {
    require_root()?;
    let stage = Stage::set("")?;
    let mut report = Report::default();
    // The first round is for caches and connections.
    for round in 0..=options.rounds {
        for services in TOPOLOGIES {
            for system in System::ALL {
                eprintln!(
                    "round {round} of {}: 1 to {services}, {}",
                    options.rounds,
                    system.name()
                );
                let found = measure(&stage, system, services, options.span)?;
                if round > 0 {
                    report.add(services, system, found);
                }
            }
        }
    }
    report.publish(options)
}

fn measure(stage: &Stage, system: System, services: usize, span: Duration) -> Result<Found> {
    let target = system.target(services);
    let open = stage.load(&target, Kind::Open { per_second: 10 }, span)?;
    let before = stage.counts(system)?;
    let one = stage.load(&target, Kind::Closed { clients: 1 }, span / 2)?;
    let between = stage.counts(system)?;
    let many = stage.load(&target, Kind::Closed { clients: 16 }, span)?;
    let after = stage.counts(system)?;
    let each = |count: f64, load: &Load| count / load.count.max(1) as f64;
    Ok(Found {
        p50: open.p50,
        p99: open.p99,
        rate: many.rate,
        cpu: each(after.cpu - between.cpu, &many),
        syncs_at_1: each(between.syncs - before.syncs, &one),
        syncs_at_16: each(after.syncs - between.syncs, &many),
    })
}
