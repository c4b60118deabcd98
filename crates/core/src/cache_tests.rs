//! The response cache: what counts as the same request, what is kept and for how long.

use serde_json::json;

use super::tests::{count, engine, infer, infer_now, open, outcome, request, settle, spec, values};
use super::*;
use crate::instance::fake_worker::{FakeWorker, record};
use crate::instance::frame::Record;
use crate::request::Parameter;

fn cached(bytes: u64) -> (Arc<Engine>, FakeWorker) {
    let engine = Engine::new(EngineOptions { byte_budget: 64 << 20, cache_byte_size: bytes, busy_poll_us: 0 });
    let worker = open(&engine);
    engine.publish(spec(&[&worker], json!({"response_cache": true}))).unwrap();
    (engine, worker)
}

/// Runs a request on the worker.
async fn run(engine: &Arc<Engine>, worker: &mut FakeWorker, request: InferRequest) {
    let waiting = infer(engine, request);
    let call = worker.call().await;
    worker.reply(&[worker.echo(&call)]);
    outcome(waiting).await.unwrap();
}

fn hits(engine: &Engine) -> (u64, u64) {
    let stats = engine.statistics(Some("m"), None).unwrap().remove(0).inference_stats;
    (stats.cache_hit.count, stats.cache_miss.count)
}

#[tokio::test]
async fn the_same_request_is_answered_without_a_run_under_its_own_id() {
    let (engine, mut worker) = cached(1 << 20);
    run(&engine, &mut worker, InferRequest { id: "one".into(), priority: 1, ..request(&[1, 2]) }).await;
    let answer = engine.infer(InferRequest { id: "two".into(), timeout_us: 9, ..request(&[1, 2]) }).await.unwrap();
    assert_eq!((&*answer.id, &answer.outputs[0].data[..]), ("two", &super::tests::bytes(&[1, 2])[..]));
    let mut responses = engine.stream(request(&[1, 2])).unwrap();
    let reply = responses.next().await.unwrap();
    assert!(reply.last && reply.outcome.unwrap().is_some());
    assert!(responses.next().await.is_none());
    assert_eq!(hits(&engine), (2, 1));
    assert_eq!(count(&engine), (1, 1, 3, 0), "a hit is a success, and no run (W65)");
    assert_eq!(engine.admission.running(), 0);
}

#[tokio::test]
async fn a_stream_of_one_response_is_kept_too() {
    let (engine, mut worker) = cached(1 << 20);
    let mut responses = engine.stream(request(&[1, 2])).unwrap();
    let call = worker.call().await;
    worker.reply(&[worker.echo(&call)]);
    assert!(responses.next().await.unwrap().last);
    engine.infer(request(&[1, 2])).await.unwrap();
    assert_eq!(hits(&engine), (1, 1));
}

#[tokio::test]
async fn how_the_bytes_came_is_no_part_of_the_key() {
    let (engine, mut worker) = cached(1 << 20);
    run(&engine, &mut worker, super::tests::in_pieces(request(&[1, 2]), 3)).await;
    engine.infer(request(&[1, 2])).await.unwrap();
    engine.infer(super::tests::in_pieces(request(&[1, 2]), 5)).await.unwrap();
    assert_eq!(hits(&engine), (2, 1));
    run(&engine, &mut worker, super::tests::in_pieces(request(&[1, 3]), 3)).await;
    assert_eq!(hits(&engine), (2, 2));
}

#[tokio::test]
async fn whatever_may_change_the_answer_is_part_of_the_key() {
    let (engine, mut worker) = cached(1 << 20);
    let with = |name: &str, value| InferRequest { parameters: vec![(name.into(), value)], ..request(&[1, 2]) };
    let requests = [
        request(&[1, 2]),
        request(&[2, 1]),
        request(&[1, 2, 1, 2]),
        InferRequest { outputs: vec!["y".into()], ..request(&[1, 2]) },
        with("k", Parameter::Int(1)),
        with("k", Parameter::Uint(1)),
        with("k", Parameter::String("1".into())),
        with("l", Parameter::Int(1)),
    ];
    for request in &requests {
        run(&engine, &mut worker, request.clone()).await;
    }
    for request in requests {
        engine.infer(request).await.unwrap();
    }
    assert_eq!(hits(&engine), (8, 8));
}

#[tokio::test]
async fn the_least_recently_used_leaves_first() {
    let (engine, mut worker) = cached(800); // two entries of some 344 bytes
    for number in [1, 2] {
        run(&engine, &mut worker, request(&[number, number])).await;
    }
    engine.infer(request(&[1, 1])).await.unwrap();
    run(&engine, &mut worker, request(&[3, 3])).await;
    engine.infer(request(&[1, 1])).await.unwrap();
    engine.infer(request(&[3, 3])).await.unwrap();
    run(&engine, &mut worker, request(&[2, 2])).await;
    assert_eq!(hits(&engine), (3, 4));
}

#[tokio::test]
async fn errors_and_answers_larger_than_the_cache_are_not_kept() {
    let (engine, mut worker) = cached(300);
    for _ in 0..2 {
        run(&engine, &mut worker, request(&[1, 2])).await;
    }
    assert_eq!(hits(&engine), (0, 2));
    let (engine, mut worker) = cached(1 << 20);
    let failing = infer_now(&engine, &[1, 2]).await;
    let call = worker.call().await;
    worker.reply(&[Record { status: 2, ..record(&call, Vec::new()) }]);
    outcome(failing).await.unwrap_err();
    run(&engine, &mut worker, request(&[1, 2])).await;
    assert_eq!(hits(&engine), (0, 1));
}

#[tokio::test]
async fn a_model_that_was_loaded_again_answers_anew() {
    let (engine, mut worker) = cached(1 << 20);
    run(&engine, &mut worker, request(&[1, 2])).await;
    let mut next = open(&engine);
    engine.publish(spec(&[&next], json!({"response_cache": true}))).unwrap();
    run(&engine, &mut next, request(&[1, 2])).await;
    assert_eq!(hits(&engine), (0, 1));
}

#[tokio::test]
async fn a_model_that_does_not_ask_for_it_and_a_server_without_it_run_everything() {
    let engine = engine();
    let mut worker = open(&engine);
    engine.publish(spec(&[&worker], json!({"response_cache": true}))).unwrap();
    let other = Engine::new(EngineOptions { byte_budget: 64 << 20, cache_byte_size: 1 << 20, busy_poll_us: 0 });
    let mut plain = open(&other);
    other.publish(spec(&[&plain], json!({}))).unwrap();
    for _ in 0..2 {
        run(&engine, &mut worker, request(&[1, 2])).await;
        run(&other, &mut plain, request(&[1, 2])).await;
    }
    assert_eq!((hits(&engine), hits(&other)), ((0, 0), (0, 0)));
    let last = infer_now(&other, &[1, 2]).await;
    let call = plain.call().await;
    plain.reply(&[plain.echo(&call)]);
    assert_eq!(values(last).await, [1, 2]);
    settle().await;
}
