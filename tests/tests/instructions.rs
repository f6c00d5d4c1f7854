//! What a saga and a request that passes cost in instructions of the release binary, against the figures below: callgrind counts them,
//! the same on a busy machine.
//!
//! In explicit mode, since valgrind knows no bpf(2): what the kernel does for a captured connection is none of it. A figure is the slope
//! from few to many, so that the start is none of it either. Whoever makes Qbox cheaper lowers the figure; whoever makes it dearer says in
//! the commit why it is worth it.

use anyhow::{Context, Result, ensure};
use qbox_tests::{ExplicitWorld, book_trip, book_trip_in_memory};
use rustix::process::Signal;
use std::process::Command;
use std::{env, fs};

/// From so many requests to so many.
const FEW: u32 = 100;
const MANY: u32 = 500;

/// Thousands of instructions: of a saga of three steps at once, its journal synced; the same with `durability = "none"`; and of a
/// request that is no trigger. First of a Qbox that was built with a profile (`cargo xtask profile`), then of one without.
const SYNCED: [f64; 2] = [330.0, 374.0];
const UNSYNCED: [f64; 2] = [160.0, 197.0];
const PASSED: [f64; 2] = [14.7, 17.4];
/// How far one may be from its figure: how often a thread looks for work in vain is chance, and compilers differ.
const CLOSE: f64 = 0.15;

/// So many requests over one connection.
const CLIENT: &str = r#"
import http.client, sys
listen, method, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
connection = http.client.HTTPConnection(listen, timeout=60)
for number in range(count):
    body = '{"guest":"Ada"}' if method == "POST" else None
    connection.request(method, f"/trips/{number}", body, {"Host": "trips.default.svc:8080"})
    answer = connection.getresponse()
    answer.read()
    # What passes is asked of a service that has no such page.
    assert answer.status == (201 if method == "POST" else 404), answer.status
"#;

/// Of one Qbox from its start to its end, in which it has had so many requests.
fn whole_life(saga: &str, method: &str, count: u32) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let counted = folder.path().join("counted");
    let valgrind = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        "--quiet".to_owned(),
        // Qbox may be behind a script: the last one to end is it.
        "--trace-children=yes".to_owned(),
        format!("--callgrind-out-file={}", counted.display()),
    ];
    let mut world = ExplicitWorld::with(0, saga, &valgrind)?;
    let client = Command::new("python3")
        .args(["-c", CLIENT, &world.listen, method, &count.to_string()])
        .status()?;
    ensure!(client.success(), "the client failed: {}", world.qbox.log());
    world.qbox.stop(Signal::TERM)?;
    let text = fs::read_to_string(&counted)?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals:"));
    Ok(line
        .with_context(|| format!("callgrind told nothing: {}", world.qbox.log()))?
        .trim()
        .parse()?)
}

/// No dearer than the figure; and no cheaper either, or the figure is to be lowered.
fn held(what: &str, saga: &str, method: &str, [profiled, plain]: [f64; 2]) -> Result<()> {
    // A compiler that no profile was made with builds without.
    let without = env::var("QBOX_PROFILED").is_ok_and(|profiled| profiled == "no");
    let figure = if without { plain } else { profiled };
    let (few, many) = (whole_life(saga, method, FEW)?, whole_life(saga, method, MANY)?);
    let each = (many - few) / f64::from(MANY - FEW) / 1000.0;
    println!("{what}: {each:.1} thousand instructions");
    ensure!(
        (each / figure - 1.0).abs() <= CLOSE,
        "{what} takes {each:.1} thousand instructions, where this file says {figure}"
    );
    Ok(())
}

#[test]
fn a_saga_that_is_synced() -> Result<()> {
    held("a synced saga", &book_trip()?, "POST", SYNCED)
}

#[test]
fn a_saga_that_is_kept_in_memory() -> Result<()> {
    held("an unsynced saga", &book_trip_in_memory()?, "POST", UNSYNCED)
}

#[test]
fn a_request_that_passes() -> Result<()> {
    held("a request that passes", &book_trip()?, "GET", PASSED)
}
