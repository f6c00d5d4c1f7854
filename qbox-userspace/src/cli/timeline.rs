//! `qbox sagas show`: one saga's history as a timeline. At its top what became of it, then where the time went, step by step, then
//! each attempt with its start, its duration and its answer.

use super::colour::{self, Colour};
use super::show::{list, number, plain, table, text};
use super::time::{moment, span};
use crate::saga::Timestamp;
use serde_json::Value;
use std::fmt::Write;

/// Columns of a step's bar.
const BAR: usize = 40;
/// Characters of an answer's body that fit on its line.
const BODY: usize = 160;

/// Draws what the API says of a saga.
pub(super) fn saga(saga: &Value) -> String {
    let events = list(saga, "events");
    let mut out = head(saga);
    out.push_str(&steps(saga, events));
    out.push('\n');
    out.push_str(&rows(events));
    out
}

fn offset(event: &Value) -> u64 {
    number(event, "offset_us").unwrap_or_default()
}

fn head(saga: &Value) -> String {
    let mut out = format!(
        "{} {}: {}",
        text(saga, "name"),
        text(saga, "id"),
        colour::state(&text(saga, "state"))
    );
    let arrived = number(saga, "arrived").unwrap_or_default();
    let since = |at: u64| span(at.saturating_sub(arrived));
    if let Some(ended) = number(saga, "ended") {
        let _ = write!(out, " after {}", since(ended));
    }
    if saga.get("paused").and_then(Value::as_bool) == Some(true) {
        out.push_str(", paused");
    }
    out.push('\n');
    let mut line = |what: &str, value: &str| {
        let _ = writeln!(out, "  {what:<8}{value}");
    };
    let began = list(saga, "events")
        .iter()
        .find(|event| text(event, "kind") == "began");
    let at = moment(Timestamp(arrived));
    match began {
        Some(began) => line(
            "trigger",
            &format!("{} {} at {at}", text(began, "method"), text(began, "url")),
        ),
        None => line("trigger", &format!("at {at}")),
    }
    if let Some(replied) = saga.get("replied").filter(|replied| replied.is_object()) {
        let status = number(replied, "status").unwrap_or_default();
        let after = since(number(replied, "at").unwrap_or_default());
        line("caller", &format!("answered {status} after {after}"));
    }
    if saga.get("cause").is_some_and(Value::is_string) {
        line("cause", &text(saga, "cause"));
    }
    if let Some(parent) = saga.get("parent").filter(|parent| parent.is_object()) {
        let undone = match saga.get("revoked").and_then(Value::as_bool) {
            Some(true) => ", which undoes it",
            _ => "",
        };
        let (id, step) = (text(parent, "saga"), text(parent, "step"));
        line("nested", &format!("in {id}, for its step {step}{undone}"));
    }
    for child in list(saga, "children") {
        let (step, name, id, state) = (
            text(child, "step"),
            text(child, "name"),
            text(child, "id"),
            text(child, "state"),
        );
        line("began", &format!("{name} {id} for {step}: {state}"));
    }
    for stuck in list(saga, "stuck") {
        let since = moment(Timestamp(number(stuck, "since").unwrap_or_default()));
        let mut what = format!("{} since {since}: {}", text(stuck, "step"), text(stuck, "cause"));
        if stuck.get("last").is_some_and(Value::is_string) {
            let _ = write!(what, "; last: {}", text(stuck, "last"));
        }
        line("stuck", &Colour::Bad.paint(&what));
    }
    if let Some(why) = waits(saga) {
        line("waits", &why);
    }
    out
}

/// Why a saga has not ended although nothing of it is left to do.
fn waits(saga: &Value) -> Option<String> {
    if let Some(listening) = saga.get("listening").filter(|listening| listening.is_object()) {
        let steps: Vec<_> = list(listening, "steps")
            .iter()
            .filter_map(Value::as_str)
            .map(plain)
            .collect();
        let until = moment(Timestamp(number(listening, "until").unwrap_or_default()));
        return Some(format!(
            "only for a late answer of {}, until {until} at the most (upstream.linger): all is undone, and a success that still comes \
             would be undone too",
            steps.join(", ")
        ));
    }
    let over = matches!(&*text(saga, "state"), "committed" | "compensated");
    (over && number(saga, "ended").is_none()).then(|| {
        "only for an attempt that is still in flight: whatever it is answered, the outcome stays".to_owned()
    })
}

