//! How the data plane is set up; crosses from Python once, at start.

use std::path::PathBuf;

use serde::Deserialize;

/// Options of one server; an unknown field is an error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreOptions {
    /// `name` of the server metadata.
    #[serde(default = "server_id")]
    pub server_id: String,
    /// `version` of the server metadata.
    pub server_version: String,
    /// The v2 listener; none = off.
    pub http: Option<ListenerOptions>,
    /// Bound of the JSON part, of each tensor made from JSON and of a raw body, in bytes (W23).
    #[serde(default = "max_input_size")]
    pub max_input_size: u64,
    /// Bound of a whole body with a binary tail, in bytes.
    #[serde(default = "max_binary_size")]
    pub max_binary_size: u64,
    /// Deny whatever comes without a key; false = keyless loopback.
    pub require_key: bool,
    /// BLAKE3 hex digest of an `admin` key that works before any snapshot.
    #[serde(default)]
    pub bootstrap_key: Option<String>,
    /// Whether a load call without a key may carry `file:` content (W68).
    #[serde(default)]
    pub allow_file_override: bool,
    /// Who decides what is loaded.
    #[serde(default)]
    pub model_control: ModelControl,
    /// tokio threads.
    #[serde(default = "io_threads")]
    pub io_threads: usize,
    /// Bytes that all queued and running requests and arenas may hold.
    pub byte_budget: u64,
    /// Microseconds to spin for a reply before sleeping.
    #[serde(default)]
    pub busy_poll_us: u64,
    /// `Host` values accepted beside loopback names and the bound address; `*` = any.
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
    /// Where log records go.
    #[serde(default)]
    pub log: LogOptions,
}

/// One listening address.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerOptions {
    /// An IP address.
    pub address: String,
    /// 0 = the system picks one.
    pub port: u16,
    /// `SO_REUSEPORT`.
    #[serde(default)]
    pub reuse_port: bool,
}

/// `--model-control-mode`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ModelControl {
    /// All models at start.
    #[default]
    None,
    /// The repository is scanned.
    Poll,
    /// Clients load and unload.
    Explicit,
}

/// Sinks and levels of the log.
#[derive(Clone, Debug, Deserialize)]
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
    /// A folder that gets one `<name>.jsonl` a model.
    #[serde(default)]
    pub dir: Option<PathBuf>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { format: LogFormat::Default, level: LogLevels::default(), file: None, dir: None }
    }
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum LogFormat {
    /// Triton's line: `I1122 14:24:01.987651 17437 …] "msg"`.
    #[default]
    #[serde(rename = "default")]
    Default,
    /// `2026-01-02T03:04:05Z I …`.
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
    /// `--log-info`.
    pub info: bool,
    /// `--log-warning`.
    pub warning: bool,
    /// `--log-error`.
    pub error: bool,
    /// `--log-verbose`.
    pub verbose: u32,
}

impl Default for LogLevels {
    fn default() -> Self {
        Self { info: true, warning: true, error: true, verbose: 0 }
    }
}

fn server_id() -> String {
    "naiad".to_owned()
}

const fn max_input_size() -> u64 {
    64 << 20
}

const fn max_binary_size() -> u64 {
    2 << 30
}

const fn io_threads() -> usize {
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_named() {
        let text = r#"{"server_version":"1","require_key":false,"byte_budget":1,"http":null,"htpp":1}"#;
        let error = serde_json::from_str::<CoreOptions>(text).unwrap_err().to_string();
        assert!(error.contains("unknown field `htpp`"), "{error}");
    }
}
