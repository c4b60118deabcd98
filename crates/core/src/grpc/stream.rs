//! Inference on a stream: requests as they come, responses as they are made, errors among them (W53 to W57).

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::HeaderMap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::body::{Part, Pieces, ResponseBody, frame};
use super::compression;
use super::error::{GrpcError, Status, ok};
use super::infer::{Asked, prepare, too_long};
use super::message::{Inference, Messages};
use super::messages::inference::infer_parameter::ParameterChoice;
use super::messages::inference::{InferParameter, ModelInferResponse, ModelStreamInferResponse};
use super::{Answer, Call, Frontend};
use crate::access_log::{self, Line};
use crate::error::InferError;
use crate::http::compression::Encoding;
use crate::request::InferResponse;
use crate::scheduler::{Reply, Responses};
use crate::server::Active;
use crate::trace::{Arrival, Front};

/// Calls of one listener that may stay open at the same time (B6).
const MOST_OPEN: usize = 8192;

/// Requests of one stream that may run at the same time; more wait in the connection.
const RUNNING: usize = 64;

/// Responses of one stream that wait for the connection to take them; behind them the requests wait.
const WAITING: usize = 4;

/// A call that stays open, counted.
#[derive(Debug)]
pub(super) struct Open(Arc<Frontend>);

impl Open {
    pub(super) fn new(front: &Arc<Frontend>) -> Result<Self, GrpcError> {
        let open = Self(Arc::clone(front));
        if front.streams.fetch_add(1, Ordering::Relaxed) >= MOST_OPEN {
            return Err(GrpcError::too_much(format!("{MOST_OPEN} streams are open already")));
        }
        Ok(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `ModelStreamInfer`
pub fn stream(call: Call) -> Answer {
    let open = Open::new(&call.front)?;
    let (sender, parts) = mpsc::channel(WAITING);
    let Call { front, headers, messages, line, deadline, .. } = call;
    let strict = headers.get("triton_grpc_error").is_some_and(|value| value == "true");
    let coding = compression::of_answer(&headers, front.shared.options.grpc_connections.compression);
    if let Some(line) = &line {
        line.noted().silent = true;
    }
    let stream = Arc::new(Stream { front, headers, strict, coding, deadline, line, sender });
    tokio::spawn(async move {
        let _open = open;
        let run = run(&stream, messages);
        let end = match deadline {
            None => run.await,
            Some(at) => timeout_at(at, run).await.unwrap_or(Err(GrpcError::deadline())),
        };
        let trailers = end.map_or_else(|error| error.headers(), |()| ok());
        // Whoever went away does not want to know.
        let _ = stream.sender.send(Part::Trailers(trailers)).await;
    });
    let mut body = ResponseBody::stream(parts);
    body.encoding = coding.map(|(encoding, _)| encoding);
    Ok(body)
}

/// What the requests of a stream share.
#[derive(Debug)]
struct Stream {
    front: Arc<Frontend>,
    headers: HeaderMap,
    /// W53: the first error ends the stream.
    strict: bool,
    /// How responses are compressed.
    coding: Option<(Encoding, u32)>,
    deadline: Option<Instant>,
    /// What lines about its requests are made from.
    line: Option<Arc<Line>>,
    sender: mpsc::Sender<Part>,
}

/// A request's place among those whose responses must leave in order (W56).
struct Turn {
    /// Ends when the responses before have left or will never come.
    before: Option<oneshot::Receiver<()>>,
    /// Its drop lets the next one go.
    _after: oneshot::Sender<()>,
}

/// Answers requests until the client has no more (W57), the server goes down, or an error ends it all.
async fn run(stream: &Arc<Stream>, mut messages: Messages) -> Result<(), GrpcError> {
    let mut changes = stream.front.shared.changes();
    // Its drop ends what still runs: nobody waits for it.
    let mut running: JoinSet<Result<(), GrpcError>> = JoinSet::new();
    let mut last = None;
    let mut ended = false;
    loop {
        let arrival = stream.front.shared.trace.arrival(Front::Grpc);
        if running.is_empty() {
            last = None;
            if ended {
                return Ok(());
            }
            if stream.front.shared.is_exiting() {
                return Err(InferError::Exiting.into());
            }
        }
        tokio::select! {
            biased;
            () = stream.sender.closed() => return Err(GrpcError::cancelled()),
            Some(done) = running.join_next() => match done {
                Ok(done) => done?,
                Err(_) => return Err(GrpcError::internal()),
            },
            message = messages.next_inference(), if !ended && running.len() < RUNNING => match message? {
                None => ended = true,
                Some(inference) => {
                    let identity = ModelInferResponse {
                        model_name: inference.message.model_name.clone(),
                        model_version: inference.message.model_version.clone(),
                        id: inference.message.id.clone(),
                        ..ModelInferResponse::default()
                    };
                    let line = stream.line.as_ref().map(|line| line.part());
                    if let Some(line) = &line {
                        line.noted().received = mem::take(&mut messages.received);
                    }
                    // Queued here, one after the other, and not in tasks that overtake each other.
                    let begun = begin(stream, inference, line.as_ref(), arrival);
                    let mut turn = None;
                    if !begun.as_ref().is_ok_and(|(_, asked)| asked.decoupled) {
                        let (after, next) = oneshot::channel();
                        turn = Some(Turn { before: last.replace(next), _after: after });
                    }
                    running.spawn(answer(Arc::clone(stream), begun, Told { identity, line }, turn));
                }
            },
            _ = changes.changed(), if running.is_empty() => {}
        }
    }
}

/// Hands a request to the engine.
fn begin(
    stream: &Stream,
    inference: Inference,
    line: Option<&Arc<Line>>,
    arrival: Arrival,
) -> Result<(Responses, Asked), GrpcError> {
    let (mut request, mut asked) = prepare(&stream.front, &stream.headers, inference, line, arrival)?;
    request.deadline = stream.deadline;
    asked.probe.requested(&mut request);
    match stream.front.shared.engine.stream(request) {
        Ok(responses) => Ok((responses, asked)),
        Err(error) => {
            asked.probe.failed(&error);
            Err(asked.refuse(error))
        }
    }
}

/// What is told of a request beside its responses.
struct Told {
    /// Stands in the place of a response where there is none.
    identity: ModelInferResponse,
    line: Option<Arc<Line>>,
}

impl Told {
    /// Notes a message to the client and how the request stands.
    fn note(&self, outcome: Status, bytes: u64) {
        let Some(line) = &self.line else { return };
        line.sent(bytes, false);
        let mut noted = line.noted();
        *noted.responses.get_or_insert(0) += 1;
        // The first failure is the one that counts.
        if outcome != Status::Ok || noted.status.is_none() {
            noted.status = Some(access_log::Status::Grpc(outcome.name()));
        }
    }
}

/// Answers one request of a stream.
async fn answer(
    stream: Arc<Stream>,
    begun: Result<(Responses, Asked), GrpcError>,
    told: Told,
    mut turn: Option<Turn>,
) -> Result<(), GrpcError> {
    let _active = Active::new(&stream.front.shared);
    let (mut responses, mut asked) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            come(&mut turn).await;
            let identity = ModelInferResponse { id: told.identity.id.clone(), ..ModelInferResponse::default() };
            let outcome = stream.fail(error, identity, &told).await;
            told.line.iter().for_each(|line| line.whole());
            return outcome;
        }
    };
    while let Some(Reply { outcome, last }) = responses.next().await {
        asked.probe.replied(&outcome, last);
        come(&mut turn).await;
        match outcome {
            Ok(Some(response)) => stream.respond(response, &mut asked, last, &told).await?,
            Ok(None) if asked.form.empty_final => {
                let end = ModelStreamInferResponse {
                    infer_response: Some(finality(told.identity.clone(), true)),
                    ..ModelStreamInferResponse::default()
                };
                told.note(Status::Ok, stream.send(frame(&end)).await?);
            }
            Ok(None) => {}
            Err(error) => stream.fail(asked.refuse(error), finality(told.identity.clone(), last), &told).await?,
        }
        if last {
            break;
        }
    }
    told.line.iter().for_each(|line| line.whole());
    Ok(())
}

/// Waits until the responses before have left.
async fn come(turn: &mut Option<Turn>) {
    if let Some(before) = turn.as_mut().and_then(|turn| turn.before.take()) {
        let _ = before.await;
    }
}

/// W54: with the flag that every response carries.
fn finality(mut response: ModelInferResponse, last: bool) -> ModelInferResponse {
    let value = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(last)) };
    response.parameters = BTreeMap::from([("triton_final_response".to_owned(), value)]);
    response
}

