//! A request message into an [`InferRequest`]: tensors are slices of the message, or made of typed contents.

use std::collections::BTreeMap;
use std::sync::Arc;

use naiad_tensor::DataType;

use super::contents;
use crate::classify::Classification;
use crate::error::InferError;
use crate::grpc::message::Inference;
use crate::grpc::messages::inference::infer_parameter::ParameterChoice;
use crate::grpc::messages::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::grpc::messages::inference::{InferParameter, ModelInferRequest};
use crate::model::unknown_datatype;
use crate::request::{InferRequest, InputTensor, Parameter, Parameters};
use crate::rope::Rope;
use crate::shared_memory::{Window, Windows};
use crate::spec::ModelSpec;

/// Inputs beyond the model's own that are read before the request is refused (B6).
const SPARE_INPUTS: usize = 16;

/// How the client wants its answer.
#[derive(Debug, Default)]
pub struct ResponseForm {
    /// Outputs that it wants as classes.
    pub(super) classes: Vec<(String, Classification)>,
    /// Whether the model batches; classification keeps the batch dimension.
    pub(super) batched: bool,
    /// W55: whether a final flag without data is to be sent.
    pub empty_final: bool,
    /// What lies in regions.
    pub windows: Windows,
}

/// Decodes a message for `model`, whose version the client named or not.
///
/// # Errors
/// The message is wrong; the text is Triton's (protocol §6, §9).
pub fn decode(
    model: &ModelSpec,
    target: Arc<str>,
    version: Option<u64>,
    inference: impl Into<Inference>,
) -> Result<(InferRequest, ResponseForm), InferError> {
    let Inference { message, raw } = inference.into();
    check_count(model, &message)?;
    let mut form = ResponseForm { batched: model.max_batch_size > 0, ..ResponseForm::default() };
    let mut request = InferRequest {
        model: target,
        version,
        id: message.id,
        parameters: Parameters::new(),
        timeout_us: 0,
        deadline: None,
        priority: 0,
        inputs: Vec::with_capacity(message.inputs.len()),
        outputs: Vec::with_capacity(message.outputs.len()),
        reserved: 0,
        traceparent: None,
    };
    for (name, value) in message.parameters {
        parameter(&mut request, &mut form, name, value)?;
    }
    let is_raw = !message.raw_input_contents.is_empty() || !raw.is_empty();
    let mut raw = message.raw_input_contents.into_iter().map(Rope::from).chain(raw);
    for input in message.inputs {
        let window = window(&input.name, &input.parameters)?;
        let tensor = match &window {
            Some(_) => elsewhere(model, &request.id, input)?,
            None => tensor(model, &request.id, input, if is_raw { raw.next() } else { None })?,
        };
        form.windows.inputs.extend(window.map(|window| (request.inputs.len(), window)));
        request.inputs.push(tensor);
    }
    for output in message.outputs {
        let window = window(&output.name, &output.parameters)?;
        if let Some(classes) = classification(model, &output)? {
            if window.is_some() {
                return refuse("output can't set both 'shared_memory_region' and 'classification'");
            }
            form.classes.push((output.name.clone(), classes));
        }
        form.windows.outputs.extend(window.map(|window| (output.name.clone(), window)));
        request.outputs.push(output.name);
    }
    Ok((request, form))
}

/// A list that is far too long is refused before it is gone through (B6).
fn check_count(model: &ModelSpec, message: &ModelInferRequest) -> Result<(), InferError> {
    let most = model.inputs.len() + SPARE_INPUTS;
    if message.inputs.len() <= most {
        return Ok(());
    }
    let text =
        format!("expected {} inputs but got more than {most} inputs for model '{}'.", model.inputs.len(), model.name);
    Err(InferError::request(&message.id, text))
}

fn refuse<T>(text: impl Into<String>) -> Result<T, InferError> {
    Err(InferError::InvalidArgument(text.into()))
}

fn wrong_type<T>(name: &str, expected: &str) -> Result<T, InferError> {
    refuse(format!("invalid value type for '{name}' parameter, expected {expected}."))
}

/// W43: each parameter has the types that Triton takes, and no others.
fn parameter(
    request: &mut InferRequest,
    form: &mut ResponseForm,
    name: String,
    value: InferParameter,
) -> Result<(), InferError> {
    use ParameterChoice::{BoolParam, Int64Param, StringParam, Uint64Param};
    let choice = value.parameter_choice;
    let value = match (name.as_str(), choice) {
        ("priority", Some(Uint64Param(value))) => {
            request.priority = value;
            return Ok(());
        }
        ("priority", Some(Int64Param(value))) => {
            request.priority = not_negative(&name, value)?;
            return Ok(());
        }
        ("priority", _) => return wrong_type(&name, "int64_param or uint64_param"),
        ("timeout", Some(Int64Param(value))) => {
            request.timeout_us = not_negative(&name, value)?;
            return Ok(());
        }
        ("timeout", _) => return wrong_type(&name, "int64_param"),
        ("triton_enable_empty_final_response", Some(BoolParam(value))) => {
            form.empty_final = value;
            return Ok(());
        }
        ("triton_enable_empty_final_response", _) => return wrong_type(&name, "bool_param"),
        (name, _) if name.starts_with("triton_") => {
            return refuse(
                "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.",
            );
        }
        ("sequence_id", Some(Int64Param(value))) => Parameter::Int(value),
        ("sequence_id", Some(StringParam(value))) => Parameter::String(value),
        ("sequence_id", _) => return wrong_type(&name, "int64_param or string_param"),
        ("sequence_start" | "sequence_end", Some(BoolParam(value))) => Parameter::Bool(value),
        ("sequence_start" | "sequence_end", _) => return wrong_type(&name, "bool_param"),
        (_, choice) => own(&name, choice)?,
    };
    request.parameters.push((name, value));
    Ok(())
}

