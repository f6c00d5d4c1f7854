//! The API's JSON as text for people. What is missing in the JSON is left out: a newer or older Qbox may be asked.

use super::colour::{self, Colour};
use super::time::{moment, span};
use crate::saga::Timestamp;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Write;

/// A text that a terminal takes for nothing but text: URLs, bodies and reasons are other people's.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let written = text.chars().map(|c| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    Cow::Owned(written.collect())
}

/// A text of `value`; `-` where it has none.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> Cow<'a, str> {
    plain(value.get(key).and_then(Value::as_str).unwrap_or("-"))
}

/// A number of `value`.
pub(super) fn number(value: &Value, key: &str) -> Option<u64> {
    value.get(key).and_then(Value::as_u64)
}

/// A list of `value`; empty where it has none.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// How long the saga took; `-` while it runs.
fn took(saga: &Value) -> String {
    match (number(saga, "arrived"), number(saga, "ended")) {
        (Some(arrived), Some(ended)) => span(ended.saturating_sub(arrived)),
        _ => "-".to_owned(),
    }
}

/// `qbox sagas list`.
pub(super) fn sagas(answer: &Value) -> String {
    let rows = list(answer, "sagas").iter().map(|saga| {
        [
            text(saga, "id").into_owned(),
            text(saga, "name").into_owned(),
            state(saga),
            moment(Timestamp(number(saga, "arrived").unwrap_or_default())),
            took(saga),
            failed(saga),
        ]
    });
    let mut out = match list(answer, "sagas").iter().any(|saga| parent(saga).is_some()) {
        false => table(["ID", "NAME", "STATE", "ARRIVED", "TOOK", "FAILED STEP"], rows),
        true => {
            let parents = list(answer, "sagas")
                .iter()
                .map(|saga| parent(saga).unwrap_or_else(|| "-".to_owned()));
            let rows = rows
                .zip(parents)
                .map(|([a, b, c, d, e, f], parent)| [a, b, c, d, e, f, parent]);
            table(
                [
                    "ID",
                    "NAME",
                    "STATE",
                    "ARRIVED",
                    "TOOK",
                    "FAILED STEP",
                    "NESTED IN",
                ],
                rows,
            )
        }
    };
    if answer.get("next").is_some_and(Value::is_string) {
        let _ = writeln!(out, "more: --cursor {}", text(answer, "next"));
    }
    out
}

/// The step of another saga that it was begun for.
fn parent(saga: &Value) -> Option<String> {
    let parent = saga.get("parent").filter(|parent| parent.is_object())?;
    Some(format!("{}/{}", text(parent, "saga"), text(parent, "step")))
}

/// The steps that are stuck, or else the one that failed.
fn failed(saga: &Value) -> String {
    let stuck: Vec<_> = list(saga, "stuck")
        .iter()
        .map(|stuck| text(stuck, "step"))
        .collect();
    match stuck.is_empty() {
        true => text(saga, "failed_step").into_owned(),
        false => stuck.join(", "),
    }
}

/// The state, and whether an operator holds it, or nothing but a late answer.
fn state(saga: &Value) -> String {
    let mut state = colour::state(&text(saga, "state"));
    if saga.get("paused").and_then(Value::as_bool) == Some(true) {
        state.push_str(", paused");
    }
    if saga.get("listening").is_some_and(Value::is_object) {
        state.push_str(", listens");
    }
    state
}

