#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| walpoint_wal::fuzzing::backup_label(data));
