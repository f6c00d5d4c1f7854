//! What a saga and a request that passes cost in system calls, syncs and allocations, against the figures below: a count is the same on a
//! busy machine. For instructions see `instructions.rs`.
//!
//! One client, one after the other. A figure is the slope from few to many, so that what is done once or now and then is none of it.
//! Whoever makes Qbox cheaper lowers the figure; whoever makes it dearer says in the commit why it is worth it.

use anyhow::{Result, ensure};
use qbox_tests::process::{self, Calls};
use qbox_tests::{Settings, World, book_trip, book_trip_in_memory};

/// From so many requests to so many.
const FEW: u32 = 40;
const MANY: u32 = 240;

/// What one costs.
#[derive(Debug)]
struct Cost {
    calls: Calls,
    allocations: f64,
}

/// A saga of three steps at once, its journal synced.
const SYNCED: Cost = Cost {
    calls: Calls {
        reads: 4.0,
        writes: 5.7,
        waits: 5.1,
        others: 9.2,
    },
    allocations: 207.0,
};
/// The same with `durability = "none"`.
const UNSYNCED: Cost = Cost {
    calls: Calls {
        reads: 4.0,
        // The requests of its three steps are one call of io_uring's, which is among the others.
        writes: 1.0,
        waits: 2.4,
        others: 1.0,
    },
    allocations: 204.0,
};
/// A request that is no trigger, on a kept connection that is captured.
const PASSED: Cost = Cost {
    calls: Calls {
        reads: 2.0,
        writes: 2.0,
        waits: 2.0,
        others: 0.0,
    },
    allocations: 0.0,
};
/// How far a count may be from its figure: a part of it, and so much more. Reads and writes follow from what is done.
const CLOSE: (f64, f64) = (0.08, 0.25);
/// How often a thread waits or wakes another one is also chance; and less of it is always well.
const LOOSE: (f64, f64) = (0.5, 1.5);

/// So many requests over one connection.
const CLIENT: &str = r#"
import http.client, sys
method, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
connection = http.client.HTTPConnection("trips.default.svc", 8080, timeout=60)
for number in range(first, first + count):
    connection.request(method, f"/trips/{number}", '{"guest":"Ada"}' if method == "POST" else None)
    answer = connection.getresponse()
    answer.read()
    # What passes is asked of a service that has no such page.
    assert answer.status == (201 if method == "POST" else 404), answer.status
"#;

/// For each request, and how many syncs.
fn cost(world: &World, method: &str) -> Result<(Cost, f64)> {
    let tree = process::tree(world.qbox.id())?;
    let file = world.node.folder().join("calls");
    let mut next = 0;
    let mut run = |count: u32| {
        let counted = || {
            let metric = |name| world.qbox.admin().metric(name);
            anyhow::Ok([
                metric("qbox_journal_syncs_total")?,
                metric("qbox_allocations_total")?,
            ])
        };
        let before = counted()?;
        let (calls, _) = process::calls(&tree, &file, || {
            world
                .client
                .python(CLIENT, &[method, &next.to_string(), &count.to_string()])
        })?;
        next += count;
        let [syncs, allocations] = counted()?;
        let more = |now: u64, before: u64| anyhow::Ok(f64::from(u32::try_from(now - before)?));
        anyhow::Ok((calls, more(allocations, before[1])?, more(syncs, before[0])?))
    };
    // Connections to the services are made, and kept.
    run(FEW)?;
    let (few, few_allocations, few_syncs) = run(FEW)?;
    let (many, many_allocations, many_syncs) = run(MANY)?;
    let requests = f64::from(MANY - FEW);
    let slope = Calls {
        reads: many.reads - few.reads,
        writes: many.writes - few.writes,
        waits: many.waits - few.waits,
        others: many.others - few.others,
    };
    let cost = Cost {
        calls: slope.each(requests),
        allocations: (many_allocations - few_allocations) / requests,
    };
    Ok((cost, (many_syncs - few_syncs) / requests))
}

/// No dearer than the figure; and no cheaper either, or the figure is to be lowered.
fn held(what: &str, measured: &Cost, figure: &Cost) -> Result<()> {
    println!("{what}: {measured:.2?}");
    let (is, was) = (measured.calls, figure.calls);
    let most = |was: f64, (part, more): (f64, f64)| was + was * part + more;
    let close = |is: f64, was: f64| is <= most(was, CLOSE) && was <= most(is, CLOSE);
    ensure!(
        close(is.reads, was.reads)
            && close(is.writes, was.writes)
            && close(measured.allocations, figure.allocations)
            && is.waits <= most(was.waits, LOOSE)
            && is.others <= most(was.others, LOOSE),
        "{what} takes {measured:.2?}, where this file says {figure:.2?}"
    );
    Ok(())
}

#[test]
fn a_saga_that_is_synced() -> Result<()> {
    let world = World::new(&Settings::saga(book_trip()?))?;
    let (cost, syncs) = cost(&world, "POST")?;
    println!("{syncs} syncs");
    ensure!((1.9..=2.05).contains(&syncs), "{syncs} syncs a saga");
    held("a synced saga", &cost, &SYNCED)
}

#[test]
fn a_saga_that_is_kept_in_memory() -> Result<()> {
    let world = World::new(&Settings::saga(book_trip_in_memory()?))?;
    let (cost, syncs) = cost(&world, "POST")?;
    ensure!(syncs < 0.1, "{syncs} syncs a saga");
    held("an unsynced saga", &cost, &UNSYNCED)
}

#[test]
fn a_request_that_passes() -> Result<()> {
    let world = World::book_trip()?;
    let (cost, syncs) = cost(&world, "GET")?;
    ensure!(syncs < 0.1, "{syncs} syncs a request");
    held("a request that passes", &cost, &PASSED)
}
