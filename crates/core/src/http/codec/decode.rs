//! A request body into an [`InferRequest`]: JSON, binary tail, or raw (W13-W34).

use std::sync::Arc;

use super::input::Inputs;
use super::raw::raw;
use super::reader::{Reader, Scalar};
use super::window::WindowParts;
use super::{Trouble, set_once, text, unsigned};
use crate::classify::Classification;
use crate::error::{InferError, shown_id};
use crate::request::{InferRequest, Parameter, Parameters};
use crate::rope::Rope;
use crate::shared_memory::Windows;
use crate::spec::ModelSpec;

/// Inputs beyond the model's own that are read before the request is refused (B6).
const SPARE_INPUTS: usize = 16;

/// Bounds of a body.
#[derive(Clone, Copy, Debug)]
pub struct DecodeOptions {
    /// `--http-max-input-size` (W23).
    pub max_input_size: u64,
}

/// What the URL and the headers said.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The model after aliases.
    pub model: Arc<str>,
    /// The version of the URL.
    pub version: Option<u64>,
    /// `Inference-Header-Content-Length`.
    pub json_length: Option<&'a [u8]>,
}

/// How the client wants its answer.
#[derive(Debug, Default)]
pub struct ResponseForm {
    /// Outputs that it listed.
    pub(super) outputs: Vec<OutputForm>,
    /// Whether outputs are binary where it listed none (W32).
    pub(super) binary: bool,
    /// Whether the model batches; classification keeps the batch dimension.
    pub(super) batched: bool,
    /// What lies in regions.
    pub windows: Windows,
}

/// How the client wants one output.
#[derive(Debug)]
pub(super) struct OutputForm {
    pub(super) name: String,
    pub(super) binary: bool,
    pub(super) classification: Option<Classification>,
    /// Whether its data goes to a region (W77).
    pub(super) shared: bool,
}

/// Decodes a body for `model`.
///
/// # Errors
/// The body is wrong; the text is Triton's (protocol §6).
pub fn decode(
    model: &ModelSpec,
    target: Target<'_>,
    mut body: Rope,
    options: DecodeOptions,
) -> Result<(InferRequest, ResponseForm), InferError> {
    let json_length = match target.json_length {
        None => body.len(),
        Some(text) => header_length(text, body.len())?,
    };
    if json_length == 0 {
        return raw(model, target, body, options);
    }
    let size = json_length as u64;
    if size > options.max_input_size {
        return Err(InferError::InvalidArgument(format!(
            "request JSON size of {size} bytes exceeds the maximum allowed input size of {} bytes. Use \
             --http-max-input-size to increase the limit.",
            options.max_input_size
        )));
    }
    let json = body.split_to(json_length).into_bytes();
    let mut decoder = Decoder {
        inputs: Inputs { model, max_input_size: options.max_input_size, tail: body },
        request: empty(target),
        form: ResponseForm { batched: model.max_batch_size > 0, ..ResponseForm::default() },
    };
    decoder.document(&json).map_err(|trouble| explain(trouble, &json))?;
    if !decoder.inputs.tail.is_empty() {
        let text = format!("unexpected additional input data for model '{}'", model.name);
        return Err(InferError::InvalidArgument(text));
    }
    decoder.request.outputs = decoder.form.outputs.iter().map(|output| output.name.clone()).collect();
    Ok((decoder.request, decoder.form))
}

pub(super) fn empty(target: Target<'_>) -> InferRequest {
    InferRequest {
        model: target.model,
        version: target.version,
        id: String::new(),
        parameters: Parameters::new(),
        timeout_us: 0,
        deadline: None,
        priority: 0,
        inputs: Vec::new(),
        outputs: Vec::new(),
        reserved: 0,
        traceparent: None,
    }
}

