//! The listener over real sockets: raw bytes in, raw bytes out.

mod compression;
mod gate;
mod generate;
mod http2;
mod infer;
mod limits;
mod metrics;
mod repository;
mod rules;
mod settings;
mod trace;
mod wire;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::instance::fake_worker::FakeWorker;
use crate::options::CoreOptions;
use crate::server::Server;

/// A running server and where it listens.
struct Site {
    server: Server,
    address: String,
    /// The metrics listener, where there is one.
    metrics: String,
}

impl Site {
    /// A keyless server in explicit mode but for what `change` says.
    fn new(change: &Value) -> Self {
        Self::looking(Duration::from_secs(10), change)
    }

    /// The same, with connections that are looked at so often.
    fn looking(look: Duration, change: &Value) -> Self {
        let mut options = json!({
            "server_version": "9.9", "require_key": false, "model_control": "explicit", "byte_budget": 64 << 20,
            "http": {"address": "127.0.0.1", "port": 0}, "log": {"file": "/dev/null"},
        });
        options.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let server = Server::new(CoreOptions::from_json(options.to_string().as_bytes()).unwrap()).unwrap();
        let addresses = server.listen(look).unwrap();
        Self { server, address: addresses.http.unwrap(), metrics: addresses.metrics.unwrap_or_default() }
    }

    fn connect(&self) -> Client {
        Self::connect_to(&self.address)
    }

    fn connect_to(address: &str) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        Client { stream, unread: Vec::new() }
    }

    /// One request on its own connection.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        Self::ask_at(&self.address, method, path, headers, body)
    }

    fn ask_at(address: &str, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let mut client = Self::connect_to(address);
        client.send(request(method, path, headers, body).as_bytes());
        client.reply(method == "HEAD")
    }

    fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "", "")
    }

    fn post(&self, path: &str, body: &str) -> Reply {
        self.ask("POST", path, "", body)
    }

    /// Publishes `name` with an INT32 input `x` and output `y` of two elements; the worker is the test's.
    fn publish(&self, name: &str, change: &Value) -> FakeWorker {
        let place = json!({"model": name, "version": 1, "instance": 0}).to_string();
        let (id, end) = self.server.open_worker(place.as_bytes()).unwrap();
        let tensor = |name: &str| json!({"name": name, "datatype": "INT32", "dims": [2], "reshape": null, "optional": false, "labels": []});
        let config = json!({"name": name, "max_batch_size": 8}).to_string();
        let mut spec = json!({
            "name": name, "version": 1, "platform": "identity", "max_batch_size": 8, "workers": [id],
            "scheduler": {"kind": "direct"}, "inputs": [tensor("x")], "outputs": [tensor("y")],
            "max_queue_size": 100, "config": config, "default_version": true,
        });
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        self.server.publish(spec.to_string().as_bytes()).unwrap();
        FakeWorker::new(id, end)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.stop();
    }
}

/// The runtime of a test's own workers.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A connection as a client has it.
struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|fault| panic!("{fault}: {}", self.text()))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// More bytes; false at the end of file.
    fn more(&mut self) -> bool {
        let mut buffer = vec![0; 65_536];
        let size = self.stream.read(&mut buffer).unwrap();
        self.unread.extend_from_slice(&buffer[..size]);
        size > 0
    }

    fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.unread.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(self.more(), "the connection ended before an answer: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// The next answer.
    fn reply(&mut self, head_only: bool) -> Reply {
        let headers = self.head();
        let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply { status, headers, body: Vec::new() };
        let length: usize = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                reply.body.extend_from_slice(&chunk);
            }
        } else if !head_only {
            while self.unread.len() < length {
                assert!(self.more(), "the answer broke off: {reply:?}");
            }
            reply.body = self.unread.drain(..length).collect();
        }
        reply
    }

    /// The next chunk of a body; none behind the last one.
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            match self.unread.windows(2).position(|window| window == b"\r\n") {
                Some(end) => break end,
                None => assert!(self.more(), "the answer broke off"),
            }
        };
        let size = usize::from_str_radix(std::str::from_utf8(&self.unread[..end]).unwrap(), 16).unwrap();
        while self.unread.len() < end + 2 + size + 2 {
            assert!(self.more(), "the answer broke off");
        }
        let chunk = self.unread.drain(..end + 2 + size + 2).skip(end + 2).take(size).collect();
        (size > 0).then_some(chunk)
    }

    fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 16];
        match self.stream.read(&mut buffer) {
            Ok(size) => size == 0,
            Err(fault) => fault.kind() == ErrorKind::ConnectionReset,
        }
    }
}
