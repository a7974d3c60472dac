//! What a survey says of segments made for the purpose.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod synthetic;

use synthetic::{FIRST_SEGMENT, PAGE, Writer, main_part, size, survey, survey_chunked, timeline};
use walpoint_wal::{
    Carry, CarryOver, Edge, Ending, Event, Lsn, Major, PAGE_SIZE, Reader, ReaderStart, SegmentName, Start,
    Step, SurveyError, SurveyOf, Surveyor, SystemIdentifier, Timestamp,
};

const SECOND: i64 = 1_000_000;

fn only(writer: &Writer) -> (SegmentName, Vec<u8>) {
    let mut segments = writer.segments();
    assert_eq!(segments.len(), 1);
    segments.pop().unwrap()
}

#[test]
fn a_switched_segment_is_sound_and_summed_up() {
    let mut writer = Writer::new(Major::V15);
    let first = writer.commit(100, 10 * SECOND);
    writer.commit(90, 30 * SECOND);
    writer.commit(110, 20 * SECOND);
    let point = writer.restore_point("here", 50 * SECOND);
    let last = writer.switch();
    let (name, bytes) = only(&writer);
    let survey = survey(name, &bytes, None).unwrap();
    assert_eq!(survey.ending, Ending::Switched { at: last });
    assert_eq!(
        (survey.first_record, survey.last_start, survey.last_complete),
        (Some(first), Some(last), Some(last))
    );
    assert_eq!(survey.end.0, survey.start.0 + size().bytes());
    assert_eq!(survey.times, Some((Timestamp(10 * SECOND), Timestamp(30 * SECOND))));
    assert_eq!(
        (survey.first_time, survey.last_time),
        (Some(Timestamp(10 * SECOND)), Some(Timestamp(20 * SECOND)))
    );
    assert_eq!(survey.known_time, Some(Timestamp(50 * SECOND)));
    assert_eq!((survey.commits, survey.aborts, survey.xids), (3, 0, Some((90, 110))));
    assert_eq!(survey.restore_points[0].lsn, point);
    assert_eq!(survey.restore_points[0].name, "here");
    assert_eq!(survey.carry_out.unwrap().last_start(), Some(last));
}

#[test]
fn a_clock_set_back_is_counted_and_jitter_is_not() {
    let mut writer = Writer::new(Major::V16);
    for time in [100, 99, 98, 200, 50, 49, 300, 10].map(|seconds| seconds * SECOND) {
        writer.commit(1, time);
    }
    writer.commit(1, 10 * SECOND - SECOND + 1);
    writer.switch();
    let (name, bytes) = only(&writer);
    // 200 → 50 and 300 → 10; a second exactly is still jitter.
    assert_eq!(survey(name, &bytes, None).unwrap().steps_back, 2);
}

#[test]
fn a_record_that_spans_segments_is_checked_only_with_the_carry_over() {
    let mut writer = Writer::new(Major::V17);
    writer.filler(100, 1);
    let big = writer.filler(3 << 20, 2);
    writer.commit(7, 5);
    writer.switch();
    let segments = writer.segments();
    assert_eq!(segments.len(), 4);
    let mut carry = None;
    for (index, (name, bytes)) in segments.iter().enumerate() {
        let known = survey(*name, bytes, carry.take()).unwrap();
        let unknown = survey(*name, bytes, None).unwrap();
        match index {
            0 => assert_eq!(
                (known.edge, known.last_start, known.ending),
                (Edge::Clean, Some(big), Ending::Full)
            ),
            3 => {
                assert_eq!((known.edge, known.first_prev, known.commits), (Edge::Checked, Some(big), 1));
                assert!(matches!(unknown.edge, Edge::Unchecked { record_rest } if record_rest < 1 << 20));
                assert!(unknown.carry_out.is_some());
            }
            _ => {
                assert_eq!(
                    (known.edge, known.first_record, known.ending),
                    (Edge::Checked, None, Ending::Full)
                );
                assert_eq!((unknown.first_record, unknown.carry_out), (None, None));
            }
        }
        carry = known.carry_out;
    }
}

