//! The owner task of one worker: its channel, its arena and what is in flight.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use naiad_tensor::{Segment, socket};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::arena::Arena;
use super::calls::{Calls, FrameDone, NotNow};
use super::frame::{self, Execute, FromWorker, MAX_FRAME};
use super::{Identity, ToWorker, WorkersOptions, control};
use crate::engine::Event;
use crate::error::InferError;
use crate::model::Served;
use crate::scheduler::batch::Batch;
use crate::scheduler::owner::Message;
use crate::scheduler::station::Station;

/// How long nothing happens before unused memory goes back.
const IDLE: Duration = Duration::from_secs(1);

/// Frames that are read of a channel which is to be closed.
const UNREAD: usize = 1024;

/// Frames that wait for a worker's socket; it has at most a few calls, and asks for room once at a time.
const UNTAKEN: usize = 256;

/// Why a channel ends.
#[derive(Debug)]
enum End {
    /// We were asked to.
    Closed,
    /// The worker went away or broke the protocol.
    Lost(String),
}

/// A frame to send, with the segment whose descriptor rides along.
type Outgoing = (Vec<u8>, Option<Arc<Segment>>);

/// The model for which the worker runs and where its news go.
struct Post {
    calls: Calls,
    station: Station,
}

impl Post {
    fn new(served: Arc<Served>, station: Station) -> Self {
        Self { calls: Calls::new(served), station }
    }

    /// Tells that a frame is answered, if it is.
    fn tell(&self, done: Option<FrameDone>) {
        if let Some(done) = done {
            self.station.finish(done);
        }
    }
}

/// One worker's owner.
pub struct Worker {
    identity: Identity,
    options: WorkersOptions,
    socket: AsyncFd<OwnedFd>,
    arena: Arena,
    inbox: mpsc::UnboundedReceiver<ToWorker>,
    /// Given to lent bytes, so that they come back here.
    own: mpsc::UnboundedSender<ToWorker>,
    post: Option<Post>,
    /// Its control channel, until the model is known for which it speaks.
    control: Option<UnixStream>,
    /// Batches that wait for slots or bytes, with the frame that they belong to.
    held: VecDeque<(u64, Batch)>,
    outgoing: VecDeque<Outgoing>,
    buffer: Box<[u8]>,
}

impl Worker {
    /// The owner of a fresh channel. Needs the runtime context.
    pub fn new(
        identity: Identity,
        options: WorkersOptions,
        socket: OwnedFd,
        own: mpsc::UnboundedSender<ToWorker>,
        inbox: mpsc::UnboundedReceiver<ToWorker>,
    ) -> io::Result<Self> {
        let arena = Arena::new(Arc::clone(&options.budget))?;
        Ok(Self {
            identity,
            options,
            socket: watch(socket)?,
            arena,
            inbox,
            own,
            post: None,
            control: None,
            held: VecDeque::new(),
            outgoing: VecDeque::new(),
            buffer: vec![0; MAX_FRAME].into_boxed_slice(),
        })
    }

    /// Runs until the channel ends; then nothing of the worker is left here.
    pub async fn run(mut self) {
        let end = loop {
            let step = match self.poll_busily().await {
                Ok(false) => self.step().await,
                polled => polled.map(|_| ()),
            };
            if let Err(end) = step {
                break end;
            }
        };
        if matches!(end, End::Closed) {
            self.read_rest();
        }
        self.end(end);
    }

