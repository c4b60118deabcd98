//! A response into its message: the head in one piece, tensors behind it as they are (W40).

use std::borrow::Cow;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::decode::ResponseForm;
use crate::classify::classify;
use crate::error::InferError;
use crate::grpc::MESSAGE_LIMIT;
use crate::grpc::body::{Pieces, prefix};
use crate::grpc::message::PREFIX;
use crate::request::{InferResponse, OutputTensor, Parameter};

/// Tensors of so many bytes together are copied behind the head, which costs less than pieces of their own.
const SMALL: usize = 16 << 10;

/// Room before the message for its prefix and, in a stream, the key and length of the message around it.
const FRONT: usize = PREFIX + 1 + 5;

/// The key of `ModelStreamInferResponse.infer_response`.
const INFER_RESPONSE: u8 = 0x12;

/// A `ModelInferResponse`, ready to be sent.
#[derive(Debug)]
pub struct Encoded {
    /// Room, then the fields but for large tensors.
    head: BytesMut,
    /// Large tensors with their keys, in order.
    pieces: Pieces,
}

impl Encoded {
    /// The message by itself, or as the response of a stream; `None` where it is too long to be sent (W45).
    pub fn finish(self, in_stream: bool) -> Option<Pieces> {
        let Self { mut head, mut pieces } = self;
        let length = head.len() - FRONT + pieces.iter().map(Bytes::len).sum::<usize>();
        let mut front = BytesMut::with_capacity(FRONT);
        if in_stream {
            prefix(&mut front, 1 + encoded_len_varint(length as u64) + length);
            front.put_u8(INFER_RESPONSE);
            encode_varint(length as u64, &mut front);
        } else {
            prefix(&mut front, length);
        }
        let start = FRONT - front.len();
        head[start..FRONT].copy_from_slice(&front);
        head.advance(start);
        pieces.push_front(head.freeze());
        (length <= MESSAGE_LIMIT - FRONT).then_some(pieces)
    }
}

/// Encodes `response` under the name that the client knows; `finality` is the stream's `triton_final_response`.
///
/// # Errors
/// A classification that the output does not allow.
pub fn encode(
    response: &InferResponse,
    shown_model: &str,
    form: &ResponseForm,
    finality: Option<bool>,
) -> Result<Encoded, InferError> {
    let mut outputs = Vec::with_capacity(response.outputs.len());
    for output in &response.outputs {
        let classes = form.classes.iter().find(|(name, _)| **name == *output.name);
        outputs.push(match classes {
            Some((_, classes)) => Cow::Owned(classify(output, classes, form.batched)?),
            None => Cow::Borrowed(output),
        });
    }
    let data: usize = outputs.iter().map(|output| output.data.len()).sum();
    let small = data <= SMALL;
    let heads: usize = outputs.iter().map(|output| 64 + output.name.len() + 10 * output.shape.len()).sum();
    let room = FRONT + 64 + shown_model.len() + response.id.len() + heads + if small { data } else { 0 };
    let mut head = BytesMut::with_capacity(room);
    head.put_bytes(0, FRONT);
    text(&mut head, 1, shown_model);
    version(&mut head, response.version);
    text(&mut head, 3, &response.id);
    for (name, value) in response.parameters.iter() {
        parameter(&mut head, name, value);
    }
    if let Some(finality) = finality {
        parameter(&mut head, "triton_final_response", &Parameter::Bool(finality));
    }
    for output in &outputs {
        tensor(&mut head, output);
    }
    let mut pieces = Pieces::new();
    for output in &outputs {
        if small {
            bytes(&mut head, 6, &output.data);
        } else {
            let mut front = BytesMut::with_capacity(8);
            key(&mut front, 6, output.data.len());
            pieces.push_back(front.freeze());
            // An empty piece would be a frame of its own.
            pieces.extend((!output.data.is_empty()).then(|| output.data.clone()));
        }
    }
    Ok(Encoded { head, pieces })
}

fn key(buffer: &mut BytesMut, tag: u32, length: usize) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

fn bytes(buffer: &mut BytesMut, tag: u32, data: &[u8]) {
    key(buffer, tag, data.len());
    buffer.put_slice(data);
}

/// A string field; an empty one is left out.
fn text(buffer: &mut BytesMut, tag: u32, text: &str) {
    if !text.is_empty() {
        bytes(buffer, tag, text.as_bytes());
    }
}

fn version(buffer: &mut BytesMut, version: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut left = version;
    loop {
        start -= 1;
        digits[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    bytes(buffer, 2, &digits[start..]);
}

fn field_len(length: usize) -> usize {
    key_len(1) + encoded_len_varint(length as u64) + length
}

/// One entry of `parameters`.
fn parameter(buffer: &mut BytesMut, name: &str, value: &Parameter) {
    let mut choice = BytesMut::with_capacity(16);
    match value {
        Parameter::Bool(value) => prost::encoding::bool::encode(1, value, &mut choice),
        Parameter::Int(value) => prost::encoding::int64::encode(2, value, &mut choice),
        Parameter::String(value) => bytes(&mut choice, 3, value.as_bytes()),
        Parameter::Double(value) => prost::encoding::double::encode(4, value, &mut choice),
        Parameter::Uint(value) => prost::encoding::uint64::encode(5, value, &mut choice),
    }
    key(buffer, 4, field_len(name.len()) + field_len(choice.len()));
    bytes(buffer, 1, name.as_bytes());
    bytes(buffer, 2, &choice);
}

/// One entry of `outputs`.
fn tensor(buffer: &mut BytesMut, output: &OutputTensor) {
    let datatype = output.datatype.name();
    let shape: usize = output.shape.iter().map(|dim| encoded_len_varint(*dim as u64)).sum();
    let shape_len = if output.shape.is_empty() { 0 } else { field_len(shape) };
    key(buffer, 5, field_len(output.name.len()) + field_len(datatype.len()) + shape_len);
    bytes(buffer, 1, output.name.as_bytes());
    bytes(buffer, 2, datatype.as_bytes());
    if !output.shape.is_empty() {
        key(buffer, 3, shape);
        for dim in &output.shape {
            encode_varint(*dim as u64, buffer);
        }
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
