//! Accepts the connections of a listener, whatever is spoken on them, until told to stop.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::log::{Level, Log};

/// Runs `connection` in a task of its own for each client that comes.
pub(crate) async fn accept<C>(
    listener: TcpListener,
    log: Log,
    stop: watch::Receiver<bool>,
    connection: impl Fn(TcpStream, SocketAddr, watch::Receiver<bool>) -> C,
) where
    C: Future<Output = ()> + Send + 'static,
{
    let mut stopped = stop.clone();
    let mut stopped = pin!(told(&mut stopped));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    // Without it small answers wait for the client's acknowledgement; one that fails is slow, not wrong.
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(connection(stream, client, stop.clone()));
                }
                Err(fault) => {
                    // Out of descriptors, say: wait a little instead of spinning.
                    log.say(Level::Warning, format!("cannot accept a connection: {fault}"));
                    sleep(Duration::from_millis(100)).await;
                }
            },
            () = &mut stopped => return,
        }
    }
}

/// Waits until the listeners are to end. Apart, so that no guard of the channel lives in a `select!`.
pub(crate) async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
