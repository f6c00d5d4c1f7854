//! Sagas as users run them, captured by eBPF in a pod, beside the bound: a hop of our own that stands where a coordinator would, is addressed
//! directly, keeps no log and undoes nothing.
//!
//! Both call the same services, and are called by the same client, in turns within one run; so the ratios count, and the numbers are
//! this machine's. Errors: something fails, or is answered wrongly.

use super::Options;
use super::load::{Kind, Load};
use super::report::Report;
use super::shape::Shape;
use super::stage::{Setup, Stage, System};
use crate::node::require_root;
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// How long a measurement takes in the round that is for caches and connections.
const FIRST: Duration = Duration::from_millis(400);

/// What one system showed in one round.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    /// Median and 99th percentile at 10 a second, in milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Sagas a second with 16 clients.
    pub(crate) rate: f64,
    /// The processor time for each of those, in microseconds: the coordinator's, the client's, the services'.
    pub(crate) cpu: f64,
    pub(crate) client: f64,
    pub(crate) services: f64,
    /// Syncs of the disk for each saga, with one client and with 16.
    pub(crate) syncs_at_1: f64,
    pub(crate) syncs_at_16: f64,
}

/// Measures, prints the tables, and puts them into docs/performance.md.
///
/// # Errors
/// No root, or something fails or is answered wrongly.
pub fn sagas(options: &Options) -> Result<()> {
    require_root()?;
    let stage = Stage::set(&Setup {
        shapes: Shape::ALL.into_iter().chain([Shape::SLOW]).collect(),
        ..Setup::default()
    })?;
    let mut report = Report::default();
    let begun = Instant::now();
    for round in 0..=options.rounds {
        let span = if round == 0 { FIRST } else { options.span };
        for shape in Shape::ALL.into_iter().chain([Shape::SLOW]) {
            eprintln!(
                "    {:>4.0} s: round {round} of {}: {shape}",
                begun.elapsed().as_secs_f32(),
                options.rounds
            );
            // Who goes second finds the machine as the first has left it: each is first, second and last in turn.
            for place in 0..System::ALL.len() {
                let system = System::ALL[(place + round) % System::ALL.len()];
                let found = measure(&stage, system, shape, span)?;
                if round > 0 {
                    report.add(shape, system, found);
                }
            }
        }
    }
    report.publish(options)
}

/// What is pressed on: to look at one topology with perf(1), or to compare two builds.
#[derive(Debug)]
pub struct Press {
    /// `CALLS-EACH`, as `2-1` for "1 to 2, each to 1".
    pub shape: String,
    /// `hop`, `disk` or `none`.
    pub way: String,
    /// How requests come.
    pub kind: Kind,
    /// For how long, five times.
    pub span: Duration,
}

/// Loads one system in one topology and prints what it does; docs/performance.md is left alone.
///
/// # Errors
/// No root, there is no such topology or system, or something fails or is answered wrongly.
pub fn press(press: &Press) -> Result<()> {
    require_root()?;
    let shape = Shape::from_key(&press.shape)?;
    let system = System::ALL.into_iter().find(|system| system.way() == press.way);
    let system = system.context("a system is hop, disk or none")?;
    let mut stage = Stage::set(&Setup {
        shapes: vec![shape],
        ..Setup::default()
    })?;
    let target = system.target(shape);
    stage.load(&target, press.kind, FIRST)?;
    for _ in 0..5 {
        let before = stage.counts(system)?;
        let load = stage.load(&target, press.kind, press.span)?;
        let after = stage.counts(system)?;
        let each = |count: f64| count / load.count as f64;
        println!(
            "{shape}, {}: p50 {:.2} ms, p99 {:.2} ms, {:.0}/s, CPU {:.0} µs, services {:.0} µs, syncs {:.2}",
            system.name(),
            load.p50,
            load.p99,
            load.rate,
            each(after.cpu - before.cpu),
            each(after.services - before.services),
            each(after.syncs - before.syncs),
        );
    }
    stage.qbox.end()
}

fn measure(stage: &Stage, system: System, shape: Shape, span: Duration) -> Result<Found> {
    let target = system.target(shape);
    let open = stage.load(&target, Kind::Open { per_second: 10 }, span)?;
    let found = Found {
        p50: open.p50,
        p99: open.p99,
        ..Found::default()
    };
    if shape.slow {
        return Ok(found);
    }
    let before = stage.counts(system)?;
    let one = stage.load(&target, Kind::Closed { clients: 1 }, span / 4)?;
    let between = stage.counts(system)?;
    let many = stage.load(&target, Kind::Closed { clients: 16 }, span / 2)?;
    let after = stage.counts(system)?;
    // Each client has sent one before its load began.
    let each = |count: f64, load: &Load, clients: u64| count / (load.count + clients) as f64;
    Ok(Found {
        rate: many.rate,
        cpu: each(after.cpu - between.cpu, &many, 16),
        client: many.cpu,
        services: each(after.services - between.services, &many, 16),
        syncs_at_1: each(between.syncs - before.syncs, &one, 1),
        syncs_at_16: each(after.syncs - between.syncs, &many, 16),
        ..found
    })
}
