//! Wires the data plane: runtime, engine, gate, log and listeners; started, drained and stopped by Python.

pub mod commands;
mod output;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::auth::{Gate, Snapshot};
use crate::engine::{Engine, EngineOptions};
use crate::error::InferError;
use crate::http::{self, Hosts};
use crate::log::{self, Level, Logger};
use crate::options::{CoreOptions, ListenerOptions};
use crate::spec::{IndexRow, ModelSpec};
use commands::{Commands, Completion, Next};

/// Connections that may wait to be accepted.
const LISTEN_BACKLOG: u32 = 4_096;

/// What every request handler shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: CoreOptions,
    pub(crate) engine: Arc<Engine>,
    pub(crate) gate: Gate,
    pub(crate) hosts: Hosts,
    pub(crate) commands: Commands,
    pub(crate) boot_id: String,
    ready: AtomicBool,
    draining: AtomicBool,
}

impl Shared {
    /// As Python last said, and not going down.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Whether the server is going down.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Where the listeners are, once bound.
#[derive(Clone, Debug, Serialize)]
pub struct Addresses {
    /// `host:port` of the v2 listener.
    pub http: Option<String>,
    /// Off until it exists.
    pub grpc: Option<String>,
    /// Off until it exists.
    pub metrics: Option<String>,
    /// New at every start.
    pub boot_id: String,
}

/// A running data plane.
#[derive(Debug)]
pub struct Server {
    runtime: Mutex<Option<Runtime>>,
    handle: tokio::runtime::Handle,
    shared: Arc<Shared>,
    addresses: Addresses,
    logger: Logger,
    log_thread: Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<bool>,
}

/// Why a server did not start: the code and the text.
#[derive(Debug)]
pub struct StartError(pub crate::error::Code, pub String);

impl Server {
    /// Binds the listener and starts the threads.
    ///
    /// # Errors
    /// An address is wrong or occupied, a log sink cannot be written, or the bootstrap digest is no digest.
    pub fn start(options: CoreOptions) -> Result<Self, StartError> {
        use crate::error::Code::{Internal, InvalidArg, Unavailable};
        let (logger, log_thread) =
            log::start(&options.log).map_err(|error| StartError(InvalidArg, format!("log: {error}")))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.io_threads.max(1))
            .thread_name("naiad-io")
            .enable_all()
            .build()
            .map_err(|error| StartError(Internal, format!("cannot start the I/O threads: {error}")))?;
        let listener = match &options.http {
            None => None,
            Some(http) => {
                let _context = runtime.enter();
                Some(bind(http).map_err(|text| StartError(Unavailable, text))?)
            }
        };
        let bound = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let gate = Gate::new(options.require_key, options.bootstrap_key.as_deref())
            .map_err(|text| StartError(InvalidArg, text))?;
        let engine =
            Engine::new(EngineOptions { byte_budget: options.byte_budget, busy_poll_us: options.busy_poll_us });
        let shared = Arc::new(Shared {
            hosts: Hosts::new(bound, &options.allowed_hosts),
            gate,
            engine,
            commands: Commands::default(),
            boot_id: boot_id(),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            options,
        });
        let (stop, stopped) = watch::channel(false);
        if let Some(listener) = listener {
            runtime.spawn(http::serve(listener, Arc::clone(&shared), stopped));
        }
        if let Some(mut events) = shared.engine.take_events() {
            let shared = Arc::clone(&shared);
            runtime.spawn(async move {
                while let Some(event) = events.recv().await {
                    shared.commands.tell(event);
                }
            });
        }
        let addresses = Addresses {
            http: bound.map(|bound| bound.to_string()),
            grpc: None,
            metrics: None,
            boot_id: shared.boot_id.clone(),
        };
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            shared,
            addresses,
            logger,
            log_thread: Mutex::new(Some(log_thread)),
            stop,
        })
    }

    /// Where the listeners are.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The log.
    pub fn logger(&self) -> &Logger {
        &self.logger
    }

    /// Waits for what Python is to do next.
    pub fn next_command(&self, limit: Duration) -> Next {
        self.shared.commands.next(limit)
    }

    /// Answers a command.
    pub fn complete(&self, id: u64, completion: Completion) -> bool {
        self.shared.commands.complete(id, completion)
    }

    /// Makes a worker's channel and arena; answers its id and its end.
    ///
    /// # Errors
    /// Descriptors or memory ran out.
    pub fn open_worker(&self, model: &str, version: u64, instance: u32) -> std::io::Result<(u64, OwnedFd)> {
        let _context = self.handle.enter();
        self.shared.engine.workers().open(model, version, instance)
    }

    /// Closes a worker's channel; false if there is none.
    pub fn close_worker(&self, worker: u64) -> bool {
        let _context = self.handle.enter();
        self.shared.engine.workers().close(worker)
    }

    /// Adds a worker to a published version.
    ///
    /// # Errors
    /// No such worker or version.
    pub fn attach_worker(&self, model: &str, version: u64, worker: u64) -> Result<(), InferError> {
        let _context = self.handle.enter();
        self.shared.engine.workers().attach(model, version, worker)
    }

    /// Publishes a model version.
    ///
    /// # Errors
    /// It names a worker that does not exist.
    pub fn publish(&self, spec: ModelSpec) -> Result<(), InferError> {
        let _context = self.handle.enter();
        self.shared.engine.publish(spec)
    }

    /// Takes a version out and waits for its requests on the calling thread; false if some were cut off.
    pub fn retire(&self, model: &str, version: u64, drain: Duration) -> bool {
        self.handle.block_on(self.shared.engine.retire(model, version, drain))
    }

    /// The same for what `publish` replaced.
    pub fn retire_replaced(&self, model: &str, drain: Duration) -> bool {
        self.handle.block_on(self.shared.engine.retire_replaced(model, drain))
    }

    /// Tells the index.
    pub fn set_index(&self, rows: Vec<IndexRow>) {
        self.shared.engine.registry().set_index(rows);
    }

    /// Replaces the access snapshot; answers its generation.
    ///
    /// # Errors
    /// A row is wrong; the text names it.
    pub fn set_access(&self, snapshot: Snapshot) -> Result<u64, String> {
        self.shared.gate.set(snapshot)
    }

    /// Says whether the server is ready.
    pub fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Ordering::Relaxed);
    }

    /// Turns each line of a worker's output into a log record with `labels`.
    ///
    /// # Errors
    /// The descriptor is no pipe.
    pub fn pump_output(&self, descriptor: OwnedFd, labels: Map<String, Value>) -> std::io::Result<()> {
        let _context = self.handle.enter();
        output::pump(descriptor, labels, self.logger.clone())
    }

    /// Refuses new requests, waits for running ones on the calling thread; false if the deadline came first.
    pub fn drain(&self, limit: Duration) -> bool {
        self.shared.draining.store(true, Ordering::Relaxed);
        self.shared.engine.refuse();
        self.handle.block_on(self.shared.engine.drain(limit))
    }

    /// Ends listeners, commands, threads and the log.
    pub fn stop(&self) {
        let _ = self.stop.send(true);
        self.shared.commands.stop();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            // Answers that are being written get a moment to leave.
            runtime.shutdown_timeout(Duration::from_millis(500));
        }
        let thread = self.log_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            self.logger.stop();
            let _ = thread.join();
        }
    }

    /// A record of the server itself.
    pub fn say(&self, level: Level, message: &str) {
        self.logger.say(level, message);
    }
}

fn bind(options: &ListenerOptions) -> Result<TcpListener, String> {
    let where_ = format!("{}:{}", options.address, options.port);
    let address: IpAddr = options
        .address
        .parse()
        .map_err(|_| format!("http address: expected an IP address, got '{}'", options.address))?;
    let address = SocketAddr::new(address, options.port);
    let attempt = || -> std::io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        if options.reuse_port {
            socket.set_reuseport(true)?;
        }
        socket.bind(address)?;
        socket.listen(LISTEN_BACKLOG)
    };
    attempt().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{where_} is in use by another process; stop it or choose another port with --http-port")
        }
        _ => format!("cannot listen on {where_}: {error}"),
    })
}

/// Tells one start of the server from another.
fn boot_id() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = format!("{}-{}", since.as_nanos(), std::process::id());
    blake3::hash(seed.as_bytes()).to_hex()[..16].to_owned()
}
