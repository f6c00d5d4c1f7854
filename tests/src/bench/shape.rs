//! Who calls whom: the five topologies of docs/performance.md, as paths that the hop, the services in the middle and the sagas agree on.
//!
//! `/WAY/SHAPE/TRIP` begins it all, `/WAY/SHAPE/of-N/TRIP` is what the Nth service in the middle sends for those below it. Errors: a path is none
//! of these.

use anyhow::{Context, Result};
use std::fmt;

/// A trigger calls `calls` services at once; where `each` isn't 0, each of them sends a trigger of its own, which calls so many more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(super) calls: usize,
    pub(super) each: usize,
    /// The services take [`super::services::SLOW`] to answer.
    pub(super) slow: bool,
}

impl Shape {
    pub(super) const ONE_TO_FOUR: Self = Self::new(4, 0);

    /// Those of the issue, in its order.
    pub(super) const ALL: [Self; 5] = [
        Self::ONE_TO_FOUR,
        Self::new(2, 1),
        Self::new(9, 0),
        Self::new(3, 2),
        Self::new(5, 1),
    ];

    /// 1 to 4, and the services take a while.
    pub(super) const SLOW: Self = Self {
        slow: true,
        ..Self::ONE_TO_FOUR
    };

    const fn new(calls: usize, each: usize) -> Self {
        Self {
            calls,
            each,
            slow: false,
        }
    }

    /// Those that it has below, and those in the middle.
    pub(super) fn needs(self) -> (usize, usize) {
        match self.each {
            0 => (self.calls, 0),
            each => (self.calls * each, self.calls),
        }
    }

    /// As it stands in paths.
    pub(super) fn key(self) -> String {
        let slow = if self.slow { "-slow" } else { "" };
        format!("{}-{}{slow}", self.calls, self.each)
    }

    pub(super) fn from_key(key: &str) -> Result<Self> {
        let (numbers, slow) = match key.strip_suffix("-slow") {
            Some(numbers) => (numbers, true),
            None => (key, false),
        };
        let (calls, each) = numbers.split_once('-').context("no shape")?;
        Ok(Self {
            calls: calls.parse()?,
            each: each.parse()?,
            slow,
        })
    }

    /// The first segment of what a service below is asked for.
    pub(super) fn pace(self) -> &'static str {
        if self.slow { "slow" } else { "at-once" }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1 to {}", self.calls)?;
        if self.each > 0 {
            write!(f, ", each to {}", self.each)?;
        }
        if self.slow {
            write!(f, ", 10 ms each")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_known_again_by_its_key() {
        for shape in Shape::ALL.into_iter().chain([Shape::SLOW]) {
            assert_eq!(Shape::from_key(&shape.key()).unwrap(), shape);
        }
        assert_eq!(Shape::new(3, 2).to_string(), "1 to 3, each to 2");
        assert_eq!(Shape::new(3, 2).needs(), (6, 3));
        Shape::from_key("x").unwrap_err();
    }
}
