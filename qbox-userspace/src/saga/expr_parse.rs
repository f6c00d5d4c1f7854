//! Reads expressions. One pass, left to right; every error says which bytes it is about and, where it can, what was meant.

use super::expr::{Expr, ExprError, FieldPath, MessagePart, Part, Place, Scope, Source, Template};
use super::id::StepId;
use std::ops::Range;

const SOURCES: &[&str] = &["trigger", "root", "steps", "transaction", "parent", "saga"];
const TRIGGER_PARTS: &[&str] = &["method", "url", "path", "query", "headers", "body", "json"];
const REQUEST_PARTS: &[&str] = &["headers", "body", "json"];
const RESPONSE_PARTS: &[&str] = &["status", "headers", "body", "json"];
const SAGA_PARTS: &[&str] = &["id", "name", "failed_step", "outcome"];

type Parsed<T> = Result<T, ExprError>;

/// Which message a part is of.
#[derive(Clone, Copy)]
enum Message {
    Trigger,
    Request(StepId),
    Response(StepId),
}

pub(super) fn template(text: &str, scope: &Scope<'_>) -> Parsed<Template> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('$') {
        literal.push_str(&text[at..at + found]);
        at += found;
        let rest = &text[at..];
        if rest.starts_with("$${") {
            literal.push_str("${");
            at += 3;
        } else if rest.starts_with("${") {
            let Some(length) = rest.find('}') else {
                return Err(error(at..text.len(), "this expression has no closing `}`")
                    .hint("write `$${` for a literal `${`"));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            let mut reader = Reader {
                text,
                at: at + 2,
                end: at + length,
            };
            let source = reader.source(scope)?;
            parts.push(Part::Value(Expr {
                source,
                default: reader.default(),
                text: rest[..=length].to_owned(),
            }));
            at += length + 1;
        } else {
            literal.push('$');
            at += 1;
        }
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Ok(Template { parts })
}

/// `offset` is where `text` begins in what the error's range is of.
pub(super) fn field(text: &str, offset: usize) -> Parsed<FieldPath> {
    if let Some(pointer) = text.strip_prefix('/') {
        let mut keys = Vec::new();
        let mut at = offset + 1;
        for key in pointer.split('/') {
            if key.replace("~0", "").replace("~1", "").contains('~') {
                return Err(error(
                    at..at + key.len(),
                    "in an RFC 6901 pointer `~` is followed by `0` or `1`",
                )
                .hint("write `~0` for `~` and `~1` for `/`"));
            }
            keys.push(key.replace("~1", "/").replace("~0", "~"));
            at += key.len() + 1;
        }
        return Ok(FieldPath(keys));
    }
    let mut keys = Vec::new();
    let mut at = offset;
    for key in text.split('.') {
        if key.is_empty() {
            return Err(error(at..at, "a key of this path is empty").hint("write the path as `booking.id`"));
        }
        if !is_plain_key(key) {
            return Err(error(
                at..at + key.len(),
                format!("`{key}` has other characters than letters, digits, `_` and `-`"),
            )
            .hint(format!(
                "write the path as a pointer: `{}`",
                FieldPath(text.split('.').map(str::to_owned).collect())
            )));
        }
        keys.push(key.to_owned());
        at += key.len() + 1;
    }
    Ok(FieldPath(keys))
}

pub(super) fn is_plain_key(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Reads one expression, between `${` and `}`.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// The bytes up to `.`, `:` or the end.
    fn word(&mut self) -> (&'a str, Range<usize>) {
        let rest = &self.text[self.at..self.end];
        let length = rest.find(['.', ':']).unwrap_or(rest.len());
        let range = self.at..self.at + length;
        self.at = range.end;
        (&rest[..length], range)
    }

    /// The bytes up to `:` or the end.
    fn rest(&mut self) -> (&'a str, Range<usize>) {
        let rest = &self.text[self.at..self.end];
        let length = rest.find(':').unwrap_or(rest.len());
        let range = self.at..self.at + length;
        self.at = range.end;
        (&rest[..length], range)
    }

    /// Steps over a dot.
    fn dot(&mut self, expected: &str) -> Parsed<()> {
        if self.text[self.at..self.end].starts_with('.') {
            self.at += 1;
            return Ok(());
        }
        Err(error(
            self.at..self.at,
            format!("`.` and {expected} are missing here"),
        ))
    }

    fn finish(&self) -> Parsed<()> {
        let rest = &self.text[self.at..self.end];
        if rest.is_empty() || rest.starts_with(':') {
            return Ok(());
        }
        Err(error(
            self.at..self.end,
            format!("nothing can follow here, but `{rest}` does"),
        ))
    }

    fn default(&self) -> Option<String> {
        self.text[self.at..self.end].strip_prefix(':').map(str::to_owned)
    }

    fn source(&mut self, scope: &Scope<'_>) -> Parsed<Source> {
        let start = self.at;
        let (word, range) = self.word();
        let message = match word {
            "saga" => return self.saga(scope),
            "trigger" | "root" => {
                self.optional_request();
                Message::Trigger
            }
            "parent" => self.parent(scope, start)?,
            "steps" => {
                self.dot("a step's name")?;
                let (name, range) = self.word();
                let step = step_named(name, &range, scope)?;
                self.of_step(step, scope, start)?
            }
            _ if word.starts_with("transaction[") => {
                let step = step_numbered(word, &range, scope)?;
                self.of_step(step, scope, start)?
            }
            "" => {
                return Err(error(range.start - 2..self.end + 1, "this expression is empty")
                    .hint("write `$${` for a literal `${`"));
            }
            _ => return Err(unknown("source", word, range, SOURCES, "")),
        };
        let part = self.part(message)?;
        self.finish()?;
        Ok(match message {
            Message::Trigger => Source::Trigger(part),
            Message::Request(step) => Source::Request(step, part),
            Message::Response(step) => Source::Response(step, part),
        })
    }

    fn saga(&mut self, scope: &Scope<'_>) -> Parsed<Source> {
        self.dot("one of `id`, `name`, `failed_step`, `outcome`")?;
        let (word, range) = self.word();
        let source = match word {
            "id" => Source::SagaId,
            "name" => Source::SagaName,
            "failed_step" => Source::SagaFailedStep,
            "outcome" => Source::SagaOutcome,
            _ => return Err(unknown("part of `saga`", word, range, SAGA_PARTS, "saga.")),
        };
        if scope.place == Place::Trigger && source != Source::SagaName {
            return Err(error(
                range,
                "this is worked out before the saga begins: only the trigger is known",
            ));
        }
        self.finish()?;
        Ok(source)
    }

    fn parent(&mut self, scope: &Scope<'_>, start: usize) -> Parsed<Message> {
        let ahead = &self.text[self.at..self.end];
        let response =
            ahead == ".response" || [".response.", ".response:"].iter().any(|p| ahead.starts_with(p));
        let message = match (scope.place, response) {
            (Place::Trigger | Place::Request(_) | Place::Reply, false) => Message::Trigger,
            (Place::Compensation(step) | Place::Probe(step) | Place::Match(step), false) => {
                Message::Request(step)
            }
            (Place::Compensation(step) | Place::Probe(step), true) => Message::Response(step),
            (Place::Trigger | Place::Request(_) | Place::Reply, true) => {
                return Err(error(
                    start..self.at + ".response".len(),
                    "`parent` is the trigger here, which has no response",
                )
                .hint("name the step: `steps.NAME.response`"));
            }
            (Place::Match(_), true) => {
                return Err(error(
                    start..self.at + ".response".len(),
                    "this is compared with that response: it has no value yet",
                ));
            }
        };
        if response {
            self.at += ".response".len();
        } else {
            self.optional_request();
        }
        Ok(message)
    }

    /// `trigger.request.body` says the same as `trigger.body`.
    fn optional_request(&mut self) {
        if self.text[self.at..self.end].starts_with(".request.") {
            self.at += ".request".len();
        }
    }

    /// `.request` or `.response`, behind a step.
    fn of_step(&mut self, step: StepId, scope: &Scope<'_>, start: usize) -> Parsed<Message> {
        if scope.place == Place::Trigger {
            return Err(error(
                start..self.at,
                "this is worked out before any step has run: only the trigger is known",
            ));
        }
        if scope.place == Place::Request(step) {
            return Err(error(
                start..self.at,
                "a step's request can't speak of the step itself",
            ));
        }
        self.dot("`request` or `response`")?;
        let (word, range) = self.word();
        match word {
            "request" => Ok(Message::Request(step)),
            "response" if scope.place == Place::Match(step) => Err(error(
                start..self.at,
                "this is compared with that response: it has no value yet",
            )),
            "response" => Ok(Message::Response(step)),
            _ if RESPONSE_PARTS.contains(&word) => {
                Err(error(range, "`request` or `response` is missing before this")
                    .hint(format!("write `response.{word}`")))
            }
            _ => Err(unknown(
                "message of a step",
                word,
                range,
                &["request", "response"],
                "",
            )),
        }
    }

    fn part(&mut self, message: Message) -> Parsed<MessagePart> {
        let parts = match message {
            Message::Trigger => TRIGGER_PARTS,
            Message::Request(_) => REQUEST_PARTS,
            Message::Response(_) => RESPONSE_PARTS,
        };
        self.dot(&format!("one of {}", list(parts)))?;
        let (word, range) = self.word();
        if !parts.contains(&word) {
            let of = match (word, message) {
                ("status", _) => "only a response has a `status`",
                (_, Message::Request(_)) if TRIGGER_PARTS.contains(&word) => "only the trigger has this part",
                (_, Message::Response(_)) if TRIGGER_PARTS.contains(&word) => {
                    "only the trigger has this part"
                }
                _ => return Err(unknown("part of a message", word, range, parts, "")),
            };
            return Err(error(range, of).hint(format!("one of {} can stand here", list(parts))));
        }
        Ok(match word {
            "method" => MessagePart::Method,
            "url" => MessagePart::Url,
            "status" => MessagePart::Status,
            "body" => MessagePart::Body,
            "path" => MessagePart::Path(
                self.name("the name of a `{capture}` of the trigger's URL")?
                    .to_owned(),
            ),
            "query" => MessagePart::Query(self.name("a query parameter's name")?.to_owned()),
            "headers" => {
                let at = self.at + 1;
                let name = self.name("a header's name")?;
                if let Some(bad) = name.find(|c: char| !is_token(c)) {
                    return Err(error(
                        at + bad..at + name.len(),
                        "a header's name can't have this character",
                    ));
                }
                MessagePart::Header(name.to_owned())
            }
            _ => {
                if !self.text[self.at..self.end].starts_with('.') {
                    return Ok(MessagePart::Json(FieldPath(Vec::new())));
                }
                self.at += 1;
                let (path, range) = self.rest();
                MessagePart::Json(field(path, range.start)?)
            }
        })
    }

    fn name(&mut self, what: &str) -> Parsed<&'a str> {
        self.dot(what)?;
        let (name, range) = self.rest();
        if name.is_empty() {
            return Err(error(range, format!("{what} is missing here")));
        }
        Ok(name)
    }
}

