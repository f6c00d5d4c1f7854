//! Durations, ranges of them, sizes: text to number. Errors say in one sentence what is accepted.

use std::time::Duration;

/// What a duration looks like, for help texts.
pub(crate) const DURATION_HELP: &str =
    "write a whole number and its unit, `ms`, `s`, `m` or `h`: \"50ms\", \"30s\", \"2m\", \"1h\"";

/// What a size looks like.
pub(super) const SIZE_HELP: &str =
    "write a whole number and its unit, `B`, `KiB`, `MiB` or `GiB`: \"64KiB\", \"1MiB\"";

/// The longest duration: 8760 hours. Longer ones are slips of the pen, and would overflow a deadline.
pub(super) const LONGEST: Duration = Duration::from_secs(8760 * 3600);

/// Splits `30s` into 30 and `s`; digits only, so no sign, point, space or exponent.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

/// `30s`: a whole number with `ms`, `s`, `m` or `h`, at most [`LONGEST`]. The error says what is wrong.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = |what: &str| Err(what.to_owned());
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        return bad("it has no unit");
    }
    let Some((number, unit)) = split(text) else {
        return bad("it does not begin with a whole number that fits");
    };
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        other => return Err(format!("`{other}` is no unit")),
    };
    match milliseconds.map(Duration::from_millis) {
        Some(span) if span <= LONGEST => Ok(span),
        _ => bad("it is longer than 8760h"),
    }
}

/// `50ms..2s`: two durations, the first not longer than the second, the second not zero.
pub(super) fn backoff(text: &str) -> Result<(Duration, Duration), String> {
    let Some((low, high)) = text.split_once("..") else {
        return Err("it has no `..`".to_owned());
    };
    let low = duration(low).map_err(|e| format!("the first wait, `{low}`: {e}"))?;
    let high = duration(high).map_err(|e| format!("the longest wait, `{high}`: {e}"))?;
    if high.is_zero() {
        return Err("the longest wait is zero: that would hammer a service that is down".to_owned());
    }
    if low > high {
        return Err("the first wait is longer than the longest".to_owned());
    }
    Ok((low, high))
}

/// `64KiB`: bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let Some((number, unit)) = split(text) else {
        return Err("it does not begin with a whole number that fits".to_owned());
    };
    let factor: u64 = match unit {
        "" => return Err("it has no unit".to_owned()),
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "MB" | "GB" | "K" | "M" | "G" | "k" | "kB" => {
            return Err(format!(
                "`{unit}` leaves open whether it counts by 1000 or by 1024"
            ));
        }
        other => return Err(format!("`{other}` is no unit")),
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| "it does not fit into 64 bits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for bad in [
            "",
            "s",
            "30",
            "-1s",
            "1.5s",
            "1 s",
            "1d",
            "9000h",
            "99999999999999999999s",
            "1s ",
            "é",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn backoffs() {
        assert_eq!(
            backoff("50ms..2s"),
            Ok((Duration::from_millis(50), Duration::from_secs(2)))
        );
        for bad in ["2s", "2s..50ms", "0s..0s", "..", "1s..", "1s..2s..3s"] {
            assert!(backoff(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("7B"), Ok(7));
        for bad in ["", "1", "1MB", "-1B", "18446744073709551615GiB", "1 MiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
