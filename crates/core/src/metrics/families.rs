//! The one table of metric families that speak of model versions: Triton's `nv_*`, then Naiad's own.

use super::text::{Kind, Labels, Text};
use crate::model::Model;
use crate::options::MetricsOptions;
use crate::statistics::{DurationStatistics, ModelStatistics};

const NANOS_A_SECOND: f64 = 1e9;
const NANOS_A_MILLI: f64 = 1e6;

/// One model version at the moment of the scrape.
pub struct Row<'a> {
    /// The version.
    pub model: &'a Model,
    /// Its statistics, as their extension shows them.
    pub stats: ModelStatistics,
    /// `model`, `version` and the tags of its configuration.
    pub labels: Labels,
}

/// When a family is there at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Always.
    Always,
    /// `counter_latencies`.
    CounterLatencies,
    /// `histogram_latencies`.
    HistogramLatencies,
}

impl Switch {
    /// Whether the options turn it on.
    pub fn is_on(self, options: &MetricsOptions) -> bool {
        match self {
            Self::Always => true,
            Self::CounterLatencies => options.counter_latencies,
            Self::HistogramLatencies => options.histogram_latencies,
        }
    }
}

/// The samples of one family for one row.
pub struct Samples<'a> {
    text: &'a mut Text,
    name: &'static str,
    labels: &'a Labels,
}

impl Samples<'_> {
    fn value(&mut self, value: u64) {
        self.text.sample(self.name, self.labels.text(), value);
    }

    fn micros(&mut self, duration: DurationStatistics) {
        self.value(duration.ns / 1000);
    }

    fn labelled(&mut self, label: &str, rows: impl IntoIterator<Item = (impl AsRef<str>, u64)>) {
        for (value, count) in rows {
            self.text.sample(self.name, self.labels.with(label, value.as_ref()).text(), count);
        }
    }

    fn histogram(&mut self, seen: &crate::statistics::histogram::HistogramSnapshot, unit: f64) {
        self.text.histogram(self.name, self.labels.text(), seen, unit);
    }
}

/// One family.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub kind: Kind,
    /// What its `HELP` line says.
    pub help: &'static str,
    /// When it is there.
    pub switch: Switch,
    /// Writes a row's samples.
    write: fn(&Row<'_>, &mut Samples<'_>),
}

impl Family {
    /// Writes the family for all rows.
    pub fn write<'a>(&self, text: &mut Text, rows: impl Iterator<Item = (&'a Row<'a>, &'a Labels)>) {
        text.family(self.name, self.kind, self.help);
        for (row, labels) in rows {
            (self.write)(row, &mut Samples { text, name: self.name, labels });
        }
    }
}

const fn family(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    switch: Switch,
    write: fn(&Row<'_>, &mut Samples<'_>),
) -> Family {
    Family { name, kind, help, switch, write }
}

