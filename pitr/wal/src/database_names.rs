//! Which databases a cluster has, out of two files of its data directory: the map that says which file `pg_database`
//! is in, and that file.
//!
//! The files of an online backup are of different moments, and rows are there in old versions, too: so a database may
//! have several names here, and one that was dropped may still have one. Whoever asks goes by the databases that have
//! a directory.

use std::collections::{BTreeMap, BTreeSet};

use crate::fields::{u16_at, u32_at};
use crate::page::PAGE_SIZE;

/// `RELMAPPER_FILEMAGIC` (utils/cache/relmapper.c).
const MAP_MAGIC: u32 = 0x0059_2717;
/// OID of `pg_database` (catalog/pg_database.h).
const PG_DATABASE: u32 = 1262;
/// `NAMEDATALEN`
const NAME_BYTES: usize = 64;
/// `SizeOfPageHeaderData` (storage/bufpage.h).
const PAGE_HEADER: usize = 24;
/// `LP_NORMAL` (storage/itemid.h).
const NORMAL: u32 = 1;

/// The number of the file that `pg_database` is in, from `global/pg_filenode.map`.
pub fn file_of_pg_database(map: &[u8]) -> Option<u32> {
    if u32_at(map, 0)? != MAP_MAGIC {
        return None;
    }
    let count = usize::try_from(u32_at(map, 4)?).ok()?.min(map.len() / 8);
    let mappings = (0..count).map(|index| (u32_at(map, 8 + index * 8), u32_at(map, 12 + index * 8)));
    mappings.into_iter().find(|(relation, _)| *relation == Some(PG_DATABASE))?.1
}

/// The names in the file of `pg_database`, by the databases' OIDs. `oid` and `datname` are its first two columns on
/// every version from 13 to 18.
pub fn database_names(file: &[u8]) -> BTreeMap<u32, BTreeSet<String>> {
    let mut names: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    let (pages, _) = file.as_chunks::<PAGE_SIZE>();
    for page in pages {
        for (oid, name) in rows(page) {
            names.entry(oid).or_default().insert(name);
        }
    }
    names
}

fn rows(page: &[u8]) -> impl Iterator<Item = (u32, String)> {
    let lower = u16_at(page, 12).map_or(0, usize::from).min(page.len());
    let pointers = (PAGE_HEADER..lower).step_by(4).filter_map(move |at| u32_at(page, at));
    pointers.filter_map(move |pointer| {
        let (offset, flags) = ((pointer & 0x7fff) as usize, pointer >> 15 & 3);
        let row = page.get(offset..).filter(|_| flags == NORMAL)?;
        let data = row.get(usize::from(*row.get(22)?)..)?;
        let name = data.get(4..4 + NAME_BYTES)?;
        let name = name.split(|byte| *byte == 0).next().filter(|name| !name.is_empty())?;
        Some((u32_at(data, 0)?, String::from_utf8_lossy(name).into_owned()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn page_of(rows: &[(u32, &str)]) -> Vec<u8> {
        let mut page = vec![0; PAGE_SIZE];
        let mut upper = PAGE_SIZE;
        for (number, (oid, name)) in rows.iter().enumerate() {
            let length = 24 + 4 + NAME_BYTES;
            upper -= length;
            page[upper + 22] = 24;
            page[upper + 24..upper + 28].copy_from_slice(&oid.to_le_bytes());
            page[upper + 28..upper + 28 + name.len()].copy_from_slice(name.as_bytes());
            let pointer = upper as u32 | NORMAL << 15 | (length as u32) << 17;
            page[PAGE_HEADER + number * 4..PAGE_HEADER + number * 4 + 4]
                .copy_from_slice(&pointer.to_le_bytes());
        }
        page[12..14].copy_from_slice(&((PAGE_HEADER + rows.len() * 4) as u16).to_le_bytes());
        page
    }

    #[test]
    fn databases_are_known_by_all_names_that_they_have() {
        let file = [page_of(&[(1, "template1"), (16384, "shop")]), page_of(&[(16384, "store")])].concat();
        let names = database_names(&file);
        assert_eq!(names[&1], BTreeSet::from(["template1".to_owned()]));
        assert_eq!(names[&16384], ["shop", "store"].map(str::to_owned).into());
    }

    #[test]
    fn the_map_says_where_they_stand() {
        let mut map = vec![0; 512];
        for (at, word) in [MAP_MAGIC, 2, 1260, 1260, PG_DATABASE, 20_000].iter().enumerate() {
            map[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        assert_eq!(file_of_pg_database(&map), Some(20_000));
        map[0] = 0;
        assert_eq!(file_of_pg_database(&map), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_names_or_none(mut bytes in prop::collection::vec(any::<u8>(), 0..64), fill in any::<u8>()) {
            bytes.resize(PAGE_SIZE, fill);
            let _ = (database_names(&bytes), file_of_pg_database(&bytes));
        }
    }
}
