//! Turns a worker's output pipe into log records, a line each, without Python.

use std::io;
use std::os::fd::OwnedFd;

use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;

use crate::log::{Level, Log, Record};

/// A longer line is cut into several records.
const LONGEST_LINE: u64 = 16 << 10;

/// Reads the pipe until the last writer closes it. Needs the runtime context.
pub fn pump(descriptor: OwnedFd, labels: Map<String, Value>, log: Log) -> io::Result<()> {
    let mut reader = BufReader::new(Receiver::from_owned_fd(descriptor)?);
    tokio::spawn(async move {
        let mut line = Vec::new();
        while (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await.is_ok_and(|size| size > 0) {
            let message = String::from_utf8_lossy(&line);
            let message = message.trim_end();
            if !message.is_empty() {
                log.write(Record { fields: labels.clone(), ..Record::new(Level::Info, message) });
            }
            line.clear();
        }
    });
    Ok(())
}
