//! Prints how long the survey of segments takes, with the file already in memory:
//! `cargo run --release -p walpoint-wal --example survey_speed -- <segment>…`.

use std::time::Instant;

use walpoint_wal::{Carry, SegmentName, SurveyOf, Surveyor};

const ROUNDS: u32 = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let bytes = std::fs::read(&path)?;
        let file_name = std::path::Path::new(&path).file_name().and_then(|name| name.to_str());
        let name: SegmentName = file_name.unwrap_or_default().parse()?;
        let mut best = f64::MAX;
        let mut total = 0.0;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            survey(name, &bytes)?;
            let milliseconds = begun.elapsed().as_secs_f64() * 1000.0;
            best = best.min(milliseconds);
            total += milliseconds;
        }
        let begun = Instant::now();
        let crc = crc32c::crc32c(&bytes);
        let crc_alone = begun.elapsed().as_secs_f64() * 1000.0;
        println!(
            "{path}: {} bytes, best {best:.2} ms, mean {:.2} ms; one CRC over the file {crc_alone:.2} ms ({crc:08X})",
            bytes.len(),
            total / f64::from(ROUNDS)
        );
    }
    Ok(())
}

fn survey(name: SegmentName, bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let file_size = bytes.len() as u64;
    let of = SurveyOf { name, partial: false, file_size, expected: None, carry: Carry::Unknown };
    let mut surveyor = Surveyor::new(of);
    bytes.chunks(256 * 1024).for_each(|chunk| surveyor.feed(chunk));
    std::hint::black_box(surveyor.finish()?);
    Ok(())
}
