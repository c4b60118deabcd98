//! Typed contents of an input into the bytes of its tensor (W41, W42).

use bytes::{BufMut, Bytes};
use naiad_tensor::DataType;

use crate::grpc::messages::inference::InferTensorContents;

/// The bytes of `contents` as a tensor of `datatype`; the datatype of a field that does not fit as the error.
pub(super) fn bytes(contents: &InferTensorContents, datatype: DataType) -> Result<Bytes, DataType> {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let fields = [
        (DataType::Bool, bool_contents.len(), &[DataType::Bool][..]),
        (DataType::Int32, int_contents.len(), &[DataType::Int8, DataType::Int16, DataType::Int32]),
        (DataType::Int64, int64_contents.len(), &[DataType::Int64]),
        (DataType::Uint32, uint_contents.len(), &[DataType::Uint8, DataType::Uint16, DataType::Uint32]),
        (DataType::Uint64, uint64_contents.len(), &[DataType::Uint64]),
        (DataType::Fp32, fp32_contents.len(), &[DataType::Fp32]),
        (DataType::Fp64, fp64_contents.len(), &[DataType::Fp64]),
        (DataType::Bytes, bytes_contents.len(), &[DataType::Bytes]),
    ];
    for (named, count, takes) in fields {
        if count > 0 && !takes.contains(&datatype) {
            return Err(named);
        }
    }
    Ok(match datatype {
        DataType::Bool => packed(bool_contents, |value| [u8::from(value)]),
        DataType::Int8 => packed(int_contents, |value| [value as u8]),
        DataType::Int16 => packed(int_contents, |value| (value as i16).to_le_bytes()),
        DataType::Int32 => packed(int_contents, i32::to_le_bytes),
        DataType::Int64 => packed(int64_contents, i64::to_le_bytes),
        DataType::Uint8 => packed(uint_contents, |value| [value as u8]),
        DataType::Uint16 => packed(uint_contents, |value| (value as u16).to_le_bytes()),
        DataType::Uint32 => packed(uint_contents, u32::to_le_bytes),
        DataType::Uint64 => packed(uint64_contents, u64::to_le_bytes),
        DataType::Fp32 => packed(fp32_contents, f32::to_le_bytes),
        DataType::Fp64 => packed(fp64_contents, f64::to_le_bytes),
        DataType::Bytes => strings(bytes_contents),
        // Raw only; a field that is not empty was refused above.
        DataType::Fp16 | DataType::Bf16 => Bytes::new(),
    })
}

fn packed<T: Copy, const N: usize>(values: &[T], bytes: fn(T) -> [u8; N]) -> Bytes {
    let mut data = Vec::with_capacity(values.len() * N);
    for value in values {
        data.extend_from_slice(&bytes(*value));
    }
    data.into()
}

/// W29: each element behind its length.
fn strings(elements: &[Bytes]) -> Bytes {
    let mut data = Vec::with_capacity(elements.iter().map(|element| element.len() + 4).sum());
    for element in elements {
        data.put_u32_le(element.len() as u32);
        data.extend_from_slice(element);
    }
    data.into()
}
