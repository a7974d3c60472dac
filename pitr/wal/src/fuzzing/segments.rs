//! Segments.

use super::made_sound;
use crate::{
    Carry, Lsn, Reader, ReaderStart, SegmentSize, Start, Step, Survey, SurveyError, SurveyOf, Surveyor,
};

/// Any segment is read without a panic, from its start and from any place in it.
pub fn reader(data: &[u8]) {
    let Some((name, bytes)) = made_sound::segment(data) else { return };
    let Ok(size) = SegmentSize::new(made_sound::SEGMENT as u64) else { return };
    let at = match data {
        [choice, low, high, ..] if choice & 32 != 0 => {
            let offset = u64::from(u16::from_le_bytes([*low, *high])) * 8;
            Start::Record(Lsn(made_sound::SEGMENT as u64 + offset))
        }
        _ => Start::SegmentStart,
    };
    let start = ReaderStart { size, system_identifier: None, carry: None, at };
    let mut reader = Reader::new(start).keeping_all_bodies();
    let open = data.first().is_some_and(|choice| choice & 16 != 0);
    let fed = if open { reader.feed_open(name, bytes) } else { reader.feed(name, bytes) };
    if fed.is_err() {
        return;
    }
    while let Ok(Step::Record(record)) = reader.next() {
        let _ = record.event();
        let _ = record.main_data();
    }
}

/// Any segment is surveyed without a panic, and the same in pieces as in one.
pub fn survey(data: &[u8]) {
    let Some((name, bytes)) = made_sound::segment(data) else { return };
    let Ok(size) = SegmentSize::new(made_sound::SEGMENT as u64) else { return };
    let partial = data.first().is_some_and(|choice| choice & 16 != 0);
    let file_size = bytes.len() as u64;
    let of = SurveyOf { name, partial, file_size, expected: None, carry: Carry::Unknown };
    let whole = survey_in_pieces(&of, &bytes, bytes.len());
    assert_eq!(whole, survey_in_pieces(&of, &bytes, 5003));
    if let Ok(Survey { carry_out: Some(carry), .. }) = whole {
        let Some(name) = of.name.next(size) else { return };
        let _ = survey_in_pieces(&SurveyOf { name, carry: Carry::Known(carry), ..of }, &bytes, 8192);
    }
}

fn survey_in_pieces(of: &SurveyOf, bytes: &[u8], piece: usize) -> Result<Survey, SurveyError> {
    let mut surveyor = Surveyor::new(of.clone());
    bytes.chunks(piece).for_each(|piece| surveyor.feed(piece));
    surveyor.finish()
}
