//! Takes a request from a frontend to its response: find, check, admit, schedule.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::admission::{Admission, Budget, Reservation};
use crate::cache::{Cache, Lookup};
use crate::error::InferError;
use crate::instance::{Workers, WorkersOptions};
use crate::model::{Model, Served};
use crate::registry::Registry;
use crate::request::{InferRequest, InferResponse};
use crate::scheduler::reply::Expiry;
use crate::scheduler::{self, Responses};
use crate::spec::ModelSpec;
use crate::statistics::ModelStatistics;

/// How long callers that found a version before it was replaced have to reach its line.
const ENTERING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(2);

/// How the engine is set up.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Bytes that all queued and running requests (one half) and all arenas (the other) may hold.
    pub byte_budget: u64,
    /// Bytes of the response cache, 0 = none.
    pub cache_byte_size: u64,
    /// How long a worker's owner polls for the reply before it sleeps, in microseconds.
    pub busy_poll_us: u64,
}

/// What the engine tells the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker's channel ended though nobody closed it.
    WorkerLost {
        /// The worker's id.
        worker: u64,
        /// The model that it ran.
        model: String,
        /// Its version.
        version: u64,
        /// Requests that it had started and that failed with it.
        started: usize,
        /// Why: `end of file`, or what was wrong with a frame.
        reason: String,
    },
}

/// The heart of the server. Needs a tokio runtime with time and I/O.
#[derive(Debug)]
pub struct Engine {
    registry: Arc<Registry>,
    admission: Arc<Admission>,
    cache: Arc<Cache>,
    workers: Workers,
    events: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
}

impl Engine {
    /// An engine without models. Needs no runtime context.
    pub fn new(options: EngineOptions) -> Arc<Self> {
        // Halves, for otherwise full queues would leave no bytes to run them in, or grown arenas none to queue.
        let half = || Budget::new(options.byte_budget / 2);
        // Unbounded, for each worker says at most one thing.
        let (events, receiver) = mpsc::unbounded_channel();
        let registry = Arc::<Registry>::default();
        let workers = Workers::new(WorkersOptions {
            budget: half(),
            busy_poll: Duration::from_micros(options.busy_poll_us),
            events,
            registry: Arc::clone(&registry),
        });
        let (admission, cache) = (Admission::new(half()), Cache::new(options.cache_byte_size));
        Arc::new(Self { registry, admission, cache, workers, events: Mutex::new(Some(receiver)) })
    }

    /// Answers a request. Needs the runtime context; dropping the future cancels the request.
    pub async fn infer(&self, request: InferRequest) -> Result<InferResponse, InferError> {
        let model = self.registry.find(&request.model, request.version)?; // not found
        model.check(&request)?; // names, datatypes, shapes
        let permit = self.admission.admit(&request)?; // going down, over the byte budget
        let miss = match self.cache.look(&model, &request) {
            Lookup::Hit(response) => return Ok(response), // known already
            Lookup::Miss(miss) => Some(miss),
            Lookup::Off => None,
        };
        let expiry = expiry(&request);
        let answer = model.scheduler.schedule(request, permit); // queue, batch, execute, split
        let outcome = match expiry {
            None => answer.await,
            Some(expiry) => expiry.bound(answer).await, // the client's deadline
        };
        if let (Some(miss), Ok(response)) = (miss, &outcome) {
            self.cache.keep(miss, response);
        }
        outcome
    }

    /// Answers a request with the responses of any model as they come. Needs the runtime context; dropping the responses
    /// cancels the request.
    pub fn stream(&self, request: InferRequest) -> Result<Responses, InferError> {
        let model = self.registry.find(&request.model, request.version)?;
        model.check(&request)?;
        let permit = self.admission.admit(&request)?;
        let expiry = expiry(&request);
        if model.spec.decoupled {
            return Ok(model.scheduler.stream(request, permit)?.until(expiry));
        }
        let keeper = match self.cache.look(&model, &request) {
            Lookup::Hit(response) => return Ok(Responses::known(response)),
            Lookup::Miss(miss) => Some((Arc::clone(&self.cache), miss)),
            Lookup::Off => None,
        };
        Ok(Responses::one(model.scheduler.schedule(request, permit), keeper).until(expiry))
    }

