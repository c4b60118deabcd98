//! What a failure looks like on the wire: the only place of the HTTP listener that names a status.

use bytes::Bytes;
use hyper::header::{ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::ResponseBody;
use crate::auth::{NO_KEY, Refusal};
use crate::error::{Code, InferError};
use crate::operations::Failure;

/// The status of a core code (protocol §2).
fn status(code: Code) -> StatusCode {
    match code {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::InvalidArg | Code::Unknown | Code::AlreadyExists | Code::Cancelled => StatusCode::BAD_REQUEST,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unsupported => StatusCode::NOT_IMPLEMENTED,
    }
}

/// A refusal on its way to the client.
#[derive(Debug)]
pub struct HttpError {
    status: StatusCode,
    text: String,
    header: Option<(HeaderName, &'static str)>,
    closes: bool,
    /// How many bytes of an unread body are worth reading, so that the client sees the answer.
    pub drain: u64,
}

const SMALL_DRAIN: u64 = 1 << 20;
const LARGE_DRAIN: u64 = 256 << 20;

impl HttpError {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), header: None, closes: false, drain: SMALL_DRAIN }
    }

    /// W1: no such route.
    pub fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found")
    }

    /// W3: the route has other verbs.
    pub fn wrong_verb(allow: &'static str) -> Self {
        Self { header: Some((ALLOW, allow)), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") }
    }

    /// The request is wrong.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// F2: a `Host` that this server is not known by.
    pub fn wrong_host(host: &str) -> Self {
        let text = format!("this server does not answer to the host name '{host}'; --allowed-host adds one");
        Self::new(StatusCode::MISDIRECTED_REQUEST, text)
    }

    /// F2, W68: known and not allowed.
    pub fn forbidden(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, text)
    }

    /// Triton's restricted API; on top of the gate, with Triton's answer.
    pub fn restricted(header: &str) -> Self {
        Self::forbidden(format!("This API is restricted, expecting header '{header}'"))
    }

    /// The body did not come in time.
    pub fn too_slow(text: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, text).closing(0)
    }

    /// W9: live or ready is asked and the answer is no.
    pub fn not_ready(text: impl Into<String>) -> Self {
        Self::bad_request(text)
    }

    /// Something of ours broke; the details are in the log.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error; the server's log says more")
    }

    /// A body above its limit: W23 wants 400 with Triton's text, and the client mostly sends it all before it reads.
    pub fn too_large(text: impl Into<String>) -> Self {
        Self { drain: LARGE_DRAIN, ..Self::bad_request(text) }
    }

    /// W35: a body in a coding that is not known here.
    pub fn unsupported_encoding() -> Self {
        let refusal = Self::of(Code::Unsupported, "Unsupported compression type");
        Self { header: Some((ACCEPT_ENCODING, "gzip, deflate")), ..refusal }
    }

    /// Ends the connection after the answer.
    #[must_use]
    pub fn closing(mut self, drain: u64) -> Self {
        self.closes = true;
        self.drain = drain;
        self
    }

    /// A code of the core that has no error of its own here.
    pub fn of(code: Code, text: impl Into<String>) -> Self {
        Self::new(status(code), text)
    }

    /// Whether it is a fault of ours, worth a record.
    pub fn is_ours(&self) -> bool {
        self.status == StatusCode::INTERNAL_SERVER_ERROR
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The text that the client reads.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// W5: every error body is JSON.
    pub fn response(self) -> Response<ResponseBody> {
        let mut response = json_text(error_text(&self.text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some((name, value)) = self.header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<InferError> for HttpError {
    fn from(error: InferError) -> Self {
        Self::of(error.code(), error.to_string())
    }
}

impl From<Refusal> for HttpError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthorized => Self::new(StatusCode::UNAUTHORIZED, NO_KEY),
            Refusal::Forbidden(text) => Self::forbidden(text),
        }
    }
}

impl From<Failure> for HttpError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Failed(error) => error.into(),
        }
    }
}

/// W5: the body of a refusal.
pub fn error_text(text: &str) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
    }
    serde_json::to_vec(&Body { error: text }).expect("a string does not fail to serialise").into()
}

/// 200 with a JSON body.
pub fn json(body: &impl Serialize) -> Response<ResponseBody> {
    let text = serde_json::to_vec(body).expect("response bodies have string keys and nothing that fails to serialise");
    json_text(text.into())
}

/// 200 with a body that is JSON already.
pub fn json_text(text: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// W7: 200 without a body.
pub fn empty() -> Response<ResponseBody> {
    Response::new(ResponseBody::default())
}
