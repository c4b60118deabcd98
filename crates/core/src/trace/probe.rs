//! What follows a traced request through a frontend; of an untraced one it is empty and does nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::record::{Event, Front, Tensor, Trace};
use super::writer::Queue;
use crate::error::InferError;
use crate::request::{InferRequest, InferResponse, Timing};
use crate::statistics::monotonic_ns;

/// Events of one trace; those of a stream without end are left out.
const MOST_EVENTS: usize = 4096;

/// What a tensor takes beside its bytes, so that empty ones without end do not either.
const TENSOR: u64 = 256;

/// When a request came, where any is traced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(super) front: Front,
    /// Monotonic nanoseconds; 0 = none is traced.
    pub(super) at: u64,
}

/// Its drop hands the trace over.
#[derive(Debug, Default)]
pub(crate) struct Probe(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    trace: Trace,
    queue: Arc<Queue>,
    timing: Timing,
    running: bool,
    sending: bool,
    /// Whether its tensors found no room.
    lost: bool,
}

impl Probe {
    /// Follows a request from its arrival.
    pub(super) fn open(mut trace: Trace, arrival: Arrival, queue: Arc<Queue>) -> Self {
        let start = match arrival.front {
            Front::Http => Event::HttpRecvStart,
            Front::Grpc => Event::GrpcWaitreadStart,
        };
        trace.front = arrival.front;
        trace.events.push((start, arrival.at));
        let timing = Timing::default();
        Self(Some(Box::new(Open { trace, queue, timing, running: false, sending: false, lost: false })))
    }

    /// The request has been read.
    pub(crate) fn received(&mut self) {
        self.on(|open| open.event(Event::HttpRecvEnd, Event::GrpcWaitreadEnd));
    }

    /// The request goes to the engine.
    pub(crate) fn requested(&mut self, request: &mut InferRequest) {
        self.on(|open| open.requested(request));
    }

    /// The request failed.
    pub(crate) fn failed(&mut self, error: &InferError) {
        self.on(|open| open.trace.fault = Some(error.to_string()));
    }

    /// The only answer of the engine.
    pub(crate) fn answered(&mut self, outcome: &Result<InferResponse, InferError>) {
        self.on(|open| {
            open.replied(outcome.as_ref().map(Some));
            open.ended();
        });
    }

    /// One reply of many.
    pub(crate) fn replied(&mut self, outcome: &Result<Option<InferResponse>, InferError>, last: bool) {
        self.on(|open| {
            open.replied(outcome.as_ref().map(Option::as_ref));
            if last {
                open.ended();
            }
        });
    }

    /// A response begins to leave.
    pub(crate) fn sending(&mut self) {
        self.on(|open| {
            open.sending = true;
            open.event(Event::HttpSendStart, Event::GrpcSendStart);
        });
    }

    /// It has left; where that is not said it is when this is dropped.
    pub(crate) fn sent(&mut self) {
        self.on(Open::sent);
    }

    #[inline]
    fn on(&mut self, act: impl FnOnce(&mut Open)) {
        if let Some(open) = &mut self.0 {
            act(open);
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(mut open) = self.0.take() {
            open.ended();
            open.sent();
            open.trace.events.sort_by_key(|(_, at)| *at);
            if open.lost {
                open.queue.lose();
            } else {
                open.queue.push(open.trace);
            }
        }
    }
}

impl Open {
    fn event(&mut self, http: Event, grpc: Event) {
        let event = if self.trace.front == Front::Http { http } else { grpc };
        self.at(event, monotonic_ns());
    }

    fn at(&mut self, event: Event, at: u64) {
        if self.trace.events.len() < MOST_EVENTS {
            self.trace.events.push((event, at));
        }
    }

    fn requested(&mut self, request: &mut InferRequest) {
        self.running = true;
        self.trace.request_id.clone_from(&request.id);
        request.traceparent = self.trace.spans.map(|spans| spans.traceparent().into_boxed_str());
        if self.trace.level.tensors {
            let size = request.inputs.iter().map(|input| input.data.len() as u64).sum();
            if self.hold(size) {
                let queued = request.inputs.iter().map(|input| Tensor {
                    activity: "TENSOR_QUEUE_INPUT",
                    name: input.name.clone(),
                    datatype: input.datatype,
                    shape: input.shape.clone(),
                    // A copy, for a slice would hold the whole body.
                    data: input.data.to_vec().into(),
                });
                let queued: Vec<_> = queued.collect();
                let taken = queued.iter().cloned().map(|input| Tensor { activity: "TENSOR_BACKEND_INPUT", ..input });
                self.trace.tensors.extend(taken);
                self.trace.tensors.splice(..0, queued);
            }
        }
        self.at(Event::RequestStart, monotonic_ns());
    }

    fn replied(&mut self, outcome: Result<Option<&InferResponse>, &InferError>) {
        match outcome {
            Ok(None) => {}
            Ok(Some(response)) => self.responded(response),
            Err(error) => self.trace.fault = Some(error.to_string()),
        }
    }

    fn responded(&mut self, response: &InferResponse) {
        self.timing = response.timing;
        self.at(Event::InferResponseComplete, monotonic_ns());
        let size = response.bytes() + TENSOR * response.outputs.len() as u64;
        if self.trace.level.tensors && self.hold(size) {
            let tensors = response.outputs.iter().map(|output| Tensor {
                activity: "TENSOR_BACKEND_OUTPUT",
                name: output.name.to_string(),
                datatype: output.datatype,
                shape: output.shape.clone(),
                // A copy, for lent bytes would hold their arena.
                data: Bytes::copy_from_slice(&output.data),
            });
            self.trace.tensors.extend(tensors);
        }
    }

    fn hold(&mut self, bytes: u64) -> bool {
        self.lost |= !self.queue.room().hold(&mut self.trace.hold, bytes);
        !self.lost
    }

    fn ended(&mut self) {
        if !std::mem::take(&mut self.running) {
            return;
        }
        let Timing { queued, times, batch } = self.timing;
        // Zero where the answer was known already.
        if queued > 0 {
            self.trace.batch = batch;
            self.at(Event::QueueStart, queued);
            self.at(Event::ComputeStart, times.start);
            self.at(Event::ComputeInputEnd, times.input);
            self.at(Event::ComputeOutputStart, times.infer);
            self.at(Event::ComputeEnd, times.output);
        }
        self.at(Event::RequestEnd, monotonic_ns());
    }

    fn sent(&mut self) {
        if std::mem::take(&mut self.sending) {
            self.event(Event::HttpSendEnd, Event::GrpcSendEnd);
        }
    }
}
