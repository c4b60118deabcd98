//! Connections: accepted, watched for progress and age, ended when the server stops.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use super::inline::{self, Calls, Door};
use super::{Frontend, answer};
use crate::http::eager::Eager;
use crate::http::limits::HEADER_BYTES;
use crate::http::progress::{BUSY, Looks, Progress, Watched};
use crate::server::accept::{accept, told};

/// Bytes that a call may have sent ahead of their reader ...
const CALL_WINDOW: u32 = 2 << 20;
/// ... and all calls of a connection together. Streams that wait for a model must not use it up.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The longest piece of a message that a client may send at once: fewer pieces, less work.
const FRAME: u32 = 256 << 10;

/// Calls of one connection at the same time; a stream is one for as long as it is open (B6).
const CALLS: u32 = 4096;

/// Bytes of one call's answer that wait for the client to take them, apart from tensors that are not copied.
const SEND_BUFFER: usize = 256 << 10;

/// Accepts connections until told to stop.
pub(crate) async fn serve(listener: TcpListener, front: Arc<Frontend>, stop: watch::Receiver<bool>) {
    let log = front.shared.log.clone();
    accept(listener, log, stop, |stream, client, stop| {
        connection(stream, Visited { front: Arc::clone(&front), client }, stop)
    })
    .await;
}

fn builder(front: &Frontend, calls: &Calls) -> http2::Builder<Door> {
    let options = &front.shared.options.grpc_connections;
    let mut builder = http2::Builder::new(calls.door());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(CALLS)
        .max_header_list_size(HEADER_BYTES as u32)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Some(Duration::from_millis(options.keepalive_time_millis)))
        .keep_alive_timeout(Duration::from_millis(options.keepalive_timeout_millis));
    builder
}

/// When a connection takes no more calls, and when those that it has end with it; none = never.
fn ages(front: &Frontend) -> (Option<Duration>, Option<Duration>) {
    let options = &front.shared.options.grpc_connections;
    let set = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis));
    let (age, grace) = (set(options.max_age_millis), set(options.max_age_grace_millis));
    (age, age.zip(grace).map(|(age, grace)| age + grace))
}

async fn after(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => pending().await,
    }
}

/// The listener as the client of one connection finds it.
#[derive(Clone)]
struct Visited {
    front: Arc<Frontend>,
    client: SocketAddr,
}

async fn connection(stream: TcpStream, visited: Visited, mut stop: watch::Receiver<bool>) {
    let Some(tls) = &visited.front.tls else { return speak(stream, visited, stop).await };
    let accepted = tokio::select! {
        accepted = tls.accept(stream) => accepted,
        () = told(&mut stop) => None,
    };
    if let Some(stream) = accepted {
        speak(stream, visited, stop).await;
    }
}

async fn speak<S>(stream: S, visited: Visited, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::<Progress>::default();
    let watched = Watched::new(stream, Bytes::new(), Arc::clone(&progress));
    let front = &visited.front;
    let mut calls = Calls::new();
    let (look, builder, (age, end)) = (front.look, builder(front, &calls), ages(front));
    let service = service_fn(|request| {
        // From the first call on only a client that takes nothing is too slow.
        progress.enter(BUSY);
        let Visited { front, client } = visited.clone();
        // Boxed: what is open for long is the answer, and it would keep the room of all that led to it.
        let answer = Box::pin(answer(front, request, client));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut connection = pin!(builder.serve_connection(watched, service));
    let eager = Eager::new();
    let mut stopped = pin!(told(&mut stop));
    let mut looks = Looks::every(look);
    let (mut old, mut ended) = (pin!(after(age)), pin!(after(end)));
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            // Errors are the client's: it went away, or sent what is no HTTP/2.
            () = poll_fn(|context| {
                let both = pin!(poll_fn(|context| inline::poll(connection.as_mut(), &mut calls, context)));
                eager.poll(both, context).map(drop)
            }) => return,
            () = &mut stopped, if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut old, if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut ended => return,
            lost = looks.next(&progress) => if lost { return },
        }
    }
}
