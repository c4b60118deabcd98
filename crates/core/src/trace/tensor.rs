//! Tensors in trace files: Triton's comma-separated text in a JSON string.

use std::fmt::Display;
use std::io::{self, Write};

use naiad_tensor::DataType;

use super::record::Tensor;
use crate::http::codec::half::{bf16_value, f16_value};

/// `{"name","data","shape","dtype"}`. Numbers read back to the same bits; strings stand in quotes, escaped as in JSON.
pub fn write(out: &mut impl Write, tensor: &Tensor) -> io::Result<()> {
    write!(out, r#"{{"name":{},"data":""#, serde_json::to_string(&tensor.name)?)?;
    data(out, tensor.datatype, &tensor.data)?;
    let shape: Vec<_> = tensor.shape.iter().map(i64::to_string).collect();
    write!(out, r#"","shape":"{}","dtype":"{}"}}"#, shape.join(","), tensor.datatype.name())
}

fn data(out: &mut impl Write, datatype: DataType, bytes: &[u8]) -> io::Result<()> {
    match datatype {
        DataType::Bool | DataType::Uint8 => list(out, bytes, |[byte]: [u8; 1]| byte),
        DataType::Int8 => list(out, bytes, i8::from_le_bytes),
        DataType::Uint16 => list(out, bytes, u16::from_le_bytes),
        DataType::Int16 => list(out, bytes, i16::from_le_bytes),
        DataType::Uint32 => list(out, bytes, u32::from_le_bytes),
        DataType::Int32 => list(out, bytes, i32::from_le_bytes),
        DataType::Uint64 => list(out, bytes, u64::from_le_bytes),
        DataType::Int64 => list(out, bytes, i64::from_le_bytes),
        DataType::Fp16 => list(out, bytes, |bits| f16_value(u16::from_le_bytes(bits))),
        DataType::Bf16 => list(out, bytes, |bits| bf16_value(u16::from_le_bytes(bits))),
        DataType::Fp32 => list(out, bytes, f32::from_le_bytes),
        DataType::Fp64 => list(out, bytes, f64::from_le_bytes),
        DataType::Bytes => strings(out, bytes),
    }
}

fn list<const N: usize, T: Display>(out: &mut impl Write, bytes: &[u8], read: fn([u8; N]) -> T) -> io::Result<()> {
    for (position, element) in bytes.as_chunks::<N>().0.iter().enumerate() {
        if position > 0 {
            out.write_all(b",")?;
        }
        write!(out, "{}", read(*element))?;
    }
    Ok(())
}

/// Elements carry their length (W29).
fn strings(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    let mut first = true;
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let Some((text, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { return Ok(()) };
        if !std::mem::take(&mut first) {
            out.write_all(b",")?;
        }
        let quoted = serde_json::to_string(&String::from_utf8_lossy(text))?;
        let escaped = serde_json::to_string(&quoted)?;
        out.write_all(&escaped.as_bytes()[1..escaped.len() - 1])?;
        bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn written(datatype: DataType, bytes: &[u8]) -> Value {
        let (name, data) = ("a\"b".to_owned(), Bytes::copy_from_slice(bytes));
        let mut out = Vec::new();
        write(&mut out, &Tensor { activity: "", name, datatype, shape: vec![1, 2], data }).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn tensors_are_written_as_text() {
        let tensor = written(DataType::Uint8, &[65, 66]);
        assert_eq!(tensor, json!({"name": "a\"b", "data": "65,66", "shape": "1,2", "dtype": "UINT8"}));
        let data = |datatype, bytes: &[u8]| written(datatype, bytes)["data"].as_str().unwrap().to_owned();
        assert_eq!(data(DataType::Bool, &[1, 0]), "1,0");
        assert_eq!(data(DataType::Fp16, &[0x00, 0x3c, 0x00, 0xfc]), "1,-inf");
        assert_eq!(data(DataType::Bf16, &[0x80, 0x3f]), "1");
        assert_eq!(data(DataType::Fp32, &0.1f32.to_le_bytes()), "0.1");
        assert_eq!(data(DataType::Int64, &i64::MIN.to_le_bytes()), "-9223372036854775808");
        assert_eq!(data(DataType::Fp64, &[]), "");
        let text = data(DataType::Bytes, b"\x03\0\0\0a\"b\0\0\0\0\x01\0\0\0\xff");
        let back: Vec<String> = serde_json::from_str(&format!("[{text}]")).unwrap();
        assert_eq!(back, ["a\"b", "", "\u{fffd}"]);
    }
}
