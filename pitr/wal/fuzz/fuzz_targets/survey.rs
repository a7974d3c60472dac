#![no_main]

mod made_sound;

use libfuzzer_sys::fuzz_target;
use walpoint_wal::{Carry, Survey, SurveyError, SurveyOf, Surveyor};

fn survey(of: &SurveyOf, bytes: &[u8], chunk: usize) -> Result<Survey, SurveyError> {
    let mut surveyor = Surveyor::new(of.clone());
    bytes.chunks(chunk).for_each(|chunk| surveyor.feed(chunk));
    surveyor.finish()
}

// Any segment is surveyed without a panic, and the same in pieces as in one.
fuzz_target!(|data: &[u8]| {
    let Some((name, bytes)) = made_sound::segment(data) else { return };
    let file_size = bytes.len() as u64;
    let of = SurveyOf { name, partial: data[0] & 16 != 0, file_size, expected: None, carry: Carry::Unknown };
    let whole = survey(&of, &bytes, bytes.len());
    assert_eq!(whole, survey(&of, &bytes, 5003));
    if let Ok(Survey { carry_out: Some(carry), .. }) = whole {
        let Some(name) = of.name.next(carry_size()) else { return };
        let _ = survey(&SurveyOf { name, carry: Carry::Known(carry), ..of }, &bytes, 8192);
    }
});

fn carry_size() -> walpoint_wal::SegmentSize {
    walpoint_wal::SegmentSize::new(1 << 20).expect("a power of two")
}
