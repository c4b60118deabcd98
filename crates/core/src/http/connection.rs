//! Connections: accepted, watched for progress, ended when the server stops.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::eager::Eager;
use super::{Frontend, answer, limits};
use crate::log::Level;

/// How often a connection is looked at. hyper's own header timer would run for every request and end idle
/// connections, which stock clients keep for long.
pub(crate) const LOOK: Duration = Duration::from_secs(10);
/// Looks that a request's header may take.
const HEAD_LOOKS: u32 = 3;
/// Looks in which nothing of a body may come.
const BODY_LOOKS: u32 = 6;
/// Looks that a client may read nothing of its answer.
const BLOCKED_LOOKS: u32 = 6;
/// Looks without any request.
const IDLE_LOOKS: u32 = 60;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const BODY: u8 = 3;

/// What a connection is at; one task writes, so relaxed stores do.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    blocked: AtomicBool,
    silent: AtomicBool,
    /// Grows with every phase and every write.
    steps: AtomicU32,
}

impl Progress {
    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
        self.step();
    }

    fn step(&self) {
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

    /// The answer's last byte was handed over.
    pub fn answered(&self) {
        self.enter(IDLE);
    }

    /// How many looks the connection may stay as it is; `None` = as long as it likes.
    fn patience(&self) -> Option<u32> {
        match self.phase.load(Ordering::Relaxed) {
            _ if self.blocked.load(Ordering::Relaxed) => Some(BLOCKED_LOOKS),
            IDLE => Some(IDLE_LOOKS),
            HEAD => Some(HEAD_LOOKS),
            BODY => Some(BODY_LOOKS),
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

/// Accepts connections until told to stop.
pub(crate) async fn serve(listener: TcpListener, front: Arc<Frontend>, stop: watch::Receiver<bool>) {
    let mut stopped = stop.clone();
    let mut stopped = pin!(told(&mut stopped));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Without it small answers wait for the client's acknowledgement; one that fails is slow, not wrong.
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(connection(stream, Arc::clone(&front), stop.clone()));
                }
                Err(fault) => {
                    // Out of descriptors, say: wait a little instead of spinning.
                    front.shared.log.say(Level::Warning, format!("cannot accept a connection: {fault}"));
                    sleep(Duration::from_millis(100)).await;
                }
            },
            () = &mut stopped => return,
        }
    }
}

/// Waits until the listeners are to end. Apart, so that no guard of the channel lives in a `select!`.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(stream: TcpStream, front: Arc<Frontend>, mut stop: watch::Receiver<bool>) {
    let progress = Arc::<Progress>::default();
    let watched = Watched { stream: TokioIo::new(stream), progress: Arc::clone(&progress) };
    let look = front.look;
    let service = service_fn(|request| {
        progress.enter(BUSY);
        let (front, progress) = (Arc::clone(&front), Arc::clone(&progress));
        async move { Ok::<_, Infallible>(answer(front, request, progress).await) }
    });
    let mut builder = http1::Builder::new();
    // Not `pipeline_flush`: with it hyper closes without sending its answer where unread bytes are left.
    builder.max_header_size(limits::HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(watched, service));
    let eager = Eager::new();
    let mut stopped = pin!(told(&mut stop));
    let mut looks = interval_at(Instant::now() + look, look);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut stopping, mut same, mut steps) = (false, 0, 0);
    loop {
        tokio::select! {
            biased;
            // Errors are the client's: it went away, or sent what hyper answered by itself.
            _ = poll_fn(|context| eager.poll(connection.as_mut(), context)) => return,
            () = &mut stopped, if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = looks.tick() => {
                let now = progress.steps.load(Ordering::Relaxed);
                same = if now == steps { same + 1 } else { 0 };
                steps = now;
                if progress.patience().is_some_and(|patience| same >= patience) && progress.lose_patience() {
                    return;
                }
            }
        }
    }
}

/// A stream that notes what it does.
struct Watched {
    stream: TokioIo<TcpStream>,
    progress: Arc<Progress>,
}

impl Watched {
    fn wrote<T>(&self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.progress.step();
        }
        self.progress.blocked.store(poll.is_pending(), Ordering::Relaxed);
        poll
    }
}

impl Read for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        if poll.is_ready() {
            match self.progress.phase.load(Ordering::Relaxed) {
                IDLE => self.progress.enter(HEAD),
                BODY => self.progress.step(),
                // Bytes of a header that never ends are no progress.
                _ => {}
            }
        }
        poll
    }
}

impl Write for Watched {
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
