//! Traces of single requests: which are made, what they hold, and the thread that writes them or sends them on.

mod context;
mod export;
mod file;
mod options;
mod otlp;
mod probe;
mod record;
mod settings;
mod tensor;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::HeaderMap;

use crate::error::InferError;
use crate::log::Log;
use crate::model::Model;
use crate::statistics::monotonic_ns;
use context::{Parent, Spans};
use export::Exporter;
use file::Files;
pub use options::{ExportOptions, TraceOptions};
pub(crate) use probe::{Arrival, Probe};
pub(crate) use record::Front;
use record::Trace;
pub use settings::{Left, Level, Overrides, Settings, TraceSettings};
use writer::{Queue, Sink};

/// Traces that may wait to be written to a file.
const QUEUE: usize = 4096;

/// The traces of a server.
#[derive(Debug)]
pub(crate) struct Tracing {
    settings: TraceSettings,
    /// Where traces go; none = nowhere.
    queue: Option<Arc<Queue>>,
    /// Whether they are spans.
    spans: bool,
    made: AtomicU64,
}

impl Tracing {
    /// Opens the file, or gets ready to send, and starts the writer.
    pub(crate) fn start(options: &TraceOptions, log: &Log) -> Result<Self, InferError> {
        let spans = options.opentelemetry.is_some();
        let refusal = match (&options.opentelemetry, &options.file) {
            (Some(_), _) => no_span,
            (None, Some(_)) => no_line,
            (None, None) => |_: &Settings| Some("trace file name is not given"),
        };
        let settings = TraceSettings::new(options, refusal)?;
        let (sink, size) = match (&options.opentelemetry, &options.file) {
            (Some(export), _) => {
                let exporter = Exporter::new(export)?;
                let waiting = exporter.waiting();
                (Some(Sink::Export(exporter)), waiting)
            }
            (None, Some(file)) => (Some(Sink::File(Files::open(file, options.log_frequency)?)), QUEUE),
            (None, None) => (None, 0),
        };
        let queue = sink.map(|sink| Queue::start(sink, size, log.clone())).transpose();
        let queue = queue.map_err(|fault| InferError::Internal(format!("cannot start the trace writer: {fault}")))?;
        Ok(Self { settings, queue, spans, made: AtomicU64::new(0) })
    }

    /// What is traced.
    pub(crate) fn settings(&self) -> &TraceSettings {
        &self.settings
    }

    /// Notes when a request came; all that an untraced one pays for.
    #[inline]
    pub(crate) fn arrival(&self, front: Front) -> Arrival {
        Arrival { front, at: if self.settings.is_on() { monotonic_ns() } else { 0 } }
    }

    /// Follows the request if it is chosen. `name` is the one that the client used.
    #[inline]
    pub(crate) fn sample(&self, arrival: Arrival, name: &Arc<str>, model: &Model, headers: &HeaderMap) -> Probe {
        if arrival.at == 0 {
            return Probe::default();
        }
        let trace = self.choose(name, headers).map(|trace| Trace { version: model.spec.version, ..trace });
        let opened = trace.zip(self.queue.as_ref());
        opened.map_or_else(Probe::default, |(trace, queue)| Probe::open(trace, arrival, Arc::clone(queue)))
    }

    #[cold]
    fn choose(&self, name: &Arc<str>, headers: &HeaderMap) -> Option<Trace> {
        let sampler = self.settings.sampler(name);
        let level = sampler.settings.level;
        let parent = if self.spans { Parent::of(headers) } else { None };
        // Who keeps the span above has to find the ones below.
        let wanted = parent.is_some_and(|parent| parent.sampled);
        if level.is_off() || !(wanted || sampler.chooses()) {
            return None;
        }
        Some(Trace {
            id: self.made.fetch_add(1, Ordering::Relaxed) + 1,
            model: Arc::clone(name),
            level,
            group: Arc::clone(&sampler.group),
            log_frequency: sampler.settings.log_frequency,
            spans: if self.spans { Some(Spans::below(parent)?) } else { None },
            ..Trace::default()
        })
    }

    /// Waits until all that is queued is written, within bounds. No request is followed any more by then.
    pub(crate) fn close(&self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
    }
}

fn no_span(settings: &Settings) -> Option<&'static str> {
    settings.level.tensors.then_some("mode opentelemetry has no level TENSORS")
}

fn no_line(settings: &Settings) -> Option<&'static str> {
    (settings.rate == 0).then_some("sample rate must be non-zero")
}
