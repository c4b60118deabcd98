//! The line of waiting requests of one model version: first come, first served, with expiry and cancellation.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{BoxedJob, Job};
use crate::error::{InferError, shown_id};
use crate::request::InferRequest;
use crate::statistics::Statistics;
use crate::statistics::reasons::Alone;

/// What a policy sees of a waiting request.
pub trait Waiting {
    /// Its batch elements, at least 1.
    fn weight(&self) -> u32;
    /// When it was queued.
    fn enqueued(&self) -> Instant;
    /// Whether both may share a batch: equal inputs with equal shapes.
    fn matches(&self, other: &Self) -> bool;
}

impl Waiting for Job {
    fn weight(&self) -> u32 {
        self.rows.max(1)
    }

    fn enqueued(&self) -> Instant {
        self.enqueued
    }

    fn matches(&self, other: &Self) -> bool {
        same_inputs(&self.request, &other.request)
    }
}

/// Equal sets of inputs with equal shapes but for the batch dimension; both are in the model's order.
fn same_inputs(one: &InferRequest, other: &InferRequest) -> bool {
    one.inputs.len() == other.inputs.len()
        && one.inputs.iter().zip(&other.inputs).all(|(a, b)| a.name == b.name && a.shape.get(1..) == b.shape.get(1..))
}

/// What to do with the front of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run the first so many requests as one call.
    Run(usize),
    /// Wait for a new request, or until then.
    Wait(Option<Instant>),
}

/// How batches form and how long a request may wait.
pub trait Policy: std::fmt::Debug + Send + 'static {
    /// What to run next. Cancelled and expired requests are out of the line already.
    fn form<'a, T: Waiting + 'a>(&mut self, line: impl Iterator<Item = &'a T>, length: usize, now: Instant)
    -> Decision;

    /// Why the call of one request that `form` last answered is not larger.
    fn why_alone(&self) -> Alone {
        Alone::NoBatching
    }

    /// How long a request may wait.
    fn patience(&self, _request: &InferRequest) -> Option<Duration> {
        None
    }

    /// Whether an expired request is served after all others instead of being refused.
    fn delays_expired(&self) -> bool {
        false
    }

    /// Whether responses leave in the order of the requests.
    fn preserves_ordering(&self) -> bool {
        false
    }

    /// Frames in flight to one worker: a second one hides the channel's latency.
    fn depth(&self) -> usize {
        2
    }
}

/// The waiting requests.
#[derive(Debug, Default)]
pub struct Line {
    on_time: VecDeque<BoxedJob>,
    /// Expired ones that are served after all others.
    late: VecDeque<BoxedJob>,
    /// No request of `on_time` expires before this.
    next_expiry: Option<Instant>,
}

impl Line {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.on_time.len() + self.late.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a request at the end.
    pub fn push(&mut self, job: BoxedJob) {
        self.note_expiry(job.expires);
        self.on_time.push_back(job);
    }

    /// Puts requests back to the front, in their order.
    pub fn push_front(&mut self, jobs: Vec<BoxedJob>) {
        for job in jobs.into_iter().rev() {
            self.note_expiry(job.expires);
            self.on_time.push_front(job);
        }
    }

    fn note_expiry(&mut self, expires: Option<Instant>) {
        self.next_expiry = [self.next_expiry, expires].into_iter().flatten().min();
    }

    /// The waiting requests in the order in which they are served.
    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        self.on_time.iter().chain(&self.late).map(|job| &**job)
    }

    /// Takes the first `count` requests.
    pub fn take(&mut self, count: usize) -> Vec<BoxedJob> {
        let first = count.min(self.on_time.len());
        let mut jobs: Vec<_> = self.on_time.drain(..first).collect();
        jobs.extend(self.late.drain(..(count - first).min(self.late.len())));
        jobs
    }

    /// When the next request expires.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// Throws out cancelled requests; answers how many.
    pub fn sweep(&mut self, statistics: &Statistics) -> usize {
        let before = self.len();
        let keep = |job: &BoxedJob| {
            let cancelled = job.is_cancelled();
            if cancelled {
                job.count_gone(statistics);
            }
            !cancelled
        };
        self.on_time.retain(keep);
        self.late.retain(keep);
        before - self.len()
    }

    /// Refuses what has expired, or moves it behind all others; answers how many left the line.
    pub fn expire(&mut self, now: Instant, delay: bool, statistics: &Statistics) -> usize {
        if self.next_expiry.is_none_or(|next| next > now) {
            return 0;
        }
        self.next_expiry = None;
        let mut refused = 0;
        for mut job in std::mem::take(&mut self.on_time) {
            if job.expires.is_none_or(|expires| expires > now) {
                self.note_expiry(job.expires);
                self.on_time.push_back(job);
            } else if delay {
                job.expires = None;
                self.late.push_back(job);
            } else {
                let error = InferError::QueueTimeout { id: shown_id(&job.request.id) };
                statistics.failed(job.arrived, &error);
                job.answer(Err(error));
                refused += 1;
            }
        }
        refused
    }
}