    /// What the worker had answered before its channel is closed counts: it may lie unread behind the order to close.
    fn read_rest(&mut self) {
        for _ in 0..UNREAD {
            match socket::receive(self.socket.get_ref(), &mut self.buffer) {
                Ok(length) if length > 0 && self.frame(length).is_ok() => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted) => {}
                _ => return,
            }
        }
    }

    /// Waits for one thing and does it.
    async fn step(&mut self) -> Result<(), End> {
        tokio::select! {
            biased;
            message = self.inbox.recv() => self.message(message.unwrap_or(ToWorker::Close)),
            ready = self.socket.readable() => {
                let mut ready = ready.map_err(|error| End::Lost(error.to_string()))?;
                let buffer = &mut self.buffer;
                match ready.try_io(|socket| socket::receive(socket, buffer)) {
                    Ok(received) => self.received(received),
                    Err(_would_block) => Ok(()),
                }
            }
            ready = self.socket.writable(), if !self.outgoing.is_empty() => {
                ready.map_err(|error| End::Lost(error.to_string()))?.clear_ready();
                self.flush();
                Ok(())
            }
            () = tokio::time::sleep(IDLE), if self.arena.is_trimmable() => {
                self.arena.trim();
                Ok(())
            }
        }
    }

    /// Looks for the reply without sleeping, for as long as the option says; true if something was done.
    async fn poll_busily(&mut self) -> Result<bool, End> {
        let busy = self.options.busy_poll;
        if busy == Duration::ZERO || self.post.as_ref().is_none_or(|post| post.calls.is_empty()) {
            return Ok(false);
        }
        let deadline = Instant::now() + busy;
        while Instant::now() < deadline {
            if let Ok(message) = self.inbox.try_recv() {
                return self.message(message).map(|()| true);
            }
            match socket::receive(self.socket.get_ref(), &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
                received => return self.received(received).map(|()| true),
            }
        }
        Ok(false)
    }

    fn received(&mut self, received: io::Result<usize>) -> Result<(), End> {
        match received {
            Ok(0) => Err(End::Lost("end of file".into())),
            Ok(length) => self.frame(length).map_err(End::Lost),
            // A peer that died with unread frames: its queued replies come next, then the end of file.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(End::Lost(error.to_string())),
        }
    }

    fn frame(&mut self, length: usize) -> Result<(), String> {
        let frame = frame::decode(&self.buffer[..length]).map_err(|error| error.to_string())?;
        let post = self.post.as_mut().ok_or("a frame before the model is published")?;
        match frame {
            FromWorker::Reply(records) => {
                for record in &records {
                    let done = post.calls.record(record, &mut self.arena, &self.own)?;
                    post.tell(done);
                }
                if !self.held.is_empty() {
                    self.pump();
                }
            }
            FromWorker::Need { bytes: 0, .. } => return Err("NEED of no bytes".into()),
            FromWorker::Need { .. } if self.outgoing.len() >= UNTAKEN => {
                return Err(format!("{UNTAKEN} frames wait for a worker that asks for more and takes none"));
            }
            FromWorker::Need { call, bytes } => {
                let range = post.calls.grant(call, bytes, &mut self.arena)?;
                self.announce();
                self.outgoing.push_back((frame::grant(call, range), None));
                self.flush();
            }
        }
        Ok(())
    }

    fn message(&mut self, message: ToWorker) -> Result<(), End> {
        match message {
            ToWorker::Join { served, station } => {
                // A worker serves one published specification in its life.
                self.post.get_or_insert_with(|| Post::new(served, station));
                self.follow();
            }
            ToWorker::Follow(control) => {
                self.control = Some(control);
                self.follow();
            }
            ToWorker::Execute(batches) => {
                if let Some(post) = &mut self.post {
                    let frame = post.calls.open_frame(batches.len());
                    self.held.extend(batches.into_iter().map(|batch| (frame, batch)));
                    self.pump();
                }
            }
            ToWorker::Sweep => {
                if let Some(post) = &self.post {
                    post.calls.sweep(&self.arena);
                }
            }
            ToWorker::Release(range) => {
                if let Some(post) = &mut self.post {
                    post.calls.released(range, &mut self.arena);
                    self.pump();
                }
            }
            ToWorker::Close => return Err(End::Closed),
        }
        Ok(())
    }

    fn follow(&mut self) {
        if let Some(post) = &self.post
            && let Some(control) = self.control.take()
        {
            tokio::spawn(control::follow(control, Arc::clone(&post.calls.served().voice)));
        }
    }

    /// Makes frames of what is held, as far as slots and bytes reach, and sends them.
    fn pump(&mut self) {
        let mut execute = Execute::new();
        while let Some((frame, batch)) = self.held.pop_front() {
            let Some(post) = &mut self.post else { break };
            let waits = !post.calls.is_empty();
            let call = match post.calls.start(frame, batch, &mut self.arena) {
                Ok(call) => call,
                Err((batch, _)) if waits => {
                    // What is in flight gives room when it is answered.
                    self.held.push_front((frame, batch));
                    break;
                }
                Err((batch, why)) => {
                    self.refuse(frame, batch, &why);
                    continue;
                }
            };
            if execute.push(&call).is_ok() {
                continue;
            }
            self.send_calls(std::mem::take(&mut execute));
            if let Err(error) = execute.push(&call) {
                let Some(post) = &mut self.post else { break };
                let error = InferError::Internal(error.to_string());
                let done = post.calls.refuse(call.call, &mut self.arena, &error);
                post.tell(done);
            }
        }
        self.send_calls(execute);
        self.flush();
    }

    fn refuse(&mut self, frame: u64, batch: Batch, why: &NotNow) {
        let Some(post) = &mut self.post else { return };
        let limit = match why {
            NotNow::Slots => "its batch has more requests than a worker takes",
            NotNow::Full => "its tensors exceed the byte budget",
        };
        for job in batch.jobs {
            let model = &self.identity.model;
            let error = InferError::Unavailable(format!("model '{model}' can not run this request: {limit}"));
            post.calls.served().statistics.failed(job.arrived, &error);
            job.answer(Err(error));
        }
        let done = post.calls.close_call(frame, 0);
        post.tell(done);
    }

    fn send_calls(&mut self, execute: Execute) {
        if !execute.is_empty() {
            self.announce();
            self.outgoing.push_back((execute.finish(), None));
        }
    }

    /// Segments go before the first frame that names them.
    fn announce(&mut self) {
        for (number, segment) in self.arena.unannounced() {
            self.outgoing.push_back((frame::segment(number, segment.size() as u64), Some(segment)));
        }
    }

    /// Sends what the socket takes; the rest waits until it is writable.
    fn flush(&mut self) {
        while let Some((frame, segment)) = self.outgoing.front() {
            let descriptor = segment.as_ref().map(|segment| segment.descriptor());
            match socket::send(self.socket.get_ref().as_fd(), frame, descriptor) {
                Ok(()) => {
                    self.outgoing.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // The worker is gone; reading on to the end of file says what it had answered.
                    self.outgoing.clear();
                }
            }
        }
    }

    fn end(mut self, end: End) {
        drop(self.socket);
        self.identity.forget();
        self.inbox.close();
        let mut late = Vec::new();
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                ToWorker::Join { served, station } => {
                    self.post.get_or_insert_with(|| Post::new(served, station));
                }
                ToWorker::Execute(batches) => late.extend(batches.into_iter().flat_map(|batch| batch.jobs)),
                ToWorker::Follow(_) | ToWorker::Sweep | ToWorker::Release(_) | ToWorker::Close => {}
            }
        }
        let mut started = 0;
        if let Some(mut post) = self.post {
            let (failed, mut jobs) = post.calls.lost(&self.arena, &self.identity.failure(&end));
            started = failed;
            jobs.extend(self.held.into_iter().flat_map(|(_, batch)| batch.jobs));
            jobs.extend(late);
            let lost = Message::Lost { worker: self.identity.id, jobs };
            if let Err(refused) = post.station.messages.send(lost) {
                refuse_all(refused.0, &self.identity.model);
            }
        }
        if let End::Lost(reason) = end {
            let Identity { id, model, version, .. } = self.identity;
            let _ = self.options.events.send(Event::WorkerLost { worker: id, model, version, started, reason });
        }
    }
}

fn refuse_all(message: Message, model: &str) {
    let Message::Lost { jobs, .. } = message else { return };
    let error = InferError::Unavailable(format!("model '{model}' was unloaded before it could answer this request"));
    for job in jobs {
        job.answer(Err(error.clone()));
    }
}

/// Watches a descriptor of our own. Needs the runtime context.
#[expect(
    deprecated,
    reason = "its successor is unsafe; an OwnedFd keeps its one descriptor, which is all that it asks"
)]
pub fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(socket)
}

impl Identity {
    /// What a request gets that the worker had started.
    fn failure(&self, end: &End) -> InferError {
        let model = self.model.clone();
        match end {
            End::Lost(_) => InferError::WorkerLost { model },
            End::Closed => InferError::Unavailable(format!(
                "worker closed: the process of model '{model}' was stopped while it ran this request"
            )),
        }
    }
}
