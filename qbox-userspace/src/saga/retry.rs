//! When another attempt is due, and the chance that spreads attempts out.
//!
//! Capped exponential backoff with full jitter: the wait is drawn evenly from zero to a ceiling that doubles with each
//! attempt. All chance is a function of the saga's seed and of what it is drawn for, so that a saga that is folded again
//! draws the same. Knows no clock: it gives spans, not moments.

use super::event::{AttemptEnd, Direction};
use super::id::StepId;
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
    pub(super) fn of(end: &AttemptEnd) -> Self {
        match end {
            AttemptEnd::NotSent(why) => Self::NotSent(why.clone()),
            AttemptEnd::Answered(response) => Self::Answered {
                status: response.status,
                retry_after: retry_after(response),
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
            Self::NotSent(why) => write!(f, "not sent: {why}"),
            Self::Answered { status, .. } => write!(f, "answered {status}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Broken(how) => write!(f, "the connection broke: {how}"),
            Self::Lost => f.write_str("Qbox was restarted while it was in flight"),
        }
    }
}

/// `Retry-After` in seconds (RFC 9110, 10.2.3). The form with a date is not heeded: it would need a clock.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = std::str::from_utf8(response.headers.get("retry-after")?)
        .ok()?
        .trim();
    let seconds = value
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| value.parse().ok())?;
    seconds.map(|s| Duration::from_secs(s).min(LONGEST_RETRY_AFTER))
}

/// Whether the policy has another attempt after `used` of them, the last of which ended so.
pub(super) fn allows(policy: &RetryPolicy, used: u32, why: &Why) -> bool {
    let again = match why {
        Why::Hole(_) => false,
        // What a restart cut off is sent again whatever the file says: it was no answer of the service's.
        Why::Lost => true,
        _ => policy.on.iter().any(|cause| why.is(*cause)),
    };
    again && policy.attempts.is_none_or(|most| used < most)
}

/// How long to wait before the attempt that follows `used` others.
pub(super) fn wait(policy: &RetryPolicy, used: u32, why: &Why, chance: Chance) -> Duration {
    let doubled = 2_u32.checked_pow(used.saturating_sub(1)).unwrap_or(u32::MAX);
    let ceiling = policy.backoff_min.saturating_mul(doubled).min(policy.backoff_max);
    let jitter = chance.up_to(ceiling);
    match why {
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
mod tests {
    use super::*;
    use crate::saga::Headers;

    fn policy(attempts: Option<u32>, on: &[RetryOn]) -> RetryPolicy {
        RetryPolicy {
            attempts,
            on: on.to_vec(),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
        }
    }

    fn answered(status: u16, retry_after: Option<&'static str>) -> Why {
        let mut headers = Headers::default();
        if let Some(value) = retry_after {
            headers.push("Retry-After", value);
        }
        Why::of(&AttemptEnd::Answered(Response {
            status,
            headers,
            body: bytes::Bytes::new(),
            truncated: false,
        }))
    }

    fn chance(attempt: u32) -> Chance {
        Chance::of_attempt(7, StepId(1), Direction::Transaction, attempt)
    }

    #[test]
    fn each_cause_is_its_own() {
        let only = |cause| policy(None, &[cause]);
        let refused = Why::NotSent("refused".to_owned());
        let broken = Why::Broken("reset".to_owned());
        assert!(allows(&only(RetryOn::Connect), 1, &refused));
        assert!(!allows(&only(RetryOn::Connect), 1, &broken));
        assert!(allows(&only(RetryOn::Reset), 1, &broken));
        assert!(allows(&only(RetryOn::Timeout), 1, &Why::TimedOut));
        assert!(!allows(&only(RetryOn::Timeout), 1, &answered(504, None)));
        assert!(allows(&only(RetryOn::Status5xx), 1, &answered(503, None)));
        assert!(!allows(&only(RetryOn::Status5xx), 1, &answered(429, None)));
        assert!(allows(&only(RetryOn::Status(429)), 1, &answered(429, None)));
        assert!(allows(&only(RetryOn::Any), 1, &answered(404, None)));
        assert!(!allows(&only(RetryOn::Any), 1, &Why::Hole("no value".to_owned())));
    }

    #[test]
    fn attempts_are_counted_with_the_first() {
        let three = policy(Some(3), &[RetryOn::Any]);
        assert!(allows(&three, 2, &Why::TimedOut));
        assert!(!allows(&three, 3, &Why::TimedOut));
    }

    #[test]
    fn waits_stay_under_a_ceiling_that_doubles_and_is_capped() {
        let endless = policy(None, &[RetryOn::Any]);
        for used in [1, 2, 3, 10, 40, u32::MAX] {
            let ceiling = Duration::from_millis(50)
                .saturating_mul(2_u32.saturating_pow(used - 1))
                .min(Duration::from_secs(2));
            let waits: Vec<_> = (0..200)
                .map(|n| wait(&endless, used, &Why::TimedOut, chance(n)))
                .collect();
            assert!(waits.iter().all(|w| *w <= ceiling), "{used}: {ceiling:?}");
            // Full jitter: spread over the whole range.
            assert!(waits.iter().any(|w| *w > ceiling * 9 / 10));
            assert!(waits.iter().any(|w| *w < ceiling / 10));
        }
    }

    #[test]
    fn the_same_attempt_waits_the_same() {
        let endless = policy(None, &[RetryOn::Any]);
        let of = |seed, step, attempt| {
            let chance = Chance::of_attempt(seed, StepId(step), Direction::Probe, attempt);
            wait(&endless, 5, &Why::TimedOut, chance)
        };
        assert_eq!(of(1, 1, 1), of(1, 1, 1));
        assert_ne!(of(1, 1, 1), of(2, 1, 1));
        assert_ne!(of(1, 1, 1), of(1, 2, 1));
        assert_ne!(of(1, 1, 1), of(1, 1, 2));
    }

    #[test]
    fn a_service_may_ask_for_a_longer_wait() {
        let endless = policy(None, &[RetryOn::Any]);
        let asked = |value| wait(&endless, 1, &answered(503, Some(value)), chance(1));
        assert!(asked("7") >= Duration::from_secs(7));
        assert!(asked("7") <= Duration::from_millis(7050));
        assert!(asked("99999999") <= LONGEST_RETRY_AFTER + Duration::from_secs(1));
        assert!(asked("Wed, 21 Oct 2026 07:28:00 GMT") <= Duration::from_millis(50));
        assert!(asked("99999999999999999999999") <= Duration::from_millis(50));
        assert!(asked("-1") <= Duration::from_millis(50));
    }
}
