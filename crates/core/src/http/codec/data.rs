//! JSON `data`, flat or nested in any way, straight into the bytes of a tensor (W14-W18).

use naiad_tensor::DataType;

use super::half::{bf16_bits, f16_bits};
use super::numbers::{Decimal, TOO_BIG, decimal};
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
    match datatype {
        DataType::Bool => sink.array(reader, boolean),
        DataType::Uint8 => sink.array(reader, |r, out| unsigned(r).map(|v| out.push(v as u8))),
        DataType::Uint16 => sink.array(reader, |r, out| unsigned(r).map(|v| put(out, (v as u16).to_le_bytes()))),
        DataType::Uint32 => sink.array(reader, |r, out| unsigned(r).map(|v| put(out, (v as u32).to_le_bytes()))),
        DataType::Uint64 => sink.array(reader, |r, out| unsigned(r).map(|v| put(out, v.to_le_bytes()))),
        DataType::Int8 => sink.array(reader, |r, out| signed(r).map(|v| out.push(v as u8))),
        DataType::Int16 => sink.array(reader, |r, out| signed(r).map(|v| put(out, (v as i16).to_le_bytes()))),
        DataType::Int32 => sink.array(reader, |r, out| signed(r).map(|v| put(out, (v as i32).to_le_bytes()))),
        DataType::Int64 => sink.array(reader, |r, out| signed(r).map(|v| put(out, v.to_le_bytes()))),
        DataType::Fp16 => sink.array(reader, |r, out| double(r).map(|v| put(out, f16_bits(v).to_le_bytes()))),
        DataType::Bf16 => sink.array(reader, |r, out| double(r).map(|v| put(out, bf16_bits(v).to_le_bytes()))),
        DataType::Fp32 => sink.array(reader, |r, out| single(r).map(|v| put(out, v.to_le_bytes()))),
        DataType::Fp64 => sink.array(reader, |r, out| double(r).map(|v| put(out, v.to_le_bytes()))),
        DataType::Bytes => sink.array(reader, string),
    }?;
    Ok((sink.count, sink.out))
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
    /// Walks the arrays; `leaf` reads one element.
    #[inline]
    fn array(
        &mut self,
        reader: &mut Reader<'_>,
        leaf: impl Fn(&mut Reader<'_>, &mut Vec<u8>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        if reader.next_token() != b'[' {
            return Err(wrong("attempt to access JSON non-array as array"));
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
                        return Err(Trouble::text(format!(
                            "JSON nesting depth exceeds maximum allowed limit ({MAX_DEPTH})"
                        )));
                    }
                    reader.at += 1;
                    may_end = true;
                    continue;
                }
                b']' if may_end => reader.at += 1,
                _ => {
                    self.count += 1;
                    if self.count > self.limit {
                        return Err(wrong("Shape does not match true shape of 'data' field"));
                    }
                    leaf(reader, &mut self.out)?;
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
                    _ => return Err(reader.fault("Missing a comma or ']' after an array element.").into()),
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

#[cold]
fn too_big(reader: &Reader<'_>) -> Trouble {
    Fault { message: TOO_BIG, at: reader.at }.into()
}

/// The number here and its text; `None` if something else stands here.
#[inline]
fn number<'a>(reader: &Reader<'a>) -> Option<(Decimal, &'a [u8])> {
    let text = &reader.bytes[reader.at..];
    decimal(text).map(|number| (number, text))
}

#[inline]
fn single(reader: &mut Reader<'_>) -> Result<f32, Trouble> {
    let Some((number, text)) = number(reader) else { return special(reader).map(|value| value as f32) };
    let value = number.to_f32(text).ok_or_else(|| too_big(reader))?;
    reader.at += number.length;
    Ok(value)
}

#[inline]
fn double(reader: &mut Reader<'_>) -> Result<f64, Trouble> {
    let Some((number, text)) = number(reader) else { return special(reader) };
    let value = number.to_f64(text).ok_or_else(|| too_big(reader))?;
    reader.at += number.length;
    Ok(value)
}

/// `NaN`, `Infinity`, `-Infinity`, `Inf` (W17).
#[cold]
fn special(reader: &mut Reader<'_>) -> Result<f64, Trouble> {
    if matches!(reader.peek(), b'N' | b'I' | b'-') {
        let text = reader.number_text()?;
        return match text.trim_start_matches('-') {
            "NaN" => Ok(f64::NAN),
            _ if text.starts_with('-') => Ok(f64::NEG_INFINITY),
            _ => Ok(f64::INFINITY),
        };
    }
    Err(mistyped("number", "double"))
}

#[inline]
fn signed(reader: &mut Reader<'_>) -> Result<i64, Trouble> {
    if let Some((number, text)) = number(reader)
        && let Some(value) = number.to_i64(text)
    {
        reader.at += number.length;
        return Ok(value);
    }
    Err(mistyped("signed-integer", "signed-integer"))
}

#[inline]
fn unsigned(reader: &mut Reader<'_>) -> Result<u64, Trouble> {
    if let Some((number, text)) = number(reader)
        && let Some(value) = number.to_u64(text)
    {
        reader.at += number.length;
        return Ok(value);
    }
    Err(mistyped("unsigned-integer", "unsigned-integer"))
}

fn boolean(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Trouble> {
    let rest = &reader.bytes[reader.at..];
    let (value, length) = if rest.starts_with(b"true") {
        (1, 4)
    } else if rest.starts_with(b"false") {
        (0, 5)
    } else {
        return Err(mistyped("boolean", "boolean"));
    };
    out.push(value);
    reader.at += length;
    Ok(())
}

fn string(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Trouble> {
    if reader.peek() != b'"' {
        return Err(Trouble::text("Unable to parse JSON bytes array: attempt to access JSON non-string as string"));
    }
    let start = out.len();
    put(out, [0; 4]);
    let at = reader.at;
    reader.string_bytes(out)?;
    let content = &out[start + 4..];
    if std::str::from_utf8(content).is_err() {
        return Err(Fault { message: "Invalid encoding in string.", at }.into());
    }
    let length = u32::try_from(content.len()).map_err(|_| wrong("a string is longer than 4294967295 bytes"))?;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
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
