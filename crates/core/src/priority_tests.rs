//! Priorities: strict order, a policy for each level. Time is paused.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::tests::{bytes, dynamic, infer, outcome, request, serving, settle};
use super::*;
use crate::instance::fake_worker::FakeWorker;
use crate::scheduler::Outcome;

fn policy(level: u64, change: &Value) -> Value {
    let mut policy = json!({
        "level": level, "max_queue_size": null, "default_timeout_us": 0, "allow_timeout_override": false, "timeout_delays": false,
    });
    policy.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    policy
}

/// Three levels, the second by default, one request a call; the worker is busy with one.
async fn busy(change: &Value) -> (Arc<Engine>, FakeWorker, JoinHandle<Outcome>, crate::instance::frame::Call) {
    let mut scheduler = json!({
        "preferred_batch_sizes": [1], "priority_levels": 3, "default_priority_level": 2, "priority_policies": [],
    });
    scheduler.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let (engine, mut worker) = serving(dynamic(scheduler));
    let first = ask(&engine, 0, 0).await;
    let call = worker.call().await;
    (engine, worker, first, call)
}

/// A request of one row that holds its number.
async fn ask(engine: &Arc<Engine>, priority: u64, number: i32) -> JoinHandle<Outcome> {
    let waiting = infer(engine, InferRequest { priority, ..request(&[number, number]) });
    settle().await;
    waiting
}

async fn order(worker: &mut FakeWorker, mut call: crate::instance::frame::Call, count: usize) -> Vec<i32> {
    let mut seen = Vec::new();
    for _ in 0..count {
        worker.reply(&[worker.echo(&call)]);
        call = worker.call().await;
        let data = worker.read(call.entries[0].range);
        seen.push(i32::from_le_bytes(*data.first_chunk().unwrap()));
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn the_highest_level_is_served_first_and_none_means_the_default() {
    let (engine, mut worker, _first, call) = busy(&json!({})).await;
    let mut waiting = Vec::new();
    for (number, priority) in (1..).zip([3, 2, 0, 9, 1, 3, 1]) {
        waiting.push(ask(&engine, priority, number).await);
    }
    assert_eq!(order(&mut worker, call, 7).await, [5, 7, 2, 3, 4, 1, 6]);
}

#[tokio::test(start_paused = true)]
async fn batches_take_requests_of_several_levels_in_their_order() {
    let (engine, mut worker, _first, call) = busy(&json!({"preferred_batch_sizes": [8]})).await;
    let mut waiting = Vec::new();
    for (number, priority) in (1..).zip([3, 1, 2]) {
        waiting.push(ask(&engine, priority, number).await);
    }
    worker.reply(&[worker.echo(&call)]);
    let call = worker.call().await;
    assert_eq!(worker.read(call.entries[0].range), bytes(&[2, 2, 3, 3, 1, 1]));
}

#[tokio::test(start_paused = true)]
async fn each_level_has_its_own_bound() {
    let policies = json!([policy(1, &json!({"max_queue_size": 1}))]);
    let (engine, _worker, _first, _call) = busy(&json!({"priority_policies": policies, "level_queue_size": 2})).await;
    let mut waiting = Vec::new();
    for (number, priority) in (1..).zip([1, 2, 2, 3, 3]) {
        waiting.push(ask(&engine, priority, number).await);
    }
    for priority in [1, 2, 3] {
        let refused = outcome(ask(&engine, priority, 9).await).await.unwrap_err();
        assert_eq!(refused.to_string(), "[request id: <id_unknown>] Exceeds maximum queue size");
    }
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    waiting.remove(0).abort();
    settle().await;
    assert!(!ask(&engine, 1, 8).await.is_finished(), "a cancelled request makes room in its level");
}

#[tokio::test(start_paused = true)]
async fn each_level_has_its_own_timeout_and_action() {
    let policies = json!([
        policy(1, &json!({"default_timeout_us": 100_000})),
        policy(2, &json!({"default_timeout_us": 100_000, "timeout_delays": true})),
    ]);
    let (engine, mut worker, _first, call) = busy(&json!({"priority_policies": policies})).await;
    let refused = ask(&engine, 1, 1).await;
    let late = ask(&engine, 2, 2).await;
    let low = ask(&engine, 3, 3).await;
    tokio::time::advance(Duration::from_millis(150)).await;
    settle().await;
    assert!(matches!(outcome(refused).await, Err(InferError::QueueTimeout { .. })));
    let prompt = ask(&engine, 2, 4).await;
    assert_eq!(order(&mut worker, call, 3).await, [4, 2, 3], "behind its own level, before the lower one");
    drop((late, low, prompt));
}
