//! Writing a manifest.

use std::io::Write;

use serde::Serialize;

use super::columns::{COLUMNS, Columns};
use super::line::{EntryLine, HeaderLine, MARK, MoreLine, TrailerLine, check_entry};
use super::order::Order;
use super::{
    ManifestEntry, ManifestError, ManifestHeader, ManifestTotals, PIECES_PER_LINE, WINDOWS_PER_LINE,
};
use crate::content::StoredHasher;
use crate::facts::FORMAT;

/// Writes a manifest line by line. Nothing that a reader would refuse is written.
#[derive(Debug)]
pub struct ManifestWriter<W> {
    out: W,
    hasher: StoredHasher,
    order: Order,
    totals: ManifestTotals,
    line: u64,
}

impl<W: Write> ManifestWriter<W> {
    /// Begins with the header.
    pub fn new(out: W, header: &ManifestHeader) -> Result<Self, ManifestError> {
        let (hasher, order, totals) = (StoredHasher::new(), Order::default(), ManifestTotals::default());
        let mut writer = Self { out, hasher, order, totals, line: 0 };
        writer.write(&HeaderLine {
            walpoint: MARK,
            format: FORMAT,
            backup: &header.backup,
            system_identifier: header.system_identifier,
            piece: COLUMNS,
        })?;
        Ok(writer)
    }

    /// The next entry, by the order of paths' bytes.
    pub fn entry(&mut self, entry: &ManifestEntry) -> Result<(), ManifestError> {
        let damaged = |what| ManifestError::Damaged { line: self.line + 1, what };
        check_entry(entry).map_err(|what| damaged(format!("\"{}\": {what}", entry.path)))?;
        self.order.take(entry).map_err(damaged)?;
        self.totals.count(entry);
        let mut pieces = entry.pieces.chunks(PIECES_PER_LINE);
        let mut windows = entry.windows.as_slice().chunks(WINDOWS_PER_LINE);
        let first = pieces.next().unwrap_or_default();
        self.write(&EntryLine::new(entry, first, windows.next().unwrap_or_default()))?;
        loop {
            match (pieces.next(), windows.next()) {
                (None, None) => return Ok(()),
                (more, windows) => {
                    let more = more.unwrap_or_default().iter().map(Columns::of).collect();
                    self.write(&MoreLine { more, windows: windows.unwrap_or_default() })?;
                }
            }
        }
    }

    /// Ends with the trailer; gives back what was written to.
    pub fn finish(mut self) -> Result<(W, ManifestTotals), ManifestError> {
        let ManifestTotals { entries, files, bytes } = self.totals;
        let sha256 = self.hasher.finish();
        self.write(&TrailerLine { entries, files, bytes, sha256 })?;
        self.out.flush()?;
        Ok((self.out, self.totals))
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), ManifestError> {
        let mut json = serde_json::to_vec(line).map_err(std::io::Error::other)?;
        json.push(b'\n');
        self.hasher.update(&json);
        self.out.write_all(&json)?;
        self.line += 1;
        Ok(())
    }
}
