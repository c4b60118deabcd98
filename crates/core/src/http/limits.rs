//! Reads and discards request bodies within bounds of size, time and count.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{EXPECT, HeaderMap, TRANSFER_ENCODING};
use tokio::time::{Instant, timeout_at};

use super::compression::{self, Encoding, Inflater, Trouble};
use super::error::HttpError;
use super::progress::Progress;
use crate::rope::{Gather, Rope};

/// All header lines of a request together; more is 431 (B10).
pub const HEADER_BYTES: usize = 16 << 10;

/// Non-empty chunks of one request (W6).
const CHUNKS: u32 = 65_536;

/// hyper hides chunk boundaries and never joins chunks, so that a flood of small ones shows as small frames.
const SMALL_FRAME: usize = 4096;

/// Frames from this size on are kept as they are. hyper reads into buffers of up to 408 KiB, which a frame holds whole,
/// and makes them smaller when twice in a row they were not filled.
const KEPT_FRAME: usize = 64 << 10;

/// How long the rest of a refused body is read.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// So much of a body is given room before any of it has come.
const TRUSTED_LENGTH: usize = 4 << 20;

/// Which bound a body meets: it picks the text of W23.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it is JSON.
    Json,
    /// A raw tensor (W31).
    Raw,
    /// JSON and a binary tail.
    Binary,
}

impl Part {
    /// The refusal of a body that is too large.
    pub fn too_large(self, size: u64, limit: u64) -> HttpError {
        HttpError::too_large(match self {
            Self::Json => format!(
                "request JSON size of {size} bytes exceeds the maximum allowed input size of {limit} bytes. \
                 Use --http-max-input-size to increase the limit."
            ),
            Self::Raw => format!(
                "Raw input has a byte_size ({size} bytes) that exceeds the maximum allowed value of {limit} bytes. \
                 Use --http-max-input-size to increase the limit."
            ),
            Self::Binary => format!(
                "request body of {size} bytes exceeds the maximum allowed size of {limit} bytes. \
                 Use --http-max-binary-size to increase the limit."
            ),
        })
    }

    /// The refusal of a compressed body.
    fn not_opened(self, trouble: &Trouble, limit: u64) -> HttpError {
        let option = if self == Self::Binary { "--http-max-binary-size" } else { "--http-max-input-size" };
        match trouble {
            Trouble::TooLarge => HttpError::too_large(format!(
                "Decompressed data size exceeds the maximum allowed value of {limit} bytes. \
                 Use {option} to increase the limit."
            )),
            Trouble::Bomb => HttpError::too_large(
                "the request body opens to far more than tensors do when they are compressed; send it uncompressed",
            ),
            Trouble::Broken => {
                HttpError::bad_request("the request body is not what its Content-Encoding says, or is cut off")
            }
        }
    }
}

/// A body that is about to be read.
pub struct Unread<'a> {
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The body itself.
    pub body: &'a mut Incoming,
    /// The connection that it comes by.
    pub progress: &'a Progress,
}

/// Reads a whole body and opens it if it is compressed. One that came in one piece is not copied, and large pieces of
/// tensors stay as they came; JSON lies side by side.
pub async fn read(unread: Unread<'_>, part: Part, limit: u64) -> Result<Rope, HttpError> {
    let encoding = compression::of_request(unread.headers)?;
    let progress = unread.progress;
    progress.reading();
    let whole = match encoding {
        None if part == Part::Json => collect(unread, limit).await.map(Rope::from),
        None => gather(unread, part, limit).await,
        Some(encoding) => open(unread, encoding, part, limit).await.map(Rope::from),
    };
    progress.read();
    whole
}

async fn gather(unread: Unread<'_>, part: Part, limit: u64) -> Result<Rope, HttpError> {
    let Unread { headers, body, progress } = unread;
    let declared = body.size_hint().exact();
    let mut frames = Frames::new(headers, body, part, limit)?;
    let Some(first) = frames.next(progress).await? else { return Ok(Rope::default()) };
    if declared == Some(first.len() as u64) {
        return Ok(first.into());
    }
    let mut gather = Gather::new(KEPT_FRAME);
    let mut next = Some(first);
    while let Some(frame) = next {
        let left = declared.map(|declared| (declared as usize).saturating_sub(gather.len()));
        gather.push(frame, left);
        next = frames.next(progress).await?;
    }
    Ok(gather.finish())
}

