//! Requests with any number of responses: order, ends, bounds, cancellation, and when the instance is free again.

use std::time::Duration;

use naiad_tensor::DataType;
use serde_json::json;

use super::tests::{bytes, count, dynamic, engine, infer_now, open, outcome, request, serving, settle, spec};
use super::*;
use crate::Code;
use crate::instance::fake_worker::{FakeWorker, record};
use crate::instance::frame::other_side::{self, FromCore};
use crate::instance::frame::{Call, Range, Record, STREAM, WHOLE};
use crate::scheduler::Reply;
use crate::scheduler::reply::MAX_UNREAD;

fn decoupled() -> (Arc<Engine>, FakeWorker) {
    serving(json!({"decoupled": true}))
}

fn stream(engine: &Engine, values: &[i32]) -> Responses {
    engine.stream(InferRequest { id: "s".into(), ..request(values) }).unwrap()
}

/// Room for responses, as a worker asks for it.
async fn room(worker: &mut FakeWorker, wanted: u64) -> Range {
    worker.send(&other_side::need(STREAM, wanted));
    match worker.frame().await {
        Some(FromCore::Grant { call: STREAM, status: 0, range }) => range,
        other => panic!("expected a grant, got {other:?}"),
    }
}

/// A response with one row of two numbers, written at `place` of the granted range.
fn response(worker: &FakeWorker, call: &Call, room: Range, numbers: [i32; 2]) -> Record {
    let output = worker.outputs(call, room, &[(DataType::Int32, &[1, 2], &bytes(&numbers))]);
    Record { last: false, ..output }
}

fn end(call: &Call) -> Record {
    Record { bare: true, ..record(call, Vec::new()) }
}

fn release(call: &Call) -> Record {
    Record { released: true, last: false, ..end(call) }
}

async fn next(responses: &mut Responses) -> Option<Reply> {
    tokio::time::timeout(Duration::from_secs(60), responses.next()).await.expect("a reply comes")
}

async fn good(responses: &mut Responses) -> Vec<u8> {
    let reply = next(responses).await.unwrap();
    assert!(!reply.last);
    reply.outcome.unwrap().unwrap().outputs[0].data.to_vec()
}

#[tokio::test]
async fn responses_come_one_by_one_and_the_last_reply_may_carry_none() {
    let (engine, mut worker) = decoupled();
    let mut responses = stream(&engine, &[1, 1]);
    let call = worker.call().await;
    assert!(call.listed);
    assert_eq!((call.area.length, call.entries[0].request), (0, 0));
    let place = room(&mut worker, 65_536).await;
    for number in 0..3 {
        let at = Range { offset: place.offset + 64 * number as u64, ..place };
        worker.reply(&[response(&worker, &call, at, [number; 2])]);
        let reply = next(&mut responses).await.unwrap();
        let response = reply.outcome.unwrap().unwrap();
        assert_eq!((&*response.id, &response.outputs[0].data[..], reply.last), ("s", &bytes(&[number; 2])[..], false));
    }
    worker.reply(&[end(&call)]);
    let reply = next(&mut responses).await.unwrap();
    assert!(reply.last && reply.outcome.unwrap().is_none());
    assert!(next(&mut responses).await.is_none());
    assert_eq!(count(&engine), (1, 1, 1, 0));
    let shown = serde_json::to_value(engine.statistics(None, None).unwrap().remove(0)).unwrap();
    let counts = |index: &str, what: &str| shown["response_stats"][index][what]["count"].clone();
    for index in ["0", "1", "2"] {
        assert_eq!((counts(index, "success"), counts(index, "empty_response")), (1.into(), 0.into()));
    }
    assert_eq!((counts("3", "success"), counts("3", "empty_response")), (0.into(), 1.into()));
    assert_eq!(shown["response_stats"].as_object().unwrap().len(), 4);
    assert_eq!(engine.admission.running(), 0);
}

#[tokio::test]
async fn a_response_may_be_the_last_and_none_may_come_at_all() {
    let (engine, mut worker) = decoupled();
    let mut responses = stream(&engine, &[1, 1]);
    let call = worker.call().await;
    let place = room(&mut worker, 64).await;
    worker.reply(&[Record { last: true, ..response(&worker, &call, place, [7, 7]) }]);
    let reply = next(&mut responses).await.unwrap();
    assert!(reply.last && reply.outcome.unwrap().is_some());
    let mut responses = stream(&engine, &[1, 1]);
    let call = worker.call().await;
    worker.reply(&[end(&call)]);
    let reply = next(&mut responses).await.unwrap();
    assert!(reply.last && reply.outcome.unwrap().is_none());
    assert_eq!(count(&engine), (2, 2, 2, 0));
}

