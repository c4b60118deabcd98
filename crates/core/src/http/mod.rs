//! The HTTP listener: connections, and the way of one request up to its operation.

pub mod body;
pub mod codec;
pub mod error;
pub mod limits;
pub mod routes;

mod admin;
mod health;
mod infer;
mod metadata;
mod repository;
mod statistics;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::auth::{Caller, Presented, Refusal, Resolved, Scope};
use crate::error::InferError;
use crate::server::Shared;
use body::Chunks;
use error::HttpError;
use routes::{Found, Operation};

/// What a handler is told beside the body.
pub(crate) struct Call {
    /// The model of the route.
    pub(crate) model: Option<Resolved>,
    /// The version of the route.
    pub(crate) version: Option<u64>,
    /// Whether the route named a repository.
    pub(crate) repository: bool,
    /// Who calls.
    pub(crate) caller: Caller,
}

impl Call {
    /// The model of a route that has one.
    pub(crate) fn model(&self) -> &Resolved {
        self.model.as_ref().expect("the route's pattern holds {model}")
    }
}

pub(crate) type Answer = Result<Response<Chunks>, HttpError>;

/// Accepts connections until told to stop, then lets each finish its request.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    let mut stopped = stop.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => {
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(connection(stream, Arc::clone(&shared), stop.clone()));
                }
                // Out of descriptors, say: wait a little instead of spinning.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            () = told(&mut stopped) => return,
        }
    }
}

