//! What must hold for any configuration: the body of a target of `tests/fuzz`, which calls it with what
//! libFuzzer makes up. A test calls it with the seeds that are kept there.

use super::*;
use crate::exit::Status;
use std::os::unix::ffi::OsStringExt;

/// Any file and any environment are settings, or wrong usage that says so in words.
///
/// The file's text comes first, then variables (`NAME=value`), divided by zero bytes.
pub fn configuration(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let Ok(text) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let variables = parts.map(|part| {
        let (name, value) = part.split_at(part.iter().position(|byte| *byte == b'=').unwrap_or(part.len()));
        (OsString::from_vec(name.to_vec()), OsString::from_vec(value.get(1..).unwrap_or_default().to_vec()))
    });
    match read_all(text, variables) {
        Ok(settings) => {
            let _ = (settings.archive(), settings.workers());
            assert!(settings.check.wal_lag_warning <= settings.check.wal_lag_critical);
        }
        Err(failure) => {
            assert_eq!(failure.status, Status::Usage);
            assert!(!failure.error.is_empty());
        }
    }
    text.lines().for_each(duration_comes_back);
}

fn read_all(text: &str, variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Settings, Failure> {
    let mut raw = RawSettings::default();
    let source = Path::new(DEFAULT_FILE);
    file::read(source, text, &mut raw)?;
    environment::read(variables, &mut raw)?;
    read::settings(Some(source.to_owned()), &mut raw)
}

fn duration_comes_back(text: &str) {
    if let Ok(duration) = durations::parse(text) {
        assert_eq!(durations::parse(&durations::render(duration)), Ok(duration));
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzz/replay.rs"]
mod replay;

#[test]
fn the_seeds_of_configurations_are_no_trouble() {
    replay::replay("configuration", configuration);
}
