//! The one table of routes: pattern, verb, scope, handler.

use hyper::Method;
use serde::Serialize;

use crate::auth::Scope;
use crate::auth::restricted::Category;

/// Who answers a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// `health`
    Live,
    /// `health`
    Ready,
    /// `health`
    ModelReady,
    /// `metadata`
    Server,
    /// `metadata`
    Model,
    /// `metadata`
    Config,
    /// `infer`
    Infer,
    /// `generate`
    Generate,
    /// `generate`
    GenerateStream,
    /// `statistics`
    Statistics,
    /// `repository`
    Index,
    /// `repository`
    Load,
    /// `repository`
    Unload,
    /// `trace`
    ReadTrace,
    /// `trace`
    UpdateTrace,
    /// `logging`
    ReadLogging,
    /// `logging`
    UpdateLogging,
    /// `metrics`
    Metrics,
    /// `admin`
    SetAccess,
    /// `admin`
    Inspect,
    /// `admin`
    Routes,
    /// `cors`, for a path whose verbs are these; no row has it.
    Preflight(&'static str),
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
    /// Nobody: an empty list.
    NoRegions,
}

/// A listener that speaks HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Listener {
    /// The v2 protocol and what the control plane asks.
    V2,
    /// The metrics.
    Metrics,
}

impl Listener {
    /// What the access log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V2 => "http",
            Self::Metrics => "metrics",
        }
    }
}

/// A verb that a route may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// Reads; HEAD too (§16).
    Get,
    /// Acts.
    Post,
    /// Replaces.
    Put,
}

impl Verb {
    fn takes(self, method: &Method) -> bool {
        match self {
            Self::Get => matches!(*method, Method::GET | Method::HEAD),
            Self::Post => *method == Method::POST,
            Self::Put => *method == Method::PUT,
        }
    }
}

/// One row.
#[derive(Debug, Serialize)]
pub struct Route {
    /// The whole path, segments in braces vary.
    pub pattern: &'static str,
    /// The verb.
    pub verb: Verb,
    /// What the gate asks.
    pub scope: Scope,
    /// Where it is.
    pub listener: Listener,
    /// What Triton's restricted API calls it.
    pub category: Category,
    /// Who answers.
    #[serde(skip)]
    pub handler: Handler,
}

const fn route(verb: Verb, pattern: &'static str, scope: Scope, category: Category, handler: Handler) -> Route {
    Route { pattern, verb, scope, listener: Listener::V2, category, handler }
}

