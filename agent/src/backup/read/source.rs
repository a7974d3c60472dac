//! Reads a file and leaves the page cache as the server has it: what is there stays, what is not there does not come in.
//!
//! A kernel that knows `RWF_DONTCACHE` (Linux 6.14) does just that. On an older one a window whose pages are in the
//! cache is read from there, and one whose pages are not is read around the cache (`O_DIRECT`). Which it is, is asked
//! at two places of the window, without waiting for the disk (`RWF_NOWAIT`); a page that the question itself brings in
//! is dropped again. `POSIX_FADV_DONTNEED` behind an ordinary read would drop the server's own pages, too.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// `RWF_DONTCACHE` (linux/fs.h).
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);
/// What `O_DIRECT` wants addresses, places and lengths to be multiples of, on every file system there is.
const ALIGNED: usize = 4096;

/// An open file.
#[derive(Debug)]
pub struct Source {
    file: File,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// The kernel drops what it brings in.
    DontCache,
    /// Around the cache, where the pages are not in it.
    Around { direct: File, buffer: Vec<u8> },
    /// As it comes: a file system that knows neither.
    Plain,
}

impl Source {
    pub fn open(path: &Path) -> io::Result<Source> {
        let file = File::open(path)?;
        Ok(Source { file, way: Way::DontCache })
    }

    pub fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads at `offset`, a multiple of [`ALIGNED`], until the buffer is full or the file ends.
    pub fn read(&mut self, path: &Path, into: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Way::DontCache = self.way {
            match read_dontcache(&self.file, into, offset) {
                Err(error) if is_unknown(&error) => self.way = Way::around(path, &self.file),
                read => return read,
            }
        }
        if let Way::Around { direct, buffer } = &mut self.way {
            match is_cached(&self.file, into.len(), offset) {
                Some(true) => {}
                Some(false) => match read_direct(direct, buffer, into, offset) {
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.way = Way::Plain,
                    read => return read,
                },
                // To leave pages behind is better than to drop the server's.
                None => self.way = Way::Plain,
            }
        }
        self.read_again(into, offset)
    }

    /// Reads a place that was read before; it is in the cache when the server is writing it.
    pub fn read_again(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        fill(into, offset, |rest, at| self.file.read_at(rest, at))
    }
}

impl Way {
    fn around(path: &Path, file: &File) -> Way {
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default();
        match File::options().read(true).custom_flags(flags).open(path) {
            Ok(direct) => {
                // A question about one page must not bring in those behind it.
                let _ = fadvise(file, 0, None, Advice::Random);
                Way::Around { direct, buffer: Vec::new() }
            }
            Err(_) => Way::Plain,
        }
    }
}

/// A kernel or a file system that does not know a flag.
fn is_unknown(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS))
}

fn read_dontcache(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    fill(into, offset, |rest, at| Ok(preadv2(file, &mut [IoSliceMut::new(rest)], at, DONTCACHE)?))
}

/// Whether the window is in the page cache, by its first page and one in its middle; `None` where nobody can say.
fn is_cached(file: &File, length: usize, offset: u64) -> Option<bool> {
    let middle = offset + (length / 2 - length / 2 % ALIGNED) as u64;
    match is_page_cached(file, offset)? {
        true => is_page_cached(file, middle),
        false => Some(false),
    }
}

fn is_page_cached(file: &File, offset: u64) -> Option<bool> {
    let mut byte = [0];
    let read = preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT);
    let is_cached = told(read);
    if is_cached == Some(false) {
        let page = NonZeroU64::new(ALIGNED as u64);
        let _ = fadvise(file, offset, page, Advice::DontNeed);
    }
    is_cached
}

/// What a read that does not wait tells of the page.
fn told(read: Result<usize, Errno>) -> Option<bool> {
    match read {
        Ok(_) => Some(true),
        Err(Errno::AGAIN) => Some(false),
        // Not what was asked about: the file system does not know the question, or somebody interrupted it.
        Err(_) => None,
    }
}

