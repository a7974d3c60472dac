//! Durations as people write them: a number and a unit, `250ms`, `2s`, `10min`, `1d`.

use std::time::Duration;

/// Units, longest name first, so that `min` is not read as `m` and an `s` is not taken from `ms`.
const UNITS: &[(&str, u64)] = &[
    ("us", 1),
    ("ms", 1_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// Parses a duration with its unit.
///
/// # Errors
/// What is wrong with the text, in words for the one who wrote it. A bare number is refused: whether it
/// means seconds or minutes cannot be seen.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!(
            "\"{text}\" is not a duration: write a number and a unit, like \"30s\" or \"10min\""
        ));
    }
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err(format!(
            "\"{text}\" has no unit: write \"{number}s\", or another of us, ms, s, min, h, d"
        ));
    }
    let Some((_, micros)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("\"{text}\" has an unknown unit \"{unit}\": the units are us, ms, s, min, h, d"));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*micros))
        .map(Duration::from_micros)
        .ok_or_else(|| format!("\"{text}\" is too long a duration"))
}

/// Renders a duration in the largest unit that divides it, as [`parse`] reads it.
pub fn render(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if micros == 0 {
        return "0s".to_owned();
    }
    let mut best = ("us", 1);
    for &(name, unit) in UNITS {
        if micros % unit == 0 && unit > best.1 {
            best = (name, unit);
        }
    }
    format!("{}{}", micros / best.1, best.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, micros) in [
            ("250ms", 250_000),
            ("2s", 2_000_000),
            ("10min", 600_000_000),
            ("3h", 10_800_000_000),
            ("1d", 86_400_000_000),
            ("7us", 7),
            (" 10 min ", 600_000_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn a_bare_number_says_that_a_unit_is_missing() {
        let error = parse("30").unwrap_err();
        assert!(error.contains("has no unit") && error.contains("30s"), "{error}");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "-1s", "1.5s", "10 minutes", "1m", "99999999999999999999s", "1s2"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rendering_reads_back() {
        for text in ["250ms", "2s", "10min", "26h", "1d", "90s", "0s", "7us"] {
            assert_eq!(render(parse(text).unwrap()), text);
        }
    }
}
