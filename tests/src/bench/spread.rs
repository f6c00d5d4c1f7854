//! What several rounds showed: the lowest, the median, the highest. Knows nothing of what was measured.

/// Of nothing it is all 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or_default();
        Self {
            low: at(0),
            median: at(values.len() / 2),
            high: at(values.len().saturating_sub(1)),
        }
    }

    /// As a table shows it.
    pub(crate) fn cell(self, places: usize) -> String {
        let Self { low, median, high } = self;
        format!("{median:.places$} ({low:.places$} to {high:.places$})")
    }
}

impl From<Spread> for [f64; 3] {
    fn from(spread: Spread) -> Self {
        [spread.low, spread.median, spread.high]
    }
}

/// The middle one of some, or 0 of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    Spread::of(values).median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one_counts() {
        assert_eq!(
            Spread::of([3.0, 1.0, 2.0]),
            Spread {
                low: 1.0,
                median: 2.0,
                high: 3.0
            }
        );
        assert_eq!(Spread::of([]).cell(1), "0.0 (0.0 to 0.0)");
    }
}
