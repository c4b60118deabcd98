//! The HTTP listener and the way of one request: host, route, gate, name, handler.

pub mod body;
pub mod codec;
pub(crate) mod compression;
pub(crate) mod connection;
pub(crate) mod cors;
mod deadline;
pub(crate) mod eager;
pub mod error;
pub mod host;
mod http2;
pub mod limits;
pub mod names;
pub(crate) mod progress;
pub mod routes;

mod admin;
mod generate;
mod health;
mod infer;
mod logging;
mod metadata;
mod metrics;
mod repository;
mod shared_memory;
mod statistics;
mod trace;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use tokio::time::Instant;

use crate::access_log::{self, Line, Status};
use crate::auth::{Caller, Credentials};
use crate::error::InferError;
use crate::log::{Level, Record};
use crate::operations::Named;
use crate::operations::names::{refusal, version};
use crate::request::{InferRequest, InferResponse};
use crate::request_id::{self, REQUEST_ID};
use crate::rope::Rope;
use crate::server::listener::Rules;
use crate::server::tls::Tls;
use crate::server::{Active, Shared};
use crate::server_timing::{self, SERVER_TIMING};
use body::{ResponseBody, Running};
use cors::Origins;
use error::HttpError;
use host::Hosts;
use limits::{Part, Unread};
use progress::Progress;
use routes::{Handler, Listener, Missed};

/// What a handler answers.
type Answer = Result<Response<ResponseBody>, HttpError>;

/// What the requests of one listener share.
#[derive(Debug)]
pub(crate) struct Frontend {
    pub(crate) shared: Arc<Shared>,
    /// Which routes it has.
    pub(crate) listener: Listener,
    pub(crate) hosts: Hosts,
    pub(crate) rules: Rules,
    pub(crate) tls: Option<Tls>,
    /// How often a connection is looked at.
    pub(crate) look: Duration,
}

/// What is known of a request before its body is read.
struct Entry {
    handler: Handler,
    /// The name that the client used.
    model: Option<Arc<str>>,
    version: Option<u64>,
    /// Whether the path named a repository.
    in_repository: bool,
    /// The region of shared memory that the path named.
    region: Option<String>,
    caller: Caller,
}

impl Entry {
    /// A browser's question, which carries no key and is told nothing but verbs.
    fn preflight(verbs: &'static str) -> Self {
        let handler = Handler::Preflight(verbs);
        Self { handler, model: None, version: None, in_repository: false, region: None, caller: Caller::Anonymous }
    }
}

/// A request that the gate has let in.
struct Call {
    front: Arc<Frontend>,
    shared: Arc<Shared>,
    headers: HeaderMap,
    body: Incoming,
    progress: Arc<Progress>,
    /// What the access log will say.
    line: Option<Arc<Line>>,
    entry: Entry,
}

impl Call {
    /// The name that the client used and reads.
    fn model(&self) -> &Arc<str> {
        self.entry.model.as_ref().expect("a handler asks only where its route's pattern holds {model}")
    }

    /// The same with the version that it asked for.
    fn named(&self) -> Named<'_> {
        Named { name: self.model(), version: self.entry.version }
    }

    /// The model that answers this request.
    fn target(&self) -> Arc<str> {
        self.named().target(&self.shared)
    }

    /// What the client reads of a failure: its own name, not the model's.
    fn refuse(&self, error: InferError, target: &str) -> HttpError {
        self.named().refuse(error, target).into()
    }

    /// Adds to a decoded request what its headers say.
    fn complete(&self, request: &mut InferRequest, deadline: Option<Instant>) -> Result<(), InferError> {
        request.deadline = deadline;
        request_id::complete(request, &self.headers);
        if let Some(line) = &self.line {
            line.noted().request_id.clone_from(&request.id);
        }
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        self.front.rules.forward.apply(request, headers)
    }

    /// Tells client and access log where the time of a response went.
    fn tell(&self, answer: &InferResponse, response: &mut Response<ResponseBody>) {
        response.headers_mut().insert(SERVER_TIMING, server_timing::value(answer.timing));
        if let Some(line) = &self.line {
            line.answered(answer);
        }
    }

    /// The whole body, which is JSON.
    async fn read(&mut self) -> Result<Bytes, HttpError> {
        self.gather(Part::Json).await.map(Rope::into_bytes)
    }

    /// The whole body.
    async fn gather(&mut self, part: Part) -> Result<Rope, HttpError> {
        let options = &self.shared.options;
        let limit = if part == Part::Binary { options.max_binary_size } else { options.max_input_size };
        let unread = Unread { headers: &self.headers, body: &mut self.body, progress: &self.progress };
        let body = limits::read(unread, part, limit).await?;
        if let Some(line) = &self.line {
            line.noted().received = body.len() as u64;
        }
        Ok(body)
    }
}