#[test]
fn the_last_pages_say_what_the_whole_segment_leaves_or_nothing() {
    const PAGE: usize = PAGE_SIZE;
    let mut writer = Writer::new(Major::V16);
    for length in [500_000, 100, 540_000, 300, 90_000, 8_000, 40, 16_300, 400_000, 1 << 20, 60, 1_050_000] {
        writer.filler(length, 1);
        writer.commit(7, 5);
    }
    writer.filler(400_000, 1);
    writer.filler(1 << 20, 1);
    writer.switch();
    let (mut told, mut spanning) = (0, 0);
    for (name, bytes) in writer.segments() {
        let whole = survey(name, &bytes, None).unwrap().carry_out;
        for pages in 0..=bytes.len() / PAGE {
            let tail = &bytes[bytes.len() - pages * PAGE..];
            if let Some(carry) = CarryOver::of_tail(name, &bytes[..PAGE], tail) {
                assert_eq!(Some(&carry), whole.as_ref(), "{name}, {pages} pages");
                told += 1;
                spanning += usize::from(carry.record_rest() > 0);
            }
        }
        assert_eq!(CarryOver::of_tail(name, &bytes[..PAGE], &bytes[1..]), None);
        let mut damaged = bytes.clone();
        damaged[bytes.len() - PAGE] ^= 1;
        assert_eq!(CarryOver::of_tail(name, &bytes[..PAGE], &damaged[bytes.len() - 2 * PAGE..]), None);
    }
    assert!(told > 100 && spanning > 100, "{told}, {spanning}");
}

#[test]
fn damage_in_a_spanning_record_shows_where_it_ends() {
    let mut writer = Writer::new(Major::V15);
    let big = writer.filler(2 << 20, 2);
    writer.switch();
    let mut segments = writer.segments();
    segments[1].1[50_000] ^= 1;
    let mut carry = None;
    for (index, (name, bytes)) in segments.iter().enumerate() {
        let survey = survey(*name, bytes, carry.take()).unwrap();
        if index < 2 {
            assert_eq!(survey.ending, Ending::Full);
        } else {
            let Ending::Damaged { at, .. } = survey.ending else { panic!("{:?}", survey.ending) };
            assert_eq!((at, survey.end), (survey.start, survey.start));
            assert!(big < at);
        }
        carry = survey.carry_out;
    }
}

#[test]
fn a_segment_of_another_history_does_not_continue_this_one() {
    let mut ours = Writer::new(Major::V15);
    ours.filler(1_040_000, 1);
    ours.filler(20_000, 1);
    ours.switch();
    let mut theirs = Writer::new(Major::V15);
    theirs.filler(1_030_000, 1);
    theirs.filler(31_000, 1);
    theirs.switch();
    let (ours, theirs) = (ours.segments(), theirs.segments());
    let carry = survey(ours[0].0, &ours[0].1, None).unwrap().carry_out;
    assert_eq!(survey(ours[1].0, &ours[1].1, carry.clone()).unwrap().edge, Edge::Checked);
    let survey = survey(theirs[1].0, &theirs[1].1, carry).unwrap();
    let Ending::Damaged { at, reason } = survey.ending else { panic!("{:?}", survey.ending) };
    assert_eq!(at, survey.start);
    assert!(reason.contains("does not continue the segment before"), "{reason}");
}

#[test]
fn a_broken_chain_between_segments_is_damage_at_the_first_record() {
    let mut writer = Writer::new(Major::V15);
    writer.commit(1, 1);
    writer.switch();
    let first = writer.commit(2, 2);
    writer.switch();
    let mut other = Writer::new(Major::V15);
    other.commit(1, 1);
    other.commit(1, 1);
    other.switch();
    let carry = survey(writer.segments()[0].0, &other.segments()[0].1, None).unwrap().carry_out;
    let (name, bytes) = &writer.segments()[1];
    let survey = survey(*name, bytes, carry).unwrap();
    let Ending::Damaged { at, reason } = survey.ending else { panic!("{:?}", survey.ending) };
    assert_eq!(at, first);
    assert!(reason.contains("does not continue the segment before"), "{reason}");
}

