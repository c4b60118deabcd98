//! JSON `data`, flat or nested in any way, straight into the bytes of a tensor (W14-W18).

use naiad_tensor::DataType;

use super::half::{bf16_bits, f16_bits};
use super::numbers::{TOO_BIG, decimal};
use super::reader::Reader;
use super::{Fault, Trouble};

/// Arrays in arrays that `data` may have (W13, B2).
const MAX_DEPTH: usize = 100;

/// Reads `data` into little-endian bytes; the number of elements and the bytes.
///
/// # Errors
/// It is no array of this datatype, is nested too deep, or has more elements than `limit`.
pub(super) fn read(reader: &mut Reader<'_>, datatype: DataType, limit: u64) -> Result<(u64, Vec<u8>), Trouble> {
    // An element takes at least two bytes of text, so the text bounds what is set aside.
    let likely = limit.min((reader.bytes.len() - reader.at) as u64 / 2 + 1) as usize;
    let out = Vec::with_capacity(likely * datatype.size().unwrap_or(8));
    let mut sink = Sink { out, count: 0, limit };
    let done = match datatype {
        DataType::Bool => sink.array(reader, boolean),
        DataType::Uint8 => sink.array(reader, |text, out| unsigned(text, |v| out.push(v as u8))),
        DataType::Uint16 => sink.array(reader, |text, out| unsigned(text, |v| put(out, (v as u16).to_le_bytes()))),
        DataType::Uint32 => sink.array(reader, |text, out| unsigned(text, |v| put(out, (v as u32).to_le_bytes()))),
        DataType::Uint64 => sink.array(reader, |text, out| unsigned(text, |v| put(out, v.to_le_bytes()))),
        DataType::Int8 => sink.array(reader, |text, out| signed(text, |v| out.push(v as u8))),
        DataType::Int16 => sink.array(reader, |text, out| signed(text, |v| put(out, (v as i16).to_le_bytes()))),
        DataType::Int32 => sink.array(reader, |text, out| signed(text, |v| put(out, (v as i32).to_le_bytes()))),
        DataType::Int64 => sink.array(reader, |text, out| signed(text, |v| put(out, v.to_le_bytes()))),
        DataType::Fp16 => sink.array(reader, |text, out| double(text, |v| put(out, f16_bits(v).to_le_bytes()))),
        DataType::Bf16 => sink.array(reader, |text, out| double(text, |v| put(out, bf16_bits(v).to_le_bytes()))),
        DataType::Fp32 => sink.array(reader, single),
        DataType::Fp64 => sink.array(reader, |text, out| double(text, |v| put(out, v.to_le_bytes()))),
        DataType::Bytes => sink.array(reader, string),
    };
    done.map_err(|stop| why(stop, reader, datatype))?;
    Ok((sink.count, sink.out))
}

/// Why the walk stopped. The loop carries no more than this, so that it stays in registers; `why` makes the text.
#[derive(Clone, Copy)]
enum Stop {
    NoArray,
    TooDeep,
    TooMany,
    NoComma,
    Element,
}

#[cold]
fn why(stop: Stop, reader: &mut Reader<'_>, datatype: DataType) -> Trouble {
    match stop {
        Stop::NoArray => wrong("attempt to access JSON non-array as array"),
        Stop::TooDeep => Trouble::text(format!("JSON nesting depth exceeds maximum allowed limit ({MAX_DEPTH})")),
        Stop::TooMany => wrong("Shape does not match true shape of 'data' field"),
        Stop::NoComma => reader.fault("Missing a comma or ']' after an array element.").into(),
        Stop::Element => element_fault(reader, datatype),
    }
}

/// What is wrong with the element here: no JSON, out of range or of another type.
fn element_fault(reader: &mut Reader<'_>, datatype: DataType) -> Trouble {
    let at = reader.at;
    let is_string = reader.peek() == b'"';
    if let Err(fault) = reader.skip() {
        return fault.into();
    }
    match datatype {
        DataType::Bytes if is_string => wrong("a string is longer than 4294967295 bytes"),
        DataType::Bytes => {
            Trouble::text("Unable to parse JSON bytes array: attempt to access JSON non-string as string")
        }
        DataType::Bool => mistyped("boolean", "boolean"),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64 => {
            mistyped("unsigned-integer", "unsigned-integer")
        }
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            mistyped("signed-integer", "signed-integer")
        }
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
            // A number that is well-formed and still was not taken is too big.
            match decimal(&reader.bytes[at..]) {
                Some(_) => Fault { message: TOO_BIG, at }.into(),
                None => mistyped("number", "double"),
            }
        }
    }
}

