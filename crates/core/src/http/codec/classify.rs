//! The classification extension: the top values of an output as `"<value>:<index>[:<label>]"` (W44).

use bytes::Bytes;
use naiad_tensor::DataType;

use crate::error::InferError;
use crate::request::OutputTensor;

/// More elements than this are refused (W44).
const MAX_ELEMENTS: usize = 1_000_000;

/// What the client asked for.
#[derive(Debug)]
pub(super) struct Classification {
    /// How many of the top values.
    pub(super) count: u64,
    /// Labels by index; empty if the model has none.
    pub(super) labels: Vec<String>,
}

/// The output as BYTES of shape `[batch, min(count, elements)]`, without the batch where the model has none.
pub(super) fn classify(
    output: &OutputTensor,
    wanted: &Classification,
    batched: bool,
) -> Result<OutputTensor, InferError> {
    let refuse = |text: String| Err(InferError::InvalidArgument(text));
    let Some(read) = reader(output.datatype) else {
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
    for row in output.data.chunks_exact((per_row * size).max(1)) {
        let values: Vec<Value> = row.chunks_exact(size).map(read).collect();
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*b].number.total_cmp(&values[*a].number));
        for index in &order[..count] {
            let mut text = format!("{}:{index}", values[*index].text);
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

struct Value {
    number: f64,
    text: String,
}

fn reader(datatype: DataType) -> Option<fn(&[u8]) -> Value> {
    macro_rules! read {
        ($type:ty, $format:literal) => {
            Some(|bytes| {
                let value = <$type>::from_le_bytes(bytes.try_into().expect("chunks_exact gives whole elements"));
                #[allow(clippy::cast_lossless, reason = "the macro serves types that are wider than f64's integers")]
                Value { number: value as f64, text: format!($format, value) }
            })
        };
    }
    match datatype {
        DataType::Uint8 => read!(u8, "{}"),
        DataType::Uint16 => read!(u16, "{}"),
        DataType::Uint32 => read!(u32, "{}"),
        DataType::Uint64 => read!(u64, "{}"),
        DataType::Int8 => read!(i8, "{}"),
        DataType::Int16 => read!(i16, "{}"),
        DataType::Int32 => read!(i32, "{}"),
        DataType::Int64 => read!(i64, "{}"),
        DataType::Fp32 => read!(f32, "{:.6}"),
        DataType::Fp64 => read!(f64, "{:.6}"),
        DataType::Bool | DataType::Bytes | DataType::Fp16 | DataType::Bf16 => None,
    }
}
