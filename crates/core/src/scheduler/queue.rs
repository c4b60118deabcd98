//! The line of waiting requests of one model version: first come, first served, with expiry and cancellation.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{BoxedJob, Job};
use crate::error::{InferError, shown_id};
use crate::request::InferRequest;
use crate::statistics::Statistics;

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

    /// How long a request may wait.
    fn patience(&self, _request: &InferRequest) -> Option<Duration> {
        None
    }

    /// The level of priority of a request; lower ones are served first.
    fn level(&self, _request: &InferRequest) -> u64 {
        0
    }

    /// How many requests of a level may wait; `None` = as many as the model's queue holds.
    fn bound(&self, _level: u64) -> Option<usize> {
        None
    }

    /// Whether an expired request is served after all others of its level instead of being refused.
    fn delays_expired(&self, _level: u64) -> bool {
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

/// Levels that are kept though nobody waits in them, so that a line does not allocate for each request.
const KEPT_LEVELS: usize = 16;

/// The waiting requests of one level of priority.
#[derive(Debug, Default)]
struct Level {
    number: u64,
    on_time: VecDeque<BoxedJob>,
    /// Expired ones that are served after the others.
    late: VecDeque<BoxedJob>,
}

impl Level {
    fn len(&self) -> usize {
        self.on_time.len() + self.late.len()
    }
}

/// The waiting requests.
#[derive(Debug, Default)]
pub struct Line {
    /// By number: the first are served first.
    levels: Vec<Level>,
    /// Over all levels.
    length: usize,
    /// No request that is on time expires before this.
    next_expiry: Option<Instant>,
}

impl Line {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many wait in one level of priority.
    pub fn level_len(&self, number: u64) -> usize {
        self.levels.iter().find(|level| level.number == number).map_or(0, Level::len)
    }

    /// Adds a request at the end of its level.
    pub fn push(&mut self, job: BoxedJob) {
        self.note_expiry(job.expires);
        self.length += 1;
        self.level(job.level).on_time.push_back(job);
    }

    /// Puts requests back to the front of their levels, in their order.
    pub fn push_front(&mut self, jobs: Vec<BoxedJob>) {
        for job in jobs.into_iter().rev() {
            self.note_expiry(job.expires);
            self.length += 1;
            self.level(job.level).on_time.push_front(job);
        }
    }

    fn level(&mut self, number: u64) -> &mut Level {
        let found = self.levels.binary_search_by_key(&number, |level| level.number);
        let position = found.unwrap_or_else(|position| {
            self.levels.insert(position, Level { number, ..Level::default() });
            position
        });
        &mut self.levels[position]
    }

    /// Forgets levels that nobody uses: a client chooses how many there are.
    fn tidy(&mut self) {
        if self.levels.len() > KEPT_LEVELS {
            self.levels.retain(|level| level.len() > 0);
        }
    }

    fn note_expiry(&mut self, expires: Option<Instant>) {
        self.next_expiry = [self.next_expiry, expires].into_iter().flatten().min();
    }

    /// The waiting requests in the order in which they are served.
    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        self.levels.iter().flat_map(|level| level.on_time.iter().chain(&level.late)).map(|job| &**job)
    }

    /// Takes the first `count` requests.
    pub fn take(&mut self, count: usize) -> Vec<BoxedJob> {
        let mut jobs = Vec::with_capacity(count.min(self.length));
        for level in &mut self.levels {
            for queue in [&mut level.on_time, &mut level.late] {
                jobs.extend(queue.drain(..(count - jobs.len()).min(queue.len())));
            }
        }
        self.length -= jobs.len();
        self.tidy();
        jobs
    }

    /// When the next request expires.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// Throws out cancelled requests; answers how many.
    pub fn sweep(&mut self, statistics: &Statistics) -> usize {
        let keep = |job: &BoxedJob| {
            let cancelled = job.is_cancelled();
            if cancelled {
                job.count_gone(statistics);
            }
            !cancelled
        };
        for level in &mut self.levels {
            level.on_time.retain(keep);
            level.late.retain(keep);
        }
        self.recount()
    }

    /// Refuses what has expired, or moves it behind the others of its level where `delay` says so; answers how many
    /// left the line.
    pub fn expire(&mut self, now: Instant, delay: impl Fn(u64) -> bool, statistics: &Statistics) -> usize {
        if self.next_expiry.is_none_or(|next| next > now) {
            return 0;
        }
        self.next_expiry = None;
        let mut next = None;
        for level in &mut self.levels {
            for mut job in std::mem::take(&mut level.on_time) {
                if job.expires.is_none_or(|expires| expires > now) {
                    next = [next, job.expires].into_iter().flatten().min();
                    level.on_time.push_back(job);
                } else if delay(level.number) {
                    job.expires = None;
                    level.late.push_back(job);
                } else {
                    statistics.failed(job.arrived);
                    let id = shown_id(&job.request.id);
                    job.answer(Err(InferError::QueueTimeout { id }));
                }
            }
        }
        self.note_expiry(next);
        self.recount()
    }

    /// Counts again after requests have left; answers how many.
    fn recount(&mut self) -> usize {
        let before = self.length;
        self.length = self.levels.iter().map(Level::len).sum();
        self.tidy();
        before - self.length
    }
}
