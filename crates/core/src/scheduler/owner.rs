//! The one task that owns a model version's line of requests and knows its workers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::batch::Batch;
use super::dynamic::MAX_REQUESTS;
use super::queue::{Decision, Line, Policy};
use super::reply::{Outlet, ReplyTo, Turn};
use super::station::{Open, Progress, Shared, Station};
use super::timer::Timer;
use super::{BoxedJob, Job, Pending, Responses, Scheduler};
use crate::admission::Permit;
use crate::error::{InferError, shown_id};
use crate::instance::WorkerHandle;
use crate::instance::group::{Choice, Group};
use crate::model::Served;
use crate::request::InferRequest;
use crate::statistics::monotonic_ns;

/// What a frame's calls may take together: several share a frame only while they are that short.
const FRAME_NS: u64 = 1_000_000;
/// Calls of one frame at most.
const MAX_CALLS: u64 = 32;
const MESSAGES_AT_ONCE: usize = 64;

/// What the owner is told.
#[derive(Debug)]
pub enum Message {
    /// A new request.
    Enqueue(BoxedJob),
    /// Some request was cancelled.
    Sweep,
    /// A worker to use.
    Attach(WorkerHandle),
    /// A worker has answered a frame while requests wait.
    Done,
    /// A worker's channel is closed.
    Lost {
        /// The worker's id.
        worker: u64,
        /// Requests that it had not started, in their order.
        jobs: Vec<BoxedJob>,
    },
    /// Answer what there is and end.
    Retire {
        /// When what is left is cut off.
        deadline: Instant,
        /// Told whether nothing was cut off.
        answer: oneshot::Sender<bool>,
    },
}

/// The callers' side.
#[derive(Debug)]
struct Handle {
    served: Arc<Served>,
    shared: Arc<Shared>,
    messages: mpsc::UnboundedSender<Message>,
}

/// Starts the owner of a model version.
pub fn start<P: Policy>(served: &Arc<Served>, policy: P) -> Arc<dyn Scheduler> {
    // Unbounded, for `queued` bounds the requests and everything else comes once a worker's frame or life.
    let (messages, inbox) = mpsc::unbounded_channel();
    let shared = Arc::<Shared>::default();
    let owner = Owner {
        served: Arc::clone(served),
        shared: Arc::clone(&shared),
        messages: messages.downgrade(),
        depth: policy.depth(),
        policy,
        line: Line::default(),
        group: Group::default(),
        sweep: false,
        call_ns: None,
        last_turn: None,
        retiring: None,
    };
    tokio::spawn(owner.run(inbox));
    Arc::new(Handle { served: Arc::clone(served), shared, messages })
}

impl Scheduler for Handle {
    fn schedule(&self, request: InferRequest, permit: Permit) -> Pending {
        if self.served.spec.decoupled {
            return Pending::refused(decoupled(&self.served.spec.name), self.messages.clone());
        }
        let (answer, receiver) = oneshot::channel();
        match self.enqueue(request, permit, ReplyTo::One { answer, turn: None }) {
            Ok(()) => Pending::waiting(receiver, self.messages.clone()),
            Err(error) => Pending::refused(error, self.messages.clone()),
        }
    }

    fn stream(&self, request: InferRequest, permit: Permit) -> Result<Responses, InferError> {
        let open = Open::new(Arc::clone(&self.shared), self.messages.downgrade());
        let (outlet, responses) = Outlet::new(self.messages.clone(), open);
        self.enqueue(request, permit, ReplyTo::Many(outlet))?;
        Ok(responses)
    }

    fn attach(&self, worker: WorkerHandle) {
        self.shared.workers.fetch_add(1, Ordering::Relaxed);
        if let Err(refused) = self.messages.send(Message::Attach(worker)) {
            self.shared.workers.fetch_sub(1, Ordering::Relaxed);
            if let Message::Attach(worker) = refused.0 {
                worker.close();
            }
        }
    }

    fn workers(&self) -> usize {
        self.shared.workers.load(Ordering::Relaxed)
    }

    fn retire(&self, deadline: Instant) -> oneshot::Receiver<bool> {
        let (answer, receiver) = oneshot::channel();
        // Where the owner has ended the answer is dropped, which its receiver takes for a clean end.
        let _ = self.messages.send(Message::Retire { deadline, answer });
        receiver
    }
}