/// Triton's families: labels `model`, `version` and the tags.
pub static TRITON: &[Family] = {
    use Kind::{Counter, Gauge, Histogram};
    use Switch::{Always, CounterLatencies, HistogramLatencies};
    &[
        family(
            "nv_inference_request_success",
            Counter,
            "Requests that were answered well, all batch sizes",
            Always,
            |row, samples| samples.value(row.stats.inference_stats.success.count),
        ),
        family(
            "nv_inference_request_failure",
            Counter,
            "Requests that failed after they were queued, by reason",
            Always,
            |row, samples| {
                samples.labelled("reason", row.model.statistics.failures().map(|(why, count)| (why.name(), count)));
            },
        ),
        family(
            "nv_inference_count",
            Counter,
            "Batch elements that the model answered, without cached ones",
            Always,
            |row, samples| samples.value(row.stats.inference_count),
        ),
        family("nv_inference_exec_count", Counter, "Runs of the model, without cached ones", Always, |row, samples| {
            samples.value(row.stats.execution_count);
        }),
        family(
            "nv_inference_request_duration_us",
            Counter,
            "Microseconds from arrival to answer, summed over requests",
            CounterLatencies,
            |row, samples| samples.micros(row.stats.inference_stats.success),
        ),
        family(
            "nv_inference_queue_duration_us",
            Counter,
            "Microseconds in the queue, summed over requests",
            CounterLatencies,
            |row, samples| samples.micros(row.stats.inference_stats.queue),
        ),
        family(
            "nv_inference_compute_input_duration_us",
            Counter,
            "Microseconds for making inputs ready, summed over requests, without cached ones",
            CounterLatencies,
            |row, samples| samples.micros(row.stats.inference_stats.compute_input),
        ),
        family(
            "nv_inference_compute_infer_duration_us",
            Counter,
            "Microseconds in the model, summed over requests, without cached ones",
            CounterLatencies,
            |row, samples| samples.micros(row.stats.inference_stats.compute_infer),
        ),
        family(
            "nv_inference_compute_output_duration_us",
            Counter,
            "Microseconds for writing outputs, summed over requests, without cached ones",
            CounterLatencies,
            |row, samples| samples.micros(row.stats.inference_stats.compute_output),
        ),
        family(
            "nv_inference_pending_request_count",
            Gauge,
            "Requests that were accepted and do not run yet",
            Always,
            |row, samples| samples.value(row.model.scheduler.queued() as u64),
        ),
        family(
            "nv_inference_first_response_histogram_ms",
            Histogram,
            "Milliseconds from arrival to the first response of a decoupled model",
            HistogramLatencies,
            |row, samples| {
                let seen = row.model.statistics.first_responses();
                if seen.count > 0 {
                    samples.histogram(&seen, NANOS_A_MILLI);
                }
            },
        ),
        family(
            "nv_cache_num_hits_per_model",
            Counter,
            "Requests that the response cache answered",
            Always,
            |row, samples| cached(row, samples, |samples, hit, _| samples.value(hit.count)),
        ),
        family(
            "nv_cache_num_misses_per_model",
            Counter,
            "Requests that the response cache did not know",
            Always,
            |row, samples| cached(row, samples, |samples, _, miss| samples.value(miss.count)),
        ),
        family(
            "nv_cache_hit_duration_per_model",
            Counter,
            "Microseconds of lookups that found an answer",
            CounterLatencies,
            |row, samples| cached(row, samples, |samples, hit, _| samples.micros(hit)),
        ),
        family(
            "nv_cache_miss_duration_per_model",
            Counter,
            "Microseconds of lookups that found none, and of the insertions behind them",
            CounterLatencies,
            |row, samples| cached(row, samples, |samples, _, miss| samples.micros(miss)),
        ),
        family(
            "nv_model_load_duration_secs",
            Gauge,
            "Seconds that the version took to load",
            Always,
            |row, samples| {
                samples.text.sample(samples.name, samples.labels.text(), row.model.spec.load_us as f64 / 1e6);
            },
        ),
    ]
};

fn cached(
    row: &Row<'_>,
    samples: &mut Samples<'_>,
    write: fn(&mut Samples<'_>, DurationStatistics, DurationStatistics),
) {
    let stats = &row.stats.inference_stats;
    if row.model.statistics.is_cached() {
        write(samples, stats.cache_hit, stats.cache_miss);
    }
}

/// Naiad's own families: Triton's labels and `service`, the public name.
pub static OWN: &[Family] = {
    use Kind::{Counter, Gauge, Histogram};
    use Switch::Always;
    &[
        family(
            "naiad_requests_total",
            Counter,
            "Inference requests by the id of the key that sent them",
            Always,
            |row, samples| samples.labelled("key", row.model.statistics.door.callers()),
        ),
        family(
            "naiad_requests_in_flight",
            Gauge,
            "Inference requests that came in and are not answered yet",
            Always,
            |row, samples| samples.value(row.model.statistics.door.inside()),
        ),
        family("naiad_queue_depth", Gauge, "Requests that wait in the scheduler's queue", Always, |row, samples| {
            samples.value(row.model.scheduler.queued() as u64);
        }),
        family("naiad_workers", Gauge, "Workers that can run a request", Always, |row, samples| {
            samples.value(row.model.scheduler.workers() as u64);
        }),
        family(
            "naiad_request_duration_seconds",
            Histogram,
            "From the header of an inference request to its answer, parsing and printing included",
            Always,
            |row, samples| samples.histogram(&row.model.statistics.door.durations(), NANOS_A_SECOND),
        ),
        family(
            "naiad_queue_duration_seconds",
            Histogram,
            "From queueing to the moment a worker picks the request up",
            Always,
            |row, samples| samples.histogram(&row.model.statistics.queue_durations(), NANOS_A_SECOND),
        ),
        family(
            "naiad_compute_duration_seconds",
            Histogram,
            "From the moment a worker picks the request up to its last output",
            Always,
            |row, samples| samples.histogram(&row.model.statistics.compute_durations(), NANOS_A_SECOND),
        ),
        family("naiad_batch_size", Histogram, "Batch elements of each run of the model", Always, |row, samples| {
            samples.histogram(&row.model.statistics.batch_sizes(), 1.0);
        }),
        family(
            "naiad_unbatched_requests_total",
            Counter,
            "Requests that ran alone, by what kept others out of the batch",
            Always,
            |row, samples| {
                samples.labelled("reason", row.model.statistics.alone().map(|(why, count)| (why.name(), count)));
            },
        ),
    ]
};
