//! Sizes as people write them: a number and a unit, `64KiB`, `5GiB`.

const UNITS: &[(&str, u64)] =
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Parses a size in bytes.
///
/// # Errors
/// What is wrong with the text. A bare number is refused, and so are `kB` and `MB`, which mean 1000 to some
/// and 1024 to PostgreSQL.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!(
            "\"{text}\" is not a size: write a number and a unit, like \"64KiB\" or \"5GiB\""
        ));
    }
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err(format!(
            "\"{text}\" has no unit: write \"{number}MiB\", or another of B, KiB, MiB, GiB, TiB"
        ));
    }
    let Some((_, bytes)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!(
            "\"{text}\" has an unknown unit \"{unit}\": the units are B, KiB, MiB, GiB, TiB"
        ));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*bytes))
        .ok_or_else(|| format!("\"{text}\" is too large a size"))
}

/// Renders bytes for people: three significant digits and a binary unit.
pub fn human(bytes: u64) -> String {
    let mut unit = ("B", 1u64);
    for &next in UNITS {
        if bytes >= next.1 {
            unit = next;
        }
    }
    if unit.1 == 1 {
        return format!("{bytes} B");
    }
    let value = bytes as f64 / unit.1 as f64;
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", unit.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, bytes) in
            [("7B", 7), ("64KiB", 65_536), ("5GiB", 5 << 30), ("1 MiB", 1 << 20), ("2TiB", 2 << 40)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_bare_number_says_that_a_unit_is_missing() {
        let error = parse("64").unwrap_err();
        assert!(error.contains("has no unit") && error.contains("MiB"), "{error}");
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "KiB", "-1B", "1.5GiB", "5GB", "5k", "99999999999TiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn people_read_three_digits() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (16 << 20, "16.0 MiB"), (123 << 30, "123 GiB")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
