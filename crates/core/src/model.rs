//! A model version as the engine serves it, and the check of a request against its inputs and outputs.

use std::fmt::Write as _;
use std::sync::Arc;

use naiad_tensor::DataType;

use crate::error::InferError;
use crate::instance::control::Voice;
use crate::request::{InferRequest, InputTensor, Parameter};
use crate::scheduler::Scheduler;
use crate::spec::{ModelSpec, TensorSpec};
use crate::statistics::Statistics;

const BATCH_NOTE: &str = "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be \
    prepended to each input shape. If you want to specify the full shape including the batch dim in your input dims \
    config, try setting max_batch_size to zero. See the model configuration docs for more info on max_batch_size.";

const MAX_PARAMETERS: usize = 2 << 20;

/// What schedulers and workers know of the model version that they run.
#[derive(Debug)]
pub struct Served {
    /// The finished specification.
    pub spec: Arc<ModelSpec>,
    /// The model's name, shared with every response.
    pub name: Arc<str>,
    /// The outputs' names by index, shared with every response.
    pub output_names: Vec<Arc<str>>,
    /// The version's counters.
    pub statistics: Arc<Statistics>,
    /// What its workers say besides their answers.
    pub voice: Arc<Voice>,
}

impl Served {
    /// Fresh counters for `spec`.
    pub fn new(spec: ModelSpec) -> Arc<Self> {
        let name = Arc::from(spec.name.as_str());
        let output_names = spec.outputs.iter().map(|output| Arc::from(output.name.as_str())).collect();
        Arc::new(Self { spec: Arc::new(spec), name, output_names, statistics: Arc::default(), voice: Arc::default() })
    }
}

/// One published model version.
#[derive(Debug)]
pub struct Model {
    /// The finished specification.
    pub spec: Arc<ModelSpec>,
    /// The version's counters.
    pub statistics: Arc<Statistics>,
    /// What its workers say besides their answers.
    pub voice: Arc<Voice>,
    /// Decides when a request runs and with whom.
    pub scheduler: Arc<dyn Scheduler>,
}

impl Model {
    /// Whether at least one worker can answer now, and the model's code says nothing else; while a worker is being
    /// restarted requests queue.
    pub async fn is_ready(&self) -> bool {
        self.scheduler.workers() > 0 && self.voice.is_ready().await
    }

    /// Names, datatypes, shapes and sizes of a request; the texts are Triton's (protocol §6).
    pub fn check(&self, request: &InferRequest) -> Result<(), InferError> {
        check_parameters(request)?;
        self.check_outputs(request)?;
        self.check_names(request)?;
        self.check_batch(request)?;
        for input in &request.inputs {
            let spec = self.input(&input.name).ok_or_else(|| self.unexpected("input", &input.name))?;
            self.check_input(&request.id, input, spec)?;
        }
        Ok(())
    }

    fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.spec.inputs.iter().find(|input| input.name == name)
    }

    fn unexpected(&self, what: &str, name: &str) -> InferError {
        InferError::InvalidArgument(format!("unexpected inference {what} '{name}' for model '{}'", self.spec.name))
    }

    fn check_outputs(&self, request: &InferRequest) -> Result<(), InferError> {
        for (position, name) in request.outputs.iter().enumerate() {
            if request.outputs[..position].contains(name) {
                return Err(InferError::request(&request.id, format!("output '{name}' already exists in request")));
            }
            if !self.spec.outputs.iter().any(|output| output.name == *name) {
                return Err(self.unexpected("output", name));
            }
        }
        Ok(())
    }

    fn check_names(&self, request: &InferRequest) -> Result<(), InferError> {
        for (position, input) in request.inputs.iter().enumerate() {
            if request.inputs[..position].iter().any(|other| other.name == input.name) {
                let text = format!("input '{}' already exists in request", input.name);
                return Err(InferError::request(&request.id, text));
            }
        }
        let given = |spec: &TensorSpec| request.inputs.iter().any(|input| input.name == spec.name);
        let required = self.spec.inputs.iter().filter(|input| !input.optional).count();
        let got = request.inputs.len();
        if got <= self.spec.inputs.len() && got >= required {
            if let Some(input) = request.inputs.iter().find(|input| self.input(&input.name).is_none()) {
                return Err(self.unexpected("input", &input.name));
            }
            if self.spec.inputs.iter().all(|input| input.optional || given(input)) {
                return Ok(());
            }
        }
        let count = self.spec.inputs.len();
        let expected = if required == count {
            format!("expected {count} inputs")
        } else {
            format!("expected number of inputs between {required} and {count}")
        };
        let missing = self.spec.inputs.iter().filter(|input| !input.optional && !given(input));
        let text = format!(
            "{expected} but got {got} inputs for model '{}'. Got input(s) {}, but missing required input(s) {}. \
             Please provide all required input(s).",
            self.spec.name,
            quoted(request.inputs.iter().map(|input| input.name.as_str())),
            quoted(missing.map(|input| input.name.as_str())),
        );
        Err(InferError::request(&request.id, text))
    }

    fn check_batch(&self, request: &InferRequest) -> Result<(), InferError> {
        let limit = self.spec.max_batch_size;
        if limit == 0 {
            return Ok(());
        }
        let name = &self.spec.name;
        let mut batch = None;
        for input in &request.inputs {
            let Some(&rows) = input.shape.first() else {
                let text =
                    format!("input '{}' has no shape but model requires batch dimension for '{name}'", input.name);
                return Err(InferError::request(&request.id, text));
            };
            if *batch.get_or_insert(rows) != rows {
                let text = format!("input '{}' batch size does not match other inputs for '{name}'", input.name);
                return Err(InferError::request(&request.id, text));
            }
        }
        if batch.is_some_and(|rows| rows > i64::from(limit)) {
            let text = format!("inference request batch-size must be <= {limit} for '{name}'");
            return Err(InferError::request(&request.id, text));
        }
        Ok(())
    }

    fn check_input(&self, id: &str, input: &InputTensor, spec: &TensorSpec) -> Result<(), InferError> {
        let model = &self.spec.name;
        let name = &input.name;
        if input.datatype != spec.datatype {
            let text = format!(
                "inference input '{name}' data-type is '{}', but model '{model}' expects '{}'",
                input.datatype.name(),
                spec.datatype.name()
            );
            return Err(InferError::request(id, text));
        }
        if input.shape.iter().any(|dim| *dim < 0) {
            let text = format!(
                "All input dimensions should be specified for input '{name}' for model '{model}', got {}",
                dims_text(&input.shape)
            );
            return Err(InferError::request(id, text));
        }
        let batching = self.spec.max_batch_size > 0;
        let dims = if batching { &input.shape[1..] } else { &input.shape[..] };
        let fits =
            dims.len() == spec.dims.len() && dims.iter().zip(&spec.dims).all(|(got, want)| *want == -1 || got == want);
        if !fits {
            let mut expected = if batching { vec![-1] } else { Vec::new() };
            expected.extend(&spec.dims);
            let text = format!(
                "unexpected shape for input '{name}' for model '{model}'. Expected {}, got {}. {}",
                dims_text(&expected),
                dims_text(&input.shape),
                if batching { BATCH_NOTE } else { "" }
            );
            return Err(InferError::request(id, text));
        }
        check_size(id, model, input)
    }
}

/// What a request with a datatype that is none reads of input `name`.
pub fn unknown_datatype(model: &ModelSpec, id: &str, name: &str) -> InferError {
    let model_name = &model.name;
    match model.inputs.iter().find(|input| input.name == name) {
        Some(input) => {
            let expected = input.datatype.name();
            let text = format!(
                "inference input '{name}' data-type is '<invalid>', but model '{model_name}' expects '{expected}'"
            );
            InferError::request(id, text)
        }
        None => InferError::InvalidArgument(format!("unexpected inference input '{name}' for model '{model_name}'")),
    }
}

/// Id and parameters travel as one JSON object, whose length has 24 bits; escapes make it six times longer at most.
fn check_parameters(request: &InferRequest) -> Result<(), InferError> {
    let text = |value: &Parameter| if let Parameter::String(text) = value { text.len() } else { 0 };
    let each = request.parameters.iter().map(|(name, value)| name.len() + text(value) + 32);
    let bytes = request.id.len() + each.sum::<usize>();
    if bytes <= MAX_PARAMETERS {
        return Ok(());
    }
    Err(InferError::InvalidArgument(format!(
        "request id and parameters of {bytes} bytes exceed the limit of {MAX_PARAMETERS} bytes"
    )))
}

/// Whether an array without elements may have this shape: its other dims must not overflow, or no worker can make it.
fn is_array(shape: &[i64]) -> bool {
    let others = shape.iter().filter(|dim| **dim != 0);
    others.copied().try_fold(LARGEST_ELEMENT, i64::checked_mul).is_some()
}

