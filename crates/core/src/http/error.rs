//! Turns a failure into a response; the only place that knows HTTP status numbers.

use bytes::Bytes;
use hyper::{Response, StatusCode, header};

use crate::auth::{Refusal, UNAUTHENTICATED};
use crate::error::{Code, InferError};
use crate::http::body::Chunks;

/// What the frontend itself refuses, before the engine sees anything.
#[derive(Debug)]
pub enum HttpError {
    /// W1.
    NotFound,
    /// W3.
    MethodNotAllowed,
    /// A `Host` that is not ours (F2).
    Misdirected(String),
    /// A state-changing request of a foreign web page (F2).
    CrossSite,
    /// The gate's answer.
    Refused(Refusal),
    /// A failure of the engine or of a codec.
    Failed(InferError),
    /// A failure with a status that its route decides (W8, W10).
    Routed(RoutedStatus, String),
}

/// Statuses that single routes choose against the code's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutedStatus {
    /// 400.
    BadRequest,
    /// 500.
    Internal,
    /// 413, outside the v2 routes.
    TooLarge,
}

impl From<InferError> for HttpError {
    fn from(error: InferError) -> Self {
        Self::Failed(error)
    }
}

const fn status(code: Code) -> StatusCode {
    match code {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Code::InvalidArg | Code::Unknown | Code::AlreadyExists | Code::Cancelled => StatusCode::BAD_REQUEST,
    }
}

impl HttpError {
    /// The status and text of this failure.
    fn parts(self) -> (StatusCode, String) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "Not Found".to_owned()),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".to_owned()),
            Self::Misdirected(host) => (
                StatusCode::MISDIRECTED_REQUEST,
                format!("host '{host}' is not served here; allow it with --allowed-host"),
            ),
            Self::CrossSite => (StatusCode::FORBIDDEN, "cross-site requests are refused".to_owned()),
            Self::Refused(Refusal::Unauthenticated) => (StatusCode::UNAUTHORIZED, UNAUTHENTICATED.to_owned()),
            Self::Refused(Refusal::Forbidden(text)) => (StatusCode::FORBIDDEN, text),
            Self::Failed(error) => (status(error.code()), error.to_string()),
            Self::Routed(RoutedStatus::BadRequest, text) => (StatusCode::BAD_REQUEST, text),
            Self::Routed(RoutedStatus::Internal, text) => (StatusCode::INTERNAL_SERVER_ERROR, text),
            Self::Routed(RoutedStatus::TooLarge, text) => (StatusCode::PAYLOAD_TOO_LARGE, text),
        }
    }

    /// The response: `{"error":"…"}` (W5). `names` are an internal model name and the public one that clients know.
    pub fn into_response(self, names: Option<(&str, &str)>) -> Response<Chunks> {
        let (status, mut text) = self.parts();
        if let Some((model, public)) = names.filter(|(model, public)| model != public) {
            text = text.replace(model, public);
        }
        let body = serde_json::json!({ "error": text }).to_string();
        let mut response = Response::new(Chunks::one(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}
