//! The messages of a call: cut out of the body as they come, within bounds of size and time.

use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use prost::Message;
use prost::encoding::{decode_varint, encode_varint};
use tokio::time::timeout;

use super::compression;
use super::error::GrpcError;
use super::messages::inference::ModelInferRequest;
use crate::http::compression::Encoding;
use crate::rope::{Gather, Rope};

/// Before each message: whether it is compressed, and its length in four bytes.
pub const PREFIX: usize = 5;

/// Frames from this size on are kept as they are; each has a buffer of its own.
const KEPT_FRAME: usize = 16 << 10;

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
    partial: Gather,
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
        let (rest, partial) = (Bytes::new(), Gather::new(KEPT_FRAME));
        Self { body, rest, partial, length: None, encoding, compressed: false, limit, received: 0 }
    }

    /// The only message of a call; the client owes it at once.
    pub async fn only<M: Message + Default>(&mut self) -> Result<M, GrpcError> {
        decode(self.due().await?.into_bytes())
    }

    /// The same for an inference.
    pub async fn only_inference(&mut self) -> Result<Inference, GrpcError> {
        inference(self.due().await?)
    }

    async fn due(&mut self) -> Result<Rope, GrpcError> {
        self.whole(true).await?.ok_or_else(|| GrpcError::broken("Missing request message."))
    }

    /// The next message; `None` at the end. The client may take its time before it starts one.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, GrpcError> {
        self.whole(false).await?.map(|message| decode(message.into_bytes())).transpose()
    }

    /// The same for an inference.
    pub async fn next_inference(&mut self) -> Result<Option<Inference>, GrpcError> {
        self.whole(false).await?.map(inference).transpose()
    }

    async fn whole(&mut self, due: bool) -> Result<Option<Rope>, GrpcError> {
        let length = match self.length {
            Some(length) => length,
            None => match self.exactly(PREFIX, due).await? {
                None if self.partial.is_empty() => return Ok(None),
                None => return Err(GrpcError::broken("the request ended within a message")),
                Some(prefix) => {
                    let length = self.check(prefix.into_bytes())?;
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
            Some(encoding) => compression::open(encoding, &message, self.limit).map(|message| Some(message.into())),
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
    async fn exactly(&mut self, length: usize, due: bool) -> Result<Option<Rope>, GrpcError> {
        loop {
            if self.partial.is_empty() && self.rest.len() >= length {
                return Ok(Some(self.rest.split_to(length).into()));
            }
            let left = length - self.partial.len();
            let wanted = self.rest.split_to(self.rest.len().min(left));
            self.partial.push(wanted, Some(left));
            if self.partial.len() == length {
                return Ok(Some(mem::replace(&mut self.partial, Gather::new(KEPT_FRAME)).finish()));
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
    while let Ok(key) = decode_varint(&mut rest) {
        count += 1;
        let skip = match key & 7 {
            0 => decode_varint(&mut rest).map_or(usize::MAX, |_| 0),
            1 => 8,
            2 => decode_varint(&mut rest).map_or(usize::MAX, |length| length as usize),
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

/// An inference as it came.
#[derive(Debug)]
pub struct Inference {
    /// The message. It holds the raw tensors only where it came in one piece.
    pub message: ModelInferRequest,
    /// The raw tensors of one that did not, in pieces of what came.
    pub raw: Vec<Rope>,
}

impl From<ModelInferRequest> for Inference {
    fn from(message: ModelInferRequest) -> Self {
        Self { message, raw: Vec::new() }
    }
}

/// Decodes an inference; raw tensors are not copied, in however many pieces they came.
///
/// # Errors
/// As [`decode`].
pub fn inference(message: Rope) -> Result<Inference, GrpcError> {
    let parts = if message.is_whole() { None } else { apart(message.clone()) };
    match parts {
        Some((rest, raw)) => Ok(Inference { message: decode(rest)?, raw }),
        // What else it is, or why it is no message, is for the decoder to say.
        None => decode::<ModelInferRequest>(message.into_bytes()).map(Inference::from),
    }
}

/// The key of `ModelInferRequest.raw_input_contents`.
const RAW: u64 = 7 << 3 | 2;

/// Takes the raw tensors out of a message; `None` if it is none, or has too many fields.
fn apart(mut message: Rope) -> Option<(Bytes, Vec<Rope>)> {
    let (mut rest, mut raw) = (BytesMut::new(), Vec::new());
    for _ in 0..MAX_FIELDS {
        if message.is_empty() {
            return Some((rest.freeze(), raw));
        }
        let key = decode_varint(&mut message).ok()?;
        let number = if matches!(key & 7, 0 | 2) { decode_varint(&mut message).ok()? } else { 0 };
        let length = match key & 7 {
            0 => 0,
            1 => 8,
            2 => usize::try_from(number).ok()?,
            5 => 4,
            _ => return None,
        };
        let value = (length <= message.len()).then(|| message.split_to(length))?;
        if key == RAW {
            raw.push(value);
            continue;
        }
        encode_varint(key, &mut rest);
        if matches!(key & 7, 0 | 2) {
            encode_varint(number, &mut rest);
        }
        for piece in value.pieces() {
            rest.put_slice(piece);
        }
    }
    None
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
    fn message() -> ModelInferRequest {
        use crate::grpc::messages::inference::infer_parameter::ParameterChoice;
        use crate::grpc::messages::inference::model_infer_request::InferInputTensor;
        use crate::grpc::messages::inference::{InferParameter, InferTensorContents};

        let contents = InferTensorContents { fp64_contents: vec![1.5, -2.5], ..InferTensorContents::default() };
        let input = |name: &str| InferInputTensor {
            name: name.to_owned(),
            datatype: "FP64".to_owned(),
            shape: vec![2],
            contents: Some(contents.clone()),
            ..InferInputTensor::default()
        };
        let value = |choice| InferParameter { parameter_choice: Some(choice) };
        let parameters = [
            ("n".to_owned(), value(ParameterChoice::Uint64Param(u64::MAX))),
            ("d".to_owned(), value(ParameterChoice::DoubleParam(0.5))),
        ];
        ModelInferRequest {
            model_name: "m".to_owned(),
            id: "7".to_owned(),
            parameters: parameters.into(),
            inputs: vec![input("a"), input("b")],
            raw_input_contents: vec![Bytes::from_static(b"0123456789"), Bytes::new(), Bytes::from_static(b"xyz")],
            ..ModelInferRequest::default()
        }
    }

    /// In pieces of so many bytes.
    fn cut(bytes: &[u8], size: usize) -> Rope {
        let mut rope = Rope::default();
        for piece in bytes.chunks(size) {
            rope.push(Bytes::copy_from_slice(piece));
        }
        rope
    }

    #[test]
    fn a_message_reads_the_same_in_any_pieces() {
        let expected = message();
        let bytes = expected.encode_to_vec();
        for size in 1..=bytes.len() {
            let Inference { mut message, raw } = inference(cut(&bytes, size)).unwrap();
            assert_eq!(raw.is_empty(), size == bytes.len());
            message.raw_input_contents.extend(raw.into_iter().map(Rope::into_bytes));
            assert_eq!(message, expected);
        }
    }

    #[test]
    fn raw_tensors_are_the_pieces_that_came() {
        let request = ModelInferRequest { raw_input_contents: vec![vec![7; 1000].into()], ..message() };
        let rope = cut(&request.encode_to_vec(), 300);
        let raw = inference(rope.clone()).unwrap().raw.remove(0);
        let ends = |rope: &Rope| rope.pieces().map(|piece| piece.as_ptr_range().end).collect::<Vec<_>>();
        assert_eq!((raw.to_vec(), ends(&raw)), (vec![7; 1000], ends(&rope)[rope.pieces().count() - 4..].to_vec()));
    }

    #[test]
    fn what_is_wrong_is_said_alike_in_any_pieces() {
        let good = message().encode_to_vec();
        let long = [&[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f][..], &good].concat();
        let flood = [0x3a, 0].repeat(MAX_FIELDS + 1);
        for bytes in
            [&good[..good.len() - 1], &long, &flood, &[0x3b; 20], &[0x00; 20], &[0xff; 20], &[0x3d, 1, 2, 3, 4]]
        {
            let whole =
                decode::<ModelInferRequest>(Bytes::copy_from_slice(bytes)).map_err(|error| error.text().to_owned());
            let parts = inference(cut(bytes, bytes.len() / 2)).map_err(|error| error.text().to_owned());
            assert_eq!(parts.map(|inference| inference.message), whole);
        }
        // Fields that nobody knows are passed over, groups too.
        let groups = [&[0x93, 0x06, 0x94, 0x06][..], &good].concat();
        assert_eq!(inference(cut(&groups, 3)).unwrap().message, message());
    }
}