/// W28.
fn header_length(text: &[u8], body: usize) -> Result<usize, InferError> {
    let shown = String::from_utf8_lossy(text);
    let refuse = |text: String| Err(InferError::InvalidArgument(text));
    let digits = shown.strip_prefix('-').unwrap_or(&shown);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return refuse(format!("Unable to parse Inference-Header-Content-Length, got: {shown}"));
    }
    let Ok(length) = shown.parse::<i32>() else {
        return refuse(format!(
            "Unable to parse Inference-Header-Content-Length, value is out of range [ {}, {} ], got: {shown}",
            i32::MIN,
            i32::MAX
        ));
    };
    match usize::try_from(length) {
        Ok(length) if length <= body => Ok(length),
        _ => refuse(format!("inference header size should be in range (0, {body}), got: {length}")),
    }
}

/// The error of a body: a fault of syntax anywhere comes before whatever else was found, and the id may stand behind
/// what the error is about.
#[cold]
pub(super) fn explain(trouble: Trouble, json: &[u8]) -> InferError {
    if matches!(trouble, Trouble::Wrong(_))
        && let Err(fault) = Reader::new(json).check()
    {
        return Trouble::from(fault).into();
    }
    let mut error = InferError::from(trouble);
    if let InferError::InvalidRequest { id, .. } = &mut error {
        let mut found = None;
        // The text is well-formed; where an id of a wrong type stops the search, none is shown.
        let _ = Reader::new(json).object(|reader, name| match name {
            "id" => text(reader, "id").map(|text| found = Some(text)),
            _ => Ok(reader.skip()?),
        });
        *id = shown_id(&found.unwrap_or_default());
    }
    error
}

struct Decoder<'m> {
    inputs: Inputs<'m>,
    request: InferRequest,
    form: ResponseForm,
}

impl Decoder<'_> {
    fn document(&mut self, json: &[u8]) -> Result<(), Trouble> {
        let mut reader = Reader::new(json);
        let (mut id, mut parameters, mut inputs, mut outputs) = (None, None, None, None);
        reader.start()?;
        if reader.peek() == b'{' {
            reader.object(|reader, name| match name {
                "id" => set_once(&mut id, name, text(reader, name)?),
                "parameters" => set_once(&mut parameters, name, self.parameters(reader)?),
                "inputs" => {
                    set_once(&mut inputs, name, ())?;
                    list(reader, name, |reader| self.input(reader))
                }
                "outputs" => {
                    set_once(&mut outputs, name, ())?;
                    list(reader, name, |reader| self.output(reader))
                }
                _ => Ok(reader.skip()?),
            })?;
            reader.end()?;
        }
        self.request.id = id.unwrap_or_default();
        inputs.ok_or_else(|| {
            Trouble::text("Unable to parse 'inputs': attempt to access non-existing object member 'inputs'")
        })
    }

    /// W21.
    fn parameters(&mut self, reader: &mut Reader<'_>) -> Result<(), Trouble> {
        if reader.peek() != b'{' {
            return Err(Trouble::text("failed to get request params.: attempt to get members for non-object"));
        }
        reader.object(|reader, name| {
            let value = reader.scalar()?;
            match name {
                "binary_data_output" => self.form.binary = boolean(name, &value)?,
                _ => set_parameter(&mut self.request, name, value)?,
            }
            Ok(())
        })
    }

    fn input(&mut self, reader: &mut Reader<'_>) -> Result<(), Trouble> {
        let inputs = &self.request.inputs;
        let model = self.inputs.model;
        if inputs.len() >= model.inputs.len() + SPARE_INPUTS {
            let (expected, got) = (model.inputs.len(), inputs.len());
            let text = format!("expected {expected} inputs but got more than {got} inputs for model '{}'.", model.name);
            return Err(Trouble::request(text));
        }
        let (input, window) = self.inputs.read(reader)?;
        if inputs.iter().any(|other| other.name == input.name) {
            return Err(Trouble::request(format!("input '{}' already exists in request", input.name)));
        }
        self.form.windows.inputs.extend(window.map(|window| (inputs.len(), window)));
        self.request.inputs.push(input);
        Ok(())
    }

    fn output(&mut self, reader: &mut Reader<'_>) -> Result<(), Trouble> {
        let model = self.inputs.model;
        let (mut name, mut binary, mut classes, mut parts) = (None, false, None, WindowParts::default());
        if reader.peek() == b'{' {
            reader.object(|reader, field| match field {
                "name" => set_once(&mut name, field, text(reader, field)?),
                "parameters" if reader.peek() == b'{' => reader.object(|reader, field| {
                    let value = reader.scalar()?;
                    match field {
                        "binary_data" => binary = boolean(field, &value)?,
                        "classification" => classes = Some(class_count(&value)?),
                        _ => parts.member(field, value)?,
                    }
                    Ok(())
                }),
                _ => Ok(reader.skip()?),
            })?;
        } else {
            reader.skip()?;
        }
        let name = name.ok_or_else(|| Trouble::missing("name"))?;
        if parts.is_set() && (binary || classes.is_some()) {
            // W19.
            let other = if classes.is_some() { "classification" } else { "binary_data" };
            return Err(Trouble::text(format!("Output can't set both 'shared_memory_region' and '{other}'")));
        }
        // Both also bound the list: it cannot be longer than the model's own (B6).
        if self.form.outputs.iter().any(|other| other.name == name) {
            return Err(Trouble::request(format!("output '{name}' already exists in request")));
        }
        let Some(output) = model.outputs.iter().find(|output| output.name == name) else {
            return Err(Trouble::text(format!("unexpected inference output '{name}' for model '{}'", model.name)));
        };
        let wanted = classes.filter(|count| *count > 0);
        let classification = wanted.map(|count| Classification { count, labels: output.labels.clone() });
        let window = parts.finish(&name)?;
        let shared = window.is_some();
        self.form.windows.outputs.extend(window.map(|window| (name.clone(), window)));
        self.form.outputs.push(OutputForm { name, binary, classification, shared });
        Ok(())
    }
}

