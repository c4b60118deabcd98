//! Any bytes as the message of an inference call.
#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| naiad_fuzz::round_grpc(message));