async fn collect(unread: Unread<'_>, limit: u64) -> Result<Bytes, HttpError> {
    let Unread { headers, body, progress } = unread;
    let declared = body.size_hint().exact();
    let mut frames = Frames::new(headers, body, Part::Json, limit)?;
    let Some(first) = frames.next(progress).await? else { return Ok(Bytes::new()) };
    if declared == Some(first.len() as u64) {
        return Ok(first);
    }
    let declared = declared.unwrap_or(0) as usize;
    let mut whole = BytesMut::with_capacity(declared.clamp(first.len(), TRUSTED_LENGTH.max(first.len())));
    whole.extend_from_slice(&first);
    while let Some(frame) = frames.next(progress).await? {
        if whole.len() + frame.len() > whole.capacity() {
            let left = declared.saturating_sub(whole.len());
            whole.reserve(left.min(whole.len() * 2).max(frame.len()));
        }
        whole.extend_from_slice(&frame);
    }
    Ok(whole.freeze())
}

/// Opens a compressed body as it comes, so that neither it nor what it opens to is ever held beyond the limit (B7).
async fn open(unread: Unread<'_>, encoding: Encoding, part: Part, limit: u64) -> Result<Bytes, HttpError> {
    let Unread { headers, body, progress } = unread;
    let mut frames = Frames::new(headers, body, part, limit)?;
    let mut inflater = Inflater::new(encoding, limit);
    let refuse = |trouble| part.not_opened(&trouble, limit);
    while let Some(frame) = frames.next(progress).await? {
        inflater.push(&frame).map_err(refuse)?;
    }
    inflater.finish().map_err(refuse)
}

/// The frames of a body, within its bounds.
struct Frames<'a> {
    body: &'a mut Incoming,
    part: Part,
    limit: u64,
    size: u64,
    /// Whether the client chose the frames.
    chunked: bool,
    small: u32,
}

impl<'a> Frames<'a> {
    fn new(headers: &HeaderMap, body: &'a mut Incoming, part: Part, limit: u64) -> Result<Self, HttpError> {
        if let Some(size) = body.size_hint().exact().filter(|size| *size > limit) {
            return Err(part.too_large(size, limit));
        }
        Ok(Self { body, part, limit, size: 0, chunked: headers.contains_key(TRANSFER_ENCODING), small: 0 })
    }

    async fn next(&mut self, progress: &Progress) -> Result<Option<Bytes>, HttpError> {
        let Some(frame) = next(self.body, progress).await? else { return Ok(None) };
        self.size += frame.len() as u64;
        if self.size > self.limit {
            return Err(self.part.too_large(self.size, self.limit));
        }
        progress.step();
        self.small +=
            u32::from((self.chunked || progress.is_stream()) && !frame.is_empty() && frame.len() < SMALL_FRAME);
        if self.small >= CHUNKS {
            let text = format!("more than {CHUNKS} chunks in the request body");
            return Err(HttpError::bad_request(text).closing(self.limit));
        }
        Ok(Some(frame))
    }
}

/// The next bytes of the body; `None` at its end. No timer: the connection's own look ends a silence.
async fn next(body: &mut Incoming, progress: &Progress) -> Result<Option<Bytes>, HttpError> {
    loop {
        let frame = poll_fn(|context| match Pin::new(&mut *body).poll_frame(context) {
            Poll::Pending if progress.is_silent() => Poll::Ready(None),
            poll => poll.map(Some),
        });
        match frame.await {
            None => return Err(HttpError::too_slow("the request body stopped coming")),
            Some(None) => return Ok(None),
            // Trailers say nothing that matters here.
            Some(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Some(Some(Err(fault))) => {
                return Err(HttpError::bad_request(format!("the request body could not be read: {fault}")).closing(0));
            }
        }
    }
}

/// Reads on for a while after a refusal: a client that still writes would see a reset instead of the answer. One that
/// waits for `100 Continue` is not asked to send.
pub async fn drain(headers: &HeaderMap, body: &mut Incoming, mut bytes: u64) {
    if body.is_end_stream() || headers.contains_key(EXPECT) {
        return;
    }
    let deadline = Instant::now() + DRAIN_TIME;
    while bytes > 0 {
        let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await else { return };
        bytes = bytes.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
    }
}
