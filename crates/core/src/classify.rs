//! The classification extension: the top values of an output as `"<value>:<index>[:<label>]"` (W44).

use std::fmt::Write as _;

use bytes::Bytes;
use naiad_tensor::DataType;

use crate::error::InferError;
use crate::request::OutputTensor;

/// More elements than this are refused (W44).
const MAX_ELEMENTS: usize = 1_000_000;

/// What the client asked for.
#[derive(Debug)]
pub(crate) struct Classification {
    /// How many of the top values.
    pub(crate) count: u64,
    /// Labels by index; empty if the model has none.
    pub(crate) labels: Vec<String>,
}

/// The output as BYTES of shape `[batch, min(count, elements)]`, without the batch where the model has none.
pub(crate) fn classify(
    output: &OutputTensor,
    wanted: &Classification,
    batched: bool,
) -> Result<OutputTensor, InferError> {
    let refuse = |text: String| Err(InferError::InvalidArgument(text));
    let Some(kind) = kind(output.datatype) else {
        let (name, datatype) = (&output.name, output.datatype.name());
        return refuse(format!("class result not available for output '{name}' due to unsupported type '{datatype}'"));
    };
    let size = output.datatype.size().unwrap_or(1);
    let elements = output.data.len() / size;
    if elements > MAX_ELEMENTS {
        let name = &output.name;
        return refuse(format!(
            "class result not available for output '{name}': {elements} elements, at most {MAX_ELEMENTS}"
        ));
    }
    let batch = if batched { output.shape.first().copied().unwrap_or(1).max(0) as usize } else { 1 };
    let per_row = elements.checked_div(batch).unwrap_or(0);
    let count = per_row.min(usize::try_from(wanted.count).unwrap_or(usize::MAX));
    let mut data = Vec::new();
    let mut order = Vec::with_capacity(per_row);
    for row in output.data.chunks_exact((per_row * size).max(1)) {
        let values = row.chunks_exact(size);
        order.clear();
        order.extend(values.map(kind.rank).zip(0..));
        order.sort_by_key(|(rank, index)| (std::cmp::Reverse(*rank), *index));
        for (_, index) in &order[..count] {
            let mut text = (kind.text)(&row[index * size..(index + 1) * size]);
            let _ = write!(text, ":{index}");
            if let Some(label) = wanted.labels.get(*index) {
                text.push(':');
                text.push_str(label);
            }
            data.extend_from_slice(&(text.len() as u32).to_le_bytes());
            data.extend_from_slice(text.as_bytes());
        }
    }
    let shape = if batched { vec![batch as i64, count as i64] } else { vec![count as i64] };
    Ok(OutputTensor { name: output.name.clone(), datatype: DataType::Bytes, shape, data: Bytes::from(data) })
}

/// How values of a datatype compare and print.
struct Kind {
    rank: fn(&[u8]) -> i128,
    text: fn(&[u8]) -> String,
}

fn kind(datatype: DataType) -> Option<Kind> {
    macro_rules! integer {
        ($type:ty) => {
            Some(Kind {
                rank: |bytes| i128::from(<$type>::from_le_bytes(element(bytes))),
                text: |bytes| <$type>::from_le_bytes(element(bytes)).to_string(),
            })
        };
    }
    match datatype {
        DataType::Uint8 => integer!(u8),
        DataType::Uint16 => integer!(u16),
        DataType::Uint32 => integer!(u32),
        DataType::Uint64 => integer!(u64),
        DataType::Int8 => integer!(i8),
        DataType::Int16 => integer!(i16),
        DataType::Int32 => integer!(i32),
        DataType::Int64 => integer!(i64),
        DataType::Fp32 => Some(Kind {
            rank: |bytes| float_rank(f32::from_le_bytes(element(bytes)).into()),
            text: |bytes| format!("{:.6}", f32::from_le_bytes(element(bytes))),
        }),
        DataType::Fp64 => Some(Kind {
            rank: |bytes| float_rank(f64::from_le_bytes(element(bytes))),
            text: |bytes| format!("{:.6}", f64::from_le_bytes(element(bytes))),
        }),
        DataType::Bool | DataType::Bytes | DataType::Fp16 | DataType::Bf16 => None,
    }
}

fn element<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("rows are cut into whole elements")
}

/// Orders floats as their values; NaN is below all.
fn float_rank(value: f64) -> i128 {
    if value.is_nan() {
        return i128::MIN;
    }
    let bits: i128 = value.abs().to_bits().into();
    if value < 0.0 { -bits } else { bits }
}