    /// Models by name and version, and the repository index. Its methods need no runtime context.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The channels to the workers. `open` needs the runtime context.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// The events for the supervisor; the first caller gets them, later ones `None`.
    pub fn take_events(&self) -> Option<mpsc::UnboundedReceiver<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Makes a model version with its workers the one that serves its name and version; a version that it replaces
    /// runs on until [`Engine::retire_replaced`]. Needs the runtime context.
    pub fn publish(&self, spec: ModelSpec) -> Result<(), InferError> {
        let handles = self.workers.claim(&spec)?;
        let served = Served::new(spec);
        if self.cache.serves(&served.spec) {
            served.statistics.use_cache();
        }
        let model = Model {
            spec: Arc::clone(&served.spec),
            statistics: Arc::clone(&served.statistics),
            voice: Arc::clone(&served.voice),
            scheduler: scheduler::start(&served, handles),
        };
        self.registry.publish(&Arc::new(model));
        Ok(())
    }

    /// Gives a published version another configuration text; its workers and its queue stay. False if it is not published.
    pub fn reconfigure(&self, name: &str, version: u64, config: String) -> bool {
        let Ok(old) = self.registry.find(name, Some(version)) else { return false };
        let spec = ModelSpec { config, ..ModelSpec::clone(&old.spec) };
        self.registry.swap(&Arc::new(Model {
            spec: Arc::new(spec),
            statistics: Arc::clone(&old.statistics),
            voice: Arc::clone(&old.voice),
            scheduler: Arc::clone(&old.scheduler),
        }));
        true
    }

    /// Takes a version out of service; it runs on until [`Engine::retire_replaced`]. False if it is not published.
    pub fn withdraw(&self, name: &str, version: u64) -> bool {
        self.registry.withdraw(name, version)
    }

    /// Waits for the requests of what [`Engine::publish`] replaced and [`Engine::withdraw`] took out under this name,
    /// and closes its workers; false if some were cut off.
    pub async fn retire_replaced(&self, name: &str, drain: Duration) -> bool {
        let deadline = Instant::now() + drain;
        let retiring: Vec<_> = self.registry.take_replaced(name);
        for model in &retiring {
            left_alone(model, deadline.min(Instant::now() + ENTERING)).await;
        }
        // All are told first, so that they drain at the same time.
        let answers: Vec<_> = retiring.iter().map(|model| model.scheduler.retire(deadline)).collect();
        let mut clean = true;
        for answer in answers {
            clean &= answer.await.unwrap_or(true);
        }
        clean
    }

    /// Bytes that queued and running requests hold, and may hold.
    pub fn request_bytes(&self) -> (u64, u64) {
        let budget = self.admission.budget();
        (budget.used(), budget.limit())
    }

    /// Takes the bytes of an input that is read before its request comes; they return when the reservation is dropped.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, InferError> {
        self.admission.reserve(bytes)
    }

    /// New requests get `Server exiting` from now on. Needs no runtime context.
    pub fn refuse(&self) {
        self.admission.refuse();
    }

    /// Refuses new requests and waits for the running ones; false if the deadline came first.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.admission.drain(limit).await
    }

    /// Statistics of one model, one version or all (W64). Needs no runtime context.
    pub fn statistics(&self, name: Option<&str>, version: Option<u64>) -> Result<Vec<ModelStatistics>, InferError> {
        let models = self.registry.models();
        let named: Vec<_> = models.iter().filter(|model| name.is_none_or(|name| model.spec.name == name)).collect();
        if let Some(name) = name.filter(|_| named.is_empty()) {
            return Err(InferError::InvalidArgument(format!("requested model '{name}' is not available")));
        }
        let wanted: Vec<_> = named
            .iter()
            .filter(|model| version.is_none_or(|version| model.spec.version == version))
            .map(|model| model.statistics.snapshot(&model.spec.name, model.spec.version))
            .collect();
        if let Some(name) = name.filter(|_| wanted.is_empty()) {
            return Err(InferError::InvalidArgument(format!(
                "requested model version is not available for model '{name}'"
            )));
        }
        Ok(wanted)
    }
}

/// Waits until nobody who found the model may still bring it a request, or for the deadline.
async fn left_alone(model: &Arc<Model>, deadline: Instant) {
    // A caller keeps what it found until its request is in line.
    while Arc::strong_count(model) > 1 && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}

/// When a request is answered though its model has not.
fn expiry(request: &InferRequest) -> Option<Expiry> {
    request.deadline.map(|at| Expiry { at, id: request.id.clone() })
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod lifecycle_tests;

#[cfg(test)]
#[path = "breach_tests.rs"]
mod breach_tests;

#[cfg(test)]
#[path = "stream_tests.rs"]
mod stream_tests;

#[cfg(test)]
#[path = "deadline_tests.rs"]
mod deadline_tests;

#[cfg(test)]
#[path = "priority_tests.rs"]
mod priority_tests;

#[cfg(test)]
#[path = "cache_tests.rs"]
mod cache_tests;
