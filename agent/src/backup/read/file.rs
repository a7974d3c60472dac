//! Reads one file beside the server that writes it, piece by piece.

use std::io;
use std::path::Path;

use super::pages::{BadPage, PageCheck};
use super::source::Source;

/// Bytes of a file in one piece: a multiple of every page size.
pub const PIECE: usize = 1024 * 1024;

/// What was read of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Bytes read: the size when it was opened, less what was cut off since.
    /// What is added later comes back by WAL replay.
    pub size: u64,
    pub bad_pages: Vec<BadPage>,
}

/// Reads the file and hands every piece to `take`, in order, with its place and the pages in it
/// whose checksum is wrong; all but the last have [`PIECE`] bytes. `None` when the file has vanished.
pub fn read<E: From<io::Error>>(
    path: &Path,
    check: Option<PageCheck>,
    buffer: &mut Vec<u8>,
    mut take: impl FnMut(&[u8], u64, &[BadPage]) -> Result<(), E>,
) -> Result<Option<Content>, E> {
    let mut source = match Source::open(path) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let announced = source.size()?;
    let mut content = Content::default();
    while content.size < announced {
        let wanted = usize::try_from(announced - content.size).unwrap_or(PIECE).min(PIECE);
        buffer.resize(wanted, 0);
        let read = source.read(path, buffer, content.size)?;
        buffer.truncate(read);
        let again = |into: &mut [u8], at| source.read_again(into, at);
        let bad = match check {
            Some(check) => check.verify(buffer, content.size, again)?,
            None => Vec::new(),
        };
        if !buffer.is_empty() {
            take(buffer, content.size, &bad)?;
        }
        content.bad_pages.extend(bad);
        content.size += read as u64;
        if read < wanted {
            break;
        }
    }
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;

    use super::*;

    fn pieces_of(path: &Path) -> (Option<Content>, Vec<Vec<u8>>) {
        let mut pieces = Vec::new();
        let content = read::<io::Error>(path, None, &mut Vec::new(), |piece, _, _| {
            pieces.push(piece.to_vec());
            Ok(())
        });
        (content.unwrap(), pieces)
    }

    #[test]
    fn a_file_comes_in_pieces_that_are_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let (content, pieces) = pieces_of(&path);
            assert_eq!(content.unwrap().size, size as u64);
            assert_eq!(pieces.len(), size.div_ceil(PIECE));
            assert_eq!(pieces.concat(), bytes);
        }
    }

    #[test]
    fn a_file_that_vanished_has_no_content() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(pieces_of(&directory.path().join("f")), (None, Vec::new()));
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_ends_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, vec![1; 2 * PIECE]).unwrap();
        let cut = File::options().write(true).open(&path).unwrap();
        let mut total = 0;
        let content = read::<io::Error>(&path, None, &mut Vec::new(), |piece, _, _| {
            total += piece.len();
            cut.set_len(PIECE as u64 + 10)
        });
        assert_eq!(content.unwrap().unwrap().size, PIECE as u64 + 10);
        assert_eq!(total, PIECE + 10);
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_kept_as_it_was_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, vec![1; PIECE + 1]).unwrap();
        let grow = File::options().write(true).open(&path).unwrap();
        let content =
            read::<io::Error>(&path, None, &mut Vec::new(), |_, _, _| grow.set_len(9 * PIECE as u64));
        assert_eq!(content.unwrap().unwrap().size, PIECE as u64 + 1);
    }
}