/// `qbox status`.
pub(super) fn status(answer: &Value) -> String {
    let count = |place: &str| answer.pointer(place).and_then(Value::as_u64).unwrap_or_default();
    let capture = answer.get("capture").unwrap_or(&Value::Null);
    let page = match answer.get("admin") {
        Some(_) => format!(", page http://{}/", text(answer, "admin")),
        None => String::new(),
    };
    let mut out = format!(
        "qbox {}, process {}{page}\n",
        text(answer, "version"),
        count("/pid")
    );
    let checked =
        number(answer, "checked").map_or_else(String::new, |ago| format!(", as it found {ago} s ago"));
    let _ = match &*text(capture, "mode") {
        "ebpf" => writeln!(
            out,
            "captures the pods below {} ({} now){checked}",
            below(capture),
            count("/pods")
        ),
        _ => writeln!(out, "listens on {} (explicit mode)", text(capture, "listen")),
    };
    if let Some(api) = answer.get("kubernetes") {
        let number = |key| number(api, key).unwrap_or_default();
        let _ = writeln!(
            out,
            "enrolled: {} of {} pods of the node {}, by {}",
            number("enrolled"),
            number("pods"),
            text(api, "node"),
            text(api, "enroll")
        );
        if api.get("away").is_some() {
            let (away, error) = (number("away"), text(api, "error"));
            let _ = writeln!(
                out,
                "the Kubernetes API has not answered for {away} s, what was known stays: {error}"
            );
        }
    }
    for other in list(capture, "others") {
        let first = other.get("first").and_then(Value::as_bool).unwrap_or_default();
        let _ = writeln!(
            out,
            "another program runs {} Qbox's on {} of {}: {} (id {})",
            if first { "before" } else { "after" },
            text(other, "hook"),
            text(other, "cgroup"),
            text(other, "program"),
            number(other, "id").unwrap_or_default()
        );
    }
    let _ = writeln!(
        out,
        "sagas: {} defined, {} of {} in flight{}",
        count("/definitions"),
        count("/sagas/in_flight"),
        count("/sagas/capacity"),
        standing(answer)
    );
    let _ = writeln!(
        out,
        "calls to services: {} in flight, {} wait",
        count("/calls/in_flight"),
        count("/calls/waiting")
    );
    let _ = writeln!(
        out,
        "journal: {} on disk, {} wait to be written",
        bytes(count("/journal/size")),
        bytes(count("/journal/queued"))
    );
    if answer.get("definitions_current") == Some(&Value::Bool(false)) {
        let says = "the files of the sagas can't be used as they are, and those above were read before: `qbox reload` says why";
        let _ = writeln!(out, "{}", Colour::Bad.paint(says));
    }
    out.push_str(&needs_restart(answer));
    for circuit in list(answer.get("calls").unwrap_or(&Value::Null), "open") {
        let _ = writeln!(
            out,
            "{} {}, to which connecting fails, for {} s: {}",
            Colour::Doubtful.paint("not called:"),
            text(circuit, "upstream"),
            circuit.get("open").and_then(Value::as_u64).unwrap_or_default(),
            text(circuit, "cause")
        );
    }
    if count("/uncaptured") > 0 {
        let _ = writeln!(
            out,
            "{} {} pods; /api/v1/pods says why",
            Colour::Doubtful.paint("not captured:"),
            count("/uncaptured")
        );
    }
    for map in list(answer, "maps") {
        let [entries, capacity] = ["entries", "capacity"].map(|key| number(map, key).unwrap_or_default());
        if entries > capacity / 5 * 4 {
            let _ = writeln!(
                out,
                "{} the eBPF map {}, {entries} of {capacity}",
                Colour::Doubtful.paint("nearly full:"),
                text(map, "map")
            );
        }
    }
    for doubt in list(answer, "doubts").iter().filter_map(Value::as_str) {
        let _ = writeln!(
            out,
            "{} {}",
            Colour::Doubtful.paint("may be amiss:"),
            plain(doubt)
        );
    }
    let amiss = list(answer, "amiss");
    if amiss.is_empty() {
        out.push_str(&Colour::Good.paint("ready"));
        out.push('\n');
    }
    for what in amiss.iter().filter_map(Value::as_str) {
        let _ = writeln!(out, "{} {}", Colour::Bad.paint("not ready:"), plain(what));
    }
    out
}

/// The sagas that have not ended, by state: `: 2 running, 1 stuck (the longest for 3m05s)`.
fn standing(answer: &Value) -> String {
    let Some(standing) = answer.get("standing") else {
        return String::new();
    };
    let seconds = |key| {
        number(standing, key)
            .filter(|seconds| *seconds > 0)
            .map(|seconds| span(seconds.saturating_mul(1_000_000)))
    };
    let states = standing
        .get("states")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let mut parts: Vec<String> = states
        .filter_map(|(state, count)| Some((state, count.as_u64().filter(|count| *count > 0)?)))
        .map(|(state, count)| match (state.as_str(), seconds("oldest_stuck")) {
            ("stuck", Some(since)) => Colour::Bad.paint(&format!("{count} stuck (the longest for {since})")),
            ("stuck" | "halted", _) => Colour::Bad.paint(&format!("{count} {state}")),
            _ => format!("{count} {}", plain(state)),
        })
        .collect();
    for (key, what) in [("listening", "only for a late answer"), ("paused", "paused")] {
        if let Some(count) = number(standing, key).filter(|count| *count > 0) {
            parts.push(format!("{count} of them {what}"));
        }
    }
    if let Some(since) = seconds("oldest_running") {
        parts.push(format!("the oldest that runs came {since} ago"));
    }
    match parts.is_empty() {
        true => String::new(),
        false => format!(": {}", parts.join(", ")),
    }
}

