//! docs/metrics.md: its tables are written from what [`described`](super::described) has, and a test holds it to that.

use super::described::{ALL, Described, Kind};
use std::fmt::Write;
use std::path::Path;

const BEGIN: &str = "<!-- From here on `cargo xtask docs` writes: change qbox-userspace/src/admin/metrics/described.rs instead. -->\n";
const END: &str = "<!-- Until here. -->\n";

/// The names of all, as they are drawn.
pub(in crate::admin) fn names() -> Vec<String> {
    let all = ALL.iter().flat_map(|(_, metrics)| *metrics);
    all.map(|metric| format!("qbox_{}{}", metric.name, metric.kind.suffix()))
        .collect()
}

fn row(metric: &Described) -> String {
    let labels = match metric.labels {
        [] => String::new(),
        labels => format!("{{{}}}", labels.join(",")),
    };
    let kind = match metric.kind {
        Kind::Gauge | Kind::Seconds | Kind::Bytes => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
    };
    let (name, suffix) = (metric.name, metric.kind.suffix());
    let said = format!("{}. {}", metric.help, metric.more);
    format!(
        "| `qbox_{name}{suffix}{labels}` | {kind} | {} |\n",
        said.trim_end()
    )
}

fn tables() -> String {
    let mut out = String::new();
    for (heading, metrics) in ALL {
        let _ = writeln!(
            out,
            "\n### {heading}\n\n| Metric | Type | What it is |\n| --- | --- | --- |"
        );
        out.extend(metrics.iter().map(row));
    }
    out.push('\n');
    out
}

/// With `QBOX_WRITE_DOCS` set it writes the page anew.
#[test]
fn the_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let written = format!("{before}{BEGIN}{}{END}{after}", tables());
    if std::env::var_os("QBOX_WRITE_DOCS").is_some() {
        std::fs::write(&path, written).unwrap();
        return;
    }
    assert!(
        page == written,
        "docs/metrics.md is not what /metrics tells: cargo xtask docs"
    );
}

#[test]
fn a_metric_says_what_it_is_and_its_unit_once() {
    for (_, metrics) in ALL {
        for metric in *metrics {
            let Described { name, help, more, .. } = *metric;
            assert!(help.len() > 10 && !help.ends_with('.'), "{name}: {help}");
            assert!(more.is_empty() || more.ends_with('.'), "{name}: {more}");
            for suffix in ["_total", "_seconds", "_bytes"] {
                assert!(!name.ends_with(suffix), "{name}: its kind says {suffix}");
            }
        }
    }
}
