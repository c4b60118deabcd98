//! What a client's connection or stream is at, and when it has kept the server waiting for too long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// How often a connection is looked at. hyper's own header timer would run for every request and end idle
/// connections, which stock clients keep for long.
pub(crate) const LOOK: Duration = Duration::from_secs(10);
/// Looks that a request's header may take.
pub(crate) const HEAD_LOOKS: u32 = 3;
/// Looks in which nothing of a body may come.
const BODY_LOOKS: u32 = 6;
/// Looks that a client may read nothing of its answer.
const BLOCKED_LOOKS: u32 = 6;
/// Looks without any request.
pub(crate) const IDLE_LOOKS: u32 = 60;

/// A connection without a request.
pub(crate) const IDLE: u8 = 0;
const HEAD: u8 = 1;
/// The server's turn.
pub(crate) const BUSY: u8 = 2;
const BODY: u8 = 3;
/// A connection that may hold streams and has none; whatever comes is a sign of life.
pub(crate) const QUIET: u8 = 4;
/// The answer of a stream is the client's to take.
const SENDING: u8 = 5;

/// What a connection is at; one task writes, so relaxed stores do.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    blocked: AtomicBool,
    silent: AtomicBool,
    /// Grows with every phase and every write.
    steps: AtomicU32,
    /// One of several on a connection: how its bytes move shows at the body only.
    stream: bool,
}

impl Progress {
    /// Of one stream, whose request has come.
    pub(crate) fn of_stream() -> Self {
        Self { stream: true, phase: BUSY.into(), ..Self::default() }
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.stream
    }

    pub(crate) fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
        self.step();
    }

    /// Something moved.
    pub(crate) fn step(&self) {
        self.steps.store(self.steps.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The body is being read.
    pub fn reading(&self) {
        self.enter(BODY);
    }

    /// The body has been read.
    pub fn read(&self) {
        self.enter(BUSY);
    }

    /// Whether the body that is being read has stopped coming.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// There is something for the client to take; a connection shows by itself whether it does.
    pub fn sending(&self) {
        if self.stream {
            self.enter(SENDING);
        }
    }

    /// The next part of the answer is the model's to give.
    pub fn waiting(&self) {
        if self.stream {
            self.enter(BUSY);
        }
    }

    /// The answer's last byte was handed over.
    pub fn answered(&self) {
        self.enter(IDLE);
    }

    /// How many looks the connection may stay as it is; `None` = as long as it likes.
    fn patience(&self) -> Option<u32> {
        match self.phase.load(Ordering::Relaxed) {
            _ if self.blocked.load(Ordering::Relaxed) => Some(BLOCKED_LOOKS),
            IDLE | QUIET => Some(IDLE_LOOKS),
            HEAD => Some(HEAD_LOOKS),
            BODY => Some(BODY_LOOKS),
            SENDING => Some(BLOCKED_LOOKS),
            _ => None,
        }
    }

    /// Ends a wait that took too long: a body's by an answer, for its reader is polled right after this; true where
    /// nobody is left to be answered.
    fn lose_patience(&self) -> bool {
        let reading = self.phase.load(Ordering::Relaxed) == BODY && !self.blocked.load(Ordering::Relaxed);
        !reading || self.silent.swap(true, Ordering::Relaxed)
    }
}

/// Looks at a connection or stream from time to time.
#[derive(Debug)]
pub(crate) struct Looks {
    ticks: Interval,
    same: u32,
    steps: u32,
}

impl Looks {
    pub(crate) fn every(look: Duration) -> Self {
        let mut ticks = interval_at(Instant::now() + look, look);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, same: 0, steps: 0 }
    }

    /// Waits for the next look; whether the client is to be given up. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self, progress: &Progress) -> bool {
        self.ticks.tick().await;
        let now = progress.steps.load(Ordering::Relaxed);
        self.same = if now == self.steps { self.same + 1 } else { 0 };
        self.steps = now;
        progress.patience().is_some_and(|patience| self.same >= patience) && progress.lose_patience()
    }
}

/// A stream that notes what it does.
pub(crate) struct Watched<S> {
    stream: TokioIo<S>,
    /// What was read before anyone knew whom it is for.
    first: Bytes,
    progress: Arc<Progress>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, first: Bytes, progress: Arc<Progress>) -> Self {
        Self { stream: TokioIo::new(stream), first, progress }
    }

    fn wrote<T>(&self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.progress.step();
        }
        self.progress.blocked.store(poll.is_pending(), Ordering::Relaxed);
        poll
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    #[cold]
    fn take_first(&mut self, buffer: &mut ReadBufCursor<'_>) {
        let size = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..size]);
        self.first = self.first.slice(size..);
        if self.first.is_empty() {
            self.first = Bytes::new();
        }
    }
}

impl<S: AsyncRead + Unpin> Read for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = if self.first.is_empty() {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            self.take_first(&mut buffer);
            Poll::Ready(Ok(()))
        };
        if poll.is_ready() {
            match self.progress.phase.load(Ordering::Relaxed) {
                IDLE => self.progress.enter(HEAD),
                BODY | QUIET => self.progress.step(),
                // Bytes of a header that never ends are no progress.
                _ => {}
            }
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> Write for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.wrote(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
