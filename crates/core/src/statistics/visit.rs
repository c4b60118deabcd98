//! What is counted at the door of a model version: who calls, how many are inside, how long they stay.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::histogram::{DURATIONS, Histogram, HistogramSnapshot};
use super::{Statistics, monotonic_ns};
use crate::auth::Caller;

/// Keys that are told apart for one model version; those above share one counter.
const MOST_KEYS: usize = 256;
/// Stands for all keys above that number: no id of a key is that short.
const OTHER_KEYS: &str = "other";

/// The counters at the door.
#[derive(Debug)]
pub struct Door {
    inside: AtomicU64,
    durations: Histogram,
    callers: ArcSwap<HashMap<Box<str>, Arc<AtomicU64>>>,
}

impl Default for Door {
    fn default() -> Self {
        Self { inside: AtomicU64::new(0), durations: Histogram::new(&DURATIONS), callers: ArcSwap::default() }
    }
}

impl Door {
    /// Requests that came in and have not been answered.
    pub fn inside(&self) -> u64 {
        self.inside.load(Ordering::Relaxed)
    }

    /// How long requests took, whatever became of them.
    pub fn durations(&self) -> HistogramSnapshot {
        self.durations.snapshot()
    }

    /// Requests by key id, in the order of the ids.
    pub fn callers(&self) -> Vec<(String, u64)> {
        let callers = self.callers.load();
        let mut rows: Vec<_> =
            callers.iter().map(|(key, count)| (key.to_string(), count.load(Ordering::Relaxed))).collect();
        rows.sort();
        rows
    }

    fn count(&self, key: &str) {
        if let Some(count) = self.callers.load().get(key) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let full = self.callers.load().len() >= MOST_KEYS;
        let key = if full { OTHER_KEYS } else { key };
        let fresh = Arc::<AtomicU64>::default();
        self.callers.rcu(|old| {
            let mut callers = HashMap::clone(old);
            callers.entry(Box::from(key)).or_insert_with(|| Arc::clone(&fresh));
            callers
        });
        if let Some(count) = self.callers.load().get(key) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One request of a frontend inside a model version; its end is when this is dropped.
#[derive(Debug)]
pub struct Visit {
    statistics: Arc<Statistics>,
    began: u64,
}

impl Visit {
    /// Counts a request of `caller` as inside.
    pub fn begin(statistics: &Arc<Statistics>, caller: &Caller) -> Self {
        statistics.door.inside.fetch_add(1, Ordering::Relaxed);
        statistics.door.count(caller.key_id());
        Self { statistics: Arc::clone(statistics), began: monotonic_ns() }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let door = &self.statistics.door;
        door.inside.fetch_sub(1, Ordering::Relaxed);
        door.durations.observe(monotonic_ns().saturating_sub(self.began));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_ends_with_its_guard() {
        let statistics = Arc::<Statistics>::default();
        let visit = Visit::begin(&statistics, &Caller::Bootstrap);
        assert_eq!((statistics.door.inside(), statistics.door.durations().count), (1, 0));
        drop(visit);
        assert_eq!((statistics.door.inside(), statistics.door.durations().count), (0, 1));
        assert_eq!(statistics.door.callers(), [("bootstrap".to_owned(), 1)]);
    }

    #[test]
    fn keys_above_the_bound_share_a_counter() {
        let door = Door::default();
        for key in 0..MOST_KEYS + 10 {
            door.count(&format!("{key:08}"));
        }
        door.count("00000000");
        let callers = door.callers();
        assert_eq!(callers.len(), MOST_KEYS + 1);
        assert_eq!((callers[0].1, callers.last().unwrap()), (2, &(OTHER_KEYS.to_owned(), 10)));
    }
}
