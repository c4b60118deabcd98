//! The workers: one owner task each, which holds the channel, the arena and what is in flight.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::admission::Budget;
use crate::engine::Event;
use crate::error::InferError;
use crate::registry::Registry;
use crate::spec::ModelSpec;

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

/// Every open worker by id.
#[derive(Debug)]
pub struct Workers {
    options: WorkersOptions,
}

/// The way to one worker's owner task.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// The worker's id.
    pub id: u64,
}

impl Workers {
    /// No workers yet.
    pub fn new(options: WorkersOptions) -> Self {
        Self { options }
    }

    /// Makes a data channel and an arena; answers the worker's id and its end of the channel. Needs the runtime context.
    pub fn open(&self, _model: &str, _version: u64, _instance: u32) -> io::Result<(u64, OwnedFd)> {
        let _ = &self.options;
        todo!()
    }

    /// Closes a worker's channel; what it had started fails, the rest is queued again. False if there is none.
    pub fn close(&self, _id: u64) -> bool {
        todo!()
    }

    /// Adds a worker to a published model version.
    pub fn attach(&self, _model: &str, _version: u64, _id: u64) -> Result<(), InferError> {
        todo!()
    }

    /// The handles of the workers that a specification names.
    pub fn claim(&self, _spec: &ModelSpec) -> Result<Vec<WorkerHandle>, InferError> {
        todo!()
    }
}
