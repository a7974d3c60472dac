//! Turns any bytes into a segment whose page headers are right, and whose records mostly
//! have the right checksum and follow each other, so that fuzzing gets past these checks
//! into what lies behind.

use crate::{Major, SegmentName, SegmentSize, TimelineId};

const PAGE: usize = 8192;
pub const SEGMENT: usize = 1 << 20;

/// A 1 MiB segment that begins with the fuzzer's bytes, page by page.
pub fn segment(data: &[u8]) -> Option<(SegmentName, Vec<u8>)> {
    let (choice, data) = data.split_first()?;
    let major = Major::ALL[usize::from(choice & 7) % Major::ALL.len()];
    let name = SegmentName::from_number(TimelineId::FIRST, 1, SegmentSize::new(SEGMENT as u64).ok()?)?;
    let mut bytes = vec![0; SEGMENT];
    let mut rest = data;
    let mut prev = 0;
    for (number, page) in bytes.chunks_mut(PAGE).enumerate() {
        if rest.is_empty() {
            break;
        }
        let first = number == 0;
        let header = if first { 40 } else { 24 };
        // The fuzzer chooses flags and the length that continues; all else is right.
        let (chosen, later) = rest.split_at(rest.len().min(4));
        let chosen: Vec<u8> = chosen.iter().copied().chain([0; 4]).take(4).collect();
        let remaining = u32::from_le_bytes([chosen[0], chosen[1], chosen[2], 0]);
        let flags = u16::from(remaining != 0) | if first { 2 } else { 0 } | u16::from(chosen[3] & 8);
        page[..2].copy_from_slice(&major.page_magic().to_le_bytes());
        page[2..4].copy_from_slice(&flags.to_le_bytes());
        page[4..8].copy_from_slice(&1u32.to_le_bytes());
        page[8..16].copy_from_slice(&((SEGMENT + number * PAGE) as u64).to_le_bytes());
        page[16..20].copy_from_slice(&remaining.to_le_bytes());
        if first {
            page[24..32].copy_from_slice(&7u64.to_le_bytes());
            page[32..36].copy_from_slice(&(SEGMENT as u32).to_le_bytes());
            page[36..40].copy_from_slice(&(PAGE as u32).to_le_bytes());
        }
        let (now, later) = later.split_at(later.len().min(PAGE - header));
        page[header..header + now.len()].copy_from_slice(now);
        rest = later;
        if choice & 8 != 0 {
            fix_records(page, (SEGMENT + number * PAGE) as u64, header, &mut prev);
        }
    }
    Some((name, bytes))
}

/// Gives the records that lie on one page their checksum and their pointer to the record
/// before, as far as lengths lead.
fn fix_records(page: &mut [u8], address: u64, from: usize, prev: &mut u64) {
    let mut at = from;
    while at + 24 <= page.len() {
        let length = u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]) as usize;
        if length < 24 || at + length > page.len() {
            return;
        }
        page[at + 8..at + 16].copy_from_slice(&prev.to_le_bytes());
        let crc = crc32c::crc32c(&page[at + 24..at + length]);
        let crc = crc32c::crc32c_append(crc, &page[at..at + 20]);
        page[at + 20..at + 24].copy_from_slice(&crc.to_le_bytes());
        *prev = address + at as u64;
        at += length.next_multiple_of(8);
    }
}