/// The number of bytes of a tensor against its shape.
fn check_size(id: &str, model: &str, input: &InputTensor) -> Result<(), InferError> {
    let name = &input.name;
    let elements = element_count(&input.shape).filter(|count| *count > 0 || is_array(&input.shape));
    let Some(elements) = elements else {
        return Err(InferError::InvalidArgument(format!(
            "invalid shape for input '{name}': shape {} causes total element count to exceed maximum size of {}",
            dims_text(&input.shape),
            i64::MAX
        )));
    };
    let Some(size) = input.datatype.size() else {
        return check_strings(id, model, input, elements);
    };
    let Some(expected) = elements.checked_mul(size as u64).filter(|bytes| i64::try_from(*bytes).is_ok()) else {
        return Err(InferError::InvalidArgument(format!(
            "byte size overflow for input '{name}': shape {} of data-type '{}' exceeds maximum size of {} bytes",
            dims_text(&input.shape),
            input.datatype.name(),
            i64::MAX
        )));
    };
    if expected == input.data.len() as u64 {
        return Ok(());
    }
    let text = format!(
        "input byte size mismatch for input '{name}' for model '{model}'. Expected {expected}, got {}",
        input.data.len()
    );
    Err(InferError::request(id, text))
}

/// The elements of a `BYTES` tensor against its shape (W29).
fn check_strings(id: &str, model: &str, input: &InputTensor, expected: u64) -> Result<(), InferError> {
    let text = match walk_strings(&input.data.contiguous(), expected) {
        Ok(count) if count == expected => return Ok(()),
        Ok(count) => format!(
            "expected {expected} string elements for inference input '{}' for model '{model}', got {count}",
            input.name
        ),
        Err(StringFault::Many) => format!(
            "unexpected number of string elements {} for inference input '{}' for model '{model}', expecting {expected}",
            expected + 1,
            input.name
        ),
        Err(StringFault::ShortLength(left)) => format!(
            "incomplete string length indicator for inference input '{}' for model '{model}', expecting 4 bytes but \
             only {left} bytes available. Please make sure the string length indicator is in one buffer.",
            input.name
        ),
        Err(StringFault::ShortData { wanted, left }) => format!(
            "incomplete string data for inference input '{}' for model '{model}', expecting string of length {wanted} \
             but only {left} bytes available.",
            input.name
        ),
    };
    Err(InferError::request(id, text))
}

/// What is wrong with the bytes of a `BYTES` tensor.
#[derive(Debug, PartialEq, Eq)]
pub enum StringFault {
    /// More elements than the shape has.
    Many,
    /// So many bytes where four should give a length.
    ShortLength(usize),
    /// An element longer than what is left.
    ShortData {
        /// Bytes that its length asks for.
        wanted: u32,
        /// Bytes that are there.
        left: usize,
    },
}

/// Counts the elements of a `BYTES` tensor, at most `limit`.
pub fn walk_strings(data: &[u8], limit: u64) -> Result<u64, StringFault> {
    let mut rest = data;
    let mut count = 0;
    while !rest.is_empty() {
        if count == limit {
            return Err(StringFault::Many);
        }
        let Some((length, tail)) = rest.split_first_chunk::<4>() else {
            return Err(StringFault::ShortLength(rest.len()));
        };
        let wanted = u32::from_le_bytes(*length);
        let left = tail.len();
        rest = tail.get(wanted as usize..).ok_or(StringFault::ShortData { wanted, left })?;
        count += 1;
    }
    Ok(count)
}

/// Bytes of the largest element that an array of a worker has.
const LARGEST_ELEMENT: i64 = 8;

/// The number of elements of a shape without negative dims; `None` above `i64::MAX`.
pub fn element_count(shape: &[i64]) -> Option<u64> {
    let product = shape.iter().try_fold(1u64, |product, dim| product.checked_mul(u64::try_from(*dim).ok()?));
    // A zero makes the product 0 wherever it stands, so the others must not overflow first.
    let count = if shape.contains(&0) { Some(0) } else { product };
    count.filter(|count| i64::try_from(*count).is_ok() && shape.iter().all(|dim| *dim >= 0))
}

/// Bytes of a fixed-size tensor; `None` for `BYTES`, negative dims and overflow.
pub fn byte_size(datatype: DataType, shape: &[i64]) -> Option<u64> {
    element_count(shape)?.checked_mul(datatype.size()? as u64)
}

/// A shape as error texts show it: `[-1,1,32,32]`.
pub fn dims_text(dims: &[i64]) -> String {
    let mut text = String::from("[");
    for (position, dim) in dims.iter().enumerate() {
        let comma = if position > 0 { "," } else { "" };
        write!(text, "{comma}{dim}").expect("writing to a string does not fail");
    }
    text.push(']');
    text
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("'{name}'")).collect();
    format!("[{}]", names.join(","))
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
