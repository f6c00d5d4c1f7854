//! A saga's events as lines that a person can read.

use serde_json::Value;

/// The events of a saga as `/api/v1/sagas/ID` has them, with the milliseconds since the first.
pub(super) fn saga(view: &Value) -> String {
    let mut lines = String::new();
    let events = view.get("events").and_then(Value::as_array).into_iter().flatten();
    let mut first = None;
    for event in events {
        let at = event.get("at").and_then(Value::as_u64).unwrap_or_default();
        let start = *first.get_or_insert(at);
        let text = event.get("text").and_then(Value::as_str).unwrap_or("?");
        let milliseconds = at.saturating_sub(start) / 1000;
        let tenths = at.saturating_sub(start) % 1000 / 100;
        let time = format!("{milliseconds}.{tenths} ms");
        lines.push_str(&format!(
            "   {time:>10}   {text}
"
        ));
    }
    lines
}

/// The three ledgers in one line.
pub(super) fn ledgers(when: &str, ledgers: &[(&str, Vec<String>)]) -> String {
    let booked = ledgers.iter().map(|(name, ids)| match ids.is_empty() {
        true => format!("{name} -"),
        false => format!("{name} {}", ids.join(",")),
    });
    let all = booked.collect::<Vec<_>>().join("   ");
    format!("{:>10}   ledgers: {all}", when)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_count_from_the_first_event() {
        let view = json!({ "events": [
            { "at": 5_000_000_u64, "text": "saga began" },
            { "at": 5_012_345_u64, "text": "hotel: transaction sent" },
        ] });
        assert_eq!(
            saga(&view),
            "       0.0 ms   saga began\n      12.3 ms   hotel: transaction sent\n"
        );
    }

    #[test]
    fn an_empty_ledger_is_a_dash() {
        let line = ledgers(
            "after",
            &[("hotel", vec!["7".to_owned(), "9".to_owned()]), ("car", vec![])],
        );
        assert_eq!(line, "     after   ledgers: hotel 7,9   car -");
    }
}
