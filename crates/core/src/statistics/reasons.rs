//! Why a request failed and why one ran alone, as metrics tell them apart.

use crate::error::{Code, InferError};

/// The `reason` of `nv_inference_request_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// It waited longer than it may.
    Rejected,
    /// Nobody waits for it any more.
    Canceled,
    /// The model or its process failed.
    Backend,
    /// Everything else.
    Other,
}

impl FailureReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Rejected, Self::Canceled, Self::Backend, Self::Other];

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Canceled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }
}

impl From<&InferError> for FailureReason {
    fn from(error: &InferError) -> Self {
        match error {
            InferError::QueueTimeout { .. } => Self::Rejected,
            InferError::Cancelled | InferError::BackendCode { code: Code::Cancelled, .. } => Self::Canceled,
            InferError::Backend(_) | InferError::BackendCode { .. } | InferError::WorkerLost { .. } => Self::Backend,
            InferError::ModelNotFound { .. }
            | InferError::VersionNotFound { .. }
            | InferError::NoVersion { .. }
            | InferError::VersionNotReady { .. }
            | InferError::InvalidArgument(_)
            | InferError::InvalidRequest { .. }
            | InferError::QueueFull { .. }
            | InferError::Exiting
            | InferError::Unavailable(_)
            | InferError::Unsupported(_)
            | InferError::Internal(_)
            | InferError::SlowReader { .. }
            | InferError::NotFound(_)
            | InferError::AlreadyExists(_) => Self::Other,
        }
    }
}

/// Why a call holds one request and not several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alone {
    /// The model or its scheduler does not merge requests.
    #[default]
    NoBatching,
    /// Nobody else waited, and it had waited as long as the configuration wants.
    NobodyElse,
    /// It fills a batch by itself.
    Full,
    /// A preferred size was met.
    Preferred,
    /// With the next one it would have been larger than a batch may be.
    TooLarge,
    /// The next one has other inputs or shapes.
    Shape,
}

impl Alone {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::NoBatching, Self::NobodyElse, Self::Full, Self::Preferred, Self::TooLarge, Self::Shape];

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoBatching => "no_batching",
            Self::NobodyElse => "nobody_else",
            Self::Full => "full",
            Self::Preferred => "preferred_size",
            Self::TooLarge => "too_large",
            Self::Shape => "shape",
        }
    }
}
