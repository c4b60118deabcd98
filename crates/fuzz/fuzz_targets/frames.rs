//! Any bytes as a frame from a worker.
#![no_main]

use naiad_core::instance::frame;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = frame::decode(bytes);
});
