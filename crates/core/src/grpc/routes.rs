//! The one table of methods: path, scope, handler.

use serde::Serialize;

use crate::auth::Scope;
use crate::auth::restricted::Category;

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
    /// `trace`
    Trace,
    /// `logging`
    Logging,
    /// `reflection`
    Reflect,
    /// `shared_memory`
    RegionStatus,
    /// `shared_memory`
    RegisterRegion,
    /// `shared_memory`
    UnregisterRegion,
    /// `shared_memory`
    RegisterCuda,
    /// `shared_memory`
    UnregisterCuda,
    /// Nobody: no regions.
    NoRegions,
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
    /// What Triton's restricted protocol calls it.
    pub category: Category,
    /// Who answers.
    #[serde(skip)]
    pub handler: Handler,
}

const fn route(pattern: &'static str, scope: Scope, category: Category, handler: Handler) -> Route {
    Route { pattern, verb: "GRPC", scope, category, handler }
}

/// Every method, the frequent ones first.
pub static ROUTES: &[Route] = {
    use Scope::{AnyKey, Manage, Public};
    &[
        route("/inference.GRPCInferenceService/ModelInfer", Scope::Infer, Category::Inference, Handler::Infer),
        route("/inference.GRPCInferenceService/ModelStreamInfer", Scope::Infer, Category::Inference, Handler::Stream),
        route("/inference.GRPCInferenceService/ServerLive", Public, Category::Health, Handler::Live),
        route("/inference.GRPCInferenceService/ServerReady", Public, Category::Health, Handler::Ready),
        route("/inference.GRPCInferenceService/ModelReady", Scope::Infer, Category::Health, Handler::ModelReady),
        route("/inference.GRPCInferenceService/ServerMetadata", AnyKey, Category::Metadata, Handler::Server),
        route("/inference.GRPCInferenceService/ModelMetadata", Scope::Infer, Category::Metadata, Handler::Model),
        route("/inference.GRPCInferenceService/ModelConfig", Scope::Infer, Category::ModelConfig, Handler::Config),
        // Of one model or of all that the caller sees, as the message says.
        route("/inference.GRPCInferenceService/ModelStatistics", AnyKey, Category::Statistics, Handler::Statistics),
        route("/inference.GRPCInferenceService/RepositoryIndex", AnyKey, Category::ModelRepository, Handler::Index),
        route("/inference.GRPCInferenceService/RepositoryModelLoad", Manage, Category::ModelRepository, Handler::Load),
        route(
            "/inference.GRPCInferenceService/RepositoryModelUnload",
            Manage,
            Category::ModelRepository,
            Handler::Unload,
        ),
        route(
            "/inference.GRPCInferenceService/SystemSharedMemoryStatus",
            AnyKey,
            Category::SharedMemory,
            Handler::RegionStatus,
        ),
        route(
            "/inference.GRPCInferenceService/SystemSharedMemoryRegister",
            AnyKey,
            Category::SharedMemory,
            Handler::RegisterRegion,
        ),
        route(
            "/inference.GRPCInferenceService/SystemSharedMemoryUnregister",
            AnyKey,
            Category::SharedMemory,
            Handler::UnregisterRegion,
        ),
        route(
            "/inference.GRPCInferenceService/CudaSharedMemoryStatus",
            AnyKey,
            Category::SharedMemory,
            Handler::NoRegions,
        ),
        route(
            "/inference.GRPCInferenceService/CudaSharedMemoryRegister",
            AnyKey,
            Category::SharedMemory,
            Handler::RegisterCuda,
        ),
        route(
            "/inference.GRPCInferenceService/CudaSharedMemoryUnregister",
            AnyKey,
            Category::SharedMemory,
            Handler::UnregisterCuda,
        ),
        route("/inference.GRPCInferenceService/TraceSetting", Manage, Category::Trace, Handler::Trace),
        route("/inference.GRPCInferenceService/LogSettings", Manage, Category::Logging, Handler::Logging),
        route("/grpc.health.v1.Health/Check", Public, Category::Health, Handler::Check),
        route("/grpc.health.v1.Health/Watch", Public, Category::Health, Handler::Watch),
        route(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            AnyKey,
            Category::Metadata,
            Handler::Reflect,
        ),
        route(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            AnyKey,
            Category::Metadata,
            Handler::Reflect,
        ),
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
