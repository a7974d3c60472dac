//! What a backup has stored so far, written down in the data directory as it goes on, so that one that was interrupted
//! goes on where it was. The next one has the same id, reads all files again, and stores what is not in a pack of the
//! first one yet. That is decided by content alone: a frame is there when its BLAKE3 is, in a pack whose bytes are
//! those that were stored, by the store's own checksum or read back.
//!
//! A full backup and an incremental one each have notes of their own, for neither goes on with the other: the id says of
//! which kind a backup is. An incremental one goes on only with the same parent. With another one it would be right, too,
//! but it would store other pages, and its folder would keep what nobody names.
//!
//! Records, one behind the other, each with a checksum: who is killed leaves half a record at most.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use walpoint_archive::manifest::Piece;
use walpoint_archive::summary::StoredObject;
use walpoint_archive::{BackupId, ContentHash, WriterId};
use walpoint_wal::SystemIdentifier;

use super::spool;

/// The files, in the data directory; no backup holds them.
const OF_FULL: &str = "walpoint.unfinished";
const OF_INCREMENTAL: &str = "walpoint.unfinished-incr";
/// Of each record: its length and the beginning of its BLAKE3.
const HEAD: usize = 12;
/// Longest record: the pieces of a file of 1 GiB are a tenth of that.
const LONGEST: usize = 64 << 20;

const BEGUN: u8 = 1;
const PACK: u8 = 2;
const READ: u8 = 3;

/// Whose packs these are: of another they are no use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub system_identifier: SystemIdentifier,
    /// The data directory: a copy of it, with the notes in it, is another one.
    pub writer: WriterId,
    /// The archive's url.
    pub archive: String,
    /// To whom packs are encrypted.
    pub recipients: Vec<String>,
    /// What an incremental one builds on.
    #[serde(default)]
    pub parent: Option<BackupId>,
}

impl Owner {
    fn notes(&self) -> &'static str {
        if self.parent.is_some() { OF_INCREMENTAL } else { OF_FULL }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    backup: BackupId,
    owner: Owner,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredPack {
    number: u32,
    object: StoredObject,
}

/// The notes of a backup that is being made. Nobody else writes them while this is open.
#[derive(Debug)]
pub struct Notes {
    file: File,
    path: PathBuf,
    end: Mutex<u64>,
    /// The disk refused a note: the backup goes on, and cannot be gone on with.
    is_broken: AtomicBool,
}

/// What an interrupted backup left.
#[derive(Debug)]
pub struct Left {
    pub backup: BackupId,
    /// Packs that were stored, by number.
    pub packs: BTreeMap<u32, StoredObject>,
    /// The highest number that a pack has, also one that was open and never stored: pieces are noted as in it, and it
    /// must be no other pack's.
    pub highest: Option<u32>,
    /// Where the records of each file lie, by a hash of its path.
    files: HashMap<u64, Vec<u64>>,
}

impl Notes {
    /// Opens the notes. `None` when another backup is writing them: this one then goes on without.
    pub fn open(data_directory: &Path, owner: &Owner) -> io::Result<Option<Notes>> {
        let path = data_directory.join(owner.notes());
        let file =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Notes { file, path, end: Mutex::new(0), is_broken: AtomicBool::new(false) })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What they say of a backup of this owner; what follows the last sound record is cut off.
    pub fn left(&self, owner: &Owner) -> io::Result<Option<Left>> {
        let mut left: Option<Left> = None;
        let mut at = 0;
        while let Some((kind, payload, next)) = self.record(at)? {
            match (kind, &mut left) {
                (BEGUN, None) => match serde_json::from_slice::<Begun>(&payload) {
                    Ok(begun) if begun.owner == *owner => {
                        let (packs, files) = Default::default();
                        left = Some(Left { backup: begun.backup, packs, highest: None, files });
                    }
                    _ => return Ok(None),
                },
                (PACK, Some(left)) => {
                    if let Ok(StoredPack { number, object }) = serde_json::from_slice(&payload) {
                        left.packs.insert(number, object);
                        left.highest = left.highest.max(Some(number));
                    }
                }
                (READ, Some(left)) => {
                    if let Some((path, pieces)) = split_path(&payload) {
                        left.files.entry(hash_of(path)).or_default().push(at);
                        let pieces = spool::decode_all(pieces).unwrap_or_default();
                        let own = pieces.iter().filter(|piece| piece.backup.is_none());
                        left.highest = left.highest.max(own.map(|piece| piece.pack).max());
                    }
                }
                _ => {}
            }
            at = next;
        }
        let end = if left.is_some() { at } else { 0 };
        // Sound records behind one that is not would come back when that is written over.
        self.file.set_len(end)?;
        *self.end() = end;
        Ok(left)
    }

