//! How the core is set up: one document from Python, refused where a field is unknown.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::auth::restricted::RestrictedRow;
use crate::error::InferError;
use crate::server::tls::TlsOptions;
use crate::trace::TraceOptions;

/// Everything that the core is told before it starts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreOptions {
    /// `name` of the server metadata.
    #[serde(default = "naiad")]
    pub server_id: String,
    /// `version` of the server metadata.
    pub server_version: String,
    /// The v2 listener; none = no HTTP.
    #[serde(default)]
    pub http: Option<ListenerOptions>,
    /// The gRPC listener; none = no gRPC.
    #[serde(default)]
    pub grpc: Option<ListenerOptions>,
    /// How gRPC connections are kept.
    #[serde(default)]
    pub grpc_connections: GrpcConnections,
    /// Bound of the JSON part, of a tensor expanded from JSON and of a raw body (W23).
    #[serde(default = "max_input_size")]
    pub max_input_size: u64,
    /// Bound of the whole body where a binary tail is present.
    #[serde(default = "max_binary_size")]
    pub max_binary_size: u64,
    /// Whether every request but health needs a key.
    pub require_key: bool,
    /// BLAKE3 digest of an `admin` key that works before any snapshot.
    #[serde(default)]
    pub bootstrap_key: Option<String>,
    /// Whether a load request without a key may carry `file:` content.
    #[serde(default)]
    pub allow_file_override: bool,
    /// Whether clients may register regions of shared memory (W73).
    #[serde(default)]
    pub allow_client_shm: bool,
    /// Who may load and unload.
    pub model_control: ModelControl,
    /// Threads that move bytes.
    #[serde(default = "io_threads")]
    pub io_threads: usize,
    /// Bytes that queued and running requests and arenas may hold.
    pub byte_budget: u64,
    /// Bytes of the response cache, 0 = none.
    #[serde(default)]
    pub cache_byte_size: u64,
    /// How long to spin before sleeping.
    #[serde(default)]
    pub busy_poll_us: u64,
    /// Further `Host` values; `*` = any.
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may call the v2 listener; `*` = any.
    #[serde(default)]
    pub cors_origins: Vec<String>,
    /// Where log records go.
    #[serde(default)]
    pub log: LogOptions,
    /// A line for each request.
    #[serde(default)]
    pub access_log: AccessLogOptions,
    /// The metrics listener and what it shows; none = no metrics.
    #[serde(default)]
    pub metrics: Option<MetricsOptions>,
    /// Which requests are traced, and where their traces go.
    #[serde(default)]
    pub trace: TraceOptions,
}

/// Where to listen.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerOptions {
    /// The address to bind.
    pub address: IpAddr,
    /// The port; 0 picks one.
    pub port: u16,
    /// Whether another process may bind the same port.
    #[serde(default)]
    pub reuse_port: bool,
    /// Triton's restricted API.
    #[serde(default)]
    pub restricted: Vec<RestrictedRow>,
    /// Encrypts its connections; none = plain.
    #[serde(default)]
    pub tls: Option<TlsOptions>,
    /// Which headers become request parameters; empty = none.
    #[serde(default)]
    pub forward: String,
}

/// How gRPC connections are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcConnections {
    /// Silence after which the server asks whether the client is still there.
    pub keepalive_time_millis: u64,
    /// How long the client may take to answer that.
    pub keepalive_timeout_millis: u64,
    /// Age at which a connection takes no further calls; 0 = none.
    pub max_age_millis: u64,
    /// What running calls get after that; 0 = as long as they take.
    pub max_age_grace_millis: u64,
    /// How much effort goes into compressing inference responses.
    pub compression: CompressionLevel,
}

/// Triton's levels of compression.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum CompressionLevel {
    /// Responses are sent as they are.
    #[default]
    None,
    /// Fast.
    Low,
    /// In between.
    Medium,
    /// Small.
    High,
}

impl Default for GrpcConnections {
    fn default() -> Self {
        let (time, timeout) = (7_200_000, 20_000);
        Self {
            keepalive_time_millis: time,
            keepalive_timeout_millis: timeout,
            max_age_millis: 0,
            max_age_grace_millis: 0,
            compression: CompressionLevel::None,
        }
    }
}

