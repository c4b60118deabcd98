//! The bodies that go out: messages in pieces that are not joined, then the trailers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use prost::Message;
use tokio::sync::mpsc;

use super::error::{self, Status};
use super::message::PREFIX;
use crate::access_log::{self, Line};
use crate::http::compression::Encoding;
use crate::request::Timing;
use crate::server::Active;
use crate::trace::Probe;

/// A message on its way out: its prefix and its head in the first piece, tensors in the others.
pub type Pieces = VecDeque<Bytes>;

/// What follows on a stream.
#[derive(Debug)]
pub enum Part {
    /// One message.
    Message(Pieces),
    /// The end.
    Trailers(HeaderMap),
}

#[derive(Debug)]
enum Source {
    Whole(Option<HeaderMap>),
    Stream(mpsc::Receiver<Part>),
}

/// The body of an answer.
#[derive(Debug)]
pub struct ResponseBody {
    pieces: Pieces,
    source: Source,
    /// How its messages are encoded.
    pub encoding: Option<Encoding>,
    /// Where the time of its only response went.
    pub timing: Option<Timing>,
    /// Counts the call until the last byte has left.
    active: Option<Active>,
    /// What the access log will say.
    line: Option<Arc<Line>>,
    /// Until the last byte has left.
    probe: Probe,
}

impl ResponseBody {
    /// Nothing: a refusal is all headers.
    pub fn empty() -> Self {
        Self {
            pieces: Pieces::new(),
            source: Source::Whole(None),
            encoding: None,
            timing: None,
            active: None,
            line: None,
            probe: Probe::default(),
        }
    }

    /// One message and a good end.
    pub fn one(pieces: Pieces) -> Self {
        Self {
            pieces,
            source: Source::Whole(Some(error::ok())),
            encoding: None,
            timing: None,
            active: None,
            line: None,
            probe: Probe::default(),
        }
    }

    /// Messages as they come.
    pub fn stream(parts: mpsc::Receiver<Part>) -> Self {
        Self {
            pieces: Pieces::new(),
            source: Source::Stream(parts),
            encoding: None,
            timing: None,
            active: None,
            line: None,
            probe: Probe::default(),
        }
    }

    /// Keeps the call counted until this is dropped; a stream counts its requests itself.
    pub(crate) fn keep(&mut self, active: Active, line: Option<Arc<Line>>) {
        if let Source::Whole(_) = self.source {
            self.active = Some(active);
        }
        self.line = line;
    }

    /// Notes how the call ended.
    fn end(&self, trailers: &HeaderMap) {
        if let Some(line) = &self.line {
            line.noted().status = Status::told(trailers).map(|status| access_log::Status::Grpc(status.name()));
            line.whole();
        }
    }

    /// Lets the trace of the call end with the body.
    pub fn follow(&mut self, mut probe: Probe) {
        probe.sending();
        self.probe = probe;
    }
}

/// A small message as it travels.
pub fn frame(message: &impl Message) -> Pieces {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    prefix(&mut frame, length);
    message.encode(&mut frame).expect("the buffer grows");
    Pieces::from([frame.freeze()])
}

/// What stands before a message that is not compressed.
pub fn prefix(frame: &mut BytesMut, length: usize) {
    frame.put_u8(0);
    frame.put_u32(length as u32);
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                if let Some(line) = &self.line {
                    line.sent(piece.len() as u64, false);
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let part = match &mut self.source {
                Source::Whole(trailers) => trailers.take().map(Part::Trailers),
                Source::Stream(parts) => ready!(parts.poll_recv(context)),
            };
            match part {
                None => return Poll::Ready(None),
                Some(Part::Message(pieces)) => self.pieces = pieces,
                Some(Part::Trailers(trailers)) => {
                    self.source = Source::Whole(None);
                    self.end(&trailers);
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && matches!(self.source, Source::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        // No length: it would become a header that gRPC does not know.
        SizeHint::default()
    }
}
