//! One configuration of the original as a plan, with comments where a saga file is stricter.

mod message;
mod trigger;

use super::expressions::Site;
use super::original::{At, Configuration, Transaction, configuration};
use super::{Findings, Imported, yaml};
use crate::config::{Code, Comment, Diagnostic, Spot, load_saga, print_saga};
use crate::saga::{
    CompensateWhen, Compensation, Durability, Kind, Mode, OnRecovery, Place, Plan, ReplyPlan, RequestPlan,
    RetryOn, RetryPolicy, Step, StepId,
};
use std::time::Duration;

/// The longest duration of a saga file (see `config`).
const LONGEST: i64 = 8760 * 3600;
/// The most steps of one.
const MOST_STEPS: usize = 256;
/// Every document.
pub(super) fn all(mut sink: Findings) -> Result<Vec<Imported>, Vec<Diagnostic>> {
    let documents = yaml::documents(&mut sink).unwrap_or_default();
    if documents.is_empty() && sink.found.is_empty() {
        let help = "name a file with the original's YAML: host, matchRequest, onMatchedRequest, …";
        sink.error(
            Code::NotOriginal,
            0..0,
            "there is no configuration in this file",
            help,
        );
    }
    let mut names = Names::default();
    let mut imported = Vec::new();
    for (document, number) in documents.iter().zip(1..) {
        let Some(read) = configuration(&mut sink, document) else {
            continue;
        };
        let name = names.next(&word(&read.host.value, "saga"));
        imported.extend(Converter::new(&mut sink, &read).saga(name, number));
    }
    match sink.found.is_empty() {
        true => Ok(imported),
        false => Err(sink.found),
    }
}

/// Names that were given already.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    /// `name`, or `name-2` where that is taken, and so on.
    fn next(&mut self, name: &str) -> String {
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let free = std::iter::once(name.to_owned())
            .chain(numbered)
            .find(|name| !self.0.contains(name));
        let free = free.unwrap_or_default();
        self.0.push(free.clone());
        free
    }
}

/// The first part of a host as a name: `[a-z0-9-]`.
fn word(host: &str, other: &str) -> String {
    let first = host.split(['.', ':', '/']).next().unwrap_or_default();
    let fits = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '-',
    };
    let name: String = first.chars().map(fits).take(48).collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        other.to_owned()
    } else {
        name.to_owned()
    }
}

struct Converter<'a> {
    sink: &'a mut Findings,
    read: &'a Configuration,
    steps: Vec<String>,
    comments: Vec<Comment>,
    /// Whether an expression got the empty text as its default.
    empties: bool,
}

impl<'a> Converter<'a> {
    fn new(sink: &'a mut Findings, read: &'a Configuration) -> Self {
        let mut names = Names::default();
        let host = |transaction: &Transaction| {
            let url = &transaction.request.url.value;
            let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
            word(authority, "step")
        };
        let steps = read.transactions.iter().map(|t| names.next(&host(t))).collect();
        Self {
            sink,
            read,
            steps,
            comments: Vec::new(),
            empties: false,
        }
    }