#[test]
fn an_unfinished_record_can_be_overwritten() {
    let mut writer = Writer::new(Major::V14);
    writer.filler((1 << 20) - 8192, 1);
    let before = writer.commit(1, 1);
    let abandoned = writer.abandon(50_000);
    let by = writer.overwrite_contrecord(abandoned, 9);
    writer.commit(2, 10);
    writer.switch();
    let segments = writer.segments();
    assert_eq!(by.0 % size().bytes(), 40, "it begins a segment");
    let first = survey(segments[0].0, &segments[0].1, None).unwrap();
    assert_eq!(
        (first.last_start, first.last_complete, first.ending),
        (Some(abandoned), Some(before), Ending::Full)
    );
    let second = survey(segments[1].0, &segments[1].1, first.carry_out).unwrap();
    assert_eq!(
        (second.edge, second.overwrites, second.first_prev),
        (Edge::Clean, Some(abandoned), Some(before))
    );
    assert!(matches!(second.ending, Ending::Switched { .. }));
    let records = read(&writer);
    assert!(
        records.iter().any(|record| matches!(record.event(), Ok(Some(Event::OverwriteContrecord { .. }))))
    );
    assert!(records.iter().all(|record| record.lsn != abandoned));
}

#[test]
fn an_overwriting_record_must_name_what_it_overwrites() {
    let mut writer = Writer::new(Major::V14);
    writer.filler((1 << 20) - 8192, 1);
    let abandoned = writer.abandon(50_000);
    writer.overwrite_contrecord(Lsn(abandoned.0 - 8), 9);
    writer.switch();
    let segments = writer.segments();
    let first = survey(segments[0].0, &segments[0].1, None).unwrap();
    let second = survey(segments[1].0, &segments[1].1, first.carry_out).unwrap();
    assert!(matches!(second.ending, Ending::Damaged { .. }), "{:?}", second.ending);
}

fn read(writer: &Writer) -> Vec<walpoint_wal::Record> {
    let start = ReaderStart { size: size(), system_identifier: None, carry: None, at: Start::SegmentStart };
    let mut reader = Reader::new(start);
    let mut segments = writer.segments().into_iter();
    let mut records = Vec::new();
    loop {
        match reader.next().unwrap() {
            Step::Record(record) => records.push(record),
            Step::NeedSegment(_) => match segments.next() {
                Some((name, bytes)) => reader.feed(name, bytes).unwrap(),
                None => return records,
            },
            Step::EndOfWal { .. } => return records,
        }
    }
}

#[test]
fn zeros_after_any_record_are_open_wal_and_after_a_switch_are_not() {
    let mut writer = Writer::new(Major::V15);
    for length in [10, 500, 9000, 20, 20_000, 33] {
        writer.filler(length, 3);
    }
    let (name, bytes) = only(&writer);
    let ends: Vec<(Lsn, Lsn)> = writer.records.clone();
    let base = FIRST_SEGMENT * size().bytes();
    // Cut at every multiple of 8 that is not within a page header.
    let until = ends.last().unwrap().1.0 - base;
    for cut in (40..=until + 8).step_by(8).filter(|cut| cut % PAGE == 0 || cut % PAGE >= 24) {
        let mut bytes = bytes.clone();
        bytes[cut as usize..].fill(0);
        let survey = survey(name, &bytes, None).unwrap();
        let Ending::Open { at } = survey.ending else { panic!("cut at {cut}: {:?}", survey.ending) };
        let complete = ends.iter().rfind(|(_, end)| end.0 <= base + cut).map(|(start, _)| *start);
        assert_eq!(survey.last_complete, complete, "cut at {cut}");
        assert!(at.0 >= survey.end.0 && at.0 <= survey.end.0 + 40, "cut at {cut}: {at} after {}", survey.end);
        assert_eq!(survey.carry_out, None);
    }
}

