//! A raw request: the whole body is the data of the model's only input (W31).

use super::decode::{DecodeOptions, ResponseForm, Target, empty};
use crate::error::InferError;
use crate::model::element_count;
use crate::request::{InferRequest, InputTensor};
use crate::rope::Rope;
use crate::spec::{ModelSpec, TensorSpec};

/// Decodes a raw body.
pub(super) fn raw(
    model: &ModelSpec,
    target: Target<'_>,
    body: Rope,
    options: DecodeOptions,
) -> Result<(InferRequest, ResponseForm), InferError> {
    let refuse = |text: String| Err(InferError::request("", text));
    let [input] = &model.inputs[..] else {
        return refuse(format!(
            "Raw request must only have 1 input (found 1) to be deduced but got {} inputs in '{}' model configuration",
            model.inputs.len(),
            model.name
        ));
    };
    let size = body.len() as u64;
    if size > options.max_input_size {
        return Err(InferError::InvalidArgument(format!(
            "Raw input has a byte_size ({size} bytes) that exceeds the maximum allowed value of {} bytes. Use \
             --http-max-input-size to increase the limit.",
            options.max_input_size
        )));
    }
    let (shape, data) = deduce(model, input, body)?;
    let mut request = empty(target);
    request.inputs.push(InputTensor { name: input.name.clone(), datatype: input.datatype, shape, data });
    Ok((request, ResponseForm { binary: true, batched: model.max_batch_size > 0, ..ResponseForm::default() }))
}

/// The shape that a raw body of this size must have.
fn deduce(model: &ModelSpec, input: &TensorSpec, body: Rope) -> Result<(Vec<i64>, Rope), InferError> {
    let batch = (model.max_batch_size > 0).then_some(1);
    let mut shape: Vec<i64> = batch.into_iter().chain(input.dims.iter().copied()).collect();
    let variable: Vec<usize> = (0..shape.len()).filter(|at| shape[*at] == -1).collect();
    let refuse = |text: String| Err(InferError::request("", text));
    if variable.len() > 1 {
        return refuse(format!(
            "The shape of the raw input '{}' can not be deduced because there are more than one variable-sized dimension",
            input.name
        ));
    }
    let Some(size) = input.datatype.size() else {
        if let Some(at) = variable.first() {
            shape[*at] = 1;
        }
        if element_count(&shape) != Some(1) {
            return refuse(format!(
                "For BYTE datatype raw input '{}', the model must have input shape [1]",
                input.name
            ));
        }
        let Ok(length) = u32::try_from(body.len()) else {
            return refuse(format!(
                "raw input '{}' of {} bytes is longer than a BYTES element",
                input.name,
                body.len()
            ));
        };
        let mut data = Vec::with_capacity(body.len() + 4);
        data.extend_from_slice(&length.to_le_bytes());
        for piece in body.pieces() {
            data.extend_from_slice(piece);
        }
        return Ok((shape, data.into()));
    };
    if let Some(at) = variable.first() {
        shape[*at] = 1;
        let unit = element_count(&shape).and_then(|count| count.checked_mul(size as u64)).unwrap_or(0);
        // What does not divide is found as a wrong byte size, as in any other request.
        shape[*at] = (body.len() as u64).checked_div(unit).unwrap_or(0) as i64;
    }
    Ok((shape, body))
}
