//! The gRPC listener and the way of one call: method, host, gate, message, handler.

pub mod codec;
pub mod error;
pub mod message;
pub mod messages;
pub mod routes;

mod body;
mod compression;
pub(crate) mod connection;
mod health;
mod infer;
mod inline;
mod logging;
mod metadata;
mod reflection;
mod repository;
mod shared_memory;
mod statistics;
mod stream;
mod trace;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use prost::Message;
use tokio::time::{Instant, timeout_at};

use crate::access_log::{self, Line};
use crate::auth::{Caller, Credentials, Scope};
use crate::http::compression::Encoding;
use crate::http::contain;
use crate::http::host::Hosts;
use crate::log::{Level, Record};
use crate::operations::names::{self, is_name, refusal};
use crate::request_id::{self, REQUEST_ID};
use crate::server::listener::Rules;
use crate::server::tls::Tls;
use crate::server::{Active, Shared};
use crate::server_timing::{self, SERVER_TIMING};
use body::ResponseBody;
use error::{GrpcError, Status};
use message::{Inference, Messages};
use messages::inference;
use routes::{Handler, Route};

/// W45.
pub(crate) const MESSAGE_LIMIT: usize = i32::MAX as usize;

/// What a handler answers.
type Answer = Result<ResponseBody, GrpcError>;

/// What the calls of one listener share.
#[derive(Debug)]
pub(crate) struct Frontend {
    pub(crate) shared: Arc<Shared>,
    pub(crate) hosts: Hosts,
    pub(crate) rules: Rules,
    pub(crate) tls: Option<Tls>,
    /// The longest message.
    pub(crate) limit: usize,
    /// How often a connection is looked at.
    pub(crate) look: Duration,
    /// Calls that stay open.
    pub(crate) streams: AtomicUsize,
}

impl Frontend {
    /// Shared by the calls of a new listener.
    pub(crate) fn new(shared: Arc<Shared>, hosts: Hosts, rules: Rules, tls: Option<Tls>, look: Duration) -> Self {
        Self { shared, hosts, rules, tls, limit: MESSAGE_LIMIT, look, streams: AtomicUsize::new(0) }
    }
}

/// What is known of a call before a message is read.
struct Entry {
    route: &'static Route,
    deadline: Option<Instant>,
    encoding: Option<Encoding>,
}

/// A call that may go on until its message says what it is about.
struct Call {
    front: Arc<Frontend>,
    route: &'static Route,
    headers: HeaderMap,
    messages: Messages,
    /// What the access log will say.
    line: Option<Arc<Line>>,
    /// When the client no longer waits (W52).
    deadline: Option<Instant>,
}

impl Call {
    fn shared(&self) -> &Arc<Shared> {
        &self.front.shared
    }

    /// The one message of a unary call.
    async fn read<M: Message + Default>(&mut self) -> Result<M, GrpcError> {
        let message = self.messages.only().await;
        self.received();
        message
    }

    /// The same for an inference.
    async fn read_inference(&mut self) -> Result<Inference, GrpcError> {
        let message = self.messages.only_inference().await;
        self.received();
        message
    }

    fn received(&self) {
        if let Some(line) = &self.line {
            line.noted().received = self.messages.received;
        }
    }

    /// The gate for a call that is about no model in particular.
    fn caller(&self) -> Result<Caller, GrpcError> {
        let caller = self.shared().gate.check(credentials(&self.headers), self.route.scope, None)?;
        note(self.line.as_ref(), &caller, "");
        Ok(caller)
    }

    /// The gate for the model that the message names, and its name.
    fn model(&self, scope: Scope, name: &str) -> Result<(Caller, Arc<str>), GrpcError> {
        let caller = self.shared().gate.check(credentials(&self.headers), scope, Some(name))?;
        note(self.line.as_ref(), &caller, name);
        if !name.is_empty() && !is_name(name) {
            return Err(GrpcError::invalid(refusal(name)));
        }
        Ok((caller, Arc::from(name)))
    }
}

/// Notes who calls, and for which model.
fn note(line: Option<&Arc<Line>>, caller: &Caller, model: &str) {
    if let Some(line) = line {
        let mut noted = line.noted();
        noted.key = Some(caller.key_id().into());
        noted.model = (!model.is_empty()).then(|| model.into());
    }
}

