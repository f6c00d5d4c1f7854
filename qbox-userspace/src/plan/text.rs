//! A prospect as text for people.

use super::{How, Prospect, Rehearsal, Sent, outline};
use crate::saga::{AttemptEnd, Direction, Headers, Plan, Reply, StepId, StepState};
use std::borrow::Cow;
use std::fmt::Write;

/// Longer bodies are cut.
const SHOWN_BODY: usize = 2000;

impl Prospect {
    /// The graph, each request, and what would be undone.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = outline(&self.plan);
        let request = &self.trigger.request;
        let from = match self.made_up {
            true => {
                "Started by a request made up to match (values that only a real one has are named after themselves)"
            }
            false => "Started by",
        };
        // Writing to a String does not fail, here and below.
        let _ = writeln!(out, "\n{from}:\n\n  {} {}", request.method, plain(&request.url));
        message(&mut out, &request.headers, &request.body);
        let _ = writeln!(out, "\nIt sends, the same number at once:\n");
        self.requests(&mut out, &self.forward, |_| true);
        self.end(&mut out, &self.forward);
        for failure in &self.failures {
            let name = self.name(failure.step);
            if !failure.run.sends(failure.step) {
                if failure.how == How::Refused {
                    let _ = writeln!(out, "\n`{name}` is not sent with this trigger, so it can't fail.");
                }
                continue;
            }
            let _ = match failure.how {
                How::Refused => writeln!(
                    out,
                    "\nIf `{name}` is refused ({}), it undoes:\n",
                    refusal(failure.step, &failure.run)
                ),
                How::Unknown => writeln!(out, "\nIf nobody knows what became of `{name}`, it undoes:\n"),
            };
            if failure.run.compensations().next().is_none() {
                out.push_str("  nothing\n");
            }
            self.requests(&mut out, &failure.run, |sent| {
                matches!(sent.direction, Direction::Compensation(_))
            });
            self.end(&mut out, &failure.run);
        }
        out
    }

    fn name(&self, step: StepId) -> &str {
        name(&self.plan, step)
    }

    fn requests(&self, out: &mut String, run: &Rehearsal, shown: impl Fn(&Sent) -> bool) {
        let mut wave = 0;
        let mut last = 0;
        for sent in run.sent.iter().filter(|sent| shown(sent)) {
            if sent.wave != last {
                (last, wave) = (sent.wave, wave + 1);
            }
            let attempt = match sent.attempt {
                1 => String::new(),
                n => format!(", attempt {n}"),
            };
            let _ = writeln!(
                out,
                "  {wave:>2}. {}{}{attempt}: {} {}",
                self.name(sent.step),
                what(sent.direction),
                sent.request.method,
                plain(&sent.request.url)
            );
            if !sent.forward {
                message(out, &own_headers(&sent.request.headers), &sent.request.body);
            }
            if !sent.made_up || !matches!(sent.end, AttemptEnd::Answered(_)) {
                let _ = writeln!(out, "      → {}", end(&sent.end));
            }
        }
    }

    /// How a run ends.
    fn end(&self, out: &mut String, run: &Rehearsal) {
        out.push('\n');
        for (step, end) in self.plan.steps.iter().zip(&run.steps) {
            match (end.state, &end.cause) {
                (StepState::Skipped, _) => {
                    let _ = writeln!(out, "  `{}` is skipped: its `when` does not hold.", step.name);
                }
                (_, Some(cause)) => {
                    let _ = writeln!(out, "  `{}`: {}.", step.name, plain(cause));
                }
                _ => {}
            }
        }
        if let Some((step, direction)) = run.endless {
            let _ = writeln!(
                out,
                "  And so on: `{}`{} is sent until it is answered with a success.",
                self.name(step),
                what(direction)
            );
            return;
        }
        let _ = write!(out, "  The saga is {}", run.state.as_str());
        match &run.reply {
            Some(reply) => {
                let _ = writeln!(out, "; its caller gets {}.", answer(reply));
            }
            None => out.push_str(".\n"),
        }
    }
}

/// The headers that the file gives: what Qbox adds to every request says nothing here.
fn own_headers(headers: &Headers) -> Headers {
    let added = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("x-qbox-")
            || matches!(name.as_str(), "idempotency-key" | "traceparent" | "tracestate")
    };
    Headers(
        headers
            .0
            .iter()
            .filter(|(name, _)| !added(name))
            .cloned()
            .collect(),
    )
}

fn message(out: &mut String, headers: &Headers, body: &[u8]) {
    for (name, value) in &headers.0 {
        let _ = writeln!(out, "      {name}: {}", plain(&String::from_utf8_lossy(value)));
    }
    if !body.is_empty() {
        let _ = writeln!(out, "      {}", shown(body));
    }
}

/// A body on one line.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..SHOWN_BODY).unwrap_or(body));
    let more = if body.len() > SHOWN_BODY { " …" } else { "" };
    format!("{}{more}", plain(&text))
}

/// A text that a terminal takes for nothing but text.
fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let written = text.chars().map(|c| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    Cow::Owned(written.collect())
}

pub(super) fn name(plan: &Plan, step: StepId) -> &str {
    plan.steps
        .get(step.index())
        .map_or("?", |step| step.name.as_str())
}

fn what(direction: Direction) -> String {
    match direction {
        Direction::Transaction => String::new(),
        Direction::Probe => " (probe)".to_owned(),
        Direction::Compensation(0) => " (compensation)".to_owned(),
        Direction::Compensation(n) => format!(" (compensation {n})"),
        Direction::Child(_) => " (nested saga)".to_owned(),
    }
}

/// An attempt's end in a few words.
pub(super) fn end(end: &AttemptEnd) -> String {
    match end {
        AttemptEnd::Answered(response) if response.body.is_empty() => format!("{}", response.status),
        AttemptEnd::Answered(response) => format!("{} {}", response.status, shown(&response.body)),
        AttemptEnd::TimedOut => "no answer in time".to_owned(),
        AttemptEnd::NotSent(why) => format!("can't be sent: {why}"),
        AttemptEnd::Held(why) => format!("held back: {why}"),
        AttemptEnd::Broken(why) => format!("the connection breaks: {why}"),
        AttemptEnd::Lost => "lost".to_owned(),
    }
}

fn refusal(step: StepId, run: &Rehearsal) -> String {
    let own = run
        .sent
        .iter()
        .find(|sent| sent.step == step && sent.direction == Direction::Transaction);
    match own.map(|sent| &sent.end) {
        Some(AttemptEnd::Answered(response)) => format!("answers {}", response.status),
        _ => "can't be reached".to_owned(),
    }
}

fn answer(reply: &Reply) -> String {
    match reply.body.is_empty() {
        true => format!("{}", reply.status),
        false => format!("{} {}", reply.status, shown(&reply.body)),
    }
}
