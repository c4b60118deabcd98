//! What one worker has in flight: puts batches into calls and gives their records to the waiting requests.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::ToWorker;
use super::arena::{Arena, SLOTS};
use super::deliver::{Delivery, fail, times};
use super::frame::{Call, Range, Record, RequestSlot, STREAM, WHOLE};
use super::scatter::{Fault, Guess, OutputRange, Source, collect};
use crate::error::{Code, InferError};
use crate::model::Served;
use crate::request::{Parameter, Parameters};
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

/// One request of a call.
#[derive(Debug)]
pub struct Member {
    /// Gone once it is answered.
    pub job: Option<BoxedJob>,
    /// Its batch elements.
    pub rows: u32,
    /// Responses so far, of a decoupled model.
    pub responses: usize,
    /// Whether one of them was an error.
    pub failed: bool,
    first: Option<Times>,
    slot: u32,
    tag: u32,
    /// The worker occupies itself with it no longer, or only with responses that come later.
    released: bool,
    finished: bool,
}

impl Member {
    fn new(job: BoxedJob, tag: u32, slot: u32) -> Self {
        let rows = job.rows;
        let (responses, failed, first, released, finished) = (0, false, None, false, false);
        Self { job: Some(job), rows, responses, failed, first, slot, tag, released, finished }
    }

    /// From its pick-up to the record of these times.
    pub fn times(&mut self, now: Times) -> Times {
        self.first.get_or_insert(now).until(now)
    }
}

/// A call that the worker has.
#[derive(Debug)]
pub struct Flight {
    /// Its requests.
    pub members: Vec<Member>,
    /// The frame that the scheduler counts it in, until its instance is free for another.
    frame: Option<u64>,
    inputs: Range,
    outputs: Vec<OutputRange>,
    /// Batch elements of all of them; 0 if the model does not batch.
    pub rows: u32,
    executed: bool,
    times: Option<Times>,
}

impl Flight {
    /// Counts the run of the model, once.
    pub fn count_run(&mut self, served: &Served, times: Times) {
        if !self.executed {
            self.executed = true;
            served.statistics.executed(u64::from(self.rows.max(1)), times);
        }
    }

    /// Counts a response to each target; false if one that may have a single response has it already.
    fn count_responses(&mut self, targets: &[usize], decoupled: bool) -> bool {
        let mut first = true;
        for target in targets {
            let member = &mut self.members[*target];
            first &= member.responses == 0;
            member.responses += 1;
        }
        first || decoupled
    }

    /// Whether a record with this effect on `targets` leaves the instance free for another call.
    fn lets_go(&self, targets: &[usize], released: bool) -> bool {
        let free = |(position, member): (usize, &Member)| member.released || (released && targets.contains(&position));
        self.frame.is_some() && self.members.iter().enumerate().all(free)
    }
}

