//! The other side of the channel, for tests that play a worker.

use super::{
    BARE, Call, EXECUTE, FINAL, FrameError, GRANT, NEED, RELEASED, REPLY, Range, Record, RequestSlot, SEGMENT,
};
use super::{header, open, put_entry, put_u16, put_u32, put_u64, sealed};

/// What the core may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromCore {
    Execute(Vec<Call>),
    Grant { call: u32, status: u32, range: Range },
    Segment { number: u32, size: u64 },
}

pub fn decode(bytes: &[u8]) -> Result<FromCore, FrameError> {
    let (kind, count, mut reader) = open(bytes)?;
    let frame = match kind {
        EXECUTE => FromCore::Execute((0..count).map(|_| call(&mut reader)).collect::<Result<_, _>>()?),
        GRANT => FromCore::Grant { call: reader.u32()?, status: reader.u32()?, range: reader.range()? },
        SEGMENT => FromCore::Segment {
            number: reader.u32()?,
            size: {
                reader.u32()?;
                reader.u64()?
            },
        },
        kind => return Err(FrameError::Kind(kind)),
    };
    reader.end()?;
    Ok(frame)
}

fn call(reader: &mut super::Reader<'_>) -> Result<Call, FrameError> {
    let call = reader.u32()?;
    let [mode, _] = reader.array()?;
    let (requests, entries) = (reader.u16()?, reader.u16()?);
    reader.u16()?;
    let rows = reader.u32()?;
    let area = reader.range()?;
    let request = |reader: &mut super::Reader<'_>| {
        let (slot, tag, rows, segment) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
        let meta = reader.u64()?;
        let meta = Range { segment, offset: meta & ((1 << 40) - 1), length: meta >> 40 };
        Ok(RequestSlot { slot, tag, rows, meta })
    };
    let requests = (0..requests).map(|_| request(reader)).collect::<Result<_, FrameError>>()?;
    let entries = (0..entries).map(|_| reader.entry()).collect::<Result<_, _>>()?;
    Ok(Call { call, listed: mode == 1, rows, area, requests, entries })
}

pub fn reply(records: &[Record]) -> Vec<u8> {
    let mut bytes = header(REPLY, records.len() as u16);
    for record in records {
        put_u32(&mut bytes, record.call);
        put_u16(&mut bytes, record.request);
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(record.last, FINAL) | flag(record.released, RELEASED) | flag(record.bare, BARE);
        bytes.extend([record.status, flags]);
        put_u16(&mut bytes, record.entries.len() as u16);
        put_u16(&mut bytes, 0);
        put_u32(&mut bytes, record.text.len() as u32);
        record.times.iter().for_each(|time| put_u64(&mut bytes, *time));
        record.entries.iter().for_each(|entry| put_entry(&mut bytes, entry));
        bytes.extend(&record.text);
    }
    sealed(bytes)
}

pub fn need(call: u32, wanted: u64) -> Vec<u8> {
    let mut bytes = header(NEED, 1);
    put_u32(&mut bytes, call);
    put_u32(&mut bytes, 0);
    put_u64(&mut bytes, wanted);
    sealed(bytes)
}