/// Every route; the first that matches counts, so fixed words stand before names.
pub static ROUTES: &[Route] = {
    use Category::{Health, Inference, Logging, Metadata, ModelConfig, ModelRepository, SharedMemory, Trace};
    use Handler::{Config, Generate, GenerateStream, Index, Inspect, Live, Load, Model, ModelReady, NoRegions};
    use Handler::{
        Ready, RegionStatus, RegisterCuda, RegisterRegion, Routes, Server, SetAccess, Statistics, Unload,
        UnregisterCuda, UnregisterRegion,
    };
    use Scope::{Admin, AnyKey, Manage, Public};
    use Verb::{Get, Post, Put};
    &[
        route(Post, "/v2/models/{model}/infer", Scope::Infer, Inference, Handler::Infer),
        route(Post, "/v2/models/{model}/versions/{version}/infer", Scope::Infer, Inference, Handler::Infer),
        route(Get, "/v2/health/live", Public, Health, Live),
        route(Get, "/v2/health/ready", Public, Health, Ready),
        route(Get, "/v2", AnyKey, Metadata, Server),
        route(Get, "/v2/models/stats", AnyKey, Category::Statistics, Statistics),
        route(Get, "/v2/models/{model}", Scope::Infer, Metadata, Model),
        route(Get, "/v2/models/{model}/versions/{version}", Scope::Infer, Metadata, Model),
        route(Get, "/v2/models/{model}/ready", Scope::Infer, Health, ModelReady),
        route(Get, "/v2/models/{model}/versions/{version}/ready", Scope::Infer, Health, ModelReady),
        route(Get, "/v2/models/{model}/config", Scope::Infer, ModelConfig, Config),
        route(Get, "/v2/models/{model}/versions/{version}/config", Scope::Infer, ModelConfig, Config),
        route(Get, "/v2/models/{model}/stats", Scope::Infer, Category::Statistics, Statistics),
        route(Get, "/v2/models/{model}/versions/{version}/stats", Scope::Infer, Category::Statistics, Statistics),
        route(Post, "/v2/repository/index", AnyKey, ModelRepository, Index),
        route(Post, "/v2/repository/{repository}/index", AnyKey, ModelRepository, Index),
        route(Post, "/v2/repository/models/{model}/load", Manage, ModelRepository, Load),
        route(Post, "/v2/repository/models/{model}/unload", Manage, ModelRepository, Unload),
        route(Post, "/v2/repository/{repository}/models/{model}/load", Manage, ModelRepository, Load),
        route(Post, "/v2/repository/{repository}/models/{model}/unload", Manage, ModelRepository, Unload),
        Route {
            listener: Listener::Metrics,
            ..route(Get, "/metrics", Scope::Metrics, Category::Admin, Handler::Metrics)
        },
        route(Put, "/naiad/v1/access", Admin, Category::Admin, SetAccess),
        route(Post, "/naiad/v1/inspect", Admin, ModelRepository, Inspect),
        route(Get, "/naiad/v1/routes", Admin, Category::Admin, Routes),
        route(Post, "/v2/models/{model}/generate", Scope::Infer, Inference, Generate),
        route(Post, "/v2/models/{model}/generate_stream", Scope::Infer, Inference, GenerateStream),
        route(Post, "/v2/models/{model}/versions/{version}/generate", Scope::Infer, Inference, Generate),
        route(Post, "/v2/models/{model}/versions/{version}/generate_stream", Scope::Infer, Inference, GenerateStream),
        route(Get, "/v2/models/{model}/trace/setting", Manage, Trace, Handler::ReadTrace),
        route(Post, "/v2/models/{model}/trace/setting", Manage, Trace, Handler::UpdateTrace),
        route(Get, "/v2/trace/setting", Manage, Trace, Handler::ReadTrace),
        route(Post, "/v2/trace/setting", Manage, Trace, Handler::UpdateTrace),
        route(Get, "/v2/logging", Manage, Logging, Handler::ReadLogging),
        route(Post, "/v2/logging", Manage, Logging, Handler::UpdateLogging),
        route(Get, "/v2/systemsharedmemory/status", AnyKey, SharedMemory, RegionStatus),
        route(Get, "/v2/systemsharedmemory/region/{region}/status", AnyKey, SharedMemory, RegionStatus),
        route(Post, "/v2/systemsharedmemory/unregister", AnyKey, SharedMemory, UnregisterRegion),
        route(Post, "/v2/systemsharedmemory/region/{region}/register", AnyKey, SharedMemory, RegisterRegion),
        route(Post, "/v2/systemsharedmemory/region/{region}/unregister", AnyKey, SharedMemory, UnregisterRegion),
        route(Get, "/v2/cudasharedmemory/status", AnyKey, SharedMemory, NoRegions),
        route(Post, "/v2/cudasharedmemory/unregister", AnyKey, SharedMemory, UnregisterCuda),
        route(Post, "/v2/cudasharedmemory/region/{region}/register", AnyKey, SharedMemory, RegisterCuda),
        route(Post, "/v2/cudasharedmemory/region/{region}/unregister", AnyKey, SharedMemory, UnregisterCuda),
    ]
};

/// A route with the segments that vary, raw.
#[derive(Debug)]
pub struct Matched<'a> {
    /// The row.
    pub route: &'static Route,
    /// `{model}`
    pub model: Option<&'a str>,
    /// `{version}`, digits only.
    pub version: Option<&'a str>,
    /// `{repository}`
    pub repository: Option<&'a str>,
    /// `{region}`
    pub region: Option<&'a str>,
}

