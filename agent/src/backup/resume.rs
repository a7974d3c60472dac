//! What an interrupted backup stored, brought into the one that goes on with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use walpoint_archive::summary::StoredObject;
use walpoint_archive::{Archive, ArchiveError, BackupId, BackupSummary, Entry, ObjectKey, StoredHash};

use super::marked::Marked;
use super::prepare::Preparation;
use super::unfinished::{Left, Notes, Owner};
use crate::config::Settings;
use crate::exit::Failure;

/// Packs that are looked at side by side; one that is read back is a few hundred KiB in memory at most.
const LOOKED_AT_AT_ONCE: usize = 4;

/// What a backup begins with.
#[derive(Debug)]
pub struct Beginning {
    /// Where it writes down what it has stored; none where that cannot be kept.
    pub notes: Option<Arc<Notes>>,
    /// What is stored already.
    pub left: Option<Arc<Left>>,
    /// Number of its first pack of its own.
    pub first_pack: u32,
    owner: Owner,
}

impl Beginning {
    fn anew(
        settings: &Settings,
        preparation: &Preparation,
        parent: Option<&BackupSummary>,
    ) -> Result<Beginning, Failure> {
        let owner = Owner {
            system_identifier: preparation.directory.control.system_identifier,
            writer: preparation.writer,
            archive: settings.archive()?.url.to_string(),
            recipients: settings.encryption.recipients.clone(),
            parent: parent.map(|parent| parent.id.clone()),
        };
        Ok(Beginning { notes: None, left: None, first_pack: 0, owner })
    }

    /// Of a backup that goes on where the last one of its kind, with this parent, was interrupted, if it was.
    ///
    /// # Errors
    /// When the archive does not answer.
    pub async fn of(
        settings: &Settings,
        preparation: &Preparation,
        parent: Option<&BackupSummary>,
    ) -> Result<Beginning, Failure> {
        let anew = Beginning::anew(settings, preparation, parent)?;
        let Some((notes, left)) = open(&preparation.directory.path, &anew.owner) else { return Ok(anew) };
        let notes = Some(Arc::new(notes));
        let archive = &preparation.archive;
        let left = match left {
            Some(left) if can_be_gone_on_with(archive, &left.backup).await? => left,
            _ => return Ok(Beginning { notes, ..anew }),
        };
        let stored = stored_packs(archive, &left.backup).await?;
        let last = stored.keys().copied().max().max(left.highest);
        let first_pack = last.map_or(0, |last| last.saturating_add(1));
        let left = sound(archive, with_packs(left, &stored)).await?;
        if left.packs.is_empty() {
            return Ok(Beginning { notes, ..anew });
        }
        tracing::info!(
            backup = %left.backup,
            "going on with a backup that was interrupted: {} of its packs are stored, and what is in them and has not changed is used again",
            left.packs.len()
        );
        Ok(Beginning { notes, left: Some(Arc::new(left)), first_pack, ..anew })
    }

    /// The id of the backup that goes on.
    pub fn backup(&self) -> Option<BackupId> {
        self.left.as_ref().map(|left| left.backup.clone())
    }

    /// Begins the notes of a backup that does not go on with another.
    pub fn note(&self, backup: &BackupId) {
        if let (Some(notes), None) = (&self.notes, &self.left) {
            notes.begin(backup, &self.owner);
        }
    }
}

/// Where the notes cannot be kept the backup goes on without.
fn open(data_directory: &Path, owner: &Owner) -> Option<(Notes, Option<Left>)> {
    let read = || {
        let Some(notes) = Notes::open(data_directory, owner)? else { return Ok(None) };
        let left = notes.left(owner)?;
        Ok(Some((notes, left)))
    };
    read().unwrap_or_else(|error: std::io::Error| {
        tracing::warn!("could not keep notes of what is stored; an interrupted backup begins anew: {error}");
        None
    })
}

/// Whether nobody has completed it or is about to take it away.
async fn can_be_gone_on_with(archive: &Archive, backup: &BackupId) -> Result<bool, Failure> {
    if !is_unfinished(archive, backup).await? {
        return Ok(false);
    }
    let why_not = Marked::now(archive).await?.why_not(backup);
    if let Some(why) = &why_not {
        tracing::info!("not going on with {backup}, which was interrupted: {why}");
    }
    Ok(why_not.is_none())
}

async fn is_unfinished(archive: &Archive, backup: &BackupId) -> Result<bool, ArchiveError> {
    match archive.summary(backup).await {
        Err(error) if error.is_not_found() => Ok(true),
        Ok(_) | Err(ArchiveError::UnknownFormat { .. }) => Ok(false),
        Err(error) if error.is_damaged() => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the archive has of a backup's packs: key and size by number.
async fn stored_packs(
    archive: &Archive,
    backup: &BackupId,
) -> Result<BTreeMap<u32, Vec<(String, u64)>>, ArchiveError> {
    let mut packs: BTreeMap<u32, Vec<(String, u64)>> = BTreeMap::new();
    for listed in archive.store().list(&archive.layout().backup_dir(backup), None, None).await? {
        if let Some(Entry::Pack { number, .. }) = archive.layout().parse(&listed.key) {
            packs.entry(number).or_default().push((listed.key.to_string(), listed.size));
        }
    }
    Ok(packs)
}

/// Of the packs that were noted, those that are there with their size, and alone under their number.
fn with_packs(mut left: Left, stored: &BTreeMap<u32, Vec<(String, u64)>>) -> Left {
    left.packs.retain(|number, object| match stored.get(number).map(Vec::as_slice) {
        Some([(key, size)]) => *key == object.key.to_string() && *size == object.size,
        _ => false,
    });
    left
}

/// Of these packs, those whose bytes are the ones that were stored. The size says nothing of what became of them, and a
/// piece is looked for by the hash that was noted. Where the store has kept the SHA-256 of what came to it, that says so;
/// else each is read back before it is counted on.
async fn sound(archive: &Archive, mut left: Left) -> Result<Left, ArchiveError> {
    if left.packs.is_empty() {
        return Ok(left);
    }
    tracing::info!("looking at {} packs of {}, which was interrupted", left.packs.len(), left.backup);
    let packs: Vec<(u32, StoredObject)> =
        left.packs.iter().map(|(number, object)| (*number, object.clone())).collect();
    let looks = stream::iter(packs).map(|(number, object)| async move {
        match stored_hash(archive, &object.key).await {
            Ok(found) if found == object.sha256 => return Ok(None),
            Err(error) if error.is_not_found() => return Ok(Some(number)),
            Err(error) if !error.is_damaged() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        tracing::warn!("\"{}\" is damaged: what is in it is stored again", object.key);
        Ok(Some(number))
    });
    let unfit: Vec<Option<u32>> = looks.buffer_unordered(LOOKED_AT_AT_ONCE).try_collect().await?;
    for number in unfit.into_iter().flatten() {
        left.packs.remove(&number);
    }
    Ok(left)
}

/// The SHA-256 that the store has kept of an object, or that of its bytes.
async fn stored_hash(archive: &Archive, key: &ObjectKey) -> Result<StoredHash, ArchiveError> {
    match archive.store().kept_checksum(key).await? {
        Some(kept) => Ok(kept),
        None => archive.stored_hash(key).await,
    }
}