#[tokio::test]
async fn a_model_with_one_response_streams_one_and_a_decoupled_one_refuses_to_be_asked_for_one() {
    let (engine, mut worker) = serving(json!({}));
    let mut responses = stream(&engine, &[4, 5]);
    let call = worker.call().await;
    worker.reply(&[worker.echo(&call)]);
    let reply = next(&mut responses).await.unwrap();
    assert!(reply.last);
    assert_eq!(reply.outcome.unwrap().unwrap().outputs[0].data, bytes(&[4, 5]));
    assert!(next(&mut responses).await.is_none());
    let (engine, worker) = decoupled();
    assert_eq!(engine.infer(request(&[1, 1])).await.unwrap_err().code(), Code::Unsupported);
    worker.assert_silent().await;
    assert_eq!(engine.admission.running(), 0);
}

#[tokio::test]
async fn a_released_request_leaves_the_instance_to_the_next() {
    let (engine, mut worker) = decoupled();
    let mut first = stream(&engine, &[1, 1]);
    let one = worker.call().await;
    let place = room(&mut worker, 4096).await;
    let (mut second, mut third) = (stream(&engine, &[2, 2]), stream(&engine, &[3, 3]));
    let two = worker.call().await; // a second frame hides the channel's latency
    worker.assert_silent().await;
    worker.reply(&[release(&one)]);
    let three = worker.call().await;
    let at = |number: u64| Range { offset: place.offset + 64 * number, ..place };
    worker.reply(&[response(&worker, &three, at(0), [3, 3]), response(&worker, &one, at(1), [1, 1])]);
    assert_eq!(good(&mut third).await, bytes(&[3, 3]));
    assert_eq!(good(&mut first).await, bytes(&[1, 1]), "after its release");
    worker.reply(&[end(&two), end(&one), end(&three)]);
    for responses in [&mut first, &mut second, &mut third] {
        assert!(next(responses).await.unwrap().last);
    }
    assert_eq!(count(&engine), (3, 3, 3, 0));
}

#[tokio::test]
async fn a_version_retires_when_its_streams_are_over_though_its_instance_is_free() {
    let (engine, mut worker) = decoupled();
    let mut responses = stream(&engine, &[1, 1]);
    let call = worker.call().await;
    worker.reply(&[release(&call)]);
    let retiring = {
        let engine = Arc::clone(&engine);
        assert!(engine.withdraw("m", 1));
        tokio::spawn(async move { engine.retire_replaced("m", Duration::from_secs(60)).await })
    };
    settle().await;
    assert!(!retiring.is_finished());
    worker.reply(&[end(&call)]);
    assert!(next(&mut responses).await.unwrap().last);
    assert!(retiring.await.unwrap());
}

#[tokio::test]
async fn a_slow_reader_loses_its_stream_and_the_worker_is_told() {
    let (engine, mut worker) = decoupled();
    let mut responses = stream(&engine, &[1, 1]);
    let call = worker.call().await;
    let place = room(&mut worker, 4096).await;
    for _ in 0..MAX_UNREAD / 64 {
        assert!(!worker.is_cancelled(&call));
        worker.reply(&vec![response(&worker, &call, place, [1, 1]); 64]);
        settle().await;
    }
    worker.reply(&[response(&worker, &call, place, [1, 1])]);
    settle().await;
    assert!(worker.is_cancelled(&call));
    assert_eq!(engine.admission.running(), 0, "its bytes are given back");
    worker.reply(&[response(&worker, &call, place, [1, 1]), end(&call)]); // it was too late to stop
    for _ in 0..MAX_UNREAD {
        good(&mut responses).await;
    }
    let reply = next(&mut responses).await.unwrap();
    let error = reply.outcome.unwrap_err();
    assert!(reply.last && error.to_string().starts_with("responses are read too slowly: 1024 of them"), "{error}");
    assert!(next(&mut responses).await.is_none());
    assert_eq!(count(&engine), (0, 1, 0, 1));
}

#[tokio::test]
async fn unread_bytes_are_taken_from_the_byte_budget() {
    let variable =
        json!([{"name": "y", "datatype": "INT32", "dims": [-1], "reshape": null, "optional": false, "labels": []}]);
    let (engine, mut worker) = serving(json!({"decoupled": true, "outputs": variable}));
    let mut responses = stream(&engine, &[1, 1]);
    let call = worker.call().await;
    let large = vec![0_u8; 12 << 20];
    let place = room(&mut worker, large.len() as u64).await;
    let one = || Record { last: false, ..worker.outputs(&call, place, &[(DataType::Int32, &[1, 3 << 20], &large)]) };
    worker.reply(&[one(), one()]);
    settle().await;
    assert!(!worker.is_cancelled(&call));
    good(&mut responses).await;
    worker.reply(&[one()]);
    settle().await;
    assert!(!worker.is_cancelled(&call), "what was read counts no longer");
    worker.reply(&[one()]); // 36 of 32 MiB
    settle().await;
    assert!(worker.is_cancelled(&call));
    good(&mut responses).await;
    good(&mut responses).await;
    assert!(matches!(next(&mut responses).await.unwrap().outcome, Err(InferError::SlowReader { replies: 2, .. })));
}

