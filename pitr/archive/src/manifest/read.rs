//! Reading a manifest. Nothing in it is believed before it is checked; its last
//! line proves that it is whole.

use std::io::{BufRead, Read as _};

use super::columns::OwnedColumns;
use super::line::{AnyLine, MARK, check_kind};
use super::order::Order;
use super::windows::WindowsCheck;
use super::{
    MAX_LINE_BYTES, ManifestEntry, ManifestError, ManifestHeader, ManifestTotals, Piece, PiecesCheck, Windows,
};
use crate::content::{ContentHash, StoredHasher};
use crate::facts::FORMAT;
use crate::relative_path::RelativePath;

/// Reads a manifest entry by entry, or part by part. Memory is that of a line and of
/// the directories' paths, and where whole entries are asked for of one file's pieces
/// (some 100 bytes for each MiB).
#[derive(Debug)]
pub struct ManifestReader<R> {
    stored: R,
    header: ManifestHeader,
    hasher: StoredHasher,
    order: Order,
    totals: ManifestTotals,
    line: u64,
    ahead: Option<Line>,
    /// The file whose content is being read.
    open: Option<OpenFile>,
}

/// What a manifest consists of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManifestPart {
    /// An entry, without content: that of a file follows.
    Entry(Box<ManifestEntry>),
    /// Some of what the last entry consists of.
    Content(ManifestContent),
}

/// Some of what a file consists of: where the last part of it ended this one goes on.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ManifestContent {
    /// From the lowest offset on.
    pub pieces: Vec<Piece>,
    /// By number, whether or not they belong to these pieces.
    pub windows: Vec<Option<ContentHash>>,
}

#[derive(Debug)]
enum Line {
    /// An entry, and the first of its content.
    Entry(Box<ManifestEntry>, ManifestContent),
    Content(ManifestContent),
    End(ManifestTotals),
}

/// A file that is not yet known to be whole.
#[derive(Debug)]
struct OpenFile {
    path: RelativePath,
    pieces: PiecesCheck,
    windows: WindowsCheck,
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
        Ok(Self { stored, header, hasher, order, totals, line: 1, ahead: None, open: None })
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
        let mut entry = match self.next_part()? {
            Some(ManifestPart::Entry(entry)) => *entry,
            Some(ManifestPart::Content(_)) => return Err(self.damaged("pieces follow no file")),
            None => return Ok(None),
        };
        let mut windows = Vec::new();
        loop {
            match self.next_line()? {
                Line::Content(content) if self.open.is_some() => {
                    let content = self.check(content)?;
                    entry.pieces.extend(content.pieces);
                    windows.extend(content.windows);
                }
                other => {
                    self.close()?;
                    self.ahead = Some(other);
                    entry.windows = Windows::new(windows);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// The next part; `None` when the manifest has proved to be whole. What is said of
    /// a file is sound only then, or when another entry has come.
    pub fn next_part(&mut self) -> Result<Option<ManifestPart>, ManifestError> {
        match self.next_line()? {
            Line::Entry(entry, content) => {
                self.close()?;
                self.begin(&entry)?;
                if entry.kind.is_file() {
                    self.ahead = Some(Line::Content(content));
                } else if !content.windows.is_empty() {
                    return Err(self.damaged("what is no file has windows"));
                }
                Ok(Some(ManifestPart::Entry(entry)))
            }
            Line::Content(content) => self.check(content).map(|it| Some(ManifestPart::Content(it))),
            Line::End(said) => {
                self.close()?;
                if said != self.totals {
                    return Err(self.damaged("it counts other entries than there are"));
                }
                self.ahead = Some(Line::End(said));
                Ok(None)
            }
        }
    }

    /// Takes an entry, but for its content.
    fn begin(&mut self, entry: &ManifestEntry) -> Result<(), ManifestError> {
        check_kind(entry).map_err(|what| self.damaged(&format!("\"{}\": {what}", entry.path)))?;
        self.order.take(entry).map_err(|what| self.damaged(&what))?;
        self.totals.count(entry);
        if entry.kind.is_file() {
            let (path, size) = (entry.path.clone(), entry.size);
            let (pieces, windows) = (PiecesCheck::new(size), WindowsCheck::new(size));
            self.open = Some(OpenFile { path, pieces, windows });
        }
        Ok(())
    }

    fn check(&mut self, content: ManifestContent) -> Result<ManifestContent, ManifestError> {
        let Some(open) = &mut self.open else { return Err(self.damaged("pieces follow no file")) };
        let pieces = content.pieces.iter().try_for_each(|piece| open.pieces.take(piece));
        let checked = pieces.and_then(|()| content.windows.iter().try_for_each(|_| open.windows.take()));
        // As they come: nothing else bounds them.
        if let Err(what) = checked {
            let what = format!("\"{}\": {what}", open.path);
            return Err(self.damaged(&what));
        }
        Ok(content)
    }

    /// Nothing more comes of the last file.
    fn close(&mut self) -> Result<(), ManifestError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        open.pieces.finish().map_err(|what| self.damaged(&format!("\"{}\": {what}", open.path)))
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
        if let Some(more) = line.more {
            let pieces = more.into_iter().map(|OwnedColumns(piece)| piece).collect();
            return Ok(Line::Content(ManifestContent { pieces, windows }));
        }
        let mut entry = line.into_entry().map_err(|what| self.damaged(&what))?;
        let pieces = std::mem::take(&mut entry.pieces);
        Ok(Line::Entry(Box::new(entry), ManifestContent { pieces, windows }))
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