/// Answers one call, whatever happens.
async fn answer(front: Arc<Frontend>, request: Request<Incoming>, client: SocketAddr) -> Response<ResponseBody> {
    let active = Active::new(&front.shared);
    let (parts, incoming) = request.into_parts();
    let (verb, path) = (parts.method.as_str(), parts.uri.path());
    let line = front.shared.access_log.begin(access_log::Request { listener: "grpc", client, verb, path });
    let id = request_id::of(&parts.headers).cloned();
    let outcome = match enter(&front, &parts) {
        Err(error) => Err(error),
        Ok(Entry { route, deadline, encoding }) => {
            let messages = Messages::new(incoming, encoding, front.limit);
            let headers = parts.headers;
            let call = Call { front: Arc::clone(&front), route, headers, messages, line: line.clone(), deadline };
            let mut handled = pin!(handle(call));
            let handled = async {
                match deadline {
                    None => handled.as_mut().await,
                    // The engine gives up at the same moment, with words of its own.
                    Some(at) => match timeout_at(at, handled.as_mut()).await {
                        Ok(outcome) if outcome.is_ok() || Instant::now() < at => outcome,
                        _ => Err(GrpcError::deadline()),
                    },
                }
            };
            contain(handled).await.unwrap_or_else(|panic| {
                let record = Record::new(Level::Error, "a request handler panicked");
                front.shared.log.write(record.with("panic", panic).with("path", route.pattern));
                Err(GrpcError::internal())
            })
        }
    };
    let mut response = outcome.map_or_else(|error| refuse(&error), Response::new);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(encoding) = response.body().encoding {
        response.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding.name()));
    }
    if let Some(timing) = response.body().timing {
        response.headers_mut().insert(SERVER_TIMING, server_timing::value(timing));
    }
    if let Some(line) = &line {
        identify(line, id.as_ref(), response.headers());
    }
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.body_mut().keep(active, line);
    response
}

/// Notes a call's id and, where its answer is all headers, how it ended.
fn identify(line: &Line, id: Option<&HeaderValue>, answer: &HeaderMap) {
    let mut noted = line.noted();
    if let Some(text) = id.and_then(|id| id.to_str().ok()) {
        text.clone_into(&mut noted.request_id);
    }
    if let Some(status) = Status::told(answer) {
        noted.status = Some(access_log::Status::Grpc(status.name()));
        line.whole();
    }
}

/// A refusal is all headers.
fn refuse(error: &GrpcError) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.headers_mut() = error.headers();
    response
}

/// Everything that is decided before a message is read.
fn enter(front: &Frontend, parts: &Parts) -> Result<Entry, GrpcError> {
    let path = parts.uri.path();
    let is_grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
    if parts.method != Method::POST || !parts.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
        return Err(GrpcError::unimplemented("expected a gRPC call"));
    }
    let route = routes::find(path).ok_or_else(|| GrpcError::no_method(path))?;
    // F2: a web page that reaches a loopback listener all the same comes by a name that is not ours.
    front.hosts.check(parts).map_err(|error| GrpcError::forbidden(error.text()))?;
    front.shared.gate.check_early(credentials(&parts.headers), route.scope)?;
    let values = |name: &str| parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
    front.rules.restricted.check(route.category, values).map_err(GrpcError::restricted)?;
    Ok(Entry {
        route,
        deadline: parts.headers.get("grpc-timeout").map(deadline).transpose()?,
        encoding: compression::of_request(&parts.headers)?,
    })
}

fn credentials(headers: &HeaderMap) -> Credentials<'_> {
    let texts = |name| headers.get_all(name).iter().map(|value| value.to_str().ok());
    Credentials::of(texts(AUTHORIZATION), texts(HeaderName::from_static("x-api-key")))
}

/// `grpc-timeout`: at most eight digits and a unit.
fn deadline(value: &HeaderValue) -> Result<Instant, GrpcError> {
    let parsed = value.to_str().ok().and_then(|text| {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8 && !digits.starts_with('+'))?;
        Some(match unit {
            "H" => Duration::from_secs(count * 3600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        })
    });
    let wait = parsed.ok_or_else(|| GrpcError::invalid("malformed 'grpc-timeout'"))?;
    Ok(Instant::now() + wait)
}

async fn handle(mut owned: Call) -> Answer {
    let call = &mut owned;
    match call.route.handler {
        Handler::Infer => infer::infer(call).await,
        Handler::Stream => stream::stream(owned),
        Handler::Watch => health::watch(owned).await,
        Handler::Reflect => reflection::reflect(owned),
        Handler::Live => health::live(call).await,
        Handler::Ready => health::ready(call).await,
        Handler::ModelReady => health::model_ready(call).await,
        Handler::Check => health::check(call).await,
        Handler::Server => metadata::server(call).await,
        Handler::Model => metadata::model(call).await,
        Handler::Config => metadata::config(call).await,
        Handler::Statistics => statistics::statistics(call).await,
        Handler::Index => repository::index(call).await,
        Handler::Load => repository::load(call).await,
        Handler::Unload => repository::unload(call).await,
        Handler::RegionStatus => shared_memory::status(call).await,
        Handler::RegisterRegion => shared_memory::register(call).await,
        Handler::UnregisterRegion => shared_memory::unregister(call).await,
        Handler::RegisterCuda => shared_memory::register_cuda(call).await,
        Handler::UnregisterCuda => shared_memory::unregister_cuda(call),
        Handler::Trace => trace::setting(call).await,
        Handler::Logging => logging::settings(call).await,
        Handler::NoRegions => {
            call.caller()?;
            Ok(reply(&inference::CudaSharedMemoryStatusResponse::default()))
        }
    }
}

/// A good answer.
fn reply(message: &impl Message) -> ResponseBody {
    ResponseBody::one(body::frame(message))
}

/// `""` = by policy (W47).
fn version(text: &str) -> Result<Option<u64>, GrpcError> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(names::version(text)?))
}
