//! What one worker has in flight: puts batches into calls and gives their records to the waiting requests.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::ToWorker;
use super::arena::{Arena, SLOTS};
use super::frame::{Call, Range, Record, RequestSlot, WHOLE};
use super::scatter::{Fault, Guess, Output, OutputRange, Source, collect, part, whole};
use crate::error::{Code, InferError};
use crate::model::Served;
use crate::request::{InferResponse, Parameter, Parameters};
use crate::scheduler::BoxedJob;
use crate::scheduler::batch::Batch;
use crate::statistics::Times;

/// Why a batch can not become a call now.
#[derive(Debug)]
pub enum NotNow {
    /// All slots are taken.
    Slots,
    /// The byte budget has no room.
    Full,
}

#[derive(Debug)]
struct Member {
    /// Gone once it is answered.
    job: Option<BoxedJob>,
    rows: u32,
    slot: u32,
    tag: u32,
    finished: bool,
}

#[derive(Debug)]
struct Flight {
    /// The frame that the scheduler counts it in.
    frame: u64,
    inputs: Range,
    outputs: Vec<OutputRange>,
    members: Vec<Member>,
    rows: u32,
    executed: bool,
    busy: u64,
}

/// A frame of the scheduler, of which every call is answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameDone {
    /// Its calls.
    pub calls: u64,
    /// Nanoseconds that they took.
    pub busy: u64,
}

/// The calls in flight.
#[derive(Debug)]
pub struct Calls {
    served: Arc<Served>,
    flights: HashMap<u32, Flight>,
    /// Calls not yet answered and what is known of the others, by frame.
    frames: HashMap<u64, (u64, FrameDone)>,
    free_slots: Vec<u32>,
    next_frame: u64,
    next_call: u32,
    next_tag: u32,
    guess: Guess,
    lent: u64,
    parameters: (Vec<u8>, Arc<Parameters>),
}