/// The metrics listener and what it shows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsOptions {
    /// Where to listen.
    pub listener: ListenerOptions,
    /// Whether Triton's sums of durations are shown.
    #[serde(default = "yes")]
    pub counter_latencies: bool,
    /// Whether Triton's histogram of first responses is shown.
    #[serde(default)]
    pub histogram_latencies: bool,
    /// What it says of the machine.
    #[serde(default)]
    pub machine: MachineOptions,
}

/// What the metrics say of the machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MachineOptions {
    /// Whether its processors and memory are shown.
    pub cpu: bool,
    /// Whether its GPUs are shown.
    pub gpu: bool,
    /// How old a reading may be.
    pub interval_ms: u64,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self { cpu: true, gpu: true, interval_ms: 2000 }
    }
}

/// Who decides what is loaded.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ModelControl {
    /// Everything at start, nothing later.
    None,
    /// The repository's changes.
    Poll,
    /// Requests.
    Explicit,
}

/// Where log records go and which of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogOptions {
    /// How a line looks.
    #[serde(default)]
    pub format: LogFormat,
    /// Which levels are written.
    #[serde(default)]
    pub level: LogLevels,
    /// A file instead of stderr.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// A folder for one JSON lines file a model.
    #[serde(default)]
    pub dir: Option<PathBuf>,
}

/// Where lines about requests go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLogOptions {
    /// The file, `-` = standard output; none = no lines.
    pub file: Option<PathBuf>,
    /// One of so many good requests is written; 0 is 1.
    pub rate: u64,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum LogFormat {
    /// Triton's own.
    #[default]
    #[serde(rename = "default")]
    Default,
    /// Triton's with an ISO 8601 time.
    #[serde(rename = "ISO8601")]
    Iso8601,
    /// One JSON object a line.
    #[serde(rename = "json")]
    Json,
}

/// Which levels are written.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogLevels {
    /// What happens.
    pub info: bool,
    /// What may go wrong.
    pub warning: bool,
    /// What went wrong.
    pub error: bool,
    /// How much detail, 0 = none.
    pub verbose: u32,
}

impl Default for LogLevels {
    fn default() -> Self {
        Self { info: true, warning: true, error: true, verbose: 0 }
    }
}

impl CoreOptions {
    /// Reads the document; the message names the field that is wrong.
    pub fn from_json(document: &[u8]) -> Result<Self, InferError> {
        let options: Self = parse("CoreOptions", document)?;
        if options.io_threads == 0 {
            return Err(InferError::InvalidArgument(
                "CoreOptions: 'io_threads': expected at least 1, got 0".to_owned(),
            ));
        }
        Ok(options)
    }
}

/// Reads a document that crosses from Python; `what` names it in the message.
pub fn parse<'a, T: Deserialize<'a>>(what: &str, document: &'a [u8]) -> Result<T, InferError> {
    serde_json::from_slice(document).map_err(|fault| InferError::InvalidArgument(format!("{what}: {fault}")))
}

fn naiad() -> String {
    "naiad".to_owned()
}

fn max_input_size() -> u64 {
    64 << 20
}

fn max_binary_size() -> u64 {
    2 << 30
}

fn yes() -> bool {
    true
}

fn io_threads() -> usize {
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"{"server_version":"1","require_key":false,"model_control":"none","byte_budget":1}"#;

    #[test]
    fn defaults_fill_what_is_left_out() {
        let options = CoreOptions::from_json(LEAST.as_bytes()).unwrap();
        assert_eq!((options.server_id.as_str(), options.max_input_size), ("naiad", 67_108_864));
        assert!(options.log.level.info && options.http.is_none());
    }

    #[test]
    fn an_unknown_field_is_named() {
        let document = LEAST.replace('}', r#","htttp":null}"#);
        let text = CoreOptions::from_json(document.as_bytes()).unwrap_err().to_string();
        assert!(text.contains("unknown field `htttp`"), "{text}");
    }
}
