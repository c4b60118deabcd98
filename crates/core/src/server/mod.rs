//! Wires the data plane: runtime, engine, gate, log and listeners; started, drained and stopped by Python.

pub(crate) mod accept;
pub mod commands;
pub mod listener;
mod output;
pub(crate) mod tls;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::access_log::AccessLog;
use crate::auth::Gate;
use crate::auth::access::Access;
use crate::engine::{Engine, EngineOptions};
use crate::error::InferError;
use crate::grpc;
use crate::http::Frontend;
use crate::http::connection;
use crate::http::cors::Origins;
use crate::http::host::Hosts;
use crate::http::progress;
use crate::http::routes::Listener;
use crate::log::{Level, Log, Record};
use crate::metrics::{Gpus, Machine};
use crate::options::{CoreOptions, ListenerOptions, MetricsOptions, parse};
use crate::shared_memory::Regions;
use crate::spec::{IndexRow, ModelSpec};
use crate::trace::Tracing;
use commands::Commands;
use listener::Rules;
use tls::Tls;

/// How long answers that are being written may take to leave when the server stops.
const LAST_BYTES: Duration = Duration::from_millis(500);

/// What every listener and request shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: CoreOptions,
    pub(crate) engine: Arc<Engine>,
    pub(crate) gate: Gate,
    pub(crate) log: Log,
    pub(crate) access_log: AccessLog,
    pub(crate) machine: Machine,
    pub(crate) gpus: Gpus,
    pub(crate) trace: Tracing,
    pub(crate) regions: Regions,
    pub(crate) commands: Commands,
    boot_id: String,
    ready: AtomicBool,
    exiting: AtomicBool,
    /// Told at each change of the two.
    changed: watch::Sender<()>,
    running: AtomicUsize,
    idle: Notify,
}

#[derive(Serialize)]
struct AccessAnswer<'a> {
    boot_id: &'a str,
    generation: u64,
}

impl Shared {
    /// As Python last said.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Whether new requests are refused because the server goes down.
    pub(crate) fn is_exiting(&self) -> bool {
        self.exiting.load(Ordering::Relaxed)
    }

    /// Tells each change of readiness, and the end.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes an access snapshot; answers `{"boot_id","generation"}`.
    pub(crate) fn set_access(&self, document: &[u8]) -> Result<Vec<u8>, InferError> {
        let access = Access::from_json(document)?;
        let generation = access.generation;
        self.log.set_public_names(access.public_names().clone());
        self.gate.set(access);
        let answer = serde_json::to_vec(&AccessAnswer { boot_id: &self.boot_id, generation });
        answer.map_err(|fault| InferError::Internal(fault.to_string()))
    }

