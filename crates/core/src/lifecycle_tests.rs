//! Publishing, replacing, retiring and draining; waiting, its bounds and its order. Time is paused.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::tests::{count, dynamic, engine, infer, infer_now, open, outcome, request, serving, settle, spec, values};
use super::*;
use crate::Code;
use crate::spec::IndexRow;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_lone_request_leaves_after_the_queue_delay() {
    let (engine, mut worker) = serving(dynamic(json!({"max_queue_delay_us": 100_000})));
    let start = Instant::now();
    let one = infer(&engine, request(&[1, 1]));
    let call = worker.call().await;
    assert!((100..105).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    worker.reply(&[worker.echo(&call)]);
    assert_eq!(values(one).await, [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_does_not_wait() {
    let (engine, mut worker) = serving(dynamic(json!({"max_queue_delay_us": 100_000})));
    let start = Instant::now();
    let waiting = infer(&engine, request(&[5; 16]));
    let call = worker.call().await;
    assert_eq!((call.rows, start.elapsed()), (8, Duration::ZERO));
    worker.reply(&[worker.echo(&call)]);
    assert_eq!(values(waiting).await, [5; 16]);
}

/// E-queue.
#[tokio::test(start_paused = true)]
async fn an_expired_request_is_refused_when_it_expires() {
    let policy = json!({"default_timeout_us": 500_000, "allow_timeout_override": true});
    let (engine, mut worker) = serving(dynamic(policy));
    let running = infer_now(&engine, &[1, 1]).await;
    let call = worker.call().await;
    let start = Instant::now();
    let mut short = request(&[2, 2]);
    short.timeout_us = 200_000;
    short.id = "s".into();
    let long = infer_now(&engine, &[3, 3]).await;
    let short = infer(&engine, short);
    let error = outcome(short).await.unwrap_err();
    assert_eq!(error.to_string(), "[request id: s] Request timeout expired");
    assert_eq!((error.code(), start.elapsed().as_millis() / 10), (Code::Unavailable, 20));
    assert!(outcome(long).await.is_err());
    assert_eq!(start.elapsed().as_millis() / 10, 50);
    worker.reply(&[worker.echo(&call)]);
    assert_eq!(values(running).await, [1, 1]);
    assert_eq!(count(&engine), (1, 1, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_request_is_served_after_all_others() {
    let policy = json!({"default_timeout_us": 100_000, "timeout_delays": true, "preferred_batch_sizes": [1]});
    let (engine, mut worker) = serving(dynamic(policy));
    let first = infer_now(&engine, &[1, 1]).await;
    let call = worker.call().await;
    let late = infer_now(&engine, &[2, 2]).await;
    tokio::time::advance(Duration::from_millis(150)).await;
    let prompt = infer_now(&engine, &[3, 3]).await;
    worker.reply(&[worker.echo(&call)]);
    for expected in [[3, 3], [2, 2]] {
        let call = worker.call().await;
        assert_eq!(worker.read(call.entries[0].range), super::tests::bytes(&expected));
        worker.reply(&[worker.echo(&call)]);
    }
    assert_eq!(values(first).await, [1, 1]);
    assert_eq!(values(prompt).await, [3, 3]);
    assert_eq!(values(late).await, [2, 2]);
}

/// E-queue, and W65: what never waited did not fail.
#[tokio::test]
async fn a_full_queue_refuses_at_the_door() {
    let engine = engine();
    engine.publish(spec(&[], json!({"max_queue_size": 2}))).unwrap();
    let one = infer_now(&engine, &[1, 1]).await;
    let _two = infer_now(&engine, &[2, 2]).await;
    let refused = engine.infer(request(&[3, 3])).await.unwrap_err();
    assert_eq!(refused.to_string(), "[request id: <id_unknown>] Exceeds maximum queue size");
    assert_eq!(count(&engine).3, 0, "refused before queueing is no failure");
    one.abort();
    settle().await;
    let three = infer_now(&engine, &[3, 3]).await;
    assert!(!three.is_finished(), "a cancelled request makes room");
}

#[tokio::test]
async fn responses_keep_the_order_of_their_requests_where_asked_for() {
    let engine = engine();
    let (mut one, mut two) = (open(&engine), open(&engine));
    engine.publish(spec(&[&one, &two], dynamic(json!({"preserve_ordering": true})))).unwrap();
    let first = infer_now(&engine, &[1, 1]).await;
    let second = infer_now(&engine, &[2, 2]).await;
    let call = two.call().await;
    two.reply(&[two.echo(&call)]);
    settle().await;
    settle().await;
    assert!(!second.is_finished());
    let call = one.call().await;
    one.reply(&[one.echo(&call)]);
    assert_eq!(values(first).await, [1, 1]);
    assert_eq!(values(second).await, [2, 2]);
}

#[tokio::test]
async fn a_replaced_version_finishes_what_it_has() {
    let (engine, mut old) = serving(json!({}));
    let before = infer_now(&engine, &[1, 1]).await;
    let call = old.call().await;
    let mut new = open(&engine);
    engine.publish(spec(&[&new], json!({}))).unwrap();
    let after = infer_now(&engine, &[2, 2]).await;
    let fresh = new.call().await;
    new.reply(&[new.echo(&fresh)]);
    assert_eq!(values(after).await, [2, 2]);
    let retiring = {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.retire_replaced("m", SECOND).await })
    };
    settle().await;
    assert!(!retiring.is_finished());
    old.reply(&[old.echo(&call)]);
    assert_eq!(values(before).await, [1, 1]);
    assert!(retiring.await.unwrap());
    assert!(old.frame().await.is_none(), "its worker is closed");
    assert!(engine.retire_replaced("m", SECOND).await, "nothing is left to retire");
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_answered_before_it_is_closed_counts() {
    let (engine, mut worker) = serving(json!({}));
    let waiting = infer_now(&engine, &[1, 1]).await;
    let call = worker.call().await;
    worker.start(&call);
    worker.reply(&[worker.echo(&call)]);
    // The order to close overtakes the reply, which nobody has read yet.
    assert!(engine.workers().close(worker.id));
    assert_eq!(values(waiting).await, [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_found_the_old_version_reaches_it_however_late() {
    let (engine, mut old) = serving(json!({}));
    let found = engine.registry().find("m", None).unwrap();
    let new = open(&engine);
    engine.publish(spec(&[&new], json!({}))).unwrap();
    let retiring = {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.retire_replaced("m", SECOND).await })
    };
    tokio::time::sleep(SECOND / 2).await;
    let late = request(&[3, 3]);
    let permit = engine.admission.admit(&late).unwrap();
    let answer = tokio::spawn(found.scheduler.schedule(late, permit));
    drop(found);
    let call = old.call().await;
    old.reply(&[old.echo(&call)]);
    assert_eq!(values(answer).await, [3, 3]);
    assert!(retiring.await.unwrap());
}

#[tokio::test]
async fn a_reconfigured_version_keeps_its_queue_and_its_workers() {
    let (engine, mut worker) = serving(json!({}));
    let running = infer_now(&engine, &[1, 1]).await;
    let call = worker.call().await;
    assert!(engine.reconfigure("m", 1, r#"{"instance_group":[]}"#.to_owned()));
    assert_eq!(engine.registry().find("m", None).unwrap().spec.config, r#"{"instance_group":[]}"#);
    let mut second = open(&engine);
    engine.workers().attach("m", 1, second.id).unwrap();
    let beside = infer_now(&engine, &[2, 2]).await;
    let other = second.call().await;
    second.reply(&[second.echo(&other)]);
    assert_eq!(values(beside).await, [2, 2]);
    worker.reply(&[worker.echo(&call)]);
    assert_eq!(values(running).await, [1, 1]);
    assert!(engine.retire_replaced("m", SECOND).await, "nothing was replaced");
    assert!(engine.registry().ready("m", None).await.unwrap());
    assert_eq!(count(&engine).0, 2, "the counters go on");
    assert!(!engine.reconfigure("m", 9, String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_version_is_cut_off_at_the_deadline() {
    let (engine, mut worker) = serving(json!({}));
    let mut events = engine.take_events().unwrap();
    let running = infer_now(&engine, &[1, 1]).await;
    let call = worker.call().await;
    worker.start(&call);
    let sent = infer_now(&engine, &[2, 2]).await;
    let queued = infer_now(&engine, &[3, 3]).await;
    let start = Instant::now();
    assert!(engine.withdraw("m", 1));
    assert!(!engine.retire_replaced("m", SECOND).await);
    assert!((1000..1005).contains(&start.elapsed().as_millis()));
    let text = "worker closed: the process of model 'm' was stopped while it ran this request";
    assert_eq!(outcome(running).await.unwrap_err().to_string(), text);
    for cut in [sent, queued] {
        let error = outcome(cut).await.unwrap_err();
        let text = "model 'm' version 1 was unloaded before it could answer this request";
        assert_eq!((error.to_string().as_str(), error.code()), (text, Code::Unavailable));
    }
    assert!(matches!(engine.infer(request(&[1, 1])).await, Err(InferError::ModelNotFound { .. })));
    assert!(events.try_recv().is_err(), "a worker that we closed is not lost");
    assert!(!engine.withdraw("m", 1), "it is not published any more");
    assert_eq!(engine.admission.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_running_requests_and_refuses_new_ones() {
    let (engine, mut worker) = serving(json!({}));
    let running = infer_now(&engine, &[1, 1]).await;
    let call = worker.call().await;
    assert!(!engine.drain(SECOND).await);
    let refused = engine.infer(request(&[1, 1])).await.unwrap_err();
    assert_eq!(refused.to_string(), "Server exiting");
    let draining = {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.drain(60 * SECOND).await })
    };
    settle().await;
    worker.reply(&[worker.echo(&call)]);
    assert!(draining.await.unwrap());
    assert_eq!(values(running).await, [1, 1]);
}

#[tokio::test]
async fn versions_answer_by_default_flag_and_age() {
    let engine = engine();
    let row = |version, state: Option<&str>| IndexRow {
        name: "m".into(),
        version,
        state: state.map(Into::into),
        reason: None,
    };
    let find = |version| engine.registry().find("m", version).map(|model| model.spec.version);
    let text = |version| find(version).unwrap_err().to_string();
    assert_eq!(text(None), "Request for unknown model: 'm' is not found");
    engine.registry().set_index(vec![row(None, None)]);
    assert_eq!(text(Some(1)), "Request for unknown model: 'm' is not found", "never loaded");
    engine.registry().set_index(vec![row(Some(3), Some("UNAVAILABLE"))]);
    assert_eq!(text(None), "Request for unknown model: 'm' has no available versions");
    assert_eq!(text(Some(3)), "Request for unknown model: 'm' version 3 is not at ready state");
    assert_eq!(text(Some(9)), "Request for unknown model: 'm' version 9 is not found");
    for (version, default) in [(1, false), (2, true), (3, false)] {
        engine.publish(spec(&[], json!({"version": version, "default_version": default}))).unwrap();
    }
    assert_eq!(find(None).unwrap(), 2);
    assert_eq!(engine.registry().versions("m"), [1, 2, 3]);
    assert!(engine.withdraw("m", 2));
    assert!(engine.retire_replaced("m", SECOND).await);
    assert_eq!(find(None).unwrap(), 3);
    assert!(!engine.registry().ready("m", None).await.unwrap(), "no worker lives");
    let wrong = |name, version| engine.statistics(Some(name), version).unwrap_err().to_string();
    assert_eq!(wrong("n", None), "requested model 'n' is not available");
    assert_eq!(wrong("m", Some(2)), "requested model version is not available for model 'm'");
    assert_eq!(engine.statistics(None, None).unwrap().len(), 2);
}

#[tokio::test]
async fn a_worker_serves_only_the_version_it_was_opened_for() {
    let engine = engine();
    let worker = open(&engine);
    let other = engine.publish(spec(&[&worker], json!({"version": 2}))).unwrap_err().to_string();
    assert_eq!(other, "worker 1 was opened for model 'm' version 1, not for model 'm' version 2");
    engine.publish(spec(&[&worker], json!({}))).unwrap();
    let again = engine.publish(spec(&[&worker], json!({}))).unwrap_err().to_string();
    assert_eq!(again, "worker 1 of model 'm' serves already: open another one");
    assert!(engine.workers().close(worker.id));
    settle().await;
    assert!(!engine.workers().close(worker.id));
    let gone = engine.publish(spec(&[&worker], json!({}))).unwrap_err().to_string();
    assert_eq!(gone, "worker 1 of model 'm' version 1 has ended");
}

#[tokio::test]
async fn the_byte_budget_holds_for_requests_and_arenas() {
    let engine = Engine::new(EngineOptions { byte_budget: 3 << 20, cache_byte_size: 0, busy_poll_us: 0 });
    let worker = open(&engine);
    let large = json!({"inputs": [{"name": "x", "datatype": "INT32", "dims": [-1], "reshape": null,
        "optional": false, "labels": []}], "max_batch_size": 0});
    engine.publish(spec(&[&worker], large)).unwrap();
    let of_size = |numbers: usize| {
        let mut request = request(&vec![1; numbers]);
        request.inputs[0].shape = vec![numbers as i64];
        request
    };
    let refused = engine.infer(of_size(1 << 19)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.to_string().contains("byte budget"), "{refused}");
    let _first = infer(&engine, of_size(1 << 10));
    settle().await;
    assert_eq!(engine.admission.running(), 1);
}

#[tokio::test]
async fn polling_busily_changes_nothing_but_the_clock() {
    let engine = Engine::new(EngineOptions { byte_budget: 64 << 20, cache_byte_size: 0, busy_poll_us: 2000 });
    let mut worker = open(&engine);
    engine.publish(spec(&[&worker], json!({}))).unwrap();
    for number in 0..20 {
        let waiting = infer(&engine, request(&[number, number]));
        let call = worker.call().await;
        worker.reply(&[worker.echo(&call)]);
        assert_eq!(values(waiting).await, [number; 2]);
    }
}
