//! Restores some databases of a cluster and leaves the others out: their files are made at their size and hold only
//! zeros, which take no room and are not fetched. A recovery writes into them what the WAL has, and nothing reads
//! them: they cannot be connected to, and are to be dropped.
//!
//! `PG_VERSION` and `pg_filenode.map` are zeros, too. They are looked at first, and refuse a connection with FATAL; at
//! zeros in a catalog behind them the server would PANIC.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use walpoint_archive::{Archive, BackupSummary};
use walpoint_wal::database_names::{database_names, file_of_pg_database};

use super::contents;
use super::error::RestoreError;
use super::inventory::Inventory;
use super::site::Place;
use crate::contract::LeftOut;

/// `FirstNormalObjectId` (access/transam.h): databases below are made by initdb, and always restored.
const FIRST_OF_USERS: u32 = 16_384;

/// What initdb makes, by name: who made one of them again (with another encoding, say) wants it as much.
const ALWAYS: [&str; 3] = ["postgres", "template0", "template1"];

/// `pg_database` of more than so many bytes is not read: a quarter of a million databases.
const LARGEST: u64 = 64 << 20;

/// Leaves out all databases but those of these names, or OIDs in digits.
///
/// # Errors
/// One of the names is not that of a database in the backup.
pub(super) async fn leave_out(
    archive: &Archive,
    backup: &BackupSummary,
    inventory: &mut Inventory,
    included: &[String],
) -> Result<Vec<LeftOut>, RestoreError> {
    if included.is_empty() {
        return Ok(Vec::new());
    }
    let names = names(archive, backup, inventory).await?;
    let there = oids(inventory);
    let left_out = choose(&there, &names, included)?;
    let zeroed: BTreeSet<usize> = inventory
        .files
        .iter()
        .enumerate()
        .filter(|(_, file)| is_left_out(&file.place, &left_out))
        .map(|(number, _)| number)
        .collect();
    let sizes = zeroed.iter().filter_map(|number| inventory.files.get(*number)).map(|file| file.size);
    let mut zeros: u64 = sizes.sum();
    for (_, counted) in inventory.counted.iter_mut().filter(|((_, oid), _)| left_out.contains(oid)) {
        // The files are made, and take no room.
        zeros += std::mem::take(&mut counted.bytes);
    }
    inventory.bytes = inventory.bytes.saturating_sub(zeros);
    inventory.zeroed = zeroed;
    let name = |oid: &u32| names.get(oid).and_then(|names| names.first()).cloned();
    Ok(left_out.iter().map(|oid| LeftOut { oid: *oid, name: name(oid) }).collect())
}

/// The databases to leave out. Pure.
fn choose(
    there: &BTreeSet<u32>,
    names: &BTreeMap<u32, BTreeSet<String>>,
    included: &[String],
) -> Result<BTreeSet<u32>, RestoreError> {
    let is_named = |oid: u32, name: &str| names.get(&oid).is_some_and(|names| names.contains(name));
    let is_always = |oid: u32| oid < FIRST_OF_USERS || ALWAYS.iter().any(|name| is_named(oid, name));
    let mut kept: BTreeSet<u32> = there.iter().copied().filter(|oid| is_always(*oid)).collect();
    for wanted in included {
        let mut meant: Vec<u32> = there.iter().copied().filter(|oid| is_named(*oid, wanted)).collect();
        if meant.is_empty() {
            meant.extend(wanted.parse::<u32>().ok().filter(|oid| there.contains(oid)));
        }
        if meant.is_empty() {
            return Err(RestoreError::Database { name: wanted.clone(), there: in_words(there, names) });
        }
        kept.extend(meant);
    }
    Ok(there.difference(&kept).copied().collect())
}

