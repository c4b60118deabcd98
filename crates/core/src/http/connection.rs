//! Connections: accepted, told apart by their first bytes, watched for progress, ended when the server stops.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::eager::Eager;
use super::progress::{BUSY, HEAD_LOOKS, IDLE_LOOKS, Looks, Progress, Watched};
use super::{Frontend, answer, http2, limits};
use crate::server::accept::{accept, told};
use crate::server::tls;

/// How HTTP/2 begins where nothing was agreed before (prior knowledge).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that are read before the protocol is known; most requests without tensors are shorter.
const FIRST: usize = 1024;

/// Accepts connections until told to stop.
pub(crate) async fn serve(listener: TcpListener, front: Arc<Frontend>, stop: watch::Receiver<bool>) {
    let log = front.shared.log.clone();
    accept(listener, log, stop, |stream, client, stop| {
        connection(stream, Visited { front: Arc::clone(&front), client }, stop)
    })
    .await;
}

/// A listener as the client of one connection finds it.
#[derive(Clone)]
pub(super) struct Visited {
    pub(super) front: Arc<Frontend>,
    pub(super) client: SocketAddr,
}

async fn connection(stream: TcpStream, visited: Visited, stop: watch::Receiver<bool>) {
    match &visited.front.tls {
        None => speak(stream, visited, stop).await,
        // Boxed like all that is rare, so that plain connections stay small.
        Some(tls) => Box::pin(encrypted(tls.clone(), stream, visited, stop)).await,
    }
}

async fn encrypted(tls: tls::Tls, stream: TcpStream, visited: Visited, mut stop: watch::Receiver<bool>) {
    let accepted = tokio::select! {
        accepted = tls.accept(stream) => accepted,
        () = told(&mut stop) => return,
    };
    let Some(stream) = accepted else { return };
    if tls::protocol(&stream) == Some(b"h2") {
        http2::serve(stream, Bytes::new(), visited, stop).await;
    } else {
        speak(stream, visited, stop).await;
    }
}

/// Finds out what the client speaks, and speaks it.
async fn speak<S>(mut stream: S, visited: Visited, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let first = tokio::select! {
        first = first(&mut stream, visited.front.look) => first,
        () = told(&mut stop) => None,
    };
    match first {
        None => {}
        Some(first) if first.starts_with(PREFACE) => Box::pin(http2::serve(stream, first, visited, stop)).await,
        Some(first) => http1(stream, first, visited, stop).await,
    }
}

/// The first bytes of a connection, as many as it takes to know the protocol; none if they do not come.
async fn first<S: AsyncRead + Unpin>(stream: &mut S, look: Duration) -> Option<Bytes> {
    let mut bytes = BytesMut::with_capacity(FIRST);
    let mut end = Instant::now() + look * IDLE_LOOKS;
    loop {
        let before = bytes.len();
        let read = timeout_at(end, stream.read_buf(&mut bytes)).await.ok()?.ok()?;
        if before == 0 {
            end = Instant::now() + look * HEAD_LOOKS;
        }
        let is_open = bytes.len() < PREFACE.len() && PREFACE.starts_with(&bytes);
        if read == 0 || !is_open {
            return (!bytes.is_empty()).then(|| bytes.freeze());
        }
    }
}

async fn http1<S>(stream: S, first: Bytes, visited: Visited, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::<Progress>::default();
    let watched = Watched::new(stream, first, Arc::clone(&progress));
    let look = visited.front.look;
    let service = service_fn(|request| {
        progress.enter(BUSY);
        let (Visited { front, client }, progress) = (visited.clone(), Arc::clone(&progress));
        async move { Ok::<_, Infallible>(answer(front, request, progress, client).await) }
    });
    let mut builder = http1::Builder::new();
    // Not `pipeline_flush`: with it hyper closes without sending its answer where unread bytes are left.
    builder.max_header_size(limits::HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(watched, service));
    let eager = Eager::new();
    let mut stopped = pin!(told(&mut stop));
    let mut looks = Looks::every(look);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            // Errors are the client's: it went away, or sent what hyper answered by itself.
            _ = poll_fn(|context| eager.poll(connection.as_mut(), context)) => return,
            () = &mut stopped, if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            lost = looks.next(&progress) => if lost { return },
        }
    }
}
