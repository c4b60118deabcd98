//! Takes the outputs of a call apart again: checks what the worker says, copies or lends the bytes, slices the rows.

use std::sync::Arc;

use bytes::Bytes;
use naiad_tensor::DataType;
use tokio::sync::mpsc;

use super::ToWorker;
use super::arena::Arena;
use super::frame::{Range, TensorEntry};
use crate::error::InferError;
use crate::model::{Served, byte_size, dims_text, element_count, walk_strings};
use crate::request::OutputTensor;
use crate::scheduler::batch::reshaped;

/// Outputs from this size on are lent instead of copied.
const LEND_FROM: u64 = 64 << 10;
/// What one worker's arena lends at most: a slow reader must not starve the model.
const LEND_CAP: u64 = 256 << 20;

/// Why outputs are refused.
#[derive(Debug)]
pub enum Fault {
    /// The worker broke the protocol: its channel is closed.
    Channel(String),
    /// The model's answer can not be given out.
    Answer(InferError),
}

/// A range into which a call writes outputs.
#[derive(Debug)]
pub struct OutputRange {
    /// Where.
    pub range: Range,
    /// Keeps it from being freed while bytes of it are lent.
    pub hold: Option<Arc<Hold>>,
}

/// Tells the worker's owner when the last lent byte of a range is back.
#[derive(Debug)]
pub struct Hold {
    range: Range,
    owner: mpsc::UnboundedSender<ToWorker>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Where the owner has ended there is nothing to free.
        let _ = self.owner.send(ToWorker::Release(self.range));
    }
}

/// One output of a record, all rows together.
#[derive(Debug)]
pub struct Output {
    index: usize,
    datatype: DataType,
    dims: Vec<i64>,
    data: Bytes,
    /// Where the next request's part begins.
    next: usize,
}

/// What collecting needs to know of the worker.
#[derive(Debug)]
pub struct Source<'a> {
    /// The model.
    pub served: &'a Served,
    /// The worker's arena.
    pub arena: &'a Arena,
    /// Where lent bytes come back to.
    pub owner: &'a mpsc::UnboundedSender<ToWorker>,
    /// Bytes lent now.
    pub lent: &'a mut u64,
}

/// Checks the entries of a record and fetches their bytes, in the model's order.
pub fn collect(
    entries: &[TensorEntry],
    ranges: &mut [OutputRange],
    source: &mut Source<'_>,
) -> Result<Vec<Output>, Fault> {
    let mut outputs = Vec::with_capacity(entries.len());
    for entry in entries {
        outputs.push(fetch(entry, ranges, source)?);
    }
    outputs.sort_by_key(|output| output.index);
    if outputs.windows(2).any(|pair| pair[0].index == pair[1].index) {
        return Err(Fault::Channel("a record holds an output twice".into()));
    }
    Ok(outputs)
}

fn fetch(entry: &TensorEntry, ranges: &mut [OutputRange], source: &mut Source<'_>) -> Result<Output, Fault> {
    let index = usize::from(entry.tensor);
    let model = &source.served.spec;
    let Some(spec) = model.outputs.get(index) else {
        return Err(Fault::Channel(format!("output {index} of {}", model.outputs.len())));
    };
    let wrong_size = || {
        let dims = dims_text(&entry.dims);
        Fault::Channel(format!("output '{}' of shape {dims} holds {} bytes", spec.name, entry.range.length))
    };
    let elements = element_count(&entry.dims).ok_or_else(wrong_size)?;
    if entry.datatype != DataType::Bytes && byte_size(entry.datatype, &entry.dims) != Some(entry.range.length) {
        return Err(wrong_size());
    }
    let data = bytes_of(entry, ranges, source)?;
    if entry.datatype != spec.datatype {
        return Err(Fault::Answer(InferError::Internal(format!(
            "output '{}' of model '{}' has data-type '{}', but its configuration says '{}'",
            spec.name,
            model.name,
            entry.datatype.name(),
            spec.datatype.name()
        ))));
    }
    if entry.datatype == DataType::Bytes && walk_strings(&data, elements) != Ok(elements) {
        return Err(Fault::Answer(InferError::Internal(format!(
            "output '{}' of model '{}' does not hold the {elements} string elements of its shape {}",
            spec.name,
            model.name,
            dims_text(&entry.dims)
        ))));
    }
    let mut dims = entry.dims.clone();
    if let Some(seen) = &spec.reshape {
        let batch = usize::from(model.max_batch_size > 0).min(dims.len());
        let own = reshaped(seen, &spec.dims, &dims[batch..]);
        dims.truncate(batch);
        dims.extend(own);
    }
    Ok(Output { index, datatype: entry.datatype, dims, data, next: 0 })
}