    /// Begins the notes of a backup.
    pub fn begin(&self, backup: &BackupId, owner: &Owner) {
        let begun = Begun { backup: backup.clone(), owner: owner.clone() };
        let cleared = self.file.set_len(0);
        *self.end() = 0;
        self.note(cleared.and_then(|()| self.write(BEGUN, &serde_json::to_vec(&begun)?)));
    }

    /// A pack is in the store.
    pub fn stored(&self, number: u32, object: &StoredObject) {
        let pack = StoredPack { number, object: object.clone() };
        self.note(
            serde_json::to_vec(&pack).map_err(io::Error::from).and_then(|json| self.write(PACK, &json)),
        );
    }

    /// These pieces of a file were read.
    pub fn read<'p>(&self, path: &Path, pieces: impl Iterator<Item = &'p Piece>) {
        let mut pieces = pieces.peekable();
        if pieces.peek().is_none() {
            return;
        }
        let path = path.as_os_str().as_bytes();
        let mut payload = Vec::new();
        payload.extend_from_slice(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
        payload.extend_from_slice(path);
        pieces.for_each(|piece| spool::encode(piece, &mut payload));
        self.note(self.write(READ, &payload));
    }

    fn note(&self, written: io::Result<()>) {
        if let Err(error) = written
            && !self.is_broken.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "could not keep notes of what is stored; if this backup is interrupted the next begins anew: {error}"
            );
        }
    }

    /// The pieces of a file that are in packs which are still there, as they were noted.
    pub fn pieces(&self, left: &Left, path: &Path) -> io::Result<Vec<Piece>> {
        let path = path.as_os_str().as_bytes();
        let mut found = Vec::new();
        for at in left.files.get(&hash_of(path)).into_iter().flatten() {
            let Some((READ, payload, _)) = self.record(*at)? else { continue };
            let pieces = split_path(&payload).filter(|(found, _)| *found == path);
            let pieces = pieces.and_then(|(_, pieces)| spool::decode_all(pieces)).unwrap_or_default();
            let is_there = |piece: &Piece| piece.backup.is_none() && left.packs.contains_key(&piece.pack);
            found.extend(pieces.into_iter().filter(is_there));
        }
        Ok(found)
    }

    /// The backup is complete: there is nothing to go on with.
    pub fn finish(&self) {
        self.note(std::fs::remove_file(&self.path));
    }

    fn write(&self, kind: u8, payload: &[u8]) -> io::Result<()> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut record = vec![0; HEAD];
        record.push(kind);
        record.extend_from_slice(payload);
        let (head, body) = record.split_at_mut(HEAD);
        let length = u32::try_from(body.len()).map_err(|_| io::Error::other("a record is too long"))?;
        let hash = ContentHash::of(body);
        for (to, from) in head.iter_mut().zip(length.to_le_bytes().iter().chain(hash.as_bytes())) {
            *to = *from;
        }
        let mut end = self.end();
        self.file.write_all_at(&record, *end)?;
        *end += record.len() as u64;
        Ok(())
    }

    /// Kind and content of the record there, and where the next one begins; `None` where none is, or not all of it.
    fn record(&self, at: u64) -> io::Result<Option<(u8, Vec<u8>, u64)>> {
        let mut head = [0; HEAD];
        if !read_whole(&self.file, &mut head, at)? {
            return Ok(None);
        }
        let (length, hash) = head.split_at(4);
        let length = length.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
        if length == 0 || length > LONGEST {
            return Ok(None);
        }
        let mut body = vec![0; length];
        if !read_whole(&self.file, &mut body, at + HEAD as u64)?
            || !ContentHash::of(&body).as_bytes().starts_with(hash)
        {
            return Ok(None);
        }
        let kind = body.remove(0);
        Ok(Some((kind, body, at + (HEAD + length) as u64)))
    }

    fn end(&self) -> std::sync::MutexGuard<'_, u64> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_whole(file: &File, into: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(into, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn split_path(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = payload.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

