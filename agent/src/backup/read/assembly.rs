//! What a file consists of: what is new of it goes into packs, and of the rest it is named where the parent, or a
//! backup before it, has it. The list is complete either way.
//!
//! Of a window with parts of frames, which have no hash of their own, it takes the hash, as the window was read: by it
//! a restore can tell that it is there already ([`Windows`]). Where all pages are the parent's the hash is, too, if the
//! parent has one: what stays as it is costs nothing.

use walpoint_archive::ContentHash;
use walpoint_archive::manifest::{Piece, Windows};
use walpoint_archive::pack::{MAX_PIECE_BYTES, PartOfFrame};
use walpoint_wal::lsn::Lsn;

use super::super::changed::{is_changed, is_silent};
use super::super::packs::{PackError, Packer, PlacedPiece};
use super::super::parent::manifest::ParentFile;
use super::stored_frames::StoredFrames;

/// Most pieces of one window. Where more would be needed, pages that have not changed are stored again with those that
/// have, so that the manifest stays below a thousandth of the data, to the end of a long chain.
const MOST_PIECES: usize = 32;

/// What is known of a file's content before it is read.
#[derive(Debug)]
pub enum Known {
    /// Nothing: all of it is stored.
    Nothing,
    /// A page is as the parent has it when its LSN lies before `since`. A piece with a page whose LSN says nothing is
    /// the parent's when its content is.
    Lsn { file: ParentFile, since: Lsn, page_size: usize },
    /// A piece is the parent's when its content is.
    Content(ParentFile),
}

/// Takes a file window by window, in order, and makes the list of its pieces.
#[derive(Debug)]
pub struct Assembly<'p> {
    packer: &'p mut Packer,
    known: Known,
    /// Of this file, by the backup that this one goes on with.
    stored: StoredFrames,
    assembled: Assembled,
    gathered: Gathered,
}

/// What a file consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assembled {
    /// End to end.
    pub pieces: Vec<Piece>,
    /// Of windows in which pieces are parts of frames.
    pub windows: Windows,
}

/// Changed pages of the file that will be one frame, and the pieces that wait for their place in it.
#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// Index of each piece, and how many bytes of the frame come before it.
    waiting: Vec<(usize, u32)>,
}

/// Bytes of a window that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    begin: usize,
    end: usize,
    is_changed: bool,
}

