//! Turns a worker's output pipe into log records, a line each, without Python.

use std::os::fd::OwnedFd;

use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;

use crate::log::{Level, Logger, Record};

/// A longer line is cut into several records.
const MAX_LINE: u64 = 16 << 10;

/// Reads the pipe until the last writer closes it. Needs the runtime context.
pub(super) fn pump(descriptor: OwnedFd, labels: Map<String, Value>, logger: Logger) -> std::io::Result<()> {
    let mut reader = BufReader::new(Receiver::from_owned_fd(descriptor)?);
    tokio::spawn(async move {
        let mut line = Vec::new();
        while let Ok(size) = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
            if size == 0 {
                return;
            }
            let message = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !message.is_empty() {
                logger.write(Record { level: Level::Info, message, fields: labels.clone() });
            }
            line.clear();
        }
    });
    Ok(())
}
