//! What a scheduler shares with each of its workers: the end of a frame wakes the owner only if somebody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::owner::Message;
use crate::instance::calls::FrameDone;

/// Counters that callers and workers read without asking the owner.
#[derive(Debug, Default)]
pub struct Shared {
    /// Requests in line or on their way to it. Sequentially consistent against [`Progress`]: see [`Station::finish`].
    pub queued: AtomicUsize,
    /// Live workers.
    pub workers: AtomicUsize,
    /// Streams of responses that are not over: the instance of some may be free already.
    pub streams: AtomicUsize,
    /// Whether the owner wants to hear of every frame and stream that ends, because it waits for the last.
    pub attentive: AtomicBool,
}

/// Counts a stream of responses until it is over.
#[derive(Debug)]
pub struct Open {
    shared: Arc<Shared>,
    messages: mpsc::WeakUnboundedSender<Message>,
}

impl Open {
    /// One more.
    pub fn new(shared: Arc<Shared>, messages: mpsc::WeakUnboundedSender<Message>) -> Self {
        shared.streams.fetch_add(1, Ordering::SeqCst);
        Self { shared, messages }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::SeqCst);
        // Counted first: an owner that waits from now on either sees it gone or is told.
        if self.shared.attentive.load(Ordering::SeqCst)
            && let Some(messages) = self.messages.upgrade()
        {
            let _ = messages.send(Message::Done);
        }
    }
}

/// Frames that a worker has answered and the owner has not counted yet.
#[derive(Debug, Default)]
pub struct Progress {
    frames: AtomicU64,
    calls: AtomicU64,
    busy: AtomicU64,
}

impl Progress {
    fn add(&self, done: FrameDone) {
        self.calls.fetch_add(done.calls, Ordering::Relaxed);
        self.busy.fetch_add(done.busy, Ordering::Relaxed);
        self.frames.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes what was added: frames, and their calls with the time that these took.
    pub fn take(&self) -> (u64, FrameDone) {
        let frames = self.frames.swap(0, Ordering::SeqCst);
        if frames == 0 {
            return (0, FrameDone::default());
        }
        let (calls, busy) = (self.calls.swap(0, Ordering::Relaxed), self.busy.swap(0, Ordering::Relaxed));
        (frames, FrameDone { calls, busy })
    }
}

/// A worker's side of its scheduler.
#[derive(Clone, Debug)]
pub struct Station {
    /// Where its news go.
    pub messages: mpsc::UnboundedSender<Message>,
    /// What the owner reads of this worker.
    pub progress: Arc<Progress>,
    /// Whether anybody waits.
    pub shared: Arc<Shared>,
}

impl Station {
    /// Counts an answered frame. A request that enters the line afterwards makes the owner look by itself; one that
    /// entered before is seen here: either this sees `queued`, or the owner sees the frame.
    pub fn finish(&self, done: FrameDone) {
        self.progress.add(done);
        if self.shared.queued.load(Ordering::SeqCst) > 0 || self.shared.attentive.load(Ordering::SeqCst) {
            // Where the scheduler has ended nobody counts frames any more.
            let _ = self.messages.send(Message::Done);
        }
    }
}
