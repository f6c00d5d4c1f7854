//! Which attempts there are, and how long they wait.

use super::*;
use crate::saga::Headers;
use crate::saga::fixture::retry;
use proptest::prelude::*;

/// 2026-11-23 10:00:00 GMT, a Monday.
const NOW: Timestamp = Timestamp(1_795_428_000_000_000);

fn used(used: u32) -> Tried {
    Tried {
        used,
        held: 0,
        elapsed: Duration::ZERO,
    }
}

fn of(end: &AttemptEnd) -> Why {
    Why::of(end, Direction::Transaction, NOW)
}

fn answered(status: u16, fields: &[(&str, &str)]) -> Why {
    let mut headers = Headers::default();
    for (name, value) in fields {
        headers.push(*name, value.as_bytes().to_vec());
    }
    of(&AttemptEnd::Answered(Response {
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
    let only = |cause| retry(None, &[cause]);
    let refused = Why::NotSent("refused".to_owned());
    let broken = Why::Broken("reset".to_owned());
    let allows = |policy, why: &Why| allows(&policy, used(1), why);
    assert!(allows(only(RetryOn::Connect), &refused));
    assert!(!allows(only(RetryOn::Connect), &broken));
    assert!(allows(only(RetryOn::Reset), &broken));
    assert!(allows(only(RetryOn::Timeout), &Why::TimedOut));
    assert!(!allows(only(RetryOn::Timeout), &answered(504, &[])));
    assert!(allows(only(RetryOn::Status5xx), &answered(503, &[])));
    assert!(!allows(only(RetryOn::Status5xx), &answered(429, &[])));
    assert!(allows(only(RetryOn::Status(429)), &answered(429, &[])));
    assert!(allows(only(RetryOn::Any), &answered(404, &[])));
    assert!(!allows(only(RetryOn::Any), &Why::Hole("no value".to_owned())));
}

#[test]
fn attempts_are_counted_with_the_first() {
    let three = retry(Some(3), &[RetryOn::Any]);
    assert!(allows(&three, used(2), &Why::TimedOut));
    assert!(!allows(&three, used(3), &Why::TimedOut));
}

#[test]
fn no_attempt_begins_too_late() {
    let short = RetryPolicy {
        max_elapsed: Some(Duration::from_secs(30)),
        ..retry(None, &[RetryOn::Any])
    };
    let after = |elapsed| Tried {
        elapsed: Duration::from_millis(elapsed),
        ..used(1)
    };
    for why in [Why::TimedOut, Why::Held("open".to_owned())] {
        assert!(allows(&short, after(30_000), &why));
        assert!(!allows(&short, after(30_001), &why));
    }
}

#[test]
fn what_qbox_held_back_is_an_attempt_forward_and_none_of_a_compensation() {
    let held = AttemptEnd::Held("the circuit is open".to_owned());
    let on_5xx = retry(None, &[RetryOn::Status5xx]);
    let why = |direction| Why::of(&held, direction, NOW);
    assert!(allows(&on_5xx, used(1), &why(Direction::Compensation(0))));
    for forward in [Direction::Transaction, Direction::Probe] {
        assert!(!allows(&on_5xx, used(1), &why(forward)));
        assert!(allows(&retry(None, &[RetryOn::Connect]), used(1), &why(forward)));
    }
    // The waits grow all the same.
    let endless = retry(None, &[RetryOn::Any]);
    let tried = Tried { held: 20, ..used(0) };
    let why = why(Direction::Compensation(0));
    let longest = (0..100).map(|n| wait(&endless, tried, &why, chance(n))).max();
    assert!(longest > Some(Duration::from_secs(1)), "{longest:?}");
}

#[test]
fn waits_stay_under_a_ceiling_that_doubles_and_is_capped() {
    let endless = retry(None, &[RetryOn::Any]);
    for n in [1, 2, 3, 10, 40, u32::MAX] {
        let ceiling = Duration::from_millis(50)
            .saturating_mul(2_u32.saturating_pow(n - 1))
            .min(Duration::from_secs(2));
        let waits: Vec<_> = (0..200)
            .map(|c| wait(&endless, used(n), &Why::TimedOut, chance(c)))
            .collect();
        assert!(waits.iter().all(|w| *w <= ceiling), "{n}: {ceiling:?}");
        // Full jitter: spread over the whole range.
        assert!(waits.iter().any(|w| *w > ceiling * 9 / 10));
        assert!(waits.iter().any(|w| *w < ceiling / 10));
    }
}

#[test]
fn the_same_attempt_waits_the_same() {
    let endless = retry(None, &[RetryOn::Any]);
    let of = |seed, step, attempt| {
        let chance = Chance::of_attempt(seed, StepId(step), Direction::Probe, attempt);
        wait(&endless, used(5), &Why::TimedOut, chance)
    };
    assert_eq!(of(1, 1, 1), of(1, 1, 1));
    assert_ne!(of(1, 1, 1), of(2, 1, 1));
    assert_ne!(of(1, 1, 1), of(1, 2, 1));
    assert_ne!(of(1, 1, 1), of(1, 1, 2));
}

/// The pause that an answer with these fields asks for, in seconds, the jitter (at most 50 ms) left out.
fn asked(fields: &[(&str, &str)]) -> u64 {
    let endless = retry(None, &[RetryOn::Any]);
    wait(&endless, used(1), &answered(503, fields), chance(1)).as_secs()
}

#[test]
fn a_service_may_ask_for_a_longer_wait() {
    let asked = |value| asked(&[("Retry-After", value)]);
    assert_eq!(asked("7"), 7);
    assert_eq!(asked(" 7 "), 7);
    assert_eq!(asked("99999999"), 600);
    assert_eq!(asked("99999999999999999999999"), 600);
    for nothing in ["", "-1", "1.5", "+7", "soon", "Mon, 23 Nov 2026"] {
        assert_eq!(asked(nothing), 0, "{nothing}");
    }
}

#[test]
fn it_may_ask_by_a_date() {
    let asked_at = |value| asked(&[("Retry-After", value)]);
    assert_eq!(asked_at("Mon, 23 Nov 2026 10:00:20 GMT"), 20);
    assert_eq!(asked_at("Monday, 23-Nov-26 10:00:20 GMT"), 20);
    assert_eq!(asked_at("Mon Nov 23 10:00:20 2026"), 20);
    assert_eq!(asked_at("Mon, 23 Nov 2026 09:00:00 GMT"), 0);
    assert_eq!(asked_at("Thu, 31 Dec 9999 23:59:59 GMT"), 600);
    // By its own clock, which is an hour behind.
    let by_its_clock = asked(&[
        ("Retry-After", "Mon, 23 Nov 2026 09:00:20 GMT"),
        ("Date", "Mon, 23 Nov 2026 09:00:05 GMT"),
    ]);
    assert_eq!(by_its_clock, 15);
    let no_date = asked(&[
        ("Retry-After", "Mon, 23 Nov 2026 10:00:20 GMT"),
        ("Date", "today"),
    ]);
    assert_eq!(no_date, 20);
}

proptest! {
    /// Whatever a service writes, nobody waits longer than the two caps together.
    #[test]
    fn no_answer_makes_it_wait_for_ever(
        retry_after in "([0-9]{0,25}|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT|.{0,30})",
        date in "([A-Z][a-z]{2}, [0-9]{2} (Jan|Jun|Dec) [0-9]{4} [0-2][0-9]:[0-5][0-9]:[0-5][0-9] GMT|.{0,30})",
        n: u32,
    ) {
        let endless = retry(None, &[RetryOn::Any]);
        let why = answered(429, &[("Retry-After", &retry_after), ("Date", &date)]);
        let waits = wait(&endless, used(n), &why, chance(n));
        prop_assert!(waits <= LONGEST_RETRY_AFTER + endless.backoff_max);
    }
}
