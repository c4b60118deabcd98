//! Counts what happened to a model version's requests (W64, W65): no lock and no allocation on the request path.
//!
//! The statistics extension and the metrics read the same counters, so they never disagree.

mod document;
pub mod histogram;
pub mod reasons;
mod visit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use crate::response_statistics::{ResponseCounters, ResponseKind};
pub use document::{
    BatchStatistics, DurationStatistics, InferenceStatistics, MemoryUsage, ModelStatistics, ResponseStatistics,
};
use histogram::{BATCHES, DURATIONS, FIRST_RESPONSES, Histogram, HistogramSnapshot};
use reasons::{Alone, FailureReason};
pub use visit::{Door, Visit};

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
#[derive(Debug)]
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
    cache_hit: Counter,
    cache_miss: Counter,
    failures: [AtomicU64; FailureReason::ALL.len()],
    alone: [AtomicU64; Alone::ALL.len()],
    queue_durations: Histogram,
    compute_durations: Histogram,
    batch_sizes: Histogram,
    first_responses: Histogram,
    responses: ResponseCounters,
    batches: ArcSwap<BTreeMap<u64, Arc<BatchCounters>>>,
    cached: AtomicBool,
    /// What frontends count.
    pub door: Door,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            last_inference: AtomicU64::default(),
            inference_count: AtomicU64::default(),
            execution_count: AtomicU64::default(),
            success: Counter::default(),
            fail: Counter::default(),
            queue: Counter::default(),
            compute_input: Counter::default(),
            compute_infer: Counter::default(),
            compute_output: Counter::default(),
            cancelled: Counter::default(),
            cache_hit: Counter::default(),
            cache_miss: Counter::default(),
            failures: Default::default(),
            alone: Default::default(),
            queue_durations: Histogram::new(&DURATIONS),
            compute_durations: Histogram::new(&DURATIONS),
            batch_sizes: Histogram::new(&BATCHES),
            first_responses: Histogram::new(&FIRST_RESPONSES),
            responses: ResponseCounters::default(),
            batches: ArcSwap::default(),
            cached: AtomicBool::default(),
            door: Door::default(),
        }
    }
}

impl Statistics {
    /// One run of the model over `rows` batch elements (1 where the model does not batch).
    pub fn executed(&self, rows: u64, times: Times) {
        self.execution_count.fetch_add(1, Ordering::Relaxed);
        self.batch_sizes.observe(rows);
        let [input, infer, output] = times.spans();
        let batch = self.batch(rows);
        batch.input.add(1, input);
        batch.infer.add(1, infer);
        batch.output.add(1, output);
        self.touch();
    }

    /// A call of one request, and why it is not larger.
    pub fn ran_alone(&self, why: Alone) {
        self.alone[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One request of `rows` batch elements answered well; it arrived at `arrived`.
    pub fn succeeded(&self, rows: u64, arrived: u64, times: Times) {
        let [input, infer, output] = times.spans();
        let queue = times.start.saturating_sub(arrived);
        self.inference_count.fetch_add(rows, Ordering::Relaxed);
        self.success.add(1, monotonic_ns().saturating_sub(arrived));
        self.queue.add(1, queue);
        self.compute_input.add(1, input);
        self.compute_infer.add(1, infer);
        self.compute_output.add(1, output);
        self.queue_durations.observe(queue);
        self.compute_durations.observe(times.busy());
    }

    /// One queued request failed or was cancelled; requests refused before queueing are no failure (W65).
    pub fn failed(&self, arrived: u64, reason: impl Into<FailureReason>) {
        let reason = reason.into();
        let took = monotonic_ns().saturating_sub(arrived);
        self.fail.add(1, took);
        self.failures[reason as usize].fetch_add(1, Ordering::Relaxed);
        if reason == FailureReason::Canceled {
            self.cancelled.add(1, took);
        }
    }

    /// Says that the version's answers are cached: its metrics show the cache families from now on.
    pub fn use_cache(&self) {
        self.cached.store(true, Ordering::Relaxed);
    }

    /// Whether the version's answers are cached.
    pub fn is_cached(&self) -> bool {
        self.cached.load(Ordering::Relaxed)
    }

    /// One request answered from the response cache after `lookup` nanoseconds: a success without an inference (W65).
    pub fn cache_hit(&self, arrived: u64, lookup: u64) {
        let took = monotonic_ns().saturating_sub(arrived);
        self.success.add(1, took);
        self.queue.add(1, took.saturating_sub(lookup));
        self.cache_hit.add(1, lookup);
        self.touch();
    }

    /// One request that the response cache did not know; `took` is the lookup and the insertion in nanoseconds.
    pub fn cache_miss(&self, took: u64) {
        self.cache_miss.add(1, took);
    }

    /// The first response to a request of a decoupled model.
    pub fn first_response(&self, arrived: u64) {
        self.first_responses.observe(monotonic_ns().saturating_sub(arrived));
    }

    fn touch(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_inference.store(now.as_millis() as u64, Ordering::Relaxed);
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
        let fail = self.fail.snapshot();
        let cancel = self.cancelled.snapshot();
        let first = ResponseStatistics {
            compute_infer: self.compute_infer.snapshot(),
            compute_output: self.compute_output.snapshot(),
            success: self.success.snapshot(),
            fail: DurationStatistics {
                count: fail.count.saturating_sub(cancel.count),
                ns: fail.ns.saturating_sub(cancel.ns),
            },
            empty_response: DurationStatistics::default(),
            cancel,
        };
        let any = first.success.count + first.fail.count + first.cancel.count > 0;
        if any { BTreeMap::from([("0".to_owned(), first)]) } else { BTreeMap::new() }
    }

    /// Failures by reason.
    pub fn failures(&self) -> impl Iterator<Item = (FailureReason, u64)> {
        FailureReason::ALL.into_iter().map(|reason| (reason, self.failures[reason as usize].load(Ordering::Relaxed)))
    }

    /// Calls of one request by what kept them small.
    pub fn alone(&self) -> impl Iterator<Item = (Alone, u64)> {
        Alone::ALL.into_iter().map(|why| (why, self.alone[why as usize].load(Ordering::Relaxed)))
    }

    /// From arrival to pick-up by a worker.
    pub fn queue_durations(&self) -> HistogramSnapshot {
        self.queue_durations.snapshot()
    }

    /// From pick-up by a worker to its last output.
    pub fn compute_durations(&self) -> HistogramSnapshot {
        self.compute_durations.snapshot()
    }

    /// Batch elements of each run.
    pub fn batch_sizes(&self) -> HistogramSnapshot {
        self.batch_sizes.snapshot()
    }

    /// From arrival to the first response, decoupled models only.
    pub fn first_responses(&self) -> HistogramSnapshot {
        self.first_responses.snapshot()
    }
}
