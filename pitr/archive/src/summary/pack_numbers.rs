//! Which packs a backup needs, without what each of them is: their numbers follow each other, so that of a hundred
//! thousand packs little has to be held.

use std::collections::BTreeMap;

use super::StoredObject;
use crate::backup_id::BackupId;
use crate::content::{ContentHash, ContentHasher};
use crate::layout::{Entry, Layout};

/// Some packs, by the backup that stored them and their number there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackNumbers {
    /// First and last of each unbroken run of numbers, in order.
    runs: BTreeMap<BackupId, Vec<(u32, u32)>>,
    bytes: u64,
    /// Of all that was said of them, in that order.
    digest: ContentHash,
}

impl PackNumbers {
    /// The numbers of these packs. A key that is none of a pack has none.
    pub fn of(layout: &Layout, packs: &[StoredObject]) -> PackNumbers {
        let mut numbers: BTreeMap<BackupId, Vec<u32>> = BTreeMap::new();
        let mut hasher = ContentHasher::new();
        for pack in packs {
            hasher.update(pack.key.as_str().as_bytes());
            hasher.update(&pack.size.to_le_bytes());
            hasher.update(pack.sha256.as_bytes());
            if let Some(Entry::Pack { backup, number, .. }) = layout.parse(&pack.key) {
                numbers.entry(backup).or_default().push(number);
            }
        }
        PackNumbers {
            runs: numbers.into_iter().map(|(backup, numbers)| (backup, runs_of(numbers))).collect(),
            bytes: packs.iter().fold(0, |bytes, pack| bytes.saturating_add(pack.size)),
            digest: hasher.finish(),
        }
    }

    /// How many bytes they have as they are stored.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The backups that stored them.
    pub fn owners(&self) -> impl Iterator<Item = &BackupId> {
        self.runs.keys()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&BackupId, u32)> {
        self.runs.iter().flat_map(|(backup, runs)| {
            let numbers = runs.iter().flat_map(|(first, last)| *first..=*last);
            numbers.map(move |number| (backup, number))
        })
    }

    /// Whether a pack is among them.
    pub fn contains(&self, backup: &BackupId, number: u32) -> bool {
        let runs = self.runs.get(backup).map(Vec::as_slice).unwrap_or_default();
        let behind = runs.partition_point(|(first, _)| *first <= number);
        let run = behind.checked_sub(1).and_then(|at| runs.get(at));
        run.is_some_and(|(_, last)| number <= *last)
    }
}

fn runs_of(mut numbers: Vec<u32>) -> Vec<(u32, u32)> {
    numbers.sort_unstable();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if number == *last || last.checked_add(1) == Some(number) => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs.shrink_to_fit();
    runs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use walpoint_wal::SystemIdentifier;

    use super::*;
    use crate::content::StoredHash;

    fn id(number: u32) -> BackupId {
        format!("20260101T0000{number:02}Z-full-{number:06x}").parse().unwrap()
    }

    fn packs(named: &[(u32, u32)]) -> Vec<StoredObject> {
        let layout = Layout::new(SystemIdentifier(7));
        let pack = |(backup, number): &(u32, u32)| StoredObject {
            key: layout.pack(&id(*backup), *number, ContentHash::of(b"").id(), false),
            size: 10,
            sha256: StoredHash::of(b""),
        };
        named.iter().map(pack).collect()
    }

    fn numbers(packs: &[StoredObject]) -> PackNumbers {
        PackNumbers::of(&Layout::new(SystemIdentifier(7)), packs)
    }

    proptest! {
        #[test]
        fn they_are_the_packs_that_are_named_and_no_others(
            named in prop::collection::btree_set((0..3u32, 0..12u32), 0..30),
            others in prop::collection::vec((0..4u32, 0..14u32), 0..10),
        ) {
            let list: Vec<(u32, u32)> = named.iter().copied().collect();
            let found = numbers(&packs(&list));
            let expected: Vec<_> = list.iter().map(|(backup, number)| (id(*backup), *number)).collect();
            let there: Vec<_> = found.iter().map(|(backup, number)| (backup.clone(), number)).collect();
            prop_assert_eq!(there, expected);
            prop_assert_eq!(found.bytes(), 10 * list.len() as u64);
            let owners: BTreeSet<_> = list.iter().map(|(backup, _)| id(*backup)).collect();
            prop_assert!(found.owners().eq(owners.iter()));
            for (backup, number) in list.iter().chain(&others) {
                prop_assert_eq!(found.contains(&id(*backup), *number), named.contains(&(*backup, *number)));
            }
        }
    }

    #[test]
    fn the_same_packs_of_another_size_or_content_are_others() {
        let sound = packs(&[(1, 0), (1, 1)]);
        assert_eq!(numbers(&sound), numbers(&sound.clone()));
        let mut other = sound.clone();
        other[1].sha256 = StoredHash::of(b"other");
        assert_ne!(numbers(&sound), numbers(&other));
        let mut moved = sound.clone();
        (moved[0].size, moved[1].size) = (11, 9);
        assert_ne!(numbers(&sound), numbers(&moved));
    }

    #[test]
    fn the_last_number_of_all_ends_a_run() {
        assert_eq!(runs_of(vec![u32::MAX, 3, u32::MAX - 1, 2]), [(2, 3), (u32::MAX - 1, u32::MAX)]);
    }
}
