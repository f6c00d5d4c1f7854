//! Names of things: a saga, a step of its plan, a plan's content, a moment.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// One run of a saga. 128 bits, written as a UUID (RFC 9562); the runner makes it (version 7, so that ids sort by time).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SagaId(pub u128);

impl SagaId {
    /// When it was made, since 1970: the first 48 bits of an id of version 7 are milliseconds (RFC 9562, 5.7).
    #[must_use]
    pub fn made(self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 >> 80).unwrap_or(0))
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = Digits::<32>::of(self.0);
        let mut text = [b'-'; 36];
        // RFC 9562, 4: 8-4-4-4-12.
        let mut from = digits.0.iter();
        for (at, count) in [(0, 8), (9, 4), (14, 4), (19, 4), (24, 12)] {
            for (to, digit) in text.iter_mut().skip(at).take(count).zip(&mut from) {
                *to = *digit;
            }
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// The last hexadecimal digits of a number, lower case: each message has some, and `{:x}` takes twenty times as long.
pub(super) struct Digits<const N: usize>([u8; N]);

impl<const N: usize> Digits<N> {
    pub(super) fn of(number: u128) -> Self {
        let mut digits = [0; N];
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            let value = (rest & 0xf) as u8;
            *digit = if value < 10 {
                b'0' + value
            } else {
                b'a' + value - 10
            };
            rest >>= 4;
        }
        Self(digits)
    }

    pub(super) fn as_str(&self) -> &str {
        // They are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for SagaId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = text.len() == 36
            && text.bytes().enumerate().all(|(at, b)| match at {
                8 | 13 | 18 | 23 => b == b'-',
                _ => b.is_ascii_hexdigit(),
            });
        if !well_formed {
            return Err(ParseIdError);
        }
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        u128::from_str_radix(&digits, 16)
            .map(SagaId)
            .map_err(|_| ParseIdError)
    }
}

/// The text is not a saga's id (36 characters, as `018f2c1e-7a5b-7c3d-8e9f-0a1b2c3d4e5f`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a saga id: 8-4-4-4-12 hexadecimal digits were expected")]
pub struct ParseIdError;

/// A step, as its place in [`Plan::steps`](super::Plan::steps).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct StepId(pub u16);

impl StepId {
    /// The place as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// SHA-256 of a plan's serialized form: a saga ends under the definition it began with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlanHash(pub [u8; 32]);

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = self.0.split_at(16);
        for half in [high, low] {
            let number = half
                .iter()
                .fold(0, |number, byte| number << 8 | u128::from(*byte));
            f.write_str(Digits::<32>::of(number).as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A moment, in microseconds since the Unix epoch (wall clock, so that it means the same after a restart).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug, Default)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment and `span` later; saturates.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero when it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}
