//! Generate: a flat JSON object in, one flat object or a stream of them out (W38, W58 to W61).

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::body::{More, ResponseBody};
use super::codec::{self, DecodeOptions, Target};
use super::error::{HttpError, error_text};
use super::{Answer, Call, compression, deadline};
use crate::error::InferError;
use crate::heavy::beside;
use crate::request::InferResponse;
use crate::scheduler::{Reply, Responses};
use crate::statistics::Visit;
use crate::trace::{Front, Probe};

/// W59.
const NOT_ONE: &str = "generate expects model to produce exactly 1 response, use generate stream for model that \
                       generates various number of responses";

/// The responses to one request as the client reads them.
struct Stream {
    responses: Responses,
    /// The name that the client used.
    public: Arc<str>,
    /// The model behind it.
    target: Arc<str>,
    ended: bool,
    probe: Probe,
    _visit: Visit,
}

impl Stream {
    /// The next response; none at the end.
    async fn next(&mut self) -> Result<Option<InferResponse>, HttpError> {
        while !self.ended {
            let reply = self.responses.next().await;
            let Some(Reply { outcome, last }) = reply else { break };
            self.ended = last;
            self.probe.replied(&outcome, last);
            let response = outcome.map_err(|error| self.refuse(error))?;
            if response.is_some() {
                return Ok(response);
            }
        }
        self.ended = true;
        Ok(None)
    }

    fn refuse(&mut self, error: InferError) -> HttpError {
        self.ended = true;
        error.speaking_of(&self.target, &self.public).into()
    }

    fn encode(&self, response: &InferResponse) -> Bytes {
        let size = response.outputs.iter().map(|output| output.data.len()).sum();
        beside(size, || codec::encode_generate(response, &self.public))
    }
}

/// From the body to the engine.
async fn begin(call: &mut Call) -> Result<Stream, HttpError> {
    let arrival = call.shared.trace.arrival(Front::Http);
    let target = call.target();
    let version = call.entry.version;
    let model = call.shared.engine.registry().find(&target, version).map_err(|error| call.refuse(error, &target))?;
    let deadline = deadline::of(&call.headers)?;
    let visit = Visit::begin(&model.statistics, &call.entry.caller);
    let mut probe = call.shared.trace.sample(arrival, call.model(), &model, &call.headers);
    if compression::is_encoded(&call.headers) {
        return Err(HttpError::bad_request("Unsupported content-encoding, only 'identity' is supported."));
    }
    let body = call.read().await?;
    probe.received();
    let place = Target { model: Arc::clone(&target), version, json_length: None };
    let options = DecodeOptions { max_input_size: call.shared.options.max_input_size };
    let decoded = beside(body.len(), || codec::decode_generate(&model.spec, place, &body, options));
    let mut request = decoded.map_err(|error| call.refuse(error, &target))?;
    call.complete(&mut request, deadline)?;
    probe.requested(&mut request);
    let responses = call.shared.engine.stream(request).map_err(|error| call.refuse(error, &target))?;
    Ok(Stream { responses, public: Arc::clone(call.model()), target, ended: false, probe, _visit: visit })
}

/// `POST /v2/models/{model}[/versions/{version}]/generate`
pub async fn generate(call: &mut Call) -> Answer {
    let mut stream = begin(call).await?;
    let only = stream.next().await?;
    let more = stream.next().await?;
    let (Some(only), None) = (only, more) else {
        // Triton says so under 200, and its tests look at the text only.
        return Ok(respond("application/json", error_text(NOT_ONE), None));
    };
    let mut response = respond("application/json", stream.encode(&only), None);
    call.tell(&only, &mut response);
    response.body_mut().follow(mem::take(&mut stream.probe));
    Ok(response)
}

/// `POST /v2/models/{model}[/versions/{version}]/generate_stream`: server-sent events. The first one decides the
/// status.
pub async fn generate_stream(call: &mut Call) -> Answer {
    let mut stream = begin(call).await?;
    let first = match stream.next().await {
        Ok(Some(response)) => {
            if let Some(line) = &call.line {
                line.answered(&response);
            }
            stream.probe.sending();
            event(&stream.encode(&response))
        }
        Ok(None) => Bytes::new(),
        Err(error) => {
            let text = event(&error_text(error.text()));
            let mut response = respond(EVENTS, text, None);
            *response.status_mut() = error.status();
            return Ok(response);
        }
    };
    Ok(respond(EVENTS, first, (!stream.ended).then(|| more(stream))))
}

const EVENTS: &str = "text/event-stream; charset=utf-8";

fn event(json: &[u8]) -> Bytes {
    [b"data: ", json, b"\n\n"].concat().into()
}

/// The events behind the first. The body asks for one when the client has room for it; dropped with the body, they
/// cancel the request.
fn more(mut stream: Stream) -> More {
    More::new(async move {
        let json = match stream.next().await {
            Ok(Some(response)) => stream.encode(&response),
            Ok(None) => return None,
            Err(error) => error_text(error.text()),
        };
        Some((event(&json), (!stream.ended).then(|| more(stream))))
    })
}

/// W58: of no known length.
fn respond(kind: &'static str, first: Bytes, more: Option<More>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::growing(first, more));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
