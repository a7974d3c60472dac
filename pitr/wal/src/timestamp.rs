//! Moments as PostgreSQL counts them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Microseconds from 1970-01-01 to 2000-01-01 UTC.
const UNIX_TO_POSTGRESQL: i64 = 946_684_800_000_000;

/// Microseconds since 2000-01-01 00:00 UTC (PostgreSQL `TimestampTz`,
/// datatype/timestamp.h).
///
/// Serde uses [`Timestamp::rfc3339`] both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp(pub i64);

/// The text is not a moment as this program writes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a time in RFC 3339 with an offset and at most 6 decimals")]
pub struct TimestampError {
    /// The text that was refused.
    pub text: String,
}

impl Timestamp {
    /// Takes microseconds since 1970-01-01 UTC; `None` where the result has no number.
    pub fn from_unix_micros(micros: i64) -> Option<Timestamp> {
        micros.checked_sub(UNIX_TO_POSTGRESQL).map(Timestamp)
    }

    /// Takes seconds since 1970-01-01 UTC: PostgreSQL's `pg_time_t`.
    pub fn from_unix_seconds(seconds: i64) -> Option<Timestamp> {
        seconds.checked_mul(1_000_000).and_then(Timestamp::from_unix_micros)
    }

    /// Microseconds since 1970-01-01 UTC; `None` where they have no number.
    pub fn to_unix_micros(self) -> Option<i64> {
        self.0.checked_add(UNIX_TO_POSTGRESQL)
    }

    /// `2026-11-20T21:45:00.123456Z`. A moment outside the years 0 to 9999, which
    /// RFC 3339 cannot say, is written as its number: `946684800000001us`.
    pub fn rfc3339(self) -> String {
        match self.civil() {
            Some(civil) => civil.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
            None => format!("{}us", self.0),
        }
    }

    fn civil(self) -> Option<jiff::civil::DateTime> {
        let moment = jiff::Timestamp::from_microsecond(self.to_unix_micros()?).ok()?;
        let civil = moment.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        if civil.year() >= 0 { Some(civil) } else { None }
    }

    fn parse(text: &str) -> Option<Timestamp> {
        if let Some(micros) = text.strip_suffix("us") {
            return micros.parse().ok().map(Timestamp);
        }
        let moment: jiff::Timestamp = text.parse().ok()?;
        // A finer moment than PostgreSQL can hold would come back as another one.
        let whole = moment.subsec_nanosecond() % 1000 == 0;
        if whole { Timestamp::from_unix_micros(moment.as_microsecond()) } else { None }
    }
}

impl fmt::Display for Timestamp {
    /// `2026-11-20 21:45:00.123456+00`, always UTC and with 6 decimals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.civil() {
            Some(civil) => write!(f, "{}", civil.strftime("%Y-%m-%d %H:%M:%S.%6f+00")),
            None => write!(f, "{}us", self.0),
        }
    }
}

impl From<Timestamp> for String {
    fn from(timestamp: Timestamp) -> String {
        timestamp.rfc3339()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Timestamp, TimestampError> {
        text.parse()
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;

    /// Reads what [`Timestamp::rfc3339`] writes, with any offset.
    fn from_str(text: &str) -> Result<Timestamp, TimestampError> {
        Timestamp::parse(text).ok_or_else(|| TimestampError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn prints_utc_with_six_decimals() {
        let moment: Timestamp = "2026-11-20T21:45:00.123456Z".parse().unwrap();
        assert_eq!(moment.to_string(), "2026-11-20 21:45:00.123456+00");
        assert_eq!(moment.rfc3339(), "2026-11-20T21:45:00.123456Z");
        assert_eq!(Timestamp(0).to_string(), "2000-01-01 00:00:00.000000+00");
        assert_eq!(Timestamp(-1).to_string(), "1999-12-31 23:59:59.999999+00");
    }

    #[test]
    fn an_offset_is_taken_and_none_is_refused() {
        let moment: Timestamp = "2026-11-20T22:45:00.123456+01:00".parse().unwrap();
        assert_eq!(moment.rfc3339(), "2026-11-20T21:45:00.123456Z");
        for wrong in ["", "2026-11-20T22:45:00", "now", "2026-11-20T22:45:00.1234567Z", "us", "1.5us"] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_ends_of_the_range_print_and_come_back() {
        for micros in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
            let text = Timestamp(micros).rfc3339();
            assert_eq!(text.parse::<Timestamp>().unwrap(), Timestamp(micros), "{text}");
        }
    }

    #[test]
    fn unix_time_has_another_zero() {
        assert_eq!(Timestamp::from_unix_seconds(946_684_800), Some(Timestamp(0)));
        assert_eq!(Timestamp(0).to_unix_micros(), Some(UNIX_TO_POSTGRESQL));
        assert_eq!(Timestamp::from_unix_seconds(i64::MAX), None);
    }
}
