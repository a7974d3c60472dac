//! Times as people paste them: from PostgreSQL's output or in RFC 3339.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use walpoint_wal::Timestamp;

use super::TargetError;

/// Reads `2026-11-20 21:45:00.123456+00` and its relatives: space or `T`, 0 to 6 digits
/// of fraction, `Z`, `±HH`, `±HHMM` or `±HH:MM`. Without an offset `timezone` (an IANA
/// name) decides; without both, and where the zone's clocks passed that local time twice
/// or never, it is an error: a recovery an hour off is worse than none.
pub fn parse_target_time(text: &str, timezone: Option<&str>) -> Result<Timestamp, TargetError> {
    let (local, offset) = split(text.trim()).ok_or_else(|| TargetError::NotATime(text.to_owned()))?;
    let offset = match (offset, timezone) {
        (Some(offset), _) => offset,
        (None, Some(timezone)) => offset_in(text, local, timezone)?,
        (None, None) => return Err(TargetError::NoOffset(text.to_owned())),
    };
    moment(local, offset).ok_or_else(|| TargetError::NotATime(text.to_owned()))
}

fn moment(local: DateTime, offset: Offset) -> Option<Timestamp> {
    Timestamp::from_unix_micros(offset.to_timestamp(local).ok()?.as_microsecond())
}

fn offset_in(text: &str, local: DateTime, timezone: &str) -> Result<Offset, TargetError> {
    let unknown = |_| TargetError::UnknownTimezone(timezone.to_owned());
    let zone = TimeZone::get(timezone).map_err(unknown)?;
    let text = text.to_owned();
    let timezone = timezone.to_owned();
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => Ok(offset),
        AmbiguousOffset::Gap { .. } => Err(TargetError::NeverCame { text, timezone }),
        AmbiguousOffset::Fold { before, after } => match (moment(local, before), moment(local, after)) {
            (Some(first), Some(second)) => Err(TargetError::CameTwice { text, timezone, first, second }),
            _ => Err(TargetError::NotATime(text)),
        },
    }
}

/// The local time and, when there is one, the offset.
fn split(text: &str) -> Option<(DateTime, Option<Offset>)> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix([' ', 'T', 't'])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let (nanoseconds, rest) = fraction(rest)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let small = |number: i32| i8::try_from(number).ok();
    let local = DateTime::new(
        i16::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        small(second)?,
        nanoseconds,
    );
    Some((local.ok()?, if rest.is_empty() { None } else { Some(offset(rest)?) }))
}

fn fraction(text: &str) -> Option<(i32, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=6).contains(&digits) {
        return None;
    }
    let (fraction, rest) = rest.split_at_checked(digits)?;
    let scale = 10_i32.pow(9 - u32::try_from(digits).ok()?);
    Some((digits_only(fraction, digits)? * scale, rest))
}

fn offset(text: &str) -> Option<Offset> {
    if matches!(text, "Z" | "z") {
        return Some(Offset::UTC);
    }
    let sign = match text.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let rest = text.get(1..)?;
    let (hours, minutes) = match rest.len() {
        2 => (rest, "00"),
        4 => rest.split_at_checked(2)?,
        5 => rest.split_once(':')?,
        _ => return None,
    };
    let (hours, minutes) = (digits_only(hours, 2)?, digits_only(minutes, 2)?);
    // PostgreSQL's own limit (MAX_TZDISP_HOUR, datatype/timestamp.h).
    if hours > 15 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[i32; 3]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; 3];
    for (number, width) in numbers.iter_mut().zip(widths) {
        *number = digits_only(parts.next()?, width)?;
    }
    if parts.next().is_none() { Some(numbers) } else { None }
}

