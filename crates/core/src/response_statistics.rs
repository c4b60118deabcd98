//! Counts the responses of decoupled requests by their index (`response_stats` of W64).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::statistics::{Counter, ResponseStatistics, Times};

/// Response indexes that are counted; what a request says beyond them is in the model's own counters only.
pub const INDEXES: usize = 256;

/// What one response was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// Outputs.
    Good,
    /// An error.
    Failed,
    /// The end of the request, with no response.
    Empty,
    /// Nobody waited for it.
    Cancelled,
}

#[derive(Debug, Default)]
struct Row {
    compute_infer: Counter,
    compute_output: Counter,
    success: Counter,
    fail: Counter,
    empty_response: Counter,
    cancel: Counter,
}

/// The counters by index; they take no memory before the first response.
#[derive(Debug, Default)]
pub struct ResponseCounters {
    rows: OnceLock<Box<[Row]>>,
}

impl ResponseCounters {
    /// One response.
    pub fn add(&self, index: usize, kind: ResponseKind, times: Times) {
        let rows = self.rows.get_or_init(|| (0..INDEXES).map(|_| Row::default()).collect());
        let Some(row) = rows.get(index) else { return };
        let [_, infer, output] = times.spans();
        let counter = match kind {
            ResponseKind::Good => &row.success,
            ResponseKind::Failed => &row.fail,
            ResponseKind::Empty => &row.empty_response,
            ResponseKind::Cancelled => return row.cancel.add(1, infer.saturating_add(output)),
        };
        counter.add(1, infer.saturating_add(output));
        row.compute_infer.add(1, infer);
        row.compute_output.add(1, output);
    }

    /// The counters of every index that was ever used; `None` if there was no response.
    pub fn snapshot(&self) -> Option<BTreeMap<String, ResponseStatistics>> {
        let rows = self.rows.get()?;
        let shown = rows.iter().map(|row| ResponseStatistics {
            compute_infer: row.compute_infer.snapshot(),
            compute_output: row.compute_output.snapshot(),
            success: row.success.snapshot(),
            fail: row.fail.snapshot(),
            empty_response: row.empty_response.snapshot(),
            cancel: row.cancel.snapshot(),
        });
        let used = |row: &ResponseStatistics| row.compute_infer.count + row.cancel.count > 0;
        Some(shown.take_while(used).enumerate().map(|(index, row)| (index.to_string(), row)).collect())
    }
}
