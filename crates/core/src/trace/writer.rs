//! The way of traces out of the server: a bounded queue from any request, one thread that empties it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::export::Exporter;
use super::file::Files;
use super::record::{Room, Trace};
use crate::log::{Level, Log, Record};

/// What the end may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// Losses are told at most so often.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// How long the thread sleeps where nothing is due.
const FOREVER: Duration = Duration::from_secs(3600);

enum Entry {
    Trace(Box<Trace>),
    /// Look whether there is a loss to tell of, or the end has come.
    Wake,
}

/// Where traces go.
#[derive(Debug)]
pub enum Sink {
    /// Into files as Triton writes them.
    File(Files),
    /// To a receiver of spans.
    Export(Exporter),
}

/// How many traces a sink lost, and why.
#[derive(Debug)]
pub struct Loss {
    /// So many.
    pub traces: u64,
    /// Of the last of them.
    pub reason: String,
}

impl Sink {
    fn take(&mut self, trace: Trace) -> Result<(), Loss> {
        match self {
            Self::File(files) => files.write(&trace),
            Self::Export(exporter) => exporter.take(trace),
        }
    }

    /// Nothing waits at the moment.
    fn idle(&mut self) -> Result<(), Loss> {
        match self {
            Self::File(_) => Ok(()),
            Self::Export(exporter) => exporter.idle(),
        }
    }

    /// How long until it wants to be called again.
    fn wait(&self) -> Duration {
        match self {
            Self::File(_) => FOREVER,
            Self::Export(exporter) => exporter.wait().unwrap_or(FOREVER),
        }
    }

    fn end(&mut self) -> Result<(), Loss> {
        match self {
            Self::File(_) => Ok(()),
            Self::Export(exporter) => exporter.flush(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Traces that found no room.
    lost: AtomicU64,
    closing: AtomicBool,
}

/// The way in; never blocks.
#[derive(Debug)]
pub struct Queue {
    entries: SyncSender<Entry>,
    state: Arc<State>,
    room: Room,
    /// Until somebody has waited for the end.
    ended: Mutex<Option<Receiver<()>>>,
}

impl Queue {
    /// Starts the thread; at most `size` traces wait for it.
    pub fn start(sink: Sink, size: usize, log: Log) -> io::Result<Arc<Self>> {
        let (entries, waiting) = sync_channel(size);
        let (end, ended) = sync_channel(1);
        let state = Arc::<State>::default();
        let writer = Writer { sink, log, state: Arc::clone(&state), loss: None, said: None };
        thread::Builder::new().name("naiad-trace".to_owned()).spawn(move || {
            writer.run(&waiting);
            let _ = end.send(());
        })?;
        Ok(Arc::new(Self { entries, state, room: Room::default(), ended: Mutex::new(Some(ended)) }))
    }

    /// What tensors may take.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Queues a trace; counts it where there is no room.
    pub fn push(&self, trace: Trace) {
        if self.entries.try_send(Entry::Trace(Box::new(trace))).is_err() {
            self.lose();
        }
    }

    /// Counts a trace that found no room.
    pub fn lose(&self) {
        self.state.lost.fetch_add(1, Ordering::Relaxed);
        // The thread is to tell of it; where this does not fit it is awake.
        let _ = self.entries.try_send(Entry::Wake);
    }

    /// Waits until what is queued is written, but no longer than a stuck sink deserves.
    pub fn close(&self) {
        self.state.closing.store(true, Ordering::Release);
        // Where it does not fit the thread is awake.
        let _ = self.entries.try_send(Entry::Wake);
        if let Some(ended) = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = ended.recv_timeout(CLOSE_LIMIT);
        }
    }
}

struct Writer {
    sink: Sink,
    log: Log,
    state: Arc<State>,
    /// What has been lost since it was told last.
    loss: Option<Loss>,
    said: Option<Instant>,
}

impl Writer {
    fn run(mut self, entries: &Receiver<Entry>) {
        while let Some(entry) = self.next(entries) {
            if let Entry::Trace(trace) = entry {
                let taken = self.sink.take(*trace);
                self.note(taken);
            }
            self.report(false);
        }
        let ended = self.sink.end();
        self.note(ended);
        self.report(true);
    }

    /// None at the end.
    fn next(&mut self, entries: &Receiver<Entry>) -> Option<Entry> {
        match entries.try_recv() {
            Ok(entry) => return Some(entry),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) if self.state.closing.load(Ordering::Acquire) => return None,
            Err(TryRecvError::Empty) => {}
        }
        let idle = self.sink.idle();
        self.note(idle);
        match entries.recv_timeout(self.sink.wait()) {
            Ok(entry) => Some(entry),
            Err(RecvTimeoutError::Timeout) => Some(Entry::Wake),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn note(&mut self, outcome: Result<(), Loss>) {
        if let Err(loss) = outcome {
            let before = self.loss.take().map_or(0, |loss| loss.traces);
            self.loss = Some(Loss { traces: before + loss.traces, ..loss });
        }
    }

    fn report(&mut self, at_once: bool) {
        if !at_once && self.said.is_some_and(|said| said.elapsed() < SAID_EVERY) {
            return;
        }
        let dropped = self.state.lost.swap(0, Ordering::Relaxed);
        if dropped == 0 && self.loss.is_none() {
            return;
        }
        self.said = Some(Instant::now());
        let Loss { traces, reason } = self.loss.take().unwrap_or_else(|| Loss {
            traces: 0,
            reason: "more came than could be written, or their tensors were too large".to_owned(),
        });
        let record = Record::new(Level::Warning, "traces were lost").with("lost", dropped + traces);
        self.log.write(record.with("reason", reason));
    }
}
