//! The packs that a backup's manifest may name. Each has a number here, in the order in which they are fetched: by
//! backup, and by its own number in that. Memory: 20 bytes for each pack; what else is known of it stays in the summary.

use walpoint_archive::manifest::Piece;
use walpoint_archive::pack::MAX_PACK_BYTES;
use walpoint_archive::summary::{BackupSummary, StoredObject};
use walpoint_archive::{BackupId, Entry, Layout};

use super::error::RestoreError;

/// All packs that a summary names.
#[derive(Debug)]
pub(super) struct PackTable {
    own: BackupId,
    /// In order.
    backups: Vec<BackupId>,
    /// In order.
    rows: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    /// Index of its backup.
    backup: u32,
    /// Its number in that.
    number: u32,
    /// Stored bytes.
    size: u32,
    /// Index in the summary.
    place: u32,
    encrypted: bool,
}

impl PackTable {
    /// # Errors
    /// A pack is larger than any can be.
    pub(super) fn new(summary: &BackupSummary, layout: &Layout) -> Result<PackTable, RestoreError> {
        let pack = |object: &StoredObject| match layout.parse(&object.key) {
            Some(Entry::Pack { backup, number, encrypted, .. }) => Some((backup, number, encrypted)),
            _ => None,
        };
        let mut backups: Vec<BackupId> = Vec::new();
        for (backup, ..) in summary.packs.iter().filter_map(pack) {
            // A summary names the packs of one backup together.
            if backups.last() != Some(&backup) {
                backups.push(backup);
            }
        }
        backups.sort_unstable();
        backups.dedup();
        let mut rows = Vec::with_capacity(summary.packs.len());
        for (place, object) in summary.packs.iter().enumerate() {
            let Some((backup, number, encrypted)) = pack(object) else { continue };
            let size = u32::try_from(object.size).ok().filter(|size| *size as usize <= MAX_PACK_BYTES);
            let too_large = || {
                RestoreError::damaged(&object.key, format!("a pack of {} bytes is too large", object.size))
            };
            let backup = backups.binary_search(&backup).unwrap_or_default();
            let (backup, place) = (short(backup)?, short(place)?);
            rows.push(Row { backup, number, size: size.ok_or_else(too_large)?, place, encrypted });
        }
        rows.sort_unstable();
        Ok(PackTable { own: summary.id.clone(), backups, rows })
    }

    /// The pack in which this piece lies, by its number here.
    ///
    /// # Errors
    /// There is none, or the piece lies outside of it.
    pub(super) fn pack_of(&self, piece: &Piece) -> Result<u32, String> {
        let backup = piece.backup.as_ref().unwrap_or(&self.own);
        let row = || {
            let owner = u32::try_from(self.backups.binary_search(backup).ok()?).ok()?;
            let at = self.rows.binary_search_by_key(&(owner, piece.pack), |row| (row.backup, row.number));
            let at = at.ok()?;
            Some((u32::try_from(at).ok()?, self.rows.get(at)?))
        };
        let (number, row) = row()
            .ok_or_else(|| format!("it names pack {} of {backup}, which the summary does not", piece.pack))?;
        let end = piece.pack_offset.checked_add(piece.stored_length.into());
        match end.is_some_and(|end| end <= row.size.into()) {
            true => Ok(number),
            false => Err(format!("a piece lies outside of pack {} of {backup}", piece.pack)),
        }
    }

    /// A pack as the summary of this table has it, and whether it is encrypted.
    pub(super) fn object<'s>(
        &self,
        summary: &'s BackupSummary,
        number: u32,
    ) -> Option<(&'s StoredObject, bool)> {
        let row = self.rows.get(number as usize)?;
        Some((summary.packs.get(row.place as usize)?, row.encrypted))
    }
}

fn short(number: usize) -> Result<u32, RestoreError> {
    u32::try_from(number).map_err(|_| RestoreError::Interrupted("the backup has too many packs".to_owned()))
}