/// What a backup has, for who named something else.
fn in_words(there: &BTreeSet<u32>, names: &BTreeMap<u32, BTreeSet<String>>) -> String {
    let word = |oid: &u32| match names.get(oid) {
        Some(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(" or "),
        None => oid.to_string(),
    };
    let words = there.iter().map(word).collect::<Vec<_>>().join(", ");
    match names.is_empty() {
        true => format!("the names of its databases could not be read; name one by its OID: {words}"),
        false => format!("the backup has {words}; one that was created later is made whole by the WAL"),
    }
}

/// The database that a file belongs to: below `base/`, or below the server's own directory in a tablespace.
pub(super) fn database_of(place: &Place) -> Option<u32> {
    let mut steps = place.path.components().map(|step| step.as_os_str().to_str());
    let first = steps.next()??;
    let (oid, _name) = (steps.next()??, steps.next()?);
    let is_of_databases = if place.tree == 0 { first == "base" } else { first.starts_with("PG_") };
    // A deeper path is nobody's that we know.
    steps.next().is_none().then_some(())?;
    oid.parse().ok().filter(|_| is_of_databases)
}

fn is_left_out(place: &Place, left_out: &BTreeSet<u32>) -> bool {
    database_of(place).is_some_and(|oid| left_out.contains(&oid))
}

/// The databases that have files.
fn oids(inventory: &Inventory) -> BTreeSet<u32> {
    let of_files = inventory.files.iter().filter_map(|file| database_of(&file.place));
    of_files.chain(inventory.counted.keys().map(|(_, oid)| *oid)).collect()
}

/// What the backup says of its databases' names.
async fn names(
    archive: &Archive,
    backup: &BackupSummary,
    inventory: &Inventory,
) -> Result<BTreeMap<u32, BTreeSet<String>>, RestoreError> {
    let map = read(archive, backup, inventory, Path::new("global/pg_filenode.map")).await?;
    let Some(number) = map.as_deref().and_then(file_of_pg_database) else { return Ok(BTreeMap::new()) };
    let file = read(archive, backup, inventory, &Path::new("global").join(number.to_string())).await?;
    Ok(file.as_deref().map(database_names).unwrap_or_default())
}

async fn read(
    archive: &Archive,
    backup: &BackupSummary,
    inventory: &Inventory,
    path: &Path,
) -> Result<Option<Vec<u8>>, RestoreError> {
    let place = Place::in_data_directory(path);
    let is_it = |file: &super::site::NewFile| file.place == place && file.size <= LARGEST;
    let Some(number) = inventory.files.iter().position(is_it) else { return Ok(None) };
    let mut read = contents::read(archive, backup, inventory, &BTreeSet::from([number])).await?;
    Ok(read.remove(&number))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_named_stays_and_what_initdb_made() {
        let there = [1, 4, 5, 16_384, 16_385, 16_386].into();
        let names: BTreeMap<u32, BTreeSet<String>> = [
            (5, ["postgres".to_owned()].into()),
            (16_384, ["shop".to_owned()].into()),
            (16_385, ["blog".to_owned(), "old_blog".to_owned()].into()),
            // Dropped: its files are gone.
            (16_390, ["shop".to_owned()].into()),
        ]
        .into();
        let left = |included: &[&str]| {
            choose(&there, &names, &included.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(left(&["shop"]).unwrap(), [16_385, 16_386].into());
        assert_eq!(left(&["blog", "16386"]).unwrap(), [16_384].into());
        let refused = left(&["shpo"]).unwrap_err();
        assert!(refused.to_string().contains("shpo") && refused.hint().unwrap().contains("shop"));
        // Made again, as is done to change its encoding.
        let mut again = names.clone();
        again.insert(16_386, ["template1".to_owned()].into());
        assert_eq!(choose(&there, &again, &["shop".to_owned()]).unwrap(), [16_385].into());
        let refused = choose(&there, &BTreeMap::new(), &["shop".to_owned()]).unwrap_err();
        let hint = refused.hint().unwrap();
        assert!(hint.contains("could not be read") && hint.contains("16385"), "{hint}");
    }

    #[test]
    fn files_belong_to_the_database_whose_directory_they_lie_in() {
        let place = |tree, path: &str| Place { tree, path: path.into() };
        for (place, of) in [
            (place(0, "base/16384/16400"), Some(16_384)),
            (place(1, "PG_15_202209061/16384/16400"), Some(16_384)),
            (place(0, "global/1262"), None),
            (place(0, "PG_15_202209061/16384/16400"), None),
            (place(0, "base/pgsql_tmp/x"), None),
            (place(0, "base/16384/a/b"), None),
        ] {
            assert_eq!(database_of(&place), of, "{place:?}");
        }
    }
}