impl<'p> Assembly<'p> {
    pub fn new(packer: &'p mut Packer, known: Known, stored: StoredFrames) -> Assembly<'p> {
        Assembly { packer, known, stored, assembled: Assembled::default(), gathered: Gathered::default() }
    }

    /// The next window, of at most [`MAX_PIECE_BYTES`]. A page whose checksum is wrong is never the parent's.
    pub fn take(
        &mut self,
        window: &[u8],
        offset: u64,
        is_bad: impl Fn(u64) -> bool,
    ) -> Result<(), PackError> {
        match &self.known {
            Known::Nothing => self.store(window, offset),
            Known::Content(_) => self.take_by_content(window, offset),
            // Of the whole window, or a page that is silent for good would be stored each time.
            Known::Lsn { page_size, .. } if window.chunks(*page_size).any(is_silent) => {
                self.take_by_content(window, offset)
            }
            Known::Lsn { file, since, page_size } => {
                let stored = |page: &[u8], at: u64| {
                    let end = at + page.len() as u64;
                    page.len() < *page_size || end > file.size || is_bad(at) || is_changed(page, *since)
                };
                let runs = runs(window, offset, *page_size, stored);
                self.take_runs(window, offset, &runs)
            }
        }
    }

    fn take_by_content(&mut self, window: &[u8], offset: u64) -> Result<(), PackError> {
        match same_content(self.parents_pieces(), window, offset) {
            Some(piece) => {
                self.assembled.pieces.push(piece);
                Ok(())
            }
            None => self.store(window, offset),
        }
    }

    /// The pieces so far, up to the first that has no place yet.
    pub fn placed(&self) -> &[Piece] {
        let pieces = &self.assembled.pieces;
        let placed = self.gathered.waiting.first().map_or(pieces.len(), |(index, _)| *index);
        pieces.get(..placed).unwrap_or_default()
    }

    /// The file ends here.
    pub fn finish(mut self) -> Result<Assembled, PackError> {
        self.flush()?;
        Ok(self.assembled)
    }

    fn take_runs(&mut self, window: &[u8], offset: u64, runs: &[Run]) -> Result<(), PackError> {
        let at = |begin: usize| offset + begin as u64;
        let mut pieces = Vec::new();
        for run in runs.iter().filter(|run| !run.is_changed) {
            pieces.push(parts(self.parents_pieces(), at(run.begin), at(run.end)));
        }
        let changed = runs.iter().filter(|run| run.is_changed).count();
        let count = changed + pieces.iter().map(Vec::len).sum::<usize>();
        if pieces.is_empty() || count > MOST_PIECES {
            return self.store(window, offset);
        }
        if changed > 0 || pieces.iter().flatten().any(|piece| piece.part.is_some()) {
            let hash = self.hash_of(window, offset, changed > 0);
            self.assembled.windows.set(offset, hash);
        }
        let mut named = pieces.into_iter();
        for run in runs {
            if run.is_changed {
                self.gather(window.get(run.begin..run.end).unwrap_or_default(), at(run.begin))?;
            } else {
                named.next().unwrap_or_default().into_iter().for_each(|piece| self.name(piece));
            }
        }
        Ok(())
    }

    /// The hash of a window: the parent's, when all pages are the parent's.
    fn hash_of(&self, window: &[u8], offset: u64, is_changed: bool) -> ContentHash {
        let parents = match &self.known {
            Known::Lsn { file, .. } if !is_changed => file.window_hash(offset, window.len()),
            _ => None,
        };
        parents.unwrap_or_else(|| ContentHash::of(window))
    }

    fn parents_pieces(&self) -> &[Piece] {
        match &self.known {
            Known::Nothing => &[],
            Known::Lsn { file, .. } | Known::Content(file) => &file.pieces,
        }
    }

    /// A frame of its own for these bytes.
    fn store(&mut self, bytes: &[u8], offset: u64) -> Result<(), PackError> {
        self.flush()?;
        let placed = framed(&self.stored, self.packer, bytes)?;
        self.assembled.pieces.push(Piece::new(offset, placed.pack, placed.place));
        Ok(())
    }

    /// A piece that an older backup stored; as one with the piece before it, when they are one in the frame too.
    fn name(&mut self, piece: Piece) {
        let pieces = &mut self.assembled.pieces;
        match pieces.last_mut().and_then(|last| joined(last, &piece).map(|joined| (last, joined))) {
            Some((last, joined)) => *last = joined,
            None => pieces.push(piece),
        }
    }

    /// Changed pages of a file share frames: one page alone would compress worse, and need a hash of its own. Where a
    /// stored frame begins, one begins again: else one page that has changed since would make all behind it others.
    fn gather(&mut self, mut bytes: &[u8], mut offset: u64) -> Result<(), PackError> {
        while !bytes.is_empty() {
            if self.stored.begins_at(offset) {
                self.flush()?;
            }
            let room = MAX_PIECE_BYTES - self.gathered.bytes.len();
            let until = self.stored.next_begin(offset).map_or(u64::MAX, |next| next - offset);
            let room = room.min(usize::try_from(until).unwrap_or(usize::MAX));
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if now.is_empty() {
                self.flush()?;
                continue;
            }
            self.gathered.add(now, offset, &mut self.assembled.pieces);
            (bytes, offset) = (later, offset + now.len() as u64);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PackError> {
        let Gathered { bytes, waiting } = &mut self.gathered;
        if bytes.is_empty() {
            return Ok(());
        }
        let placed = framed(&self.stored, self.packer, bytes)?;
        for (index, skip) in waiting.drain(..) {
            let Some(piece) = self.assembled.pieces.get_mut(index) else { continue };
            let length = piece.length;
            let frame = Piece::new(piece.file_offset, placed.pack, placed.place);
            *piece = part_of(&frame, piece.file_offset, skip, length);
        }
        bytes.clear();
        Ok(())
    }
}

impl Gathered {
    fn add(&mut self, bytes: &[u8], offset: u64, pieces: &mut Vec<Piece>) {
        self.waiting.push((pieces.len(), small(self.bytes.len())));
        self.bytes.extend_from_slice(bytes);
        pieces.push(Piece {
            file_offset: offset,
            length: small(bytes.len()),
            backup: None,
            pack: 0,
            pack_offset: 0,
            stored_length: 0,
            blake3: ContentHash::from_bytes([0; 32]),
            part: None,
        });
    }
}

/// Where a frame of these bytes is: stored already, or on its way.
fn framed(stored: &StoredFrames, packer: &mut Packer, bytes: &[u8]) -> Result<PlacedPiece, PackError> {
    stored.find(bytes).map_or_else(|| packer.append(bytes), Ok)
}

/// Lengths here are those of a window at most.
fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The parent's piece that is exactly this window, when it has this content.
fn same_content(pieces: &[Piece], window: &[u8], offset: u64) -> Option<Piece> {
    let at = pieces.binary_search_by_key(&offset, |piece| piece.file_offset).ok()?;
    let piece = pieces.get(at)?;
    let is_alike = piece.part.is_none() && piece.length as usize == window.len();
    (is_alike && piece.blake3 == ContentHash::of(window)).then(|| piece.clone())
}

fn runs(window: &[u8], offset: u64, page_size: usize, stored: impl Fn(&[u8], u64) -> bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (number, page) in window.chunks(page_size).enumerate() {
        let begin = number * page_size;
        let (end, is_changed) = (begin + page.len(), stored(page, offset + begin as u64));
        match runs.last_mut().filter(|run| run.is_changed == is_changed) {
            Some(run) => run.end = end,
            None => runs.push(Run { begin, end, is_changed }),
        }
    }
    runs
}

/// The pieces that give a file's bytes from `begin` to `end`, cut out of those that give all of it.
fn parts(pieces: &[Piece], begin: u64, end: u64) -> Vec<Piece> {
    let end_of = |piece: &Piece| piece.file_offset + u64::from(piece.length);
    let first = pieces.partition_point(|piece| end_of(piece) <= begin);
    let within = pieces.iter().skip(first).take_while(|piece| piece.file_offset < end);
    let cut = |piece: &Piece| {
        let (from, to) = (begin.max(piece.file_offset), end.min(end_of(piece)));
        let before = u32::try_from(from - piece.file_offset).unwrap_or(u32::MAX);
        let skip = piece.part.map_or(0, |part| part.skip) + before;
        part_of(piece, from, skip, u32::try_from(to - from).unwrap_or(u32::MAX))
    };
    within.map(cut).collect()
}

/// A part of the frame that `piece` is, or is a part of.
fn part_of(piece: &Piece, file_offset: u64, skip: u32, length: u32) -> Piece {
    let frame_length = piece.part.map_or(piece.length, |part| part.frame_length);
    let part = (length < frame_length).then_some(PartOfFrame { skip, frame_length });
    Piece { file_offset, length, part, ..piece.clone() }
}

/// Two pieces as one, when they follow each other in the file and in one frame.
fn joined(one: &Piece, next: &Piece) -> Option<Piece> {
    let frame = |piece: &Piece| (piece.pack, piece.pack_offset, piece.stored_length, piece.blake3);
    let (first, second) = (one.part?, next.part?);
    let follows = one.file_offset + u64::from(one.length) == next.file_offset
        && first.skip + one.length == second.skip
        && first.frame_length == second.frame_length;
    // What is gathered has no place yet, and is joined by whoever gathers it.
    let is_placed = one.stored_length > 0;
    let is_same = is_placed && one.backup == next.backup && frame(one) == frame(next);
    (follows && is_same).then(|| part_of(one, one.file_offset, first.skip, one.length + next.length))
}

#[cfg(test)]
#[path = "assembly/tests.rs"]
mod tests;
