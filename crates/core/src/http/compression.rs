//! gzip and zlib, both ways: what the headers ask for, bounded inflation, deflation of answers (W35-W38, B7).

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap};
use tokio::task::block_in_place;

use super::error::HttpError;

/// So many bytes, in or out, take long enough that other requests get another thread meanwhile.
const HEAVY: usize = 128 << 10;

/// Room that a body gets at a time, and what is compressed of one at a time.
const STEP: usize = 32 << 10;

/// A body may open to so many bytes whatever was sent ...
const FREE: u64 = 8 << 20;
/// ... and beyond that to so many times what was sent. Tensors and their JSON stay far below; bombs are near 1,000.
const RATIO: u64 = 128;

/// Answers are to leave soon; tensors gain little from more effort.
const EFFORT: u32 = 2;

/// Both formats' largest window.
const WINDOW_BITS: u8 = 15;

/// A coding that Triton knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950: zlib-wrapped, never raw (W35).
    Deflate,
}

impl Encoding {
    /// The coding of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            _ if name.eq_ignore_ascii_case("gzip") => Some(Self::Gzip),
            _ if name.eq_ignore_ascii_case("deflate") => Some(Self::Deflate),
            _ => None,
        }
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

/// How the body of a request is encoded; `None` = as it is (W35).
pub fn of_request(headers: &HeaderMap) -> Result<Option<Encoding>, HttpError> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let name = value.to_str().unwrap_or("?").trim();
    match Encoding::named(name) {
        _ if values.next().is_some() => Err(HttpError::unsupported_encoding()),
        None if name.is_empty() || name.eq_ignore_ascii_case("identity") => Ok(None),
        None => Err(HttpError::unsupported_encoding()),
        found => Ok(found),
    }
}

/// Whether a body is encoded at all (W38).
pub fn is_encoded(headers: &HeaderMap) -> bool {
    !matches!(of_request(headers), Ok(None))
}

/// What the client wants its answer encoded with: the highest weight of a coding that is known here, the first of
/// equals; `None` = nothing (W37).
pub fn of_answer(headers: &HeaderMap) -> Option<Encoding> {
    let mut best = (None, 0);
    for value in headers.get_all(ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or("").split(',') {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let name = name.trim();
            let encoding = Encoding::named(name);
            let weight = weight(parameters);
            if weight > best.1 && (encoding.is_some() || name.eq_ignore_ascii_case("identity")) {
                best = (encoding, weight);
            }
        }
    }
    best.0
}

/// `q=` in thousandths; 1,000 where it is not given, 0 where it is no weight.
fn weight(parameters: &str) -> u32 {
    let parameter = parameters.split(';').map(str::trim).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    let Some(value) = parameter else { return 1000 };
    let weight = value.parse::<f64>().ok().filter(|weight| (0.0..=1.0).contains(weight));
    weight.map_or(0, |weight| (weight * 1000.0) as u32)
}

/// Why a body was not opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It opens to more than the limit.
    TooLarge,
    /// It opens to far more than what was sent.
    Bomb,
    /// It is not what the header says.
    Broken,
}

/// A compressed body while it comes.
#[derive(Debug)]
pub struct Inflater {
    stream: Decompress,
    opened: Vec<u8>,
    limit: u64,
    ended: bool,
}

impl Inflater {
    /// One that opens to at most `limit` bytes.
    pub fn new(encoding: Encoding, limit: u64) -> Self {
        let stream = match encoding {
            Encoding::Gzip => Decompress::new_gzip(WINDOW_BITS),
            Encoding::Deflate => Decompress::new_with_window_bits(true, WINDOW_BITS),
        };
        Self { stream, opened: Vec::new(), limit, ended: false }
    }

