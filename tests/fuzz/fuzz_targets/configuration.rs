#![no_main]
#![allow(dead_code, reason = "of the program's source, only what reads its configuration is used")]

include!("../../../agent/src/fuzzing.rs");

libfuzzer_sys::fuzz_target!(|data: &[u8]| config::fuzzing::configuration(data));
