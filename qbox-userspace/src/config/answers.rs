//! The answers that `qbox plan --responses` takes: a TOML file of `[[answer]]`s, each of which says what a service
//! answers to one of a step's messages, or how the exchange ends without an answer. docs/tools.md describes it.

use super::diagnostic::{Code, Diagnostic, SourceFile};
use super::message;
use super::read;
use super::walk::{self, Node, Sink, Table};
use crate::saga::{AttemptEnd, Direction, Headers, Plan, Response, StepId};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

/// One scripted end of an attempt. Of several for one message the first is for its first attempt, and so on; the last
/// one is for all that come after it too.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// To which step's message.
    pub step: StepId,
    /// To which of them.
    pub direction: Direction,
    /// What came.
    pub end: AttemptEnd,
}

/// Reads a file of answers for a plan.
///
/// # Errors
/// All that is wrong with it.
pub fn load_answers(path: &Path, plan: &Plan) -> Result<Vec<Answer>, Vec<Diagnostic>> {
    let file = read::file(path).map_err(|finding| vec![*finding])?;
    answers(file, plan)
}

/// As [`load_answers`], of a text.
pub(super) fn answers(file: Arc<SourceFile>, plan: &Plan) -> Result<Vec<Answer>, Vec<Diagnostic>> {
    let sink = Sink::new(file);
    let mut found = Vec::new();
    if let Some(document) = walk::parse(&sink) {
        let root = Table::new(&sink, document.get_ref(), 0..0, "a file of answers");
        let list = root.get("answer").and_then(|node| node.list("[[answer]]"));
        for node in list.unwrap_or_default() {
            found.extend(
                node.table("this answer")
                    .and_then(|table| answer(&sink, table, plan)),
            );
        }
        root.finish();
    }
    match sink.has_errors() {
        false => Ok(found),
        true => Err(sink.into_found()),
    }
}

fn answer(sink: &Sink, table: Table<'_>, plan: &Plan) -> Option<Answer> {
    let step = table
        .need("step", "step = \"hotel\"")
        .and_then(|node| step(sink, &node, plan));
    let to = table.get("to");
    let direction = match (&to, step) {
        (Some(node), Some(step)) => direction(node, step, plan),
        _ => Some(Direction::Transaction),
    };
    let ends = [
        ("timeout", AttemptEnd::TimedOut),
        (
            "reset",
            AttemptEnd::Broken("the answers' file says so".to_owned()),
        ),
        (
            "connect",
            AttemptEnd::NotSent("the answers' file says so".to_owned()),
        ),
    ];
    let words: Vec<(&str, usize)> = ends.iter().map(|(word, _)| *word).zip(0..).collect();
    let end = table.get("end").and_then(|node| node.choice(&words));
    let status = table.get("status");
    if let (Some(_), Some(node)) = (end, &status) {
        let message = "`end` says that no answer came, so it has no `status`";
        sink.error(
            Code::Conflict,
            node.key_span.clone(),
            message,
            "",
            "keep one of them",
        );
    }
    let status = status.map_or(Some(200), |node| message::status(sink, &node));
    let mut headers = Headers::default();
    if let Some(fields) = table.get("headers").and_then(|node| node.table("`headers`")) {
        for entry in fields.entries() {
            let value = entry.text().filter(|text| message::header_value(sink, text));
            if let (true, Some(value)) = (
                message::header_name(sink, entry.key, entry.key_span.clone()),
                value,
            ) {
                headers.push(entry.key, value.value.to_owned());
            }
        }
    }
    let (body, json) = (table.get("body"), table.get("json"));
    if let (Some(_), Some(node)) = (&body, &json) {
        let message = "an answer has a `body` or `json`";
        sink.error(
            Code::Conflict,
            node.key_span.clone(),
            message,
            "",
            "keep one of them",
        );
    }
    let body = match (json.and_then(|node| message::literal_json(&node)), body) {
        (Some(json), _) => {
            if headers.get("Content-Type").is_none() {
                headers.push("Content-Type", "application/json");
            }
            json.to_string()
        }
        (None, body) => body
            .and_then(|node| node.text())
            .map_or_else(String::new, |text| text.value.to_owned()),
    };
    table.finish();
    let end = match end.and_then(|at| ends.into_iter().nth(at)) {
        Some((_, end)) => end,
        None => AttemptEnd::Answered(Response {
            status: status?,
            headers,
            body: Bytes::from(body),
            truncated: false,
        }),
    };
    Some(Answer {
        step: step?,
        direction: direction?,
        end,
    })
}

