//! `qbox status --probe`: what capturing needs of this machine, one line each, and which mode works. Ends with 1 if
//! something is missing.

use super::print;
use crate::app::{self, LEAST_KERNEL, Probe};
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;

/// Asks and prints.
pub(super) fn run(as_json: bool) -> ExitCode {
    let probe = app::probe();
    print(&if as_json {
        format!("{:#}\n", value(&probe))
    } else {
        text(&probe)
    });
    if probe.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn text(probe: &Probe) -> String {
    let mut out = format!(
        "Linux {} ({LEAST_KERNEL} is the oldest that has all of this)\n\n",
        probe.kernel
    );
    for feature in &probe.features {
        let found = if feature.missing.is_none() { "yes" } else { "NO " };
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "{found}  {:<45} {:<22} {}",
            feature.name, feature.from, feature.purpose
        );
        if let Some(why) = &feature.missing {
            let _ = writeln!(out, "     {why}");
        }
    }
    let missing: Vec<&str> = probe.missing().map(|feature| feature.name).collect();
    let _ = match missing.is_empty() {
        true => writeln!(
            out,
            "\nPods can be captured here: `mode = \"ebpf\"`. Explicit mode works too."
        ),
        false => writeln!(
            out,
            "\nPods can't be captured here: {} missing. What works is `mode = \"explicit\"` (`qbox run --explicit`), \
             which needs none of this.",
            missing.join(", ")
        ),
    };
    out
}

fn value(probe: &Probe) -> Value {
    let features: Vec<Value> = (probe.features.iter())
        .map(|feature| {
            json!({
                "name": feature.name,
                "from": feature.from,
                "purpose": feature.purpose,
                "found": feature.missing.is_none(),
                "why": feature.missing,
            })
        })
        .collect();
    json!({
        "kernel": probe.kernel,
        "least_kernel": LEAST_KERNEL,
        "modes": if probe.is_complete() { vec!["ebpf", "explicit"] } else { vec!["explicit"] },
        "features": features,
    })
}
