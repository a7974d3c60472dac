//! Properties that hold for any bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod synthetic;

use proptest::prelude::*;
use synthetic::{FIRST_SEGMENT, PAGE, Writer, size, survey, survey_chunked, surveyor_of, timeline};
use walpoint_wal::{
    BackupLabel, ControlFile, Ending, Lsn, Major, PageHeader, Reader, ReaderStart, SegmentName, SegmentSize,
    Start, Step, SystemIdentifier, TimelineHistory, TimelineId, Timestamp, WalFileName, tablespace_map,
    verify_page,
};

/// What a made-up transaction log is made of.
#[derive(Debug, Clone)]
enum Part {
    Commit(u32, i64),
    Filler(usize),
    RestorePoint(i64),
    Prepare(i64),
    ParameterChange,
    Switch,
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        8 => (any::<u32>(), any::<i64>()).prop_map(|(xid, time)| Part::Commit(xid, time)),
        12 => (0usize..300).prop_map(Part::Filler),
        6 => (0usize..30_000).prop_map(Part::Filler),
        1 => (800_000usize..2_500_000).prop_map(Part::Filler),
        2 => any::<i64>().prop_map(Part::RestorePoint),
        2 => any::<i64>().prop_map(Part::Prepare),
        2 => Just(Part::ParameterChange),
        1 => Just(Part::Switch),
    ]
}

fn major() -> impl Strategy<Value = Major> {
    prop::sample::select(Major::ALL.to_vec())
}

fn write(major: Major, parts: &[Part]) -> Writer {
    let mut writer = Writer::new(major);
    for part in parts {
        match part {
            Part::Commit(xid, time) => writer.commit(*xid, *time),
            Part::Filler(length) => writer.filler(*length, *length as u8),
            Part::RestorePoint(time) => writer.restore_point("point", *time),
            Part::Prepare(time) => writer.prepare(700, *time),
            Part::ParameterChange => writer.parameter_change(),
            Part::Switch => writer.switch(),
        };
    }
    writer.switch();
    writer
}

fn read(segments: &[(SegmentName, Vec<u8>)]) -> Vec<(Lsn, Option<Timestamp>)> {
    let start = ReaderStart { size: size(), system_identifier: None, carry: None, at: Start::SegmentStart };
    let mut reader = Reader::new(start).keeping_all_bodies();
    let mut segments = segments.iter();
    let mut records = Vec::new();
    loop {
        match reader.next().unwrap() {
            Step::Record(record) => {
                assert_eq!(record.bytes.len(), record.total_len as usize);
                records.push((record.lsn, record.event().unwrap().and_then(|event| event.time())));
            }
            Step::NeedSegment(_) => match segments.next() {
                Some((name, bytes)) => reader.feed(*name, bytes.clone()).unwrap(),
                None => return records,
            },
            Step::EndOfWal { at } => panic!("ends at {at}"),
        }
    }
}

/// Bytes that a change of must be noticed: all of every record.
fn covered(writer: &Writer) -> Vec<usize> {
    let base = FIRST_SEGMENT * size().bytes();
    let header = |at: u64| if at % size().bytes() < PAGE { 40 } else { 24 };
    let offsets = writer.records.iter().flat_map(|(start, end)| start.0..end.0);
    offsets.filter(|at| at % PAGE >= header(*at)).map(|at| (at - base) as usize).collect()
}