/// Why nothing matched.
#[derive(Debug, PartialEq, Eq)]
pub enum Missed {
    /// W1.
    Path,
    /// W3, with the verbs that the path has.
    Verb(&'static str),
}

/// Finds the row of a raw path (W1, W2, W3).
pub fn find<'a>(listener: Listener, method: &Method, path: &'a str) -> Result<Matched<'a>, Missed> {
    let here = || ROUTES.iter().filter(|route| route.listener == listener);
    for route in here().filter(|route| route.verb.takes(method)) {
        if let Some(matched) = fit(route, path) {
            return Ok(matched);
        }
    }
    let has = |verb| here().any(|route| route.verb == verb && fit(route, path).is_some());
    Err(match (has(Verb::Get), has(Verb::Post), has(Verb::Put)) {
        (false, false, false) => Missed::Path,
        (true, false, _) => Missed::Verb("GET, HEAD"),
        (true, true, _) => Missed::Verb("GET, HEAD, POST"),
        (false, true, _) => Missed::Verb("POST"),
        (false, false, true) => Missed::Verb("PUT"),
    })
}

fn fit<'a>(route: &'static Route, path: &'a str) -> Option<Matched<'a>> {
    let mut matched = Matched { route, model: None, version: None, repository: None, region: None };
    let mut words = route.pattern.split('/');
    for segment in path.split('/') {
        match words.next()? {
            "{model}" if !segment.is_empty() => matched.model = Some(segment),
            "{version}" if !segment.is_empty() && segment.bytes().all(|digit| digit.is_ascii_digit()) => {
                matched.version = Some(segment);
            }
            "{repository}" if !segment.is_empty() => matched.repository = Some(segment),
            "{region}" if !segment.is_empty() => matched.region = Some(segment),
            word if word == segment => {}
            _ => return None,
        }
    }
    words.next().is_none().then_some(matched)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler(method: &Method, path: &str) -> Result<Handler, Missed> {
        find(Listener::V2, method, path).map(|matched| matched.route.handler)
    }

    #[test]
    fn whole_paths_match_and_nothing_else() {
        let get = |path| handler(&Method::GET, path);
        assert_eq!(get("/v2"), Ok(Handler::Server));
        assert_eq!(get("/v2/models/stats"), Ok(Handler::Statistics));
        assert_eq!(get("/v2/models/m/versions/007/ready"), Ok(Handler::ModelReady));
        assert_eq!(handler(&Method::HEAD, "/v2/health/live"), Ok(Handler::Live));
        assert_eq!(handler(&Method::POST, "/v2/repository/models/m/load"), Ok(Handler::Load));
        for path in [
            "/",
            "",
            "/v2/",
            "/v2/models",
            "/v2/models/",
            "/v2/models/m/",
            "//",
            "/v2//",
            "/V2",
            "/v2/models//infer",
            "/v2/models/m/versions/x",
            "/v2/models/m/versions//ready",
            "/v2/models/m/versions/-1",
            "/v2/%6dodels/m",
            "*",
            "v2",
        ] {
            assert_eq!(get(path), Err(Missed::Path), "{path}");
        }
    }

    #[test]
    fn another_verb_is_told_from_another_path() {
        assert_eq!(handler(&Method::GET, "/v2/models/m/infer"), Err(Missed::Verb("POST")));
        assert_eq!(handler(&Method::OPTIONS, "/v2"), Err(Missed::Verb("GET, HEAD")));
        assert_eq!(handler(&Method::DELETE, "/v2/logging"), Err(Missed::Verb("GET, HEAD, POST")));
        assert_eq!(handler(&Method::from_bytes(b"BREW").unwrap(), "/naiad/v1/access"), Err(Missed::Verb("PUT")));
    }

    #[test]
    fn no_row_hides_another() {
        for (position, route) in ROUTES.iter().enumerate() {
            let path = route.pattern.replace("{version}", "1").replace(['{', '}'], "");
            let same = |other: &Route| other.verb == route.verb && other.listener == route.listener;
            let found = ROUTES.iter().position(|other| same(other) && fit(other, &path).is_some());
            assert_eq!(found, Some(position), "{path}");
        }
    }
}