fn hash_of(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use walpoint_archive::pack::PiecePlace;
    use walpoint_archive::{Layout, StoredHash};

    use super::*;

    fn owner() -> Owner {
        Owner {
            system_identifier: SystemIdentifier(7),
            writer: "7f3a00000000beef".parse().unwrap(),
            archive: "file:///a".into(),
            recipients: vec!["age1x".into()],
            parent: None,
        }
    }

    fn id() -> BackupId {
        "20261120T214500Z-full-3fa9c1".parse().unwrap()
    }

    fn pack(number: u32) -> StoredObject {
        let key = Layout::new(SystemIdentifier(7)).pack(&id(), number, ContentHash::of(b"").id(), false);
        StoredObject { key, size: 9, sha256: StoredHash::of(b"") }
    }

    fn piece(pack: u32, offset: u64) -> Piece {
        let place =
            PiecePlace { offset: 3, stored_length: 5, length: 7, hash: ContentHash::of(b"x"), part: None };
        Piece::new(offset, pack, place)
    }

    fn notes(directory: &Path) -> Notes {
        Notes::open(directory, &owner()).unwrap().unwrap()
    }

    #[test]
    fn what_was_stored_is_found_again_after_a_kill_at_any_byte() {
        let directory = tempfile::tempdir().unwrap();
        let first = notes(directory.path());
        first.begin(&id(), &owner());
        first.stored(0, &pack(0));
        // In a pack that is not stored yet: of no use.
        first.read(Path::new("base/1/1"), [piece(0, 0), piece(1, 7)].iter());
        let whole = std::fs::read(directory.path().join(OF_FULL)).unwrap();
        first.stored(1, &pack(1));
        drop(first);
        let all = std::fs::read(directory.path().join(OF_FULL)).unwrap();
        for cut in 0..=all.len() {
            std::fs::write(directory.path().join(OF_FULL), &all[..cut]).unwrap();
            let again = notes(directory.path());
            let Some(left) = again.left(&owner()).unwrap() else {
                assert!(cut < whole.len());
                continue;
            };
            let found = again.pieces(&left, Path::new("base/1/1")).unwrap();
            let expected = match cut {
                cut if cut == all.len() => vec![piece(0, 0), piece(1, 7)],
                cut if cut >= whole.len() => vec![piece(0, 0)],
                _ => Vec::new(),
            };
            assert_eq!(found, expected, "cut at {cut}");
            // It goes on behind what is sound.
            again.stored(2, &pack(2));
            assert!(again.left(&owner()).unwrap().unwrap().packs.contains_key(&2));
        }
    }

    #[test]
    fn every_flipped_byte_ends_the_notes_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = notes(directory.path());
        first.begin(&id(), &owner());
        let begun = *first.end();
        first.read(Path::new("base/1/1"), [piece(0, 0)].iter());
        first.stored(0, &pack(0));
        drop(first);
        let all = std::fs::read(directory.path().join(OF_FULL)).unwrap();
        for at in usize::try_from(begun).unwrap()..all.len() {
            let mut bytes = all.clone();
            bytes[at] ^= 1;
            std::fs::write(directory.path().join(OF_FULL), &bytes).unwrap();
            let again = notes(directory.path());
            let left = again.left(&owner()).unwrap().unwrap();
            assert_eq!(again.pieces(&left, Path::new("base/1/1")).unwrap(), [], "byte {at}");
        }
    }

    #[test]
    fn a_file_is_noted_as_it_is_read_and_others_notes_are_no_use() {
        let directory = tempfile::tempdir().unwrap();
        let first = notes(directory.path());
        first.begin(&id(), &owner());
        first.stored(0, &pack(0));
        first.read(Path::new("f"), [piece(0, 7)].iter());
        first.read(Path::new("f"), [piece(0, 14), piece(0, 0)].iter());
        // Once more, into a pack that was not stored.
        first.read(Path::new("f"), [piece(1, 14)].iter());
        let left = first.left(&owner()).unwrap().unwrap();
        assert_eq!(left.backup, id());
        let expected = [piece(0, 7), piece(0, 14), piece(0, 0)];
        assert_eq!(first.pieces(&left, Path::new("f")).unwrap(), expected);
        assert_eq!(first.pieces(&left, Path::new("g")).unwrap(), []);
        for other in [
            Owner { recipients: Vec::new(), ..owner() },
            Owner { writer: WriterId::random(), ..owner() },
            Owner { archive: "file:///b".into(), ..owner() },
            Owner { parent: Some(id()), ..owner() },
        ] {
            assert!(first.left(&other).unwrap().is_none());
        }
        first.finish();
        assert!(notes(directory.path()).left(&owner()).unwrap().is_none());
    }

    /// Else what was noted as in it would be looked for in another pack with its number.
    #[test]
    fn a_pack_that_was_open_and_never_stored_keeps_its_number() {
        let directory = tempfile::tempdir().unwrap();
        let first = notes(directory.path());
        first.begin(&id(), &owner());
        assert_eq!(first.left(&owner()).unwrap().unwrap().highest, None);
        first.stored(2, &pack(2));
        assert_eq!(first.left(&owner()).unwrap().unwrap().highest, Some(2));
        first.read(Path::new("f"), [piece(5, 0), piece(3, 7)].iter());
        // Of an older backup.
        let parents = Piece { backup: Some("20261119T214500Z-full-3fa9c1".parse().unwrap()), ..piece(9, 14) };
        first.read(Path::new("g"), [parents].iter());
        assert_eq!(first.left(&owner()).unwrap().unwrap().highest, Some(5));
    }

    #[test]
    fn records_behind_a_damaged_one_do_not_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let first = notes(directory.path());
        first.begin(&id(), &owner());
        let begun = *first.end();
        first.stored(0, &pack(0));
        first.read(Path::new("f"), [piece(0, 0)].iter());
        drop(first);
        let file = directory.path().join(OF_FULL);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[usize::try_from(begun).unwrap() + HEAD] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let again = notes(directory.path());
        assert!(again.left(&owner()).unwrap().unwrap().packs.is_empty());
        // As long as the one that it is written over.
        again.stored(0, &pack(0));
        let left = again.left(&owner()).unwrap().unwrap();
        assert_eq!(again.pieces(&left, Path::new("f")).unwrap(), []);
    }

    #[test]
    fn two_backups_do_not_share_their_notes() {
        let directory = tempfile::tempdir().unwrap();
        let first = notes(directory.path());
        assert!(Notes::open(directory.path(), &owner()).unwrap().is_none());
        drop(first);
        assert!(Notes::open(directory.path(), &owner()).unwrap().is_some());
    }

    #[test]
    fn an_incremental_backup_goes_on_with_its_own_parent_only_and_leaves_a_full_ones_notes_alone() {
        let directory = tempfile::tempdir().unwrap();
        let on = |parent: &str| Owner { parent: Some(parent.parse().unwrap()), ..owner() };
        let (one, other) = (on("20261120T214500Z-full-3fa9c1"), on("20261121T214500Z-full-3fa9c2"));
        let incremental: BackupId = "20261122T214500Z-incr-3fa9c3".parse().unwrap();
        let open = |owner| Notes::open(directory.path(), owner).unwrap().unwrap();
        let full = notes(directory.path());
        full.begin(&id(), &owner());
        // Beside it.
        let first = open(&one);
        first.begin(&incremental, &one);
        first.stored(0, &pack(0));
        drop(first);
        assert_eq!(open(&one).left(&one).unwrap().unwrap().backup, incremental);
        assert!(open(&other).left(&other).unwrap().is_none());
        open(&other).begin(&incremental, &other);
        assert!(open(&one).left(&one).unwrap().is_none());
        assert_eq!(full.left(&owner()).unwrap().unwrap().backup, id());
    }
}
