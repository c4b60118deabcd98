//! The workers: one owner task each, which holds the channel, the arena and what is in flight.

pub mod arena;
pub mod calls;
pub mod control;
pub mod deliver;
#[cfg(test)]
pub(crate) mod fake_worker;
pub mod frame;
pub mod group;
pub mod scatter;
pub mod worker;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use naiad_tensor::socket;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::admission::Budget;
use crate::engine::Event;
use crate::error::InferError;
use crate::model::Served;
use crate::registry::Registry;
use crate::scheduler::batch::Batch;
use crate::scheduler::station::Station;
use crate::spec::ModelSpec;
use frame::Range;
use worker::Worker;

/// What all workers share.
#[derive(Clone, Debug)]
pub struct WorkersOptions {
    /// Where arenas take their bytes from.
    pub budget: Arc<Budget>,
    /// How long to poll for a reply before sleeping.
    pub busy_poll: Duration,
    /// Where losses are told.
    pub events: mpsc::UnboundedSender<Event>,
    /// Where models are found to which a worker is attached.
    pub registry: Arc<Registry>,
}

/// What a worker's owner is told.
#[derive(Debug)]
pub enum ToWorker {
    /// The model that it serves from now on.
    Join {
        /// The model.
        served: Arc<Served>,
        /// Its side of the scheduler.
        station: Station,
    },
    /// Calls to run.
    Execute(Vec<Batch>),
    /// Its control channel, on which it says more once it serves.
    Follow(UnixStream),
    /// Some request was cancelled.
    Sweep,
    /// The last lent byte of a range is back.
    Release(Range),
    /// End the channel.
    Close,
}

/// The way to one worker's owner task.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// The worker's id.
    pub id: u64,
    model: String,
    version: u64,
    owner: mpsc::UnboundedSender<ToWorker>,
    /// Whether a specification has it: a worker serves one in its life.
    taken: Arc<AtomicBool>,
}

impl WorkerHandle {
    /// Makes it serve a model; false if it has ended.
    pub fn join(&self, served: &Arc<Served>, station: Station) -> bool {
        self.owner.send(ToWorker::Join { served: Arc::clone(served), station }).is_ok()
    }

    /// Runs calls; gives them back if it has ended.
    pub fn execute(&self, calls: Vec<Batch>) -> Result<(), Vec<Batch>> {
        self.owner.send(ToWorker::Execute(calls)).map_err(|refused| match refused.0 {
            ToWorker::Execute(calls) => calls,
            _ => Vec::new(),
        })
    }

    /// Listens to its control channel; false if it has ended.
    pub fn follow(&self, control: UnixStream) -> bool {
        self.owner.send(ToWorker::Follow(control)).is_ok()
    }

    /// Makes it look for cancelled requests.
    pub fn sweep(&self) {
        let _ = self.owner.send(ToWorker::Sweep);
    }

    /// Ends its channel; false if it has ended already.
    pub fn close(&self) -> bool {
        self.owner.send(ToWorker::Close).is_ok()
    }
}

type Open = Arc<Mutex<HashMap<u64, WorkerHandle>>>;

fn lock(open: &Open) -> MutexGuard<'_, HashMap<u64, WorkerHandle>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who a worker is, and its place among the open ones.
#[derive(Clone, Debug)]
pub struct Identity {
    id: u64,
    model: String,
    version: u64,
    open: Open,
}

impl Identity {
    fn forget(&self) {
        lock(&self.open).remove(&self.id);
    }
}

/// Every open worker by id; off the request path.
#[derive(Debug)]
pub struct Workers {
    options: WorkersOptions,
    next: AtomicU64,
    open: Open,
}

impl Workers {
    /// No workers yet.
    pub fn new(options: WorkersOptions) -> Self {
        Self { options, next: AtomicU64::new(1), open: Open::default() }
    }

    /// Makes a data channel and an arena for an instance of a model version; answers the worker's id and its end of the
    /// channel, which is not inherited by itself. Needs the runtime context.
    pub fn open(&self, model: &str, version: u64, _instance: u32) -> io::Result<(u64, OwnedFd)> {
        let (core, worker) = socket::pair()?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (owner, inbox) = mpsc::unbounded_channel();
        let identity = Identity { id, model: model.to_owned(), version, open: Arc::clone(&self.open) };
        let task = Worker::new(identity, self.options.clone(), core, owner.clone(), inbox)?;
        let handle = WorkerHandle { id, model: model.to_owned(), version, owner, taken: Arc::default() };
        lock(&self.open).insert(id, handle);
        tokio::spawn(task.run());
        Ok((id, worker))
    }

    /// Closes a worker's channel; what it had started fails, the rest is queued again. False if there is none.
    pub fn close(&self, id: u64) -> bool {
        lock(&self.open).get(&id).is_some_and(WorkerHandle::close)
    }

    /// Listens to what a worker says on its control channel from now on. False if there is none. Needs the runtime context.
    pub fn follow(&self, id: u64, control: OwnedFd) -> io::Result<bool> {
        let control = control::channel(control)?;
        Ok(lock(&self.open).get(&id).is_some_and(|handle| handle.follow(control)))
    }

    /// Adds a worker to a published model version.
    pub fn attach(&self, model: &str, version: u64, id: u64) -> Result<(), InferError> {
        let found = self.options.registry.find(model, Some(version))?;
        let handle = self.handle(model, version, id)?;
        handle.taken.store(true, Ordering::Relaxed);
        found.scheduler.attach(handle);
        Ok(())
    }

    /// The handles of the workers that a specification names.
    pub fn claim(&self, spec: &ModelSpec) -> Result<Vec<WorkerHandle>, InferError> {
        let handles: Result<Vec<_>, _> =
            spec.workers.iter().map(|id| self.handle(&spec.name, spec.version, *id)).collect();
        for handle in handles.iter().flatten() {
            handle.taken.store(true, Ordering::Relaxed);
        }
        handles
    }

    fn handle(&self, model: &str, version: u64, id: u64) -> Result<WorkerHandle, InferError> {
        let handle = lock(&self.open).get(&id).cloned();
        let handle = handle.ok_or_else(|| {
            InferError::Unavailable(format!("worker {id} of model '{model}' version {version} has ended"))
        })?;
        if handle.taken.load(Ordering::Relaxed) {
            return Err(InferError::InvalidArgument(format!(
                "worker {id} of model '{model}' serves already: open another one"
            )));
        }
        if handle.model == model && handle.version == version {
            return Ok(handle);
        }
        Err(InferError::InvalidArgument(format!(
            "worker {id} was opened for model '{}' version {}, not for model '{model}' version {version}",
            handle.model, handle.version
        )))
    }
}