/// A parameter that means something to the model only.
fn own(name: &str, choice: Option<ParameterChoice>) -> Result<Parameter, InferError> {
    Ok(match choice {
        Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(value),
        Some(ParameterChoice::Int64Param(value)) => Parameter::Int(value),
        Some(ParameterChoice::StringParam(value)) => Parameter::String(value),
        Some(ParameterChoice::DoubleParam(value)) => Parameter::Double(value),
        Some(ParameterChoice::Uint64Param(_)) | None => {
            return wrong_type(name, "int64_param, bool_param, or string_param");
        }
    })
}

fn not_negative(name: &str, value: i64) -> Result<u64, InferError> {
    u64::try_from(value).or_else(|_| refuse(format!("invalid value {value} for '{name}' parameter, expected >= 0.")))
}

/// One input with its data: the next raw entry, or its contents (W41).
fn tensor(model: &ModelSpec, id: &str, input: InferInputTensor, raw: Option<Rope>) -> Result<InputTensor, InferError> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    let Some(datatype) = DataType::from_name(&datatype) else { return Err(unknown_datatype(model, id, &name)) };
    let data = match (raw, contents) {
        (Some(_), Some(_)) => {
            return refuse(format!(
                "contents field must not be specified when using raw_input_contents for '{name}' for model '{}'",
                model.name
            ));
        }
        (Some(raw), None) if datatype == DataType::Bytes => raw.joined(),
        (Some(raw), None) => raw,
        (None, Some(contents)) => match contents::bytes(&contents, datatype) {
            Ok(data) => data.into(),
            Err(named) => {
                return refuse(format!(
                    "unexpected explicit tensor data for input tensor '{name}' for model '{}' of type '{}', expected \
                     datatype '{}'",
                    model.name,
                    named.name(),
                    datatype.name()
                ));
            }
        },
        (None, None) => {
            return refuse(format!(
                "unable to find data for input tensor '{name}' for model '{}' in request.",
                model.name
            ));
        }
    };
    Ok(InputTensor { name, datatype, shape, data })
}

/// An input whose data lies in a region, without it.
fn elsewhere(model: &ModelSpec, id: &str, input: InferInputTensor) -> Result<InputTensor, InferError> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    let Some(datatype) = DataType::from_name(&datatype) else { return Err(unknown_datatype(model, id, &name)) };
    if contents.is_some() {
        let model = &model.name;
        return refuse(format!(
            "unexpected 'content' provided when using shared memory for input tensor '{name}' for model '{model}'"
        ));
    }
    Ok(InputTensor { name, datatype, shape, data: Rope::default() })
}

/// W76: the part of a region that a tensor's parameters name.
fn window(tensor: &str, parameters: &BTreeMap<String, InferParameter>) -> Result<Option<Window>, InferError> {
    let Some(region) = parameters.get("shared_memory_region") else {
        let alone =
            ["shared_memory_offset", "shared_memory_byte_size"].iter().find(|name| parameters.contains_key(**name));
        return alone.map_or(Ok(None), |name| {
            refuse(format!(
                "'{name}' can not be specified without 'shared_memory_region' parameter for tensor '{tensor}'"
            ))
        });
    };
    let wrong = |name: &str, expected: &str| {
        let text = format!("invalid value type for '{name}' parameter for tensor '{tensor}', expected {expected}.");
        InferError::InvalidArgument(text)
    };
    let number = |name: &str| match parameters.get(name).map(|value| &value.parameter_choice) {
        None => Ok(None),
        // What is negative lies in no region.
        Some(Some(ParameterChoice::Int64Param(value))) => Ok(Some(u64::try_from(*value).unwrap_or(u64::MAX))),
        Some(_) => Err(wrong(name, "int64_param")),
    };
    let Some(ParameterChoice::StringParam(region)) = &region.parameter_choice else {
        return Err(wrong("shared_memory_region", "string_param"));
    };
    let (offset, byte_size) = (number("shared_memory_offset")?, number("shared_memory_byte_size")?);
    Window::new(tensor, region.clone(), offset, byte_size).map(Some)
}

/// W44.
fn classification(
    model: &ModelSpec,
    output: &InferRequestedOutputTensor,
) -> Result<Option<Classification>, InferError> {
    let Some(value) = output.parameters.get("classification") else { return Ok(None) };
    match value.parameter_choice {
        Some(ParameterChoice::Int64Param(count @ 1..)) => {
            let spec = model.outputs.iter().find(|spec| spec.name == output.name);
            let labels = spec.map(|spec| spec.labels.clone()).unwrap_or_default();
            Ok(Some(Classification { count: count as u64, labels }))
        }
        Some(ParameterChoice::Int64Param(_)) => refuse("invalid value for 'classification' parameter, expected >= 0"),
        _ => refuse("invalid value type for 'classification' parameter, expected int64_param"),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
