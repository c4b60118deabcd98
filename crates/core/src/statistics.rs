//! Counts what happened to a model version's requests (W64, W65), without locks on the request path.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::response_statistics::{ResponseCounters, ResponseKind};

/// Monotonic nanoseconds, the clock that the workers' times are on.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

/// How often something happened, and how long it took altogether.
#[derive(Debug, Default)]
pub struct Counter {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Counter {
    /// Counts `count` times with `ns` nanoseconds altogether.
    pub fn add(&self, count: u64, ns: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// As the statistics extension shows it.
    pub fn snapshot(&self) -> DurationStatistics {
        DurationStatistics { count: self.count.load(Ordering::Relaxed), ns: self.ns.load(Ordering::Relaxed) }
    }
}

#[derive(Debug, Default)]
struct BatchCounters {
    input: Counter,
    infer: Counter,
    output: Counter,
}

/// When a worker picked a call up, had its inputs, had the model's answer and had written the outputs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Picked up.
    pub start: u64,
    /// Inputs ready.
    pub input: u64,
    /// The model returned.
    pub infer: u64,
    /// Outputs written.
    pub output: u64,
}

impl Times {
    /// How long inputs, model and outputs took.
    pub fn spans(self) -> [u64; 3] {
        [
            self.input.saturating_sub(self.start),
            self.infer.saturating_sub(self.input),
            self.output.saturating_sub(self.infer),
        ]
    }

    /// From the earliest pick-up to the latest output, where a request has several responses.
    #[must_use]
    pub fn until(self, later: Self) -> Self {
        Self { infer: later.infer.max(self.infer), output: later.output.max(self.output), ..self }
    }

    /// From picking the call up to its last output.
    pub fn busy(self) -> u64 {
        self.output.saturating_sub(self.start)
    }
}

/// The counters of one model version.
#[derive(Debug, Default)]
pub struct Statistics {
    last_inference: AtomicU64,
    inference_count: AtomicU64,
    execution_count: AtomicU64,
    success: Counter,
    fail: Counter,
    queue: Counter,
    compute_input: Counter,
    compute_infer: Counter,
    compute_output: Counter,
    cancelled: Counter,
    responses: ResponseCounters,
    cache_hit: Counter,
    cache_miss: Counter,
    batches: ArcSwap<BTreeMap<u64, Arc<BatchCounters>>>,
}

impl Statistics {
    /// One run of the model over `rows` batch elements (1 where the model does not batch).
    pub fn executed(&self, rows: u64, times: Times) {
        self.execution_count.fetch_add(1, Ordering::Relaxed);
        let [input, infer, output] = times.spans();
        let batch = self.batch(rows);
        batch.input.add(1, input);
        batch.infer.add(1, infer);
        batch.output.add(1, output);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_inference.store(now.as_millis() as u64, Ordering::Relaxed);
    }

    /// One request of `rows` batch elements answered well; it arrived at `arrived`.
    pub fn succeeded(&self, rows: u64, arrived: u64, times: Times) {
        let [input, infer, output] = times.spans();
        self.inference_count.fetch_add(rows, Ordering::Relaxed);
        self.success.add(1, monotonic_ns().saturating_sub(arrived));
        self.queue.add(1, times.start.saturating_sub(arrived));
        self.compute_input.add(1, input);
        self.compute_infer.add(1, infer);
        self.compute_output.add(1, output);
    }

    /// One queued request failed; requests refused before queueing are no failure (W65).
    pub fn failed(&self, arrived: u64) {
        self.fail.add(1, monotonic_ns().saturating_sub(arrived));
    }

    /// One request whose client went away.
    pub fn cancelled(&self, arrived: u64) {
        self.cancelled.add(1, monotonic_ns().saturating_sub(arrived));
    }

    /// One request answered from the response cache: a success without a run (W65).
    pub fn cache_hit(&self, ns: u64) {
        self.cache_hit.add(1, ns);
        self.success.add(1, ns);
    }

    /// One request that the response cache did not know: looking it up and keeping its answer.
    pub fn cache_miss(&self, ns: u64) {
        self.cache_miss.add(1, ns);
    }

    /// One response of a decoupled model, the end of a request without one included.
    pub fn responded(&self, index: usize, kind: ResponseKind, times: Times) {
        self.responses.add(index, kind, times);
    }

    fn batch(&self, rows: u64) -> Arc<BatchCounters> {
        if let Some(found) = self.batches.load().get(&rows) {
            return Arc::clone(found);
        }
        let fresh = Arc::new(BatchCounters::default());
        self.batches.rcu(|old| {
            let mut map = BTreeMap::clone(old);
            map.entry(rows).or_insert_with(|| Arc::clone(&fresh));
            map
        });
        self.batches.load().get(&rows).map_or(fresh, Arc::clone)
    }

    /// Everything as the statistics extension shows it.
    pub fn snapshot(&self, name: &str, version: u64) -> ModelStatistics {
        let batches = self.batches.load();
        let batch_stats = batches.iter().map(|(rows, batch)| BatchStatistics {
            batch_size: *rows,
            compute_input: batch.input.snapshot(),
            compute_infer: batch.infer.snapshot(),
            compute_output: batch.output.snapshot(),
        });
        ModelStatistics {
            name: name.to_owned(),
            version: version.to_string(),
            last_inference: self.last_inference.load(Ordering::Relaxed),
            inference_count: self.inference_count.load(Ordering::Relaxed),
            execution_count: self.execution_count.load(Ordering::Relaxed),
            inference_stats: InferenceStatistics {
                success: self.success.snapshot(),
                fail: self.fail.snapshot(),
                queue: self.queue.snapshot(),
                compute_input: self.compute_input.snapshot(),
                compute_infer: self.compute_infer.snapshot(),
                compute_output: self.compute_output.snapshot(),
                cache_hit: self.cache_hit.snapshot(),
                cache_miss: self.cache_miss.snapshot(),
            },
            response_stats: self.responses(),
            batch_stats: batch_stats.collect(),
            memory_usage: Vec::new(),
        }
    }

    fn responses(&self) -> BTreeMap<String, ResponseStatistics> {
        if let Some(counted) = self.responses.snapshot() {
            return counted;
        }
        let first = ResponseStatistics {
            compute_infer: self.compute_infer.snapshot(),
            compute_output: self.compute_output.snapshot(),
            success: self.success.snapshot(),
            fail: self.fail.snapshot(),
            empty_response: DurationStatistics::default(),
            cancel: self.cancelled.snapshot(),
        };
        let any = first.success.count + first.fail.count + first.cancel.count > 0;
        if any { BTreeMap::from([("0".to_owned(), first)]) } else { BTreeMap::new() }
    }
}

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
