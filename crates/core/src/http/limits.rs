//! Reads request bodies within bounds, and drains what is refused so that the answer arrives.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::{HeaderMap, header};
use tokio::time::timeout;

use crate::error::InferError;

/// Headers of a request, together in bytes and in number (B10).
pub const MAX_HEADER_BYTES: usize = 16 << 10;
/// See [`MAX_HEADER_BYTES`].
pub const MAX_HEADERS: usize = 100;
/// How long a client may take to send its headers.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pieces of at most [`SMALL_FRAME`] bytes that a chunked body may come in (W6): hyper hides the chunks themselves.
const MAX_SMALL_FRAMES: u32 = 65_536;
const SMALL_FRAME: usize = 64;
/// What is read and thrown away so that a refusal is not lost in a connection reset.
const DRAIN_BYTES: u64 = 256 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// What is set aside at once for a body that says its length.
const FIRST_RESERVE: u64 = 4 << 20;

/// Which bounds hold for a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// `--http-max-input-size`.
    pub json: u64,
    /// The bound of the whole body.
    pub whole: u64,
}

/// The whole body, or the text that refuses it.
///
/// # Errors
/// It is larger than the bounds, comes in too many pieces, or breaks off.
pub async fn read(mut body: Incoming, limits: BodyLimits) -> Result<Bytes, InferError> {
    let too_large = |size: u64| {
        let (what, limit) =
            if limits.whole > limits.json { ("request body", limits.whole) } else { ("request JSON", limits.json) };
        let option = if limits.whole > limits.json { "--http-max-binary-size" } else { "--http-max-input-size" };
        InferError::InvalidArgument(format!(
            "{what} size of {size} bytes exceeds the maximum allowed input size of {limit} bytes. Use {option} to \
             increase the limit."
        ))
    };
    let announced = body.size_hint().exact();
    if let Some(size) = announced.filter(|size| *size > limits.whole) {
        drain(body).await;
        return Err(too_large(size));
    }
    let mut first: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    let (mut size, mut small) = (0u64, 0u32);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| InferError::Cancelled)?.into_data() else { continue };
        size += data.len() as u64;
        small += u32::from(data.len() <= SMALL_FRAME);
        if size > limits.whole {
            drain(body).await;
            return Err(too_large(size));
        }
        if small > MAX_SMALL_FRAMES {
            drain(body).await;
            return Err(InferError::InvalidArgument(format!(
                "request body has more than {MAX_SMALL_FRAMES} chunks of at most {SMALL_FRAME} bytes"
            )));
        }
        match first.take() {
            // Most requests come in one piece, which is then the body without a copy.
            None if joined.is_empty() => first = Some(data),
            None => joined.extend_from_slice(&data),
            Some(before) => {
                joined.reserve(announced.unwrap_or(0).min(FIRST_RESERVE) as usize);
                joined.extend_from_slice(&before);
                joined.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| joined.freeze()))
}

/// Throws a refused body away, within bounds, so that the client reads the answer and not a reset.
pub async fn drain(mut body: Incoming) {
    let rest = async {
        let mut size = 0;
        while let Some(Ok(frame)) = body.frame().await {
            size += frame.data_ref().map_or(0, |data| data.len() as u64);
            if size > DRAIN_BYTES {
                return;
            }
        }
    };
    let _ = timeout(DRAIN_TIME, rest).await;
}

/// [`drain`], unless the client waits for a `100 Continue` that polling its body would send.
pub async fn drain_refused(headers: &HeaderMap, body: Incoming) {
    if !headers.contains_key(header::EXPECT) {
        drain(body).await;
    }
}