/// Through a buffer that begins where the kernel wants it to.
fn read_direct(file: &File, buffer: &mut Vec<u8>, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let length = into.len().next_multiple_of(ALIGNED);
    buffer.resize(length + ALIGNED, 0);
    let begin = buffer.as_ptr().align_offset(ALIGNED);
    let aligned = buffer.get_mut(begin..begin + length).unwrap_or_default();
    // After a short read the rest would begin anywhere: only the file's end is short.
    let read = fill(aligned, offset, |rest, at| match at.is_multiple_of(ALIGNED as u64) {
        true => file.read_at(rest, at),
        false => Ok(0),
    })?;
    let read = read.min(into.len());
    if let (Some(target), Some(from)) = (into.get_mut(..read), aligned.get(..read)) {
        target.copy_from_slice(from);
    }
    Ok(read)
}

fn fill(
    into: &mut [u8],
    offset: u64,
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ways(path: &Path) -> Vec<Source> {
        let file = || File::open(path).unwrap();
        let around = Way::around(path, &file());
        [Way::DontCache, around, Way::Plain].into_iter().map(|way| Source { file: file(), way }).collect()
    }

    #[test]
    fn every_way_gives_the_same_bytes() {
        // Not in memory only: a file system that has a cache.
        let directory = tempfile::tempdir_in(".").unwrap();
        let path = directory.path().join("f");
        for size in [0, 1, 4095, 4096, 4097, 70_000] {
            let bytes: Vec<u8> = (0..size).map(|i: usize| (i % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            for mut source in ways(&path) {
                for (offset, length) in
                    [(0, 100_000), (0, 4096), (4096, 8192), (65_536, 65_536), (131_072, 1)]
                {
                    let mut into = vec![0xFF; length];
                    let read = source.read(&path, &mut into, offset as u64).unwrap();
                    let expected = bytes.get(offset..size.min(offset + length)).unwrap_or_default();
                    assert_eq!((&into[..read]), expected, "{size} bytes, {length} at {offset}, {source:?}");
                    let again = source.read_again(&mut into, offset as u64).unwrap();
                    assert_eq!(&into[..again], expected);
                }
            }
        }
    }

    /// What the server has in the cache is dropped for no file system's lack of an answer.
    #[test]
    fn only_a_page_that_is_said_to_be_missing_counts_as_missing() {
        assert_eq!(told(Ok(1)), Some(true));
        assert_eq!(told(Ok(0)), Some(true));
        assert_eq!(told(Err(Errno::AGAIN)), Some(false));
        for error in [Errno::OPNOTSUPP, Errno::INVAL, Errno::NOSYS, Errno::IO] {
            assert_eq!(told(Err(error)), None, "{error}");
        }
    }

    /// Bytes of a file in the page cache; `None` where nobody can say.
    fn cached(path: &Path) -> Option<u64> {
        let mut fincore = std::process::Command::new("fincore");
        let output = fincore.args(["--bytes", "--noheadings", "--output", "RES"]).arg(path).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    }

    /// What a kernel without `RWF_DONTCACHE` does; the one with it is measured on a cluster.
    #[test]
    fn around_the_cache_what_is_not_there_does_not_come_in_and_what_is_stays() {
        let directory = tempfile::tempdir_in(".").unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, vec![7; 8 << 20]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let Way::Around { .. } = Way::around(&path, &file) else { return };
        let half = NonZeroU64::new(4 << 20);
        fadvise(&file, 4 << 20, half, Advice::DontNeed).unwrap();
        let Some(before) = cached(&path).filter(|before| *before == 4 << 20) else { return };
        let mut source = Source { way: Way::around(&path, &file), file };
        let mut window = vec![0; 1 << 20];
        for at in 0..8 {
            assert_eq!(source.read(&path, &mut window, at << 20).unwrap(), window.len());
        }
        // A page that was only asked for may still be on its way when it is dropped.
        let after = cached(&path).unwrap();
        assert!((before..=before + (64 << 10)).contains(&after), "{before} before, {after} after");
    }
}
