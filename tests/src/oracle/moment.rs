//! A point in time with PostgreSQL's precision, in UTC.

use std::fmt;

use anyhow::{Context, Result};

/// Microseconds since 1970-01-01 UTC. Displays as walpoint and PostgreSQL take
/// it: `2026-11-21 00:11:11.123456+00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

impl Moment {
    /// Reads `YYYY-MM-DD hh:mm:ss[.ffffff]`, `T` for the space too; what
    /// follows (` UTC`, `+00`, `Z`) is not looked at: everything is UTC here.
    pub fn parse(text: &str) -> Result<Moment> {
        let parsed = || -> Option<Moment> {
            let (date, time) = text.trim().split_at_checked(10)?;
            let [year, month, day] = numbers(date, '-')?;
            let clock: String =
                time.get(1..)?.chars().take_while(|c| c.is_ascii_digit() || matches!(c, ':' | '.')).collect();
            let (clock, fraction) = clock.split_once('.').unwrap_or((&clock, ""));
            let [hour, minute, second] = numbers(clock, ':')?;
            let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
            let seconds = hour * 3600 + minute * 60 + second;
            Some(Moment(days_from_civil(year, month, day) * DAY + seconds * SECOND + micros))
        };
        parsed().with_context(|| format!("not a time: {text}"))
    }

    #[must_use]
    pub fn plus_micros(self, micros: i64) -> Moment {
        Moment(self.0 + micros)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, micros) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let (year, month, day) = civil_from_days(days);
        let seconds = micros / SECOND;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let fraction = micros % SECOND;
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{fraction:06}+00")
    }
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let parts: Vec<i64> = text.split(separator).map(|part| part.parse().ok()).collect::<Option<_>>()?;
    parts.try_into().ok()
}

// The two conversions between a day number and a date are those of Howard
// Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_time_survives_reading_and_writing() {
        for text in [
            "2026-11-21 00:11:11.123456+00",
            "2000-02-29 23:59:59.000001+00",
            "1999-12-31 00:00:00.000000+00",
        ] {
            assert_eq!(Moment::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Moment::parse("1970-01-02T00:00:01Z").unwrap(), Moment(86_401 * SECOND));
        assert_eq!(Moment::parse("1970-01-01 00:00:00.5 UTC").unwrap(), Moment(500_000));
        assert!(Moment::parse("yesterday").is_err());
    }
}
