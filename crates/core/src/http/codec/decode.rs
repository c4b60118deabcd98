//! A request body into an [`InferRequest`]: JSON, binary tail, or raw (W13-W34).

use std::sync::Arc;

use bytes::Bytes;
use naiad_tensor::DataType;

use super::Trouble;
use super::classify::Classification;
use super::data;
use super::reader::{Reader, Scalar};
use crate::error::InferError;
use crate::model::{dims_text, element_count};
use crate::request::{InferRequest, InputTensor, Parameter, Parameters};
use crate::spec::{ModelSpec, TensorSpec};

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
}

/// How the client wants one output.
#[derive(Debug)]
pub(super) struct OutputForm {
    pub(super) name: String,
    pub(super) binary: bool,
    pub(super) classification: Option<Classification>,
}

/// Decodes a body for `model`.
///
/// # Errors
/// The body is wrong; the text is Triton's (protocol §6).
pub fn decode(
    model: &ModelSpec,
    target: Target<'_>,
    body: Bytes,
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
    let json = body.slice(..json_length);
    let mut decoder = Decoder {
        model,
        options,
        tail: body.slice(json_length..),
        request: empty(target),
        form: ResponseForm { batched: model.max_batch_size > 0, ..ResponseForm::default() },
    };
    decoder.document(&json)?;
    if !decoder.tail.is_empty() {
        let text = format!("unexpected additional input data for model '{}'", model.name);
        return Err(InferError::InvalidArgument(text));
    }
    decoder.request.outputs = decoder.form.outputs.iter().map(|output| output.name.clone()).collect();
    Ok((decoder.request, decoder.form))
}

fn empty(target: Target<'_>) -> InferRequest {
    InferRequest {
        model: target.model,
        version: target.version,
        id: String::new(),
        parameters: Parameters::new(),
        timeout_us: 0,
        priority: 0,
        inputs: Vec::new(),
        outputs: Vec::new(),
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

/// W31: the whole body is the data of the model's only input.
fn raw(
    model: &ModelSpec,
    target: Target<'_>,
    body: Bytes,
    options: DecodeOptions,
) -> Result<(InferRequest, ResponseForm), InferError> {
    let refuse = |text: String| Err(InferError::InvalidArgument(text));
    let [input] = &model.inputs[..] else {
        return refuse(format!(
            "Raw request must only have 1 input (found {}) to be deduced but got {0} inputs in '{}' model configuration",
            model.inputs.len(),
            model.name
        ));
    };
    let size = body.len() as u64;
    if size > options.max_input_size {
        return refuse(format!(
            "Raw input has a byte_size ({size} bytes) that exceeds the maximum allowed value of {} bytes. Use \
             --http-max-input-size to increase the limit.",
            options.max_input_size
        ));
    }
    let (shape, data) = deduce(model, input, body)?;
    let mut request = empty(target);
    request.inputs.push(InputTensor { name: input.name.clone(), datatype: input.datatype, shape, data });
    Ok((request, ResponseForm { binary: true, batched: model.max_batch_size > 0, outputs: Vec::new() }))
}

/// The shape that a raw body of this size must have.
fn deduce(model: &ModelSpec, input: &TensorSpec, body: Bytes) -> Result<(Vec<i64>, Bytes), InferError> {
    let batch = (model.max_batch_size > 0).then_some(1);
    let mut shape: Vec<i64> = batch.into_iter().chain(input.dims.iter().copied()).collect();
    let variable: Vec<usize> = (0..shape.len()).filter(|at| shape[*at] == -1).collect();
    let refuse = |text: String| Err(InferError::InvalidArgument(text));
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
                "For BYTES datatype raw input '{}', the model must have input shape [1]",
                input.name
            ));
        }
        let mut data = Vec::with_capacity(body.len() + 4);
        data.extend_from_slice(&(body.len() as u32).to_le_bytes());
        data.extend_from_slice(&body);
        return Ok((shape, data.into()));
    };
    if let Some(at) = variable.first() {
        shape[*at] = 1;
        let unit = element_count(&shape).and_then(|count| count.checked_mul(size as u64)).unwrap_or(0);
        if unit == 0 || !(body.len() as u64).is_multiple_of(unit) {
            return refuse(format!(
                "The shape of the raw input '{}' can not be deduced: {} bytes are no multiple of {unit}",
                input.name,
                body.len()
            ));
        }
        shape[*at] = (body.len() as u64 / unit) as i64;
    }
    Ok((shape, body))
}

