//! Any bytes as the JSON body of an inference request.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| naiad_fuzz::round(body, None));
