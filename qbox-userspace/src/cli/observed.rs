//! Triggers of sagas that are only observed, as text: `qbox sagas list --observed`, and `qbox sagas show` of one of them, with what
//! the trigger was answered beside what its saga would have sent.

use super::client::Client;
use super::colour;
use super::show::{list, number, plain, table, text};
use super::time::{moment, span};
use super::timeline;
use super::{Asking, print};
use crate::saga::{SagaId, Timestamp};
use anyhow::bail;
use hyper::StatusCode;
use serde_json::Value;
use std::fmt::Write;
use std::process::ExitCode;

/// `qbox sagas show`: a saga, or else what was observed under that id.
pub(super) fn show(asking: &Asking, id: SagaId) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = asking.running.client()?;
    let (answer, draw): (Value, fn(&Value) -> String) = runtime.block_on(find(&client, id))?;
    print(&match asking.json {
        true => format!("{answer:#}\n"),
        false => draw(&answer),
    });
    Ok(ExitCode::SUCCESS)
}

async fn find(client: &Client, id: SagaId) -> anyhow::Result<(Value, fn(&Value) -> String)> {
    let saga = client.ask(&format!("/api/v1/sagas/{id}")).await?;
    if saga.status.is_success() {
        return Ok((saga.json()?, timeline::saga));
    }
    if saga.status == StatusCode::NOT_FOUND {
        let observed = client.ask(&format!("/api/v1/observed/{id}")).await?;
        if observed.status.is_success() {
            return Ok((observed.json()?, record));
        }
    }
    bail!("{}", client.refusal(&saga));
}

/// `qbox sagas list --observed`.
pub(super) fn page(answer: &Value) -> String {
    let rows = list(answer, "observed").iter().map(|one| {
        [
            text(one, "id").into_owned(),
            text(one, "name").into_owned(),
            moment(Timestamp(number(one, "arrived").unwrap_or_default())),
            answered(one),
            match one.get("unrehearsed") {
                Some(_) => "not known".to_owned(),
                None => colour::state(&text(one, "state")),
            },
            format!("{} {}", text(one, "method"), text(one, "url")),
        ]
    });
    let head = ["ID", "NAME", "ARRIVED", "ANSWERED", "WOULD BE", "TRIGGER"];
    let mut out = table(head, rows);
    if answer.get("next").is_some_and(Value::is_string) {
        let _ = writeln!(out, "more: --cursor {}", text(answer, "next"));
    }
    out
}

/// What the service answered, in a word or two.
fn answered(one: &Value) -> String {
    match (&*text(one, "answer"), number(one, "status")) {
        (_, Some(status)) => status.to_string(),
        ("answered", None) => "a status that can't be read".to_owned(),
        ("unanswered", None) => "nothing".to_owned(),
        _ => "not yet".to_owned(),
    }
}

/// One record.
fn record(one: &Value) -> String {
    let at = moment(Timestamp(number(one, "arrived").unwrap_or_default()));
    let mut out = format!("{} {}: observed\n", text(one, "name"), text(one, "id"));
    let after = number(one, "took_us").map_or_else(String::new, |took| format!(" after {}", span(took)));
    let rehearsal = one.get("rehearsal").filter(|rehearsal| rehearsal.is_object());
    // Writing to a String does not fail, here and below.
    let _ = writeln!(
        out,
        "  trigger {} {} at {at}",
        text(one, "method"),
        text(one, "url")
    );
    message(&mut out, one, |_| true);
    let _ = writeln!(
        out,
        "  caller  got {}{after}, from the service itself",
        answered(one)
    );
    let Some(rehearsal) = rehearsal else {
        let why = match one.get("unrehearsed") {
            Some(_) => text(one, "unrehearsed").into_owned(),
            None => "it is being rehearsed".to_owned(),
        };
        let _ = writeln!(out, "  saga    what it would have done is not known: {why}");
        return out;
    };
    let reply = rehearsal.get("reply").filter(|reply| reply.is_object());
    let reply = reply.map(|reply| {
        let status = number(reply, "status").unwrap_or_default();
        match reply.get("body") {
            Some(_) => format!("; its caller would have got {status} {}", text(reply, "body")),
            None => format!("; its caller would have got {status}"),
        }
    });
    let _ = writeln!(
        out,
        "  saga    would be {}{}",
        text(rehearsal, "state"),
        reply.unwrap_or_default()
    );
    for step in list(rehearsal, "steps") {
        let (name, state) = (text(step, "name"), text(step, "state"));
        let _ = match (step.get("cause"), &*state) {
            (Some(_), _) => writeln!(out, "  {name}: {state}, {}", text(step, "cause")),
            (None, "skipped") => writeln!(out, "  {name}: skipped, its `when` does not hold"),
            _ => Ok(()),
        };
    }
    out.push_str(&sent(rehearsal));
    out
}

