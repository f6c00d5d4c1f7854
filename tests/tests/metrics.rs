//! The metrics of the real binary as Prometheus' own tool reads them, and the alerts and the dashboard of `config/monitoring`.

use anyhow::{Context, Result, ensure};
use qbox_tests::{Act, World, workspace};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn monitoring() -> PathBuf {
    workspace().join("config/monitoring")
}

/// What no panel shows: others show the same.
const ELSEWHERE: [&str; 10] = [
    // What a saga costs in them is held against a figure instead.
    "qbox_allocations_total",
    "qbox_announced_namespaces_total",
    "qbox_build_info",
    "qbox_connections_http2_total",
    "qbox_connections_over_limit_total",
    "qbox_definitions",
    "qbox_pods_left",
    "qbox_reloads_total",
    "qbox_sagas_halted_total",
    "qbox_sagas_held_back_total",
];

/// Told only where the Kubernetes API says which pods are in (`tests/enrolment`).
const OF_KUBERNETES: &str = "qbox_kubernetes_";

/// Runs promtool, which must have nothing to complain about, whatever it exits with.
fn promtool(words: &[&str], input: &str) -> Result<()> {
    let mut tool = Command::new("promtool");
    tool.current_dir(monitoring()).args(words);
    tool.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = tool
        .spawn()
        .context("can't start promtool (Debian's prometheus has it)")?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes())?;
    }
    let done = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success() && said.is_empty(),
        "promtool {words:?}: {said}{}",
        String::from_utf8_lossy(&done.stdout)
    );
    Ok(())
}

/// The metrics that an expression names.
fn named(expression: &str) -> impl Iterator<Item = String> {
    let words = expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("qbox_")).map(str::to_owned)
}

#[test]
fn the_alerts_fire_when_they_should() -> Result<()> {
    promtool(&["check", "rules", "alerts.yaml"], "")?;
    promtool(&["test", "rules", "alerts.test.yaml"], "")
}

/// Each has a case in which it fires, and docs/operations.md says what to do then.
#[test]
fn every_alert_is_tried_and_explained() -> Result<()> {
    let read = |path: &str| std::fs::read_to_string(workspace().join(path));
    let rules = read("config/monitoring/alerts.yaml")?;
    let cases = read("config/monitoring/alerts.test.yaml")?;
    let page = read("docs/operations.md")?;
    let names = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<&str> = names.collect();
    ensure!(alerts.len() > 20, "{alerts:?}");
    for alert in alerts {
        ensure!(
            cases.contains(&format!("alertname=\"{alert}\"")),
            "{alert} is never seen to fire"
        );
        ensure!(
            page.contains(&format!("| `{alert}`")) || page.contains(&format!(", `{alert}`")),
            "docs/operations.md doesn't tell of {alert}"
        );
    }
    Ok(())
}

#[test]
fn prometheus_reads_the_metrics_and_those_that_alerts_and_dashboard_name_are_there() -> Result<()> {
    let world = World::book_trip()?;
    world.book("1", r#"{"guest":"Ada"}"#)?;
    world.service("car")?.when_booking(Act::Refuse(409));
    world.book("2", r#"{"guest":"Ada"}"#)?;
    let metrics = world.qbox.admin().get("/metrics")?.body;
    promtool(&["check", "metrics"], &metrics)?;

    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    let told: BTreeSet<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
    let mut asked: BTreeSet<String> = BTreeSet::new();
    let rules = std::fs::read_to_string(monitoring().join("alerts.yaml"))?;
    asked.extend(named(&rules));
    let dashboard = std::fs::read_to_string(monitoring().join("grafana-dashboard.json"))?;
    let dashboard: Value = serde_json::from_str(&dashboard)?;
    for panel in dashboard["panels"].as_array().context("no panels")? {
        for target in panel["targets"].as_array().context("no targets")? {
            asked.extend(named(target["expr"].as_str().context("no expression")?));
        }
    }
    ensure!(asked.len() > 15, "{asked:?}");
    let missing: Vec<_> = asked
        .iter()
        .filter(|name| !told.contains(name.as_str()) && !name.starts_with(OF_KUBERNETES))
        .collect();
    ensure!(missing.is_empty(), "named, but not told: {missing:?}");

    // And the other way round: what is told is on the dashboard or has an alert.
    let stem = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        let part = parts.iter().find_map(|part| name.strip_suffix(part));
        part.unwrap_or(name).to_owned()
    };
    let asked: BTreeSet<String> = asked.iter().map(|name| stem(name)).collect();
    let unseen: BTreeSet<String> = told
        .iter()
        .map(|name| stem(name))
        .filter(|name| !asked.contains(name))
        .collect();
    let expected: BTreeSet<String> = ELSEWHERE.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(unseen, expected, "neither on the dashboard nor in an alert");
    Ok(())
}
