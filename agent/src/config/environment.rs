//! The environment: `WALPOINT_<SECTION>_<KEY>` for every key of the one table.

use super::keys::{self, Key};
use super::raw::{Origin, RawSettings, RawValue};
use crate::exit::Failure;
use std::ffi::OsString;
use std::path::PathBuf;

/// Every variable of ours begins so.
pub const PREFIX: &str = "WALPOINT_";
/// Names the configuration file; not a key.
const CONFIG_VARIABLE: &str = "WALPOINT_CONFIG";
/// Variables that tests set; not keys.
const TEST_PREFIX: &str = "WALPOINT_TEST_";

/// The configuration file that the environment names.
pub fn config_file() -> Option<PathBuf> {
    std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Reads our variables into `settings`, over what the file said. An empty variable takes the key away.
///
/// # Errors
/// Status 2 for an unknown variable (naming the nearest known one) and for a value that does not fit.
pub fn read(
    variables: impl Iterator<Item = (OsString, OsString)>,
    settings: &mut RawSettings,
) -> Result<(), Failure> {
    for (name, value) in variables {
        if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let name = name.to_string_lossy().into_owned();
        if name == CONFIG_VARIABLE || name.starts_with(TEST_PREFIX) {
            continue;
        }
        let key = key_of(&name).ok_or_else(|| unknown(&name))?;
        let origin = Origin::Variable(name);
        let Some(value) = value.to_str() else {
            return Err(origin.refuse("the value is not UTF-8"));
        };
        if value.is_empty() {
            settings.unset(key);
        } else {
            settings.set(key, RawValue::from_text(key.kind, value, &origin)?, origin);
        }
    }
    Ok(())
}

/// The key that a variable sets. The longest section name wins: `ARCHIVE_PUSH_DEADLINE` is the deadline of
/// `archive_push`, not the key `push_deadline` of `archive`.
fn key_of(variable: &str) -> Option<&'static Key> {
    let rest = variable.strip_prefix(PREFIX)?.to_ascii_lowercase();
    if rest.to_ascii_uppercase() != variable.get(PREFIX.len()..)? {
        return None;
    }
    let section = section_of(&rest)?;
    keys::find(section, rest.get(section.len() + 1..)?)
}

fn section_of(rest: &str) -> Option<&'static str> {
    let named = |section: &&str| rest.strip_prefix(*section).is_some_and(|rest| rest.starts_with('_'));
    keys::sections().into_iter().filter(named).max_by_key(|section| section.len())
}

/// Names what was probably meant. The prefix that all share says nothing about that, and within a section
/// neither does the section's name: else any two variables of one section would look alike.
fn unknown(variable: &str) -> Failure {
    let rest = variable.strip_prefix(PREFIX).unwrap_or(variable).to_ascii_lowercase();
    let near = near_key(&rest).or_else(|| {
        let spelled = |key: &Key| format!("{}_{}", key.section, key.name);
        keys::KEYS.iter().find(|key| keys::is_misspelled(&rest, &spelled(key)))
    });
    let failure = Failure::usage(format!("unknown environment variable {variable}"));
    match near {
        Some(key) => failure.with_nearest(Some(key.variable())),
        None => failure.with_hint(format!(
            "variables are named {PREFIX}<SECTION>_<KEY>; the sections are {}",
            keys::sections().join(", ")
        )),
    }
}

/// A key like the one named, of the section that is named.
fn near_key(rest: &str) -> Option<&'static Key> {
    let section = section_of(rest)?;
    let names = keys::KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    keys::find(section, keys::nearest(rest.get(section.len() + 1..)?, names)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_means_its_own_key() {
        for key in keys::KEYS {
            let found = key_of(&key.variable()).unwrap();
            assert_eq!((found.section, found.name), (key.section, key.name));
        }
    }

    #[test]
    fn the_longest_section_wins() {
        let key = key_of("WALPOINT_ARCHIVE_PUSH_DEADLINE").unwrap();
        assert_eq!((key.section, key.name), ("archive_push", "deadline"));
        assert!(key_of("WALPOINT_ARCHIVE_DEADLINE").is_none());
        assert!(key_of("WALPOINT_archive_url").is_none());
    }

    #[test]
    fn what_was_meant_is_named_and_nothing_far_fetched() {
        let hint = |variable: &str| unknown(variable).hint.unwrap();
        for (variable, meant) in [
            ("WALPOINT_ARCHIVE_URI", "WALPOINT_ARCHIVE_URL"),
            ("WALPOINT_ARCHIVE_ENDPIONT", "WALPOINT_ARCHIVE_ENDPOINT"),
            ("WALPOINT_archive_url", "WALPOINT_ARCHIVE_URL"),
            ("WALPOINT_ARHIVE_URL", "WALPOINT_ARCHIVE_URL"),
            ("WALPOINT_ARCHIVE_DEADLINE", "WALPOINT_ARCHIVE_PUSH_DEADLINE"),
            ("WALPOINT_ARCHIVE_PUHS_DEADLINE", "WALPOINT_ARCHIVE_PUSH_DEADLINE"),
            ("WALPOINT_POSTGRES_CONN", "WALPOINT_POSTGRES_CONNECTION"),
        ] {
            assert_eq!(hint(variable), format!("the nearest known name is {meant}"), "{variable}");
        }
        for variable in ["WALPOINT_ARCHIVE_FOO", "WALPOINT_FOO", "WALPOINT_VERBOSE", "WALPOINT_"] {
            let hint = hint(variable);
            assert!(hint.contains("WALPOINT_<SECTION>_<KEY>") && hint.contains("archive_push"), "{hint}");
        }
    }
}
