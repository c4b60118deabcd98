//! Inference: message in, codec, engine, codec, message out.

use std::sync::Arc;

use hyper::HeaderMap;

use super::body::ResponseBody;
use super::codec::{self, Encoded, ResponseForm};
use super::compression;
use super::error::GrpcError;
use super::message::Inference;
use super::{Answer, Call, Frontend, credentials, note, version};
use crate::access_log::Line;
use crate::auth::Scope;
use crate::error::InferError;
use crate::heavy::beside;
use crate::operations::Named;
use crate::operations::names::{is_name, refusal};
use crate::request::{InferRequest, InferResponse};
use crate::request_id;
use crate::shared_memory::Outlets;
use crate::statistics::Visit;
use crate::trace::{Arrival, Front, Probe};

/// `ModelInfer` (W39 to W47)
pub async fn infer(call: &mut Call) -> Answer {
    let arrival = call.shared().trace.arrival(Front::Grpc);
    let message = call.read_inference().await?;
    let (mut request, mut asked) = prepare(&call.front, &call.headers, message, call.line.as_ref(), arrival)?;
    if asked.decoupled {
        return Err(GrpcError::unimplemented(
            "ModelInfer RPC doesn't support models with decoupled transaction policy",
        ));
    }
    request.deadline = call.deadline;
    asked.probe.requested(&mut request);
    let answer = call.shared().engine.infer(request).await;
    asked.probe.answered(&answer);
    let answer = answer.map_err(|error| asked.refuse(error))?;
    if let Some(line) = &call.line {
        line.answered(&answer);
    }
    let timing = answer.timing;
    let encoded = asked.encode(answer, None)?;
    let pieces = encoded.finish(false).ok_or_else(too_long)?;
    let level = call.shared().options.grpc_connections.compression;
    let coding = compression::of_answer(&call.headers, level);
    let mut body = ResponseBody::one(match coding {
        None => pieces,
        Some(coding) => compression::close(coding, pieces),
    });
    body.encoding = coding.map(|(encoding, _)| encoding);
    body.timing = Some(timing);
    body.follow(asked.probe);
    Ok(body)
}

/// W45, on the way out.
pub(super) fn too_long() -> GrpcError {
    GrpcError::too_much("the response exceeds the maximum of 2147483647 bytes")
}

/// What is needed of a request once the engine has it.
pub(super) struct Asked {
    /// The name that the client used.
    pub(super) name: Arc<str>,
    version: Option<u64>,
    target: Arc<str>,
    pub(super) form: ResponseForm,
    outlets: Outlets,
    /// Whether the model gives any number of responses.
    pub(super) decoupled: bool,
    pub(super) probe: Probe,
    _visit: Visit,
}

impl Asked {
    /// What the client reads of a failure: its own name, not the model's.
    pub(super) fn refuse(&self, error: InferError) -> GrpcError {
        Named { name: &self.name, version: self.version }.refuse(error, &self.target).into()
    }

    /// A response as the client wants it; `finality` is the stream's flag.
    pub(super) fn encode(&self, mut response: InferResponse, finality: Option<bool>) -> Result<Encoded, GrpcError> {
        self.outlets.fill(&mut response).map_err(|error| self.refuse(error))?;
        codec::encode(&response, &self.name, &self.form, finality).map_err(|error| self.refuse(error))
    }
}

/// Lets a message in and makes a request of it.
pub(super) fn prepare(
    front: &Frontend,
    headers: &HeaderMap,
    Inference { message, raw }: Inference,
    line: Option<&Arc<Line>>,
    arrival: Arrival,
) -> Result<(InferRequest, Asked), GrpcError> {
    if let Some(line) = line {
        line.noted().request_id.clone_from(&message.id);
    }
    let shared = &front.shared;
    let caller = shared.gate.check(credentials(headers), Scope::Infer, Some(&message.model_name))?;
    note(line, &caller, &message.model_name);
    if !message.model_name.is_empty() && !is_name(&message.model_name) {
        return Err(GrpcError::invalid(refusal(&message.model_name)));
    }
    let version = version(&message.model_version)?;
    let name = Arc::from(message.model_name.as_str());
    let named = Named { name: &name, version };
    let target = named.target(shared);
    let refuse = |error| GrpcError::from(named.refuse(error, &target));
    let model = shared.engine.registry().find(&target, version).map_err(refuse)?;
    let visit = Visit::begin(&model.statistics, &caller);
    let mut probe = shared.trace.sample(arrival, &name, &model, headers);
    probe.received();
    let typed: usize =
        message.inputs.iter().filter_map(|input| input.contents.as_ref()).map(prost::Message::encoded_len).sum();
    let decoded =
        beside(typed, || codec::decode(&model.spec, Arc::clone(&target), version, Inference { message, raw }));
    let (mut request, form) = decoded.map_err(refuse)?;
    request_id::complete(&mut request, headers);
    if let Some(line) = line {
        line.noted().request_id.clone_from(&request.id);
    }
    if front.rules.forward.is_on() {
        let values = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        front.rules.forward.apply(&mut request, values).map_err(refuse)?;
    }
    let outlets = shared.regions.lend(&form.windows, &mut request, &shared.engine).map_err(refuse)?;
    let decoupled = model.spec.decoupled;
    let (target, name) = (Arc::clone(&target), Arc::clone(&name));
    Ok((request, Asked { version, target, form, outlets, decoupled, name, probe, _visit: visit }))
}
