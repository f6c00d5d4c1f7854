//! `cargo xtask bench matching`: what it costs to find a request's saga among many, and to load many. Status 0 only if
//! among 1,000 sagas it costs less than three times what it costs among 10.
//!
//! Three kinds of neighbours, each on one host and port: sagas that differ in a literal of the path, in a capture's surroundings, and in
//! the value of a header. `QBOX_BENCH_FOUND` names a file for what was found, as `cargo xtask bench` puts it into docs/performance.md.

use anyhow::{Result, ensure};
use qbox::config::{check_paths, load_saga};
use qbox::gateway::{Definition, Index};
use qbox::saga::RequestHead;
use serde_json::json;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Matches that are timed in one go, and how often: the quickest counts, the others were disturbed.
const TURNS: usize = 20_000;
const TRIES: usize = 30;
/// How much dearer 1,000 may be than 10.
const LIMIT: f64 = 3.0;

const KINDS: [&str; 3] = ["a literal", "around a capture", "a header's value"];

/// The Nth saga of a kind.
fn saga(kind: &str, number: usize) -> String {
    let (url, more) = match kind {
        "a literal" => (format!("orders/o{number}"), String::new()),
        "around a capture" => (format!("shops/{{shop}}/o{number}"), String::new()),
        _ => (
            "orders".to_owned(),
            format!("headers = {{ x-tenant = \"t{number}\" }}\n"),
        ),
    };
    format!(
        "name = \"s{number}\"\n[trigger]\nmethod = \"POST\"\nurl = \"http://shop.default.svc:8080/{url}\"\n{more}\
         [[step]]\nname = \"stock\"\nrequest = {{ method = \"PUT\", url = \"http://stock/x\" }}\n\
         [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"http://stock/x\" }}\n"
    )
}

fn index(kind: &str, count: usize) -> Result<Index> {
    let mut definitions = Vec::new();
    for number in 0..count {
        let read = load_saga(&saga(kind, number), "bench.toml");
        let (plan, _) = read.map_err(|found| anyhow::anyhow!("{found:?}"))?;
        definitions.push(Definition::new(Arc::new(plan))?);
    }
    Ok(Index::new(&definitions))
}

/// The quickest of some tries: a match, and a request that matches none.
fn measure(kind: &str, count: usize) -> Result<[Duration; 2]> {
    let index = index(kind, count)?;
    let number = count / 2;
    let (target, tenant) = match kind {
        "a literal" => (format!("/orders/o{number}"), String::new()),
        "around a capture" => (format!("/shops/7/o{number}"), String::new()),
        _ => ("/orders".to_owned(), format!("t{number}")),
    };
    let mut best = [Duration::MAX; 2];
    for (place, (target, tenant, found)) in best.iter_mut().zip([
        (target.as_str(), tenant.as_str(), true),
        ("/orders/none", "none", false),
    ]) {
        let fields = [
            ("Host", "shop.default.svc:8080"),
            ("Accept", "*/*"),
            ("X-Tenant", tenant),
        ];
        let fields = fields.map(|(name, value)| (name, value.as_bytes()));
        for _ in 0..TRIES {
            let begun = Instant::now();
            for _ in 0..TURNS {
                // As a request comes: its head first, then with its body.
                let head = RequestHead::new(black_box("POST"), black_box(target), fields.iter().copied());
                let matched = head.is_some_and(|head| {
                    index.could_match(&head).is_some() && index.find(&head, b"").is_some()
                });
                ensure!(matched == found, "{kind}, {count}: {target}");
            }
            *place = (*place).min(begun.elapsed() / u32::try_from(TURNS)?);
        }
    }
    Ok(best)
}

fn loading(count: usize) -> Result<Duration> {
    let folder = tempfile::tempdir()?;
    for number in 0..count {
        fs::write(
            folder.path().join(format!("s{number}.toml")),
            saga("a literal", number),
        )?;
    }
    let begun = Instant::now();
    let report = check_paths(&[folder.path().to_owned()]);
    ensure!(report.sagas == count && !report.has_errors(), "{report}");
    Ok(begun.elapsed())
}

fn main() -> Result<()> {
    let mut ratios: Vec<f64> = Vec::new();
    let mut text =
        "| told apart by | among 10 | among 100 | among 1,000 | 1,000 to 10 |\n|---|---|---|---|---|\n"
            .to_owned();
    for kind in KINDS {
        let (ten, hundred, thousand) = (measure(kind, 10)?, measure(kind, 100)?, measure(kind, 1000)?);
        for (what, at) in [("", 0), (", none matches", 1)] {
            let [ten, hundred, thousand] =
                [ten, hundred, thousand].map(|times| times.get(at).copied().unwrap_or_default());
            let ratio = thousand.as_secs_f64() / ten.as_secs_f64();
            ratios.push(ratio);
            writeln!(
                text,
                "| {kind}{what} | {ten:.0?} | {hundred:.0?} | {thousand:.0?} | {ratio:.2}× |"
            )?;
        }
    }
    text.push('\n');
    for count in [100, 1000, 1500] {
        writeln!(
            text,
            "{count} files read, checked and compared: {:.1?}.",
            loading(count)?
        )?;
    }
    println!("{text}");
    if let Some(file) = std::env::var_os("QBOX_BENCH_FOUND") {
        let figures: Vec<_> = ratios
            .iter()
            .map(|ratio| (format!("{ratio:.2}×"), *ratio < LIMIT))
            .collect();
        let goal = json!({
            "what": "a match among 1,000 sagas, to among 10",
            "limit": format!("below {LIMIT}×"),
            "found": figures,
        });
        fs::write(file, json!({ "text": text, "goals": [goal] }).to_string())?;
    }
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    ensure!(
        worst < LIMIT,
        "among 1,000 sagas a match costs {worst:.1} times what it costs among 10; the limit is {LIMIT}"
    );
    Ok(())
}
