//! Any bytes as JSON with a binary tail, under any `Inference-Header-Content-Length`.
#![no_main]

use arbitrary::Arbitrary;

#[derive(Arbitrary, Debug)]
enum Length<'a> {
    /// Where the first NUL byte stands, so that seeds can say it.
    AtNul,
    Number(u16),
    Text(&'a [u8]),
}

libfuzzer_sys::fuzz_target!(|input: (Length<'_>, &[u8])| {
    let (length, body) = input;
    let text = match length {
        Length::AtNul => body.iter().position(|byte| *byte == 0).unwrap_or(body.len()).to_string().into_bytes(),
        Length::Number(number) => number.to_string().into_bytes(),
        Length::Text(text) => text.to_vec(),
    };
    naiad_fuzz::round(body, Some(&text));
});
