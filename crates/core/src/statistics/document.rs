//! The statistics extension's document (W64): every key is always there.

use std::collections::BTreeMap;

use serde::Serialize;

/// How often and how long altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DurationStatistics {
    /// Number of times.
    pub count: u64,
    /// Nanoseconds altogether.
    pub ns: u64,
}

/// One entry of `model_stats` (W64): every key is always there.
#[derive(Clone, Debug, Serialize)]
pub struct ModelStatistics {
    /// The model's name in the repository; a frontend may put an alias here.
    pub name: String,
    /// The version as the wire shows it.
    pub version: String,
    /// Milliseconds since the epoch, 0 if none.
    pub last_inference: u64,
    /// Batch elements (W65).
    pub inference_count: u64,
    /// Model runs.
    pub execution_count: u64,
    /// Over requests.
    pub inference_stats: InferenceStatistics,
    /// By index of the response.
    pub response_stats: BTreeMap<String, ResponseStatistics>,
    /// By batch size.
    pub batch_stats: Vec<BatchStatistics>,
    /// Memory that backends report; none does yet.
    pub memory_usage: Vec<MemoryUsage>,
}

/// `inference_stats` of the statistics extension.
#[derive(Clone, Debug, Serialize)]
pub struct InferenceStatistics {
    /// Whole time of answered requests.
    pub success: DurationStatistics,
    /// Whole time of failed requests.
    pub fail: DurationStatistics,
    /// From arrival to pick-up by a worker.
    pub queue: DurationStatistics,
    /// Inputs made ready.
    pub compute_input: DurationStatistics,
    /// The model itself.
    pub compute_infer: DurationStatistics,
    /// Outputs written.
    pub compute_output: DurationStatistics,
    /// Answers from the response cache.
    pub cache_hit: DurationStatistics,
    /// Requests that the response cache did not know.
    pub cache_miss: DurationStatistics,
}

/// `response_stats` of one response index.
#[derive(Clone, Debug, Serialize)]
pub struct ResponseStatistics {
    /// The model itself.
    pub compute_infer: DurationStatistics,
    /// Outputs written.
    pub compute_output: DurationStatistics,
    /// Good responses.
    pub success: DurationStatistics,
    /// Failed responses.
    pub fail: DurationStatistics,
    /// Responses without outputs.
    pub empty_response: DurationStatistics,
    /// Responses that nobody waited for.
    pub cancel: DurationStatistics,
}

/// `batch_stats` of one batch size.
#[derive(Clone, Debug, Serialize)]
pub struct BatchStatistics {
    /// Batch elements of one run.
    pub batch_size: u64,
    /// Inputs made ready.
    pub compute_input: DurationStatistics,
    /// The model itself.
    pub compute_infer: DurationStatistics,
    /// Outputs written.
    pub compute_output: DurationStatistics,
}

/// One row of `memory_usage`.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryUsage {
    /// `CPU`, `GPU` …
    #[serde(rename = "type")]
    pub kind: String,
    /// Which one.
    pub id: i64,
    /// Bytes in use.
    pub byte_size: u64,
}
