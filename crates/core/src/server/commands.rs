//! The queue of what clients ask Python to do: load, unload, inspect; and news of lost workers.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::engine::Event;
use crate::error::{Code, InferError};

/// Commands that may wait for Python.
const BACKLOG: usize = 1_024;

/// What Python is asked.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Request {
    /// Load or reload a model.
    Load {
        /// The model's name.
        model: String,
        /// A configuration that replaces the repository's.
        config: Option<String>,
        /// Path below the model's directory → base64.
        files: BTreeMap<String, String>,
    },
    /// Unload a model.
    Unload {
        /// The model's name.
        model: String,
        /// Whether models that it alone uses go too.
        unload_dependents: bool,
    },
    /// Say what a model file holds.
    Inspect {
        /// The body of the request.
        parameters: Value,
    },
    /// A worker's channel ended by itself; needs no answer.
    WorkerLost {
        /// The worker.
        worker: u64,
        /// Its model.
        model: String,
        /// Its version.
        version: u64,
        /// Requests that failed with it.
        started: usize,
        /// Why the channel ended.
        reason: String,
    },
}

#[derive(Debug, Serialize)]
struct Command {
    id: u64,
    #[serde(flatten)]
    request: Request,
}

/// Python's answer to a command.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Completion {
    ok: bool,
    #[serde(default)]
    body: Value,
    #[serde(default)]
    code: Option<CodeName>,
    #[serde(default)]
    message: String,
}

/// A code by the name that crosses the boundary.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CodeName {
    Unknown,
    Internal,
    NotFound,
    InvalidArg,
    Unavailable,
    Unsupported,
    AlreadyExists,
    Cancelled,
}

impl From<CodeName> for Code {
    fn from(name: CodeName) -> Self {
        match name {
            CodeName::Unknown => Self::Unknown,
            CodeName::Internal => Self::Internal,
            CodeName::NotFound => Self::NotFound,
            CodeName::InvalidArg => Self::InvalidArg,
            CodeName::Unavailable => Self::Unavailable,
            CodeName::Unsupported => Self::Unsupported,
            CodeName::AlreadyExists => Self::AlreadyExists,
            CodeName::Cancelled => Self::Cancelled,
        }
    }
}

/// What is next for Python.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A command as JSON.
    Command(Vec<u8>),
    /// Nothing came in time.
    Nothing,
    /// The server is stopped; nothing will come.
    Stopped,
}

/// The queue. None of it is on the request path of inference.
#[derive(Debug)]
pub struct Commands {
    sender: Mutex<Option<SyncSender<Command>>>,
    receiver: Mutex<Receiver<Command>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Completion>>>,
    next_id: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Commands {
    fn default() -> Self {
        let (sender, receiver) = sync_channel(BACKLOG);
        Self {
            sender: Mutex::new(Some(sender)),
            receiver: Mutex::new(receiver),
            waiting: Mutex::default(),
            next_id: AtomicU64::new(1),
        }
    }
}

impl Commands {
    /// Asks Python and waits for its answer; its `body` on success.
    ///
    /// # Errors
    /// Python refused, too much is waiting, or the server is going down.
    pub async fn ask(&self, request: Request) -> Result<Value, InferError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.waiting).insert(id, answer);
        if let Err(error) = self.send(Command { id, request }) {
            lock(&self.waiting).remove(&id);
            return Err(error);
        }
        let completion = answered.await.map_err(|_| InferError::Exiting)?;
        if completion.ok {
            return Ok(completion.body);
        }
        let code = completion.code.map_or(Code::Internal, Code::from);
        Err(InferError::BackendCode { code, text: completion.message })
    }

    /// Tells Python of an event.
    pub fn tell(&self, event: Event) {
        let Event::WorkerLost { worker, model, version, started, reason } = event;
        let request = Request::WorkerLost { worker, model, version, started, reason };
        let _ = self.send(Command { id: 0, request });
    }

    fn send(&self, command: Command) -> Result<(), InferError> {
        match lock(&self.sender).as_ref().map(|sender| sender.try_send(command)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => {
                Err(InferError::Unavailable(format!("more than {BACKLOG} load and unload calls are waiting")))
            }
            Some(Err(TrySendError::Disconnected(_))) | None => Err(InferError::Exiting),
        }
    }

    /// Waits for the next command on the calling thread.
    pub fn next(&self, limit: Duration) -> Next {
        match lock(&self.receiver).recv_timeout(limit) {
            Ok(command) => {
                Next::Command(serde_json::to_vec(&command).expect("a command is plain data with string keys"))
            }
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::Stopped,
        }
    }

    /// Answers a command; false if nobody waits for it any more.
    pub fn complete(&self, id: u64, completion: Completion) -> bool {
        lock(&self.waiting).remove(&id).is_some_and(|waiting| waiting.send(completion).is_ok())
    }

    /// Nothing more comes; who waits for an answer gets `Server exiting`.
    pub fn stop(&self) {
        lock(&self.sender).take();
        lock(&self.waiting).clear();
    }
}
