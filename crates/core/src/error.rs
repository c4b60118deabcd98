//! Every way in which a request can fail: one tree, one code each, Triton's texts.

use thiserror::Error;

/// Triton's eight codes; `http/error.rs` and later `grpc/error.rs` translate them, nobody else names a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Nothing better is known.
    Unknown,
    /// A fault of ours or of the model's code.
    Internal,
    /// No such model, version or region.
    NotFound,
    /// The request is wrong.
    InvalidArg,
    /// Not now: not ready, too busy, timed out.
    Unavailable,
    /// Not offered.
    Unsupported,
    /// The name is taken.
    AlreadyExists,
    /// The client went away or asked to stop.
    Cancelled,
}

impl Code {
    const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Internal,
        Self::NotFound,
        Self::InvalidArg,
        Self::Unavailable,
        Self::Unsupported,
        Self::AlreadyExists,
        Self::Cancelled,
    ];

    /// The code in snake case, as it crosses to Python.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Internal => "internal",
            Self::NotFound => "not_found",
            Self::InvalidArg => "invalid_arg",
            Self::Unavailable => "unavailable",
            Self::Unsupported => "unsupported",
            Self::AlreadyExists => "already_exists",
            Self::Cancelled => "cancelled",
        }
    }

    /// The code of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }
}

/// Why an inference or management request failed. `Display` is the text that clients see; protocol §6 gives them.
#[derive(Clone, Debug, Error)]
pub enum InferError {
    /// W8: no such model.
    #[error("Request for unknown model: '{model}' is not found")]
    ModelNotFound {
        /// The name that the client used.
        model: String,
    },
    /// W8: the model is known, this version is not.
    #[error("Request for unknown model: '{model}' version {version} is not found")]
    VersionNotFound {
        /// The name that the client used.
        model: String,
        /// The version that it named.
        version: u64,
    },
    /// W8: unloaded.
    #[error("Request for unknown model: '{model}' has no available versions")]
    NoVersion {
        /// The name that the client used.
        model: String,
    },
    /// W10: named version exists and is not ready.
    #[error("Request for unknown model: '{model}' version {version} is not at ready state")]
    VersionNotReady {
        /// The name that the client used.
        model: String,
        /// The version that it named.
        version: u64,
    },
    /// A fault in the request with its full text.
    #[error("{0}")]
    InvalidArgument(String),
    /// A fault in the request with its full text and the prefix `[request id: …] ` (protocol §6, `»`).
    #[error("[request id: {id}] {text}")]
    InvalidRequest {
        /// The request's id or `<id_unknown>`.
        id: String,
        /// The text after the prefix.
        text: String,
    },
    /// Something other than a model is not there; says what.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken; says which.
    #[error("{0}")]
    AlreadyExists(String),
    /// The model's queue is full.
    #[error("[request id: {id}] Exceeds maximum queue size")]
    QueueFull {
        /// The request's id or `<id_unknown>`.
        id: String,
    },
    /// Responses of a stream are read more slowly than the model gives them.
    #[error(
        "responses are read too slowly: {replies} of them with {bytes} bytes wait to be read, which is the bound; the \
         request is cancelled"
    )]
    SlowReader {
        /// Responses that wait for their reader.
        replies: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// The request waited longer than it may.
    #[error("[request id: {id}] Request timeout expired")]
    QueueTimeout {
        /// The request's id or `<id_unknown>`.
        id: String,
    },
    /// The worker died after it had started this request.
    #[error("worker lost: the process of model '{model}' ended while it ran this request; it is being restarted")]
    WorkerLost {
        /// The model's name.
        model: String,
    },
    /// The server is going down.
    #[error("Server exiting")]
    Exiting,
    /// Too much is queued or in flight; says which limit.
    #[error("{0}")]
    Unavailable(String),
    /// The model's code failed; its own text.
    #[error("{0}")]
    Backend(String),
    /// The model's code failed with a code of its own.
    #[error("{text}")]
    BackendCode {
        /// The code that it chose.
        code: Code,
        /// Its text.
        text: String,
    },
    /// Not offered.
    #[error("{0}")]
    Unsupported(String),
    /// The client went away.
    #[error("Request cancelled")]
    Cancelled,
    /// A fault of ours; the details are in the log.
    #[error("{0}")]
    Internal(String),
}

impl InferError {
    /// A fault in the request, with the prefix that carries the request's id.
    pub fn request(id: &str, text: impl Into<String>) -> Self {
        Self::InvalidRequest { id: shown_id(id), text: text.into() }
    }

    /// Puts a service's public name where the text names the model behind it.
    #[must_use]
    pub fn speaking_of(self, internal: &str, public: &str) -> Self {
        if internal == public {
            return self;
        }
        let text = self.to_string().replace(&format!("'{internal}'"), &format!("'{public}'"));
        Self::BackendCode { code: self.code(), text }
    }

    /// The code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::ModelNotFound { .. } | Self::VersionNotFound { .. } | Self::NoVersion { .. } | Self::NotFound(_) => {
                Code::NotFound
            }
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::InvalidArgument(_) | Self::InvalidRequest { .. } => Code::InvalidArg,
            Self::VersionNotReady { .. }
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::SlowReader { .. }
            | Self::WorkerLost { .. }
            | Self::Exiting
            | Self::Unavailable(_) => Code::Unavailable,
            Self::Backend(_) | Self::Internal(_) => Code::Internal,
            Self::BackendCode { code, .. } => *code,
            Self::Unsupported(_) => Code::Unsupported,
            Self::Cancelled => Code::Cancelled,
        }
    }
}

/// The id as error texts show it.
pub fn shown_id(id: &str) -> String {
    if id.is_empty() { "<id_unknown>".to_owned() } else { id.to_owned() }
}
