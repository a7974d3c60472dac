//! A cluster of which a restore left databases out must not become the one whose backups count: theirs would hold
//! zeros, and the whole ones would be forgotten one day.

use std::path::Path;

use walpoint_pitr::contract::{CONTRACT_FILE, Contract};

use crate::exit::{Failure, Status};
use crate::session::Session;

/// Refuses as long as the server has a database that the restore of this directory left out. `doing` completes
/// "could not".
///
/// # Errors
/// Status 7 with the names of these databases.
pub async fn must_be_whole(session: &Session, data_directory: &Path, doing: &str) -> Result<(), Failure> {
    let left_out = left_out(data_directory);
    if left_out.is_empty() {
        return Ok(());
    }
    let still = session.databases(&left_out).await?;
    if still.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Status::Refused,
        format!(
            "could not {doing}: this cluster was restored without the content of some databases, and still has them: {}",
            still.join(", ")
        ),
    )
    .with_hint("drop these databases, and then run this again"))
}

/// The OIDs that the contract in this directory names.
fn left_out(data_directory: &Path) -> Vec<u32> {
    let path = data_directory.join(CONTRACT_FILE);
    let Ok(text) = std::fs::read(&path) else { return Vec::new() };
    match Contract::from_json(&text) {
        Ok(contract) => contract.left_out.iter().map(|database| database.oid).collect(),
        Err(error) => {
            tracing::warn!("\"{}\" does not tell whether databases were left out: {error}", path.display());
            Vec::new()
        }
    }
}
