//! Where traces go and which there are at the start; only the settings can be changed later (F3).

use std::path::PathBuf;

use serde::Deserialize;

/// The `trace` object of `CoreOptions`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceOptions {
    /// `OFF` alone, or `TIMESTAMPS` and `TENSORS`.
    pub level: Vec<String>,
    /// Every which request; 0 = none but those whose caller asks for it.
    pub rate: u32,
    /// How many, -1 = no end.
    pub count: i32,
    /// Traces a file, 0 = all in one.
    pub log_frequency: u32,
    /// Triton's file; none = no traces of this kind.
    pub file: Option<PathBuf>,
    /// Where spans go instead; none = Triton's file.
    pub opentelemetry: Option<ExportOptions>,
}

impl Default for TraceOptions {
    fn default() -> Self {
        let level = vec!["OFF".to_owned()];
        Self { level, rate: 1000, count: -1, log_frequency: 0, file: None, opentelemetry: None }
    }
}

/// A receiver of OpenTelemetry spans.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportOptions {
    /// Its OTLP/HTTP address.
    pub url: String,
    /// What the spans are of: names and values.
    pub resource: Vec<(String, String)>,
    /// Spans that may wait.
    pub queue_size: usize,
    /// Spans a message.
    pub batch_size: usize,
    /// How long the first one waits for others.
    pub delay_millis: u64,
}