fn step(sink: &Sink, node: &Node<'_>, plan: &Plan) -> Option<StepId> {
    let text = node.text()?;
    let found = plan.step(text.value);
    if found.is_none() {
        let names: Vec<String> = plan.steps.iter().map(|step| step.name.clone()).collect();
        super::graph::unknown_step(sink, &names, &text);
    }
    found
}

/// `request`, `probe`, `compensate`, or `compensate.1` for the second one.
fn direction(node: &Node<'_>, step: StepId, plan: &Plan) -> Option<Direction> {
    let step = plan.steps.get(step.index())?;
    let mut words = vec![("request".to_owned(), Direction::Transaction)];
    if step.probe.is_some() {
        words.push(("probe".to_owned(), Direction::Probe));
    }
    for (_, number) in step.compensations.iter().zip(0u16..) {
        let word = match number {
            0 => "compensate".to_owned(),
            _ => format!("compensate.{number}"),
        };
        words.push((word, Direction::Compensation(number)));
    }
    let words: Vec<(&str, Direction)> = words.iter().map(|(word, to)| (word.as_str(), *to)).collect();
    node.choice(&words)
}

#[cfg(test)]
mod tests {
    use super::super::load_saga;
    use super::*;

    const SAGA: &str = "name = \"x\"\n[trigger]\nurl = \"http://a/\"\n[[step]]\nname = \"hotel\"\n\
        request = { method = \"PUT\", url = \"http://b/\" }\n[[step.compensate]]\n\
        request = { method = \"DELETE\", url = \"http://b/\" }\n";

    type Places = Vec<(Code, (usize, usize))>;

    fn read(text: &str) -> Result<Vec<Answer>, Places> {
        let plan = load_saga(SAGA, "saga.toml").unwrap().0;
        let file = SourceFile {
            name: "answers.toml".to_owned(),
            text: text.to_owned(),
        };
        let places =
            |found: Vec<Diagnostic>| found.iter().map(|d| (d.code, d.line_column().unwrap())).collect();
        answers(Arc::new(file), &plan).map_err(places)
    }

    #[test]
    fn an_answer_or_how_there_was_none() {
        let text = "[[answer]]\nstep = \"hotel\"\nstatus = 201\njson = { room = 7 }\n\
                    [[answer]]\nstep = \"hotel\"\nto = \"compensate\"\nend = \"timeout\"\n";
        let answers = read(text).unwrap();
        let AttemptEnd::Answered(first) = &answers[0].end else {
            panic!("{answers:?}")
        };
        assert_eq!((first.status, &first.body[..]), (201, &b"{\"room\":7}"[..]));
        assert_eq!(first.headers.get("content-type").unwrap(), "application/json");
        assert_eq!(answers[1].direction, Direction::Compensation(0));
        assert_eq!(answers[1].end, AttemptEnd::TimedOut);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let text = "[[answer]]\nstep = \"hotle\"\n[[answer]]\nstep = \"hotel\"\nto = \"probe\"\n\
                    [[answer]]\nstep = \"hotel\"\nend = \"reset\"\nstatus = 200\ncolour = 1\n";
        assert_eq!(
            read(text).unwrap_err(),
            [
                (Code::UnknownStep, (2, 8)),
                (Code::Choice, (5, 6)),
                (Code::Conflict, (9, 1)),
                (Code::UnknownKey, (10, 1)),
            ]
        );
    }
}
