//! A response into a body: JSON in the shortest form, binary tensors behind it (W24-W26, W32-W34).

use std::borrow::Cow;
use std::io::Write;

use bytes::Bytes;
use naiad_tensor::DataType;

use super::decode::{OutputForm, ResponseForm};
use super::half::{bf16_bits, bf16_value, f16_bits, f16_value, shortest};
use crate::classify::classify;
use crate::error::InferError;
use crate::request::{InferResponse, OutputTensor, Parameter, Parameters};

/// Binary tensors of so many bytes together are copied behind the JSON, which costs less than chunks of their own.
const SMALL: usize = 4096;

/// Outputs of so many bytes may be memory that a worker shares.
const LENT: usize = 64 << 10;

/// A body, ready to be sent.
#[derive(Debug)]
pub struct Encoded {
    /// Length of the JSON part if binary bytes follow (W33).
    pub json_length: Option<usize>,
    /// JSON, then the binary tensors in the order of `outputs` (W34).
    pub body: Vec<Bytes>,
}

/// Encodes `response` under the name that the client knows.
///
/// # Errors
/// A classification that the output does not allow.
pub fn encode(response: &InferResponse, shown_model: &str, form: &ResponseForm) -> Result<Encoded, InferError> {
    let wanted = |output: &OutputTensor| form.outputs.iter().find(|form| *form.name == *output.name);
    let is_binary =
        |wanted: Option<&OutputForm>| wanted.map_or(form.outputs.is_empty() && form.binary, |form| form.binary);
    let room = response.outputs.iter().map(|output| 160 + output.name.len() + room(output, is_binary(wanted(output))));
    let mut json = Vec::with_capacity(256 + response.id.len() + shown_model.len() + room.sum::<usize>());
    json.push(b'{');
    if !response.id.is_empty() {
        key(&mut json, "id");
        string(&mut json, &response.id);
        json.push(b',');
    }
    key(&mut json, "model_name");
    string(&mut json, shown_model);
    json.extend_from_slice(b",\"model_version\":\"");
    integer(&mut json, response.version);
    json.extend_from_slice(b"\",");
    if !response.parameters.is_empty() {
        key(&mut json, "parameters");
        parameters(&mut json, &response.parameters);
        json.push(b',');
    }
    json.extend_from_slice(b"\"outputs\":[");
    let mut blobs = Vec::new();
    for (position, output) in response.outputs.iter().enumerate() {
        let form_of = wanted(output);
        let output = match form_of.and_then(|form_of| form_of.classification.as_ref()) {
            Some(classes) => Cow::Owned(classify(output, classes, form.batched)?),
            None => Cow::Borrowed(output),
        };
        if position > 0 {
            json.push(b',');
        }
        head(&mut json, &output);
        if form_of.is_some_and(|form_of| form_of.shared) {
            json.push(b'}');
        } else if is_binary(form_of) {
            json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            integer(&mut json, output.data.len() as u64);
            json.extend_from_slice(b"}}");
            blobs.push(output.data.clone());
        } else {
            json.extend_from_slice(b",\"data\":[");
            data(&mut json, &output);
            json.extend_from_slice(b"]}");
        }
    }
    json.extend_from_slice(b"]}");
    // W33: a response without one binary byte is plain JSON.
    let binary: usize = blobs.iter().map(Bytes::len).sum();
    let json_length = (binary > 0).then_some(json.len());
    if binary <= SMALL {
        blobs.drain(..).for_each(|blob| json.extend_from_slice(&blob));
    }
    let mut body = vec![Bytes::from(json)];
    body.append(&mut blobs);
    Ok(Encoded { json_length, body })
}

/// Bytes to set aside for the data of an output: what its elements mostly take, so that the buffer seldom grows.
fn room(output: &OutputTensor, binary: bool) -> usize {
    let bytes = output.data.len();
    if binary {
        return if bytes <= SMALL { bytes } else { 0 };
    }
    match output.datatype {
        DataType::Bool => bytes * 6,
        DataType::Uint8 | DataType::Int8 => bytes * 5,
        DataType::Bytes => bytes + bytes / 2,
        DataType::Uint16
        | DataType::Uint32
        | DataType::Uint64
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Fp16
        | DataType::Bf16
        | DataType::Fp32
        | DataType::Fp64 => bytes * 4,
    }
}

fn key(json: &mut Vec<u8>, name: &str) {
    json.push(b'"');
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
}

fn head(json: &mut Vec<u8>, output: &OutputTensor) {
    json.extend_from_slice(b"{\"name\":");
    string(json, &output.name);
    json.extend_from_slice(b",\"datatype\":\"");
    json.extend_from_slice(output.datatype.name().as_bytes());
    json.extend_from_slice(b"\",\"shape\":[");
    for (position, dim) in output.shape.iter().enumerate() {
        if position > 0 {
            json.push(b',');
        }
        signed(json, *dim);
    }
    json.push(b']');
}

