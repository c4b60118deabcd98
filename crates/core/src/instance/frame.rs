//! Encodes frames to a worker and decodes its answers; trusts no length that comes back.

use naiad_tensor::DataType;
use thiserror::Error;

/// The longest frame in bytes.
pub const MAX_FRAME: usize = 65_536;
/// The request index that means the whole call.
pub const WHOLE: u16 = 0xffff;

/// The call number of a NEED for room that any response of a decoupled request may use.
pub const STREAM: u32 = 0;

const FINAL: u8 = 1;
const RELEASED: u8 = 2;
const BARE: u8 = 4;

const VERSION: u8 = 1;
const HEADER: usize = 8;
const EXECUTE: u8 = 1;
const REPLY: u8 = 2;
const NEED: u8 = 3;
const GRANT: u8 = 4;
const SEGMENT: u8 = 5;

/// Bytes in an arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The segment's number.
    pub segment: u32,
    /// From its start.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// Where one tensor lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Index in the table agreed at load.
    pub tensor: u16,
    /// Its datatype.
    pub datatype: DataType,
    /// Index of the request in its call, or [`WHOLE`].
    pub request: u16,
    /// Its bytes.
    pub range: Range,
    /// Its shape with the batch dimension.
    pub dims: Vec<i64>,
}

/// One request of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestSlot {
    /// Index of its two words.
    pub slot: u32,
    /// What stands in a word that counts for it.
    pub tag: u32,
    /// Its batch elements.
    pub rows: u32,
    /// Its JSON object of id and parameters; length 0 if none.
    pub meta: Range,
}

/// One execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Unique among those in flight.
    pub call: u32,
    /// Each request has its own entries.
    pub listed: bool,
    /// Sum of the requests' rows, 0 if the model does not batch.
    pub rows: u32,
    /// Where the outputs go.
    pub area: Range,
    /// The requests in their order.
    pub requests: Vec<RequestSlot>,
    /// The inputs.
    pub entries: Vec<TensorEntry>,
}

/// One record of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The call that it answers.
    pub call: u32,
    /// The request in it, or [`WHOLE`].
    pub request: u16,
    /// 0, or the code of the failure.
    pub status: u8,
    /// The last record of that request.
    pub last: bool,
    /// The request occupies the instance no longer, though more records may follow.
    pub released: bool,
    /// It carries no response.
    pub bare: bool,
    /// Picked up, inputs ready, model returned, outputs written.
    pub times: [u64; 4],
    /// The outputs.
    pub entries: Vec<TensorEntry>,
    /// Response parameters as JSON, or the error's text.
    pub text: Vec<u8>,
}

/// What a worker may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromWorker {
    /// Answers.
    Reply(Vec<Record>),
    /// It lacks room for outputs.
    Need {
        /// The call that it runs, or [`STREAM`].
        call: u32,
        /// How much it needs.
        bytes: u64,
    },
}

/// Why a frame is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// A version other than 1.
    #[error("frame of version {0}, expected {VERSION}")]
    Version(u8),
    /// A kind that a worker must not send.
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    /// The header's length is not the packet's.
    #[error("frame of {got} bytes says that it has {said}")]
    Length {
        /// Bytes that came.
        got: usize,
        /// What the header says.
        said: u32,
    },
    /// The counts ask for more bytes than there are.
    #[error("frame ends before its counts do")]
    Short,
    /// The counts ask for fewer bytes than there are.
    #[error("{0} bytes left over behind a frame's counts")]
    LeftOver(usize),
    /// A datatype that no model has.
    #[error("unknown datatype {0} in a frame")]
    DataType(u8),
    /// A bit of a record that means nothing.
    #[error("unknown flags {0:#04x} in a record")]
    Flags(u8),
    /// An EXECUTE that would pass the longest frame.
    #[error("one call of {0} bytes exceeds the longest frame of {MAX_FRAME} bytes")]
    TooLong(usize),
}

/// Builds one EXECUTE frame call by call.
#[derive(Debug)]
pub struct Execute {
    bytes: Vec<u8>,
    calls: u16,
}

impl Execute {
    /// A frame without calls.
    pub fn new() -> Self {
        Self { bytes: header(EXECUTE, 0), calls: 0 }
    }

    /// Whether no call is in it.
    pub fn is_empty(&self) -> bool {
        self.calls == 0
    }

    /// Appends a call; answers its size as the error if the frame would become too long.
    pub fn push(&mut self, call: &Call) -> Result<(), FrameError> {
        let before = self.bytes.len();
        put_call(&mut self.bytes, call);
        if self.bytes.len() > MAX_FRAME {
            let size = self.bytes.len() - before;
            self.bytes.truncate(before);
            return Err(FrameError::TooLong(size));
        }
        self.calls += 1;
        Ok(())
    }

    /// The frame's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[2..4].copy_from_slice(&self.calls.to_le_bytes());
        sealed(self.bytes)
    }
}

impl Default for Execute {
    fn default() -> Self {
        Self::new()
    }
}

/// A GRANT: the range for `call`, or `None` if it is over the byte budget.
pub fn grant(call: u32, range: Option<Range>) -> Vec<u8> {
    let mut bytes = header(GRANT, 1);
    put_u32(&mut bytes, call);
    put_u32(&mut bytes, u32::from(range.is_none()));
    put_range(&mut bytes, range.unwrap_or_default());
    sealed(bytes)
}

