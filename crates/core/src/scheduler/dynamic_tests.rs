//! The batcher's rules as a table: what runs, or until when it waits.

use super::*;

struct Row {
    weight: u32,
    shape: u32,
    enqueued: Instant,
}

impl Waiting for Row {
    fn weight(&self) -> u32 {
        self.weight
    }
    fn enqueued(&self) -> Instant {
        self.enqueued
    }
    fn matches(&self, other: &Self) -> bool {
        self.shape == other.shape
    }
}

const MS: Duration = Duration::from_millis(1);

fn batcher(max: u32, preferred: &[u32], delay: Duration) -> Dynamic {
    Dynamic {
        max_batch_size: max,
        preferred: preferred.to_vec(),
        delay,
        preserve_ordering: false,
        policy: PATIENT,
        levels: 0,
        default_level: 0,
        policies: BTreeMap::new(),
        hold_until: 0,
        depth: 2,
        alone: Alone::default(),
        max_requests: MAX_REQUESTS,
    }
}

/// Requests of these weights, all of one shape, the oldest waiting for `waited`.
fn decide(batcher: &mut Dynamic, weights: &[u32], waited: Duration) -> Decision {
    let shapes: Vec<_> = weights.iter().map(|weight| (*weight, 0)).collect();
    decide_shapes(batcher, &shapes, waited)
}

fn decide_shapes(batcher: &mut Dynamic, rows: &[(u32, u32)], waited: Duration) -> Decision {
    let start = Instant::now();
    let line: Vec<_> = rows.iter().map(|&(weight, shape)| Row { weight, shape, enqueued: start }).collect();
    match batcher.form(line.iter(), line.len(), start + waited) {
        Decision::Wait(Some(until)) => {
            assert_eq!(until, start + batcher.delay, "waits for the oldest request's delay");
            Decision::Wait(None)
        }
        decision => decision,
    }
}

const WAIT: Decision = Decision::Wait(None);

/// Largest batch, preferred sizes, delay, weights, how long the oldest waited, decision.
type Case<'a> = (u32, &'a [u32], Duration, &'a [u32], Duration, Decision);