fn parameters(json: &mut Vec<u8>, parameters: &Parameters) {
    json.push(b'{');
    for (position, (name, value)) in parameters.iter().enumerate() {
        if position > 0 {
            json.push(b',');
        }
        string(json, name);
        json.push(b':');
        self::value(json, value);
    }
    json.push(b'}');
}

/// The value of a parameter.
pub(super) fn value(json: &mut Vec<u8>, value: &Parameter) {
    match value {
        Parameter::Bool(value) => json.extend_from_slice(if *value { b"true" } else { b"false" }),
        Parameter::Int(value) => signed(json, *value),
        Parameter::Uint(value) => integer(json, *value),
        Parameter::Double(value) => double(json, *value),
        Parameter::String(value) => string(json, value),
    }
}

/// The elements of a tensor, flat (W24).
pub(super) fn data(json: &mut Vec<u8>, output: &OutputTensor) {
    // A large output may be lent from the arena, where its worker could still write: what is printed is a copy of ours.
    let copy = (output.data.len() >= LENT).then(|| output.data.to_vec());
    let bytes = copy.as_deref().unwrap_or(&output.data);
    match output.datatype {
        DataType::Bool => each(json, bytes, |json, [byte]: [u8; 1]| {
            json.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
        }),
        DataType::Uint8 => each(json, bytes, |json, [byte]: [u8; 1]| integer(json, byte.into())),
        DataType::Uint16 => each(json, bytes, |json, bytes| integer(json, u16::from_le_bytes(bytes).into())),
        DataType::Uint32 => each(json, bytes, |json, bytes| integer(json, u32::from_le_bytes(bytes).into())),
        DataType::Uint64 => each(json, bytes, |json, bytes| integer(json, u64::from_le_bytes(bytes))),
        DataType::Int8 => each(json, bytes, |json, bytes| signed(json, i8::from_le_bytes(bytes).into())),
        DataType::Int16 => each(json, bytes, |json, bytes| signed(json, i16::from_le_bytes(bytes).into())),
        DataType::Int32 => each(json, bytes, |json, bytes| signed(json, i32::from_le_bytes(bytes).into())),
        DataType::Int64 => each(json, bytes, |json, bytes| signed(json, i64::from_le_bytes(bytes))),
        DataType::Fp32 => each(json, bytes, |json, bytes| single(json, f32::from_le_bytes(bytes))),
        DataType::Fp64 => each(json, bytes, |json, bytes| double(json, f64::from_le_bytes(bytes))),
        DataType::Fp16 => each(json, bytes, |json, bytes| {
            let bits = u16::from_le_bytes(bytes);
            narrow(json, f16_value(bits), bits, f16_bits);
        }),
        DataType::Bf16 => each(json, bytes, |json, bytes| {
            let bits = u16::from_le_bytes(bytes);
            narrow(json, bf16_value(bits), bits, bf16_bits);
        }),
        DataType::Bytes => strings(json, bytes),
    }
}

#[inline]
fn each<const N: usize>(json: &mut Vec<u8>, bytes: &[u8], put: impl Fn(&mut Vec<u8>, [u8; N])) {
    for (position, element) in bytes.as_chunks::<N>().0.iter().enumerate() {
        if position > 0 {
            json.push(b',');
        }
        put(json, *element);
    }
}

/// W26: bytes that are no UTF-8 become U+FFFD.
fn strings(json: &mut Vec<u8>, mut rest: &[u8]) {
    let mut first = true;
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = (u32::from_le_bytes(*length) as usize).min(tail.len());
        if !first {
            json.push(b',');
        }
        first = false;
        string(json, &String::from_utf8_lossy(&tail[..length]));
        rest = &tail[length..];
    }
}

pub(super) fn string(json: &mut Vec<u8>, text: &str) {
    json.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            continue;
        }
        json.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        match byte {
            b'"' => json.extend_from_slice(b"\\\""),
            b'\\' => json.extend_from_slice(b"\\\\"),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\r' => json.extend_from_slice(b"\\r"),
            b'\t' => json.extend_from_slice(b"\\t"),
            control => write!(json, "\\u{control:04x}").expect("writing to a vector does not fail"),
        }
    }
    json.extend_from_slice(&bytes[start..]);
    json.push(b'"');
}

fn signed(json: &mut Vec<u8>, value: i64) {
    if value < 0 {
        json.push(b'-');
    }
    integer(json, value.unsigned_abs());
}

pub(super) fn integer(json: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    json.extend_from_slice(&digits[at..]);
}

/// W17, W25: the shortest text that reads back to the same bits; whole numbers with `.0`.
#[inline]
fn single(json: &mut Vec<u8>, value: f32) {
    if value.is_finite() {
        json.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        special(json, value.into());
    }
}

#[inline]
fn double(json: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        json.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        special(json, value);
    }
}

fn narrow(json: &mut Vec<u8>, value: f32, bits: u16, back: impl Fn(f64) -> u16) {
    if value.is_finite() {
        json.extend_from_slice(shortest(value, bits, back).as_bytes());
    } else {
        special(json, value.into());
    }
}

#[cold]
fn special(json: &mut Vec<u8>, value: f64) {
    let text = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    json.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