/// With a unit that helps: `12.3 MiB`.
fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut count, mut unit) = (count as f64 / 1024.0, 0);
    while count >= 1024.0 && unit + 1 < units.len() {
        count /= 1024.0;
        unit += 1;
    }
    format!("{count:.1} {}", units.get(unit).copied().unwrap_or_default())
}

/// What the configuration names, by newer and older Qboxes.
fn below(capture: &Value) -> String {
    let named = list(capture, "cgroups").iter().filter_map(Value::as_str);
    let named: Vec<_> = named.map(plain).collect();
    match named.is_empty() {
        true => text(capture, "cgroup").into_owned(),
        false => named.join(", "),
    }
}

/// Whether pods are captured, and why: `most` of them.
pub(super) fn pods(answer: &Value, most: usize) -> String {
    let lists = [("uncaptured", "no!"), ("pods", "yes"), ("left", "no")];
    let all: Vec<_> = lists
        .iter()
        .flat_map(|(key, captured)| list(answer, key).iter().map(move |pod| (pod, *captured)))
        .collect();
    if all.is_empty() {
        return String::new();
    }
    let rows = all.iter().take(most).map(|(pod, captured)| {
        let why = if pod.get("error").is_some() {
            "error"
        } else {
            "why"
        };
        [
            text(pod, "name").into_owned(),
            (*captured).to_owned(),
            text(pod, why).into_owned(),
        ]
    });
    let mut out = table(["POD", "CAPTURED", "WHY"], rows);
    if all.len() > most {
        let _ = writeln!(out, "{} more: qbox status --pods", all.len() - most);
    }
    out
}

/// `qbox log`.
pub(super) fn log(answer: &Value) -> String {
    format!("{}\n", text(answer, "filter"))
}

/// `qbox reload`.
pub(super) fn definitions(answer: &Value) -> String {
    let rows = list(answer, "definitions").iter().map(|saga| {
        let since = saga.get("since").and_then(Value::as_u64).unwrap_or_default();
        [
            text(saga, "name").into_owned(),
            text(saga, "mode").into_owned(),
            moment(Timestamp(since)),
            text(saga, "file").into_owned(),
        ]
    });
    table(["NAME", "MODE", "SINCE", "FILE"], rows) + &needs_restart(answer)
}

fn needs_restart(answer: &Value) -> String {
    let keys = list(answer, "needs_restart").iter().filter_map(Value::as_str);
    let keys: Vec<_> = keys.collect();
    match keys.is_empty() {
        true => String::new(),
        false => format!(
            "changed in qbox.toml, in force after a restart: {}\n",
            keys.join(", ")
        ),
    }
}

