//! Inference: body in, codec, engine, codec, body out.

use std::collections::VecDeque;
use std::sync::Arc;

use hyper::Response;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::body::ResponseBody;
use super::codec::{self, DecodeOptions, Target};
use super::compression::{self, Encoding};
use super::deadline;
use super::error::HttpError;
use super::limits::Part;
use super::{Answer, Call};
use crate::error::Code;
use crate::heavy::beside;
use crate::statistics::Visit;
use crate::trace::{Front, Probe};

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

const DECOUPLED: &str = "HTTP end point doesn't support models with decoupled transaction policy";

/// `POST /v2/models/{model}[/versions/{version}]/infer` (W13 to W34)
pub async fn infer(call: &mut Call) -> Answer {
    let shared = Arc::clone(&call.shared);
    let arrival = shared.trace.arrival(Front::Http);
    let target = call.target();
    let version = call.entry.version;
    // Unknown models are refused before their inputs are read.
    let model = shared.engine.registry().find(&target, version).map_err(|error| call.refuse(error, &target))?;
    if model.spec.decoupled {
        return Err(HttpError::of(Code::Unsupported, DECOUPLED));
    }
    let deadline = deadline::of(&call.headers)?;
    let _visit = Visit::begin(&model.statistics, &call.entry.caller);
    let mut probe = shared.trace.sample(arrival, call.model(), &model, &call.headers);
    let part = part(&call.headers);
    let body = call.gather(part).await?;
    probe.received();
    let place = Target {
        model: Arc::clone(&target),
        version,
        json_length: call.headers.get(JSON_LENGTH).map(HeaderValue::as_bytes),
    };
    let options = DecodeOptions { max_input_size: shared.options.max_input_size };
    let json = if part == Part::Json { body.len() } else { 0 };
    let decoded = beside(json, || codec::decode(&model.spec, place, body, options));
    let (mut request, form) = decoded.map_err(|error| call.refuse(error, &target))?;
    call.complete(&mut request, deadline)?;
    let outlets = shared.regions.lend(&form.windows, &mut request, &shared.engine);
    let outlets = outlets.map_err(|error| call.refuse(error, &target))?;
    probe.requested(&mut request);
    let answer = shared.engine.infer(request).await;
    probe.answered(&answer);
    let mut answer = answer.map_err(|error| call.refuse(error, &target))?;
    outlets.fill(&mut answer).map_err(|error| call.refuse(error, &target))?;
    let size = answer.outputs.iter().map(|output| output.data.len()).sum();
    let encoded = beside(size, || codec::encode(&answer, call.model(), &form));
    let encoded = encoded.map_err(|error| call.refuse(error, &target))?;
    let mut response = respond(encoded, compression::of_answer(&call.headers), probe);
    call.tell(&answer, &mut response);
    Ok(response)
}

/// W33, W36, W37: the JSON's length counts what is not compressed, the body's what is.
fn respond(encoded: codec::Encoded, encoding: Option<Encoding>, probe: Probe) -> Response<ResponseBody> {
    let body = match encoding {
        None => {
            let mut parts = VecDeque::from(encoded.body);
            let first = parts.pop_front().unwrap_or_default();
            ResponseBody::of(first, parts)
        }
        Some(encoding) => compression::deflate(encoding, &encoded.body).into(),
    };
    let mut response = Response::new(body);
    response.body_mut().follow(probe);
    let headers = response.headers_mut();
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
    }
    match encoded.json_length {
        None => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Some(length) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(JSON_LENGTH, HeaderValue::from(length));
        }
    }
    response
}

/// W27, W31: what the header makes of the body.
fn part(headers: &HeaderMap) -> Part {
    match headers.get(JSON_LENGTH) {
        None => Part::Json,
        Some(length) if length == "0" => Part::Raw,
        Some(_) => Part::Binary,
    }
}