/// Waits until the listeners are to end. Apart, so that no guard of the channel lives in a `select!`.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIMEOUT)
        .max_headers(limits::MAX_HEADERS)
        .max_header_size(limits::MAX_HEADER_BYTES)
        .pipeline_flush(true);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stopping = false;
    loop {
        tokio::select! {
            // Errors are the client's: it went away, or sent what hyper answered by itself.
            _ = connection.as_mut() => return,
            () = told(&mut stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The way of one request: host, route, names, gate, operation.
async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Chunks> {
    let head_only = request.method() == Method::HEAD;
    let mut response = match enter(shared, &request) {
        Ok((operation, call)) => {
            let names = call.model.clone();
            let (parts, body) = request.into_parts();
            let answer = perform(shared, operation, call, Inbound { headers: parts.headers, body }).await;
            let names = names.as_ref().map(|names| (names.model.as_ref(), names.public.as_ref()));
            answer.unwrap_or_else(|error| error.into_response(names))
        }
        Err(error) => {
            let (parts, body) = request.into_parts();
            limits::drain_refused(&parts.headers, body).await;
            error.into_response(None)
        }
    };
    if head_only {
        let length = hyper::body::Body::size_hint(response.body()).exact().unwrap_or(0);
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        *response.body_mut() = Chunks::default();
    }
    response
}

/// A request's headers and its unread body.
pub(crate) struct Inbound {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
}

/// Everything that is decided before the body is read.
fn enter(shared: &Arc<Shared>, request: &Request<Incoming>) -> Result<(Operation, Call), HttpError> {
    let headers = request.headers();
    shared.hosts.check(headers, request.method())?;
    let (route, captures) = match routes::find(request.method().as_str(), request.uri().path()) {
        Found::Route(route, captures) => (route, captures),
        Found::OtherVerb => return Err(HttpError::MethodNotAllowed),
        Found::Nothing => return Err(HttpError::NotFound),
    };
    let name = match captures.model {
        None => None,
        Some(segment) => Some(routes::decode_name(segment).ok_or_else(|| {
            HttpError::Failed(InferError::InvalidArgument(format!(
                "invalid model name '{segment}', model name must not contain path traversal characters"
            )))
        })?),
    };
    let presented = presented(headers);
    // Management speaks of models, everything else of services.
    let model = name.map(|name| match route.scope {
        Scope::Manage => {
            let model: Arc<str> = Arc::from(name);
            Resolved { public: Arc::clone(&model), model }
        }
        _ => shared.gate.resolve(&name, 0),
    });
    let service = model.as_ref().map(|model| model.public.as_ref());
    let caller = shared.gate.check(presented, route.scope, service).map_err(HttpError::Refused)?;
    let version = captures.version.map(|digits| digits.parse().unwrap_or(u64::MAX));
    Ok((route.operation, Call { model, version, repository: captures.repository.is_some(), caller }))
}

/// The keys in a request's headers; text that is no key spoils the request like a wrong one.
fn presented(headers: &HeaderMap) -> Presented<'_> {
    let mut presented = Presented::default();
    for value in headers.get_all(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        let bearer = text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
        presented.add(if bearer { text[7..].trim() } else { "" });
    }
    for value in headers.get_all("x-api-key") {
        presented.add(value.to_str().unwrap_or_default().trim());
    }
    presented
}

async fn perform(shared: &Arc<Shared>, operation: Operation, call: Call, inbound: Inbound) -> Answer {
    match operation {
        Operation::Infer => infer::infer(shared, &call, inbound).await,
        Operation::ServerLive => Ok(health::live(shared)),
        Operation::ServerReady => Ok(health::ready(shared)),
        Operation::ModelReady => health::model_ready(shared, &call),
        Operation::ServerMetadata => Ok(metadata::server(shared)),
        Operation::ModelMetadata => metadata::model(shared, &call),
        Operation::ModelConfig => metadata::config(shared, &call),
        Operation::ModelStatistics => statistics::model(shared, &call),
        Operation::AllStatistics => statistics::all(shared, &call),
        Operation::RepositoryIndex => repository::index(shared, &call, inbound).await,
        Operation::RepositoryLoad => repository::load(shared, &call, inbound).await,
        Operation::RepositoryUnload => repository::unload(shared, &call, inbound).await,
        Operation::AdminAccess => admin::access(shared, inbound).await,
        Operation::AdminInspect => admin::inspect(shared, inbound).await,
        Operation::AdminRoutes => Ok(admin::routes()),
    }
}

/// A 200 with a JSON body.
pub(crate) fn json(body: impl Into<Bytes>) -> Response<Chunks> {
    let mut response = Response::new(Chunks::one(body.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// Which `Host` and `Origin` values a listener accepts (F2, A2).
#[derive(Debug)]
pub(crate) struct Hosts {
    any: bool,
    names: Vec<String>,
}

impl Hosts {
    /// Loopback names, the bound address and what the options add; `*` among them = any.
    pub(crate) fn new(bound: Option<std::net::SocketAddr>, allowed: &[String]) -> Self {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
        if let Some(bound) = bound {
            names.push(if bound.is_ipv6() { format!("[{}]", bound.ip()) } else { bound.ip().to_string() });
        }
        names.extend(allowed.iter().map(|name| name.to_ascii_lowercase()));
        Self { any: allowed.iter().any(|name| name == "*"), names }
    }

    fn knows(&self, authority: &str) -> bool {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        let host = host.to_ascii_lowercase();
        self.names.contains(&host)
    }

    fn check(&self, headers: &HeaderMap, method: &Method) -> Result<(), HttpError> {
        let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("\u{fffd}"));
        let host = text(header::HOST);
        let plain = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte));
        if let Some(host) = host.filter(|host| !plain(host)) {
            return Err(HttpError::Failed(InferError::InvalidArgument(format!(
                "header 'Host': expected a host and port, got '{}'",
                host.escape_default()
            ))));
        }
        if self.any {
            return Ok(());
        }
        if let Some(host) = host.filter(|host| !self.knows(host)) {
            return Err(HttpError::Misdirected(host.to_owned()));
        }
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let foreign_site = text(header::HeaderName::from_static("sec-fetch-site"))
            .is_some_and(|site| site != "same-origin" && site != "none");
        let foreign_origin = text(header::ORIGIN)
            .is_some_and(|origin| !origin.split_once("://").is_some_and(|(_, authority)| self.knows(authority)));
        if foreign_site || foreign_origin { Err(HttpError::CrossSite) } else { Ok(()) }
    }
}

/// The refusal of a caller that a handler itself finds wanting.
pub(crate) fn forbidden(text: impl Into<String>) -> HttpError {
    HttpError::Refused(Refusal::Forbidden(text.into()))
}