/// Columns as wide as their widest cell.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| colour::width(cell)).max().unwrap_or_default()
    });
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell}{:1$}", "", width.saturating_sub(colour::width(cell))))
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
            { "id": "bb", "name": "x", "state": "stuck", "arrived": 1, "paused": true,
              "failed_step": "car", "stuck": [{ "step": "hotel" }, { "step": "flight" }] },
        ], "next": "bb" });
        assert_eq!(
            sagas(&answer),
            "ID  NAME       STATE          ARRIVED                   TOOK   FAILED STEP\n\
             a   book-trip  committed      1970-01-01T00:00:00.001Z  2.5ms  -\n\
             bb  x          stuck, paused  1970-01-01T00:00:00.000Z  -      hotel, flight\n\
             more: --cursor bb\n"
        );
    }

    #[test]
    fn a_list_tells_of_parents_where_there_are_any() {
        let answer = json!({ "sagas": [
            { "id": "b", "name": "car", "state": "committed", "parent": { "saga": "a", "step": "trip" } },
            { "id": "a", "name": "trip", "state": "running", "parent": null },
        ] });
        let shown = sagas(&answer);
        assert!(shown.lines().next().unwrap().ends_with("NESTED IN"), "{shown}");
        assert!(shown.lines().nth(1).unwrap().ends_with("a/trip"), "{shown}");
    }

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        assert_eq!(plain("a\u{1b}[2J\nb\u{9b}"), "a\\u{1b}[2J\\nb\\u{9b}");
        assert_eq!(plain("Zürich → 旅"), "Zürich → 旅");
    }

    #[test]
    fn a_status_is_one_screen_of_what_runs_and_what_is_wrong() {
        let answer = json!({ "version": "1", "pid": 7, "admin": "127.0.0.1:9901", "pods": 2, "checked": 4, "definitions": 2,
            "capture": { "mode": "ebpf", "cgroup": "/sys/fs/cgroup/qbox" },
            "sagas": { "in_flight": 5, "capacity": 9 }, "calls": { "in_flight": 2, "waiting": 1 },
            "standing": { "states": { "compensating": 1, "running": 2, "stuck": 2, "waiting": 0 }, "listening": 1, "paused": 0,
                "oldest_stuck": 185, "oldest_running": 61 },
            "journal": { "size": 1_500_000, "queued": 12 }, "amiss": [], "doubts": ["the pod a: \u{1b}x"],
            "maps": [{ "map": "flows", "entries": 90, "capacity": 100 }, { "map": "events", "entries": 1, "capacity": 100 }] });
        assert_eq!(
            status(&answer),
            "qbox 1, process 7, page http://127.0.0.1:9901/\n\
             captures the pods below /sys/fs/cgroup/qbox (2 now), as it found 4 s ago\n\
             sagas: 2 defined, 5 of 9 in flight: 1 compensating, 2 running, 2 stuck (the longest for 3m05s), \
             1 of them only for a late answer, the oldest that runs came 1m01s ago\n\
             calls to services: 2 in flight, 1 wait\n\
             journal: 1.4 MiB on disk, 12 B wait to be written\n\
             nearly full: the eBPF map flows, 90 of 100\n\
             may be amiss: the pod a: \\u{1b}x\n\
             ready\n"
        );
    }

    #[test]
    fn pods_are_told_of_with_the_reason() {
        let answer = json!({
            "pods": [{ "name": "shop/web", "why": "its labels fit a=b" }],
            "uncaptured": [{ "name": "shop/db", "why": "x", "error": "port 15001 is taken" }],
            "left": [{ "name": "shop/app", "why": "its labels don't fit a=b" }, { "name": "shop/z" }],
        });
        assert_eq!(
            pods(&answer, 3),
            "POD       CAPTURED  WHY\n\
             shop/db   no!       port 15001 is taken\n\
             shop/web  yes       its labels fit a=b\n\
             shop/app  no        its labels don't fit a=b\n\
             1 more: qbox status --pods\n"
        );
        assert_eq!(pods(&json!({}), 3), "");
    }

    #[test]
    fn a_status_says_who_enrols() {
        let answer = json!({ "capture": { "mode": "ebpf", "cgroup": "/a", "cgroups": ["/a", "/b/*"] }, "pods": 1,
            "kubernetes": { "node": "n", "enroll": "a=b", "pods": 9, "enrolled": 2, "away": 12, "error": "pods: gone" } });
        let shown = status(&answer);
        for line in [
            "captures the pods below /a, /b/* (1 now)\n",
            "enrolled: 2 of 9 pods of the node n, by a=b\n",
            "the Kubernetes API has not answered for 12 s, what was known stays: pods: gone\n",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
    }

    #[test]
    fn a_status_says_why_it_is_not_ready() {
        let answer = json!({ "version": "1", "pid": 7, "capture": { "mode": "explicit", "listen": "127.0.0.1:3001" },
            "amiss": ["stopping"] });
        let shown = status(&answer);
        assert!(shown.contains("listens on 127.0.0.1:3001"), "{shown}");
        assert!(shown.contains("sagas: 0 defined, 0 of 0 in flight\n"), "{shown}");
        assert!(shown.ends_with("not ready: stopping\n"), "{shown}");
    }
}