#[test]
fn in_a_partial_anything_ends_the_wal() {
    let mut writer = Writer::new(Major::V15);
    writer.filler(9000, 3);
    let last = writer.commit(4, 4);
    let (name, bytes) = only(&writer);
    let end = (writer.at() - FIRST_SEGMENT * size().bytes()) as usize;
    for rubbish in [0u8, 1, 0x5A, 0xFF] {
        let mut bytes = bytes.clone();
        bytes[end..].fill(rubbish);
        let partial = survey_chunked(name, &bytes, None, &[5000], true).unwrap();
        assert_eq!(
            (partial.ending, partial.last_complete),
            (Ending::Open { at: Lsn(writer.at()) }, Some(last))
        );
        let whole = survey(name, &bytes, None).unwrap();
        assert_eq!(matches!(whole.ending, Ending::Damaged { .. }), rubbish != 0, "{rubbish}");
    }
}

#[test]
fn bytes_after_a_switch_are_damage() {
    let mut writer = Writer::new(Major::V15);
    writer.commit(4, 4);
    writer.switch();
    let (name, bytes) = only(&writer);
    let end = (writer.records.last().unwrap().1.0 - FIRST_SEGMENT * size().bytes()) as usize;
    for at in [end, 8191, 8192, 500_000, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[at] = 1;
        let survey = survey(name, &bytes, None).unwrap();
        let Ending::Damaged { at: found, .. } = survey.ending else { panic!("{:?}", survey.ending) };
        assert_eq!(found.0 - survey.start.0, at as u64);
    }
}

#[test]
fn the_first_segment_after_a_fork_begins_with_the_parents_pages() {
    let mut writer = Writer::new(Major::V15);
    writer.timeline = 3;
    writer.filler(20_000, 1);
    writer.timeline = 5;
    writer.filler(20_000, 1);
    writer.switch();
    let (name, bytes) = only(&writer);
    assert_eq!(name.timeline, timeline(5));
    let sound = survey(name, &bytes, None).unwrap();
    assert!(matches!(sound.ending, Ending::Switched { .. }));
    assert_eq!(sound.first_page_timeline, timeline(3));
    // Backwards is damage, newer than the name a contradiction.
    let mut backwards = bytes.clone();
    backwards[4 * 8192 + 4] = 2;
    assert!(matches!(survey(name, &backwards, None).unwrap().ending, Ending::Damaged { .. }));
    let older = SegmentName { timeline: timeline(2), ..name };
    let error = survey(older, &bytes, None).unwrap_err();
    assert!(
        matches!(error, SurveyError::NameContradicted { header_timeline, .. } if header_timeline == timeline(3))
    );
}

#[test]
fn a_file_that_is_not_what_it_is_named_is_refused() {
    let mut writer = Writer::new(Major::V15);
    writer.switch();
    let (name, bytes) = only(&writer);
    let of = |name, file_size, expected| SurveyOf {
        name,
        partial: false,
        file_size,
        expected,
        carry: Carry::Unknown,
    };
    let outcome = |of: SurveyOf, bytes: &[u8]| {
        let mut surveyor = Surveyor::new(of);
        surveyor.feed(bytes);
        surveyor.finish()
    };
    let full = bytes.len() as u64;
    let other = SegmentName { seg: name.seg + 1, ..name };
    assert!(matches!(outcome(of(other, full, None), &bytes), Err(SurveyError::NameContradicted { .. })));
    let too_large = SegmentName { seg: 4096, ..name };
    assert!(matches!(outcome(of(too_large, full, None), &bytes), Err(SurveyError::NameContradicted { .. })));
    let wrong = outcome(of(name, full, Some(SystemIdentifier(1))), &bytes);
    assert!(matches!(wrong, Err(SurveyError::WrongCluster { expected: SystemIdentifier(1), .. })));
    assert!(matches!(outcome(of(name, full - 8192, None), &bytes[8192..]), Err(SurveyError::NotWal { .. })));
    let short = outcome(of(name, full - 8192, None), &bytes[..bytes.len() - 8192]);
    assert_eq!(short, Err(SurveyError::WrongSize { expected: full, found: full - 8192 }));
    let cut = outcome(of(name, full, None), &bytes[..100_000]);
    assert_eq!(cut, Err(SurveyError::WrongSize { expected: full, found: 100_000 }));
    assert!(matches!(outcome(of(name, 0, None), &[]), Err(SurveyError::NotWal { .. })));
    let mut newer = bytes.clone();
    newer[0] = 0x20;
    assert_eq!(outcome(of(name, full, None), &newer), Err(SurveyError::UnknownMagic(0xD120)));
    assert!(matches!(outcome(of(name, full, None), &[0; 1 << 20]), Err(SurveyError::NotWal { .. })));
}