#[inline]
fn put<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    out.extend_from_slice(&bytes);
}

struct Sink {
    out: Vec<u8>,
    count: u64,
    limit: u64,
}

impl Sink {
    /// Walks the arrays; `leaf` reads one element from the start of a text and gives its length, 0 = it cannot.
    #[inline]
    fn array(&mut self, reader: &mut Reader<'_>, leaf: impl Fn(&[u8], &mut Vec<u8>) -> usize) -> Result<(), Stop> {
        if reader.next_token() != b'[' {
            return Err(Stop::NoArray);
        }
        reader.at += 1;
        let mut depth = 1;
        // After `[` the array may end at once; after a comma a value must follow.
        let mut may_end = true;
        loop {
            match reader.next_token() {
                b'[' => {
                    depth += 1;
                    if depth >= MAX_DEPTH {
                        return Err(Stop::TooDeep);
                    }
                    reader.at += 1;
                    may_end = true;
                    continue;
                }
                b']' if may_end => reader.at += 1,
                _ => {
                    self.count += 1;
                    if self.count > self.limit {
                        return Err(Stop::TooMany);
                    }
                    let length = leaf(reader.bytes.get(reader.at..).unwrap_or_default(), &mut self.out);
                    if length == 0 {
                        return Err(Stop::Element);
                    }
                    reader.at += length;
                    // Elements mostly follow one another with a bare comma.
                    if reader.peek() == b',' {
                        reader.at += 1;
                        may_end = false;
                        continue;
                    }
                    depth += 1;
                }
            }
            depth -= 1;
            loop {
                if depth == 0 {
                    return Ok(());
                }
                match reader.next_token() {
                    b',' => {
                        reader.at += 1;
                        may_end = false;
                        break;
                    }
                    b']' => {
                        reader.at += 1;
                        depth -= 1;
                    }
                    _ => return Err(Stop::NoComma),
                }
            }
        }
    }
}

fn wrong(text: &str) -> Trouble {
    Trouble::text(format!("Unable to parse 'data': {text}"))
}

/// A value of another kind; the caller looks whether it is a value at all.
#[cold]
fn mistyped(expected: &str, accessed: &str) -> Trouble {
    wrong(&format!("attempt to access JSON non-{expected} as {accessed}"))
}

#[inline]
fn single(text: &[u8], out: &mut Vec<u8>) -> usize {
    let Some(number) = decimal(text) else { return special(text, |value| put(out, (value as f32).to_le_bytes())) };
    let Some(value) = number.to_f32(text) else { return 0 };
    put(out, value.to_le_bytes());
    number.length
}

#[inline]
fn double(text: &[u8], put: impl FnOnce(f64)) -> usize {
    let Some(number) = decimal(text) else { return special(text, put) };
    let Some(value) = number.to_f64(text) else { return 0 };
    put(value);
    number.length
}

/// `NaN`, `Infinity`, `-Infinity`, `Inf` (W17).
#[cold]
fn special(text: &[u8], put: impl FnOnce(f64)) -> usize {
    let sign = usize::from(text.first() == Some(&b'-'));
    let value = if sign == 1 { -1.0 } else { 1.0 };
    for (word, value) in [("NaN", f64::NAN), ("Infinity", value * f64::INFINITY), ("Inf", value * f64::INFINITY)] {
        if text[sign..].starts_with(word.as_bytes()) {
            put(value);
            return sign + word.len();
        }
    }
    0
}

#[inline]
fn signed(text: &[u8], put: impl FnOnce(i64)) -> usize {
    let Some(number) = decimal(text) else { return 0 };
    let Some(value) = number.to_i64(text) else { return 0 };
    put(value);
    number.length
}