#[tokio::test]
async fn dropping_the_responses_cancels_what_is_still_to_come() {
    let (engine, mut worker) = decoupled();
    let running = stream(&engine, &[1, 1]);
    let call = worker.call().await;
    let (sent, queued) = (stream(&engine, &[2, 2]), stream(&engine, &[3, 3]));
    let second = worker.call().await;
    assert_eq!(engine.admission.running(), 3);
    drop(queued);
    settle().await;
    assert_eq!(engine.admission.running(), 2, "the queued one is gone at once");
    drop(running);
    settle().await;
    assert!(worker.is_cancelled(&call) && !worker.is_cancelled(&second));
    let place = room(&mut worker, 64).await;
    worker.reply(&[response(&worker, &call, place, [1, 1]), end(&call), end(&second)]);
    settle().await;
    assert_eq!(count(&engine), (1, 2, 1, 2));
    let shown = serde_json::to_value(engine.statistics(None, None).unwrap().remove(0)).unwrap();
    assert_eq!(shown["response_stats"]["0"]["cancel"]["count"], 1);
    drop(sent);
}

#[tokio::test]
async fn an_error_may_be_followed_by_responses_and_a_lost_worker_ends_them() {
    let (engine, mut worker) = decoupled();
    let mut responses = stream(&engine, &[1, 1]);
    let call = worker.call().await;
    worker.start(&call);
    let place = room(&mut worker, 64).await;
    let error = Record { status: 4, last: false, text: b"no".to_vec(), ..record(&call, Vec::new()) };
    worker.reply(&[error, response(&worker, &call, place, [1, 2]), release(&call)]);
    let reply = next(&mut responses).await.unwrap();
    assert!(!reply.last);
    assert_eq!(reply.outcome.unwrap_err().code(), Code::InvalidArg);
    assert_eq!(good(&mut responses).await, bytes(&[1, 2]));
    drop(worker);
    let reply = next(&mut responses).await.unwrap();
    assert!(reply.last && matches!(reply.outcome, Err(InferError::WorkerLost { .. })));
    assert_eq!(count(&engine), (0, 1, 0, 1));
}

#[tokio::test]
async fn room_that_was_replaced_is_used_again() {
    let (engine, mut worker) = decoupled();
    let mut responses = stream(&engine, &[1, 1]);
    let call = worker.call().await;
    let first = room(&mut worker, 65_536).await;
    worker.reply(&[response(&worker, &call, first, [1, 1])]);
    let second = room(&mut worker, 65_536).await;
    let third = room(&mut worker, 65_536).await;
    assert_eq!(second, first, "nothing of it was in use any more");
    assert_eq!(third, first);
    assert_eq!(good(&mut responses).await, bytes(&[1, 1]));
}

#[tokio::test]
async fn a_batch_of_a_decoupled_model_keeps_its_requests_apart() {
    let mut change = dynamic(json!({"hold_until": 2}));
    change["decoupled"] = true.into();
    let (engine, mut worker) = serving(change);
    let mut one = stream(&engine, &[1, 1, 2, 2]);
    let mut two = stream(&engine, &[3, 3]);
    let call = worker.call().await;
    assert_eq!((call.listed, call.rows, call.requests.len()), (true, 3, 2));
    let seen: Vec<_> = call.entries.iter().map(|entry| (entry.request, &entry.dims[..])).collect();
    assert_eq!(seen, [(0, &[2_i64, 2][..]), (1, &[1, 2])]);
    assert_eq!(worker.read(call.entries[1].range), bytes(&[3, 3]));
    let place = room(&mut worker, 64).await;
    let of = |request, record| Record { request, ..record };
    worker.reply(&[of(1, response(&worker, &call, place, [9, 9])), of(1, end(&call))]);
    assert_eq!(good(&mut two).await, bytes(&[9, 9]));
    assert!(next(&mut two).await.unwrap().last);
    worker.reply(&[of(0, end(&call))]);
    assert!(next(&mut one).await.unwrap().last);
    assert_eq!(count(&engine), (3, 1, 2, 0));
}

#[tokio::test]
async fn a_second_response_to_a_request_with_one_closes_the_channel() {
    let (engine, mut worker) = serving(json!({}));
    let mut events = engine.take_events().unwrap();
    let waiting = infer_now(&engine, &[1, 1]).await;
    let call = worker.call().await;
    let first = Record { last: false, ..worker.echo(&call) };
    worker.reply(std::slice::from_ref(&first));
    outcome(waiting).await.unwrap();
    assert_eq!(first.request, WHOLE);
    worker.reply(&[first]);
    assert!(worker.frame().await.is_none());
    let Event::WorkerLost { reason, .. } = events.recv().await.unwrap();
    assert_eq!(reason, "a second response to request 65535 of call 1");
}

#[tokio::test]
async fn a_full_queue_refuses_a_stream_at_the_door() {
    let engine = engine();
    engine.publish(spec(&[], json!({"decoupled": true, "max_queue_size": 1}))).unwrap();
    let _one = stream(&engine, &[1, 1]);
    let refused = engine.stream(request(&[2, 2])).unwrap_err();
    assert_eq!(refused.to_string(), "[request id: <id_unknown>] Exceeds maximum queue size");
    assert_eq!(open(&engine).id, 1);
}
