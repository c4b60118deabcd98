//! Decides when a request runs and with whom; the engine knows schedulers by one trait only.

pub mod batch;
pub mod direct;
pub mod dynamic;
pub mod owner;
pub mod queue;
pub mod station;
pub mod timer;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::admission::Permit;
use crate::error::InferError;
use crate::instance::WorkerHandle;
use crate::model::Served;
use crate::request::{InferRequest, InferResponse};
use crate::spec::SchedulerSpec;
use owner::Message;

/// The answer to a request.
pub type Outcome = Result<InferResponse, InferError>;

/// Takes checked requests and answers each of them.
pub trait Scheduler: Debug + Send + Sync {
    /// Queues a request; the returned future is its answer, and dropping it cancels the request.
    fn schedule(&self, request: InferRequest, permit: Permit) -> Pending;

    /// Adds a worker, a replacement for a lost one say.
    fn attach(&self, worker: WorkerHandle);

    /// How many requests wait in line.
    fn queued(&self) -> usize;

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

/// What travels back to the waiting request.
#[derive(Debug)]
pub struct Answer {
    outcome: Outcome,
    turn: Option<Turn>,
}

/// A request's place among those whose responses must leave in order.
#[derive(Debug)]
pub struct Turn {
    /// Ends when the response before has left or will never come.
    before: oneshot::Receiver<()>,
    /// Its drop lets the next response leave.
    _after: oneshot::Sender<()>,
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
    /// When it may no longer wait.
    pub expires: Option<Instant>,
    reply: oneshot::Sender<Answer>,
    turn: Option<Turn>,
    _permit: Permit,
}

/// A request as it moves between line and workers.
pub type BoxedJob = Box<Job>;

impl Job {
    /// Whether nobody waits for the answer any more.
    pub fn is_cancelled(&self) -> bool {
        self.reply.is_closed()
    }

    /// Answers the request; nobody listens if it was cancelled.
    pub fn answer(self, outcome: Outcome) {
        let _ = self.reply.send(Answer { outcome, turn: self.turn });
    }
}

/// The answer to come.
#[derive(Debug)]
pub struct Pending {
    state: State,
    /// Told when this is dropped before the answer came.
    owner: mpsc::UnboundedSender<Message>,
}

#[derive(Debug)]
enum State {
    Refused(InferError),
    Waiting(oneshot::Receiver<Answer>),
    InTurn { outcome: Outcome, turn: Turn },
    Over,
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            match &mut self.state {
                State::Waiting(answer) => {
                    let lost = || Answer { outcome: Err(InferError::Internal("request dropped".into())), turn: None };
                    let answer = ready!(Pin::new(answer).poll(context)).unwrap_or_else(|_| lost());
                    let Some(turn) = answer.turn else {
                        self.state = State::Over;
                        return Poll::Ready(answer.outcome);
                    };
                    self.state = State::InTurn { outcome: answer.outcome, turn };
                }
                State::InTurn { turn, .. } => {
                    let _ = ready!(Pin::new(&mut turn.before).poll(context));
                    if let State::InTurn { outcome, .. } = std::mem::replace(&mut self.state, State::Over) {
                        return Poll::Ready(outcome);
                    }
                }
                State::Refused(_) | State::Over => match std::mem::replace(&mut self.state, State::Over) {
                    State::Refused(error) => return Poll::Ready(Err(error)),
                    _ => panic!("a finished request is polled again"),
                },
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let State::Waiting(_) = std::mem::replace(&mut self.state, State::Over) {
            // The receiver is gone by now, so the owner sees which request is meant.
            let _ = self.owner.send(Message::Sweep);
        }
    }
}
