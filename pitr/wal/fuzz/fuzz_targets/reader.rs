#![no_main]

mod made_sound;

use libfuzzer_sys::fuzz_target;
use walpoint_wal::{Lsn, Reader, ReaderStart, SegmentSize, Start, Step};

// Any segment is read without a panic, from its start and from any place in it.
fuzz_target!(|data: &[u8]| {
    let Some((name, bytes)) = made_sound::segment(data) else { return };
    let size = SegmentSize::new(1 << 20).expect("a power of two");
    let at = match data {
        [choice, low, high, ..] if choice & 32 != 0 => {
            Start::Record(Lsn((1 << 20) + u64::from(u16::from_le_bytes([*low, *high])) * 8))
        }
        _ => Start::SegmentStart,
    };
    let start = ReaderStart { size, system_identifier: None, carry: None, at };
    let mut reader = Reader::new(start).keeping_all_bodies();
    let open = data[0] & 16 != 0;
    let fed = if open { reader.feed_open(name, bytes) } else { reader.feed(name, bytes) };
    if fed.is_err() {
        return;
    }
    while let Ok(Step::Record(record)) = reader.next() {
        let _ = record.event();
        let _ = record.main_data();
    }
});
