//! What clients ask Python to do: a bounded queue out, one answer back for each.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::engine::Event;
use crate::error::{Code, InferError};

const LIMIT: usize = 256;

/// A command without its id.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Command {
    /// Load or reload a model.
    Load {
        /// The model's name in the repository.
        model: String,
        /// A configuration instead of the stored one.
        config: Option<String>,
        /// Path → base64.
        files: HashMap<String, String>,
    },
    /// Take a model out of service.
    Unload {
        /// The model's name in the repository.
        model: String,
        /// Whether an ensemble takes its steps along.
        unload_dependents: bool,
    },
    /// Look at a model without serving it.
    Inspect {
        /// What the client sent.
        parameters: Box<RawValue>,
    },
    /// A worker ended though nobody closed it; needs no answer.
    WorkerLost {
        /// The worker's id.
        worker: u64,
        /// The model that it ran.
        model: String,
        /// Its version.
        version: u64,
        /// Requests that failed with it.
        started: usize,
        /// Why.
        reason: String,
    },
}

#[derive(Serialize)]
struct Numbered<'a> {
    id: u64,
    #[serde(flatten)]
    command: &'a Command,
}

/// What Python answers to a command.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    ok: bool,
    #[serde(default)]
    body: Option<Box<RawValue>>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// The body of a good answer, if it has one.
pub type Outcome = Result<Option<Box<RawValue>>, InferError>;

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(u64, Command)>,
    running: HashMap<u64, oneshot::Sender<Outcome>>,
    next: u64,
    stopped: bool,
}

/// The queue; off the request path of inference.
#[derive(Debug, Default)]
pub struct Commands {
    state: Mutex<State>,
    wake: Condvar,
}

impl Commands {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks Python and waits for its answer. A client that goes away leaves the command running.
    pub async fn ask(&self, command: Command) -> Outcome {
        let answer = {
            let mut state = self.lock();
            if state.stopped {
                return Err(InferError::Exiting);
            }
            if state.running.len() >= LIMIT {
                let text = format!("{LIMIT} load, unload and inspect requests are waiting; try again later");
                return Err(InferError::Unavailable(text));
            }
            state.next += 1;
            let id = state.next;
            let (sender, answer) = oneshot::channel();
            state.running.insert(id, sender);
            state.waiting.push_back((id, command));
            answer
        };
        self.wake.notify_one();
        answer.await.unwrap_or(Err(InferError::Exiting))
    }

    /// Tells Python what happened; each worker is lost once, so this needs no bound.
    pub fn tell(&self, event: Event) {
        let Event::WorkerLost { worker, model, version, started, reason } = event;
        self.lock().waiting.push_back((0, Command::WorkerLost { worker, model, version, started, reason }));
        self.wake.notify_one();
    }

    /// The next command as JSON; `None` when the time is over. Blocks the calling thread.
    pub fn next(&self, limit: Duration) -> Result<Option<Vec<u8>>, InferError> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if state.stopped {
                return Err(InferError::Cancelled);
            }
            if let Some((id, command)) = state.waiting.pop_front() {
                let document = serde_json::to_vec(&Numbered { id, command: &command });
                return document.map(Some).map_err(|fault| InferError::Internal(fault.to_string()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes Python's answer to a command; after the stop nobody waits for it any more.
    pub fn complete(&self, id: u64, document: &[u8]) -> Result<(), InferError> {
        let answer: Answer = crate::options::parse("result", document)?;
        let outcome = if answer.ok { Ok(answer.body) } else { Err(refusal(answer)?) };
        if let Some(client) = self.lock().running.remove(&id) {
            // A client that went away does not want to know.
            let _ = client.send(outcome);
        }
        Ok(())
    }

    /// Ends every wait.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.waiting.clear();
        state.running.clear();
        drop(state);
        self.wake.notify_all();
    }
}

fn refusal(answer: Answer) -> Result<InferError, InferError> {
    let code = answer.code.as_deref().unwrap_or("");
    let code = Code::from_name(code).ok_or_else(|| {
        InferError::InvalidArgument(format!("result: 'code': expected one of the eight codes, got '{code}'"))
    })?;
    Ok(InferError::BackendCode { code, text: answer.message.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unload() -> Command {
        Command::Unload { model: "m".to_owned(), unload_dependents: false }
    }

    #[tokio::test]
    async fn an_answer_reaches_the_one_who_asked() {
        let commands = Commands::default();
        let asked = commands.ask(unload());
        let answered = async {
            let document = commands.next(Duration::from_secs(5)).unwrap().unwrap();
            assert_eq!(document, br#"{"id":1,"kind":"unload","model":"m","unload_dependents":false}"#);
            commands.complete(1, br#"{"ok":false,"code":"not_found","message":"gone"}"#).unwrap();
        };
        let (outcome, ()) = tokio::join!(asked, answered);
        let error = outcome.unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (Code::NotFound, "gone"));
    }

    #[test]
    fn a_stopped_queue_answers_cancelled() {
        let commands = Commands::default();
        assert!(commands.next(Duration::ZERO).unwrap().is_none());
        commands.stop();
        assert_eq!(commands.next(Duration::ZERO).unwrap_err().code(), Code::Cancelled);
    }
}
