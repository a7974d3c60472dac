//! PostgreSQL configuration files as text: what they set, and how a value is
//! written so that PostgreSQL reads it back unchanged.

/// The value cannot stand in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not write {name} to a configuration file: its value has a line break or a zero byte")]
pub struct UnwritableValue {
    /// The setting.
    pub name: String,
}

/// One line `name = 'value'`. Quotes and backslashes are doubled, as PostgreSQL
/// itself does (`write_auto_conf_file`, utils/misc/guc.c; read back by
/// `DeescapeQuotedString`, guc-file.l). A line break has no form that `ALTER
/// SYSTEM` would keep, so it is refused.
pub fn assignment(name: &str, value: &str) -> Result<String, UnwritableValue> {
    if value.contains(['\n', '\r', '\0']) {
        return Err(UnwritableValue { name: name.to_owned() });
    }
    Ok(format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''")))
}

/// The value that this file alone gives to a setting: its last assignment, as
/// PostgreSQL takes it. Included files are not followed.
pub fn value_of(text: &[u8], name: &str) -> Option<String> {
    String::from_utf8_lossy(text).lines().filter_map(parse_line).rfind(|(it, _)| it == name).map(|it| it.1)
}

/// Another place that this file sends the reader to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inclusion {
    /// A file, which must be there.
    File(String),
    /// A file that need not be there.
    FileIfExists(String),
    /// A directory, which must be there, though it may be empty.
    Directory(String),
}

/// What the `include…` lines of this file name, as written.
pub fn inclusions(text: &[u8]) -> Vec<Inclusion> {
    let inclusion = |(name, value): (String, String)| match name.as_str() {
        "include" => Some(Inclusion::File(value)),
        "include_if_exists" => Some(Inclusion::FileIfExists(value)),
        "include_dir" => Some(Inclusion::Directory(value)),
        _ => None,
    };
    String::from_utf8_lossy(text).lines().filter_map(parse_line).filter_map(inclusion).collect()
}

/// Name in lower case and value of a line that assigns something.
fn parse_line(line: &str) -> Option<(String, String)> {
    let line = line.trim_start();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(line.len());
    let (name, rest) = line.split_at_checked(end)?;
    if name.is_empty() {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => unquote(quoted),
        None => rest.split(|c: char| c.is_whitespace() || c == '#').next().unwrap_or_default().to_owned(),
    };
    Some((name.to_ascii_lowercase(), value))
}

/// What stands before the closing quote, doubled quotes and backslashes undone.
fn unquote(quoted: &str) -> String {
    let mut value = String::new();
    let mut characters = quoted.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\'' if characters.peek() == Some(&'\'') => value.extend(characters.next()),
            '\'' => break,
            '\\' => value.extend(characters.next()),
            _ => value.push(c),
        }
    }
    value
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_and_backslashes_are_doubled() {
        assert_eq!(assignment("a", r"it's C:\x").unwrap(), "a = 'it''s C:\\\\x'\n");
    }

    #[test]
    fn a_value_that_would_open_a_second_line_is_refused() {
        for value in ["a\nb", "a\r", "a\0"] {
            assert_eq!(assignment("x", value).unwrap_err().name, "x");
        }
    }

    #[test]
    fn the_last_assignment_counts_and_comments_do_not() {
        let text = b"archive_mode = off\n#archive_mode = always\n  Archive_Mode on # yes\nport=5433\nother 'a # b'\n";
        assert_eq!(value_of(text, "archive_mode").unwrap(), "on");
        assert_eq!(value_of(text, "port").unwrap(), "5433");
        assert_eq!(value_of(text, "other").unwrap(), "a # b");
        assert_eq!(value_of(text, "archive_command"), None);
    }

    #[test]
    fn inclusions_are_found() {
        let text = b"include_dir = 'conf.d'\n#include_dir 'no'\ninclude '/etc/pg/more.conf'\ninclude_if_exists 'x'\n";
        let expected = [
            Inclusion::Directory("conf.d".into()),
            Inclusion::File("/etc/pg/more.conf".into()),
            Inclusion::FileIfExists("x".into()),
        ];
        assert_eq!(inclusions(text), expected);
    }

    proptest! {
        #[test]
        fn any_value_is_read_back(value in "[^\n\r\0]*") {
            let line = assignment("restore_command", &value).unwrap();
            prop_assert_eq!(line.lines().count(), 1);
            prop_assert_eq!(value_of(line.as_bytes(), "restore_command").unwrap(), value);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = value_of(&text, "a");
            let _ = inclusions(&text);
        }
    }
}
