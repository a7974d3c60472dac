//! The first page of a segment says which file this is.

use crate::lsn::Lsn;
use crate::page::{LONG_HEADER, PAGE_SIZE, PageHeader};
use crate::segment::{SegmentName, SegmentSize};
use crate::survey::SurveyError;
use crate::system_identifier::SystemIdentifier;
use crate::timeline::TimelineId;
use crate::version::Major;

/// What a server can be built with: `configure --with-wal-blocksize` (13–18), in bytes.
const PAGE_SIZES: [u32; 7] = [1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16];

/// Which segment of which cluster is being read.
#[derive(Debug, Clone)]
pub(crate) struct SegmentPlace {
    pub(crate) number: u64,
    pub(crate) start: Lsn,
    pub(crate) size: SegmentSize,
    /// The timeline of the name; pages may be of older ones.
    pub(crate) timeline: TimelineId,
    /// The timeline of the first page.
    pub(crate) page_timeline: TimelineId,
    pub(crate) system_identifier: SystemIdentifier,
    pub(crate) major: Major,
}

impl SegmentPlace {
    /// Reads the first page and compares it with the name.
    pub(crate) fn read(
        name: SegmentName,
        page: &[u8],
        expected: Option<SystemIdentifier>,
    ) -> Result<SegmentPlace, SurveyError> {
        let major = known_magic(page)?;
        let not_wal = |reason: String| SurveyError::NotWal { reason };
        let header = PageHeader::parse(page).map_err(|error| not_wal(error.to_string()))?;
        let long = header.long.ok_or_else(|| not_wal("its first page header is a short one".to_owned()))?;
        if !PAGE_SIZES.contains(&long.block_size) {
            return Err(not_wal(format!("its pages have {} bytes, which no server's do", long.block_size)));
        }
        let size = SegmentSize::new(u64::from(long.segment_size)).map_err(|e| not_wal(e.to_string()))?;
        let system_identifier = SystemIdentifier(long.system_identifier);
        if let Some(expected) = expected.filter(|expected| *expected != system_identifier) {
            return Err(SurveyError::WrongCluster { expected, found: system_identifier });
        }
        let contradicted = SurveyError::NameContradicted {
            name,
            header_timeline: header.timeline,
            header_address: header.address,
        };
        let (Ok(number), Ok(start)) = (name.number(size), name.start(size)) else {
            return Err(contradicted);
        };
        if header.address != start || header.timeline > name.timeline {
            return Err(contradicted);
        }
        // Last of all: what the header says is sound, whatever the size of the pages.
        if long.block_size as usize != PAGE_SIZE {
            return Err(SurveyError::UnknownPageSize { bytes: long.block_size, magic: header.magic });
        }
        // The very last segment that addresses can name has no end address; PostgreSQL
        // cannot use it either.
        start.checked_add(size.bytes()).ok_or_else(|| not_wal("it lies past the end of WAL".to_owned()))?;
        let (timeline, page_timeline) = (name.timeline, header.timeline);
        Ok(SegmentPlace { number, start, size, timeline, page_timeline, system_identifier, major })
    }

    /// Address after the segment.
    pub(crate) fn end(&self) -> Lsn {
        self.start.saturating_add(self.size.bytes())
    }
}

/// WAL of every version so far begins with a magic of this form, and with a long header.
fn known_magic(page: &[u8]) -> Result<Major, SurveyError> {
    let magic = match page.first_chunk::<LONG_HEADER>() {
        Some([low, high, ..]) => u16::from_le_bytes([*low, *high]),
        None => return Err(SurveyError::NotWal { reason: "it is shorter than a page header".to_owned() }),
    };
    match Major::from_page_magic(magic) {
        Some(major) => Ok(major),
        None if magic & 0xF000 == 0xD000 => Err(SurveyError::UnknownMagic(magic)),
        None => {
            Err(SurveyError::NotWal { reason: format!("it begins with {magic:04X}, which no WAL page does") })
        }
    }
}
