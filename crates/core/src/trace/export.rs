//! Sends spans to an OTLP/HTTP receiver, many in one message.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::options::ExportOptions;
use super::otlp::{self, SPANS};
use super::record::Trace;
use super::writer::Loss;
use crate::error::InferError;

/// What one message may take; meanwhile the queue fills.
const SEND_LIMIT: Duration = Duration::from_secs(4);

/// A receiver, and what waits to be sent to it.
#[derive(Debug)]
pub struct Exporter {
    runtime: Runtime,
    host: String,
    port: u16,
    /// What the receiver is called in requests.
    authority: String,
    path: String,
    resource: Vec<(String, String)>,
    /// Traces a message.
    size: usize,
    waiting: usize,
    delay: Duration,
    batch: Vec<Trace>,
    /// When the first of the batch came.
    since: Instant,
}

impl Exporter {
    /// Checks the address; nothing is sent yet, for the receiver may start later.
    pub fn new(options: &ExportOptions) -> Result<Self, InferError> {
        let refuse = |what: &str| InferError::InvalidArgument(format!("trace receiver '{}': {what}", options.url));
        let uri: Uri = options.url.parse().map_err(|_| refuse("expected http://host:port/path"))?;
        if uri.scheme_str() == Some("https") {
            return Err(refuse("spans are sent over http only; send them to a collector nearby, which can encrypt"));
        }
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let authority = authority.filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty());
        let authority = authority.ok_or_else(|| refuse("expected http://host:port/path"))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|fault| InferError::Internal(format!("cannot start the exporter: {fault}")))?;
        Ok(Self {
            runtime,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            resource: options.resource.clone(),
            size: (options.batch_size / SPANS).max(1),
            waiting: (options.queue_size / SPANS).max(1),
            delay: Duration::from_millis(options.delay_millis),
            batch: Vec::new(),
            since: Instant::now(),
        })
    }

    /// Traces that may wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Sends a batch that is full with this one.
    pub fn take(&mut self, trace: Trace) -> Result<(), Loss> {
        if self.batch.is_empty() {
            self.since = Instant::now();
        }
        self.batch.push(trace);
        if self.batch.len() >= self.size { self.flush() } else { self.idle() }
    }

    /// Sends a batch that is old enough.
    pub fn idle(&mut self) -> Result<(), Loss> {
        if self.wait() == Some(Duration::ZERO) { self.flush() } else { Ok(()) }
    }

    /// How long until then; none where there is no batch.
    pub fn wait(&self) -> Option<Duration> {
        (!self.batch.is_empty()).then(|| self.delay.saturating_sub(self.since.elapsed()))
    }

    /// Sends what there is. What can not be sent is lost: a receiver that is away must not fill the memory.
    pub fn flush(&mut self) -> Result<(), Loss> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let message = Bytes::from(otlp::message(&self.resource, &batch));
        let sent = self.runtime.block_on(async {
            timeout(SEND_LIMIT, self.send(message)).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
        });
        let reason = |fault| format!("cannot send spans to '{}': {fault}", self.authority);
        sent.map_err(|fault| Loss { traces: batch.len() as u64, reason: reason(fault) })
    }

    async fn send(&self, message: Bytes) -> Result<(), String> {
        let told = |fault: io::Error| fault.to_string();
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(told)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|fault| fault.to_string())?;
        // It ends with the sender, or with what the answer's body still owes.
        let driver = tokio::spawn(connection);
        let request = Request::post(&self.path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("naiad/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(message))
            .map_err(|fault| fault.to_string())?;
        let answer = sender.send_request(request).await.map_err(|fault| fault.to_string());
        driver.abort();
        match answer?.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answered {status}")),
        }
    }
}
