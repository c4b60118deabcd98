//! What is known of one traced request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use naiad_tensor::DataType;

use super::context::Spans;
use super::settings::Level;

/// What happened, by Triton's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    HttpRecvStart,
    HttpRecvEnd,
    HttpSendStart,
    HttpSendEnd,
    GrpcWaitreadStart,
    GrpcWaitreadEnd,
    GrpcSendStart,
    GrpcSendEnd,
    RequestStart,
    QueueStart,
    ComputeStart,
    ComputeInputEnd,
    ComputeOutputStart,
    ComputeEnd,
    RequestEnd,
    InferResponseComplete,
}

impl Event {
    /// As files and spans show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HttpRecvStart => "HTTP_RECV_START",
            Self::HttpRecvEnd => "HTTP_RECV_END",
            Self::HttpSendStart => "HTTP_SEND_START",
            Self::HttpSendEnd => "HTTP_SEND_END",
            Self::GrpcWaitreadStart => "GRPC_WAITREAD_START",
            Self::GrpcWaitreadEnd => "GRPC_WAITREAD_END",
            Self::GrpcSendStart => "GRPC_SEND_START",
            Self::GrpcSendEnd => "GRPC_SEND_END",
            Self::RequestStart => "REQUEST_START",
            Self::QueueStart => "QUEUE_START",
            Self::ComputeStart => "COMPUTE_START",
            Self::ComputeInputEnd => "COMPUTE_INPUT_END",
            Self::ComputeOutputStart => "COMPUTE_OUTPUT_START",
            Self::ComputeEnd => "COMPUTE_END",
            Self::RequestEnd => "REQUEST_END",
            Self::InferResponseComplete => "INFER_RESPONSE_COMPLETE",
        }
    }
}

/// How a request came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Front {
    #[default]
    Http,
    Grpc,
}

/// A tensor as it was at one of Triton's stations.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The station.
    pub activity: &'static str,
    /// Its name.
    pub name: String,
    /// Its datatype.
    pub datatype: DataType,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its bytes; shared by stations that see the same.
    pub data: Bytes,
}

/// Bytes of tensors that wait to be written, together.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<AtomicU64>);

/// What a trace holds of it.
#[derive(Debug, Default)]
pub struct Hold(Option<Room>, u64);

impl Room {
    const MOST: u64 = 64 << 20;

    /// Adds to what a trace holds; false if there is no room.
    pub fn hold(&self, hold: &mut Hold, bytes: u64) -> bool {
        if self.0.fetch_add(bytes, Ordering::Relaxed) + bytes > Self::MOST {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        hold.0.get_or_insert_with(|| self.clone());
        hold.1 += bytes;
        true
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(room) = &self.0 {
            room.0.fetch_sub(self.1, Ordering::Relaxed);
        }
    }
}

/// One traced request.
#[derive(Debug, Default)]
pub struct Trace {
    /// Its number since the start.
    pub id: u64,
    /// How it came.
    pub front: Front,
    /// The name that the client used.
    pub model: Arc<str>,
    /// The version that runs.
    pub version: u64,
    /// The client's id; empty if none.
    pub request_id: String,
    /// What is kept of it.
    pub level: Level,
    /// Whose settings chose it.
    pub group: Arc<str>,
    /// Traces a file, 0 = all in one.
    pub log_frequency: u32,
    /// In the order of time once it is over; monotonic nanoseconds.
    pub events: Vec<(Event, u64)>,
    /// In the order of their stations.
    pub tensors: Vec<Tensor>,
    /// Batch elements that ran together; 0 if unknown.
    pub batch: u32,
    /// Why it failed.
    pub fault: Option<String>,
    /// Its place among the spans of others.
    pub spans: Option<Spans>,
    /// Room for its tensors.
    pub hold: Hold,
}