impl Calls {
    /// Nothing in flight.
    pub fn new(served: Arc<Served>) -> Self {
        Self {
            served,
            flights: HashMap::new(),
            frames: HashMap::new(),
            free_slots: (0..SLOTS).rev().collect(),
            next_frame: 0,
            next_call: 0,
            next_tag: 0,
            guess: Guess::default(),
            lent: 0,
            parameters: (Vec::new(), Arc::default()),
        }
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// The model that is served.
    pub fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// Counts a frame of so many calls that the scheduler handed over.
    pub fn open_frame(&mut self, calls: usize) -> u64 {
        self.next_frame += 1;
        self.frames.insert(self.next_frame, (calls as u64, FrameDone { calls: calls as u64, busy: 0 }));
        self.next_frame
    }

    /// Counts a call of a frame as over.
    pub fn close_call(&mut self, frame: u64, busy: u64) -> Option<FrameDone> {
        let (left, done) = self.frames.get_mut(&frame)?;
        done.busy += busy;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        self.frames.remove(&frame).map(|(_, done)| done)
    }

    /// Lays a batch into the arena and counts it as in flight.
    pub fn start(&mut self, frame: u64, batch: Batch, arena: &mut Arena) -> Result<Call, (Batch, NotNow)> {
        if self.free_slots.len() < batch.jobs.len() {
            return Err((batch, NotNow::Slots));
        }
        let room = self.guess.area(&self.served, batch.rows(), batch.input_bytes());
        let Ok(placed) = batch.place(&self.served, arena, room) else { return Err((batch, NotNow::Full)) };
        let rows = batch.rows();
        self.next_call = self.next_call.wrapping_add(1);
        let mut requests = Vec::with_capacity(batch.jobs.len());
        let mut members = Vec::with_capacity(batch.jobs.len());
        for (job, meta) in batch.jobs.into_iter().zip(placed.metas) {
            let slot = self.free_slots.pop().expect("as many slots as requests were counted above");
            // Never 0, which the tables begin with.
            self.next_tag = self.next_tag.checked_add(1).unwrap_or(1);
            requests.push(RequestSlot { slot, tag: self.next_tag, rows: job.rows, meta });
            let rows = job.rows;
            if job.is_cancelled() {
                arena.cancel(slot, self.next_tag);
            }
            members.push(Member { job: Some(job), rows, slot, tag: self.next_tag, finished: false });
        }
        let outputs = vec![OutputRange { range: placed.area, hold: None }];
        let flight = Flight { frame, inputs: placed.inputs, outputs, members, rows, executed: false, busy: 0 };
        self.flights.insert(self.next_call, flight);
        Ok(Call { call: self.next_call, listed: false, rows, area: placed.area, requests, entries: placed.entries })
    }

    /// Takes back a call that was never sent; its requests are refused.
    pub fn refuse(&mut self, call: u32, arena: &mut Arena, error: &InferError) -> Option<FrameDone> {
        let mut flight = self.flights.remove(&call)?;
        for member in &mut flight.members {
            fail(&self.served, member, error);
        }
        self.release(flight, arena)
    }

    /// Gives one record to the requests that it answers; the error says how the worker broke the protocol.
    pub fn record(
        &mut self,
        record: Record,
        arena: &mut Arena,
        owner: &mpsc::UnboundedSender<ToWorker>,
    ) -> Result<Option<FrameDone>, String> {
        let number = record.call;
        let flight = self.flights.get_mut(&number).ok_or_else(|| format!("reply to call {number}: not in flight"))?;
        let targets = targets(flight, record.request)
            .ok_or_else(|| format!("reply to request {} of call {number}: not in flight", record.request))?;
        let [start, input, infer, output] = record.times;
        let times = Times { start, input, infer, output };
        flight.busy = flight.busy.max(times.busy());
        let served = &self.served;
        if record.status == 0 {
            let mut source = Source { served, arena, owner, lent: &mut self.lent };
            match collect(&record.entries, &mut flight.outputs, &mut source) {
                Err(Fault::Channel(reason)) => return Err(reason),
                Err(Fault::Answer(error)) => {
                    fail_all(served, flight, &targets, &error);
                }
                Ok(mut outputs) => {
                    self.guess.learn(&record.entries, served.spec.outputs.len(), flight.rows);
                    if self.parameters.0 != record.text {
                        let parsed = parameters(&record.text).ok_or("response parameters are not a JSON object")?;
                        self.parameters = (record.text, Arc::new(parsed));
                    }
                    let parameters = &self.parameters.1;
                    deliver(&Delivery { served, parameters, times, last: record.last }, flight, &targets, &mut outputs);
                }
            }
        } else {
            let error = failure(record.status, &record.text);
            fail_all(served, flight, &targets, &error);
        }
        if record.last {
            for target in &targets {
                flight.members[*target].finished = true;
            }
        }
        if flight.members.iter().all(|member| member.finished) {
            let flight = self.flights.remove(&number).expect("it was found above");
            return Ok(self.release(flight, arena));
        }
        Ok(None)
    }

    /// Frees what a call held, but for bytes that responses still borrow.
    fn release(&mut self, flight: Flight, arena: &mut Arena) -> Option<FrameDone> {
        self.free_slots.extend(flight.members.iter().map(|member| member.slot));
        arena.free(flight.inputs);
        for output in flight.outputs {
            if output.hold.is_none() {
                arena.free(output.range);
            }
        }
        self.close_call(flight.frame, flight.busy)
    }

    /// The last byte of a lent range is back.
    pub fn released(&mut self, range: Range, arena: &mut Arena) {
        self.lent = self.lent.saturating_sub(range.length);
        arena.free(range);
    }

    /// More room for the outputs of a call; `None` if the byte budget has none.
    pub fn grant(&mut self, call: u32, bytes: u64, arena: &mut Arena) -> Result<Option<Range>, String> {
        let flight = self.flights.get_mut(&call).ok_or_else(|| format!("NEED for call {call}: not in flight"))?;
        let range = arena.allocate_zeroed(bytes).ok();
        flight.outputs.extend(range.map(|range| OutputRange { range, hold: None }));
        Ok(range)
    }

    /// Tells the worker which of its requests nobody waits for any more.
    pub fn sweep(&self, arena: &Arena) {
        for member in self.flights.values().flat_map(|flight| &flight.members) {
            if member.job.as_ref().is_some_and(|job| job.is_cancelled()) {
                arena.cancel(member.slot, member.tag);
            }
        }
    }

    /// The worker is gone: fails what it had started, answers how many those were and what may run elsewhere, in order.
    pub fn lost(&mut self, arena: &Arena, error: &InferError) -> (usize, Vec<BoxedJob>) {
        let mut flights: Vec<_> = self.flights.drain().collect();
        flights.sort_by_key(|(number, _)| *number);
        let mut started = 0;
        let mut rest = Vec::new();
        for mut member in flights.into_iter().flat_map(|(_, flight)| flight.members) {
            if member.job.is_none() {
                continue;
            }
            if arena.started(member.slot, member.tag) {
                started += 1;
                fail(&self.served, &mut member, error);
            } else {
                rest.extend(member.job);
            }
        }
        (started, rest)
    }
}

/// The members that a record speaks of; `None` if it may not.
fn targets(flight: &Flight, request: u16) -> Option<Vec<usize>> {
    let open = |position: &usize| flight.members.get(*position).is_some_and(|member| !member.finished);
    let targets: Vec<_> = if request == WHOLE {
        (0..flight.members.len()).filter(open).collect()
    } else {
        [usize::from(request)].into_iter().filter(open).collect()
    };
    (!targets.is_empty()).then_some(targets)
}

fn fail_all(served: &Served, flight: &mut Flight, targets: &[usize], error: &InferError) {
    for target in targets {
        fail(served, &mut flight.members[*target], error);
    }
}

fn fail(served: &Served, member: &mut Member, error: &InferError) {
    if let Some(job) = member.job.take() {
        let told = if job.is_cancelled() { &InferError::Cancelled } else { error };
        served.statistics.failed(job.arrived, told);
        job.answer(Err(error.clone()));
    }
}

struct Delivery<'a> {
    served: &'a Served,
    parameters: &'a Arc<Parameters>,
    times: Times,
    last: bool,
}