/// Takes a parameter of a request, those with a meaning of their own too (W21).
pub(super) fn set_parameter(request: &mut InferRequest, name: &str, value: Scalar<'_>) -> Result<(), Trouble> {
    match name {
        _ if name.starts_with("triton_") => {
            return Err(Trouble::text(
                "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.",
            ));
        }
        "timeout" => request.timeout_us = unsigned(name, &value)?,
        "priority" => request.priority = unsigned(name, &value)?,
        _ => request.parameters.push((name.to_owned(), parameter(name, value)?)),
    }
    Ok(())
}

/// Reads the elements of the array that member `name` must be.
fn list(
    reader: &mut Reader<'_>,
    name: &str,
    element: impl FnMut(&mut Reader<'_>) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    if reader.peek() == b'[' {
        return reader.array(element);
    }
    Err(Trouble::text(format!("Unable to parse '{name}': attempt to access JSON non-array as array")))
}

fn boolean(name: &str, value: &Scalar<'_>) -> Result<bool, Trouble> {
    match *value {
        Scalar::Bool(value) => Ok(value),
        _ => Err(Trouble::text(format!("Unable to parse '{name}': attempt to access JSON non-boolean as boolean"))),
    }
}

fn class_count(value: &Scalar<'_>) -> Result<u64, Trouble> {
    unsigned("", value).map_err(|_| {
        Trouble::text("Unable to set 'classification': attempt to access JSON non-unsigned-integer as unsigned-integer")
    })
}

/// A request parameter that has no field of its own; those of sequences have types of their own.
fn parameter(name: &str, value: Scalar<'_>) -> Result<Parameter, Trouble> {
    match (name, &value) {
        ("sequence_start" | "sequence_end", value) => return boolean(name, value).map(Parameter::Bool),
        ("sequence_id", Scalar::Int(0..) | Scalar::Uint(_) | Scalar::String(_)) => {}
        ("sequence_id", _) => {
            return Err(Trouble::text("Unable to parse 'sequence_id': attempt to access JSON non-string as string"));
        }
        _ => {}
    }
    Ok(match value {
        Scalar::Bool(value) => Parameter::Bool(value),
        Scalar::Int(value) => Parameter::Int(value),
        Scalar::Uint(value) => Parameter::Uint(value),
        Scalar::Double(value) => Parameter::Double(value),
        Scalar::String(value) => Parameter::String(value.into_owned()),
        Scalar::Null | Scalar::Nested => {
            return Err(Trouble::text(format!(
                "parameter '{name}' has invalid type. It should be either 'int', 'bool', or 'string'."
            )));
        }
    })
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
