//! What each management operation does, without a word of HTTP or gRPC: both frontends only translate.

pub(crate) mod health;
pub(crate) mod logging;
pub(crate) mod metadata;
pub(crate) mod names;
pub(crate) mod repository;
pub(crate) mod shared_memory;
pub(crate) mod statistics;
pub(crate) mod trace;

use std::sync::Arc;

use crate::auth::Refusal;
use crate::error::InferError;
use crate::server::Shared;

/// Why an operation is not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The caller may not.
    Refused(Refusal),
    /// It failed.
    Failed(InferError),
}

impl From<InferError> for Failure {
    fn from(error: InferError) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A model as a client names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    /// The name that the client uses and reads.
    pub(crate) name: &'a Arc<str>,
    /// The version that it asks for; none = by policy.
    pub(crate) version: Option<u64>,
}

impl Named<'_> {
    /// The model that answers this request.
    pub(crate) fn target(self, shared: &Shared) -> Arc<str> {
        shared.gate.access().resolve(self.name).unwrap_or_else(|| Arc::clone(self.name))
    }

    /// Every model that may answer under the name.
    pub(crate) fn targets(self, shared: &Shared) -> Vec<Arc<str>> {
        let targets = shared.gate.access().targets(self.name);
        if targets.is_empty() { vec![Arc::clone(self.name)] } else { targets }
    }

    /// What the client reads of a failure: its own name, not the model's.
    pub(crate) fn refuse(self, error: InferError, target: &str) -> InferError {
        error.speaking_of(target, self.name)
    }
}
