//! Moments and spans as people read them.

use crate::saga::Timestamp;
use std::time::Duration;

/// In UTC, as RFC 3339 has it: `2026-11-23T13:11:48.123Z`.
pub(super) fn moment(at: Timestamp) -> String {
    let milliseconds = at.0 / 1000;
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in eras of 400 years: leap days then come last.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:03}Z")
}

/// With as many digits as help: `412µs`, `12.3ms`, `2.06s`, `4m05s`, `3h07m`, `2d03h`.
pub(super) fn span(micros: u64) -> String {
    let duration = Duration::from_micros(micros);
    let seconds = duration.as_secs();
    match micros {
        0..1000 => format!("{micros}µs"),
        1000..1_000_000 => format!("{:.1}ms", duration.as_secs_f64() * 1e3),
        1_000_000..60_000_000 => format!("{:.2}s", duration.as_secs_f64()),
        _ if seconds < 3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As date(1) says: `date -u -d @SECONDS +%FT%TZ`.
    #[test]
    fn moments_are_calendar_dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (1_795_439_508, "2026-11-23T13:11:48.000Z"),
            (4_102_444_800, "2100-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(moment(Timestamp(seconds * 1_000_000)), date);
        }
        assert_eq!(moment(Timestamp(1_999)), "1970-01-01T00:00:00.001Z");
    }

    #[test]
    fn spans_have_the_unit_that_suits_them() {
        for (micros, text) in [
            (7, "7µs"),
            (12_345, "12.3ms"),
            (2_060_000, "2.06s"),
            (245_000_000, "4m05s"),
            (11_220_000_000, "3h07m"),
            (183_600_000_000, "2d03h"),
        ] {
            assert_eq!(span(micros), text);
        }
    }
}
