//! Decides when a request runs and with whom; the engine knows schedulers by one trait only.

pub mod batch;
pub mod direct;
pub mod dynamic;
pub mod owner;
pub mod queue;
pub mod reply;
pub mod station;
pub mod timer;

use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::admission::Permit;
use crate::error::InferError;
use crate::instance::WorkerHandle;
use crate::model::Served;
use crate::request::{InferRequest, InferResponse};
use crate::spec::SchedulerSpec;
use crate::statistics::Statistics;
pub use reply::{Outcome, Pending, Reply, Responses};
use reply::{ReplyTo, Turn};

/// Takes checked requests and answers each of them.
pub trait Scheduler: Debug + Send + Sync {
    /// Queues a request of a model that gives one response; the returned future is its answer, and dropping it cancels
    /// the request.
    fn schedule(&self, request: InferRequest, permit: Permit) -> Pending;

    /// Queues a request of a decoupled model; dropping the responses cancels it.
    fn stream(&self, request: InferRequest, permit: Permit) -> Result<Responses, InferError>;

    /// Adds a worker, a replacement for a lost one say.
    fn attach(&self, worker: WorkerHandle);

    /// How many workers live.
    fn workers(&self) -> usize;

    /// Answers what is queued and running, until `deadline`, then closes the workers; answers false if some
    /// requests were cut off.
    fn retire(&self, deadline: Instant) -> oneshot::Receiver<bool>;
}

/// Starts the scheduler that `served` asks for. Needs the runtime context.
pub fn start(served: &Arc<Served>, workers: Vec<WorkerHandle>) -> Arc<dyn Scheduler> {
    let scheduler = match &served.spec.scheduler {
        SchedulerSpec::Direct => owner::start(served, direct::Direct),
        SchedulerSpec::Dynamic { .. } => owner::start(served, dynamic::Dynamic::new(&served.spec)),
    };
    for worker in workers {
        scheduler.attach(worker);
    }
    scheduler
}

/// A queued or running request.
#[derive(Debug)]
pub struct Job {
    /// What to run.
    pub request: InferRequest,
    /// Its batch elements; 0 if the model does not batch.
    pub rows: u32,
    /// When it was queued.
    pub enqueued: Instant,
    /// The same on the workers' clock, for statistics.
    pub arrived: u64,
    /// Its level of priority; lower ones are served first.
    pub level: u64,
    /// When it may no longer wait.
    pub expires: Option<Instant>,
    reply: ReplyTo,
    permit: Permit,
}

/// A request as it moves between line and workers.
pub type BoxedJob = Box<Job>;

impl Job {
    /// Whether nobody waits for the answer any more.
    pub fn is_cancelled(&self) -> bool {
        self.reply.is_closed()
    }

    /// Counts a request for which nobody waits: its client went away, or its deadline has passed.
    pub fn count_gone(&self, statistics: &Statistics) {
        match self.request.deadline {
            Some(deadline) if deadline <= Instant::now() => statistics.failed(self.arrived),
            _ => statistics.cancelled(self.arrived),
        }
    }

    /// Answers the request; nobody listens if it was cancelled.
    pub fn answer(self, outcome: Outcome) {
        self.reply.finish(outcome.map(Some));
    }

    /// Ends a request that may have had responses already.
    pub fn finish(self, outcome: Result<Option<InferResponse>, InferError>) {
        self.reply.finish(outcome);
    }

    /// Gives a response, or a failure, behind which more may come; fails if the reader has fallen too far behind, or if
    /// the request has one answer only.
    pub fn respond(&self, outcome: Outcome) -> Result<(), InferError> {
        match &self.reply {
            ReplyTo::Many(outlet) => outlet.push(outcome, &self.permit),
            ReplyTo::One { .. } => Err(InferError::Internal("a single response is the last one".to_owned())),
        }
    }

    fn take_turn(&mut self, next: Turn) {
        // Responses of a decoupled model carry ids and may interleave (W56).
        if let ReplyTo::One { turn, .. } = &mut self.reply {
            *turn = Some(next);
        }
    }
}
