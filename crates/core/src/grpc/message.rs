//! The messages of a call: cut out of the body as they come, within bounds of size and time.

use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use prost::Message;
use tokio::time::timeout;

use super::compression;
use super::error::GrpcError;
use crate::http::compression::Encoding;

/// Before each message: whether it is compressed, and its length in four bytes.
pub const PREFIX: usize = 5;

/// So much of a message is given room before any of it has come.
const TRUSTED_LENGTH: usize = 4 << 20;

/// How long nothing of a message may come while it is due.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fields at the top of one message: tensors mostly. A field may take a hundred times its bytes once decoded (B6).
const MAX_FIELDS: usize = 1 << 16;

/// What a client still has to send. A wait for the next message may be given up and begun again.
#[derive(Debug)]
pub struct Messages {
    body: Incoming,
    /// Came with what was asked for before.
    rest: Bytes,
    /// What has come of a piece that did not come whole.
    partial: BytesMut,
    /// The length of the message whose prefix has come.
    length: Option<usize>,
    encoding: Option<Encoding>,
    /// Whether the message whose prefix has come is compressed.
    compressed: bool,
    limit: usize,
    /// Bytes of whole messages with their prefixes, since somebody last took account.
    pub received: u64,
}

impl Messages {
    /// Those of a call, each at most `limit` bytes long.
    pub fn new(body: Incoming, encoding: Option<Encoding>, limit: usize) -> Self {
        let (rest, partial) = (Bytes::new(), BytesMut::new());
        Self { body, rest, partial, length: None, encoding, compressed: false, limit, received: 0 }
    }

    /// The only message of a call; the client owes it at once.
    pub async fn only<M: Message + Default>(&mut self) -> Result<M, GrpcError> {
        let message = self.whole(true).await?;
        decode(message.ok_or_else(|| GrpcError::broken("Missing request message."))?)
    }

    /// The next message; `None` at the end. The client may take its time before it starts one.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, GrpcError> {
        self.whole(false).await?.map(decode).transpose()
    }

    async fn whole(&mut self, due: bool) -> Result<Option<Bytes>, GrpcError> {
        let length = match self.length {
            Some(length) => length,
            None => match self.exactly(PREFIX, due).await? {
                None if self.partial.is_empty() => return Ok(None),
                None => return Err(GrpcError::broken("the request ended within a message")),
                Some(prefix) => {
                    let length = self.check(prefix)?;
                    *self.length.insert(length)
                }
            },
        };
        let message = self.exactly(length, true).await?;
        self.length = None;
        self.received += (PREFIX + length) as u64;
        let message = message.ok_or_else(|| GrpcError::broken("the request ended within a message"))?;
        match self.encoding.filter(|_| self.compressed) {
            None => Ok(Some(message)),
            Some(encoding) => compression::open(encoding, &message, self.limit).map(Some),
        }
    }

    /// The length of the message behind a prefix.
    fn check(&mut self, mut prefix: Bytes) -> Result<usize, GrpcError> {
        match prefix.get_u8() {
            0 => self.compressed = false,
            1 if self.encoding.is_some() => self.compressed = true,
            1 => return Err(GrpcError::broken("a compressed message without 'grpc-encoding'")),
            flag => return Err(GrpcError::broken(format!("a message with the compression flag {flag}"))),
        }
        let length = prefix.get_u32() as usize;
        if length > self.limit {
            let text = format!("message of {length} bytes exceeds the maximum of {} bytes", self.limit);
            return Err(GrpcError::too_much(text));
        }
        Ok(length)
    }

    /// So many bytes, not copied if they came in one piece; `None` if the body ends before them.
    async fn exactly(&mut self, length: usize, due: bool) -> Result<Option<Bytes>, GrpcError> {
        loop {
            if self.partial.is_empty() && self.rest.len() >= length {
                return Ok(Some(self.rest.split_to(length)));
            }
            let wanted = self.rest.split_to(self.rest.len().min(length - self.partial.len()));
            if self.partial.len() + wanted.len() > self.partial.capacity() {
                let left = length - self.partial.len();
                let room = (self.partial.len() * 2).max(TRUSTED_LENGTH).max(wanted.len());
                self.partial.reserve(left.min(room));
            }
            self.partial.extend_from_slice(&wanted);
            if self.partial.len() == length {
                return Ok(Some(mem::take(&mut self.partial).freeze()));
            }
            let frame = if due || !self.partial.is_empty() {
                timeout(PATIENCE, self.frame()).await.unwrap_or_else(|_| Err(GrpcError::silent()))
            } else {
                self.frame().await
            };
            let Some(frame) = frame? else { return Ok(None) };
            self.rest = frame;
        }
    }

    /// The next bytes of the body as they came; `None` at its end.
    async fn frame(&mut self) -> Result<Option<Bytes>, GrpcError> {
        loop {
            match poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await {
                None => return Ok(None),
                // Trailers say nothing that matters here.
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
                Some(Err(_)) => return Err(GrpcError::cancelled()),
            }
        }
    }
}

/// Decodes a message; bytes fields are slices of it.
///
/// # Errors
/// It is none, or has too many fields.
pub fn decode<M: Message + Default>(message: Bytes) -> Result<M, GrpcError> {
    check_fields(&message)?;
    M::decode(message).map_err(|fault| GrpcError::broken(format!("failed to decode the request message: {fault}")))
}

/// Counts the fields at the top of a message before each of them gets room.
fn check_fields(message: &Bytes) -> Result<(), GrpcError> {
    if message.len() / 2 <= MAX_FIELDS {
        return Ok(());
    }
    let mut rest = &message[..];
    let mut count = 0;
    // What is no message at all is for the decoder to say.
    while let Ok(key) = prost::encoding::decode_varint(&mut rest) {
        count += 1;
        let skip = match key & 7 {
            0 => prost::encoding::decode_varint(&mut rest).map_or(usize::MAX, |_| 0),
            1 => 8,
            2 => prost::encoding::decode_varint(&mut rest).map_or(usize::MAX, |length| length as usize),
            5 => 4,
            _ => usize::MAX,
        };
        let Some(after) = rest.get(skip..) else { break };
        rest = after;
        if count > MAX_FIELDS {
            return Err(GrpcError::too_much(format!("a message with more than {MAX_FIELDS} tensors and parameters")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::messages::inference::ModelInferRequest;

    #[test]
    fn a_flood_of_tiny_tensors_is_refused_before_it_grows() {
        let flood = |count: usize| Bytes::from([0x2a, 0].repeat(count));
        assert_eq!(decode::<ModelInferRequest>(flood(1000)).unwrap().inputs.len(), 1000);
        let text = decode::<ModelInferRequest>(flood(MAX_FIELDS + 1)).unwrap_err().text().to_owned();
        assert!(text.contains("more than 65536"), "{text}");
        let large = [&[0x3a, 0x80, 0x80, 0x80, 0x02][..], &vec![0; 4 << 20]].concat();
        assert_eq!(decode::<ModelInferRequest>(large.into()).unwrap().raw_input_contents[0].len(), 4 << 20);
        assert!(decode::<ModelInferRequest>(Bytes::from(vec![0xff; 1 << 20])).is_err());
    }
}
