//! The configuration file: TOML, its keys checked against the one table.

use super::keys::{self, Key};
use super::raw::{Origin, RawSettings, RawValue};
use crate::exit::Failure;
use std::path::Path;

/// Reads the file's text into `settings`.
///
/// # Errors
/// Status 2 for what is not TOML, for an unknown section or key (naming the nearest known one) and for a
/// value that does not fit its key.
pub fn read(path: &Path, text: &str, settings: &mut RawSettings) -> Result<(), Failure> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        refuse(path, &format!("line {line}: {}", error.message()))
    })?;
    for (section, value) in &table {
        if !keys::sections().contains(&section.as_str()) {
            return Err(unknown_section(path, section, value));
        }
        let toml::Value::Table(entries) = value else {
            return Err(refuse(path, &format!("\"{section}\" must be a section: write [{section}]")));
        };
        for (name, value) in entries {
            let key = keys::find(section, name).ok_or_else(|| unknown_key(path, section, name))?;
            let origin = Origin::File { path: path.to_owned(), section: key.section, name: key.name };
            settings.set(key, read_value(key, value, &origin)?, origin);
        }
    }
    Ok(())
}

fn read_value(key: &Key, value: &toml::Value, origin: &Origin) -> Result<RawValue, Failure> {
    use keys::Kind;
    match (key.kind, value) {
        (Kind::Text | Kind::Duration | Kind::Size, toml::Value::String(text)) => {
            RawValue::from_text(key.kind, text, origin)
        }
        (Kind::Duration | Kind::Size, toml::Value::Integer(number)) => {
            RawValue::from_text(key.kind, &number.to_string(), origin)
        }
        (Kind::Switch, toml::Value::Boolean(on)) => Ok(RawValue::Switch(*on)),
        (Kind::Number, toml::Value::Integer(number)) => Ok(RawValue::Number(*number)),
        (Kind::List, toml::Value::Array(values)) => values
            .iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect::<Option<Vec<String>>>()
            .map(RawValue::List)
            .ok_or_else(|| origin.refuse("every entry of the list must be a text in quotes")),
        (kind, _) => Err(origin.refuse(&format!("the value must be {}", expected(kind)))),
    }
}

fn expected(kind: keys::Kind) -> &'static str {
    match kind {
        keys::Kind::Text => "a text in quotes",
        keys::Kind::List => "a list of texts, like [\"one\", \"two\"]",
        keys::Kind::Switch => "true or false",
        keys::Kind::Number => "a whole number",
        keys::Kind::Duration => "a duration in quotes, like \"30s\"",
        keys::Kind::Size => "a size in quotes, like \"64MiB\"",
    }
}

fn refuse(path: &Path, what: &str) -> Failure {
    Failure::usage(format!("could not use the configuration file \"{}\": {what}", path.display()))
        .with_hint("docs/operating.md, section Configuration, has every section and key")
}

fn unknown_section(path: &Path, section: &str, value: &toml::Value) -> Failure {
    if value.is_table() {
        let failure = refuse(path, &format!("unknown section [{section}]"));
        return failure
            .with_nearest(keys::nearest(section, keys::sections()).map(|near| format!("[{near}]")));
    }
    let failure = refuse(path, &format!("\"{section}\" stands outside every section"));
    failure.with_nearest(nearest_key(section).map(|key| format!("{} in section [{}]", key.name, key.section)))
}

fn unknown_key(path: &Path, section: &str, name: &str) -> Failure {
    let failure = refuse(path, &format!("unknown key \"{name}\" in section [{section}]"));
    let here = keys::KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    // The right name in the wrong section is likelier than a similar one in this section.
    if let Some(elsewhere) = keys::KEYS.iter().find(|key| key.name == name) {
        return failure.with_nearest(Some(format!("{name} in section [{}]", elsewhere.section)));
    }
    failure.with_nearest(keys::nearest(name, here).map(str::to_owned))
}

fn nearest_key(name: &str) -> Option<&'static Key> {
    let near = keys::nearest(name, keys::KEYS.iter().map(|key| key.name))?;
    keys::KEYS.iter().find(|key| key.name == near)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
