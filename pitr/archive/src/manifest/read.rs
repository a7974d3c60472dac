//! Reading a manifest. Nothing in it is believed before it is checked; its last
//! line proves that it is whole.

use std::io::{BufRead, Read as _};

use super::columns::OwnedColumns;
use super::line::{AnyLine, MARK, check_entry};
use super::order::Order;
use super::windows::check_count;
use super::{MAX_LINE_BYTES, ManifestEntry, ManifestError, ManifestHeader, ManifestTotals, Windows};
use crate::content::{ContentHash, StoredHasher};
use crate::facts::FORMAT;

/// Reads a manifest entry by entry. Memory is that of a line, of the
/// directories' paths, and of one file's pieces (some 100 bytes for each MiB).
#[derive(Debug)]
pub struct ManifestReader<R> {
    stored: R,
    header: ManifestHeader,
    hasher: StoredHasher,
    order: Order,
    totals: ManifestTotals,
    line: u64,
    ahead: Option<Line>,
}

#[derive(Debug)]
enum Line {
    Entry(Box<ManifestEntry>, Vec<Option<ContentHash>>),
    More(Vec<OwnedColumns>, Vec<Option<ContentHash>>),
    End(ManifestTotals),
}

impl<R: BufRead> ManifestReader<R> {
    /// Reads the header.
    pub fn new(mut stored: R) -> Result<Self, ManifestError> {
        let mut bytes = Vec::new();
        read_line(&mut stored, &mut bytes).map_err(|error| at(1, error))?;
        let header = parse_header(&bytes)?;
        let mut hasher = StoredHasher::new();
        hasher.update(&bytes);
        let (order, totals) = (Order::default(), ManifestTotals::default());
        Ok(Self { stored, header, hasher, order, totals, line: 1, ahead: None })
    }

    /// What it is a manifest of.
    pub fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// What has been read so far; all of it when there is no next entry.
    pub fn totals(&self) -> ManifestTotals {
        self.totals
    }

    /// The next entry with all its pieces; `None` when the manifest has proved
    /// to be whole.
    pub fn next_entry(&mut self) -> Result<Option<ManifestEntry>, ManifestError> {
        let (mut entry, mut windows) = match self.next_line()? {
            Line::Entry(entry, windows) => (*entry, windows),
            Line::More(..) => return Err(self.damaged("pieces follow no file")),
            Line::End(said) if said == self.totals => {
                self.ahead = Some(Line::End(said));
                return Ok(None);
            }
            Line::End(_) => return Err(self.damaged("it counts other entries than there are")),
        };
        loop {
            // As they come: nothing else bounds them.
            check_count(entry.size, windows.len()).map_err(|what| self.damaged(&what))?;
            match self.next_line()? {
                Line::More(more, more_windows) if entry.kind.is_file() => {
                    entry.pieces.extend(more.into_iter().map(|OwnedColumns(piece)| piece));
                    windows.extend(more_windows);
                }
                other => {
                    self.ahead = Some(other);
                    break;
                }
            }
        }
        entry.windows = Windows::new(windows);
        check_entry(&entry).map_err(|what| self.damaged(&format!("\"{}\": {what}", entry.path)))?;
        self.order.take(&entry).map_err(|what| self.damaged(&what))?;
        self.totals.count(&entry);
        Ok(Some(entry))
    }

    fn next_line(&mut self) -> Result<Line, ManifestError> {
        if let Some(line) = self.ahead.take() {
            return Ok(line);
        }
        self.line += 1;
        let mut bytes = Vec::new();
        read_line(&mut self.stored, &mut bytes).map_err(|error| at(self.line, error))?;
        let mut line: AnyLine =
            serde_json::from_slice(&bytes).map_err(|error| self.damaged(&error.to_string()))?;
        if line.sha256.is_some() {
            return self.trailer(&line);
        }
        self.hasher.update(&bytes);
        let windows = std::mem::take(&mut line.windows);
        match line.more {
            Some(more) => Ok(Line::More(more, windows)),
            None => line
                .into_entry()
                .map(|entry| Line::Entry(Box::new(entry), windows))
                .map_err(|what| self.damaged(&what)),
        }
    }

    fn trailer(&mut self, line: &AnyLine) -> Result<Line, ManifestError> {
        let (Some(entries), Some(files), Some(bytes)) = (line.entries, line.files, line.bytes) else {
            return Err(self.damaged("its counts are missing"));
        };
        if line.sha256 != Some(self.hasher.finish()) {
            return Err(self.damaged("the SHA-256 of what precedes it is another"));
        }
        if !self.stored.fill_buf()?.is_empty() {
            return Err(self.damaged("more follows it"));
        }
        Ok(Line::End(ManifestTotals { entries, files, bytes }))
    }

    fn damaged(&self, what: &str) -> ManifestError {
        ManifestError::Damaged { line: self.line, what: what.to_owned() }
    }
}

fn parse_header(bytes: &[u8]) -> Result<ManifestHeader, ManifestError> {
    let damaged = |what: &str| ManifestError::Damaged { line: 1, what: what.to_owned() };
    let line: AnyLine = serde_json::from_slice(bytes).map_err(|error| damaged(&error.to_string()))?;
    if line.walpoint.as_deref() != Some(MARK) {
        return Err(damaged("it is not the first line of a manifest"));
    }
    match line.format {
        Some(1..=FORMAT) => {}
        Some(format) => return Err(ManifestError::UnknownFormat(format)),
        None => return Err(damaged("it lacks \"format\"")),
    }
    match (line.backup, line.system_identifier) {
        (Some(backup), Some(system_identifier)) => Ok(ManifestHeader { backup, system_identifier }),
        _ => Err(damaged("it does not say what it is of")),
    }
}

enum LineError {
    TooLong,
    NoEnd,
    Io(std::io::Error),
}

fn at(line: u64, error: LineError) -> ManifestError {
    let what = match error {
        LineError::TooLong => "it is too long",
        LineError::NoEnd => "the manifest ends there",
        LineError::Io(error) => return ManifestError::Io(error),
    };
    ManifestError::Damaged { line, what: what.to_owned() }
}

/// A line with its end, of bounded length.
fn read_line(stored: &mut impl BufRead, line: &mut Vec<u8>) -> Result<(), LineError> {
    let limit = MAX_LINE_BYTES as u64;
    let read = stored.by_ref().take(limit).read_until(b'\n', line).map_err(LineError::Io)?;
    match line.last() {
        Some(b'\n') => Ok(()),
        _ if read as u64 == limit => Err(LineError::TooLong),
        _ => Err(LineError::NoEnd),
    }
}
