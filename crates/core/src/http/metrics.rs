//! The metrics as Prometheus reads them.

use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::Call;
use super::body::ResponseBody;
use crate::metrics;

/// `GET /metrics` of the metrics listener
pub fn metrics(call: &Call) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::from(bytes::Bytes::from(metrics::scrape(&call.shared))));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
