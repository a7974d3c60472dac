//! Where to: from options to typed paths.

use crate::config::Settings;
use crate::exit::Failure;
use std::path::Path;
use walpoint_pitr::restore::{Destination, TablespaceMapping};

/// The destination that these options name.
///
/// # Errors
/// Status 2 when one of them cannot be read.
pub fn of(
    settings: &Settings,
    directory: &Path,
    delta: bool,
    tablespaces: &[String],
    take_over: bool,
) -> Result<Destination, Failure> {
    let data_directory = std::path::absolute(directory).map_err(|error| {
        Failure::usage(format!("could not use \"{}\" as a path: {error}", directory.display()))
    })?;
    let tablespaces = tablespaces.iter().map(|text| mapping(text)).collect::<Result<_, _>>()?;
    let is_configured = is_configured(settings, &data_directory);
    let (databases, discard_wal) = (Vec::new(), false);
    Ok(Destination { data_directory, delta, is_configured, discard_wal, tablespaces, databases, take_over })
}

/// Whether it is the data directory that the configuration names, however it is written.
fn is_configured(settings: &Settings, data_directory: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    settings.postgres.data_directory.as_deref().is_some_and(|own| real(own) == real(data_directory))
}

fn mapping(text: &str) -> Result<TablespaceMapping, Failure> {
    let pair = text.split_once('=').filter(|(from, to)| !from.is_empty() && to.starts_with('/'));
    let (from, to) = pair.ok_or_else(|| {
        Failure::usage(format!("could not read \"{text}\" as a tablespace's old and new place"))
            .with_hint("write it as OLD=NEW: the path in the backup or the OID, and an absolute path")
    })?;
    Ok(TablespaceMapping { from: from.to_owned(), to: Path::new(to).to_owned() })
}
