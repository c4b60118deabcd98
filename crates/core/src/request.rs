//! A request and a response as the engine sees them: no word of HTTP or gRPC.

use std::sync::Arc;

use bytes::Bytes;
use naiad_tensor::DataType;
use tokio::time::Instant;

use crate::rope::Rope;
use crate::statistics::Times;

/// A value of a request or response parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// `true` or `false`.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer above `i64::MAX`.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// A string.
    String(String),
}

/// Parameters in the order in which they came.
pub type Parameters = Vec<(String, Parameter)>;

/// One input tensor: its bytes are little-endian and row-major, `BYTES` elements carry their length (W29).
#[derive(Clone, Debug)]
pub struct InputTensor {
    /// The input's name.
    pub name: String,
    /// The datatype that the client named.
    pub datatype: DataType,
    /// The shape with the batch dimension, no negative dim.
    pub shape: Vec<i64>,
    /// The tensor's bytes; for binary tensors pieces of the request's body, an element may lie in two.
    pub data: Rope,
}

/// What a frontend hands to [`crate::engine::Engine::infer`].
#[derive(Clone, Debug)]
pub struct InferRequest {
    /// The model's name after aliases are resolved.
    pub model: Arc<str>,
    /// The version that the client asked for; `None` = by policy.
    pub version: Option<u64>,
    /// The client's request id; empty if none.
    pub id: String,
    /// Request parameters without those that have a field of their own.
    pub parameters: Parameters,
    /// `timeout` of the request in microseconds, 0 = none.
    pub timeout_us: u64,
    /// When the client no longer waits: the request leaves the queue and is answered then.
    pub deadline: Option<Instant>,
    /// `priority` of the request, 0 = the model's default.
    pub priority: u64,
    /// Input tensors in the order in which they came.
    pub inputs: Vec<InputTensor>,
    /// Names of the requested outputs; empty = all (W22).
    pub outputs: Vec<String>,
    /// Bytes of inputs that were taken from the budget before they were read.
    pub reserved: u64,
    /// W3C trace context that the model's code may hand on; none where the request is not traced.
    pub traceparent: Option<Box<str>>,
}

/// One output tensor, bytes as in [`InputTensor`].
#[derive(Clone, Debug)]
pub struct OutputTensor {
    /// The output's name.
    pub name: Arc<str>,
    /// Its datatype.
    pub datatype: DataType,
    /// Its shape with the batch dimension.
    pub shape: Vec<i64>,
    /// Its bytes.
    pub data: Bytes,
}

/// What the engine answers.
#[derive(Clone, Debug)]
pub struct InferResponse {
    /// The name that the client used (aliases are the frontend's to put back).
    pub model: Arc<str>,
    /// The version that ran.
    pub version: u64,
    /// The request's id.
    pub id: String,
    /// Response parameters of the backend.
    pub parameters: Arc<Parameters>,
    /// Output tensors in the model's order (W24).
    pub outputs: Vec<OutputTensor>,
    /// Where its time went.
    pub timing: Timing,
}

/// Where the time of a response went, in monotonic nanoseconds; all 0 where it was known already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// When its request was queued.
    pub queued: u64,
    /// What its worker did when.
    pub times: Times,
    /// Batch elements that ran together; 0 if the model does not batch.
    pub batch: u32,
}

impl Timing {
    /// How long it waited for its worker.
    pub fn queue(self) -> u64 {
        self.times.start.saturating_sub(self.queued)
    }
}

impl InferResponse {
    /// Bytes of all its tensors.
    pub fn bytes(&self) -> u64 {
        self.outputs.iter().map(|output| output.data.len() as u64).sum()
    }
}