    fn saga(mut self, name: String, number: usize) -> Option<Imported> {
        let before = self.sink.found.len();
        let read = self.read;
        if read.transactions.len() > MOST_STEPS {
            let message = format!(
                "{} transactions: a saga has at most {MOST_STEPS} steps",
                read.transactions.len()
            );
            self.sink
                .error(Code::Unsayable, read.host.span.clone(), message, "split it");
        }
        let trigger = self.trigger(&read.trigger);
        let steps: Vec<_> = read
            .transactions
            .iter()
            .zip((0u16..).map(StepId))
            .map(|(transaction, id)| self.step(transaction, id))
            .collect();
        let success = read
            .succeeded
            .as_ref()
            .map(|reply| self.reply(reply, Spot::Success));
        let failure = read.failed.as_ref().map(|reply| self.reply(reply, Spot::Failure));
        if read.failed.as_ref().is_some_and(|reply| reply.body.is_some()) {
            let text = "Of the step that failed its answer can be read here; to the original it had none.";
            self.comments.push((Spot::Failure, text.to_owned()));
        }
        let mut plan = Plan {
            name: name.clone(),
            timeout: Duration::from_secs(60),
            reply_timeout: Duration::from_secs(30),
            mode: Mode::Enforce,
            on_recovery: OnRecovery::Compensate,
            durability: Durability::Disk,
            derived: Default::default(),
            lock: None,
            trigger: trigger?,
            steps: steps.into_iter().collect::<Option<_>>()?,
            reply_success: opened(success)?,
            reply_failure: opened(failure)?,
        };
        self.head(&mut plan, number);
        if self.sink.found.len() > before {
            return None;
        }
        let text = print_saga(&plan, &self.comments);
        // What a saga file can't say for a reason that was not looked for above is found by its own reader.
        match load_saga(&text, &format!("{name}.toml")) {
            Ok((read, _)) if read == plan => Some(Imported { name, plan, text }),
            Ok(_) => {
                let help = "please report this configuration";
                let message = "this would not be read back as it is";
                self.sink
                    .error(Code::Unsayable, read.span.start..read.span.start, message, help);
                None
            }
            Err(found) => {
                for finding in found
                    .iter()
                    .filter(|f| f.severity == crate::config::Severity::Error)
                {
                    let part = finding
                        .span
                        .clone()
                        .and_then(|span| finding.file.text.get(span))
                        .unwrap_or_default();
                    // Where the same text stands in the YAML, if it does.
                    let document = self.sink.file.text.get(read.span.clone()).unwrap_or_default();
                    let at = document
                        .find(part)
                        .filter(|_| !part.is_empty())
                        .map(|at| read.span.start + at);
                    let span = at.map_or(read.span.start..read.span.start, |at| at..at + part.len());
                    let message = format!("a saga file can't say this: {}", finding.message);
                    self.sink
                        .error(Code::Unsayable, span, message, finding.help.clone());
                }
                None
            }
        }
    }

    /// What is true of the whole file, and the time that all of it may take.
    fn head(&mut self, plan: &mut Plan, number: usize) {
        let attempts = |step: &Step| step.timeout.saturating_mul(step.retry.attempts.unwrap_or(1));
        let longest = plan
            .steps
            .iter()
            .map(attempts)
            .fold(Duration::ZERO, Duration::saturating_add);
        if longest > plan.timeout {
            plan.timeout = longest.min(Duration::from_secs(LONGEST.unsigned_abs()));
        }
        let mut head = vec![
            format!(
                "From the original Qbox's configuration, document {number} (host {}), by `qbox import`.",
                self.read.host.value
            ),
            "Stricter than the original: what may have been done is undone too. An answer that is neither a success nor a \
             refusal (4xx), or none in time, leaves a step unknown, and its own compensation is sent with the others'. \
             Compensations are sent in reverse order. A saga survives the end of Qbox, and one that can't be undone is stuck, and listed."
                .to_owned(),
        ];
        if plan.steps.len() > 1 {
            let text = "One after the other, as the original sent them. Where no step needs another one, take `order` out: \
                        they are sent at once then.";
            head.push(text.to_owned());
        }
        if self.empties {
            let text = "`${…:}` is the empty text where there is no value, as in the original. Without the colon the step is \
                        refused before anything is sent, which is safer in a URL.";
            head.push(text.to_owned());
        }
        if !self.read.ignored.is_empty() {
            head.push(format!(
                "The original ignored, and here it is gone: {}.",
                self.read.ignored.join(", ")
            ));
        }
        let head = head.into_iter().map(|text| (Spot::Head, text));
        self.comments = head.chain(std::mem::take(&mut self.comments)).collect();
    }

    fn comment(&mut self, spot: Spot, text: impl Into<String>) {
        self.comments.push((spot, text.into()));
    }