fn bytes_of(entry: &TensorEntry, ranges: &mut [OutputRange], source: &mut Source<'_>) -> Result<Bytes, Fault> {
    let range = entry.range;
    if range.length == 0 {
        return Ok(Bytes::new());
    }
    let outside = || Fault::Channel(format!("{} bytes at {} lie outside the call's area", range.length, range.offset));
    let home = ranges.iter_mut().find(|home| holds(home.range, range)).ok_or_else(outside)?;
    // Strings are parsed, so they are copied first: the worker can still write to lent memory.
    let fixed = entry.datatype != DataType::Bytes;
    let lent = *source.lent + if home.hold.is_none() { home.range.length } else { 0 };
    if range.length < LEND_FROM || !fixed || lent > LEND_CAP {
        return source.arena.read(range).map(Bytes::from).ok_or_else(outside);
    }
    *source.lent = lent;
    let fresh = || Arc::new(Hold { range: home.range, owner: source.owner.clone() });
    let hold = Arc::clone(home.hold.get_or_insert_with(fresh));
    let segment = source.arena.segment(range).ok_or_else(outside)?;
    segment.lend(range.offset, range.length, hold).map_err(|error| Fault::Channel(error.to_string()))
}

fn holds(home: Range, range: Range) -> bool {
    let end = range.offset.checked_add(range.length);
    home.segment == range.segment
        && home.offset <= range.offset
        && end.is_some_and(|end| end <= home.offset + home.length)
}

/// The whole outputs for a call of one request.
pub fn whole(outputs: &[Output], served: &Served, wanted: &[String]) -> Vec<OutputTensor> {
    let wanted = outputs.iter().filter(|output| is_wanted(output, served, wanted));
    wanted.map(|output| tensor(output, served, output.dims.clone(), output.data.clone())).collect()
}

/// The next `rows` rows of each output; `total` is what all requests of the call have.
pub fn part(
    outputs: &mut [Output],
    served: &Served,
    wanted: &[String],
    rows: u32,
    total: u32,
) -> Result<Vec<OutputTensor>, InferError> {
    let mut parts = Vec::with_capacity(outputs.len());
    for output in outputs {
        let name = &served.output_names[output.index];
        if output.dims.first() != Some(&i64::from(total)) {
            return Err(InferError::Internal(format!(
                "output '{name}' of model '{}' has shape {}, expected a batch dimension of {total}",
                served.name,
                dims_text(&output.dims)
            )));
        }
        let start = output.next;
        let mut dims = output.dims.clone();
        dims[0] = i64::from(rows);
        output.next = match byte_size(output.datatype, &dims) {
            Some(bytes) => start + bytes as usize,
            None => start + strings_length(&output.data[start..], element_count(&dims).unwrap_or(0)),
        };
        if is_wanted(output, served, wanted) {
            parts.push(tensor(output, served, dims, output.data.slice(start..output.next)));
        }
    }
    Ok(parts)
}

fn is_wanted(output: &Output, served: &Served, wanted: &[String]) -> bool {
    wanted.is_empty() || wanted.iter().any(|name| **name == *served.output_names[output.index])
}

fn tensor(output: &Output, served: &Served, shape: Vec<i64>, data: Bytes) -> OutputTensor {
    let name = Arc::clone(&served.output_names[output.index]);
    OutputTensor { name, datatype: output.datatype, shape, data }
}

/// Bytes of the first `count` elements of checked `BYTES` data.
fn strings_length(data: &[u8], count: u64) -> usize {
    let mut at = 0;
    for _ in 0..count {
        let length = data[at..].first_chunk().expect("the elements were counted when the output was fetched");
        at += 4 + u32::from_le_bytes(*length) as usize;
    }
    at
}

/// What the outputs of a call will take, learned from earlier ones.
#[derive(Debug, Default)]
pub struct Guess {
    per_row: Vec<Option<u64>>,
}

impl Guess {
    /// Bytes for the output area of a call.
    pub fn area(&self, served: &Served, rows: u32, input_bytes: u64) -> u64 {
        let batching = served.spec.max_batch_size > 0;
        let rows = if batching { u64::from(rows) } else { 1 };
        let mut area = 0_u64;
        for (index, output) in served.spec.outputs.iter().enumerate() {
            let known = byte_size(output.datatype, &output.dims);
            let learned = self.per_row.get(index).copied().flatten();
            let bytes = match known.or(learned) {
                Some(row) => row.saturating_mul(rows),
                None => input_bytes.max(4096),
            };
            area = area.saturating_add(bytes.checked_next_multiple_of(super::arena::ALIGNMENT).unwrap_or(bytes));
        }
        area
    }

    /// Remembers the largest of late, so that a rare large answer is forgotten again; `rows` are those of the answer.
    pub fn learn(&mut self, entries: &[TensorEntry], outputs: usize, rows: u32) {
        self.per_row.resize(outputs, None);
        for entry in entries {
            if let Some(slot) = self.per_row.get_mut(usize::from(entry.tensor)) {
                let row = entry.range.length.div_ceil(u64::from(rows.max(1)));
                *slot = Some(slot.map_or(row, |before| row.max(before - before / 8)));
            }
        }
    }
}
