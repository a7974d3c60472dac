//! The content of a few small files, before anything is restored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use walpoint_archive::Archive;
use walpoint_archive::manifest::ManifestPart;
use walpoint_archive::summary::BackupSummary;

use super::error::RestoreError;
use super::inventory::{Inventory, Numbered, Numbering};
use super::manifest_of::ManifestOf;
use super::packs::{PackWork, Stored, unopened};
use super::pieces::{Batch, PackPiece, PieceWork};
use super::stopped;
use crate::manifest_pipe::read_piped;

/// Files that are read here have no more pieces: they have some dozen MiB, in pages at most.
const MOST_PIECES: usize = 64 * 1024;

/// The content of files, by their number. Where their pieces lie is read in the manifest when the inventory does not
/// have it.
pub(super) async fn read(
    archive: &Archive,
    summary: &BackupSummary,
    inventory: &Inventory,
    wanted: &BTreeSet<usize>,
) -> Result<BTreeMap<usize, Vec<u8>>, RestoreError> {
    let size = |file: usize| inventory.files.get(file).map_or(0, |file| file.size);
    let known = |file: &usize| inventory.pieces.contains_key(file);
    let unknown: BTreeSet<usize> = wanted.iter().copied().filter(|it| size(*it) > 0 && !known(it)).collect();
    let mut pieces: Vec<PackPiece> =
        wanted.iter().filter_map(|file| inventory.pieces.get(file)).flatten().copied().collect();
    if !unknown.is_empty() {
        pieces.extend(look_for(archive, summary, inventory, unknown).await?);
    }
    let mut of_packs: BTreeMap<u32, Vec<PieceWork>> = BTreeMap::new();
    for PackPiece { pack, piece } in pieces {
        of_packs.entry(pack).or_default().push(piece);
    }
    let empty = |file: &usize| (*file, vec![0; usize::try_from(size(*file)).unwrap_or_default()]);
    let mut contents: BTreeMap<usize, Vec<u8>> = wanted.iter().map(empty).collect();
    for (pack, pieces) in of_packs {
        let pack = PackWork::new(Batch { pack, pieces }, &inventory.table, summary)?;
        read_pack(archive, &pack, &mut contents).await?;
    }
    Ok(contents)
}

/// Where the pieces of some files lie.
async fn look_for(
    archive: &Archive,
    summary: &BackupSummary,
    inventory: &Inventory,
    wanted: BTreeSet<usize>,
) -> Result<Vec<PackPiece>, RestoreError> {
    let (of, table) = (ManifestOf::new(summary), Arc::clone(&inventory.table));
    let mut numbering = Numbering::new(inventory.keep);
    let mut found = Vec::new();
    let mut current = None;
    let look = move |manifest| {
        of.each_part(manifest, |part| match part {
            ManifestPart::Entry(entry) => {
                let numbered = numbering.take(&entry)?;
                current = match numbered {
                    Numbered::File(number, _) => Some(number).filter(|number| wanted.contains(number)),
                    Numbered::Counted(..) | Numbered::Other => None,
                };
                Ok::<_, String>(())
            }
            ManifestPart::Content(content) => {
                let Some(number) = current else { return Ok(()) };
                if found.len().saturating_add(content.pieces.len()) > MOST_PIECES {
                    return Err(format!("it has more than the {MOST_PIECES} pieces that can be held"));
                }
                for piece in &content.pieces {
                    let pack = table.pack_of(piece)?;
                    found.push(PackPiece { pack, piece: PieceWork::new(number, piece) });
                }
                Ok(())
            }
        })?;
        Ok(found)
    };
    read_piped(archive, summary, look, stopped).await?
}

async fn read_pack(
    archive: &Archive,
    pack: &PackWork,
    contents: &mut BTreeMap<usize, Vec<u8>>,
) -> Result<(), RestoreError> {
    let frames = Stored::fetch(archive, pack).await?.open(archive.keys(), pack)?;
    for piece in &pack.pieces {
        let opened = frames.open(&piece.place);
        let plain = opened.and_then(|frame| piece.place.cut(&frame).map(<[u8]>::to_vec));
        let plain = plain.map_err(|error| unopened(&pack.object.key, error))?;
        let from = usize::try_from(piece.offset).unwrap_or(usize::MAX);
        let place = contents
            .get_mut(&piece.file)
            .and_then(|content| content.get_mut(from..from.checked_add(plain.len())?));
        let outside = || RestoreError::damaged(&pack.object.key, "a piece lies outside of its file");
        place.ok_or_else(outside)?.copy_from_slice(&plain);
    }
    Ok(())
}
