//! Manifests.

use crate::content::StoredHash;
use crate::manifest::{ManifestEntry, ManifestError, ManifestReader, ManifestTotals, ManifestWriter};

/// A manifest that is read to its end is one that would be written, and what comes of it
/// when it is written again is the same.
///
/// It is also read with a last line that is right, which hardly any bytes have.
pub fn manifest(data: &[u8]) {
    let _ = read(data);
    let Some(end) = data.iter().rposition(|byte| *byte == b'\n') else { return };
    let (lines, _) = data.split_at(end + 1);
    let Some(totals) = count(&sealed(lines, ManifestTotals::default())) else { return };
    let _ = read(&sealed(lines, totals));
}

/// Part by part it is as sound as entry by entry.
fn read_parts(bytes: &[u8]) -> Result<ManifestTotals, ManifestError> {
    let mut reader = ManifestReader::new(bytes)?;
    while reader.next_part()?.is_some() {}
    Ok(reader.totals())
}

fn read(bytes: &[u8]) -> Result<(), ManifestError> {
    let read = read_entries(bytes);
    assert_eq!(read.as_ref().ok(), read_parts(bytes).as_ref().ok());
    read.map(drop)
}

fn read_entries(bytes: &[u8]) -> Result<ManifestTotals, ManifestError> {
    let mut reader = ManifestReader::new(bytes)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        is_sound(&entry);
        entries.push(entry);
    }
    let mut writer = ManifestWriter::new(Vec::new(), reader.header())?;
    let refused = entries.iter().find_map(|entry| writer.entry(entry).err());
    assert!(refused.is_none(), "{refused:?}");
    let (written, totals) = writer.finish()?;
    assert_eq!(totals, reader.totals());
    let mut again = ManifestReader::new(written.as_slice())?;
    for entry in entries {
        assert_eq!(again.next_entry().ok().flatten(), Some(entry));
    }
    assert!(matches!(again.next_entry(), Ok(None)));
    Ok(totals)
}

fn is_sound(entry: &ManifestEntry) {
    let plain: u64 = entry.pieces.iter().map(|piece| u64::from(piece.length)).sum();
    assert_eq!(plain, entry.size);
    assert!(entry.path.as_path().components().all(|it| matches!(it, std::path::Component::Normal(_))));
}

/// What these lines hold; none when they are not sound up to the last.
fn count(bytes: &[u8]) -> Option<ManifestTotals> {
    let mut reader = ManifestReader::new(bytes).ok()?;
    while reader.next_entry().ok().flatten().is_some() {}
    Some(reader.totals())
}

/// These lines and a last one.
fn sealed(lines: &[u8], totals: ManifestTotals) -> Vec<u8> {
    let ManifestTotals { entries, files, bytes } = totals;
    let sha256 = StoredHash::of(lines);
    let last =
        format!("{{\"entries\":{entries},\"files\":{files},\"bytes\":{bytes},\"sha256\":\"{sha256}\"}}\n");
    [lines, last.as_bytes()].concat()
}
