#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::error_stats(bytes));