impl Handle {
    fn enqueue(&self, mut request: InferRequest, permit: Permit, reply: ReplyTo) -> Result<(), InferError> {
        let spec = &self.served.spec;
        let room = |queued: usize| (queued < spec.max_queue_size).then_some(queued + 1);
        if self.shared.queued.fetch_update(Ordering::SeqCst, Ordering::Relaxed, room).is_err() {
            return Err(InferError::QueueFull { id: shown_id(&request.id) });
        }
        if request.inputs.len() > 1 {
            request.inputs.sort_by_key(|input| spec.inputs.iter().position(|known| known.name == input.name));
        }
        let rows = match request.inputs.first() {
            Some(input) if spec.max_batch_size > 0 => input.shape.first().copied().unwrap_or(0) as u32,
            _ => 0,
        };
        let (enqueued, arrived) = (Instant::now(), monotonic_ns());
        let job = Job { request, rows, enqueued, arrived, level: 0, expires: None, reply, permit };
        // It may be found in the registry just before it is retired.
        let gone = |_| InferError::NoVersion { model: spec.name.clone() };
        self.messages.send(Message::Enqueue(Box::new(job))).map_err(gone)
    }
}

/// A frontend that has one answer only refuses such a model before, in its own words.
fn decoupled(model: &str) -> InferError {
    InferError::Unsupported(format!(
        "model '{model}' has a decoupled transaction policy: ask for a stream of responses"
    ))
}

#[derive(Debug)]
struct Retiring {
    deadline: Instant,
    answers: Vec<oneshot::Sender<bool>>,
    clean: bool,
    closing: bool,
}

#[derive(Debug)]
struct Owner<P> {
    served: Arc<Served>,
    shared: Arc<Shared>,
    messages: mpsc::WeakUnboundedSender<Message>,
    policy: P,
    depth: usize,
    line: Line,
    group: Group,
    sweep: bool,
    /// What one call takes, as measured lately.
    call_ns: Option<u64>,
    last_turn: Option<oneshot::Receiver<()>>,
    retiring: Option<Retiring>,
}

impl<P: Policy> Owner<P> {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        let mut messages = Vec::with_capacity(MESSAGES_AT_ONCE);
        let mut timer = Timer::default();
        loop {
            let wake = self.advance(Instant::now());
            if self.retiring.as_ref().is_some_and(|retiring| retiring.closing && self.group.is_empty()) {
                break;
            }
            tokio::select! {
                biased;
                count = inbox.recv_many(&mut messages, MESSAGES_AT_ONCE) => if count == 0 { break },
                () = timer.until(wake) => {}
            }
            for message in messages.drain(..) {
                self.take(message);
            }
        }
        inbox.close();
        while let Ok(message) = inbox.try_recv() {
            self.take(message);
        }
        self.cut_off();
        for handle in self.group.handles() {
            handle.close();
        }
        if let Some(retiring) = self.retiring {
            for answer in retiring.answers {
                let _ = answer.send(retiring.clean);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Enqueue(job) => self.enqueue(job),
            Message::Sweep => self.sweep = true,
            Message::Attach(handle) => self.attach(handle),
            // What has ended is counted before the next frame is given out.
            Message::Done => {}
            Message::Lost { worker, jobs } => {
                self.forget(worker);
                self.put_back(jobs);
            }
            Message::Retire { deadline, answer } => {
                let fresh = || Retiring { deadline, answers: Vec::new(), clean: true, closing: false };
                self.retiring.get_or_insert_with(fresh).answers.push(answer);
                self.shared.attentive.store(true, Ordering::SeqCst);
            }
        }
    }

    fn enqueue(&mut self, mut job: BoxedJob) {
        job.level = self.policy.level(&job.request);
        if self.policy.bound(job.level).is_some_and(|bound| self.line.level_len(job.level) >= bound) {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            let id = shown_id(&job.request.id);
            return job.answer(Err(InferError::QueueFull { id }));
        }
        job.expires = self.policy.patience(&job.request).map(|patience| job.enqueued + patience);
        if self.policy.preserves_ordering() {
            let (after, next) = oneshot::channel();
            let before = self.last_turn.replace(next).unwrap_or_else(|| oneshot::channel().1);
            job.take_turn(Turn { before, after });
        }
        self.line.push(job);
    }

