//! A response's body: a few byte ranges, sent as they are, with their length known.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::progress::Progress;
use crate::server::Active;

/// Counts the request as running until its last byte is handed over.
#[derive(Debug)]
struct Running {
    _active: Active,
    progress: Arc<Progress>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.progress.answered();
    }
}

/// Ranges in the order in which they are sent.
#[derive(Debug, Default)]
pub struct ResponseBody {
    first: Bytes,
    rest: VecDeque<Bytes>,
    left: u64,
    /// The longest piece that is handed over at once; 0 = any.
    piece: usize,
    running: Option<Running>,
}

impl ResponseBody {
    /// A body of one range and those that follow it.
    pub fn of(first: Bytes, rest: VecDeque<Bytes>) -> Self {
        let left = rest.iter().fold(first.len() as u64, |sum, part| sum + part.len() as u64);
        Self { first, rest, left, piece: 0, running: None }
    }

    /// Hands the body over in pieces of at most so many bytes.
    pub(crate) fn divide(&mut self, piece: usize) {
        self.piece = piece;
    }

    /// Keeps the request running for as long as the body lives.
    pub(crate) fn keep(&mut self, active: Active, progress: Arc<Progress>) {
        self.running = Some(Running { _active: active, progress });
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self::of(bytes, VecDeque::new())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            let mut part = std::mem::take(&mut self.first);
            if !part.is_empty() {
                if self.piece > 0 && part.len() > self.piece {
                    self.first = part.split_off(self.piece);
                }
                if let Some(running) = &self.running {
                    running.progress.sending();
                }
                self.left -= part.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            match self.rest.pop_front() {
                Some(next) => self.first = next,
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