#[tokio::test(start_paused = true)]
async fn the_rules_decide_as_the_table_says() {
    let zero = Duration::ZERO;
    let cases: &[Case] = &[
        // Nothing waits.
        (8, &[8], zero, &[], zero, WAIT),
        // Delay 0: what is there runs.
        (8, &[8], zero, &[1], zero, Decision::Run(1)),
        (8, &[8], zero, &[1; 8], zero, Decision::Run(8)),
        (8, &[8], zero, &[1; 20], zero, Decision::Run(8)),
        // Delay 0 and a preferred size met: exactly that size (rule 3).
        (8, &[4], zero, &[1; 6], zero, Decision::Run(4)),
        (8, &[2, 4], zero, &[1; 3], zero, Decision::Run(2)),
        // A delay lets a lone request wait, until it is over.
        (8, &[8], MS, &[1; 3], zero, WAIT),
        (8, &[8], MS, &[1; 3], MS, Decision::Run(3)),
        // A preferred size within the delay (rule 3), not cut to it after the delay (rule 4).
        (8, &[4], MS, &[1; 6], zero, Decision::Run(4)),
        (8, &[4], MS, &[1; 6], MS, Decision::Run(6)),
        (8, &[2, 6], MS, &[1; 5], zero, Decision::Run(2)),
        // Rows count, not requests; a preferred size may be jumped over.
        (8, &[4], MS, &[3, 3], zero, Decision::Run(1)),
        (8, &[4, 6], MS, &[3, 3], zero, Decision::Run(2)),
        (8, &[6], MS, &[4, 1], zero, WAIT),
        // The walk stops at max_batch_size: all that was gathered (rule 4).
        (8, &[8], MS, &[5, 5], zero, Decision::Run(1)),
        (8, &[8], MS, &[3, 3, 3], zero, Decision::Run(2)),
        (8, &[8], MS, &[8, 1], zero, Decision::Run(1)),
        (4, &[8], MS, &[9], zero, Decision::Run(1)),
        // Gathered as much as the largest preferred size.
        (16, &[4], MS, &[5], zero, Decision::Run(1)),
    ];
    for (number, (max, preferred, delay, weights, waited, decision)) in cases.iter().enumerate() {
        let got = decide(&mut batcher(*max, preferred, *delay), weights, *waited);
        assert_eq!(got, *decision, "case {number}: {weights:?} after {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_shapes_end_the_batch() {
    let mut eight = batcher(8, &[8], MS);
    assert_eq!(decide_shapes(&mut eight, &[(1, 0), (1, 0), (1, 7), (1, 0)], Duration::ZERO), Decision::Run(2));
    assert_eq!(decide_shapes(&mut eight, &[(1, 0), (1, 0)], Duration::ZERO), WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_call_holds_no_more_requests_than_a_frame() {
    let mut large = batcher(4096, &[4096], MS);
    assert_eq!(decide(&mut large, &[1; 600], Duration::ZERO), Decision::Run(MAX_REQUESTS));
}

#[tokio::test(start_paused = true)]
async fn a_held_batcher_forms_nothing_until_the_line_is_long_enough_once() {
    let mut held = batcher(8, &[8], Duration::ZERO);
    held.hold_until = 3;
    assert_eq!(decide(&mut held, &[1; 2], MS), WAIT);
    assert_eq!(decide(&mut held, &[1; 3], MS), Decision::Run(3));
    assert_eq!(decide(&mut held, &[1], MS), Decision::Run(1));
}

fn request(timeout_us: u64) -> InferRequest {
    InferRequest {
        model: "m".into(),
        version: None,
        id: String::new(),
        parameters: Vec::new(),
        timeout_us,
        deadline: None,
        priority: 0,
        inputs: Vec::new(),
        outputs: Vec::new(),
        reserved: 0,
        traceparent: None,
    }
}

#[test]
fn a_request_may_only_shorten_the_timeout_and_only_if_allowed() {
    let mut batcher = batcher(8, &[8], MS);
    assert_eq!(batcher.patience(&request(5)), None, "default 0 means no timeout at all");
    batcher.policy.default_timeout_us = 1000;
    assert_eq!(batcher.patience(&request(5)), Some(MS));
    batcher.policy.allow_timeout_override = true;
    assert_eq!(batcher.patience(&request(5)), Some(Duration::from_micros(5)));
    assert_eq!(batcher.patience(&request(5000)), Some(MS));
    assert_eq!(batcher.patience(&request(0)), Some(MS));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_runs_alone_says_why() {
    let why = |mut batcher: Dynamic, rows: &[(u32, u32)]| {
        assert_eq!(decide_shapes(&mut batcher, rows, MS), Decision::Run(1), "{rows:?}");
        batcher.why_alone()
    };
    let of_eight = || batcher(8, &[8], Duration::ZERO);
    assert_eq!(why(of_eight(), &[(1, 0)]), Alone::NobodyElse);
    assert_eq!(why(of_eight(), &[(8, 0), (1, 0)]), Alone::Full);
    assert_eq!(why(of_eight(), &[(5, 0), (4, 0)]), Alone::TooLarge);
    assert_eq!(why(of_eight(), &[(1, 0), (1, 1)]), Alone::Shape);
    assert_eq!(why(batcher(8, &[1], Duration::ZERO), &[(1, 0), (8, 0)]), Alone::Preferred);
    assert_eq!(why(batcher(1, &[1], Duration::ZERO), &[(1, 0), (1, 0)]), Alone::NoBatching);
}

#[test]
fn a_level_has_its_own_policy_or_the_default_one() {
    let mut batcher = batcher(8, &[8], MS);
    batcher.levels = 3;
    batcher.default_level = 2;
    batcher.policies.insert(1, QueuePolicy { default_timeout_us: 7, timeout_delays: true, ..PATIENT });
    let request = |priority| InferRequest { priority, ..request(0) };
    let levels: Vec<_> = [0, 1, 2, 3, 4, u64::MAX].map(|priority| batcher.level(&request(priority))).into();
    assert_eq!(levels, [2, 1, 2, 3, 2, 2]);
    assert_eq!(batcher.patience(&request(1)), Some(Duration::from_micros(7)));
    assert_eq!(batcher.patience(&request(3)), None);
    assert!(batcher.delays_expired(1) && !batcher.delays_expired(2));
}