    fn attach(&mut self, handle: WorkerHandle) {
        let Some(messages) = self.messages.upgrade() else { return };
        let progress = Arc::<Progress>::default();
        let station = Station { messages, progress: Arc::clone(&progress), shared: Arc::clone(&self.shared) };
        if handle.join(&self.served, station) {
            self.group.add(handle, progress);
        } else {
            self.shared.workers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn forget(&mut self, worker: u64) {
        if self.group.remove(worker) {
            self.shared.workers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn put_back(&mut self, jobs: Vec<BoxedJob>) {
        self.shared.queued.fetch_add(jobs.len(), Ordering::SeqCst);
        self.line.push_front(jobs);
    }

    /// Does all that can be done now; answers when to look again if no message comes.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        let statistics = &self.served.statistics;
        let mut left = 0;
        if std::mem::take(&mut self.sweep) {
            left += self.line.sweep(statistics);
            for handle in self.group.handles() {
                handle.sweep();
            }
        }
        left += self.line.expire(now, |level| self.policy.delays_expired(level), statistics);
        self.shared.queued.fetch_sub(left, Ordering::Relaxed);
        let ripe = self.dispatch(now);
        let retire = self.retire(now);
        [ripe, retire, self.line.next_expiry()].into_iter().flatten().min()
    }

    /// Gives frames to workers that have room; answers when the batch that is forming is ripe.
    fn dispatch(&mut self, now: Instant) -> Option<Instant> {
        loop {
            self.count(now);
            if self.line.is_empty() {
                return None;
            }
            let position = match self.group.choose(self.depth, now, Duration::from_nanos(self.call_ns.unwrap_or(0))) {
                Choice::Give(position) => position,
                Choice::Later(ripe) => return Some(ripe),
                Choice::Full => return None,
            };
            let (calls, ripe) = self.form(now);
            if calls.is_empty() {
                return ripe;
            }
            let handle = self.group.begin(position, calls.len(), now);
            if let Err(calls) = handle.execute(calls) {
                // It has ended; that it is lost is on its way here.
                let worker = handle.id;
                self.forget(worker);
                self.put_back(calls.into_iter().flat_map(|batch| batch.jobs).collect());
            }
        }
    }

    /// Counts the frames that workers have answered.
    fn count(&mut self, now: Instant) {
        let done = self.group.count(now);
        if let Some(now) = done.busy.checked_div(done.calls) {
            self.call_ns = Some(self.call_ns.map_or(now, |before| (before * 7 + now) / 8).max(1));
        }
    }

    /// The calls of the next frame.
    fn form(&mut self, now: Instant) -> (Vec<Batch>, Option<Instant>) {
        // A second idle worker takes the next call sooner than this frame would; with a queue policy calls stay in line.
        let share = self.group.idle() <= 1 && self.depth > 1;
        let most = self.call_ns.filter(|_| share).map_or(1, |call| (FRAME_NS / call).clamp(1, MAX_CALLS));
        let mut calls = Vec::new();
        let mut requests = 0;
        while (calls.len() as u64) < most && requests < MAX_REQUESTS {
            let count = match self.policy.form(self.line.iter(), self.line.len(), now) {
                Decision::Run(count) if requests > 0 && requests + count > MAX_REQUESTS => break,
                Decision::Run(count) => count,
                Decision::Wait(ripe) => return (calls, ripe),
            };
            let mut jobs = self.line.take(count);
            self.shared.queued.fetch_sub(jobs.len(), Ordering::Relaxed);
            jobs.retain(|job| !job.is_cancelled());
            requests += jobs.len();
            if !jobs.is_empty() {
                calls.push(Batch { jobs });
            }
        }
        (calls, None)
    }

    fn retire(&mut self, now: Instant) -> Option<Instant> {
        let retiring = self.retiring.as_mut()?;
        if retiring.closing {
            self.cut_off();
            return None;
        }
        let streams = self.shared.streams.load(Ordering::SeqCst);
        let over = self.line.is_empty() && self.group.idle() == self.group.len() && streams == 0;
        if !over && now < retiring.deadline {
            return Some(retiring.deadline);
        }
        retiring.clean = over;
        retiring.closing = true;
        for handle in self.group.handles() {
            handle.close();
        }
        self.cut_off();
        None
    }

    /// Refuses what is still in line.
    fn cut_off(&mut self) {
        let spec = &self.served.spec;
        let jobs = self.line.take(self.line.len());
        self.shared.queued.fetch_sub(jobs.len(), Ordering::Relaxed);
        for job in jobs {
            self.served.statistics.failed(job.arrived);
            job.answer(Err(InferError::Unavailable(format!(
                "model '{}' version {} was unloaded before it could answer this request",
                spec.name, spec.version
            ))));
        }
    }
}
