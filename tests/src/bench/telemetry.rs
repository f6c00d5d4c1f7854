//! What `cargo xtask bench telemetry` measures: the same sagas through a Qbox that sends its spans to a collector and is asked for its
//! metrics each second, and through one that does neither, in turns. (What is counted is counted in both: that can't be turned off.)
//!
//! The collector reads and forgets, on this machine, so that its own work is among what is measured.

use super::Options;
use super::load::Kind;
use super::shape::Shape;
use super::spread::median;
use super::stage::{Setup, Stage, System};
use crate::collector::Collector;
use crate::node::require_root;
use anyhow::{Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What each trigger's saga calls.
const SHAPE: Shape = Shape::ONE_TO_FOUR;
/// How often Prometheus would ask, and more often than that.
const SCRAPE: Duration = Duration::from_secs(1);
const CLIENTS: Kind = Kind::Closed { clients: 16 };

/// One system with and without.
#[derive(Debug, Default)]
struct Pair {
    off: Vec<(f64, f64)>,
    on: Vec<(f64, f64)>,
}

/// Measures and prints.
///
/// # Errors
/// No root, something fails, or spans were lost.
pub fn telemetry(options: &Options) -> Result<()> {
    require_root()?;
    let off = Stage::set(&Setup {
        shapes: vec![SHAPE],
        ..Setup::default()
    })?;
    let on = Stage::set(&Setup {
        shapes: vec![SHAPE],
        extra: "[telemetry]\notlp = \"http://trips.default.svc:4318\"\n".to_owned(),
        ..Setup::default()
    })?;
    Collector::forgetful(on.listen(4318)?);
    for system in [System::Unsynced, System::Synced] {
        let mut pair = Pair::default();
        // The first round is for caches and connections.
        for round in 0..=options.rounds {
            eprintln!("round {round} of {}: {}", options.rounds, system.name());
            let without = || measure(&off, system, options.span, false);
            let with = || measure(&on, system, options.span, true);
            // Who goes second finds the machine as the first has left it: by turns.
            let (without, with) = match round % 2 {
                0 => (without()?, with()?),
                _ => {
                    let with = with()?;
                    (without()?, with)
                }
            };
            if round > 0 {
                pair.off.push(without);
                pair.on.push(with);
            }
        }
        pair.print(system);
    }
    let (sent, lost) = on.spans()?;
    println!("spans sent: {sent}, lost: {lost}");
    ensure!(sent > 0.0 && lost == 0.0, "not every span arrived");
    Ok(())
}

/// Sagas a second, and Qbox's processor time for each in microseconds.
fn measure(stage: &Stage, system: System, span: Duration, scraped: bool) -> Result<(f64, f64)> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        if scraped {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // What it says is looked at in the end.
                    drop(stage.scrape());
                    thread::park_timeout(SCRAPE);
                }
            });
        }
        let before = stage.counts(system)?;
        let load = stage.load(&system.target(SHAPE), CLIENTS, span);
        over.store(true, Ordering::Relaxed);
        let (load, after) = (load?, stage.counts(system)?);
        Ok((load.rate, (after.cpu - before.cpu) / load.count.max(1) as f64))
    })
}

impl Pair {
    fn print(&self, system: System) {
        let rate = |(rate, _): &(f64, f64)| *rate;
        let cpu = |(_, cpu): &(f64, f64)| *cpu;
        let [off, on] = [&self.off, &self.on].map(|found| median(found.iter().map(rate)));
        let [off_cpu, on_cpu] = [&self.off, &self.on].map(|found| median(found.iter().map(cpu)));
        let each = self
            .off
            .iter()
            .zip(&self.on)
            .map(|(off, on)| rate(on) / rate(off));
        println!(
            "{}: {off:.0} sagas/s without, {on:.0} with; in pairs {:.3}×; CPU per saga {off_cpu:.0} µs, {on_cpu:.0} µs ({} rounds)",
            system.name(),
            median(each),
            self.off.len(),
        );
    }
}
