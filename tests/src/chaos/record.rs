//! What one trip's caller was answered, and the line that a caller's process says it with.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Status, saga and body of an answer. No saga: nobody should have answered so.
pub(super) type Answer = (u16, String, String);

/// What comes of asking once.
#[derive(Debug)]
pub(super) enum Heard {
    /// A saga's answer.
    Answer(Answer),
    /// 5xx of no saga: try again.
    NotNow(u16),
    /// No whole answer, and why.
    Broken(String),
}

/// One trip's caller, in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) trip: u64,
    pub(super) answers: Vec<Answer>,
    /// How often there was none, and it was to be tried again.
    pub(super) not_now: u64,
    /// How often the connection broke.
    pub(super) broken: u64,
    /// The last reason why there was no answer.
    pub(super) why: String,
    /// It went away, and did not wish to know.
    pub(super) left: bool,
    /// It has asked for longer than anybody should have to.
    pub(super) given_up: bool,
}

impl Record {
    pub(super) fn of(trip: u64) -> Self {
        Self {
            trip,
            ..Self::default()
        }
    }

    pub(super) fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Answer(answer) => self.answers.push(answer),
            Heard::NotNow(status) => {
                self.not_now += 1;
                self.why = format!("answered {status} by no saga");
            }
            Heard::Broken(why) => {
                self.broken += 1;
                self.why = why;
            }
        }
    }

    /// With what a second caller for the same trip has heard.
    pub(super) fn join(&mut self, other: Self) {
        self.answers.extend(other.answers);
        self.not_now += other.not_now;
        self.broken += other.broken;
        self.given_up |= other.given_up;
    }

    pub(super) fn to_line(&self) -> String {
        json!({
            "trip": self.trip, "answers": self.answers, "not_now": self.not_now, "broken": self.broken, "why": self.why,
            "left": self.left, "given_up": self.given_up,
        })
        .to_string()
    }

    pub(super) fn from_line(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line).with_context(|| format!("no record: {line}"))?;
        let number = |name: &str| value.get(name).and_then(Value::as_u64).unwrap_or_default();
        let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or_default();
        let answers = value.get("answers").cloned().unwrap_or_default();
        Ok(Self {
            trip: value
                .get("trip")
                .and_then(Value::as_u64)
                .context("a record of no trip")?,
            answers: serde_json::from_value(answers)?,
            not_now: number("not_now"),
            broken: number("broken"),
            why: value
                .get("why")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            left: flag("left"),
            given_up: flag("given_up"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let mut record = Record::of(7);
        record.heard(Heard::NotNow(503));
        record.heard(Heard::Broken("reset".to_owned()));
        record.heard(Heard::Answer((201, "id".to_owned(), "{\"a\": 1}\n".to_owned())));
        assert_eq!(Record::from_line(&record.to_line()).unwrap(), record);
        assert!(Record::from_line("{}").is_err());
    }
}
