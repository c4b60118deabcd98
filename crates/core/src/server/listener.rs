//! Binds listeners, with messages that say what is in the way.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::net::{TcpListener, TcpSocket};

use crate::auth::restricted::Restricted;
use crate::error::InferError;
use crate::forward::Forward;
use crate::options::ListenerOptions;

/// What a listener asks of requests beyond the gate, and takes from them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) restricted: Restricted,
    pub(crate) forward: Forward,
}

impl Rules {
    /// Those of a listener whose restricted headers start with `prefix`.
    pub(crate) fn new(options: &ListenerOptions, prefix: &str) -> Result<Self, InferError> {
        Ok(Self { restricted: Restricted::new(&options.restricted, prefix)?, forward: Forward::new(&options.forward)? })
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Binds an address. Needs the runtime context.
pub fn bind(options: &ListenerOptions) -> Result<(TcpListener, SocketAddr), InferError> {
    let address = SocketAddr::new(options.address, options.port);
    let listener = listen(address, options.reuse_port).and_then(|listener| {
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    });
    listener.map_err(|fault| {
        InferError::Unavailable(match fault.kind() {
            io::ErrorKind::AddrInUse => {
                format!("cannot listen on {address}: the address is in use; stop who uses it or choose another port")
            }
            _ => format!("cannot listen on {address}: {fault}"),
        })
    })
}

fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if reuse_port {
        socket.set_reuseport(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Tells one start of the server from another.
pub fn boot_id() -> Result<String, InferError> {
    let mut bytes = [0_u8; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|fault| InferError::Internal(format!("no random numbers: {fault}")))?;
    Ok(bytes.iter().fold(String::with_capacity(32), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    }))
}