    async fn wait_idle(&self) {
        loop {
            let notified = self.idle.notified();
            if self.running.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// A request from its first line to the last byte of its answer.
#[derive(Debug)]
pub(crate) struct Active(Arc<Shared>);

impl Active {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1 && self.0.is_exiting() {
            self.0.idle.notify_waiters();
        }
    }
}

/// Where the listeners are, once bound.
#[derive(Clone, Debug, Serialize)]
pub struct Addresses {
    /// `host:port` of the v2 listener.
    pub http: Option<String>,
    /// `host:port` of the gRPC listener.
    pub grpc: Option<String>,
    /// `host:port` of the metrics listener.
    pub metrics: Option<String>,
    /// New at every start.
    pub boot_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerPlace {
    model: String,
    version: u64,
    instance: u32,
}

/// A data plane. Everything but `start` works before the listeners are bound.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    runtime: Mutex<Option<Runtime>>,
    handle: Handle,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Starts the threads and opens the log; binds nothing.
    pub fn new(options: CoreOptions) -> Result<Self, InferError> {
        let gate = Gate::new(options.require_key, options.bootstrap_key.as_deref())?;
        let log = Log::start(&options.log)
            .map_err(|fault| InferError::InvalidArgument(format!("CoreOptions: 'log': {fault}")))?;
        let access_log = AccessLog::start(&options.access_log, &log)
            .map_err(|fault| InferError::InvalidArgument(format!("CoreOptions: 'access_log': {fault}")))?;
        let gpus = match &options.metrics {
            Some(MetricsOptions { machine, .. }) if machine.gpu => {
                Gpus::start(Duration::from_millis(machine.interval_ms), log.clone())
                    .map_err(|fault| InferError::Internal(format!("cannot start a thread: {fault}")))?
            }
            _ => Gpus::default(),
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(options.io_threads)
            .thread_name("naiad-io")
            .enable_io()
            .enable_time()
            .build()
            .map_err(|fault| InferError::Internal(format!("cannot start the I/O threads: {fault}")))?;
        let engine = Engine::new(EngineOptions {
            byte_budget: options.byte_budget,
            cache_byte_size: options.cache_byte_size,
            busy_poll_us: options.busy_poll_us,
        });
        let trace = Tracing::start(&options.trace, &log)?;
        let shared = Arc::new(Shared {
            engine,
            gate,
            log,
            access_log,
            machine: Machine::default(),
            gpus,
            trace,
            regions: Regions::new(options.allow_client_shm, options.max_binary_size),
            commands: Commands::default(),
            boot_id: listener::boot_id()?,
            ready: AtomicBool::new(false),
            exiting: AtomicBool::new(false),
            changed: watch::Sender::new(()),
            running: AtomicUsize::new(0),
            idle: Notify::new(),
            options,
        });
        if let Some(mut events) = shared.engine.take_events() {
            let shared = Arc::clone(&shared);
            runtime.spawn(async move {
                while let Some(event) = events.recv().await {
                    shared.commands.tell(event);
                }
            });
        }
        let handle = runtime.handle().clone();
        Ok(Self { shared, runtime: Mutex::new(Some(runtime)), handle, stop: watch::Sender::new(false) })
    }

    /// Binds the listeners and answers where they are.
    pub fn start(&self) -> Result<Addresses, InferError> {
        self.listen(progress::LOOK)
    }

    /// The same, with connections that are looked at so often.
    pub(crate) fn listen(&self, look: Duration) -> Result<Addresses, InferError> {
        let _context = self.handle.enter();
        let options = &self.shared.options;
        let http = self.listen_http(options.http.as_ref(), Listener::V2, look)?;
        let grpc = self.listen_grpc(look)?;
        let metrics = options.metrics.as_ref().map(|metrics| &metrics.listener);
        let metrics = self.listen_http(metrics, Listener::Metrics, look)?;
        Ok(Addresses { http, grpc, metrics, boot_id: self.shared.boot_id.clone() })
    }

    fn listen_grpc(&self, look: Duration) -> Result<Option<String>, InferError> {
        let Some(options) = &self.shared.options.grpc else { return Ok(None) };
        let rules = Rules::new(options, "triton-grpc-protocol-")?;
        let tls = options.tls.as_ref().map(|tls| Tls::new(tls, &["h2"])).transpose()?;
        let (listener, address) = listener::bind(options)?;
        let hosts = Hosts::new(address, &self.shared.options.allowed_hosts, Origins::new(&[]));
        let front = grpc::Frontend::new(Arc::clone(&self.shared), hosts, rules, tls, look);
        self.handle.spawn(grpc::connection::serve(listener, Arc::new(front), self.stop.subscribe()));
        Ok(Some(address.to_string()))
    }

    fn listen_http(
        &self,
        options: Option<&ListenerOptions>,
        kind: Listener,
        look: Duration,
    ) -> Result<Option<String>, InferError> {
        let Some(options) = options else { return Ok(None) };
        let rules = Rules::new(options, "")?;
        let tls = options.tls.as_ref().map(|tls| Tls::new(tls, &["h2", "http/1.1"])).transpose()?;
        let (listener, address) = listener::bind(options)?;
        // Pages may call the v2 listener only.
        let pages = if kind == Listener::V2 { &self.shared.options.cors_origins[..] } else { &[] };
        let hosts = Hosts::new(address, &self.shared.options.allowed_hosts, Origins::new(pages));
        let front = Arc::new(Frontend { shared: Arc::clone(&self.shared), listener: kind, hosts, rules, tls, look });
        self.handle.spawn(connection::serve(listener, front, self.stop.subscribe()));
        Ok(Some(address.to_string()))
    }

    /// What clients ask Python to do.
    pub fn commands(&self) -> &Commands {
        &self.shared.commands
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// Makes a worker's channel and arena for `{"model","version","instance"}`; answers its id and its end.
    pub fn open_worker(&self, place: &[u8]) -> Result<(u64, OwnedFd), InferError> {
        let WorkerPlace { model, version, instance } = parse("spec", place)?;
        let _context = self.handle.enter();
        let opened = self.shared.engine.workers().open(&model, version, instance);
        opened.map_err(|fault| InferError::Unavailable(format!("cannot open a worker's channel: {fault}")))
    }

    /// Closes a worker's channel; one that has ended already is fine.
    pub fn close_worker(&self, worker: u64) {
        let _context = self.handle.enter();
        self.shared.engine.workers().close(worker);
    }

    /// Listens to what a worker says on its control channel from now on; one that has ended says nothing.
    pub fn follow_worker(&self, worker: u64, control: OwnedFd) {
        let _context = self.handle.enter();
        if let Err(fault) = self.shared.engine.workers().follow(worker, control) {
            self.shared.log.say(Level::Warning, format!("a worker's control channel cannot be read: {fault}"));
        }
    }

    /// Adds a worker to a published version.
    pub fn attach_worker(&self, model: &str, version: u64, worker: u64) -> Result<(), InferError> {
        let _context = self.handle.enter();
        self.shared.engine.workers().attach(model, version, worker)
    }

    /// Publishes a model version.
    pub fn publish(&self, spec: &[u8]) -> Result<(), InferError> {
        let spec: ModelSpec = parse("model spec", spec)?;
        let _context = self.handle.enter();
        self.shared.engine.publish(spec)
    }

    /// Gives a published version another configuration text; false if it is not published.
    pub fn reconfigure(&self, model: &str, version: u64, config: String) -> bool {
        self.shared.engine.reconfigure(model, version, config)
    }

    /// Takes a version out of service; false if it is not published.
    pub fn withdraw(&self, model: &str, version: u64) -> bool {
        self.shared.engine.withdraw(model, version)
    }

    /// Waits on the calling thread for the requests of what serves no more; false if some were cut off.
    pub fn retire_replaced(&self, model: &str, drain: Duration) -> bool {
        self.handle.block_on(self.shared.engine.retire_replaced(model, drain))
    }

    /// Tells the repository index.
    pub fn set_index(&self, rows: &[u8]) -> Result<(), InferError> {
        let rows: Vec<IndexRow> = parse("index", rows)?;
        self.shared.engine.registry().set_index(rows);
        Ok(())
    }

    /// Takes a full access snapshot; answers `{"boot_id","generation"}`.
    pub fn set_access(&self, snapshot: &[u8]) -> Result<Vec<u8>, InferError> {
        self.shared.set_access(snapshot)
    }

    /// Says whether the server is ready.
    pub fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Ordering::Release);
        self.shared.changed.send_replace(());
    }

    /// Turns each line of a worker's output into a log record with `labels`.
    pub fn pump_output(&self, pipe: OwnedFd, labels: &[u8]) -> Result<(), InferError> {
        let labels: Map<String, Value> = parse("labels", labels)?;
        let _context = self.handle.enter();
        let pumped = output::pump(pipe, labels, self.shared.log.clone());
        pumped.map_err(|fault: io::Error| InferError::InvalidArgument(format!("output of a worker: {fault}")))
    }

    /// Writes a record of Python.
    pub fn write_log(&self, record: &[u8]) -> Result<(), InferError> {
        let record: Record = parse("log record", record)?;
        self.shared.log.write(record);
        Ok(())
    }

    /// Refuses new requests and waits for running ones on the calling thread; false if the deadline came first.
    pub fn drain(&self, limit: Duration) -> bool {
        self.set_ready(false);
        self.handle.block_on(async {
            self.shared.exiting.store(true, Ordering::Release);
            self.shared.changed.send_replace(());
            self.shared.engine.refuse();
            let started = Instant::now();
            let clean = self.shared.engine.drain(limit).await;
            let left = limit.saturating_sub(started.elapsed());
            timeout(left, self.shared.wait_idle()).await.is_ok() && clean
        })
    }

    /// Ends listeners, commands, threads, traces and the log; the second time does nothing.
    pub fn stop(&self) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(runtime) = runtime else { return };
        self.shared.exiting.store(true, Ordering::Relaxed);
        self.shared.commands.stop();
        // Every connection holds a receiver until it has ended.
        self.stop.send_replace(true);
        let _ = runtime.block_on(async { timeout(LAST_BYTES, self.stop.closed()).await });
        runtime.shutdown_timeout(LAST_BYTES);
        self.shared.access_log.flush();
        self.shared.trace.close();
        self.shared.log.flush();
    }
}