/// What a record means for its requests.
#[derive(Clone, Copy, Debug)]
struct Progress {
    last: bool,
    released: bool,
    /// The instance is free for another call.
    lets_go: bool,
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
    /// Where the responses of decoupled requests lie, until the worker asks for another range.
    stream: Vec<OutputRange>,
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
            stream: Vec::new(),
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
        let listed = self.served.spec.decoupled;
        // Nobody knows how many responses there will be: their room is asked for as they come.
        let room = if listed { 0 } else { self.guess.area(&self.served, batch.rows(), batch.input_bytes()) };
        let Ok(placed) = batch.place(&self.served, arena, room) else { return Err((batch, NotNow::Full)) };
        let rows = batch.rows();
        // Never 0, which stands for the responses of decoupled requests.
        self.next_call = self.next_call.checked_add(1).unwrap_or(1);
        let mut requests = Vec::with_capacity(batch.jobs.len());
        let mut members = Vec::with_capacity(batch.jobs.len());
        for (job, meta) in batch.jobs.into_iter().zip(placed.metas) {
            let slot = self.free_slots.pop().expect("as many slots as requests were counted above");
            // Never 0, which the tables begin with.
            self.next_tag = self.next_tag.checked_add(1).unwrap_or(1);
            requests.push(RequestSlot { slot, tag: self.next_tag, rows: job.rows, meta });
            if job.is_cancelled() {
                arena.cancel(slot, self.next_tag);
            }
            members.push(Member::new(job, self.next_tag, slot));
        }
        let outputs = vec![OutputRange { range: placed.area, hold: None }];
        let (frame, inputs) = (Some(frame), placed.inputs);
        let flight = Flight { members, frame, inputs, outputs, rows, executed: false, times: None };
        self.flights.insert(self.next_call, flight);
        Ok(Call { call: self.next_call, listed, rows, area: placed.area, requests, entries: placed.entries })
    }

    /// Takes back a call that was never sent; its requests are refused.
    pub fn refuse(&mut self, call: u32, arena: &mut Arena, error: &InferError) -> Option<FrameDone> {
        let mut flight = self.flights.remove(&call)?;
        for member in &mut flight.members {
            fail(&self.served, member, error);
        }
        let frame = flight.frame.take();
        self.release(flight, arena);
        frame.and_then(|frame| self.close_call(frame, 0))
    }

    /// Gives one record to the requests that it answers; the error says how the worker broke the protocol.
    pub fn record(
        &mut self,
        record: &Record,
        arena: &mut Arena,
        owner: &mpsc::UnboundedSender<ToWorker>,
    ) -> Result<Option<FrameDone>, String> {
        let number = record.call;
        let flight = self.flights.get_mut(&number).ok_or_else(|| format!("reply to call {number}: not in flight"))?;
        let targets = targets(flight, record.request)
            .ok_or_else(|| format!("reply to request {} of call {number}: not in flight", record.request))?;
        let served = &self.served;
        let now = times(record);
        let (last, released) = (record.last, record.last || record.released);
        let lets_go = flight.lets_go(&targets, released);
        if flight.frame.is_some() {
            let times = flight.times.map_or(now, |before| before.until(now));
            flight.times = Some(times);
            // Before the last answer, so that who has it finds the run counted.
            if lets_go && served.spec.decoupled && record.status == 0 {
                flight.count_run(served, times);
            }
        }
        if !record.bare && !flight.count_responses(&targets, served.spec.decoupled) {
            return Err(format!("a second response to request {} of call {number}", record.request));
        }
        if record.status != 0 {
            let error = failure(record.status, &record.text);
            Delivery::new(served, record).fail(flight, &targets, &error);
        } else if record.bare {
            Delivery::new(served, record).end(flight, &targets);
        } else {
            let ranges = if served.spec.decoupled { &mut self.stream } else { &mut flight.outputs };
            let mut source = Source { served, arena, owner, lent: &mut self.lent };
            match collect(&record.entries, ranges, &mut source) {
                Err(Fault::Channel(reason)) => return Err(reason),
                Err(Fault::Answer(error)) => Delivery::new(served, record).fail(flight, &targets, &error),
                Ok(mut outputs) => {
                    let rows = targets.iter().map(|target| flight.members[*target].rows).sum();
                    self.guess.learn(&record.entries, served.spec.outputs.len(), rows);
                    if self.parameters.0 != record.text {
                        let parsed = parameters(&record.text).ok_or("response parameters are not a JSON object")?;
                        self.parameters = (record.text.clone(), Arc::new(parsed));
                    }
                    let parameters = Arc::clone(&self.parameters.1);
                    Delivery::new(served, record).with(parameters).deliver(flight, &targets, &mut outputs);
                }
            }
        }
        Ok(self.advance(number, &targets, Progress { last, released, lets_go }, arena))
    }

    /// Notes how far a record has brought the requests of a call.
    fn advance(&mut self, number: u32, targets: &[usize], progress: Progress, arena: &mut Arena) -> Option<FrameDone> {
        let flight = self.flights.get_mut(&number)?;
        for target in targets {
            let member = &mut flight.members[*target];
            member.finished |= progress.last;
            member.released |= progress.released;
            if !member.finished && member.job.is_none() && self.served.spec.decoupled {
                arena.cancel(member.slot, member.tag);
            }
        }
        let busy = flight.times.map_or(0, Times::busy);
        let frame = if progress.lets_go { flight.frame.take() } else { None };
        if flight.members.iter().all(|member| member.finished) {
            if let Some(flight) = self.flights.remove(&number) {
                self.release(flight, arena);
            }
        } else if frame.is_some() {
            // Whoever answers later has no more use for the inputs.
            arena.free(std::mem::take(&mut flight.inputs));
        }
        frame.and_then(|frame| self.close_call(frame, busy))
    }

    /// Frees what a call held, but for bytes that responses still borrow.
    fn release(&mut self, flight: Flight, arena: &mut Arena) {
        self.free_slots.extend(flight.members.iter().map(|member| member.slot));
        arena.free(flight.inputs);
        free_unless_lent(flight.outputs, arena);
    }

    /// The last byte of a lent range is back.
    pub fn released(&mut self, range: Range, arena: &mut Arena) {
        self.lent = self.lent.saturating_sub(range.length);
        arena.free(range);
    }

    /// More room for the outputs of a call, or for responses; `None` if the byte budget has none.
    pub fn grant(&mut self, call: u32, bytes: u64, arena: &mut Arena) -> Result<Option<Range>, String> {
        if call == STREAM {
            // Every record that names the range before has been read by now.
            free_unless_lent(std::mem::take(&mut self.stream), arena);
            let range = arena.allocate_zeroed(bytes).ok();
            self.stream.extend(range.map(|range| OutputRange { range, hold: None }));
            return Ok(range);
        }
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

fn free_unless_lent(ranges: Vec<OutputRange>, arena: &mut Arena) {
    for output in ranges {
        if output.hold.is_none() {
            arena.free(output.range);
        }
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
        8 if text.is_empty() => return InferError::Cancelled,
        8 => Code::Cancelled,
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
