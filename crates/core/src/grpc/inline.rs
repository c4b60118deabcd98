//! Runs the calls of a connection in the connection's own task: bytes, windows and answers that they hand each other
//! wake no other thread, and no core reads what another has just written.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use atomic_waker::AtomicWaker;
use hyper::rt::Executor;
use slab::Slab;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the calls that a connection begins.
#[derive(Clone, Debug, Default)]
pub(super) struct Door(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// The connection's task.
    task: AtomicWaker,
}

#[derive(Default)]
struct Waiting {
    fresh: Vec<Boxed>,
    /// Calls that have something to do.
    woken: Vec<usize>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Shared")
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Door {
    fn execute(&self, call: F) {
        self.0.waiting().fresh.push(Box::pin(call));
        self.0.task.wake();
    }
}

/// What a call is woken by.
struct Bell {
    /// Its call's place; a late ring may reach whoever has that place by then, which only looks once more.
    number: usize,
    /// Whether it is on the list already.
    rung: AtomicBool,
    shared: Arc<Shared>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.shared.waiting().woken.push(self.number);
            self.shared.task.wake();
        }
    }
}

struct Call {
    future: Boxed,
    bell: Arc<Bell>,
    waker: Waker,
}

/// The calls that run. What is dropped with it is reset.
pub(super) struct Calls {
    door: Door,
    running: Slab<Call>,
    /// Room for the list that is gone through.
    turn: Vec<usize>,
}

impl Calls {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { door: Door::default(), running: Slab::new(), turn: Vec::new() }
    }

    /// Where the connection puts its calls.
    pub(super) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Polls every call that is new or was woken, once.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) {
        let shared = Arc::clone(&self.door.0);
        shared.task.register(context.waker());
        let mut waiting = shared.waiting();
        let fresh = std::mem::take(&mut waiting.fresh);
        std::mem::swap(&mut waiting.woken, &mut self.turn);
        drop(waiting);
        for future in fresh {
            let place = self.running.vacant_entry();
            let number = place.key();
            let bell = Arc::new(Bell { number, rung: AtomicBool::new(true), shared: Arc::clone(&shared) });
            let waker = Waker::from(Arc::clone(&bell));
            place.insert(Call { future, bell, waker });
            self.turn.push(number);
        }
        for number in self.turn.drain(..) {
            let Some(call) = self.running.get_mut(number) else { continue };
            // Not a store: what it finds must be seen before the poll looks, or a ring that comes now is lost, for it
            // finds the bell rung and the poll does not find why.
            call.bell.rung.swap(false, Ordering::AcqRel);
            let future = call.future.as_mut();
            // A panic ends its own call, as it would in a task of its own.
            let poll = catch_unwind(AssertUnwindSafe(|| future.poll(&mut Context::from_waker(&call.waker))));
            if poll.map_or(true, |poll| poll.is_ready()) {
                self.running.remove(number);
            }
        }
    }
}

/// Polls a connection and its calls.
pub(super) fn poll<C: Future>(
    connection: Pin<&mut C>,
    calls: &mut Calls,
    context: &mut Context<'_>,
) -> Poll<C::Output> {
    let poll = connection.poll(context);
    if poll.is_pending() {
        calls.poll(context);
    }
    poll
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    #[test]
    fn only_who_is_woken_is_polled() {
        let (task, polls) = (Arc::<Count>::default(), Arc::<Count>::default());
        let waker = Waker::from(Arc::clone(&task));
        let mut context = Context::from_waker(&waker);
        let mut calls = Calls::new();
        let begin = || {
            let (sender, receiver) = oneshot::channel::<()>();
            let polls = Arc::clone(&polls);
            calls.door().execute(async move {
                let mut receiver = pin!(receiver);
                let polled = std::future::poll_fn(|context| {
                    polls.0.fetch_add(1, Ordering::Relaxed);
                    receiver.as_mut().poll(context)
                });
                let _ = polled.await;
            });
            sender
        };
        let (one, two) = (begin(), begin());
        calls.poll(&mut context);
        assert_eq!((polls.take(), task.take()), (2, 0));
        calls.poll(&mut context);
        assert_eq!(polls.take(), 0);
        std::thread::spawn(move || one.send(())).join().unwrap().unwrap();
        assert_eq!(task.take(), 1, "the connection's task is woken");
        calls.poll(&mut context);
        assert_eq!((polls.take(), calls.running.len()), (1, 1));
        drop(calls);
        assert!(two.is_closed(), "a call ends with its connection");
    }

    #[test]
    fn a_call_may_begin_and_wake_while_calls_are_polled() {
        let task = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&task));
        let mut context = Context::from_waker(&waker);
        let mut calls = Calls::new();
        let door = calls.door();
        let (sender, receiver) = oneshot::channel();
        calls.door().execute(async move {
            door.execute(async move { sender.send(7).unwrap() });
            assert_eq!(receiver.await, Ok(7));
        });
        let mut turns = 0;
        loop {
            calls.poll(&mut context);
            if task.take() == 0 {
                break;
            }
            turns += 1;
        }
        assert_eq!((calls.running.len(), turns), (0, 2));
    }

    #[test]
    fn a_panic_ends_its_own_call() {
        let mut calls = Calls::new();
        let (sender, mut receiver) = oneshot::channel::<()>();
        calls.door().execute(async move {
            let _sender = sender;
            panic!("of one call");
        });
        calls.door().execute(std::future::pending());
        calls.poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(calls.running.len(), 1);
        assert_eq!(receiver.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn a_connection_that_ends_polls_no_call() {
        let mut calls = Calls::new();
        calls.door().execute(async { panic!("polled after the end") });
        let mut context = Context::from_waker(Waker::noop());
        assert!(poll(pin!(async { 1 }), &mut calls, &mut context).is_ready());
    }
}