    /// Takes the next bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        match self.inflate(bytes, HEAVY)? {
            None => Ok(()),
            // Most bodies are small and never get here.
            Some(used) => block_in_place(|| self.inflate(&bytes[used..], usize::MAX)).map(|_| ()),
        }
    }

    /// Opens bytes until nothing is left, or `most` have come out: then how many were used.
    fn inflate(&mut self, bytes: &[u8], most: usize) -> Result<Option<usize>, Trouble> {
        let (sent, had) = (self.stream.total_in(), self.opened.len());
        let mut used = 0;
        while !self.ended {
            if self.opened.len() - had >= most {
                return Ok(Some(used));
            }
            self.make_room();
            let status = self.stream.decompress_vec(&bytes[used..], &mut self.opened, FlushDecompress::None);
            self.ended = status.map_err(|_| Trouble::Broken)? == Status::StreamEnd;
            used = (self.stream.total_in() - sent) as usize;
            let opened = self.opened.len() as u64;
            if opened > self.limit {
                return Err(Trouble::TooLarge);
            }
            if opened > FREE + self.stream.total_in().saturating_mul(RATIO) {
                return Err(Trouble::Bomb);
            }
            if !self.ended && self.opened.len() < self.opened.capacity() {
                break;
            }
        }
        // What stands behind the end belongs to nobody.
        if used == bytes.len() { Ok(None) } else { Err(Trouble::Broken) }
    }

    /// Never more room than the limit allows and one byte, by which an excess shows.
    fn make_room(&mut self) {
        if self.opened.len() == self.opened.capacity() {
            let left = (self.limit - self.opened.len() as u64).saturating_add(1);
            self.opened.reserve_exact(self.opened.len().max(STEP).min(usize::try_from(left).unwrap_or(usize::MAX)));
        }
    }

    /// The whole body.
    pub fn finish(self) -> Result<Bytes, Trouble> {
        if self.ended { Ok(self.opened.into()) } else { Err(Trouble::Broken) }
    }
}

thread_local! {
    /// Making a compressor costs more than compressing a small answer.
    static GZIP: RefCell<Option<Compress>> = const { RefCell::new(None) };
    static DEFLATE: RefCell<Option<Compress>> = const { RefCell::new(None) };
}

/// Compresses an answer.
pub fn deflate(encoding: Encoding, parts: &[Bytes]) -> Bytes {
    let size = parts.iter().map(Bytes::len).sum();
    if size > HEAVY {
        return block_in_place(|| run(&mut compressor(encoding), parts, size));
    }
    let slot = match encoding {
        Encoding::Gzip => &GZIP,
        Encoding::Deflate => &DEFLATE,
    };
    slot.with_borrow_mut(|slot| {
        let stream = slot.get_or_insert_with(|| compressor(encoding));
        stream.reset();
        run(stream, parts, size)
    })
}

/// The same with an effort of 1 to 9.
pub fn deflate_with(encoding: Encoding, effort: u32, parts: &[Bytes]) -> Bytes {
    let size = parts.iter().map(Bytes::len).sum();
    let work = || run(&mut made(encoding, effort), parts, size);
    if size > HEAVY { block_in_place(work) } else { work() }
}

fn compressor(encoding: Encoding) -> Compress {
    made(encoding, EFFORT)
}

fn made(encoding: Encoding, effort: u32) -> Compress {
    let effort = Compression::new(effort);
    match encoding {
        Encoding::Gzip => Compress::new_gzip(effort, WINDOW_BITS),
        Encoding::Deflate => Compress::new_with_window_bits(effort, true, WINDOW_BITS),
    }
}

fn run(stream: &mut Compress, parts: &[Bytes], size: usize) -> Bytes {
    let mut out = Vec::with_capacity(size / 2 + 64);
    let mut copy = Vec::new();
    for part in parts {
        for chunk in part.chunks(STEP) {
            // A large output may be lent from the arena, where its worker could still write: only a copy is read twice.
            copy.clear();
            copy.extend_from_slice(chunk);
            feed(stream, &copy, &mut out, FlushCompress::None);
        }
    }
    feed(stream, &[], &mut out, FlushCompress::Finish);
    out.into()
}

fn feed(stream: &mut Compress, bytes: &[u8], out: &mut Vec<u8>, flush: FlushCompress) {
    let start = stream.total_in();
    loop {
        let used = (stream.total_in() - start) as usize;
        if used == bytes.len() && flush == FlushCompress::None {
            return;
        }
        if out.len() == out.capacity() {
            out.reserve(STEP);
        }
        let status = stream.compress_vec(&bytes[used..], out, flush);
        if status.expect("a compressor that has room takes what it is given") == Status::StreamEnd {
            return;
        }
    }
}

#[cfg(test)]
#[path = "compression_tests.rs"]
mod tests;