/// Where the time went: a row for each step, and in it a bar over the saga's whole time.
fn steps(saga: &Value, events: &[Value]) -> String {
    let steps = list(saga, "steps");
    if steps.is_empty() || events.is_empty() {
        return String::new();
    }
    let whole = events.iter().map(offset).max().unwrap_or_default().max(1);
    let rows = steps.iter().map(|step| {
        let name = text(step, "name").into_owned();
        let sent = [number(step, "attempts"), number(step, "compensations")].map(Option::unwrap_or_default);
        let bar = bar(&name, events, whole);
        [
            name,
            colour::state(&text(step, "state").replace('_', " ")),
            match sent {
                [forward, 0] => forward.to_string(),
                [forward, back] => format!("{forward}+{back}"),
            },
            number(step, "took_us").map_or_else(|| "-".to_owned(), span),
            format!("|{bar}|"),
        ]
    });
    let scale = format!("|{:-^BAR$}|", format!(" {} ", span(whole)));
    let mut out = "\n".to_owned();
    out.push_str(&table(["STEP", "STATE", "SENT", "TOOK", &scale], rows));
    out.push_str("= request  < compensation  x failed  . waits for its next attempt\n");
    out
}

/// What of a cell's time is shown where there is more than one thing.
fn rank(cell: char) -> usize {
    " .=<x".find(cell).unwrap_or_default()
}

fn bar(step: &str, events: &[Value], whole: u64) -> String {
    let mut cells = [' '; BAR];
    let mut draw = |from: u64, to: u64, mark: char| {
        let place = |at: u64| {
            let place = u128::from(at) * BAR as u128 / u128::from(whole);
            usize::try_from(place).unwrap_or(BAR).min(BAR - 1)
        };
        for cell in cells.iter_mut().take(place(to) + 1).skip(place(from)) {
            if rank(mark) > rank(*cell) {
                *cell = mark;
            }
        }
    };
    for event in events.iter().filter(|event| text(event, "step") == step) {
        let (at, kind) = (offset(event), text(event, "kind"));
        let back = matches!(&*text(event, "direction"), "compensation" | "child");
        match &*kind {
            "sending" => match ended(event, events) {
                Some(end) => {
                    let applied = text(end, "class") == "applied";
                    let mark = match (applied, back) {
                        (false, _) => 'x',
                        (true, true) => '<',
                        (true, false) => '=',
                    };
                    draw(at, offset(end), mark);
                }
                None => draw(at, whole, if back { '<' } else { '=' }),
            },
            "retry_at" => {
                let due = number(event, "due").zip(number(event, "at"));
                let wait = due.map_or(0, |(due, now)| due.saturating_sub(now));
                draw(at, at.saturating_add(wait).min(whole), '.');
            }
            _ => {}
        }
    }
    cells.iter().collect()
}

/// The end of an attempt whose beginning is `sending`.
fn ended<'a>(sending: &Value, events: &'a [Value]) -> Option<&'a Value> {
    let same = |key: &str, event: &Value| event.get(key) == sending.get(key);
    events.iter().find(|event| {
        text(event, "kind") == "ended"
            && ["step", "direction", "compensation", "attempt"]
                .iter()
                .all(|key| same(key, event))
    })
}

/// What happened, from top to bottom. An attempt is one row, where it begins.
fn rows(events: &[Value]) -> String {
    let mut bodies = Vec::new();
    let mut rows = Vec::new();
    for event in events {
        let begins = format!("+{}", span(offset(event)));
        let step = event
            .get("step")
            .map_or_else(String::new, |_| text(event, "step").into_owned());
        let (took, what) = match &*text(event, "kind") {
            "sending" => {
                let end = ended(event, events);
                if let Some(body) = end.and_then(body) {
                    bodies.push((rows.len(), body));
                }
                let took = end.and_then(|end| number(end, "took_us")).map(span);
                (took.unwrap_or_else(|| "-".to_owned()), attempt(event, end))
            }
            // It stands beside its beginning.
            "ended" => continue,
            "retry_at" => {
                let wait = number(event, "due").zip(number(event, "at"));
                let wait = wait.map_or_else(String::new, |(due, now)| {
                    format!(" in {}", span(due.saturating_sub(now)))
                });
                (String::new(), format!("{} again{wait}", message(event)))
            }
            _ => {
                let told = text(event, "text");
                let own = told.strip_prefix(&*step).and_then(|rest| rest.strip_prefix(": "));
                (String::new(), own.unwrap_or(&told).to_owned())
            }
        };
        rows.push([begins, took, step, what]);
    }
    let drawn = table(["START", "TOOK", "STEP", "WHAT"], rows.into_iter());
    // A body goes below its row, out of the table: it is as wide as it is.
    let mut out = String::new();
    for (number, line) in drawn.lines().enumerate() {
        out.push_str(line);
        out.push('\n');
        for (_, body) in bodies.iter().filter(|(row, _)| row + 1 == number) {
            let _ = writeln!(out, "    {body}");
        }
    }
    out
}