/// A SEGMENT; its descriptor rides along.
pub fn segment(number: u32, size: u64) -> Vec<u8> {
    let mut bytes = header(SEGMENT, 1);
    put_u32(&mut bytes, number);
    put_u32(&mut bytes, 0);
    put_u64(&mut bytes, size);
    sealed(bytes)
}

fn header(kind: u8, count: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend([VERSION, kind]);
    put_u16(&mut bytes, count);
    put_u32(&mut bytes, 0);
    bytes
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = bytes.len() as u32;
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn put_u16(bytes: &mut Vec<u8>, value: u16) {
    bytes.extend(value.to_le_bytes());
}

fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend(value.to_le_bytes());
}

fn put_u64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend(value.to_le_bytes());
}

fn put_range(bytes: &mut Vec<u8>, range: Range) {
    put_u32(bytes, range.segment);
    put_u32(bytes, 0);
    put_u64(bytes, range.offset);
    put_u64(bytes, range.length);
}

fn put_entry(bytes: &mut Vec<u8>, entry: &TensorEntry) {
    put_u16(bytes, entry.tensor);
    bytes.extend([entry.datatype as u8, entry.dims.len() as u8]);
    put_u16(bytes, entry.request);
    put_u16(bytes, 0);
    put_range(bytes, entry.range);
    for dim in &entry.dims {
        bytes.extend(dim.to_le_bytes());
    }
}

fn put_call(bytes: &mut Vec<u8>, call: &Call) {
    put_u32(bytes, call.call);
    bytes.extend([u8::from(call.listed), 0]);
    put_u16(bytes, call.requests.len() as u16);
    put_u16(bytes, call.entries.len() as u16);
    put_u16(bytes, 0);
    put_u32(bytes, call.rows);
    put_range(bytes, call.area);
    for request in &call.requests {
        put_u32(bytes, request.slot);
        put_u32(bytes, request.tag);
        put_u32(bytes, request.rows);
        put_u32(bytes, request.meta.segment);
        put_u64(bytes, request.meta.offset | request.meta.length << 40);
    }
    for entry in &call.entries {
        put_entry(bytes, entry);
    }
}

/// Reads a frame that came from a worker.
pub fn decode(bytes: &[u8]) -> Result<FromWorker, FrameError> {
    let (kind, count, mut reader) = open(bytes)?;
    let frame = match kind {
        REPLY => {
            // The count is bounded by the frame, so nothing large is reserved for a lie.
            let mut records = Vec::with_capacity(usize::from(count).min(bytes.len() / 48));
            for _ in 0..count {
                records.push(reader.record()?);
            }
            FromWorker::Reply(records)
        }
        NEED if count == 1 => {
            let call = reader.u32()?;
            reader.u32()?;
            FromWorker::Need { call, bytes: reader.u64()? }
        }
        NEED => return Err(FrameError::Short),
        kind => return Err(FrameError::Kind(kind)),
    };
    reader.end()?;
    Ok(frame)
}

fn open(bytes: &[u8]) -> Result<(u8, u16, Reader<'_>), FrameError> {
    let mut reader = Reader { rest: bytes };
    let [version, kind] = reader.array()?;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let count = reader.u16()?;
    let said = reader.u32()?;
    if said as usize != bytes.len() || bytes.len() < HEADER {
        return Err(FrameError::Length { got: bytes.len(), said });
    }
    Ok((kind, count, reader))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(FrameError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(FrameError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_le_bytes)
    }

    fn range(&mut self) -> Result<Range, FrameError> {
        let segment = self.u32()?;
        self.u32()?;
        Ok(Range { segment, offset: self.u64()?, length: self.u64()? })
    }

    fn entry(&mut self) -> Result<TensorEntry, FrameError> {
        let tensor = self.u16()?;
        let [code, rank] = self.array()?;
        let datatype = DataType::from_code(code).ok_or(FrameError::DataType(code))?;
        let request = self.u16()?;
        self.u16()?;
        let range = self.range()?;
        let dims = self.take(usize::from(rank) * 8)?.chunks_exact(8);
        let dims = dims.map(|dim| i64::from_le_bytes(dim.try_into().expect("a chunk has eight bytes"))).collect();
        Ok(TensorEntry { tensor, datatype, request, range, dims })
    }

    fn record(&mut self) -> Result<Record, FrameError> {
        let call = self.u32()?;
        let request = self.u16()?;
        let [status, flags] = self.array()?;
        let count = self.u16()?;
        self.u16()?;
        let text = self.u32()? as usize;
        let times = [self.u64()?, self.u64()?, self.u64()?, self.u64()?];
        let mut entries = Vec::with_capacity(usize::from(count).min(self.rest.len() / 32));
        for _ in 0..count {
            entries.push(self.entry()?);
        }
        let text = self.take(text)?.to_vec();
        if flags & !(FINAL | RELEASED | BARE) != 0 {
            return Err(FrameError::Flags(flags));
        }
        let has = |flag| flags & flag != 0;
        let (last, released, bare) = (has(FINAL), has(RELEASED), has(BARE));
        Ok(Record { call, request, status, last, released, bare, times, entries, text })
    }

    fn end(&self) -> Result<(), FrameError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FrameError::LeftOver(self.rest.len())) }
    }
}

#[cfg(test)]
#[path = "other_side.rs"]
pub(crate) mod other_side;

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
