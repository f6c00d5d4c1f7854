//! `retry`: how often a message is sent again, after what, and for how long.

use super::diagnostic::Code;
use super::message;
use super::units;
use super::walk::{Node, Sink, list};
use crate::saga::{RetryOn, RetryPolicy};
use std::time::Duration;
use toml::de::DeValue;

/// The shortest `max_elapsed`.
const SHORTEST: Duration = Duration::from_millis(1);

/// What a `retry` says when it does not say it.
#[derive(Clone, Copy)]
pub(super) struct Retry {
    pub(super) attempts: Option<u32>,
    pub(super) on: &'static [RetryOn],
    pub(super) backoff: (Duration, Duration),
}

/// What may pass by itself. A refusal does not.
const PASSING: &[RetryOn] = &[
    RetryOn::Connect,
    RetryOn::Timeout,
    RetryOn::Reset,
    RetryOn::Status5xx,
    RetryOn::Status(429),
];
const SHORT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
const LONG: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
pub(super) const STEP: Retry = Retry {
    attempts: Some(1),
    on: PASSING,
    backoff: SHORT,
};
pub(super) const RETRIABLE: Retry = Retry {
    attempts: None,
    on: &[RetryOn::Any],
    backoff: LONG,
};
pub(super) const COMPENSATION: Retry = Retry {
    attempts: None,
    on: &[RetryOn::Any],
    backoff: LONG,
};
pub(super) const PROBE: Retry = Retry {
    attempts: Some(5),
    on: &[RetryOn::Any],
    backoff: SHORT,
};

/// A pivot can be neither undone nor passed, so it is asked after until it is known.
pub(super) const PIVOT_PROBE: Retry = Retry {
    attempts: None,
    ..PROBE
};

/// The defaults, as a policy.
pub(super) fn policy(defaults: Retry) -> RetryPolicy {
    RetryPolicy {
        attempts: defaults.attempts,
        on: defaults.on.to_vec(),
        backoff_min: defaults.backoff.0,
        backoff_max: defaults.backoff.1,
        max_elapsed: None,
    }
}

/// Reads a `retry`; what it doesn't say is as `defaults` says.
pub(super) fn retry(sink: &Sink, node: Option<&Node<'_>>, defaults: Retry) -> RetryPolicy {
    let mut policy = policy(defaults);
    let Some(table) = node.and_then(|n| n.table("`retry`")) else {
        return policy;
    };
    if let Some(node) = table.get("max_elapsed") {
        policy.max_elapsed = node.duration(SHORTEST);
        // Who says how long doesn't mean once.
        policy.attempts = None;
    }
    if let Some(attempts) = table.get("attempts") {
        policy.attempts = attempts
            .integer(1, 1_000_000)
            .and_then(|n| u32::try_from(n).ok())
            .or(policy.attempts);
    }
    if let Some(on) = table.get("on") {
        let causes = on
            .list("on = [\"connect\", \"timeout\", \"5xx\", \"429\"]")
            .unwrap_or_default();
        if causes.is_empty() && matches!(on.value, DeValue::Array(_)) {
            let help = "write what is retried, or take the key out";
            sink.error(
                Code::Empty,
                on.span.clone(),
                "`on` is an empty list: nothing is retried",
                "",
                help,
            );
        }
        policy.on = causes.iter().filter_map(|cause| retry_on(sink, cause)).collect();
    }
    if let Some(text) = table.get("backoff").and_then(|n| n.text()) {
        match units::backoff(text.value) {
            Ok((low, high)) => (policy.backoff_min, policy.backoff_max) = (low, high),
            Err(why) => {
                let message = format!("`{}` is not a range of waits", text.value);
                let help = "write the first wait and the longest: \"50ms..2s\"";
                sink.error(Code::Backoff, text.span, message, why, help);
            }
        }
    }
    table.finish();
    policy
}

fn retry_on(sink: &Sink, node: &Node<'_>) -> Option<RetryOn> {
    const WORDS: &[(&str, RetryOn)] = &[
        ("connect", RetryOn::Connect),
        ("timeout", RetryOn::Timeout),
        ("reset", RetryOn::Reset),
        ("5xx", RetryOn::Status5xx),
        ("any", RetryOn::Any),
    ];
    if matches!(node.value, DeValue::Integer(_)) {
        return message::status(sink, node).map(RetryOn::Status);
    }
    let text = node.text()?;
    if let Some((_, cause)) = WORDS.iter().find(|(word, _)| *word == text.value) {
        return Some(*cause);
    }
    if let Some(status) = text.value.parse().ok().filter(|s| (200..=599).contains(s)) {
        return Some(RetryOn::Status(status));
    }
    let known: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
    let message = format!("`{}` is no cause for a retry", text.value);
    let mut finding = sink.draft(Code::RetryOn, text.span, message);
    finding.help = format!("known: {} and a status, as \"429\"", list(&known));
    if let Some(meant) = super::walk::nearest(text.value, &known) {
        finding.help = format!("did you mean `{meant}`?");
        finding.suggestion = Some(format!("\"{meant}\""));
    }
    sink.report(finding);
    None
}
