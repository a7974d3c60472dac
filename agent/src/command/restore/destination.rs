//! Where to: from options to typed paths.

use crate::exit::Failure;
use std::path::Path;
use walpoint_pitr::restore::{Destination, TablespaceMapping};

/// The destination that these options name.
///
/// # Errors
/// Status 2 when one of them cannot be read.
pub fn of(
    directory: &Path,
    delta: bool,
    tablespaces: &[String],
    take_over: bool,
) -> Result<Destination, Failure> {
    let data_directory = std::path::absolute(directory).map_err(|error| {
        Failure::usage(format!("could not use \"{}\" as a path: {error}", directory.display()))
    })?;
    let tablespaces = tablespaces.iter().map(|text| mapping(text)).collect::<Result<_, _>>()?;
    Ok(Destination { data_directory, delta, tablespaces, databases: Vec::new(), take_over })
}

fn mapping(text: &str) -> Result<TablespaceMapping, Failure> {
    let pair = text.split_once('=').filter(|(from, to)| !from.is_empty() && to.starts_with('/'));
    let (from, to) = pair.ok_or_else(|| {
        Failure::usage(format!("could not read \"{text}\" as a tablespace's old and new place"))
            .with_hint("write it as OLD=NEW: the path in the backup or the OID, and an absolute path")
    })?;
    Ok(TablespaceMapping { from: from.to_owned(), to: Path::new(to).to_owned() })
}
