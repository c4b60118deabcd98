//! The workers of one model version as its scheduler sees them: who is idle, who has room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::WorkerHandle;
use super::calls::FrameDone;
use crate::scheduler::station::Progress;

/// How long before a worker is expected back its next frame is given out: time enough to reach it. Given out earlier it
/// would take requests from a larger batch.
const LEAD: Duration = Duration::from_micros(200);

#[derive(Debug)]
struct Member {
    handle: WorkerHandle,
    /// Calls of each frame in flight, in their order.
    frames: VecDeque<u32>,
    /// When the first of them was given out or its turn came.
    since: Instant,
    progress: Arc<Progress>,
}

/// Whether a frame can be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// To the worker at this position.
    Give(usize),
    /// Not before then, or a worker's reply.
    Later(Instant),
    /// Not before a worker's reply.
    Full,
}

/// Live workers and what each has in flight.
#[derive(Debug, Default)]
pub struct Group {
    members: Vec<Member>,
}

impl Group {
    /// Adds a worker with nothing in flight.
    pub fn add(&mut self, handle: WorkerHandle, progress: Arc<Progress>) {
        self.members.push(Member { handle, frames: VecDeque::new(), since: Instant::now(), progress });
    }

    /// Takes a worker out; answers whether it was there.
    pub fn remove(&mut self, worker: u64) -> bool {
        let before = self.members.len();
        self.members.retain(|member| member.handle.id != worker);
        self.members.len() < before
    }

    /// How many live.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many have nothing in flight.
    pub fn idle(&self) -> usize {
        self.members.iter().filter(|member| member.frames.is_empty()).count()
    }

    /// The worker with the least in flight, if that is below `depth`: an idle one at once, one that runs a frame
    /// of calls that take `call` each shortly before it will be back, so that neither it waits nor a batch stays small.
    pub fn choose(&self, depth: usize, now: Instant, call: Duration) -> Choice {
        let first = self.members.iter().enumerate().min_by_key(|(_, member)| (member.frames.len(), member.since));
        let Some((position, member)) = first.filter(|(_, member)| member.frames.len() < depth) else {
            return Choice::Full;
        };
        let expected = member.frames.front().map_or(Duration::ZERO, |calls| call * *calls);
        let ripe = member.since + expected.saturating_sub(LEAD);
        if expected < 2 * LEAD || now >= ripe {
            return Choice::Give(position);
        }
        Choice::Later(ripe)
    }

    /// Counts one more frame of so many calls in flight and answers the way to the worker.
    pub fn begin(&mut self, position: usize, calls: usize, now: Instant) -> &WorkerHandle {
        let member = &mut self.members[position];
        if member.frames.is_empty() {
            member.since = now;
        }
        member.frames.push_back(calls as u32);
        &member.handle
    }

    /// Takes the frames that were answered out of the count; answers their calls.
    pub fn count(&mut self, now: Instant) -> FrameDone {
        let mut all = FrameDone::default();
        for member in &mut self.members {
            let (frames, done) = member.progress.take();
            if frames > 0 {
                member.frames.drain(..member.frames.len().min(frames as usize));
                member.since = now;
            }
            all.calls += done.calls;
            all.busy += done.busy;
        }
        all
    }

    /// All workers.
    pub fn handles(&self) -> impl Iterator<Item = &WorkerHandle> {
        self.members.iter().map(|member| &member.handle)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::sync::mpsc;

    use super::*;

    fn group(workers: u64) -> Group {
        let mut group = Group::default();
        for id in 0..workers {
            let (owner, _) = mpsc::unbounded_channel();
            let taken = Arc::<AtomicBool>::default();
            group.add(WorkerHandle { id, model: "m".into(), version: 1, owner, taken }, Arc::default());
        }
        group
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_worker_comes_first_and_then_the_one_that_is_back_soonest() {
        let mut group = group(2);
        let (start, call) = (Instant::now(), Duration::from_millis(1));
        assert_eq!(group.choose(2, start, call), Choice::Give(0));
        group.begin(0, 1, start);
        assert_eq!(group.choose(2, start, call), Choice::Give(1));
        let later = start + Duration::from_micros(300);
        group.begin(1, 1, later);
        let ripe = start + Duration::from_micros(800);
        assert_eq!(group.choose(2, later, call), Choice::Later(ripe));
        assert_eq!(group.choose(2, ripe, call), Choice::Give(0));
        group.begin(0, 1, ripe);
        assert_eq!(group.choose(2, ripe, call), Choice::Later(later + Duration::from_micros(800)));
        group.begin(1, 1, ripe);
        assert_eq!(group.choose(2, ripe, call), Choice::Full);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_of_short_calls_is_followed_at_once() {
        let mut group = group(1);
        let now = Instant::now();
        group.begin(0, 3, now);
        assert_eq!(group.choose(2, now, Duration::from_micros(100)), Choice::Give(0));
        assert_eq!(group.choose(1, now, Duration::from_micros(100)), Choice::Full);
    }
}