/// Surveys all segments one after the other; is there damage?
fn is_damaged(segments: &[(SegmentName, Vec<u8>)]) -> bool {
    let mut carry = None;
    segments.iter().any(|(name, bytes)| match survey(*name, bytes, carry.take()) {
        Ok(survey) => {
            carry = survey.carry_out;
            matches!(survey.ending, Ending::Damaged { .. })
        }
        Err(_) => true,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_that_was_written_is_read(major in major(), parts in prop::collection::vec(part(), 1..60)) {
        let writer = write(major, &parts);
        let records = read(&writer.segments());
        let lsns: Vec<Lsn> = records.iter().map(|(lsn, _)| *lsn).collect();
        let written: Vec<Lsn> = writer.records.iter().map(|(lsn, _)| *lsn).collect();
        prop_assert_eq!(lsns, written);
        let mut carry = None;
        let (mut commits, mut prepares, mut changes) = (0, 0, 0);
        for (name, bytes) in writer.segments() {
            let survey = survey(name, &bytes, carry.take()).unwrap();
            let sound = matches!(survey.ending, Ending::Full | Ending::Switched { .. });
            prop_assert!(sound, "{:?}", survey.ending);
            commits += survey.commits;
            prepares += survey.prepares;
            changes += survey.parameter_changes;
            carry = survey.carry_out;
        }
        let written =
            |wanted: fn(&Part) -> bool| parts.iter().filter(|part| wanted(part)).count() as u64;
        prop_assert_eq!(commits, written(|part| matches!(part, Part::Commit(..))));
        prop_assert_eq!(prepares, written(|part| matches!(part, Part::Prepare(_))));
        prop_assert_eq!(changes, written(|part| matches!(part, Part::ParameterChange)));
    }

    #[test]
    fn pieces_of_any_size_survey_as_the_whole(
        parts in prop::collection::vec(part(), 1..40),
        chunks in prop::collection::vec(1usize..20_000, 1..8),
    ) {
        let mut carry = None;
        for (name, bytes) in write(Major::V15, &parts).segments() {
            let whole = survey(name, &bytes, carry.clone()).unwrap();
            let pieces = survey_chunked(name, &bytes, carry, &chunks, false).unwrap();
            prop_assert_eq!(&whole, &pieces);
            carry = whole.carry_out;
        }
    }

    #[test]
    fn what_was_found_so_far_is_what_a_survey_finds_with_zeros_behind_it(
        parts in prop::collection::vec(part(), 1..40),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4), 1..12),
    ) {
        let mut carry = None;
        for (name, bytes) in write(Major::V15, &parts).segments() {
            // Anywhere, and at and about the borders of pages, where the end of what was flushed lies most.
            let mut cuts: Vec<usize> = cuts.iter().map(|(place, how)| match how {
                0 => place.index(bytes.len() + 1),
                1 => place.index(bytes.len() / 8192 + 1) * 8192,
                2 => (place.index(bytes.len() / 8192 + 1) * 8192 + 24).min(bytes.len()),
                _ => bytes.len(),
            }).collect();
            cuts.sort_unstable();
            let mut surveyor = surveyor_of(name, &bytes, carry.clone());
            let mut fed = 0;
            for cut in cuts {
                surveyor.feed(&bytes[fed..cut]);
                fed = cut;
                let mut filled = bytes[..cut].to_vec();
                filled.resize(bytes.len(), 0);
                prop_assert_eq!(surveyor.so_far(), survey(name, &filled, carry.clone()), "{} bytes", cut);
            }
            surveyor.feed(&bytes[fed..]);
            let whole = survey(name, &bytes, carry).unwrap();
            prop_assert_eq!(surveyor.finish().unwrap(), whole.clone());
            carry = whole.carry_out;
        }
    }

    #[test]
    fn any_change_of_a_record_is_damage(
        major in major(),
        parts in prop::collection::vec(part(), 1..30),
        places in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..12),
    ) {
        let writer = write(major, &parts);
        let covered = covered(&writer);
        for (place, mask) in places {
            let mut segments = writer.segments();
            let offset = covered[place.index(covered.len())];
            let segment = size().bytes() as usize;
            segments[offset / segment].1[offset % segment] ^= mask;
            prop_assert!(is_damaged(&segments), "offset {} mask {:02X}", offset, mask);
        }
    }

    #[test]
    fn changes_anywhere_are_no_trouble(
        parts in prop::collection::vec(part(), 1..30),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        partial in any::<bool>(),
    ) {
        for (name, mut bytes) in write(Major::V15, &parts).segments() {
            // Most of the file is filler: aim at headers and lengths too.
            for (number, (place, value)) in changes.iter().enumerate() {
                let offset = if number % 2 == 0 { place.index(bytes.len()) } else { place.index(128) * 8192 + number };
                bytes[offset] = *value;
            }
            let _ = survey_chunked(name, &bytes, None, &[9999], partial);
            exhaust(name, bytes, Start::SegmentStart, partial);
        }
    }

    #[test]
    fn any_start_is_no_trouble(parts in prop::collection::vec(part(), 1..10), offset in 0u64..(1 << 21)) {
        let (name, bytes) = write(Major::V15, &parts).segments().swap_remove(0);
        let lsn = Lsn(FIRST_SEGMENT * size().bytes() + offset);
        exhaust(name, bytes, Start::Record(lsn), false);
    }
}

/// Reads until the reader says that there is no more.
fn exhaust(name: SegmentName, bytes: Vec<u8>, at: Start, open: bool) {
    let mut reader = Reader::new(ReaderStart { size: size(), system_identifier: None, carry: None, at });
    let fed = if open { reader.feed_open(name, bytes) } else { reader.feed(name, bytes) };
    if fed.is_err() {
        return;
    }
    while let Ok(Step::Record(record)) = reader.next() {
        let _ = record.event();
        let _ = record.main_data();
    }
}

