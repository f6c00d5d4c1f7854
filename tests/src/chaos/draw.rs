//! Chance that a seed decides: the same seed, name and numbers give the same draws, in whatever order and process.

/// A stream of draws (splitmix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
#[derive(Debug, Clone)]
pub(super) struct Draw(u64);

impl Draw {
    /// The stream for `what`, number `number` of it.
    pub(super) fn of(seed: u64, what: &str, number: u64) -> Self {
        let mut draw = Self(seed);
        for byte in what.bytes() {
            draw.0 = draw.next() ^ u64::from(byte);
        }
        draw.0 = draw.next() ^ number;
        draw.0 = draw.next();
        draw
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 where that is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        // The bias of the remainder is below 2^-40 for any limit used here.
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// A number from `low` up to, but not, `high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low))
    }

    /// True in `percent` of 100 draws.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_draws_and_another_gives_others() {
        let draws = |seed, what, number| {
            let mut draw = Draw::of(seed, what, number);
            [draw.below(1000), draw.below(1000), draw.between(5, 1005)]
        };
        assert_eq!(draws(7, "trip", 1), draws(7, "trip", 1));
        assert_ne!(draws(7, "trip", 1), draws(8, "trip", 1));
        assert_ne!(draws(7, "trip", 1), draws(7, "trip", 2));
        assert_ne!(draws(7, "trip", 1), draws(7, "kill", 1));
    }

    #[test]
    fn percents_are_about_right() {
        let hits = (0..10_000).filter(|n| Draw::of(1, "x", *n).percent(5)).count();
        assert!((400..600).contains(&hits), "{hits}");
    }
}
