#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walpoint_archive::fuzzing::metadata(data));
