//! A worker for tests: the other end of a real channel, driven frame by frame.

use std::io::{IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use naiad_tensor::{DataType, socket};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::unix::AsyncFd;

use super::frame::other_side::{self, FromCore};
use super::frame::{Call, Range, Record, TensorEntry, WHOLE};
use super::worker::watch;

pub struct FakeWorker {
    pub id: u64,
    socket: AsyncFd<OwnedFd>,
    segments: Vec<OwnedFd>,
}

impl FakeWorker {
    pub fn new(id: u64, end: OwnedFd) -> Self {
        rustix::io::ioctl_fionbio(&end, true).unwrap();
        Self { id, socket: watch(end).unwrap(), segments: Vec::new() }
    }

    /// The next frame that is no SEGMENT; `None` at the end of file.
    pub async fn frame(&mut self) -> Option<FromCore> {
        loop {
            let wait = tokio::time::timeout(Duration::from_secs(60), self.socket.readable());
            let mut ready = wait.await.expect("the core says something").unwrap();
            let mut buffer = vec![0; 65_536];
            let Ok(received) = ready.try_io(|socket| receive(socket.get_ref(), &mut buffer)) else { continue };
            let (length, descriptor) = received.unwrap();
            drop(ready);
            if length == 0 {
                return None;
            }
            match other_side::decode(&buffer[..length]).unwrap() {
                FromCore::Segment { number, .. } => {
                    assert_eq!(number as usize, self.segments.len());
                    self.segments.push(descriptor.expect("a segment brings its descriptor"));
                }
                frame => return Some(frame),
            }
        }
    }

    /// The calls of the next frame.
    pub async fn calls(&mut self) -> Vec<Call> {
        match self.frame().await {
            Some(FromCore::Execute(calls)) => calls,
            other => panic!("expected EXECUTE, got {other:?}"),
        }
    }

    /// The only call of the next frame.
    pub async fn call(&mut self) -> Call {
        let mut calls = self.calls().await;
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }

    /// Lets the core's tasks do all they can, then asserts that no frame came.
    pub async fn assert_silent(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let received = receive(self.socket.get_ref(), &mut vec![0; 65_536]);
        assert_eq!(received.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "an unexpected frame");
    }

    pub fn read(&self, range: Range) -> Vec<u8> {
        let mut bytes = vec![0; range.length as usize];
        if !bytes.is_empty() {
            let got = rustix::io::pread(&self.segments[range.segment as usize], &mut bytes, range.offset).unwrap();
            assert_eq!(got, bytes.len());
        }
        bytes
    }

    pub fn write(&self, range: Range, bytes: &[u8]) {
        let got = rustix::io::pwrite(&self.segments[range.segment as usize], bytes, range.offset).unwrap();
        assert_eq!(got, bytes.len());
    }

    /// Marks all requests of a call as started.
    pub fn start(&self, call: &Call) {
        for request in &call.requests {
            let word = Range { segment: 0, offset: 4096 + u64::from(request.slot) * 4, length: 4 };
            self.write(word, &request.tag.to_le_bytes());
        }
    }

    /// Whether the core has cancelled the call's first request.
    pub fn is_cancelled(&self, call: &Call) -> bool {
        let word = Range { segment: 0, offset: u64::from(call.requests[0].slot) * 4, length: 4 };
        self.read(word) == call.requests[0].tag.to_le_bytes()
    }

    pub fn send(&self, frame: &[u8]) {
        socket::send(self.socket.get_ref(), frame, None).unwrap();
    }

    /// Sends a frame over and over, without reading anything, until the core ends the channel.
    pub async fn pester(&self, frame: &[u8]) {
        loop {
            match socket::send(self.socket.get_ref(), frame, None) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
                Err(_) => return,
            }
        }
    }

    pub fn reply(&self, records: &[Record]) {
        self.send(&other_side::reply(records));
    }

    /// Writes outputs one behind the other from `range` on, and the record that names them.
    pub fn outputs(&self, call: &Call, mut range: Range, outputs: &[(DataType, &[i64], &[u8])]) -> Record {
        let mut entries = Vec::new();
        for (tensor, (datatype, dims, bytes)) in outputs.iter().enumerate() {
            range.length = bytes.len() as u64;
            self.write(range, bytes);
            let tensor = tensor as u16;
            entries.push(TensorEntry { tensor, datatype: *datatype, request: WHOLE, range, dims: dims.to_vec() });
            range.offset += range.length.next_multiple_of(64);
        }
        record(call, entries)
    }

    /// Answers a call with its inputs.
    pub fn echo(&self, call: &Call) -> Record {
        let inputs: Vec<_> = call.entries.iter().map(|entry| self.read(entry.range)).collect();
        let outputs: Vec<_> = (call.entries.iter().zip(&inputs))
            .map(|(entry, bytes)| (entry.datatype, &entry.dims[..], &bytes[..]))
            .collect();
        self.outputs(call, call.area, &outputs)
    }
}

/// A good record of ten microseconds.
pub fn record(call: &Call, entries: Vec<TensorEntry>) -> Record {
    let times = [1000, 2000, 10_000, 11_000];
    let (last, released, bare) = (true, false, false);
    Record { call: call.call, request: WHOLE, status: 0, last, released, bare, times, entries, text: Vec::new() }
}

/// `BYTES` as they travel.
pub fn strings(elements: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for element in elements {
        bytes.write_all(&(element.len() as u32).to_le_bytes()).unwrap();
        bytes.write_all(element.as_bytes()).unwrap();
    }
    bytes
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> std::io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((received.bytes, descriptor))
}
