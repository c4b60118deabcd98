//! Where work on many bytes runs, so that other requests are not held up.

use tokio::task::block_in_place;

/// Bytes of this size take long enough to parse, print or copy that other requests get another thread meanwhile.
const HEAVY: usize = 1 << 20;

/// Runs work on `size` bytes without holding up the thread's other requests.
pub fn beside<T>(size: usize, work: impl FnOnce() -> T) -> T {
    if size > HEAVY { block_in_place(work) } else { work() }
}
