//! Generate: a flat JSON object into a request, a response into a flat JSON object (W58, W61).

use bytes::Bytes;

use super::decode::{DecodeOptions, Target, empty, explain, set_parameter};
use super::encode::{data, integer, string, value};
use super::reader::{Reader, Scalar};
use super::{Trouble, data as elements, set_once, text};
use crate::error::InferError;
use crate::model::element_count;
use crate::request::{InferRequest, InferResponse, InputTensor, Parameter};
use crate::spec::{ModelSpec, TensorSpec};

/// Decodes a body for `model`: keys that are inputs, others that are parameters.
///
/// # Errors
/// The body is wrong.
pub fn decode_generate(
    model: &ModelSpec,
    target: Target<'_>,
    body: &[u8],
    options: DecodeOptions,
) -> Result<InferRequest, InferError> {
    let mut mapping = Mapping { model, options, id: None, request: empty(target) };
    mapping.document(body).map_err(|trouble| explain(trouble, body))?;
    mapping.request.id = mapping.id.unwrap_or_default();
    Ok(mapping.request)
}

struct Mapping<'m> {
    model: &'m ModelSpec,
    options: DecodeOptions,
    id: Option<String>,
    request: InferRequest,
}

impl Mapping<'_> {
    fn document(&mut self, json: &[u8]) -> Result<(), Trouble> {
        let mut reader = Reader::new(json);
        reader.start()?;
        if reader.peek() != b'{' {
            reader.skip()?;
            return Err(Trouble::text("failed to get generate request: attempt to get members for non-object"));
        }
        let mut nested = None;
        reader.object(|reader, name| match name {
            _ if self.is_input(name) => self.input(reader, name),
            "id" => set_once(&mut self.id, name, text(reader, name)?),
            "parameters" if reader.peek() == b'{' => {
                set_once(&mut nested, name, ())?;
                reader.object(
                    |reader, name| {
                        if self.is_input(name) { self.input(reader, name) } else { self.parameter(reader, name) }
                    },
                )
            }
            _ => self.parameter(reader, name),
        })?;
        Ok(reader.end()?)
    }

    fn is_input(&self, name: &str) -> bool {
        self.model.inputs.iter().any(|input| input.name == name)
    }

    fn parameter(&mut self, reader: &mut Reader<'_>, name: &str) -> Result<(), Trouble> {
        let value = reader.scalar()?;
        if matches!(value, Scalar::Nested | Scalar::Null) {
            return Err(Trouble::text(format!(
                "parameter '{name}' has invalid type. It should be either 'int', 'bool', or 'string'."
            )));
        }
        set_parameter(&mut self.request, name, value)
    }

    fn input(&mut self, reader: &mut Reader<'_>, name: &str) -> Result<(), Trouble> {
        let inputs = &self.model.inputs;
        let spec = inputs.iter().find(|input| input.name == name).expect("the caller has found it");
        if self.request.inputs.iter().any(|input| input.name == name) {
            return Err(Trouble::request(format!("input '{name}' already exists in request")));
        }
        let size = spec.datatype.size().unwrap_or(4) as u64;
        let most = self.options.max_input_size / size;
        let (count, data) = if reader.peek() == b'[' {
            elements::read(reader, spec.datatype, most)?
        } else {
            // A scalar is an array of one.
            let start = reader.at;
            reader.skip()?;
            let array = [b"[", &reader.bytes[start..reader.at], b"]"].concat();
            elements::read(&mut Reader::new(&array), spec.datatype, most)?
        };
        let shape = deduce(self.model, spec, count)?;
        self.request.inputs.push(InputTensor {
            name: name.to_owned(),
            datatype: spec.datatype,
            shape,
            data: data.into(),
        });
        Ok(())
    }
}

/// The innermost variable dim takes what the fixed ones leave, others are 1, the batch too (W61).
fn deduce(model: &ModelSpec, input: &TensorSpec, count: u64) -> Result<Vec<i64>, Trouble> {
    let batch = (model.max_batch_size > 0).then_some(-1);
    let mut shape: Vec<i64> = batch.into_iter().chain(input.dims.iter().copied()).collect();
    let innermost = shape.iter().rposition(|dim| *dim == -1);
    shape.iter_mut().filter(|dim| **dim == -1).for_each(|dim| *dim = 1);
    let fixed = element_count(&shape).unwrap_or(0);
    if let (Some(at), Some(rest)) = (innermost, count.checked_div(fixed)) {
        shape[at] = rest as i64;
    }
    if element_count(&shape) == Some(count) {
        return Ok(shape);
    }
    let name = &input.name;
    Err(Trouble::text(format!("The schema can not convert input '{name}' to tensor with proper shape")))
}

/// A response as one flat object, keys in the order of their bytes, under the name that the client knows (W58).
pub fn encode_generate(response: &InferResponse, shown_model: &str) -> Bytes {
    let mut keys: Vec<(&str, Value<'_>)> = Vec::with_capacity(response.outputs.len() + response.parameters.len() + 3);
    keys.extend(response.outputs.iter().map(|output| (&*output.name, Value::Output(output))));
    keys.extend(response.parameters.iter().map(|(name, value)| (name.as_str(), Value::Parameter(value))));
    keys.push(("model_name", Value::Text(shown_model)));
    keys.push(("model_version", Value::Version(response.version)));
    if !response.id.is_empty() {
        keys.push(("id", Value::Text(&response.id)));
    }
    // Of two with one name the output counts.
    keys.sort_by_key(|(name, _)| *name);
    keys.dedup_by_key(|(name, _)| *name);
    let bytes: usize = response.outputs.iter().map(|output| output.data.len()).sum();
    let mut json = Vec::with_capacity(128 + bytes * 3);
    for (position, (name, value)) in keys.iter().enumerate() {
        json.push(if position == 0 { b'{' } else { b',' });
        value.put(name, &mut json);
    }
    json.push(b'}');
    json.into()
}

enum Value<'a> {
    Output(&'a crate::request::OutputTensor),
    Parameter(&'a Parameter),
    Text(&'a str),
    Version(u64),
}

impl Value<'_> {
    fn put(&self, name: &str, json: &mut Vec<u8>) {
        string(json, name);
        json.push(b':');
        match self {
            Self::Output(output) => {
                let scalar = element_count(&output.shape) == Some(1);
                if !scalar {
                    json.push(b'[');
                }
                data(json, output);
                if !scalar {
                    json.push(b']');
                }
            }
            Self::Parameter(parameter) => value(json, parameter),
            Self::Text(text) => string(json, text),
            Self::Version(version) => {
                json.push(b'"');
                integer(json, *version);
                json.push(b'"');
            }
        }
    }
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
