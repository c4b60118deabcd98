//! HTTP/2 on the v2 listener: several requests on a connection, each watched as a connection of its own would be.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::connection::Visited;
use super::progress::{BUSY, Looks, Progress, QUIET, Watched};
use super::{answer, limits};
use crate::server::accept::told;

/// Bytes that a request may have sent ahead of their reader ...
const STREAM_WINDOW: u32 = 2 << 20;
/// ... and all requests of a connection together.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The longest piece that a client may send at once.
const FRAME: u32 = 256 << 10;

/// Requests of one connection at the same time (B6).
const STREAMS: u32 = 256;

/// An answer is handed over in pieces of this size, so that what a client does not take stays where it is counted.
const PIECE: usize = 64 << 10;

tokio::task_local! {
    /// What the stream is at that this task answers.
    static STREAM: Arc<Progress>;
}

/// Serves a connection whose client speaks HTTP/2.
pub(super) async fn serve<S>(stream: S, first: Bytes, visited: Visited, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::<Progress>::default();
    progress.enter(QUIET);
    let watched = Watched::new(stream, first, Arc::clone(&progress));
    let look = visited.front.look;
    let service = service_fn(|request| {
        let Visited { front, client } = visited.clone();
        async move {
            let progress = STREAM.with(Arc::clone);
            let mut response = answer(front, request, Arc::clone(&progress), client).await;
            response.body_mut().divide(PIECE);
            progress.sending();
            Ok::<_, Infallible>(response)
        }
    });
    let streams = Streams { look, open: Arc::default(), connection: Arc::clone(&progress) };
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(limits::HEADER_BYTES as u32)
        .max_send_buf_size(2 * PIECE);
    let mut connection = pin!(builder.serve_connection(watched, service));
    let mut stopped = pin!(told(&mut stop));
    let mut looks = Looks::every(look);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            // Errors are the client's: it went away, or sent what is no HTTP/2.
            _ = connection.as_mut() => return,
            () = &mut stopped, if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            lost = looks.next(&progress) => if lost { return },
        }
    }
}

/// Runs each stream of a connection in a task that ends when its client keeps it waiting for too long.
#[derive(Clone)]
struct Streams {
    look: Duration,
    open: Arc<AtomicUsize>,
    connection: Arc<Progress>,
}

/// A stream that is open; without any the connection is quiet.
struct Open(Streams);

impl Open {
    fn new(streams: &Streams) -> Self {
        streams.open.fetch_add(1, Ordering::Relaxed);
        streams.connection.enter(BUSY);
        Self(streams.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.connection.enter(QUIET);
        }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let open = Open::new(self);
        let progress = Arc::new(Progress::of_stream());
        let mut looks = Looks::every(self.look);
        tokio::spawn(STREAM.scope(Arc::clone(&progress), async move {
            let _open = open;
            let mut stream = pin!(stream);
            loop {
                tokio::select! {
                    biased;
                    _ = stream.as_mut() => return,
                    // Dropped, it is reset.
                    lost = looks.next(&progress) => if lost { return },
                }
            }
        }));
    }
}