struct Decoder<'m> {
    model: &'m ModelSpec,
    options: DecodeOptions,
    /// Binary bytes that no input has taken yet.
    tail: Bytes,
    request: InferRequest,
    form: ResponseForm,
}

/// An input while its object is read.
#[derive(Default)]
struct Partial<'a> {
    name: Option<String>,
    datatype: Option<String>,
    shape: Option<Vec<i64>>,
    /// Where `data` starts, if it stood before what it needs.
    later: Option<Reader<'a>>,
    data: Option<(u64, Vec<u8>)>,
    binary_size: Option<u64>,
    shared_memory: bool,
}

impl Decoder<'_> {
    fn document(&mut self, json: &[u8]) -> Result<(), Trouble> {
        let mut reader = Reader::new(json);
        if reader.next_token() == 0 && reader.at >= json.len() {
            return Err(reader.fault("The document is empty.").into());
        }
        if reader.peek() != b'{' {
            reader.skip()?;
            return Err(Trouble::text("attempt to access JSON non-object as object"));
        }
        let mut inputs = None;
        let mut outputs = None;
        reader.object(|reader, name| {
            match name {
                "id" => match reader.scalar()? {
                    Scalar::String(id) => self.request.id = id.into_owned(),
                    _ => {
                        return Err(Trouble::text("Unable to parse 'id': attempt to access JSON non-string as string"));
                    }
                },
                "parameters" => self.parameters(reader)?,
                // Their errors carry the id, which may come behind them.
                "inputs" if inputs.is_none() => inputs = Some(skipped(reader)?),
                "outputs" if outputs.is_none() => outputs = Some(skipped(reader)?),
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        reader.end()?;
        let Some(mut inputs) = inputs else {
            return Err(Trouble::text(
                "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'",
            ));
        };
        if inputs.peek() != b'[' {
            return Err(Trouble::text("Unable to parse 'inputs': attempt to access JSON non-array as array"));
        }
        inputs.array(|reader| self.input(reader))?;
        if let Some(mut outputs) = outputs {
            if outputs.peek() != b'[' {
                return Err(Trouble::text("Unable to parse 'outputs': attempt to access JSON non-array as array"));
            }
            outputs.array(|reader| self.output(reader))?;
        }
        Ok(())
    }

    /// W21.
    fn parameters(&mut self, reader: &mut Reader<'_>) -> Result<(), Trouble> {
        if reader.peek() != b'{' {
            reader.skip()?;
            return Err(Trouble::text("Unable to parse 'parameters': attempt to access JSON non-object as object"));
        }
        reader.object(|reader, name| {
            if name.starts_with("triton_") {
                return Err(Trouble::text(format!(
                    "parameter keys starting with 'triton_' are reserved for Triton usage, got '{name}'"
                )));
            }
            let value = reader.scalar()?;
            match (name, value) {
                ("binary_data_output", Scalar::Bool(binary)) => self.form.binary = binary,
                ("binary_data_output", _) => {
                    return Err(Trouble::text("parameter 'binary_data_output' should be a boolean"));
                }
                ("timeout", value) => self.request.timeout_us = unsigned("timeout", &value)?,
                ("priority", value) => self.request.priority = unsigned("priority", &value)?,
                (name, value) => {
                    let parameter = match value {
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
                    };
                    self.request.parameters.push((name.to_owned(), parameter));
                }
            }
            Ok(())
        })
    }

    fn input(&mut self, reader: &mut Reader<'_>) -> Result<(), Trouble> {
        let mut partial = Partial::default();
        let model = self.model;
        let options = self.options;
        reader.object(|reader, name| {
            match name {
                "name" => partial.name = Some(text(reader, "name")?),
                "datatype" => partial.datatype = Some(text(reader, "datatype")?),
                "shape" => partial.shape = Some(shape(reader)?),
                "data" => {
                    if partial.name.is_some() && partial.datatype.is_some() && partial.shape.is_some() {
                        partial.data = Some(partial.read(reader, model, options)?);
                    } else {
                        partial.later = Some(*reader);
                        reader.skip()?;
                    }
                }
                "parameters" => partial.parameters(reader)?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        if let Some(mut later) = partial.later.take() {
            partial.data = Some(partial.read(&mut later, model, options)?);
        }
        let tensor = self.finish(partial)?;
        self.request.inputs.push(tensor);
        Ok(())
    }

    fn finish(&mut self, partial: Partial<'_>) -> Result<InputTensor, Trouble> {
        let missing = |field: &str| {
            Trouble::text(format!("Unable to parse '{field}': attempt to access non-existing object member '{field}'"))
        };
        let name = partial.name.ok_or_else(|| missing("name"))?;
        let written = partial.datatype.ok_or_else(|| missing("datatype"))?;
        let shape = partial.shape.ok_or_else(|| missing("shape"))?;
        if partial.shared_memory {
            return Err(Trouble::Wrong(InferError::Unsupported(
                "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
                    .to_owned(),
            )));
        }
        let ways = [partial.data.is_some(), partial.binary_size.is_some()];
        if ways == [true, true] {
            return Err(Trouble::text(format!(
                "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', \
                 'shared_memory_region' in 'parameters'. But got both in input '{name}'"
            )));
        }
        let model = &self.model.name;
        let Some(datatype) = DataType::from_name(&written) else {
            let expected = self.model.inputs.iter().find(|input| input.name == name);
            let expected = expected.map_or("", |input| input.datatype.name());
            let text =
                format!("inference input '{name}' data-type is '<invalid>', but model '{model}' expects '{expected}'");
            return Err(Trouble::Wrong(InferError::request(&self.request.id, text)));
        };
        let data = match (partial.data, partial.binary_size) {
            (Some((_, data)), _) => Bytes::from(data),
            (None, Some(size)) => self.take(&name, size)?,
            // A tensor without elements needs no data; anything else does.
            (None, None) if element_count(&shape) == Some(0) => Bytes::new(),
            (None, None) => {
                return Err(Trouble::text(format!(
                    "Unable to parse 'data': attempt to access non-existing object member 'data' in input '{name}'"
                )));
            }
        };
        Ok(InputTensor { name, datatype, shape, data })
    }

    /// The next `size` bytes of the binary tail, not copied (W27).
    fn take(&mut self, name: &str, size: u64) -> Result<Bytes, Trouble> {
        if size > self.tail.len() as u64 {
            return Err(Trouble::text(format!(
                "unexpected size for input '{name}', expecting {} additional bytes for model '{}'",
                size - self.tail.len() as u64,
                self.model.name
            )));
        }
        Ok(self.tail.split_to(size as usize))
    }

    fn output(&mut self, reader: &mut Reader<'_>) -> Result<(), Trouble> {
        let (mut name, mut binary, mut classes, mut shared) = (None, false, None, false);
        reader.object(|reader, field| {
            match field {
                "name" => name = Some(text(reader, "name")?),
                "parameters" => reader.object(|reader, parameter| {
                    let value = reader.scalar()?;
                    match (parameter, value) {
                        ("binary_data", Scalar::Bool(value)) => binary = value,
                        ("binary_data", _) => {
                            return Err(Trouble::text("parameter 'binary_data' should be a boolean"));
                        }
                        ("classification", value) => classes = Some(unsigned("classification", &value)?),
                        ("shared_memory_region", _) => shared = true,
                        _ => {}
                    }
                    Ok(())
                })?,
                _ => reader.skip()?,
            }
            Ok(())
        })?;
        let Some(name) = name else {
            return Err(Trouble::text("Unable to parse 'name': attempt to access non-existing object member 'name'"));
        };
        if shared {
            return Err(Trouble::Wrong(InferError::Unsupported(
                "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
                    .to_owned(),
            )));
        }
        let labels = || {
            let output = self.model.outputs.iter().find(|output| output.name == name);
            output.map(|output| output.labels.clone()).unwrap_or_default()
        };
        let classification = classes.filter(|count| *count > 0).map(|count| Classification { count, labels: labels() });
        self.form.outputs.push(OutputForm { name, binary, classification });
        Ok(())
    }
}

impl Partial<'_> {
    /// Reads `data`; name, datatype and shape are known where the text was well-formed.
    fn read(
        &self,
        reader: &mut Reader<'_>,
        model: &ModelSpec,
        options: DecodeOptions,
    ) -> Result<(u64, Vec<u8>), Trouble> {
        let name = self.name.as_deref().unwrap_or_default();
        let (Some(datatype), Some(shape)) = (&self.datatype, &self.shape) else {
            // `finish` names the missing field.
            return Ok((0, Vec::new()));
        };
        let Some(datatype) = DataType::from_name(datatype) else {
            return Err(Trouble::text(format!("invalid datatype for input {name}")));
        };
        let Some(expected) = element_count(shape) else {
            return Err(Trouble::text(format!(
                "invalid shape for input '{name}': shape {} causes total element count to exceed maximum size of {}",
                dims_text(shape),
                i64::MAX
            )));
        };
        let size = datatype.size().unwrap_or(4) as u64;
        let bytes = expected.checked_mul(size).filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(|| {
            Trouble::text(format!(
                "byte size overflow for input '{name}': shape {} of datatype {} in model '{}'",
                dims_text(shape),
                datatype.name(),
                model.name
            ))
        })?;
        if bytes > options.max_input_size {
            return Err(Trouble::text(format!(
                "JSON input '{name}' has a byte_size ({bytes} bytes) that exceeds the maximum allowed value of {} bytes. \
                 Use --http-max-input-size to increase the limit.",
                options.max_input_size
            )));
        }
        let (count, data) = data::read(reader, datatype, expected)?;
        if count < expected {
            return Err(Trouble::text("Failed to parse 'data' field: shape does not match true shape"));
        }
        Ok((count, data))
    }

    fn parameters(&mut self, reader: &mut Reader<'_>) -> Result<(), Trouble> {
        if reader.peek() != b'{' {
            reader.skip()?;
            return Err(Trouble::text("Unable to parse 'parameters': attempt to access JSON non-object as object"));
        }
        reader.object(|reader, name| {
            let value = reader.scalar()?;
            match name {
                "binary_data_size" => self.binary_size = Some(unsigned(name, &value)?),
                "shared_memory_region" => self.shared_memory = true,
                _ => {}
            }
            Ok(())
        })
    }
}

/// Where the value starts, skipped over.
fn skipped<'a>(reader: &mut Reader<'a>) -> Result<Reader<'a>, Trouble> {
    let start = *reader;
    reader.skip()?;
    Ok(start)
}

fn text(reader: &mut Reader<'_>, field: &str) -> Result<String, Trouble> {
    match reader.scalar()? {
        Scalar::String(text) => Ok(text.into_owned()),
        _ => Err(Trouble::text(format!("Unable to parse '{field}': attempt to access JSON non-string as string"))),
    }
}

/// Integers only, none negative (W15, B4).
fn shape(reader: &mut Reader<'_>) -> Result<Vec<i64>, Trouble> {
    if reader.peek() != b'[' {
        reader.skip()?;
        return Err(Trouble::text("Unable to parse 'shape': attempt to access JSON non-array as array"));
    }
    let mut dims = Vec::with_capacity(4);
    reader.array(|reader| {
        let dim = unsigned("shape", &reader.scalar()?)?;
        dims.push(i64::try_from(dim).map_err(|_| {
            Trouble::text(format!("Unable to parse 'shape': dimension {dim} exceeds the maximum of {}", i64::MAX))
        })?);
        Ok(())
    })?;
    Ok(dims)
}

fn unsigned(field: &str, value: &Scalar<'_>) -> Result<u64, Trouble> {
    match *value {
        Scalar::Int(value) if value >= 0 => Ok(value as u64),
        Scalar::Uint(value) => Ok(value),
        _ => Err(Trouble::text(format!(
            "Unable to parse '{field}': attempt to access JSON non-unsigned-integer as unsigned-integer"
        ))),
    }
}
