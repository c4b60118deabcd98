//! Deadlines of the client: who waits too long is answered at that moment and leaves everything at once. Time is paused.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::tests::{count, dynamic, engine, infer, infer_now, outcome, request, serving, settle, spec, values};
use super::*;
use crate::Code;
use crate::instance::fake_worker::record;
use crate::instance::frame::Record;

fn until(values: &[i32], millis: u64) -> InferRequest {
    let deadline = Some(Instant::now() + Duration::from_millis(millis));
    InferRequest { deadline, id: "d".into(), ..request(values) }
}

#[tokio::test(start_paused = true)]
async fn a_queued_request_is_answered_at_its_deadline_under_every_scheduler() {
    for change in [json!({}), dynamic(json!({}))] {
        let engine = engine();
        engine.publish(spec(&[], change)).unwrap();
        let start = Instant::now();
        let waiting = infer(&engine, until(&[1, 1], 250));
        let error = outcome(waiting).await.unwrap_err();
        assert_eq!(error.to_string(), "[request id: d] Request timeout expired");
        assert_eq!((error.code(), start.elapsed().as_millis()), (Code::Unavailable, 250));
        settle().await;
        assert_eq!(engine.admission.running(), 0, "it has left the queue");
        assert_eq!(count(&engine), (0, 0, 0, 1), "a failure, for its client did not go away");
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_request_is_answered_at_its_deadline_and_its_worker_is_told() {
    let (engine, mut worker) = serving(json!({}));
    let waiting = infer(&engine, until(&[1, 1], 250));
    let call = worker.call().await;
    assert!(outcome(waiting).await.is_err());
    settle().await;
    assert!(worker.is_cancelled(&call));
    worker.reply(&[Record { status: 8, ..record(&call, Vec::new()) }]);
    settle().await;
    assert_eq!(count(&engine), (0, 0, 0, 1));
    let next = infer_now(&engine, &[2, 2]).await;
    let call = worker.call().await;
    worker.reply(&[worker.echo(&call)]);
    assert_eq!(values(next).await, [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_is_given_and_a_deadline_that_has_passed_is_an_answer_too() {
    let (engine, mut worker) = serving(json!({}));
    let waiting = infer(&engine, until(&[1, 1], 250));
    let call = worker.call().await;
    worker.reply(&[worker.echo(&call)]);
    assert_eq!(values(waiting).await, [1, 1]);
    let late = engine.infer(until(&[1, 1], 0)).await;
    assert!(matches!(late, Err(InferError::QueueTimeout { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_its_deadline() {
    let (engine, mut worker) = serving(json!({"decoupled": true}));
    let mut responses = engine.stream(until(&[1, 1], 250)).unwrap();
    let call = worker.call().await;
    let start = Instant::now();
    let reply = responses.next().await.unwrap();
    assert!(reply.last && matches!(reply.outcome, Err(InferError::QueueTimeout { .. })));
    assert_eq!(start.elapsed().as_millis(), 250);
    assert!(responses.next().await.is_none());
    settle().await;
    assert!(worker.is_cancelled(&call));
}
