//! What Python tells the core about a model version: finished, checked and normalised.

use std::collections::BTreeMap;

use bytes::Bytes;
use naiad_tensor::DataType;
use serde::{Deserialize, Deserializer};

/// One model version, ready to be published. Crosses from Python as JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "properties of a model that do not depend on each other")]
pub struct ModelSpec {
    /// The model's name in the repository.
    pub name: String,
    /// The version's number.
    pub version: u64,
    /// `platform` of the metadata (W62): the configuration's platform or, if empty, its backend.
    pub platform: String,
    /// 0 = shapes are exact and nothing is merged.
    pub max_batch_size: u32,
    /// Inputs in the order of the configuration; the position is the index in the worker's tensor table.
    pub inputs: Vec<TensorSpec>,
    /// Outputs in the order of the configuration, likewise.
    pub outputs: Vec<TensorSpec>,
    /// How batches form.
    pub scheduler: SchedulerSpec,
    /// `max_queue_size` of the configuration or the default bound.
    pub max_queue_size: usize,
    /// Whether a request has any number of responses (`model_transaction_policy.decoupled`).
    #[serde(default)]
    pub decoupled: bool,
    /// Whether its code may ask what a request says besides its tensors; else that stays here.
    #[serde(default)]
    pub reads_requests: bool,
    /// Whether its answers may come from the response cache (`response_cache.enable`).
    #[serde(default)]
    pub response_cache: bool,
    /// The whole configuration as JSON text (W63), served as it is.
    pub config: String,
    /// The same encoded as the message `inference.ModelConfig`, in base64 (W51).
    #[serde(default, deserialize_with = "base64")]
    pub config_message: Bytes,
    /// Ids from `open_worker`, one for each instance.
    pub workers: Vec<u64>,
    /// Whether this version answers where the client names none.
    pub default_version: bool,
    /// `metric_tags` of the configuration: further labels of the model's metrics.
    #[serde(default)]
    pub metric_tags: BTreeMap<String, String>,
    /// How long its load took, in microseconds: from reading the configuration to the last instance's READY.
    #[serde(default)]
    pub load_us: u64,
}

/// One input or output of a model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The tensor's name.
    pub name: String,
    /// Its datatype by v2 name.
    #[serde(deserialize_with = "datatype")]
    pub datatype: DataType,
    /// Dims without the batch dimension; -1 = variable.
    pub dims: Vec<i64>,
    /// Dims that the worker sees instead of `dims`, where the configuration reshapes.
    pub reshape: Option<Vec<i64>>,
    /// An input that a request may leave out.
    pub optional: bool,
    /// Labels of a classification output, by index; empty if none.
    pub labels: Vec<String>,
}

/// The scheduler of a model version.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SchedulerSpec {
    /// One request is one execution.
    Direct,
    /// Requests are merged into batches (`features`: the exact rules).
    Dynamic {
        /// Preferred batch sizes; never empty after normalisation.
        preferred_batch_sizes: Vec<u32>,
        /// How long the oldest request may wait for company.
        max_queue_delay_us: u64,
        /// Responses leave in the order of the requests.
        preserve_ordering: bool,
        /// From enqueueing to the refusal, 0 = never.
        default_timeout_us: u64,
        /// Whether a request's `timeout` may shorten the default.
        allow_timeout_override: bool,
        /// `true` = serve after all others instead of refusing at the timeout.
        timeout_delays: bool,
        /// How many levels of priority there are, 1 the highest; 0 = none.
        #[serde(default)]
        priority_levels: u64,
        /// The level of a request that names none.
        #[serde(default)]
        default_priority_level: u64,
        /// The queue policies of levels that have one of their own.
        #[serde(default)]
        priority_policies: Vec<QueuePolicy>,
        /// Requests that may wait in a level without a policy of its own.
        #[serde(default)]
        level_queue_size: Option<usize>,
        /// Test hook: form nothing until so many requests are queued, once. 0 = off.
        hold_until: usize,
    },
}

/// How long the requests of one level of priority may wait, and how many.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueuePolicy {
    /// The level.
    pub level: u64,
    /// Requests that may wait; `None` = as many as the model's queue holds.
    pub max_queue_size: Option<usize>,
    /// From enqueueing to the refusal, 0 = never.
    pub default_timeout_us: u64,
    /// Whether a request's `timeout` may shorten the default.
    pub allow_timeout_override: bool,
    /// `true` = serve after all others of the level instead of refusing at the timeout.
    pub timeout_delays: bool,
}

/// One row of the repository index as Python last saw it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexRow {
    /// The model's name.
    pub name: String,
    /// The version, absent where none was ever loaded (W66).
    pub version: Option<u64>,
    /// `READY`, `UNAVAILABLE`, `LOADING`, `UNLOADING` or absent.
    pub state: Option<String>,
    /// Why it is not ready.
    pub reason: Option<String>,
}

/// Statistics and states by model name.
pub type ByName<T> = BTreeMap<String, T>;

fn datatype<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataType, D::Error> {
    let name = String::deserialize(deserializer)?;
    DataType::from_name(&name).ok_or_else(|| serde::de::Error::custom(format!("unknown datatype '{name}'")))
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::base64::decode(&text).map(Bytes::from).ok_or_else(|| serde::de::Error::custom("expected base64"))
}