/// What would have been sent.
fn sent(rehearsal: &Value) -> String {
    let sent = list(rehearsal, "sent");
    if sent.is_empty() {
        return "\nNothing would have been sent.\n".to_owned();
    }
    let mut out =
        "\nIt would have sent, the same number at once, had every service agreed to everything:\n\n"
            .to_owned();
    for one in sent {
        let mut what = text(one, "step").into_owned();
        match (&*text(one, "direction"), number(one, "compensation")) {
            ("transaction", _) => {}
            (direction, Some(which)) if which > 1 => {
                let _ = write!(what, " ({direction} {which})");
            }
            (direction, _) => {
                let _ = write!(what, " ({direction})");
            }
        }
        if let Some(attempt) = number(one, "attempt").filter(|attempt| *attempt > 1) {
            let _ = write!(what, ", attempt {attempt}");
        }
        let (method, url) = (text(one, "method"), text(one, "url"));
        let wave = number(one, "wave").unwrap_or_default();
        let _ = writeln!(out, "  {wave:>2}. {what}: {method} {url}");
        // A trigger that is passed on stands above already.
        if one.get("forward").and_then(Value::as_bool) == Some(true) {
            out.push_str("      the trigger, unchanged\n");
        } else {
            message(&mut out, one, is_own);
        }
    }
    if let Some(more) = number(rehearsal, "left_out") {
        let _ = writeln!(out, "  and {more} more that there was no room for");
    }
    out
}

/// What the file gives: what Qbox adds to every request says nothing here.
fn is_own(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.starts_with("x-qbox-") && !matches!(name.as_str(), "idempotency-key" | "traceparent" | "tracestate")
}

fn message(out: &mut String, one: &Value, shown: impl Fn(&str) -> bool) {
    for field in list(one, "headers") {
        let part = |at: usize| plain(field.get(at).and_then(Value::as_str).unwrap_or_default());
        if shown(&part(0)) {
            let _ = writeln!(out, "      {}: {}", part(0), part(1));
        }
    }
    if one.get("body").is_some() {
        let more = number(one, "body_bytes").map(|bytes| format!("… ({bytes} bytes)"));
        let _ = writeln!(out, "      {}{}", text(one, "body"), more.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({
            "id": "0190", "name": "book-trip", "definition": "ab", "arrived": 0, "method": "POST",
            "url": "http://trips/trips/7", "answer": "answered", "status": 201, "took_us": 12_000,
            "headers": [["X-Tenant", "acme"]], "body": "{\"guest\":\"Ada\"}", "state": "compensated",
            "rehearsal": {
                "state": "compensated", "left_out": 2, "reply": { "status": 502, "body": "{}" },
                "steps": [
                    { "name": "hotel", "state": "applied", "compensation": "undone" },
                    { "name": "flight", "state": "skipped", "compensation": "none" },
                    { "name": "car", "state": "refused", "compensation": "none", "cause": "`${trigger.json.car}` has no \u{1b}value" },
                ],
                "sent": [
                    { "wave": 1, "step": "hotel", "direction": "transaction", "attempt": 1, "forward": false, "method": "PUT",
                      "url": "http://hotel/7", "headers": [["X-Qbox-Step", "hotel"], ["x-own", "1"]], "body": "x", "body_bytes": 600 },
                    { "wave": 2, "step": "hotel", "direction": "compensation", "compensation": 2, "attempt": 3, "forward": false,
                      "method": "DELETE", "url": "http://hotel/7", "headers": [] },
                    { "wave": 3, "step": "trips", "direction": "transaction", "attempt": 1, "forward": true, "method": "POST",
                      "url": "http://trips/trips/7", "headers": [["a", "b"]] },
                ],
            },
        })
    }

    #[test]
    fn what_would_be_sent_stands_beside_what_was_answered() {
        let drawn = record(&sample());
        let wanted = "\
book-trip 0190: observed
  trigger POST http://trips/trips/7 at 1970-01-01T00:00:00.000Z
      X-Tenant: acme
      {\"guest\":\"Ada\"}
  caller  got 201 after 12.0ms, from the service itself
  saga    would be compensated; its caller would have got 502 {}
  flight: skipped, its `when` does not hold
  car: refused, `${trigger.json.car}` has no \\u{1b}value

It would have sent, the same number at once, had every service agreed to everything:

   1. hotel: PUT http://hotel/7
      x-own: 1
      x… (600 bytes)
   2. hotel (compensation 2), attempt 3: DELETE http://hotel/7
   3. trips: POST http://trips/trips/7
      the trigger, unchanged
  and 2 more that there was no room for
";
        assert_eq!(drawn, wanted, "\n{drawn}");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let mut one = sample();
        one["rehearsal"] = Value::Null;
        one["answer"] = "unanswered".into();
        one["status"] = Value::Null;
        let drawn = record(&one);
        assert!(drawn.contains("caller  got nothing after 12.0ms"), "{drawn}");
        assert!(
            drawn.ends_with("is not known: it is being rehearsed\n"),
            "{drawn}"
        );
        one["unrehearsed"] = "a bug".into();
        assert!(record(&one).ends_with("is not known: a bug\n"));
        let listed = page(&json!({ "observed": [sample(), one], "next": "0190" }));
        let wanted = "\
ID    NAME       ARRIVED                   ANSWERED  WOULD BE     TRIGGER
0190  book-trip  1970-01-01T00:00:00.000Z  201       compensated  POST http://trips/trips/7
0190  book-trip  1970-01-01T00:00:00.000Z  nothing   not known    POST http://trips/trips/7
more: --cursor 0190
";
        assert_eq!(listed, wanted, "\n{listed}");
    }
}
