//! When another attempt is due, and the chance that spreads attempts out.
//!
//! Capped exponential backoff with full jitter: the wait is drawn evenly from zero to a ceiling that doubles with each
//! attempt. All chance is a function of the saga's seed and of what it is drawn for, so that a saga that is folded again
//! draws the same. A service may ask for a longer pause (`Retry-After`, RFC 9110, 10.2.3). Knows no clock: moments come in,
//! spans go out.

use super::event::{AttemptEnd, Direction};
use super::http_date;
use super::id::{StepId, Timestamp};
use super::message::Response;
use super::plan::{RetryOn, RetryPolicy};
use std::fmt;
use std::time::Duration;

/// A service may ask for a longer pause than the policy's, but not for ever.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// How an attempt ended, without the answer itself: what a policy and a person need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The request could not be put together; trying again gives the same.
    Hole(String),
    /// Nothing left this node.
    NotSent(String),
    /// Nor here, and Qbox itself is why: a compensation has not been tried by that.
    Held(String),
    /// A whole answer.
    Answered {
        status: u16,
        retry_after: Option<Duration>,
    },
    /// No whole answer in time.
    TimedOut,
    /// The connection broke.
    Broken(String),
    /// Qbox was restarted meanwhile.
    Lost,
}

impl Why {
    /// As heard at `at`.
    pub(super) fn of(end: &AttemptEnd, direction: Direction, at: Timestamp) -> Self {
        match end {
            AttemptEnd::Held(why) if matches!(direction, Direction::Compensation(_)) => {
                Self::Held(why.clone())
            }
            // Forward a saga fails fast rather than wait for a service that isn't there.
            AttemptEnd::Held(why) => Self::NotSent(why.clone()),
            AttemptEnd::NotSent(why) => Self::NotSent(why.clone()),
            AttemptEnd::Answered(response) => Self::Answered {
                status: response.status,
                retry_after: retry_after(response, at),
            },
            AttemptEnd::TimedOut => Self::TimedOut,
            AttemptEnd::Broken(how) => Self::Broken(how.clone()),
            AttemptEnd::Lost => Self::Lost,
        }
    }

    fn is(&self, cause: RetryOn) -> bool {
        match cause {
            RetryOn::Any => true,
            RetryOn::Connect => matches!(self, Self::NotSent(_)),
            RetryOn::Timeout => matches!(self, Self::TimedOut),
            RetryOn::Reset => matches!(self, Self::Broken(_)),
            RetryOn::Status5xx => matches!(self, Self::Answered { status, .. } if *status >= 500),
            RetryOn::Status(wanted) => matches!(self, Self::Answered { status, .. } if *status == wanted),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hole(why) => f.write_str(why),
            Self::NotSent(why) | Self::Held(why) => write!(f, "not sent: {why}"),
            Self::Answered { status, .. } => write!(f, "answered {status}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Broken(how) => write!(f, "the connection broke: {how}"),
            Self::Lost => f.write_str("Qbox was restarted while it was in flight"),
        }
    }
}

/// `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3), as a span from when it was heard, up to
/// [`LONGEST_RETRY_AFTER`]. A date is compared with the answer's own `Date`: the service's clock need not be ours.
fn retry_after(response: &Response, at: Timestamp) -> Option<Duration> {
    let field = |name| Some(std::str::from_utf8(response.headers.get(name)?).ok()?.trim());
    let value = field("retry-after").filter(|value| !value.is_empty())?;
    let seconds = if value.bytes().all(|b| b.is_ascii_digit()) {
        // More than fit are as good as the longest.
        value.parse().unwrap_or(u64::MAX)
    } else {
        let now = i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX);
        let said = http_date::parse(value, now)?;
        let from = field("date").and_then(|date| http_date::parse(date, now));
        u64::try_from(said.saturating_sub(from.unwrap_or(now))).unwrap_or(0)
    };
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

/// What has been tried so far, as a policy counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tried {
    /// Attempts that count.
    pub(super) used: u32,
    /// Attempts that don't, since Qbox itself held them back.
    pub(super) held: u32,
    /// How long after the first attempt it is.
    pub(super) elapsed: Duration,
}

/// Whether the policy has another attempt, the last of which ended so. `tried`: at the moment at which it would begin.
pub(super) fn allows(policy: &RetryPolicy, tried: Tried, why: &Why) -> bool {
    let again = match why {
        Why::Hole(_) => false,
        // What a restart cut off, or Qbox held back, is sent again whatever the file says: it was no answer of the service's.
        Why::Lost | Why::Held(_) => true,
        _ => policy.on.iter().any(|cause| why.is(*cause)),
    };
    again
        && policy.attempts.is_none_or(|most| tried.used < most)
        && policy.max_elapsed.is_none_or(|most| tried.elapsed <= most)
}

/// Whether an end that the file gives has been reached, whatever the last attempt's end was. (A single attempt is what a file has that
/// says nothing of attempts.)
pub(super) fn spent(policy: &RetryPolicy, tried: Tried) -> bool {
    let attempts = policy.attempts.filter(|most| *most > 1);
    attempts.is_some_and(|most| tried.used >= most)
        || policy.max_elapsed.is_some_and(|most| tried.elapsed > most)
}

/// How long to wait before the next attempt.
pub(super) fn wait(policy: &RetryPolicy, tried: Tried, why: &Why, chance: Chance) -> Duration {
    let before = tried.used.saturating_add(tried.held);
    let doubled = 2_u32.checked_pow(before.saturating_sub(1)).unwrap_or(u32::MAX);
    let ceiling = policy.backoff_min.saturating_mul(doubled).min(policy.backoff_max);
    let jitter = chance.up_to(ceiling);
    match why {
        // The jitter comes on top, or all that were asked for the same pause would come back at the same moment.
        Why::Answered {
            retry_after: Some(asked),
            ..
        } => asked.saturating_add(jitter),
        _ => jitter,
    }
}

/// Chance without a source of chance: the same for the same seed and purpose (SplitMix64, Steele et al. 2014).
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// What belongs to the saga as a whole.
    pub(super) fn of_saga(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// What belongs to one attempt.
    pub(super) fn of_attempt(seed: u64, step: StepId, direction: Direction, attempt: u32) -> Self {
        let direction = match direction {
            Direction::Transaction => 0,
            Direction::Probe => 1,
            Direction::Compensation(n) => 2 + u64::from(n),
            // Behind all of them, where there is still room below the step's own bits.
            Direction::Child(n) => 0xffff - u64::from(n),
        };
        let place = u64::from(step.0) << 48 | direction << 32 | u64::from(attempt);
        Self(mix(mix(seed) ^ place))
    }

    /// The `n`th number that belongs here.
    pub(super) fn number(self, n: u64) -> u64 {
        mix(self.0.wrapping_add(n))
    }

    fn up_to(self, ceiling: Duration) -> Duration {
        let micros = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
        let scaled = (u128::from(self.number(0)) * (u128::from(micros) + 1)) >> 64;
        Duration::from_micros(u64::try_from(scaled).unwrap_or(micros))
    }
}

fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