/// `transaction #2`.
fn message(event: &Value) -> String {
    let number = number(event, "attempt").unwrap_or(1);
    match event.get("compensation").and_then(Value::as_u64) {
        Some(which) if which > 1 => format!("compensation {which} #{number}"),
        _ => format!("{} #{number}", text(event, "direction")),
    }
}

/// `transaction #2 PUT http://hotel/7: answered 409, not applied`.
fn attempt(sending: &Value, end: Option<&Value>) -> String {
    let mut what = message(sending);
    if sending.get("url").is_some() {
        let _ = write!(what, " {} {}", text(sending, "method"), text(sending, "url"));
    }
    let Some(end) = end else {
        return what + ": in flight";
    };
    let how = text(end, "end").replace('_', " ");
    let _ = write!(what, ": {how}");
    if let Some(status) = number(end, "status") {
        let _ = write!(what, " {status}");
    }
    if end.get("cause").is_some() {
        let _ = write!(what, " ({})", text(end, "cause"));
    }
    let back = text(sending, "direction") == "compensation";
    let class = match (&*text(end, "class"), back) {
        ("applied", true) => "undone".to_owned(),
        (_, true) => "not undone".to_owned(),
        (class, false) => class.replace('_', " "),
    };
    let _ = write!(what, ", {class}");
    what
}

