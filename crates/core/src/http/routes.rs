//! The one table of routes: pattern, verbs, scope, operation. Matched on whole raw segments, before anything is decoded.

use serde::Serialize;

use crate::auth::Scope;

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is named by its route below")]
pub enum Operation {
    Infer,
    ServerLive,
    ServerReady,
    ServerMetadata,
    ModelMetadata,
    ModelReady,
    ModelConfig,
    ModelStatistics,
    AllStatistics,
    RepositoryIndex,
    RepositoryLoad,
    RepositoryUnload,
    AdminAccess,
    AdminInspect,
    AdminRoutes,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Route {
    /// The path; `{model}`, `{version}` and `{repository}` stand for one segment each.
    pub path: &'static str,
    /// The verb; a GET route answers HEAD too (protocol §16).
    pub verb: &'static str,
    /// What it asks of its caller.
    pub scope: Scope,
    /// What it does.
    pub operation: Operation,
}

const fn route(verb: &'static str, path: &'static str, scope: Scope, operation: Operation) -> Route {
    Route { path, verb, scope, operation }
}

/// Every route of the HTTP listener. A route that is not here does not exist; one without a scope does not compile.
pub const ROUTES: &[Route] = &[
    route("POST", "/v2/models/{model}/infer", Scope::Infer, Operation::Infer),
    route("POST", "/v2/models/{model}/versions/{version}/infer", Scope::Infer, Operation::Infer),
    route("GET", "/v2/health/live", Scope::Public, Operation::ServerLive),
    route("GET", "/v2/health/ready", Scope::Public, Operation::ServerReady),
    route("GET", "/v2", Scope::AnyKey, Operation::ServerMetadata),
    route("GET", "/v2/models/stats", Scope::AnyKey, Operation::AllStatistics),
    route("GET", "/v2/models/{model}", Scope::Infer, Operation::ModelMetadata),
    route("GET", "/v2/models/{model}/versions/{version}", Scope::Infer, Operation::ModelMetadata),
    route("GET", "/v2/models/{model}/ready", Scope::Infer, Operation::ModelReady),
    route("GET", "/v2/models/{model}/versions/{version}/ready", Scope::Infer, Operation::ModelReady),
    route("GET", "/v2/models/{model}/config", Scope::Infer, Operation::ModelConfig),
    route("GET", "/v2/models/{model}/versions/{version}/config", Scope::Infer, Operation::ModelConfig),
    route("GET", "/v2/models/{model}/stats", Scope::Infer, Operation::ModelStatistics),
    route("GET", "/v2/models/{model}/versions/{version}/stats", Scope::Infer, Operation::ModelStatistics),
    route("POST", "/v2/repository/index", Scope::AnyKey, Operation::RepositoryIndex),
    route("POST", "/v2/repository/{repository}/index", Scope::AnyKey, Operation::RepositoryIndex),
    route("POST", "/v2/repository/models/{model}/load", Scope::Manage, Operation::RepositoryLoad),
    route("POST", "/v2/repository/{repository}/models/{model}/load", Scope::Manage, Operation::RepositoryLoad),
    route("POST", "/v2/repository/models/{model}/unload", Scope::Manage, Operation::RepositoryUnload),
    route("POST", "/v2/repository/{repository}/models/{model}/unload", Scope::Manage, Operation::RepositoryUnload),
    route("PUT", "/naiad/v1/access", Scope::Admin, Operation::AdminAccess),
    route("POST", "/naiad/v1/inspect", Scope::Admin, Operation::AdminInspect),
    route("GET", "/naiad/v1/routes", Scope::Admin, Operation::AdminRoutes),
];

/// The raw segments that stood for names, before percent-decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captures<'a> {
    /// `{model}`.
    pub model: Option<&'a str>,
    /// `{version}`, digits only (W2).
    pub version: Option<&'a str>,
    /// `{repository}`.
    pub repository: Option<&'a str>,
}

/// What a path and a verb lead to.
#[derive(Debug)]
pub enum Found<'a> {
    /// A route.
    Route(&'static Route, Captures<'a>),
    /// The path has routes, none with this verb (W3).
    OtherVerb,
    /// No route has this path (W1).
    Nothing,
}

/// Finds the route of a verb and a raw path without its query.
pub fn find<'a>(verb: &str, path: &'a str) -> Found<'a> {
    let wanted = if verb == "HEAD" { "GET" } else { verb };
    let mut other_verb = false;
    for route in ROUTES {
        if let Some(captures) = matches(route.path, path) {
            if route.verb == wanted {
                return Found::Route(route, captures);
            }
            other_verb = true;
        }
    }
    if other_verb { Found::OtherVerb } else { Found::Nothing }
}

fn matches<'a>(pattern: &str, path: &'a str) -> Option<Captures<'a>> {
    let mut captures = Captures::default();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        match expected {
            "{model}" => captures.model = Some(segment).filter(|segment| !segment.is_empty()),
            "{repository}" => captures.repository = Some(segment).filter(|segment| !segment.is_empty()),
            "{version}" => {
                captures.version = Some(segment);
                if segment.is_empty() || !segment.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
            }
            literal if literal == segment => continue,
            _ => return None,
        }
        if segment.is_empty() {
            return None;
        }
    }
    segments.next().is_none().then_some(captures)
}

/// Percent-decodes one segment and checks that it can name a model (C1); `None` if it cannot.
pub fn decode_name(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    let bad = name.is_empty()
        || name.len() > 255
        || name.starts_with('.')
        || name.chars().any(|c| c == '/' || c == '\\' || c.is_control());
    (!bad).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(verb: &str, path: &str) -> Option<Operation> {
        match find(verb, path) {
            Found::Route(route, _) => Some(route.operation),
            _ => None,
        }
    }

    #[test]
    fn w1_only_whole_paths_match() {
        for path in ["/", "/v2/", "/v2/models", "/v2/models/m/", "//", "/v2/models//infer", "/v2/models/m/infer/x"] {
            assert!(matches!(find("GET", path), Found::Nothing), "{path}");
            assert!(matches!(find("POST", path), Found::Nothing), "{path}");
        }
        assert_eq!(operation("POST", "/v2/models/m/infer"), Some(Operation::Infer));
        assert_eq!(operation("GET", "/v2/models/stats"), Some(Operation::AllStatistics));
    }

    #[test]
    fn w2_a_version_is_digits() {
        assert_eq!(operation("GET", "/v2/models/m/versions/12/ready"), Some(Operation::ModelReady));
        for version in ["-1", "a", "1.0", "", "+1"] {
            assert!(matches!(find("GET", &format!("/v2/models/m/versions/{version}/ready")), Found::Nothing));
        }
    }

    #[test]
    fn w3_other_verbs_are_known_as_such() {
        for verb in ["DELETE", "OPTIONS", "PUT", "GET", "BREW"] {
            assert!(matches!(find(verb, "/v2/models/m/infer"), Found::OtherVerb), "{verb}");
        }
        assert_eq!(operation("HEAD", "/v2/health/live"), Some(Operation::ServerLive));
    }

    #[test]
    fn c1_names_are_decoded_and_checked() {
        assert_eq!(decode_name("a%20b").as_deref(), Some("a b"));
        assert_eq!(decode_name("mnist-cnn.v1").as_deref(), Some("mnist-cnn.v1"));
        for bad in ["..", "%2e%2e", "a%2Fb", "a%5cb", "%00", "%", "%f", "%zz", ".x", "", "%ff"] {
            assert_eq!(decode_name(bad), None, "{bad}");
        }
    }
}