/// Offsets in a page header that a change of must be noticed, with the bits that count.
/// Left out: `XLP_BKP_REMOVABLE` and 4 bytes of padding. The first page's timeline may
/// be lower than the name's, so only a change upwards counts there.
#[test]
fn any_change_of_a_page_header_is_damage() {
    let mut writer = Writer::new(Major::V16);
    (0..30).for_each(|i| {
        writer.filler(3000 + i, 1);
    });
    writer.switch();
    let segments = writer.segments();
    for page in [0usize, 1, 2, 5] {
        let header = if page == 0 { 40 } else { 24 };
        for at in (0..header).filter(|at| !(20..24).contains(at)) {
            for bit in (0..8).filter(|bit| (at, *bit) != (2, 2)) {
                let mut changed = segments.clone();
                changed[0].1[page * 8192 + at] ^= 1 << bit;
                assert!(is_damaged(&changed), "page {page} byte {at} bit {bit}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsers_take_any_text(text in "\\PC{0,60}") {
        let _ = (text.parse::<Lsn>(), text.parse::<SegmentName>(), text.parse::<WalFileName>());
        let _ = (text.parse::<Timestamp>(), text.parse::<SystemIdentifier>(), BackupLabel::parse(&text));
    }

    #[test]
    fn parsers_take_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600), block in any::<u32>()) {
        let _ = (ControlFile::parse(&bytes), PageHeader::parse(&bytes), tablespace_map::parse(&bytes));
        let _ = (TimelineHistory::parse(timeline(9), &bytes), verify_page(&bytes, block));
        let _ = survey_chunked("000000010000000000000001".parse().unwrap(), &bytes, None, &[7], false);
    }

    #[test]
    fn a_control_file_with_any_fields_is_no_trouble(
        mut bytes in prop::collection::vec(any::<u8>(), 296), version in prop::sample::select(vec![1300u32, 1700, 1800]),
    ) {
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let crc_at = if version == 1800 { 292 } else { 288 };
        let crc = crc32c::crc32c(&bytes[..crc_at]).to_le_bytes();
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc);
        let _ = ControlFile::parse(&bytes);
        bytes[16..20].copy_from_slice(&6u32.to_le_bytes());
        bytes[228..232].copy_from_slice(&(1u32 << 20).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..crc_at]).to_le_bytes();
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc);
        let control = ControlFile::parse(&bytes).unwrap();
        prop_assert_eq!(control.control_version, version);
    }

    #[test]
    fn names_come_back(timeline in 1u32.., log: u32, seg: u32, offset: u32, lsn: u64, id: u64, micros: i64) {
        let segment = SegmentName { timeline: TimelineId::new(timeline).unwrap(), log, seg };
        for name in [
            WalFileName::Segment(segment),
            WalFileName::Partial(segment),
            WalFileName::History(segment.timeline),
            WalFileName::BackupHistory { segment, offset },
        ] {
            prop_assert_eq!(name.to_string().parse::<WalFileName>().unwrap(), name);
        }
        prop_assert_eq!(Lsn(lsn).to_string().parse::<Lsn>().unwrap(), Lsn(lsn));
        prop_assert_eq!(SystemIdentifier(id).to_string().parse::<SystemIdentifier>().unwrap(), SystemIdentifier(id));
        prop_assert_eq!(Timestamp(micros).rfc3339().parse::<Timestamp>().unwrap(), Timestamp(micros));
    }

    #[test]
    fn segment_arithmetic_goes_both_ways(lsn: u64, power in 20u32..=30) {
        let size = SegmentSize::new(1 << power).unwrap();
        let name = SegmentName::containing(TimelineId::FIRST, Lsn(lsn), size);
        let number = Lsn(lsn).segment_number(size);
        prop_assert_eq!(name.number(size).unwrap(), number);
        prop_assert_eq!(SegmentName::from_number(TimelineId::FIRST, number, size), Some(name));
        prop_assert_eq!(name.start(size).unwrap().0 + Lsn(lsn).offset_in_segment(size), lsn);
        if let Some(next) = name.next(size) {
            prop_assert_eq!(next.previous(size), Some(name));
            prop_assert!(next > name);
        }
    }

    #[test]
    fn tablespace_maps_come_back(map in prop::collection::vec((any::<u32>(), "[^\\x00]{1,30}"), 0..5)) {
        prop_assert_eq!(tablespace_map::parse(&tablespace_map::render(&map)).unwrap(), map);
    }
}
