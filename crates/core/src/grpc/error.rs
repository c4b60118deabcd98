//! What a failure looks like on the wire: the only place of the gRPC listener that names a status.

use std::fmt::Write as _;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::{NO_KEY, Refusal};
use crate::error::{Code, InferError};
use crate::operations::Failure;

/// gRPC's own codes, as far as they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is done.
    Ok = 0,
    /// The client asked to stop.
    Cancelled = 1,
    /// Nothing better is known.
    Unknown = 2,
    /// The request is wrong.
    InvalidArgument = 3,
    /// The client's time is over.
    DeadlineExceeded = 4,
    /// No such model, version or region.
    NotFound = 5,
    /// The name is taken.
    AlreadyExists = 6,
    /// Known and not allowed.
    PermissionDenied = 7,
    /// A message, or the number of streams, is above its limit.
    ResourceExhausted = 8,
    /// Not offered.
    Unimplemented = 12,
    /// A fault of ours or of the model's code.
    Internal = 13,
    /// Not now.
    Unavailable = 14,
    /// No key or none that is valid.
    Unauthenticated = 16,
}

impl Status {
    const ALL: [(Self, &str); 13] = [
        (Self::Ok, "OK"),
        (Self::Cancelled, "CANCELLED"),
        (Self::Unknown, "UNKNOWN"),
        (Self::InvalidArgument, "INVALID_ARGUMENT"),
        (Self::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (Self::NotFound, "NOT_FOUND"),
        (Self::AlreadyExists, "ALREADY_EXISTS"),
        (Self::PermissionDenied, "PERMISSION_DENIED"),
        (Self::ResourceExhausted, "RESOURCE_EXHAUSTED"),
        (Self::Unimplemented, "UNIMPLEMENTED"),
        (Self::Internal, "INTERNAL"),
        (Self::Unavailable, "UNAVAILABLE"),
        (Self::Unauthenticated, "UNAUTHENTICATED"),
    ];

    /// The name that gRPC's documents give it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(status, _)| *status == self).map_or("UNKNOWN", |(_, name)| name)
    }

    /// The status that headers or trailers tell.
    pub fn told(headers: &HeaderMap) -> Option<Self> {
        let code: u8 = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        Self::ALL.iter().map(|(status, _)| *status).find(|status| *status as u8 == code)
    }
}

/// The status of a core code (protocol §2).
fn status(code: Code) -> Status {
    match code {
        Code::Unknown => Status::Unknown,
        Code::Internal => Status::Internal,
        Code::NotFound => Status::NotFound,
        Code::InvalidArg => Status::InvalidArgument,
        Code::Unavailable => Status::Unavailable,
        Code::Unsupported => Status::Unimplemented,
        Code::AlreadyExists => Status::AlreadyExists,
        Code::Cancelled => Status::Cancelled,
    }
}

/// A refusal on its way to the client.
#[derive(Clone, Debug)]
pub struct GrpcError {
    status: Status,
    text: String,
    /// Whether the client is to learn which codings there are.
    encodings: bool,
}

impl GrpcError {
    fn new(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), encodings: false }
    }

    /// A3: no such method.
    pub fn no_method(path: &str) -> Self {
        Self::new(Status::Unimplemented, format!("unknown method '{path}'"))
    }

    /// Something that is not offered.
    pub fn unimplemented(text: impl Into<String>) -> Self {
        Self::new(Status::Unimplemented, text)
    }

    /// The request is wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Status::InvalidArgument, text)
    }

    /// Known and not allowed.
    pub fn forbidden(text: impl Into<String>) -> Self {
        Self::new(Status::PermissionDenied, text)
    }

    /// Triton's restricted protocol; on top of the gate, with Triton's answer.
    pub fn restricted(header: &str) -> Self {
        Self::new(Status::Unavailable, format!("This protocol is restricted, expecting header '{header}'"))
    }

    /// A message in a coding that is not known here.
    pub fn unsupported_encoding() -> Self {
        Self { encodings: true, ..Self::unimplemented("Unsupported compression type") }
    }

    /// Above a limit.
    pub fn too_much(text: impl Into<String>) -> Self {
        Self::new(Status::ResourceExhausted, text)
    }

    /// W52: the client's time is over.
    pub fn deadline() -> Self {
        Self::new(Status::DeadlineExceeded, "Deadline Exceeded")
    }

    /// A message that was due did not come.
    pub fn silent() -> Self {
        Self::new(Status::DeadlineExceeded, "the request message stopped coming")
    }

    /// The client went away.
    pub fn cancelled() -> Self {
        Self::new(Status::Cancelled, "Request cancelled")
    }

    /// What came is no gRPC.
    pub fn broken(text: impl Into<String>) -> Self {
        Self::new(Status::Internal, text)
    }

    /// Something of ours broke; the details are in the log.
    pub fn internal() -> Self {
        Self::new(Status::Internal, "internal error; the server's log says more")
    }

    /// The status that the client reads.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The text that the client reads.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The status as headers: trailers, or all that a refusal consists of.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = status_headers(self.status);
        if !self.text.is_empty() {
            headers.insert(MESSAGE, escape(&self.text));
        }
        if self.encodings {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity,deflate,gzip"));
        }
        headers
    }
}

/// What reflection answers, inside its response, to a question about something that it does not know.
pub fn not_described() -> (i32, String) {
    (Status::NotFound as i32, "not found".to_owned())
}

/// The trailers of a call that went well.
pub fn ok() -> HeaderMap {
    status_headers(Status::Ok)
}

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

fn status_headers(status: Status) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(STATUS, HeaderValue::from(status as u16));
    headers
}

/// Bytes of a text that a client gets: a header has a bound, and so has the client's room for it.
const LONGEST: usize = 4096;

/// The text with all that no header may hold as `%XX`.
fn escape(text: &str) -> HeaderValue {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut escaped = String::with_capacity(end);
    for byte in text[..end].bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            escaped.push(byte as char);
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    HeaderValue::from_str(&escaped).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl From<InferError> for GrpcError {
    fn from(error: InferError) -> Self {
        Self::new(status(error.code()), error.to_string())
    }
}

impl From<Refusal> for GrpcError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthorized => Self::new(Status::Unauthenticated, NO_KEY),
            Refusal::Forbidden(text) => Self::forbidden(text),
        }
    }
}

impl From<Failure> for GrpcError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Failed(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_for_a_header() {
        let headers = GrpcError::invalid("100%\nüber 'm'; ").headers();
        assert_eq!(
            (&headers["grpc-status"], &headers["grpc-message"]),
            (&HeaderValue::from_static("3"), &HeaderValue::from_static("100%25%0A%C3%BCber 'm'; "))
        );
        assert!(ok().get("grpc-message").is_none());
        assert!(GrpcError::invalid("ü".repeat(9000)).headers()["grpc-message"].len() <= 3 * LONGEST);
    }
}
