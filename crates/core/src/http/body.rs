//! A response's body: a few byte ranges, sent as they are, with their length known.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::progress::Progress;
use crate::access_log::Line;
use crate::server::Active;
use crate::trace::Probe;

/// Counts the request as running until its last byte is handed over.
#[derive(Debug)]
pub(crate) struct Running {
    #[expect(dead_code, reason = "its drop counts")]
    pub(super) active: Active,
    pub(super) progress: Arc<Progress>,
    /// What the access log will say.
    pub(super) line: Option<Arc<Line>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.progress.answered();
    }
}

/// The next part of a body and what comes behind it; none at the end.
pub type Next = Option<(Bytes, Option<More>)>;

/// What gives the rest of a body that is not whole yet.
pub struct More(Pin<Box<dyn Future<Output = Next> + Send>>);

impl More {
    /// What the future gives; nothing = the end. It is polled when the client has room, and dropped with the body.
    pub fn new(next: impl Future<Output = Next> + Send + 'static) -> Self {
        Self(Box::pin(next))
    }
}

impl std::fmt::Debug for More {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("More")
    }
}

/// Ranges in the order in which they are sent.
#[derive(Debug, Default)]
pub struct ResponseBody {
    first: Bytes,
    rest: VecDeque<Bytes>,
    left: u64,
    /// Whether nobody knows how long it will be.
    growing: bool,
    more: Option<More>,
    /// The longest piece that is handed over at once; 0 = any.
    piece: usize,
    running: Option<Running>,
    /// Until the last byte is handed over.
    probe: Probe,
}

impl ResponseBody {
    /// A body of one range and those that follow it.
    pub fn of(first: Bytes, rest: VecDeque<Bytes>) -> Self {
        let left = rest.iter().fold(first.len() as u64, |sum, part| sum + part.len() as u64);
        Self { first, rest, left, ..Self::default() }
    }

    /// A body of no known length.
    pub(crate) fn growing(first: Bytes, more: Option<More>) -> Self {
        Self { growing: true, more, ..Self::from(first) }
    }

    /// Hands the body over in pieces of at most so many bytes.
    pub(crate) fn divide(&mut self, piece: usize) {
        self.piece = piece;
    }

    /// Keeps the request running for as long as the body lives; of the answer to HEAD nothing is sent.
    pub(crate) fn keep(&mut self, running: Running, is_head: bool) {
        self.running = Some(running);
        if is_head || self.is_over() {
            self.end();
        }
    }

    /// Notes that all has been handed over.
    fn end(&self) {
        if let Some(line) = self.running.as_ref().and_then(|running| running.line.as_ref()) {
            line.whole();
        }
    }

    fn is_over(&self) -> bool {
        self.left == 0 && self.more.is_none()
    }

    /// Lets the trace of the request end with the body.
    pub(crate) fn follow(&mut self, mut probe: Probe) {
        probe.sending();
        self.probe = probe;
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

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            let mut part = std::mem::take(&mut self.first);
            if !part.is_empty() {
                if self.piece > 0 && part.len() > self.piece {
                    self.first = part.split_off(self.piece);
                }
                self.left -= part.len() as u64;
                if let Some(running) = &self.running {
                    running.progress.sending();
                    if let Some(line) = &running.line {
                        line.sent(part.len() as u64, self.is_over());
                    }
                }
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            if let Some(next) = self.rest.pop_front() {
                self.first = next;
                continue;
            }
            let Some(more) = &mut self.more else {
                self.end();
                return Poll::Ready(None);
            };
            match more.0.as_mut().poll(context) {
                Poll::Ready(Some((next, more))) => {
                    self.left = next.len() as u64;
                    self.first = next;
                    self.more = more;
                }
                Poll::Ready(None) => self.more = None,
                Poll::Pending => {
                    if let Some(running) = &self.running {
                        running.progress.waiting();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        if self.growing { SizeHint::default() } else { SizeHint::with_exact(self.left) }
    }
}