/// Answers one request, whatever happens.
async fn answer(
    front: Arc<Frontend>,
    request: Request<Incoming>,
    progress: Arc<Progress>,
    client: SocketAddr,
) -> Response<ResponseBody> {
    let active = Active::new(&front.shared);
    let (parts, mut body) = request.into_parts();
    let (verb, path) = (parts.method.as_str(), parts.uri.path());
    let begun = access_log::Request { listener: front.listener.name(), client, verb, path };
    let line = front.shared.access_log.begin(begun);
    let id = request_id::of(&parts.headers).cloned();
    let is_head = parts.method == Method::HEAD;
    let page = front.hosts.origins.of(&parts.headers).cloned();
    let mut response = match enter(&front, &parts) {
        Err(error) => refuse(&parts.headers, &mut body, error).await,
        Ok(entry) => {
            if let Some(line) = &line {
                let mut noted = line.noted();
                noted.model.clone_from(&entry.model);
                noted.key = Some(entry.caller.key_id().into());
            }
            let mut call = Call {
                front: Arc::clone(&front),
                shared: Arc::clone(&front.shared),
                headers: parts.headers,
                body,
                progress: Arc::clone(&progress),
                line: line.clone(),
                entry,
            };
            match contain(handle(&mut call)).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => refuse(&call.headers, &mut call.body, error).await,
                Err(panic) => {
                    let record = Record::new(Level::Error, "a request handler panicked");
                    front.shared.log.write(record.with("panic", panic).with("path", parts.uri.path()));
                    HttpError::internal().closing(0).response()
                }
            }
        }
    };
    if let Some(page) = page {
        Origins::allow(page, response.headers_mut());
    }
    if front.shared.is_exiting() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let id = line.as_ref().map_or(id.clone(), |line| identify(line, id, &response));
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.body_mut().keep(Running { active, progress, line }, is_head);
    response
}

/// Notes how a request was answered; its id: as its header says, else as its body does, else a fresh one.
fn identify(line: &Line, given: Option<HeaderValue>, response: &Response<ResponseBody>) -> Option<HeaderValue> {
    let mut noted = line.noted();
    noted.status = Some(Status::Http(response.status().as_u16()));
    if let Some(text) = given.as_ref().and_then(|given| given.to_str().ok()) {
        text.clone_into(&mut noted.request_id);
        return given;
    }
    if noted.request_id.is_empty() {
        noted.request_id = line.fresh_id();
    }
    HeaderValue::from_str(&noted.request_id).ok()
}

/// Everything that is decided before the body is read.
fn enter(front: &Frontend, parts: &Parts) -> Result<Entry, HttpError> {
    front.hosts.check(parts)?;
    let matched = match routes::find(front.listener, &parts.method, parts.uri.path()) {
        Ok(matched) => matched,
        Err(Missed::Path) => return Err(HttpError::no_route()),
        Err(Missed::Verb(verbs)) if front.hosts.origins.is_preflight(parts) => return Ok(Entry::preflight(verbs)),
        Err(Missed::Verb(verbs)) => return Err(HttpError::wrong_verb(verbs)),
    };
    let name = matched.model.map(names::read).transpose();
    // A name that is none is nobody's service; its caller still has to show a key first.
    let service = name.as_ref().map_or_else(|bad| Some(bad.as_str()), |name| name.as_deref());
    let caller = front.shared.gate.check(credentials(&parts.headers), matched.route.scope, service)?;
    let values = |name: &str| parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
    front.rules.restricted.check(matched.route.category, values).map_err(HttpError::restricted)?;
    let name = name.map_err(|bad| HttpError::bad_request(refusal(&bad)))?;
    let version = matched.version.map(version).transpose()?;
    let region = matched.region.map(names::read_region).transpose().map_err(HttpError::bad_request)?;
    Ok(Entry {
        handler: matched.route.handler,
        model: name.map(Arc::from),
        version,
        in_repository: matched.repository.is_some(),
        region,
        caller,
    })
}

fn credentials(headers: &HeaderMap) -> Credentials<'_> {
    let texts = |name| headers.get_all(name).iter().map(|value| value.to_str().ok());
    Credentials::of(texts(AUTHORIZATION), texts(HeaderName::from_static("x-api-key")))
}

async fn handle(call: &mut Call) -> Answer {
    match call.entry.handler {
        Handler::Infer => infer::infer(call).await,
        Handler::Generate => generate::generate(call).await,
        Handler::GenerateStream => generate::generate_stream(call).await,
        Handler::Live => health::live(call),
        Handler::Ready => health::ready(call),
        Handler::ModelReady => health::model_ready(call).await,
        Handler::Server => Ok(metadata::server(call)),
        Handler::Model => metadata::model(call),
        Handler::Config => metadata::config(call),
        Handler::Statistics => statistics::statistics(call),
        Handler::Index => repository::index(call).await,
        Handler::Load => repository::load(call).await,
        Handler::Unload => repository::unload(call).await,
        Handler::SetAccess => admin::set_access(call).await,
        Handler::Inspect => admin::inspect(call).await,
        Handler::ReadTrace => trace::read(call),
        Handler::UpdateTrace => trace::update(call).await,
        Handler::ReadLogging => Ok(logging::read(call)),
        Handler::UpdateLogging => logging::update(call).await,
        Handler::Metrics => Ok(metrics::metrics(call)),
        Handler::Routes => Ok(admin::routes()),
        Handler::RegionStatus => shared_memory::status(call),
        Handler::RegisterRegion => shared_memory::register(call).await,
        Handler::UnregisterRegion => shared_memory::unregister(call),
        Handler::RegisterCuda => shared_memory::register_cuda(call),
        Handler::UnregisterCuda => shared_memory::unregister_cuda(call),
        Handler::NoRegions => Ok(error::json_text(Bytes::from_static(b"[]"))),
        Handler::Preflight(verbs) => cors::preflight(&call.headers, verbs),
    }
}

/// Answers with a refusal; the client is let finish what it sends, within bounds, so that it reads the answer.
async fn refuse(headers: &HeaderMap, body: &mut Incoming, error: HttpError) -> Response<ResponseBody> {
    limits::drain(headers, body, error.drain).await;
    error.response()
}

/// Runs a handler so that its panic ends this request and nothing else (B8); the panic's text if there is one.
pub(crate) async fn contain<T>(handler: impl Future<Output = T>) -> Result<T, String> {
    let mut handler = pin!(handler);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic_text(panic.as_ref()))),
    })
    .await
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no text").to_owned()
}