    fn step(&mut self, transaction: &Transaction, id: StepId) -> Option<Step> {
        let spot = Spot::Step(id);
        let request = self.request(&transaction.request, Site::Transaction, Place::Request(id), spot);
        let success = self.matches(&transaction.success.value, Site::Answer, Place::Match(id), spot);
        let timeout = self.timeout(&transaction.timeout, spot);
        let attempts = self.attempts(transaction, spot).unwrap_or(1);
        let undo: Vec<_> = transaction
            .undo
            .iter()
            .zip(0..)
            .map(|(undo, number)| self.compensation(undo, id, number))
            .collect();
        Some(Step {
            name: self.steps.get(id.index())?.clone(),
            kind: Kind::Compensatable,
            // One behind the other.
            after: id.0.checked_sub(1).map(StepId).into_iter().collect(),
            when: Vec::new(),
            request: RequestPlan::Send(request?),
            success: success?,
            refused: crate::config::default_refused(),
            timeout: timeout?,
            retry: match attempts {
                1 => crate::config::default_retry(),
                attempts => RetryPolicy {
                    attempts: Some(attempts),
                    on: vec![RetryOn::Timeout],
                    ..crate::config::default_retry()
                },
            },
            probe: None,
            compensations: undo.into_iter().collect::<Option<_>>()?,
            compensate_when: CompensateWhen::Applied,
        })
    }

    fn compensation(&mut self, undo: &Transaction, id: StepId, number: u16) -> Option<Compensation> {
        let spot = Spot::Compensation(id, number);
        let place = Place::Compensation(id);
        let request = self.request(&undo.request, Site::Undo, place, spot);
        let success = self.matches(&undo.success.value, Site::UndoAnswer, place, spot);
        let timeout = self.timeout(&undo.timeout, spot);
        let defaults = crate::config::default_undo_retry();
        let retry = match self.attempts(undo, spot) {
            Some(attempts) => {
                let text = "Given up after so many time-outs, or at the first other answer, as in the original; but then the saga \
                            is stuck, and listed. Take `retry` out to have it tried until it is undone.";
                self.comment(spot, text);
                RetryPolicy {
                    attempts: Some(attempts),
                    on: vec![RetryOn::Timeout],
                    ..defaults
                }
            }
            None => {
                let text = "Tried until it is undone, whatever the answer; the original gave up at the first answer that was no success.";
                self.comment(spot, text);
                defaults
            }
        };
        let found = |status| {
            success
                .iter()
                .flatten()
                .any(|one| one.status.as_ref().is_some_and(|set| set.contains(status)))
        };
        if success.is_some() && !found(404) {
            let text =
                "Without `success` 404 and 410 count as undone too: what is not there needs no undoing.";
            self.comment(spot, text);
        }
        Some(Compensation {
            request: request?,
            success: success?,
            timeout: timeout?,
            retry,
            needs_response: false,
        })
    }

    fn timeout(&mut self, timeout: &At<i64>, spot: Spot) -> Option<Duration> {
        match timeout.value {
            0 => {
                self.comment(
                    spot,
                    "With `timeout: 0` the original could send nothing; this is the default of 5s.",
                );
                Some(Duration::from_secs(5))
            }
            seconds if seconds <= LONGEST => Some(Duration::from_secs(seconds.unsigned_abs())),
            _ => {
                let span = timeout.span.clone();
                self.sink.error(
                    Code::Unsayable,
                    span,
                    "longer than 8760 hours",
                    "write the seconds that an answer may take",
                );
                None
            }
        }
    }

    /// In all; the original called them retries.
    fn attempts(&mut self, transaction: &Transaction, spot: Spot) -> Option<u32> {
        let attempts = transaction.attempts.as_ref()?;
        match u32::try_from(attempts.value) {
            Ok(0) => {
                self.comment(
                    spot,
                    "With `maxRetriesOnTimeout: 0` the original sent nothing; this is sent once.",
                );
                Some(1)
            }
            Ok(number) if number <= 1_000_000 => Some(number),
            _ => {
                let span = attempts.span.clone();
                self.sink.error(
                    Code::Unsayable,
                    span,
                    "more than 1,000,000 attempts",
                    "write less, or take it out",
                );
                None
            }
        }
    }
}

/// A reply that is there must have been read.
#[allow(clippy::option_option)] // None: wrong; Some(None): not there
fn opened(reply: Option<Option<ReplyPlan>>) -> Option<Option<ReplyPlan>> {
    match reply {
        Some(reply) => reply.map(Some),
        None => Some(None),
    }
}

/// The header of that name, without case, that was there before.
fn same_name<'h, T>(known: &'h [(String, T)], name: &str) -> Option<&'h T> {
    let same = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    same.map(|(_, value)| value)
}
