//! Inference over HTTP: body in, codec, engine, codec, body out.

use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, header};

use super::body::Chunks;
use super::codec::{self, DecodeOptions, Target};
use super::limits::{self, BodyLimits};
use super::{Answer, Call, Inbound};
use crate::error::InferError;
use crate::server::Shared;

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Answers an infer request (W13-W34).
pub(super) async fn infer(shared: &Arc<Shared>, call: &Call, inbound: Inbound) -> Answer {
    let names = call.model();
    let model = match shared.engine.registry().find(&names.model, call.version) {
        Ok(model) => model,
        Err(error) => {
            limits::drain_refused(&inbound.headers, inbound.body).await;
            return Err(error.into());
        }
    };
    if let Some(encoding) = inbound.headers.get(header::CONTENT_ENCODING).filter(|value| *value != "identity") {
        let text = format!("Unsupported compression type '{}'", encoding.to_str().unwrap_or("?").escape_default());
        limits::drain_refused(&inbound.headers, inbound.body).await;
        return Err(InferError::Unsupported(text).into());
    }
    let json_length = inbound.headers.get(JSON_LENGTH);
    let whole = if json_length.is_some() { shared.options.max_binary_size } else { shared.options.max_input_size };
    let body = limits::read(inbound.body, BodyLimits { json: shared.options.max_input_size, whole }).await?;
    let target = Target {
        model: Arc::clone(&names.model),
        version: call.version,
        json_length: json_length.map(HeaderValue::as_bytes),
    };
    let options = DecodeOptions { max_input_size: shared.options.max_input_size };
    let (request, form) = codec::decode(&model.spec, target, body, options)?;
    let answer = shared.engine.infer(request).await?;
    let encoded = codec::encode(&answer, &names.public, &form)?;
    let mut response = Response::new(Chunks::many(encoded.body));
    let headers = response.headers_mut();
    match encoded.json_length {
        None => headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json")),
        Some(length) => {
            headers.insert(JSON_LENGTH, length.into());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
        }
    };
    Ok(response)
}
