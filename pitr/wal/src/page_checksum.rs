//! Checksums of data pages (`pg_checksum_page`, storage/checksum_impl.h; the same in
//! 13 to 18): 32 hashes side by side, each a variant of FNV-1a.

use crate::fields::{u16_at, u32_at};
use crate::lsn::Lsn;

/// What a data page's checksum says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// All zero: the file was extended, the page never written. It has no checksum.
    New,
    /// The checksum in the page is that of its content.
    Sound,
    /// It is not.
    Bad {
        /// The checksum written in the page.
        expected: u16,
        /// The checksum of its content.
        found: u16,
    },
}

const LANES: usize = 32;
const PRIME: u32 = 16_777_619;
const BASE: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Where `pd_checksum` and `pd_upper` lie in `PageHeaderData` (storage/bufpage.h).
const CHECKSUM_AT: usize = 8;
const UPPER_AT: usize = 14;

/// Verifies one data page of a cluster with data checksums.
///
/// `block` is the whole page (a multiple of 128 bytes, at least 128; anything else is
/// `Bad`), `block_number` its place in the relation's fork, counted over all files of
/// the relation, since it is part of the checksum.
pub fn verify_page(block: &[u8], block_number: u32) -> PageState {
    let header = (u16_at(block, CHECKSUM_AT), u16_at(block, UPPER_AT));
    let (Some(expected), Some(upper)) = header else {
        return PageState::Bad { expected: 0, found: 0 };
    };
    if !block.len().is_multiple_of(LANES * 4) {
        return PageState::Bad { expected, found: 0 };
    }
    // A page without `pd_upper` counts as new (`PageIsNew`), and PostgreSQL reads a new
    // page only when all of it is zero (`PageIsVerified`, storage/page/bufpage.c).
    if upper == 0 && block.iter().all(|&byte| byte == 0) {
        return PageState::New;
    }
    let found = checksum(block, block_number);
    if found == expected { PageState::Sound } else { PageState::Bad { expected, found } }
}

/// Address of the WAL record that last changed the page (`pd_lsn`, stored as two
/// 32-bit halves, the high one first).
pub fn page_lsn(block: &[u8]) -> Lsn {
    match (u32_at(block, 0), u32_at(block, 4)) {
        (Some(high), Some(low)) => Lsn(u64::from(high) << 32 | u64::from(low)),
        _ => Lsn::ZERO,
    }
}

fn checksum(block: &[u8], block_number: u32) -> u16 {
    let mut sums = BASE;
    for (row_number, row) in block.chunks_exact(LANES * 4).enumerate() {
        let mut words = [0u32; LANES];
        for (word, bytes) in words.iter_mut().zip(row.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        if row_number == 0 {
            // The checksum is taken with its own field zero: the low half of word 2.
            if let Some(word) = words.get_mut(CHECKSUM_AT / 4) {
                *word &= 0xFFFF_0000;
            }
        }
        mix_row(&mut sums, &words);
    }
    mix_row(&mut sums, &[0; LANES]);
    mix_row(&mut sums, &[0; LANES]);
    let folded = sums.into_iter().fold(0, |all, sum| all ^ sum) ^ block_number;
    // At most 65535, so nothing is cut off; never 0.
    (folded % 65_535 + 1) as u16
}

fn mix_row(sums: &mut [u32; LANES], words: &[u32; LANES]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_page_has_no_checksum() {
        assert_eq!(verify_page(&[0; 8192], 7), PageState::New);
        let mut half_new = [0; 8192];
        half_new[8191] = 1;
        assert!(matches!(verify_page(&half_new, 7), PageState::Bad { .. }));
    }

    #[test]
    fn every_flipped_byte_and_another_place_are_noticed() {
        let mut block: Vec<u8> = (0..8192u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let sum = checksum(&block, 5).to_le_bytes();
        block.splice(CHECKSUM_AT..CHECKSUM_AT + 2, sum);
        assert_eq!(verify_page(&block, 5), PageState::Sound);
        assert!(matches!(verify_page(&block, 6), PageState::Bad { .. }));
        for at in (0..8192).step_by(61) {
            block[at] ^= 0x10;
            assert!(matches!(verify_page(&block, 5), PageState::Bad { .. }), "byte {at}");
            block[at] ^= 0x10;
        }
    }

    #[test]
    fn odd_sizes_are_bad_not_a_panic() {
        for size in [0, 1, 10, 127, 129, 8191] {
            assert!(matches!(verify_page(&vec![1; size], 0), PageState::Bad { .. }), "{size}");
        }
    }

    #[test]
    fn the_lsn_has_its_high_half_first() {
        assert_eq!(page_lsn(&[1, 0, 0, 0, 0xAB, 0, 0, 0]), Lsn(0x1_0000_00AB));
        assert_eq!(page_lsn(&[1, 2]), Lsn::ZERO);
    }
}
