//! The workers of one model version as its scheduler sees them: who is idle, who has room.

use std::sync::Arc;

use super::WorkerHandle;
use super::calls::FrameDone;
use crate::scheduler::station::Progress;

#[derive(Debug)]
struct Member {
    handle: WorkerHandle,
    in_flight: usize,
    progress: Arc<Progress>,
}

/// Live workers and what each has in flight.
#[derive(Debug, Default)]
pub struct Group {
    members: Vec<Member>,
}

impl Group {
    /// Adds a worker with nothing in flight.
    pub fn add(&mut self, handle: WorkerHandle, progress: Arc<Progress>) {
        self.members.push(Member { handle, in_flight: 0, progress });
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
        self.members.iter().filter(|member| member.in_flight == 0).count()
    }

    /// The position of the worker with the least in flight, if that is below `depth`.
    pub fn choose(&self, depth: usize) -> Option<usize> {
        let (position, member) = self.members.iter().enumerate().min_by_key(|(_, member)| member.in_flight)?;
        (member.in_flight < depth).then_some(position)
    }

    /// Counts one more frame in flight and answers the way to the worker.
    pub fn begin(&mut self, position: usize) -> &WorkerHandle {
        let member = &mut self.members[position];
        member.in_flight += 1;
        &member.handle
    }

    /// Takes the frames that were answered out of the count; answers their calls.
    pub fn count(&mut self) -> FrameDone {
        let mut all = FrameDone::default();
        for member in &mut self.members {
            let (frames, done) = member.progress.take();
            member.in_flight = member.in_flight.saturating_sub(frames as usize);
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
