//! Which pages of a relation are other than a parent backup has them, told by their LSNs. Only where every change of
//! a page raises its LSN: see [`super::parent::comparison`].

use walpoint_wal::lsn::Lsn;
use walpoint_wal::page_checksum::page_lsn;

/// Where the fields of `PageHeaderData` lie (storage/bufpage.h; the same in 13–18).
const LOWER_AT: usize = 12;
const UPPER_AT: usize = 14;
const SPECIAL_AT: usize = 16;
const SIZE_VERSION_AT: usize = 18;
const HEADER: usize = 24;
/// `PG_PAGE_LAYOUT_VERSION`.
const LAYOUT_VERSION: u16 = 4;

/// The LSN of the pages that initdb makes before there is WAL (`SizeOfXLogLongPHD`). Whoever has a lower one was written
/// past the WAL: a new page, and up to PostgreSQL 16 every page that the sorted build of a GiST index writes
/// (`GistBuildLSN`, 1). Such an index is logged only when it is whole, and keeps the 1 on the disk.
const FIRST_LSN: Lsn = Lsn(40);

/// Whether the LSN of a page says nothing of when it was written: it may be younger than any backup.
pub fn is_silent(page: &[u8]) -> bool {
    page_lsn(page) < FIRST_LSN
}

/// Whether a page must be stored although the parent has one in its place. A page is taken for the parent's only when
/// it is one, and says that nothing has changed it since `since`, where the parent began.
pub fn is_changed(page: &[u8], since: Lsn) -> bool {
    is_silent(page) || page_lsn(page) >= since || !is_page(page)
}

/// Whether these bytes have the header of a page with content. A new page has none, all zero or not.
fn is_page(page: &[u8]) -> bool {
    let field = |at: usize| {
        let bytes = page.get(at..at + 2)?.first_chunk()?;
        Some(u16::from_le_bytes(*bytes))
    };
    let (Some(lower), Some(upper), Some(special), Some(version)) =
        (field(LOWER_AT), field(UPPER_AT), field(SPECIAL_AT), field(SIZE_VERSION_AT))
    else {
        return false;
    };
    // The size is a multiple of 256, the version its low byte.
    let (size, version) = (usize::from(version & 0xFF00), version & 0x00FF);
    size == page.len()
        && version == LAYOUT_VERSION
        && usize::from(lower) >= HEADER
        && lower <= upper
        && upper <= special
        && usize::from(special) <= size
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use proptest::prelude::*;

    const SINCE: Lsn = Lsn(0x2_0000_0028);

    fn page(lsn: u64) -> Vec<u8> {
        let mut page = vec![7; 8192];
        page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        for (at, value) in [(LOWER_AT, 40), (UPPER_AT, 8000), (SPECIAL_AT, 8192), (SIZE_VERSION_AT, 8192 + 4)]
        {
            page[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
        }
        page
    }

    fn with(at: usize, value: u16) -> Vec<u8> {
        let mut page = page(100);
        page[at..at + 2].copy_from_slice(&value.to_le_bytes());
        page
    }

    #[test]
    fn a_page_is_the_parents_only_when_its_lsn_lies_before_the_parents_start() {
        for (lsn, expected) in
            [(40, false), (0x1_FFFF_FFFF, false), (SINCE.0 - 1, false), (SINCE.0, true), (SINCE.0 + 1, true)]
        {
            assert_eq!(is_changed(&page(lsn), SINCE), expected, "{lsn:X}");
        }
    }

    #[test]
    fn an_lsn_that_no_record_of_wal_has_says_nothing() {
        for (lsn, expected) in [(0, true), (1, true), (39, true), (40, false), (SINCE.0, false)] {
            assert_eq!(is_silent(&page(lsn)), expected, "{lsn}");
            assert_eq!(is_changed(&page(lsn), SINCE), expected || lsn >= SINCE.0, "{lsn}");
        }
    }

    #[test]
    fn what_is_new_or_is_no_page_is_always_stored() {
        let table = [
            vec![0; 8192],
            page(0),
            with(UPPER_AT, 0),
            with(LOWER_AT, 23),
            with(LOWER_AT, 8001),
            with(UPPER_AT, 8193),
            with(SPECIAL_AT, 7999),
            with(SPECIAL_AT, 8193),
            with(SIZE_VERSION_AT, 4096 + 4),
            with(SIZE_VERSION_AT, 8192 + 5),
            page(100)[..4096].to_vec(),
            Vec::new(),
        ];
        for (number, page) in table.iter().enumerate() {
            assert!(is_changed(page, SINCE), "case {number}");
        }
        assert!(!is_changed(&with(SPECIAL_AT, 8176), SINCE));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes: Vec<u8>, since: u64) {
            is_changed(&bytes, Lsn(since));
        }
    }
}
