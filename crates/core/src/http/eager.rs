//! Polls a connection again at once when it has woken itself, as hyper does for every body: the runtime would take that
//! for a task that yields and wake another thread to look after it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use atomic_waker::AtomicWaker;

/// Polls in a row before other tasks get their turn.
const ROW: u32 = 8;

const WAITING: u8 = 0;
const POLLING: u8 = 1;
/// Woken since the last poll began.
const AGAIN: u8 = 2;

#[derive(Debug, Default)]
struct Relay {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Written even where it is there already: the poll that takes it off must see what every waker has done.
        if self.state.fetch_or(AGAIN, Ordering::AcqRel) & POLLING == 0 {
            self.task.wake();
        }
    }
}

/// What polls one future, of which it must be the only poller.
#[derive(Debug)]
pub struct Eager {
    relay: Arc<Relay>,
    waker: Waker,
}

impl Eager {
    /// Nothing polled yet.
    pub fn new() -> Self {
        let relay = Arc::<Relay>::default();
        Self { waker: Waker::from(Arc::clone(&relay)), relay }
    }

    /// Polls until the future has nothing more to do by itself.
    pub fn poll<F: Future>(&self, mut future: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.relay.task.register(context.waker());
        for _ in 0..ROW {
            self.relay.state.swap(POLLING, Ordering::AcqRel);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&self.waker)) {
                return Poll::Ready(output);
            }
            if self.relay.state.swap(WAITING, Ordering::AcqRel) == POLLING {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn polls(eager: &Eager, wakes: usize) -> (Poll<()>, usize, usize, Option<Waker>) {
        let count = Arc::<Count>::default();
        let task = Waker::from(Arc::clone(&count));
        let (mut polls, mut kept) = (0, None);
        let mut future = pin!(poll_fn(|context| {
            polls += 1;
            kept = Some(context.waker().clone());
            if polls <= wakes {
                context.waker().wake_by_ref();
            }
            Poll::Pending
        }));
        let poll = eager.poll(future.as_mut(), &mut Context::from_waker(&task));
        (poll, polls, count.0.load(Ordering::Relaxed), kept)
    }

    #[test]
    fn a_future_that_wakes_itself_is_polled_again_at_once() {
        let (poll, polls, wakes, _) = polls(&Eager::new(), 2);
        assert_eq!((poll, polls, wakes), (Poll::Pending, 3, 0));
    }

    #[test]
    fn one_that_never_rests_lets_others_run() {
        let (poll, polls, wakes, _) = polls(&Eager::new(), usize::MAX);
        assert_eq!((poll, polls, wakes), (Poll::Pending, ROW as usize, 1));
    }

    #[test]
    fn a_wake_from_outside_reaches_the_task() {
        let eager = Eager::new();
        let (_, _, _, waker) = polls(&eager, 0);
        let count = Arc::<Count>::default();
        let task = Waker::from(Arc::clone(&count));
        let _ = eager.poll(pin!(std::future::pending::<()>()), &mut Context::from_waker(&task));
        waker.expect("it was polled").wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