fn deliver(delivery: &Delivery<'_>, flight: &mut Flight, targets: &[usize], outputs: &mut [Output]) {
    let served = delivery.served;
    if !flight.executed {
        flight.executed = true;
        served.statistics.executed(u64::from(flight.rows.max(1)), delivery.times);
    }
    let shared = targets.len() > 1;
    let total = targets.iter().map(|target| flight.members[*target].rows).sum();
    for target in targets {
        let member = &mut flight.members[*target];
        let wanted = member.job.as_ref().map_or(&[][..], |job| &job.request.outputs);
        let parts =
            if shared { part(outputs, served, wanted, member.rows, total) } else { Ok(whole(outputs, served, wanted)) };
        match parts {
            Ok(_) if !delivery.last => fail(served, member, &several(served)),
            Ok(tensors) => succeed(delivery, member, tensors),
            Err(error) => fail(served, member, &error),
        }
    }
}

fn several(served: &Served) -> InferError {
    InferError::Unsupported(format!("model '{}' sends several responses to one request: not offered yet", served.name))
}

fn succeed(delivery: &Delivery<'_>, member: &mut Member, outputs: Vec<crate::request::OutputTensor>) {
    let Some(mut job) = member.job.take() else { return };
    let served = delivery.served;
    if job.is_cancelled() {
        served.statistics.failed(job.arrived, &InferError::Cancelled);
    } else {
        served.statistics.succeeded(u64::from(job.rows.max(1)), job.arrived, delivery.times);
    }
    let response = InferResponse {
        model: Arc::clone(&job.request.model),
        version: served.spec.version,
        id: std::mem::take(&mut job.request.id),
        parameters: Arc::clone(delivery.parameters),
        outputs,
    };
    job.answer(Ok(response));
}

/// The error that a status and its text mean.
fn failure(status: u8, text: &[u8]) -> InferError {
    let text = String::from_utf8_lossy(&text[..text.len().min(4096)]).into_owned();
    let code = match status {
        1 => Code::Unknown,
        3 => Code::NotFound,
        4 => Code::InvalidArg,
        5 => Code::Unavailable,
        6 => Code::Unsupported,
        7 => Code::AlreadyExists,
        8 => return InferError::Cancelled,
        _ => return InferError::Backend(text),
    };
    InferError::BackendCode { code, text }
}

/// Response parameters; values that are no scalars are left out.
fn parameters(text: &[u8]) -> Option<Parameters> {
    if text.is_empty() {
        return Some(Parameters::new());
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).ok()?;
    let scalar = |value: serde_json::Value| match value {
        serde_json::Value::Bool(value) => Some(Parameter::Bool(value)),
        serde_json::Value::String(value) => Some(Parameter::String(value)),
        serde_json::Value::Number(number) => (number.as_i64().map(Parameter::Int))
            .or_else(|| number.as_u64().map(Parameter::Uint))
            .or_else(|| number.as_f64().map(Parameter::Double)),
        _ => None,
    };
    Some(object.into_iter().filter_map(|(name, value)| Some((name, scalar(value)?))).collect())
}