/// How the body of an answer that failed begins, on one line.
fn body(end: &Value) -> Option<String> {
    if text(end, "class") == "applied" {
        return None;
    }
    let body = end.get("body")?.as_str()?;
    let line = body.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = line.chars().take(BODY).collect();
    let longer = number(end, "body_bytes");
    if longer.is_some() || shown.len() < line.len() {
        shown.push('…');
    }
    if let Some(bytes) = longer {
        let _ = write!(shown, " ({bytes} bytes)");
    }
    Some(plain(&shown).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        let sent = |step: &str, direction: &str, attempt: u64, at: u64| {
            json!({ "at": at, "offset_us": at, "kind": "sending", "step": step, "direction": direction,
                "attempt": attempt, "method": "PUT", "url": format!("http://{step}/7"), "text": "?" })
        };
        let ended = |step: &str,
                     direction: &str,
                     attempt: u64,
                     at: u64,
                     took: u64,
                     class: &str,
                     status: u64| {
            json!({ "at": at, "offset_us": at, "kind": "ended", "step": step, "direction": direction,
                "attempt": attempt, "end": "answered", "status": status, "class": class, "took_us": took, "text": "?" })
        };
        let mut refused = ended("car", "transaction", 2, 80_000, 20_000, "not_applied", 409);
        refused["body"] = "{\n  \"error\":\t\"no \u{1b}[31mcars\"\n}".into();
        json!({
            "id": "0190", "name": "book-trip", "state": "compensated", "arrived": 0, "ended": 100_000,
            "cause": "car: answered 409", "replied": { "at": 100_000, "status": 502 },
            "steps": [
                { "name": "hotel", "state": "undone", "attempts": 1, "compensations": 1, "took_us": 30_000 },
                { "name": "car", "state": "not_applied", "attempts": 2, "compensations": 0, "took_us": 30_000 },
            ],
            "events": [
                { "at": 0, "offset_us": 0, "kind": "began", "method": "POST", "url": "http://trips/trips/7", "text": "saga book-trip began" },
                sent("hotel", "transaction", 1, 0),
                ended("hotel", "transaction", 1, 20_000, 20_000, "applied", 201),
                sent("car", "transaction", 1, 20_000),
                ended("car", "transaction", 1, 30_000, 10_000, "unknown", 500),
                { "at": 30_000, "offset_us": 30_000, "kind": "retry_at", "step": "car", "direction": "transaction",
                  "attempt": 2, "due": 60_000, "text": "?" },
                sent("car", "transaction", 2, 60_000),
                refused,
                { "at": 80_000, "offset_us": 80_000, "kind": "step_failed", "step": "car", "text": "car: failed, not applied (answered 409)" },
                sent("hotel", "compensation", 1, 90_000),
                ended("hotel", "compensation", 1, 100_000, 10_000, "applied", 204),
            ],
        })
    }

    #[test]
    fn a_history_reads_from_top_to_bottom() {
        let drawn = saga(&sample());
        let wanted = "\
book-trip 0190: compensated after 100.0ms
  trigger POST http://trips/trips/7 at 1970-01-01T00:00:00.000Z
  caller  answered 502 after 100.0ms
  cause   car: answered 409

STEP   STATE        SENT  TOOK    |--------------- 100.0ms ----------------|
hotel  undone       1+1   30.0ms  |=========                           <<<<|
car    not applied  2     30.0ms  |        xxxxx...........xxxxxxxxx       |
= request  < compensation  x failed  . waits for its next attempt

START    TOOK    STEP   WHAT
+0µs                    saga book-trip began
+0µs     20.0ms  hotel  transaction #1 PUT http://hotel/7: answered 201, applied
+20.0ms  10.0ms  car    transaction #1 PUT http://car/7: answered 500, unknown
+30.0ms          car    transaction #2 again in 30.0ms
+60.0ms  20.0ms  car    transaction #2 PUT http://car/7: answered 409, not applied
    { \"error\": \"no \\u{1b}[31mcars\" }
+80.0ms          car    failed, not applied (answered 409)
+90.0ms  10.0ms  hotel  compensation #1 PUT http://hotel/7: answered 204, undone
";
        assert_eq!(drawn, wanted, "\n{drawn}");
    }

    #[test]
    fn what_is_in_flight_or_stuck_is_said() {
        let mut saga = sample();
        saga["events"].as_array_mut().unwrap().pop();
        saga["state"] = "stuck".into();
        saga["ended"] = Value::Null;
        saga["paused"] = true.into();
        saga["stuck"] =
            json!([{ "step": "hotel", "cause": "5 attempts", "since": 0, "last": "answered 500" }]);
        let drawn = super::saga(&saga);
        assert!(drawn.starts_with("book-trip 0190: stuck, paused\n"), "{drawn}");
        let stuck = "  stuck   hotel since 1970-01-01T00:00:00.000Z: 5 attempts; last: answered 500\n";
        assert!(drawn.contains(stuck), "{drawn}");
        assert!(
            drawn.ends_with("-       hotel  compensation #1 PUT http://hotel/7: in flight\n"),
            "{drawn}"
        );
    }

    #[test]
    fn a_saga_that_only_waits_for_what_may_come_late_says_so() {
        let mut one = sample();
        assert!(!saga(&one).contains("  waits"));
        one["state"] = "compensating".into();
        one["ended"] = Value::Null;
        one["listening"] = json!({ "steps": ["hotel", "car"], "until": 10_000_000 });
        let drawn = saga(&one);
        let waits = "  waits   only for a late answer of hotel, car, until 1970-01-01T00:00:10.000Z at the most (upstream.linger)";
        assert!(drawn.contains(waits), "{drawn}");
        one["listening"] = Value::Null;
        assert!(!saga(&one).contains("  waits"));
        one["state"] = "committed".into();
        assert!(saga(&one).contains("  waits   only for an attempt that is still in flight"));
    }

    #[test]
    fn a_saga_that_has_not_begun_has_no_history() {
        let waiting = json!({ "id": "0190", "name": "x", "state": "waiting", "arrived": 0, "ended": null, "events": [],
            "steps": [{ "name": "a", "state": "pending", "attempts": 0, "compensations": 0, "took_us": 0 }] });
        let drawn = saga(&waiting);
        assert!(drawn.starts_with("x 0190: waiting\n"), "{drawn}");
    }
}
