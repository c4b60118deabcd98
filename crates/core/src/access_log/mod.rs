//! The access log: one JSON line for each request, written when the last byte of its answer has been handed over.

mod sink;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::log::{Log, stamp_of};
use crate::options::AccessLogOptions;
use crate::request::{InferResponse, Timing};
use crate::statistics::monotonic_ns;
use sink::Sink;

/// The way to the access log; without a file it takes nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessLog(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    sink: Sink,
    /// One of so many good requests is written; failures all are.
    rate: u64,
    seen: AtomicU64,
}

impl AccessLog {
    /// Opens the file and starts its writer; faults of the writer go to `log`.
    pub(crate) fn start(options: &AccessLogOptions, log: &Log) -> io::Result<Self> {
        let Some(path) = &options.file else { return Ok(Self::default()) };
        let sink = Sink::start(path, log.clone())?;
        Ok(Self(Some(Arc::new(Open { sink, rate: options.rate.max(1), seen: AtomicU64::new(0) }))))
    }

    /// The line of a request that begins; none where there is no access log.
    pub(crate) fn begin(&self, request: Request<'_>) -> Option<Arc<Line>> {
        let open = self.0.as_ref()?;
        Some(Arc::new(Line {
            open: Arc::clone(open),
            time: SystemTime::now(),
            began: monotonic_ns(),
            listener: request.listener,
            client: request.client,
            verb: request.verb.to_owned(),
            path: request.path.to_owned(),
            noted: Mutex::default(),
            sent: AtomicU64::new(0),
            whole: AtomicBool::new(false),
        }))
    }

    /// Waits until all lines so far are written, but no longer than a stuck file deserves.
    pub(crate) fn flush(&self) {
        if let Some(open) = &self.0 {
            open.sink.flush();
        }
    }
}

/// What is known of a request at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) listener: &'static str,
    pub(crate) client: SocketAddr,
    pub(crate) verb: &'a str,
    /// Without its query, which may hold anything.
    pub(crate) path: &'a str,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(untagged)]
pub(crate) enum Status {
    /// Of HTTP.
    Http(u16),
    /// Of gRPC, as its name.
    Grpc(&'static str),
}

impl Status {
    fn is_good(self) -> bool {
        match self {
            Self::Http(status) => status < 400,
            Self::Grpc(name) => name == "OK",
        }
    }
}

/// What is learned of a request on its way.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// None if nobody waited for the answer.
    pub(crate) status: Option<Status>,
    /// The name that the client used.
    pub(crate) model: Option<Arc<str>>,
    /// The version that ran.
    pub(crate) version: Option<u64>,
    /// The client's id, or the one that it was given.
    pub(crate) request_id: String,
    /// The id of its key.
    pub(crate) key: Option<Box<str>>,
    /// Bytes of its body, as they came.
    pub(crate) received: u64,
    /// Where the time of its response went.
    pub(crate) timing: Option<Timing>,
    /// Responses on a stream.
    pub(crate) responses: Option<u64>,
    /// Whether nothing is written: the requests of a stream have lines of their own.
    pub(crate) silent: bool,
}

/// A request from its first line to the last byte of its answer; its drop writes the line.
pub(crate) struct Line {
    open: Arc<Open>,
    time: SystemTime,
    began: u64,
    listener: &'static str,
    client: SocketAddr,
    verb: String,
    path: String,
    noted: Mutex<Noted>,
    sent: AtomicU64,
    whole: AtomicBool,
}

impl fmt::Debug for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Line").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Line {
    /// What is known so far, to add to it.
    pub(crate) fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the answer's body that have been handed over, and whether they were the last.
    pub(crate) fn sent(&self, bytes: u64, last: bool) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        if last {
            self.whole();
        }
    }

    /// Notes what a response tells of itself.
    pub(crate) fn answered(&self, response: &InferResponse) {
        let mut noted = self.noted();
        (noted.version, noted.timing) = (Some(response.version), Some(response.timing));
    }

    /// The answer has been handed over to its end.
    pub(crate) fn whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// The line of one request on a stream.
    pub(crate) fn part(&self) -> Arc<Self> {
        Arc::new(Self {
            open: Arc::clone(&self.open),
            time: SystemTime::now(),
            began: monotonic_ns(),
            listener: self.listener,
            client: self.client,
            verb: self.verb.clone(),
            path: self.path.clone(),
            noted: Mutex::default(),
            sent: AtomicU64::new(0),
            whole: AtomicBool::new(false),
        })
    }

    /// An id for a request that came without one: unlike that of any other.
    pub(crate) fn fresh_id(&self) -> String {
        self.open.sink.fresh_id()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let noted = std::mem::take(&mut *self.noted());
        if noted.silent {
            return;
        }
        let cancelled = !self.whole.load(Ordering::Relaxed);
        let is_good = !cancelled && noted.status.is_some_and(Status::is_good);
        if is_good && !self.open.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.open.rate) {
            return;
        }
        let timing = noted.timing.filter(|timing| timing.times.start > 0);
        let shown = Shown {
            time: stamp_of(self.time),
            listener: self.listener,
            client: self.client,
            verb: &self.verb,
            path: &self.path,
            status: noted.status.filter(|_| !cancelled),
            cancelled,
            model: noted.model.as_deref(),
            version: noted.version.map(|version| version.to_string()),
            request_id: &noted.request_id,
            key: noted.key.as_deref(),
            batch: timing.map(|timing| timing.batch).filter(|batch| *batch > 0),
            responses: noted.responses,
            queue_ms: timing.map(|timing| Millis(timing.queue())),
            compute_ms: timing.map(|timing| Millis(timing.times.busy())),
            duration_ms: Millis(monotonic_ns().saturating_sub(self.began)),
            bytes_in: noted.received,
            bytes_out: self.sent.load(Ordering::Relaxed),
        };
        self.open.sink.write(&shown);
    }
}

/// A line as it is written.
#[derive(Serialize)]
struct Shown<'a> {
    time: String,
    listener: &'static str,
    client: SocketAddr,
    verb: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "is_false")]
    cancelled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    responses: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compute_ms: Option<Millis>,
    duration_ms: Millis,
    bytes_in: u64,
    bytes_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Nanoseconds, shown as milliseconds to the microsecond.
struct Millis(u64);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((self.0 / 1000) as f64 / 1000.0)
    }
}