#[inline]
fn unsigned(text: &[u8], put: impl FnOnce(u64)) -> usize {
    let Some(number) = decimal(text) else { return 0 };
    let Some(value) = number.to_u64(text) else { return 0 };
    put(value);
    number.length
}

fn boolean(text: &[u8], out: &mut Vec<u8>) -> usize {
    let (value, length) = if text.starts_with(b"true") {
        (1, 4)
    } else if text.starts_with(b"false") {
        (0, 5)
    } else {
        return 0;
    };
    out.push(value);
    length
}

fn string(text: &[u8], out: &mut Vec<u8>) -> usize {
    if text.first() != Some(&b'"') {
        return 0;
    }
    let start = out.len();
    put(out, [0; 4]);
    let mut reader = Reader::new(text);
    if reader.string_bytes(out).is_err() {
        return 0;
    }
    let content = &out[start + 4..];
    let Ok(length) = u32::try_from(content.len()) else { return 0 };
    if std::str::from_utf8(content).is_err() {
        return 0;
    }
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    reader.at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::InferError;

    fn parse(datatype: DataType, text: &str) -> Result<(u64, Vec<u8>), String> {
        read(&mut Reader::new(text.as_bytes()), datatype, u64::MAX)
            .map_err(|trouble| InferError::from(trouble).to_string())
    }

    fn floats(text: &str) -> Vec<f32> {
        let (_, bytes) = parse(DataType::Fp32, text).unwrap();
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn w14_any_nesting_counts_leaves() {
        assert_eq!(floats("[[1,2.5],[[-3e2]],[],4]"), [1.0, 2.5, -300.0, 4.0]);
        assert_eq!(floats(" [ 1 , [ 2 ] ] "), [1.0, 2.0]);
        assert_eq!(floats("[]"), [0.0; 0]);
        for bad in ["[1,]", "[1 2]", "[1", "[[1]", "[,1]", "{}", "1", "[1,[2,]]", "["] {
            assert!(parse(DataType::Fp32, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn w13_depth_is_bounded() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(floats(&nested(99)), [1.0]);
        for depth in [100, 1_000_000] {
            let text = parse(DataType::Fp32, &nested(depth)).unwrap_err();
            assert_eq!(text, "JSON nesting depth exceeds maximum allowed limit (100)");
        }
    }

    #[test]
    fn w16_narrow_integers_are_truncated_and_wide_ones_kept() {
        assert_eq!(parse(DataType::Int8, "[200,-1]").unwrap().1, [200, 255]);
        assert_eq!(parse(DataType::Uint64, "[18446744073709551615]").unwrap().1, [255; 8]);
        assert_eq!(parse(DataType::Int64, "[-9223372036854775808]").unwrap().1, i64::MIN.to_le_bytes());
    }

    #[test]
    fn w15_w17_types_are_strict_but_for_floats() {
        assert_eq!(
            parse(DataType::Int32, "[1.0]").unwrap_err(),
            "Unable to parse 'data': attempt to access JSON non-signed-integer as signed-integer"
        );
        assert_eq!(
            parse(DataType::Bool, "[1]").unwrap_err(),
            "Unable to parse 'data': attempt to access JSON non-boolean as boolean"
        );
        assert!(parse(DataType::Uint8, "[-1]").is_err());
        assert!(parse(DataType::Bytes, "[5]").is_err());
        assert!(parse(DataType::Fp32, "[\"1\"]").is_err());
        let special = floats("[NaN,Infinity,-Infinity,Inf,1]");
        assert!(special[0].is_nan());
        assert_eq!(special[1..], [f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY, 1.0]);
        assert_eq!(
            parse(DataType::Fp32, "[1,1e309]").unwrap_err(),
            "failed to parse the request JSON buffer: Number too big to be stored in double. at 3"
        );
    }

    #[test]
    fn strings_carry_their_length() {
        let (count, bytes) = parse(DataType::Bytes, r#"["a\u00e9",""]"#).unwrap();
        assert_eq!((count, bytes), (2, b"\x03\0\0\0a\xc3\xa9\0\0\0\0".to_vec()));
    }
}
