//! Data page checksums, verified while a relation's file is read beside the
//! server that writes it.

use std::io;
use std::thread;
use std::time::Duration;

use walpoint_wal::lsn::Lsn;
use walpoint_wal::page_checksum::{PageState, page_lsn, verify_page};

/// How often a page with a wrong checksum is read again, and how long the
/// write that tore it is given each time.
const READ_AGAIN: u32 = 5;
const PAUSE: Duration = Duration::from_millis(4);

/// The pages of one file of a relation.
#[derive(Debug, Clone, Copy)]
pub struct PageCheck {
    /// Bytes in a page.
    pub page_size: usize,
    /// Number of the file's first page in its fork: pages are counted over
    /// all files of the fork.
    pub first_block: u32,
}

/// A page whose checksum stayed wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPage {
    /// Counted over all files of the fork.
    pub block: u32,
    pub lsn: Lsn,
}

impl BadPage {
    /// Is it damaged, or only torn? WAL replay writes whole every page that
    /// was changed since the backup began, and one with such an LSN may have
    /// been read in the middle of a write. An LSN after the backup's stop is
    /// no LSN at all.
    pub fn is_damaged(self, start: Lsn, stop: Lsn) -> bool {
        self.lsn < start || self.lsn > stop
    }
}

impl PageCheck {
    /// The block at this offset of the file.
    pub fn block_at(&self, offset: u64) -> u32 {
        let in_file = u32::try_from(offset / self.page_size as u64).unwrap_or(u32::MAX);
        self.first_block.wrapping_add(in_file)
    }

    /// Verifies the whole pages in `bytes`, which were read at `offset` of
    /// the file. A page with a wrong checksum is read again by `read_at`; the
    /// bytes last read are left in `bytes`.
    pub fn verify(
        &self,
        bytes: &mut [u8],
        offset: u64,
        mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<Vec<BadPage>> {
        let mut bad = Vec::new();
        for (page, at) in bytes.chunks_exact_mut(self.page_size).zip((offset..).step_by(self.page_size)) {
            let block = self.block_at(at);
            if is_sound(page, block) || read_again(page, block, at, &mut read_at)? {
                continue;
            }
            bad.push(BadPage { block, lsn: page_lsn(page) });
        }
        Ok(bad)
    }
}

/// New pages have no checksum yet.
fn is_sound(page: &[u8], block: u32) -> bool {
    !matches!(verify_page(page, block), PageState::Bad { .. })
}

/// Returns whether the page is sound after all. A page that has been cut off
/// meanwhile is: whoever cut it wrote so into the WAL.
fn read_again(
    page: &mut [u8],
    block: u32,
    offset: u64,
    read_at: &mut impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<bool> {
    for _ in 0..READ_AGAIN {
        thread::sleep(PAUSE);
        let mut again = vec![0; page.len()];
        if read_at(&mut again, offset)? < page.len() {
            return Ok(true);
        }
        page.copy_from_slice(&again);
        if is_sound(page, block) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    const SIZE: usize = 8192;
    const CHECK: PageCheck = PageCheck { page_size: SIZE, first_block: 131_072 };

    /// A page with content, the LSN and the right checksum for its block.
    fn page(block: u32, lsn: u64) -> Vec<u8> {
        let mut page: Vec<u8> = (0..SIZE).map(|i| (i * 7 + 3) as u8).collect();
        page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        page[14..16].copy_from_slice(&(SIZE as u16).to_le_bytes());
        let PageState::Bad { found, .. } = verify_page(&page, block) else { return page };
        page[8..10].copy_from_slice(&found.to_le_bytes());
        page
    }

    fn no_read(_: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::Error::other("nothing is to be read again"))
    }

    #[test]
    fn sound_and_new_pages_are_read_once() {
        let mut bytes = [page(131_074, 5), vec![0; SIZE], page(131_076, 9)].concat();
        assert_eq!(CHECK.verify(&mut bytes, 2 * SIZE as u64, no_read).unwrap(), []);
    }

    #[test]
    fn a_page_in_the_wrong_place_is_bad_and_named_by_its_block() {
        let mut bytes = [page(131_072, 5), page(131_072, 6)].concat();
        let mut read = 0;
        let again = bytes.clone();
        let bad = CHECK
            .verify(&mut bytes, 0, |into, at| {
                read += 1;
                into.copy_from_slice(&again[at as usize..at as usize + SIZE]);
                Ok(SIZE)
            })
            .unwrap();
        assert_eq!(bad, [BadPage { block: 131_073, lsn: Lsn(6) }]);
        assert_eq!(read, READ_AGAIN);
    }

    #[test]
    fn a_torn_page_is_read_again_and_the_whole_one_is_kept() {
        let (old, new) = (page(131_072, 5), {
            let mut new = page(131_072, 5);
            new[5000..].fill(9);
            let PageState::Bad { found, .. } = verify_page(&new, 131_072) else { panic!() };
            new[8..10].copy_from_slice(&found.to_le_bytes());
            new
        });
        let mut bytes = [&new[..4096], &old[4096..]].concat();
        let bad = CHECK
            .verify(&mut bytes, 0, |into, _| {
                into.copy_from_slice(&new);
                Ok(SIZE)
            })
            .unwrap();
        assert_eq!(bad, []);
        assert_eq!(bytes, new);
    }

    #[test]
    fn a_page_cut_off_meanwhile_is_not_damaged() {
        let mut bytes = vec![1; SIZE];
        assert_eq!(CHECK.verify(&mut bytes, 0, |_, _| Ok(100)).unwrap(), []);
    }

    #[test]
    fn half_a_page_at_the_end_is_not_verified() {
        let mut bytes = vec![1; SIZE / 2];
        assert_eq!(CHECK.verify(&mut bytes, 0, no_read).unwrap(), []);
    }

    #[test]
    fn the_lsn_tells_torn_from_damaged() {
        let (start, stop) = (Lsn(100), Lsn(200));
        for (lsn, damaged) in [(0, true), (99, true), (100, false), (200, false), (201, true)] {
            let page = BadPage { block: 0, lsn: Lsn(lsn) };
            assert_eq!(page.is_damaged(start, stop), damaged, "{lsn}");
        }
    }
}