impl Stream {
    /// Sends a response.
    async fn respond(
        &self,
        response: InferResponse,
        asked: &mut Asked,
        last: bool,
        told: &Told,
    ) -> Result<(), GrpcError> {
        if let Some(line) = &told.line {
            line.answered(&response);
        }
        let (version, id) = (response.version, response.id.clone());
        let encoded = asked.encode(response, Some(last));
        let pieces = encoded.and_then(|encoded| encoded.finish(true).ok_or_else(too_long));
        match pieces {
            Ok(pieces) => {
                let pieces = match self.coding {
                    None => pieces,
                    Some(coding) => compression::close(coding, pieces),
                };
                asked.probe.sending();
                told.note(Status::Ok, self.send(pieces).await?);
                asked.probe.sent();
                Ok(())
            }
            Err(error) => {
                let identity = ModelInferResponse {
                    model_name: asked.name.to_string(),
                    model_version: version.to_string(),
                    id,
                    ..ModelInferResponse::default()
                };
                self.fail(error, finality(identity, last), told).await
            }
        }
    }

    /// Sends an error among the responses; it ends the stream where the client wants that (W53).
    async fn fail(&self, error: GrpcError, identity: ModelInferResponse, told: &Told) -> Result<(), GrpcError> {
        if self.strict {
            told.note(error.status(), 0);
            told.line.iter().for_each(|line| line.whole());
            return Err(error);
        }
        let status = error.status();
        let message =
            ModelStreamInferResponse { error_message: error.text().to_owned(), infer_response: Some(identity) };
        told.note(status, self.send(frame(&message)).await?);
        Ok(())
    }

    /// Hands a message over; its bytes.
    async fn send(&self, message: Pieces) -> Result<u64, GrpcError> {
        let bytes = message.iter().map(|piece| piece.len() as u64).sum();
        self.sender.send(Part::Message(message)).await.map_err(|_| GrpcError::cancelled())?;
        Ok(bytes)
    }
}
