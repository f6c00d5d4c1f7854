//! A moment as HTTP writes it (RFC 9110, 5.6.7), in the form that is sent today and the two that are obsolete but must be
//! read.
//!
//! Knows no clock: the only thing that it asks the present for is the century of a year of two digits. What is no date is
//! `None`; nothing else can go wrong.

use std::str::FromStr;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAY: i64 = 86_400;

/// The seconds since 1970 (negative: before) that `text` says. `now`, in the same, decides the century where the year has
/// two digits: a year that would lie more than 50 years ahead is the last one in the past that ended so.
pub(super) fn parse(text: &str, now: i64) -> Option<i64> {
    let words: Vec<&str> = text.split_ascii_whitespace().take(7).collect();
    match *words.as_slice() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [weekday, day, month, year, time, "GMT"] if weekday.ends_with(',') => {
            seconds(whole(year, 4)?, month, whole(day, 2)?, time)
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        [weekday, date, time, "GMT"] if weekday.ends_with(',') => {
            let mut parts = date.split('-');
            let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
            if parts.next().is_some() {
                return None;
            }
            seconds(full_year(whole(year, 2)?, now), month, whole(day, 2)?, time)
        }
        // Sun Nov  6 08:49:37 1994
        [_, month, day, time, year] => {
            let day = whole(day, day.len().clamp(1, 2))?;
            seconds(whole(year, 4)?, month, day, time)
        }
        _ => None,
    }
}

/// A number of exactly that many digits.
fn whole<T: FromStr>(text: &str, digits: usize) -> Option<T> {
    let fits = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok())?
}

fn full_year(two_digits: i64, now: i64) -> i64 {
    // A year has 365.2425 days.
    let this_year = 1970 + now.div_euclid(31_556_952);
    let year = this_year - this_year.rem_euclid(100) + two_digits;
    if year > this_year + 50 { year - 100 } else { year }
}

fn seconds(year: i64, month: &str, day: i64, time: &str) -> Option<i64> {
    let month = MONTHS.iter().zip(1..).find(|(name, _)| **name == month)?.1;
    let mut clock = time.split(':');
    let mut next = || whole::<i64>(clock.next()?, 2);
    let (hour, minute, second) = (next()?, next()?, next()?);
    // 60: a leap second.
    let fits = (1..=days_in(year, month)).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !fits || clock.next().is_some() {
        return None;
    }
    Some(days_since_1970(year, month, day) * DAY + hour * 3600 + minute * 60 + second)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The days from 1970-01-01 to a day of the Gregorian calendar, by years that begin in March, so that the day which some years
/// have more is a year's last (H. Hinnant, "chrono-compatible low-level date algorithms", 2013).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-23.
    const NOW: i64 = 1_795_400_000;

    #[test]
    fn the_three_forms_of_one_moment() {
        // The RFC's own example.
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text, NOW), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn days_at_the_edges() {
        let day = |text: &str| parse(&format!("Xxx, {text} 00:00:00 GMT"), NOW).map(|s| s / DAY);
        assert_eq!(day("01 Jan 1970"), Some(0));
        assert_eq!(day("31 Dec 1969"), Some(-1));
        assert_eq!(day("29 Feb 2000"), Some(11_016));
        assert_eq!(day("01 Mar 2000"), Some(11_017));
        assert_eq!(day("29 Feb 2024"), Some(19_782));
        assert_eq!(day("29 Feb 2100"), None);
        assert_eq!(day("31 Apr 2026"), None);
        assert_eq!(day("00 Apr 2026"), None);
        assert_eq!(
            parse("Sat, 31 Dec 2016 23:59:60 GMT", NOW),
            parse("Sun, 01 Jan 2017 00:00:00 GMT", NOW)
        );
    }

    #[test]
    fn a_year_of_two_digits_is_near() {
        let year = |two: &str| parse(&format!("Monday, 01-Jan-{two} 00:00:00 GMT"), NOW);
        let full = |four: &str| parse(&format!("Mon, 01 Jan {four} 00:00:00 GMT"), NOW);
        for (two, four) in [
            ("26", "2026"),
            ("76", "2076"),
            ("77", "1977"),
            ("99", "1999"),
            ("00", "2000"),
        ] {
            assert_eq!(year(two), full(four), "{two}");
        }
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "120",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37:00 GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 06-Nov-94-1 08:49:37 GMT",
            "Sun Nov  106 08:49:37 1994",
        ] {
            assert_eq!(parse(text, NOW), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}", now: i64) {
            let _any = parse(&text, now);
        }

        #[test]
        fn days_are_counted_one_by_one(year in 1600_i64..9999, month in 1_usize..=12, day in 1_i64..=31) {
            let of = |year: i64, month: usize, day: i64| {
                let text = format!("Xxx, {day:02} {} {year} 00:00:00 GMT", MONTHS[month - 1]);
                parse(&text, NOW)
            };
            if let Some(today) = of(year, month, day) {
                let next = of(year, month, day + 1)
                    .or_else(|| of(year, month % 12 + 1, 1).filter(|_| month < 12))
                    .or_else(|| of(year + 1, 1, 1));
                prop_assert_eq!(next, Some(today + DAY));
            }
        }
    }
}
