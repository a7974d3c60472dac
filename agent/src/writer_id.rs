//! The writer: a random id that the data directory keeps, so that two servers which archive under one name
//! can be told apart. A restore gives its copy another one, and a copy made in any other way is found out by
//! the directory that the id was made for: it makes one of its own.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;
use walpoint_archive::durable::{self, Placement};
use walpoint_archive::writer_id::WriterId;

/// The file that holds the id, within the data directory.
pub const FILE: &str = "walpoint.writer";

/// The data directory's id, made now if it has none of its own.
///
/// Where it can be neither read nor written, a new id is given for this run: the id tells people who is
/// who and decides nothing, so it is no reason to leave WAL unarchived.
pub fn of(data_directory: &Path) -> WriterId {
    let here = Place::of(data_directory);
    let kept = kept_in(data_directory);
    match kept {
        Some(Kept { id, place: Some(place) }) if place.may_be(&here) => id,
        // Whose it is can be written down by its owner only.
        Some(Kept { id, place: None }) if !here.is_ours => id,
        _ if !here.is_ours => WriterId::random(),
        _ => keep(data_directory, &here).unwrap_or_else(|error| {
            let path = data_directory.join(FILE);
            tracing::warn!("could not keep the writer's id in \"{}\": {error}", path.display());
            kept.filter(|kept| kept.place.is_none()).map_or_else(WriterId::random, |kept| kept.id)
        }),
    }
}

/// Writes down which directory an id is of: a new one, or the one that a restore wrote for this directory and
/// that nobody has used yet.
fn keep(data_directory: &Path, here: &Place) -> std::io::Result<WriterId> {
    // When two processes come at once, both go on with the id of the first.
    let lock = File::open(data_directory)?;
    lock.lock()?;
    let (kept, here) = (kept_in(data_directory), Place { is_ours: true, ..*here });
    let id = match kept {
        Some(Kept { id, place: Some(place) }) if place.may_be(&here) => return Ok(id),
        Some(Kept { id, place: None }) => id,
        _ => WriterId::random(),
    };
    let text = format!("{id}\n{here}\n");
    let path = data_directory.join(FILE);
    let _ = durable::write_file(&path, text.as_bytes(), durable::FILE_MODE, Placement::Replace)?;
    Ok(id)
}

/// What the file says.
#[derive(Clone, Copy)]
struct Kept {
    id: WriterId,
    /// The directory that the id was made for; not known when a restore wrote it.
    place: Option<Place>,
}

fn kept_in(data_directory: &Path) -> Option<Kept> {
    let text = std::fs::read_to_string(data_directory.join(FILE)).ok()?;
    let mut lines = text.lines();
    let id = lines.next()?.trim().parse().ok()?;
    match lines.next() {
        None => Some(Kept { id, place: None }),
        Some(line) => Some(Kept { id, place: Some(Place::parse(line)?) }),
    }
}

/// What tells a directory from its copies. A device's number can be another one after the next boot; where
/// the file system knows when the directory was made, that is looked at instead.
#[derive(Clone, Copy, Default)]
struct Place {
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970.
    made: Option<u128>,
    /// Whether we are the directory's owner: a file of another user, root's say, would be unreadable to the
    /// server's own hooks for ever after.
    is_ours: bool,
}

impl Place {
    fn of(directory: &Path) -> Self {
        let Ok(metadata) = std::fs::metadata(directory) else { return Self::default() };
        let made = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            made: made.map(|since| since.as_nanos()),
            is_ours: metadata.uid() == rustix::process::geteuid().as_raw(),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split_ascii_whitespace();
        let (device, inode) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let made = numbers.next().map(str::parse).transpose().ok()?;
        Some(Self { device, inode, made, is_ours: false })
    }

    fn may_be(&self, other: &Self) -> bool {
        self.inode == other.inode
            && match (self.made, other.made) {
                (Some(made), Some(other)) => made == other,
                _ => self.device == other.device,
            }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.device, self.inode)?;
        self.made.map_or(Ok(()), |made| write!(f, " {made}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn an_id_stays() {
        let directory = tempfile::tempdir().unwrap();
        let first = of(directory.path());
        assert_eq!(of(directory.path()), first);
    }

    #[test]
    fn a_copy_of_the_directory_gets_an_id_of_its_own_and_keeps_it() {
        let (original, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = of(original.path());
        std::fs::copy(original.path().join(FILE), copy.path().join(FILE)).unwrap();
        let second = of(copy.path());
        assert_ne!(second, first);
        assert_eq!((of(copy.path()), of(original.path())), (second, first));
    }

    #[test]
    fn an_id_that_a_restore_wrote_is_taken_and_no_copys_any_more() {
        let (restored, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = WriterId::random();
        std::fs::write(restored.path().join(FILE), format!("{id}\n")).unwrap();
        assert_eq!((of(restored.path()), of(restored.path())), (id, id));
        std::fs::copy(restored.path().join(FILE), copy.path().join(FILE)).unwrap();
        assert_ne!(of(copy.path()), id);
    }

    #[test]
    fn a_directory_that_was_moved_or_mounted_under_another_number_keeps_its_id() {
        let parent = tempfile::tempdir().unwrap();
        let (before, after) = (parent.path().join("before"), parent.path().join("after"));
        std::fs::create_dir(&before).unwrap();
        let id = of(&before);
        let moved = std::process::Command::new("mv").arg(&before).arg(&after).status().unwrap();
        assert!(moved.success());
        assert_eq!(of(&after), id);
        let mut place = Place::of(&after);
        if place.made.is_some() {
            place.device += 1;
            std::fs::write(after.join(FILE), format!("{id}\n{place}\n")).unwrap();
            assert_eq!(of(&after), id);
        }
    }

    #[test]
    fn two_that_come_at_once_go_on_with_one_id() {
        let (original, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        of(original.path());
        std::fs::copy(original.path().join(FILE), copy.path().join(FILE)).unwrap();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let each: Vec<_> = (0..8).map(|_| scope.spawn(|| of(copy.path()))).collect();
            each.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_no_failure() {
        let nowhere = Path::new("/nowhere/at/all");
        assert_ne!(of(nowhere), of(nowhere));
    }
}
