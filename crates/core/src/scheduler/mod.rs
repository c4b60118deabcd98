//! Decides when a request runs and with whom; the engine knows schedulers by one trait only.

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

/// The answer to a request.
pub type Outcome = Result<InferResponse, InferError>;

/// Takes checked requests and answers each of them.
pub trait Scheduler: Debug + Send + Sync {
    /// Queues a request; the returned future is its answer, and dropping it cancels the request.
    fn schedule(&self, request: InferRequest, permit: Permit) -> Pending;

    /// Adds a worker, a replacement for a lost one say.
    fn attach(&self, worker: WorkerHandle);

    /// How many workers live.
    fn workers(&self) -> usize;

    /// Answers what is queued and running, until `deadline`, then closes the workers; answers false if some
    /// requests were cut off.
    fn retire(&self, deadline: Instant) -> oneshot::Receiver<bool>;
}

/// Starts the scheduler that `served` asks for. Needs the runtime context.
pub fn start(_served: &Arc<Served>, _workers: Vec<WorkerHandle>) -> Arc<dyn Scheduler> {
    todo!()
}

/// The answer to come.
#[derive(Debug)]
pub struct Pending {
    answer: Option<oneshot::Receiver<Outcome>>,
    refused: Option<InferError>,
    cancel: Option<mpsc::UnboundedSender<()>>,
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(Err(error));
        }
        let answer = self.answer.as_mut().expect("a finished future is not polled again");
        let outcome = ready!(Pin::new(answer).poll(context));
        self.answer = None;
        Poll::Ready(outcome.unwrap_or_else(|_| Err(InferError::Internal("the scheduler ended".into()))))
    }
}