fn digits_only(text: &str, width: usize) -> Option<i32> {
    let plain = text.len() == width && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> String {
        parse_target_time(text, None).unwrap().rfc3339()
    }

    #[test]
    fn every_form_of_the_interface_is_taken() {
        for text in [
            "2026-11-20 21:45:00.123456+00",
            "2026-11-20T21:45:00.123456Z",
            "2026-11-20t21:45:00.123456z",
            "2026-11-20 22:45:00.123456+01",
            "2026-11-20 22:45:00.123456+0100",
            "2026-11-20T22:45:00.123456+01:00",
            "2026-11-20T18:15:00.123456-03:30",
            "  2026-11-20 21:45:00.123456+00\n",
        ] {
            assert_eq!(read(text), "2026-11-20T21:45:00.123456Z", "{text}");
        }
        assert_eq!(read("2026-11-20 21:45:00Z"), "2026-11-20T21:45:00.000000Z");
        assert_eq!(read("2026-11-20 21:45:00.5Z"), "2026-11-20T21:45:00.500000Z");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "now",
            "2026-11-20",
            "2026-11-20 21:45Z",
            "2026-11-20 21:45:00.Z",
            "2026-11-20 21:45:00.1234567Z",
            "2026-11-20 21:45:00 +00",
            "2026-11-20 21:45:00+0",
            "2026-11-20 21:45:00+000",
            "2026-11-20 21:45:00+00:0a",
            "2026-11-20 21:45:00+16",
            "2026-11-20 21:45:00+01:60",
            "2026-11-20 21:45:00 UTC",
            "2026-13-20 21:45:00Z",
            "2026-02-29 21:45:00Z",
            "2026-11-20 24:00:00Z",
            "2026-11-20 21:45:60Z",
            "+026-11-20 21:45:00Z",
            "2026-11-20é21:45:00Z",
            "2026-11-2é 21:45:00Z",
        ] {
            assert_eq!(parse_target_time(text, None), Err(TargetError::NotATime(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn without_an_offset_only_a_zone_can_tell() {
        let text = "2026-11-20 21:45:00";
        assert_eq!(parse_target_time(text, None), Err(TargetError::NoOffset(text.to_owned())));
        let berlin = parse_target_time(text, Some("Europe/Berlin")).unwrap();
        assert_eq!(berlin.rfc3339(), "2026-11-20T20:45:00.000000Z");
        let nowhere = parse_target_time(text, Some("Europe/Nowhere"));
        assert_eq!(nowhere, Err(TargetError::UnknownTimezone("Europe/Nowhere".to_owned())));
        let offset_wins = parse_target_time("2026-11-20 21:45:00+00", Some("Europe/Berlin")).unwrap();
        assert_eq!(offset_wins.rfc3339(), "2026-11-20T21:45:00.000000Z");
    }

    #[test]
    fn the_hour_that_comes_twice_and_the_one_that_never_comes_are_refused() {
        match parse_target_time("2026-10-25 02:30:00", Some("Europe/Berlin")) {
            Err(TargetError::CameTwice { first, second, .. }) => {
                assert_eq!(first.rfc3339(), "2026-10-25T00:30:00.000000Z");
                assert_eq!(second.rfc3339(), "2026-10-25T01:30:00.000000Z");
            }
            other => panic!("{other:?}"),
        }
        let skipped = parse_target_time("2026-03-29 02:30:00", Some("Europe/Berlin"));
        assert!(matches!(skipped, Err(TargetError::NeverCame { .. })));
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_is_read_back(micros in -60_000_000_000_000_000_i64..200_000_000_000_000_000) {
            let moment = Timestamp(micros);
            proptest::prop_assert_eq!(parse_target_time(&moment.to_string(), None), Ok(moment));
            proptest::prop_assert_eq!(parse_target_time(&moment.rfc3339(), None), Ok(moment));
        }

        #[test]
        fn no_text_is_a_panic(text in "\\PC{0,40}", zone in proptest::option::of("\\PC{0,10}")) {
            let _ = parse_target_time(&text, zone.as_deref());
        }
    }
}
