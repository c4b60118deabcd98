//! Decides at the door whether a request may enter, and counts the bytes that requests and arenas hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::error::InferError;
use crate::request::InferRequest;

/// Bytes that may be in use for one purpose.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// The whole budget in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` unless more than the limit would be in use.
    fn take(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            })
            .is_ok()
    }

    /// Takes `bytes`; they return when the reservation is dropped.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.take(bytes).then(|| Reservation { budget: Arc::clone(self), bytes })
    }
}

/// Bytes taken from a [`Budget`] until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The door: counts requests in flight and refuses them while the server goes down.
#[derive(Debug)]
pub struct Admission {
    budget: Arc<Budget>,
    refusing: AtomicBool,
    running: AtomicUsize,
    idle: Notify,
}

impl Admission {
    /// An open door in front of `budget`.
    pub fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { budget, refusing: AtomicBool::new(false), running: AtomicUsize::new(0), idle: Notify::new() })
    }

    /// Lets a request in or says which limit it meets.
    pub fn admit(self: &Arc<Self>, request: &InferRequest) -> Result<Permit, InferError> {
        // Counted first: a drain that starts now either sees this request or refuses it.
        self.running.fetch_add(1, Ordering::SeqCst);
        let mut permit = Permit { admission: Arc::clone(self), bytes: 0 };
        if self.refusing.load(Ordering::SeqCst) {
            return Err(InferError::Exiting);
        }
        let held: u64 = request.inputs.iter().map(|input| input.data.len() as u64).sum();
        let bytes = held.saturating_sub(request.reserved);
        if !self.budget.take(bytes) {
            return Err(self.over(bytes));
        }
        permit.bytes = bytes;
        Ok(permit)
    }

    /// Takes the bytes of an input before it is read; the request counts them as reserved.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, InferError> {
        self.budget.reserve(bytes).ok_or_else(|| self.over(bytes))
    }

    fn over(&self, bytes: u64) -> InferError {
        InferError::Unavailable(format!(
            "request of {bytes} bytes exceeds the byte budget for queued and running requests: {} of {} bytes in use",
            self.budget.used(),
            self.budget.limit()
        ))
    }

    /// New requests get `Server exiting` from now on.
    pub fn refuse(&self) {
        self.refusing.store(true, Ordering::SeqCst);
    }

    /// The bytes that queued and running requests hold.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Requests that hold a permit.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Refuses new requests and waits for the running ones; false if some are left after `limit`.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.refuse();
        let deadline = Instant::now() + limit;
        loop {
            let notified = self.idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.running() == 0 {
                return true;
            }
            if timeout_at(deadline, notified).await.is_err() {
                return self.running() == 0;
            }
        }
    }
}

/// The right to be queued and to run; goes with the request until it is answered.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: u64,
}

impl Permit {
    /// Takes `bytes` from the budget of queued and running requests, for a response that waits for its reader.
    pub fn reserve(&self, bytes: u64) -> Option<Reservation> {
        self.admission.budget.reserve(bytes)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let admission = &self.admission;
        admission.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        let last = admission.running.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && admission.refusing.load(Ordering::SeqCst) {
            admission.idle.notify_waiters();
        }
    }
}