fn step_named(name: &str, range: &Range<usize>, scope: &Scope<'_>) -> Parsed<StepId> {
    let found = scope.steps.iter().position(|step| step == name);
    match found.and_then(|at| u16::try_from(at).ok()) {
        Some(at) => Ok(StepId(at)),
        None if name.is_empty() => Err(error(range.clone(), "a step's name is missing here")),
        None => {
            let names: Vec<&str> = scope.steps.iter().map(String::as_str).collect();
            Err(unknown("step", name, range.clone(), &names, "steps."))
        }
    }
}

fn step_numbered(word: &str, range: &Range<usize>, scope: &Scope<'_>) -> Parsed<StepId> {
    let number = word
        .strip_prefix("transaction[")
        .and_then(|w| w.strip_suffix(']'));
    let Some(number) = number.filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) else {
        return Err(error(
            range.clone(),
            "`transaction` is followed by a number in brackets, counted from 0",
        )
        .hint("write `transaction[0]`"));
    };
    let at = number
        .parse::<u16>()
        .ok()
        .filter(|at| usize::from(*at) < scope.steps.len());
    at.map(StepId).ok_or_else(|| {
        error(
            range.clone(),
            format!("there are {} steps, counted from 0", scope.steps.len()),
        )
    })
}

/// RFC 9110, 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    quoted.join(", ")
}

fn error(range: Range<usize>, message: impl Into<String>) -> ExprError {
    ExprError {
        range,
        message: message.into(),
        suggestion: None,
    }
}

impl ExprError {
    fn hint(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }
}

fn unknown(what: &str, word: &str, range: Range<usize>, known: &[&str], prefix: &str) -> ExprError {
    let closest = known
        .iter()
        .map(|k| (strsim::jaro_winkler(k, word), *k))
        .filter(|(near, _)| *near > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let result = error(range, format!("there is no {what} named `{word}`"));
    match closest {
        Some((_, name)) => result.hint(format!("did you mean `{prefix}{name}`?")),
        None if known.is_empty() => result,
        None => result.hint(format!("one of {} can stand here", list(known))),
    }
}

#[cfg(test)]
#[path = "expr_parse_tests.rs"]
mod tests;