#[test]
fn pages_of_another_size_are_told_from_what_is_no_wal() {
    let mut writer = Writer::new(Major::V15);
    writer.switch();
    let (name, sound) = only(&writer);
    let survey = |name, expected, block_size: u32| {
        let mut bytes = sound.clone();
        bytes[36..40].copy_from_slice(&block_size.to_le_bytes());
        let file_size = bytes.len() as u64;
        let of = SurveyOf { name, partial: false, file_size, expected, carry: Carry::Unknown };
        let mut surveyor = Surveyor::new(of);
        surveyor.feed(&bytes);
        surveyor.finish()
    };
    let magic = Major::V15.page_magic();
    for bytes in [1024, 4096, 16384, 65536] {
        assert_eq!(survey(name, None, bytes), Err(SurveyError::UnknownPageSize { bytes, magic }));
    }
    for bytes in [0, 512, 8191, 12288, 131_072] {
        assert!(matches!(survey(name, None, bytes), Err(SurveyError::NotWal { .. })), "{bytes}");
    }
    // Whatever the size of its pages: another cluster's, or another name's, it must not be archived.
    let wrong = survey(name, Some(SystemIdentifier(1)), 16384);
    assert!(matches!(wrong, Err(SurveyError::WrongCluster { .. })));
    let other = SegmentName { seg: name.seg + 1, ..name };
    assert!(matches!(survey(other, None, 16384), Err(SurveyError::NameContradicted { .. })));
}

#[test]
fn prepared_forms_name_the_prepared_transaction_in_every_version() {
    for major in Major::ALL {
        let stats_item: usize = match major {
            Major::V13 | Major::V14 => 0,
            Major::V18 => 16,
            _ => 12,
        };
        // time, flags: database, subtransactions, relations, invalidations, two-phase, gid (and dropped stats).
        let flags: u32 = 0b1001_1111 | if stats_item > 0 { 1 << 8 } else { 0 };
        let mut main = 77i64.to_le_bytes().to_vec();
        main.extend(flags.to_le_bytes());
        main.extend([9; 8]);
        for number in [2u32, 501, 502] {
            main.extend(number.to_le_bytes());
        }
        main.extend(1u32.to_le_bytes());
        main.extend([8; 12]);
        if stats_item > 0 {
            main.extend(2u32.to_le_bytes());
            main.extend(vec![7; 2 * stats_item]);
        }
        main.extend(1u32.to_le_bytes());
        main.extend([6; 16]);
        main.extend(500u32.to_le_bytes());
        main.extend(b"gid\0");
        let mut writer = Writer::new(major);
        writer.record(0, 1, 0x30 | 0x80, &main);
        writer.switch();
        let event = read(&writer)[0].event().unwrap().unwrap();
        let expected =
            Event::Commit { xid: 500, time: Timestamp(77), subxids: vec![501, 502], prepared: true };
        assert_eq!(event, expected, "{major:?}");
    }
}

#[test]
fn main_data_is_found_behind_blocks_of_every_version() {
    for major in Major::ALL {
        let compressed = if major >= Major::V15 { 0x04 } else { 0x02 };
        let mut body = vec![0, 0x10, 3, 0, 5, 0, 0, 0, 0x01 | compressed, 9, 9];
        body.extend([1; 12 + 4]);
        body.extend([1, 0x80, 0, 0, 4, 4, 4, 4]);
        body.extend([253, 1, 0]);
        let mut main = main_part(&5i64.to_le_bytes());
        let data = main.split_off(2);
        body.extend(main);
        body.extend([0xAA; 3 + 5]);
        body.extend(data);
        let mut writer = Writer::new(major);
        writer.raw(41, 1, 0, &body);
        writer.switch();
        let ended = read(&writer)[0].event().unwrap().unwrap().ends_transaction();
        assert_eq!(ended, Some((41, Timestamp(5), true)), "{major:?}");
    }
}

