//! Counts observations in fixed buckets: two atomic additions each, no lock, no allocation.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of durations in nanoseconds: 100 µs to 60 s, three or four a decade.
pub static DURATIONS: [u64; 19] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    20_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Upper bounds of batch sizes.
pub static BATCHES: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// Upper bounds of the time to the first response in nanoseconds, as Triton has them.
pub static FIRST_RESPONSES: [u64; 4] = [100_000_000, 500_000_000, 2_000_000_000, 5_000_000_000];

const MOST: usize = 20;

/// A histogram over bounds that are known when it is made.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// Observations up to each bound and above the one before; the last one has none above it.
    counts: [AtomicU64; MOST],
    sum: AtomicU64,
}

impl Histogram {
    /// An empty histogram with one bucket a bound and one above them all.
    pub fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() < MOST, "a histogram has at most {MOST} buckets");
        Self { bounds, counts: Default::default(), sum: AtomicU64::new(0) }
    }

    /// Counts one observation.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Each bound with the number of observations up to it, then the number of all and their sum.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut count = 0;
        let mut up_to = |bucket: usize| {
            count += self.counts[bucket].load(Ordering::Relaxed);
            count
        };
        let buckets = self.bounds.iter().enumerate().map(|(bucket, bound)| (*bound, up_to(bucket))).collect();
        let count = up_to(self.bounds.len());
        HistogramSnapshot { buckets, count, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Upper bounds and what was observed up to each.
    pub buckets: Vec<(u64, u64)>,
    /// All observations.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&BATCHES);
        for value in [1, 2, 3, 4, 1024, 1025] {
            histogram.observe(value);
        }
        let seen = histogram.snapshot();
        assert_eq!(seen.buckets[..4], [(1, 1), (2, 2), (4, 4), (8, 4)]);
        assert_eq!((seen.buckets[10], seen.count, seen.sum), ((1024, 5), 6, 2059));
    }
}
