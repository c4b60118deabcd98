//! The one table of methods: path, scope, handler.

use serde::Serialize;

use crate::auth::Scope;

/// Who answers a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// `infer`
    Infer,
    /// `stream`
    Stream,
    /// `health`
    Live,
    /// `health`
    Ready,
    /// `health`
    ModelReady,
    /// `health`
    Check,
    /// `health`
    Watch,
    /// `metadata`
    Server,
    /// `metadata`
    Model,
    /// `metadata`
    Config,
    /// `statistics`
    Statistics,
    /// `repository`
    Index,
    /// `repository`
    Load,
    /// `repository`
    Unload,
    /// `reflection`
    Reflect,
    /// Nobody: no regions.
    NoRegions,
    /// Nobody yet: the text that says so.
    NotOffered(&'static str),
}

/// One row.
#[derive(Debug, Serialize)]
pub struct Route {
    /// The whole path; anything else is another method (A3).
    pub pattern: &'static str,
    /// For readers of the table beside that of HTTP.
    pub verb: &'static str,
    /// What the gate asks: of the model that the message names where the scope is about one.
    pub scope: Scope,
    /// Who answers.
    #[serde(skip)]
    pub handler: Handler,
}

const fn route(pattern: &'static str, scope: Scope, handler: Handler) -> Route {
    Route { pattern, verb: "GRPC", scope, handler }
}

const TRACE: Handler = Handler::NotOffered("trace settings are not offered yet");
const LOGGING: Handler = Handler::NotOffered("log settings are start-up options; changing them is not offered yet");
/// W73.
const SHARED_MEMORY: Handler =
    Handler::NotOffered("Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable.");

/// Every method, the frequent ones first.
pub static ROUTES: &[Route] = {
    use Scope::{AnyKey, Manage, Public};
    &[
        route("/inference.GRPCInferenceService/ModelInfer", Scope::Infer, Handler::Infer),
        route("/inference.GRPCInferenceService/ModelStreamInfer", Scope::Infer, Handler::Stream),
        route("/inference.GRPCInferenceService/ServerLive", Public, Handler::Live),
        route("/inference.GRPCInferenceService/ServerReady", Public, Handler::Ready),
        route("/inference.GRPCInferenceService/ModelReady", Scope::Infer, Handler::ModelReady),
        route("/inference.GRPCInferenceService/ServerMetadata", AnyKey, Handler::Server),
        route("/inference.GRPCInferenceService/ModelMetadata", Scope::Infer, Handler::Model),
        route("/inference.GRPCInferenceService/ModelConfig", Scope::Infer, Handler::Config),
        // Of one model or of all that the caller sees, as the message says.
        route("/inference.GRPCInferenceService/ModelStatistics", AnyKey, Handler::Statistics),
        route("/inference.GRPCInferenceService/RepositoryIndex", AnyKey, Handler::Index),
        route("/inference.GRPCInferenceService/RepositoryModelLoad", Manage, Handler::Load),
        route("/inference.GRPCInferenceService/RepositoryModelUnload", Manage, Handler::Unload),
        route("/inference.GRPCInferenceService/SystemSharedMemoryStatus", AnyKey, Handler::NoRegions),
        route("/inference.GRPCInferenceService/SystemSharedMemoryRegister", AnyKey, SHARED_MEMORY),
        route("/inference.GRPCInferenceService/SystemSharedMemoryUnregister", AnyKey, SHARED_MEMORY),
        route("/inference.GRPCInferenceService/CudaSharedMemoryStatus", AnyKey, Handler::NoRegions),
        route("/inference.GRPCInferenceService/CudaSharedMemoryRegister", AnyKey, SHARED_MEMORY),
        route("/inference.GRPCInferenceService/CudaSharedMemoryUnregister", AnyKey, SHARED_MEMORY),
        route("/inference.GRPCInferenceService/TraceSetting", Manage, TRACE),
        route("/inference.GRPCInferenceService/LogSettings", Manage, LOGGING),
        route("/grpc.health.v1.Health/Check", Public, Handler::Check),
        route("/grpc.health.v1.Health/Watch", Public, Handler::Watch),
        route("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", AnyKey, Handler::Reflect),
        route("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", AnyKey, Handler::Reflect),
    ]
};

/// The method of a path: byte for byte, or none.
pub fn find(path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.pattern == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_has_one_spelling() {
        assert_eq!(find("/grpc.health.v1.Health/Check").map(|route| route.handler), Some(Handler::Check));
        for path in [
            "grpc.health.v1.Health/Check",
            "//grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/check",
            "/grpc.health.v1.Health%2FCheck",
            "/grpc.health.v1.Health/Check/",
            "/",
            "",
        ] {
            assert!(find(path).is_none(), "{path}");
        }
    }
}