#[test]
fn a_record_whose_parts_do_not_add_up_is_damage() {
    let mut writer = Writer::new(Major::V15);
    let at = writer.raw(1, 1, 0, &[255, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    writer.switch();
    let (name, bytes) = only(&writer);
    let survey = survey(name, &bytes, None).unwrap();
    assert!(matches!(survey.ending, Ending::Damaged { at: found, .. } if found == at), "{:?}", survey.ending);
}

#[test]
fn reading_starts_at_a_record_and_only_at_one() {
    let mut writer = Writer::new(Major::V15);
    writer.filler(5000, 1);
    let spanning = writer.filler(9000, 2);
    let wanted = writer.commit(1, 1);
    writer.commit(2, 2);
    let (name, bytes) = only(&writer);
    let from = |lsn| {
        let start =
            ReaderStart { size: size(), system_identifier: None, carry: None, at: Start::Record(lsn) };
        let mut reader = Reader::new(start);
        assert_eq!(reader.next().unwrap(), Step::NeedSegment(FIRST_SEGMENT));
        reader.feed(name, bytes.clone()).unwrap();
        reader.next()
    };
    assert!(matches!(from(wanted).unwrap(), Step::Record(record) if record.lsn == wanted));
    assert!(matches!(from(spanning).unwrap(), Step::Record(record) if record.lsn == spanning));
    assert!(from(Lsn(wanted.0 - 8)).is_err());
    assert!(from(Lsn(wanted.0 + 4)).is_err());
    let page = Lsn(spanning.0 / PAGE * PAGE + PAGE);
    assert!(from(page).is_err(), "the page begins with the rest of a record");
}

#[test]
fn a_live_tail_is_read_to_its_last_record() {
    let mut writer = Writer::new(Major::V15);
    writer.filler(5000, 1);
    let last = writer.commit(2, 2);
    let (name, bytes) = only(&writer);
    let length = (writer.at() - FIRST_SEGMENT * size().bytes()) as usize;
    let start = ReaderStart { size: size(), system_identifier: None, carry: None, at: Start::SegmentStart };
    let mut reader = Reader::new(start.clone());
    reader.feed_open(name, bytes[..length].to_vec()).unwrap();
    let mut lsns = Vec::new();
    let at = loop {
        match reader.next().unwrap() {
            Step::Record(record) => lsns.push(record.lsn),
            Step::EndOfWal { at } => break at,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((lsns.last(), at), (Some(&last), Lsn(writer.at())));
    assert_eq!(reader.next().unwrap(), Step::EndOfWal { at });
    // As a whole segment it is too short.
    assert!(Reader::new(start).feed(name, bytes[..length].to_vec()).is_err());
}

#[test]
fn the_reader_refuses_a_segment_that_is_not_next() {
    let mut writer = Writer::new(Major::V15);
    writer.switch();
    writer.switch();
    writer.switch();
    let segments = writer.segments();
    let start = ReaderStart { size: size(), system_identifier: None, carry: None, at: Start::SegmentStart };
    let mut reader = Reader::new(start);
    reader.feed(segments[0].0, segments[0].1.clone()).unwrap();
    while !matches!(reader.next().unwrap(), Step::NeedSegment(_)) {}
    assert_eq!(reader.next().unwrap(), Step::NeedSegment(FIRST_SEGMENT + 1));
    assert!(reader.feed(segments[2].0, segments[2].1.clone()).is_err());
    reader.feed(segments[1].0, segments[1].1.clone()).unwrap();
    assert!(matches!(reader.next().unwrap(), Step::Record(_)));
}
