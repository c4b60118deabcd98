//! Which web pages of other sites may call the listener: those of listed origins, none by default (W3, F2).

use hyper::Method;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::http::request::Parts;

use super::Answer;
use super::error::{HttpError, empty};

/// What a page may read of an answer beside its body.
const EXPOSED: &str = "inference-header-content-length, server-timing, endpoint-load-metrics";

/// How long a browser may remember a preflight, in seconds.
const MAX_AGE: &str = "600";

/// The list of `--http-cors-allowed-origin`.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    listed: Vec<String>,
}

impl Origins {
    /// `scheme://host[:port]` each; `*` = any.
    pub fn new(listed: &[String]) -> Self {
        Self { listed: listed.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect() }
    }

    /// The origin of the page that asks, if it is listed.
    pub fn of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        if self.listed.is_empty() {
            return None;
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none())?;
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        self.listed.iter().any(|listed| listed == "*" || *listed == text).then_some(origin)
    }

    /// Whether this is a browser's question before the request itself.
    pub fn is_preflight(&self, parts: &Parts) -> bool {
        parts.method == Method::OPTIONS
            && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            && self.of(&parts.headers).is_some()
    }

    /// Lets the page read an answer.
    pub fn allow(page: HeaderValue, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, page);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
}

/// What a listed page may send to a path with these verbs; whether it has a key shows when it does.
pub fn preflight(asked: &HeaderMap, verbs: &'static str) -> Answer {
    let mut response = empty();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(verbs));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_, ".contains(byte);
        if !names.as_bytes().iter().all(token) {
            return Err(HttpError::bad_request("malformed 'Access-Control-Request-Headers' header"));
        }
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    Ok(response)
}
