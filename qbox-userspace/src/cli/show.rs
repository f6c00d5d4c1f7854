//! The API's JSON as text for people. What is missing in the JSON is left out: a newer or older Qbox may be asked.

use crate::saga::Timestamp;
use serde_json::Value;
use std::fmt::Write;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn moment(value: &Value, key: &str) -> Option<Timestamp> {
    value.get(key).and_then(Value::as_u64).map(Timestamp)
}

/// How long the saga took; `-` while it runs.
fn took(saga: &Value) -> String {
    match (moment(saga, "arrived"), moment(saga, "ended")) {
        (Some(arrived), Some(ended)) => format!("{:.1?}", ended.since(arrived)),
        _ => "-".to_owned(),
    }
}

/// `qbox sagas list`.
pub(super) fn sagas(answer: &Value) -> String {
    let rows = list(answer, "sagas").iter().map(|saga| {
        [
            text(saga, "id").to_owned(),
            text(saga, "name").to_owned(),
            text(saga, "state").to_owned(),
            took(saga),
            text(saga, "failed_step").to_owned(),
        ]
    });
    table(["ID", "NAME", "STATE", "TOOK", "FAILED STEP"], rows)
}

/// `qbox sagas show`.
pub(super) fn saga(answer: &Value) -> String {
    let mut out = format!(
        "{} {}: {}, took {}\n",
        text(answer, "name"),
        text(answer, "id"),
        text(answer, "state"),
        took(answer)
    );
    if let Some(cause) = answer.get("cause").and_then(Value::as_str) {
        let _ = writeln!(out, "cause: {cause}");
    }
    for event in list(answer, "events") {
        let offset = event.get("offset_us").and_then(Value::as_u64).unwrap_or_default();
        let milliseconds = format!("{}.{:03} ms", offset / 1000, offset % 1000);
        let _ = writeln!(out, "{milliseconds:>14}  {}", text(event, "text"));
    }
    out
}

/// `qbox status`.
pub(super) fn status(answer: &Value) -> String {
    let count = |place: &str| answer.pointer(place).and_then(Value::as_u64).unwrap_or_default();
    let capture = answer.get("capture").unwrap_or(&Value::Null);
    let mut out = format!("qbox {}, process {}\n", text(answer, "version"), count("/pid"));
    let _ = match text(capture, "mode") {
        "ebpf" => writeln!(
            out,
            "captures the pods below {} ({} now)",
            text(capture, "cgroup"),
            count("/pods")
        ),
        _ => writeln!(out, "listens on {} (explicit mode)", text(capture, "listen")),
    };
    let _ = writeln!(
        out,
        "sagas: {} defined, {} of {} in flight, {} stuck",
        count("/definitions"),
        count("/sagas/in_flight"),
        count("/sagas/capacity"),
        count("/sagas/stuck")
    );
    for circuit in list(answer.get("calls").unwrap_or(&Value::Null), "open") {
        let _ = writeln!(
            out,
            "not called: {}, to which connecting fails, since {} s: {}",
            text(circuit, "upstream"),
            circuit.get("open").and_then(Value::as_u64).unwrap_or_default(),
            text(circuit, "cause")
        );
    }
    if count("/uncaptured") > 0 {
        let _ = writeln!(
            out,
            "not captured: {} pods; /api/v1/pods says why",
            count("/uncaptured")
        );
    }
    let amiss = list(answer, "amiss");
    if amiss.is_empty() {
        out.push_str("ready\n");
    }
    for what in amiss.iter().filter_map(Value::as_str) {
        let _ = writeln!(out, "not ready: {what}");
    }
    out
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    });
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_line_up() {
        let answer = json!({ "sagas": [
            { "id": "a", "name": "book-trip", "state": "committed", "arrived": 1000, "ended": 3500 },
            { "id": "bb", "name": "x", "state": "running", "arrived": 1 },
        ]});
        assert_eq!(
            sagas(&answer),
            "ID  NAME       STATE      TOOK   FAILED STEP\n\
             a   book-trip  committed  2.5ms  -\n\
             bb  x          running    -      -\n"
        );
    }

    #[test]
    fn a_history_reads_from_top_to_bottom() {
        let answer = json!({ "id": "a", "name": "book-trip", "state": "compensated", "cause": "car: answered 409",
            "arrived": 0, "ended": 12_000, "events": [{ "offset_us": 1042, "text": "hotel: transaction sent" }] });
        assert_eq!(
            saga(&answer),
            "book-trip a: compensated, took 12.0ms\ncause: car: answered 409\n      1.042 ms  hotel: transaction sent\n"
        );
    }

    #[test]
    fn a_status_says_why_it_is_not_ready() {
        let answer = json!({ "version": "1", "pid": 7, "capture": { "mode": "explicit", "listen": "127.0.0.1:3001" },
            "amiss": ["stopping"] });
        let shown = status(&answer);
        assert!(shown.contains("listens on 127.0.0.1:3001"), "{shown}");
        assert!(shown.ends_with("not ready: stopping\n"), "{shown}");
    }
}
