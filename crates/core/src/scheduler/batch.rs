//! Requests that run as one call: lays them side by side in a worker's arena (the gather).

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::BoxedJob;
use crate::instance::arena::{ALIGNMENT, Arena, ArenaFull};
use crate::instance::frame::{Range, TensorEntry, WHOLE};
use crate::model::Served;
use crate::request::{InferRequest, Parameter, Parameters};

/// The requests of one call, in their order.
#[derive(Debug)]
pub struct Batch {
    /// At least one; all have the same inputs and shapes but for the batch dimension.
    pub jobs: Vec<BoxedJob>,
}

/// A batch whose inputs lie in the arena.
#[derive(Debug)]
pub struct Placed {
    /// Inputs and metadata: what is freed with the call.
    pub inputs: Range,
    /// Where the outputs go.
    pub area: Range,
    /// The inputs for the frame.
    pub entries: Vec<TensorEntry>,
    /// Each request's metadata; length 0 if none.
    pub metas: Vec<Range>,
}

impl Batch {
    /// Sum of the requests' rows; 0 if the model does not batch.
    pub fn rows(&self) -> u32 {
        self.jobs.iter().map(|job| job.rows).sum()
    }

    /// Bytes of all inputs.
    pub fn input_bytes(&self) -> u64 {
        self.jobs.iter().flat_map(|job| &job.request.inputs).map(|input| input.data.len() as u64).sum()
    }

    /// Copies the inputs into the arena and takes `room` zero bytes for the outputs.
    pub fn place(&self, served: &Served, arena: &mut Arena, room: u64) -> Result<Placed, ArenaFull> {
        let told = served.spec.reads_requests;
        let metas: Vec<_> = self.jobs.iter().map(|job| if told { meta(&job.request) } else { Vec::new() }).collect();
        let count = self.jobs[0].request.inputs.len();
        let groups = || groups(&self.jobs, served.spec.decoupled);
        let length = |jobs: &[BoxedJob], input: usize| -> u64 {
            jobs.iter().map(|job| job.request.inputs[input].data.len() as u64).sum()
        };
        let tensors = groups().flat_map(|(_, jobs)| (0..count).map(move |input| length(jobs, input)));
        let pieces = tensors.chain(metas.iter().map(|meta| meta.len() as u64));
        let inputs = arena.allocate(pieces.map(|piece| piece.next_multiple_of(ALIGNMENT)).sum())?;
        let outputs = arena.allocate_zeroed(room).inspect_err(|_| arena.free(inputs))?;
        let mut place = Place { arena, segment: inputs.segment, next: inputs.offset };
        let mut entries = Vec::with_capacity(count);
        for (request, jobs) in groups() {
            let mut tensor = 0;
            for (position, input) in jobs[0].request.inputs.iter().enumerate() {
                // The request's inputs are in the model's order, so the index only grows.
                while served.spec.inputs[tensor].name != input.name {
                    tensor += 1;
                }
                let parts = jobs.iter().flat_map(|job| job.request.inputs[position].data.pieces());
                let range = place.piece(length(jobs, position), parts);
                let dims = dims(jobs, served, tensor, &input.shape);
                entries.push(TensorEntry { tensor: tensor as u16, datatype: input.datatype, request, range, dims });
            }
        }
        let metas = metas.iter().map(|meta| place.piece(meta.len() as u64, [&meta[..]].into_iter())).collect();
        Ok(Placed { inputs, area: outputs, entries, metas })
    }
}

/// The requests whose rows lie side by side in one tensor: all of a gathered call, each by itself in a listed one.
fn groups(jobs: &[BoxedJob], listed: bool) -> impl Iterator<Item = (u16, &[BoxedJob])> {
    let size = if listed { 1 } else { jobs.len() };
    jobs.chunks(size).enumerate().map(move |(number, jobs)| (if listed { number as u16 } else { WHOLE }, jobs))
}

/// The shape that the worker sees: summed rows in front, reshaped where the configuration says so.
fn dims(jobs: &[BoxedJob], served: &Served, tensor: usize, shape: &[i64]) -> Vec<i64> {
    let spec = &served.spec.inputs[tensor];
    let batching = served.spec.max_batch_size > 0;
    let (batch, own) = shape.split_at(usize::from(batching).min(shape.len()));
    let rows = || jobs.iter().map(|job| i64::from(job.rows)).sum();
    let mut dims = if batch.is_empty() { Vec::new() } else { vec![rows()] };
    match &spec.reshape {
        Some(reshape) => dims.extend(reshaped(&spec.dims, reshape, own)),
        None => dims.extend(own),
    }
    dims
}

/// `to` with its variable dims filled by what `own` has in the variable dims of `from`.
pub fn reshaped(from: &[i64], to: &[i64], own: &[i64]) -> Vec<i64> {
    let mut variable = from.iter().zip(own).filter(|(dim, _)| **dim == -1).map(|(_, own)| *own);
    to.iter().map(|dim| if *dim == -1 { variable.next().unwrap_or(1) } else { *dim }).collect()
}

struct Place<'a> {
    arena: &'a mut Arena,
    segment: u32,
    next: u64,
}

impl Place<'_> {
    fn piece<'a>(&mut self, length: u64, parts: impl Iterator<Item = &'a [u8]>) -> Range {
        if length == 0 {
            return Range::default();
        }
        let range = Range { segment: self.segment, offset: self.next, length };
        let mut offset = self.next;
        for part in parts {
            self.arena.write(self.segment, offset, part);
            offset += part.len() as u64;
        }
        self.next += length.next_multiple_of(ALIGNMENT);
        range
    }
}

/// What the request says besides its tensors, as JSON; empty if it says nothing.
fn meta(request: &InferRequest) -> Vec<u8> {
    let InferRequest { id, parameters, outputs, traceparent, timeout_us, priority, .. } = request;
    let texts = [id.is_empty(), parameters.is_empty(), outputs.is_empty(), traceparent.is_none()];
    if texts == [true; 4] && (*timeout_us, *priority) == (0, 0) {
        return Vec::new();
    }
    serde_json::to_vec(&Meta(request)).expect("strings and numbers become JSON")
}

struct Meta<'a>(&'a InferRequest);

impl Serialize for Meta<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.0.id)?;
        map.serialize_entry("parameters", &Named(&self.0.parameters))?;
        if self.0.timeout_us > 0 {
            map.serialize_entry("timeout", &self.0.timeout_us)?;
        }
        if self.0.priority > 0 {
            map.serialize_entry("priority", &self.0.priority)?;
        }
        if !self.0.outputs.is_empty() {
            map.serialize_entry("outputs", &self.0.outputs)?;
        }
        if let Some(traceparent) = &self.0.traceparent {
            map.serialize_entry("traceparent", traceparent)?;
        }
        map.end()
    }
}

struct Named<'a>(&'a Parameters);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            match value {
                Parameter::Bool(value) => map.serialize_entry(name, value)?,
                Parameter::Int(value) => map.serialize_entry(name, value)?,
                Parameter::Uint(value) => map.serialize_entry(name, value)?,
                Parameter::Double(value) => map.serialize_entry(name, value)?,
                Parameter::String(value) => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}
