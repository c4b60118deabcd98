//! The dynamic batcher: merges waiting requests by the exact rules of the features page, section 5.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::queue::{Decision, Policy, Waiting};
use crate::request::InferRequest;
use crate::spec::{ModelSpec, QueuePolicy, SchedulerSpec};
use crate::statistics::reasons::Alone;

/// Requests of one call at most, so that two calls fit into a worker's tables and a call into a frame.
pub const MAX_REQUESTS: usize = 512;

/// The same for decoupled models, whose calls name each request's tensors by themselves.
const MAX_LISTED: usize = 64;

/// A queue bound below which the line, and not a worker's channel, has to hold the waiting requests.
const DEFAULT_QUEUE_SIZE: usize = 65_536;

/// Without a queue policy nobody is refused for waiting.
const PATIENT: QueuePolicy = QueuePolicy {
    level: 0,
    max_queue_size: None,
    default_timeout_us: 0,
    allow_timeout_override: false,
    timeout_delays: false,
};

/// The dynamic batcher of one model version.
#[derive(Clone, Debug)]
pub struct Dynamic {
    max_batch_size: u32,
    preferred: Vec<u32>,
    delay: Duration,
    preserve_ordering: bool,
    policy: QueuePolicy,
    levels: u64,
    default_level: u64,
    policies: BTreeMap<u64, QueuePolicy>,
    hold_until: usize,
    depth: usize,
    alone: Alone,
    max_requests: usize,
}

impl Dynamic {
    /// The batcher that a specification asks for; without its block, one that never waits.
    pub fn new(spec: &ModelSpec) -> Self {
        let max_batch_size = spec.max_batch_size.max(1);
        let mut batcher = Self {
            max_batch_size,
            preferred: vec![max_batch_size],
            delay: Duration::ZERO,
            preserve_ordering: false,
            policy: PATIENT,
            levels: 0,
            default_level: 0,
            policies: BTreeMap::new(),
            hold_until: 0,
            depth: 2,
            alone: Alone::default(),
            max_requests: if spec.decoupled { MAX_LISTED } else { MAX_REQUESTS },
        };
        if let SchedulerSpec::Dynamic {
            preferred_batch_sizes,
            max_queue_delay_us,
            preserve_ordering,
            default_timeout_us,
            allow_timeout_override,
            timeout_delays,
            priority_levels,
            default_priority_level,
            priority_policies,
            level_queue_size,
            hold_until,
        } = &spec.scheduler
        {
            if !preferred_batch_sizes.is_empty() {
                batcher.preferred.clone_from(preferred_batch_sizes);
            }
            batcher.delay = Duration::from_micros(*max_queue_delay_us);
            batcher.preserve_ordering = *preserve_ordering;
            batcher.policy = QueuePolicy {
                level: 0,
                max_queue_size: *level_queue_size,
                default_timeout_us: *default_timeout_us,
                allow_timeout_override: *allow_timeout_override,
                timeout_delays: *timeout_delays,
            };
            batcher.levels = *priority_levels;
            batcher.default_level = *default_priority_level;
            batcher.policies = priority_policies.iter().map(|policy| (policy.level, *policy)).collect();
            batcher.hold_until = *hold_until;
            // With a queue policy a request leaves the line only for a waiting worker, so that bounds and timeouts bite.
            let bound = *default_timeout_us > 0 || spec.max_queue_size < DEFAULT_QUEUE_SIZE;
            batcher.depth = if bound || *priority_levels > 0 { 1 } else { 2 };
        }
        batcher
    }

    fn policy(&self, level: u64) -> &QueuePolicy {
        self.policies.get(&level).unwrap_or(&self.policy)
    }

    fn largest_preferred(&self) -> u32 {
        self.preferred.iter().copied().max().unwrap_or(self.max_batch_size)
    }

    /// What would keep a call of one request from being larger.
    fn why(&self, walk: &Walk) -> Alone {
        match walk.stopped {
            _ if self.max_batch_size == 1 => Alone::NoBatching,
            _ if walk.first >= self.max_batch_size => Alone::Full,
            _ if walk.preferred == Some(1) => Alone::Preferred,
            Some(reason) => reason,
            None => Alone::NobodyElse,
        }
    }

    /// Rule 2: walks the line and answers what it met.
    fn walk<'a, T: Waiting + 'a>(&self, line: impl Iterator<Item = &'a T>) -> Walk {
        let mut walk = Walk::default();
        let mut first: Option<&T> = None;
        for job in line {
            let head = *first.get_or_insert(job);
            if walk.requests > 0 {
                let size = walk.size.saturating_add(job.weight());
                if size > self.max_batch_size || walk.requests == self.max_requests {
                    walk.stopped = Some(Alone::TooLarge);
                    break;
                }
                if !job.matches(head) {
                    walk.stopped = Some(Alone::Shape);
                    break;
                }
                if size > self.largest_preferred() && walk.preferred.is_none() {
                    walk.preferred = Some(walk.requests);
                }
            }
            walk.size = walk.size.saturating_add(job.weight());
            if walk.requests == 0 {
                walk.first = walk.size;
            }
            walk.requests += 1;
            walk.oldest = Some(walk.oldest.map_or(job.enqueued(), |oldest| oldest.min(job.enqueued())));
            if self.preferred.contains(&walk.size) {
                walk.preferred = Some(walk.requests);
            }
        }
        walk
    }
}

#[derive(Debug, Default)]
struct Walk {
    requests: usize,
    size: u32,
    /// Size of the first request.
    first: u32,
    /// Requests that make up the largest preferred size met.
    preferred: Option<usize>,
    /// What ended the walk before the line's end.
    stopped: Option<Alone>,
    oldest: Option<Instant>,
}

impl Policy for Dynamic {
    fn form<'a, T: Waiting + 'a>(
        &mut self,
        line: impl Iterator<Item = &'a T>,
        length: usize,
        now: Instant,
    ) -> Decision {
        if length == 0 || length < self.hold_until {
            return Decision::Wait(None);
        }
        self.hold_until = 0;
        let walk = self.walk(line);
        self.alone = self.why(&walk);
        let Some(oldest) = walk.oldest else { return Decision::Wait(None) };
        let ripe = oldest + self.delay;
        if let Some(requests) = walk.preferred.filter(|_| self.delay.is_zero() || now < ripe) {
            return Decision::Run(requests); // rule 3
        }
        if walk.stopped.is_some() || walk.size >= self.largest_preferred() || now >= ripe {
            return Decision::Run(walk.requests); // rule 4
        }
        Decision::Wait(Some(ripe)) // rule 5
    }

    fn why_alone(&self) -> Alone {
        self.alone
    }

    fn level(&self, request: &InferRequest) -> u64 {
        if (1..=self.levels).contains(&request.priority) { request.priority } else { self.default_level }
    }

    fn bound(&self, level: u64) -> Option<usize> {
        self.policy(level).max_queue_size
    }

    fn patience(&self, request: &InferRequest) -> Option<Duration> {
        let policy = self.policy(self.level(request));
        if policy.default_timeout_us == 0 {
            return None;
        }
        let own = request.timeout_us;
        let shorter = policy.allow_timeout_override && own > 0 && own < policy.default_timeout_us;
        Some(Duration::from_micros(if shorter { own } else { policy.default_timeout_us }))
    }

    fn delays_expired(&self, level: u64) -> bool {
        self.policy(level).timeout_delays
    }

    fn preserves_ordering(&self) -> bool {
        self.preserve_ordering
    }

    fn depth(&self) -> usize {
        self.depth
    }
}

#[cfg(test)]
#[path = "dynamic_tests.rs"]
mod tests;
