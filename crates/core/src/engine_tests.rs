//! The engine with fake workers: from a request to its response, and everything that may come between.

use std::time::Duration;

use bytes::Bytes;
use naiad_tensor::DataType;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::error::Code;
use crate::instance::fake_worker::{FakeWorker, record, strings};
use crate::instance::frame::other_side::{self, FromCore};
use crate::instance::frame::{Range, Record};
use crate::request::{InputTensor, Parameter};
use crate::scheduler::Outcome;

pub(super) fn engine() -> Arc<Engine> {
    Engine::new(EngineOptions { byte_budget: 64 << 20, cache_byte_size: 0, busy_poll_us: 0 })
}

pub(super) fn open(engine: &Engine) -> FakeWorker {
    let (id, end) = engine.workers().open("m", 1, 0).unwrap();
    FakeWorker::new(id, end)
}

pub(super) fn spec(workers: &[&FakeWorker], change: impl Into<Value>) -> ModelSpec {
    let tensor = |name: &str, datatype: &str, dims: Value| json!({"name": name, "datatype": datatype, "dims": dims, "reshape": null, "optional": false, "labels": []});
    let mut spec = json!({
        "name": "m", "version": 1, "platform": "identity", "max_batch_size": 8, "scheduler": {"kind": "direct"},
        "inputs": [tensor("x", "INT32", json!([2]))], "outputs": [tensor("y", "INT32", json!([2]))],
        "max_queue_size": 100, "config": "{}", "default_version": true,
        "workers": workers.iter().map(|worker| worker.id).collect::<Vec<_>>(),
    });
    merge(&mut spec, change.into());
    serde_json::from_value(spec).unwrap()
}

fn merge(into: &mut Value, change: Value) {
    let Value::Object(change) = change else { panic!("a change is an object") };
    into.as_object_mut().unwrap().extend(change);
}

pub(super) fn dynamic(change: Value) -> Value {
    let mut scheduler = json!({
        "kind": "dynamic", "preferred_batch_sizes": [8], "max_queue_delay_us": 0, "preserve_ordering": false,
        "default_timeout_us": 0, "allow_timeout_override": false, "timeout_delays": false, "hold_until": 0,
    });
    merge(&mut scheduler, change);
    json!({"scheduler": scheduler})
}

/// An engine that serves one model with one worker.
pub(super) fn serving(change: Value) -> (Arc<Engine>, FakeWorker) {
    let engine = engine();
    let worker = open(&engine);
    engine.publish(spec(&[&worker], change)).unwrap();
    (engine, worker)
}

pub(super) fn bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Rows of two numbers.
pub(super) fn request(values: &[i32]) -> InferRequest {
    let shape = vec![values.len() as i64 / 2, 2];
    let data = bytes(values).into();
    InferRequest {
        model: "m".into(),
        version: None,
        id: String::new(),
        parameters: Vec::new(),
        timeout_us: 0,
        deadline: None,
        priority: 0,
        inputs: vec![InputTensor { name: "x".into(), datatype: DataType::Int32, shape, data }],
        outputs: Vec::new(),
        reserved: 0,
        traceparent: None,
    }
}

/// The same request whose tensors came in pieces of so many bytes.
pub(super) fn in_pieces(mut request: InferRequest, size: usize) -> InferRequest {
    for input in &mut request.inputs {
        let bytes = std::mem::take(&mut input.data).into_bytes();
        for piece in bytes.chunks(size) {
            input.data.push(Bytes::copy_from_slice(piece));
        }
    }
    request
}

pub(super) fn infer(engine: &Arc<Engine>, request: InferRequest) -> JoinHandle<Outcome> {
    let engine = Arc::clone(engine);
    tokio::spawn(async move { engine.infer(request).await })
}

/// Spawns a request and lets it reach the line or the worker.
pub(super) async fn infer_now(engine: &Arc<Engine>, values: &[i32]) -> JoinHandle<Outcome> {
    let waiting = infer(engine, request(values));
    settle().await;
    waiting
}

pub(super) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

pub(super) async fn outcome(waiting: JoinHandle<Outcome>) -> Outcome {
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("an answer comes").unwrap()
}

pub(super) async fn values(waiting: JoinHandle<Outcome>) -> Vec<i32> {
    let response = outcome(waiting).await.unwrap();
    numbers(&response.outputs[0].data)
}

fn numbers(data: &[u8]) -> Vec<i32> {
    data.chunks_exact(4).map(|chunk| i32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

pub(super) fn count(engine: &Engine) -> (u64, u64, u64, u64) {
    let model = engine.statistics(Some("m"), None).unwrap().remove(0);
    let stats = model.inference_stats;
    (model.inference_count, model.execution_count, stats.success.count, stats.fail.count)
}

#[tokio::test]
async fn a_request_comes_back_with_id_parameters_and_statistics() {
    let (engine, mut worker) = serving(json!({"reads_requests": true}));
    let mut sent = request(&[1, 2]);
    sent.id = "seven".into();
    sent.parameters = vec![("k".into(), Parameter::Int(5))];
    (sent.timeout_us, sent.priority, sent.outputs) = (7_000_000, 2, vec!["y".into()]);
    let waiting = infer(&engine, sent);
    let call = worker.call().await;
    assert_eq!((call.rows, call.requests[0].rows, &call.entries[0].dims), (1, 1, &vec![1, 2]));
    assert_eq!(worker.read(call.entries[0].range), bytes(&[1, 2]));
    assert_eq!(worker.read(call.area), [0; 64]);
    let meta: Value = serde_json::from_slice(&worker.read(call.requests[0].meta)).unwrap();
    assert_eq!(
        meta,
        json!({"id": "seven", "parameters": {"k": 5}, "timeout": 7_000_000, "priority": 2, "outputs": ["y"]})
    );
    let answer = Record { text: br#"{"p": "q", "n": 42}"#.to_vec(), ..worker.echo(&call) };
    worker.reply(&[answer]);
    let response = outcome(waiting).await.unwrap();
    assert_eq!((&*response.model, response.version, &*response.id), ("m", 1, "seven"));
    assert_eq!(response.outputs[0].shape, [1, 2]);
    assert_eq!(&*response.outputs[0].name, "y");
    let parameters = [("n".into(), Parameter::Int(42)), ("p".into(), Parameter::String("q".into()))];
    assert_eq!(**response.parameters, parameters);
    assert_eq!(count(&engine), (1, 1, 1, 0));
    let shown = serde_json::to_value(engine.statistics(None, None).unwrap().remove(0)).unwrap();
    assert_eq!(shown["batch_stats"][0]["compute_infer"], json!({"count": 1, "ns": 8000}));
    assert_eq!(shown["batch_stats"][0]["batch_size"], 1);
    assert_eq!(shown["inference_stats"]["cache_miss"], json!({"count": 0, "ns": 0}));
    assert_eq!(shown["response_stats"]["0"]["success"]["count"], 1);
    assert!(shown["last_inference"].as_u64().unwrap() > 1_600_000_000_000);
}

#[tokio::test]
async fn a_model_that_cancels_says_so_in_its_own_words() {
    let (engine, mut worker) = serving(json!({}));
    for (text, shown) in [("the operator stopped it", "the operator stopped it"), ("", "Request cancelled")] {
        let waiting = infer(&engine, request(&[1, 2]));
        let call = worker.call().await;
        assert_eq!(call.requests[0].meta, Range::default());
        worker.reply(&[Record { status: 8, text: text.into(), ..record(&call, Vec::new()) }]);
        let error = outcome(waiting).await.unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (Code::Cancelled, shown));
    }
    let found = engine.registry().find("m", None).unwrap();
    let canceled = found.statistics.failures().find(|(reason, _)| reason.name() == "CANCELED");
    assert_eq!(canceled.map(|(_, count)| count), Some(2));
}

#[tokio::test]
async fn two_frames_are_in_flight_and_waiting_requests_share_the_next() {
    let (engine, mut worker) = serving(json!({}));
    let mut waiting = Vec::new();
    for number in 0..10 {
        waiting.push(infer_now(&engine, &[number, number]).await);
    }
    let (first, second) = (worker.call().await, worker.call().await);
    worker.assert_silent().await;
    worker.reply(&[worker.echo(&first)]);
    // A call takes 10 µs as the record says, so that all eight fit into a millisecond.
    let shared = worker.calls().await;
    assert_eq!(shared.len(), 8);
    worker.reply(&[worker.echo(&second)]);
    let records: Vec<_> = shared.iter().map(|call| worker.echo(call)).collect();
    worker.reply(&records[..3]);
    worker.reply(&records[3..]);
    for (number, waiting) in waiting.into_iter().enumerate() {
        assert_eq!(values(waiting).await, [number as i32; 2]);
    }
    assert_eq!(count(&engine), (10, 10, 10, 0));
}

#[tokio::test]
async fn long_calls_and_idle_instances_get_one_call_a_frame() {
    let engine = engine();
    let (mut one, mut two) = (open(&engine), open(&engine));
    engine.publish(spec(&[&one, &two], json!({}))).unwrap();
    let mut waiting = Vec::new();
    for number in 0..6 {
        waiting.push(infer_now(&engine, &[number, number]).await);
    }
    let (first, third) = (one.call().await, one.call().await);
    let (second, _fourth) = (two.call().await, two.call().await);
    assert_eq!(one.read(third.entries[0].range), bytes(&[2, 2]), "instances take turns");
    assert_eq!(two.read(second.entries[0].range), bytes(&[1, 1]));
    // 600 µs a call: no two fit into a millisecond.
    let slow = Record { times: [0, 0, 600_000, 600_000], ..one.echo(&first) };
    one.reply(&[slow]);
    assert_eq!(one.calls().await.len(), 1);
}

#[tokio::test]
async fn a_batch_is_gathered_and_its_outputs_are_scattered() {
    let mut change = dynamic(json!({"hold_until": 3}));
    change["outputs"] = json!([
        {"name": "y", "datatype": "INT32", "dims": [2], "reshape": null, "optional": false, "labels": []},
        {"name": "s", "datatype": "BYTES", "dims": [-1], "reshape": null, "optional": false, "labels": []},
    ]);
    let (engine, mut worker) = serving(change);
    let one = infer_now(&engine, &[1, 1]).await;
    let two = infer(&engine, in_pieces(request(&[2, 2, 3, 3]), 3));
    worker.assert_silent().await;
    let three = infer(&engine, InferRequest { outputs: vec!["s".into()], ..request(&[4, 4]) });
    let call = worker.call().await;
    assert_eq!((call.rows, &call.entries[0].dims), (4, &vec![4, 2]));
    assert_eq!(worker.read(call.entries[0].range), bytes(&[1, 1, 2, 2, 3, 3, 4, 4]));
    let text = strings(&["a", "", "bb", "ccc", "dddd"]);
    let text = [&text[..], &strings(&["e", "f", "g"])[..]].concat();
    let doubled = bytes(&[2, 2, 4, 4, 6, 6, 8, 8]);
    let outputs = [(DataType::Int32, &[4_i64, 2][..], &doubled[..]), (DataType::Bytes, &[4, 2], &text)];
    worker.reply(&[worker.outputs(&call, call.area, &outputs)]);
    assert_eq!(values(one).await, [2, 2]);
    let two = outcome(two).await.unwrap();
    assert_eq!((numbers(&two.outputs[0].data), &two.outputs[0].shape), (vec![4, 4, 6, 6], &vec![2, 2]));
    assert_eq!(
        (&two.outputs[1].data[..], &two.outputs[1].shape),
        (&strings(&["bb", "ccc", "dddd", "e"])[..], &vec![2, 2])
    );
    let three = outcome(three).await.unwrap();
    assert_eq!(three.outputs.len(), 1, "only what was asked for");
    assert_eq!(three.outputs[0].data, strings(&["f", "g"]));
    assert_eq!(count(&engine), (4, 1, 3, 0));
}

#[tokio::test]
async fn an_error_reaches_its_request_only() {
    let (engine, mut worker) = serving(dynamic(json!({"hold_until": 2})));
    let one = infer_now(&engine, &[1, 1]).await;
    let two = infer_now(&engine, &[2, 2]).await;
    let call = worker.call().await;
    let output = worker.outputs(&call, call.area, &[(DataType::Int32, &[1, 2], &bytes(&[9, 9]))]);
    let good = Record { request: 0, ..output };
    let bad = Record { request: 1, status: 2, text: b"model raised: no".to_vec(), ..record(&call, Vec::new()) };
    worker.reply(&[bad, good]);
    assert_eq!(values(one).await, [9, 9]);
    let error = outcome(two).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.code()), ("model raised: no", crate::Code::Internal));
    assert_eq!(count(&engine), (1, 1, 1, 1));
}

#[tokio::test]
async fn a_lost_worker_fails_what_it_had_started_and_a_replacement_serves_the_rest() {
    let (engine, mut worker) = serving(json!({}));
    let mut events = engine.take_events().unwrap();
    let started = infer_now(&engine, &[1, 1]).await;
    let sent = infer_now(&engine, &[2, 2]).await;
    let queued = infer_now(&engine, &[3, 3]).await;
    let call = worker.call().await;
    worker.start(&call);
    let lost = worker.id;
    drop(worker); // its second frame was never read
    let error = outcome(started).await.unwrap_err();
    assert!(matches!(error, InferError::WorkerLost { .. }), "{error:?}");
    let event = events.recv().await.unwrap();
    let reason = "end of file".to_owned();
    assert_eq!(event, Event::WorkerLost { worker: lost, model: "m".into(), version: 1, started: 1, reason });
    assert!(!engine.registry().ready("m", None).await.unwrap());
    let mut next = open(&engine);
    engine.workers().attach("m", 1, next.id).unwrap();
    assert!(engine.registry().ready("m", Some(1)).await.unwrap());
    for (waiting, expected) in [(sent, [2, 2]), (queued, [3, 3])] {
        let call = next.call().await;
        next.reply(&[next.echo(&call)]);
        assert_eq!(values(waiting).await, expected);
    }
    assert_eq!(count(&engine), (2, 2, 2, 1));
}

#[tokio::test]
async fn what_was_not_started_is_served_again_in_its_order() {
    let (engine, worker) = serving(json!({}));
    let mut waiting = Vec::new();
    for number in 0..4 {
        waiting.push(infer_now(&engine, &[number, number]).await);
    }
    let mut events = engine.take_events().unwrap();
    drop(worker); // with two frames in flight and two requests in line
    events.recv().await.unwrap();
    settle().await;
    let mut next = open(&engine);
    engine.workers().attach("m", 1, next.id).unwrap();
    for (number, waiting) in (0..).zip(waiting) {
        let call = next.call().await;
        assert_eq!(next.read(call.entries[0].range), bytes(&[number, number]));
        next.reply(&[Record { times: [0, 0, 600_000, 600_000], ..next.echo(&call) }]);
        assert_eq!(values(waiting).await, [number; 2]);
    }
}

#[tokio::test]
async fn requests_that_come_together_go_to_idle_instances() {
    let engine = engine();
    let (mut one, mut two) = (open(&engine), open(&engine));
    engine.publish(spec(&[&one, &two], json!({}))).unwrap();
    let first = infer_now(&engine, &[1, 1]).await;
    let call = one.call().await;
    one.reply(&[one.echo(&call)]);
    values(first).await; // calls are known to be short from here on
    settle().await;
    let together = [infer(&engine, request(&[2, 2])), infer(&engine, request(&[3, 3]))];
    let calls = [one.call().await, two.call().await];
    one.reply(&[one.echo(&calls[0])]);
    two.reply(&[two.echo(&calls[1])]);
    for waiting in together {
        outcome(waiting).await.unwrap();
    }
}

#[tokio::test]
async fn replies_sent_before_a_death_still_count() {
    let (engine, mut worker) = serving(json!({}));
    let answered = infer_now(&engine, &[1, 1]).await;
    let call = worker.call().await;
    worker.start(&call);
    let second = infer_now(&engine, &[2, 2]).await;
    worker.reply(&[worker.echo(&call)]);
    drop(worker); // with an unread frame: the core sees a reset first
    assert_eq!(values(answered).await, [1, 1]);
    let mut next = open(&engine);
    engine.workers().attach("m", 1, next.id).unwrap();
    let call = next.call().await;
    next.reply(&[next.echo(&call)]);
    assert_eq!(values(second).await, [2, 2]);
}

/// Outputs of a size that nobody tells.
fn variable() -> Value {
    json!([{"name": "y", "datatype": "INT32", "dims": [-1], "reshape": null, "optional": false, "labels": []}])
}

#[tokio::test]
async fn a_worker_that_lacks_room_is_granted_more_within_the_budget() {
    let (engine, mut worker) = serving(json!({"outputs": variable()}));
    let waiting = infer_now(&engine, &[1, 2]).await;
    let call = worker.call().await;
    assert_eq!(call.area.length, 4096, "the first guess for an unknown size");
    worker.send(&other_side::need(call.call, u64::MAX));
    let refused = FromCore::Grant { call: call.call, status: 1, range: Range::default() };
    assert_eq!(worker.frame().await, Some(refused));
    let many = 3 << 20;
    worker.send(&other_side::need(call.call, many));
    let Some(FromCore::Grant { status: 0, range, .. }) = worker.frame().await else { panic!("no grant") };
    assert_eq!((range.length, range.segment), (many, 1), "a new segment went ahead");
    let large = vec![7_u8; many as usize];
    worker.reply(&[worker.outputs(&call, range, &[(DataType::Int32, &[1, many as i64 / 4], &large)])]);
    let response = outcome(waiting).await.unwrap();
    assert_eq!(response.outputs[0].data, large, "lent");
    let again = infer_now(&engine, &[1, 2]).await;
    let next = worker.call().await;
    assert_eq!(next.area.length, many, "the size was learned");
    assert_ne!(
        (next.area.segment, next.area.offset),
        (range.segment, range.offset),
        "lent bytes are not handed out again"
    );
    drop(response);
    drop(again);
}

#[tokio::test]
async fn what_an_answer_takes_is_learned_from_its_own_rows() {
    let mut change = dynamic(json!({"hold_until": 2}));
    change["outputs"] = variable();
    let (engine, mut worker) = serving(change);
    let waiting = [infer_now(&engine, &[1, 1]).await, infer_now(&engine, &[2, 2]).await];
    let call = worker.call().await;
    let answers: Vec<_> = (0..2)
        .map(|request| {
            let range = Range { offset: call.area.offset + u64::from(request) * 1024, ..call.area };
            let output = (DataType::Int32, &[1_i64, 256][..], &[7_u8; 1024][..]);
            Record { request, ..worker.outputs(&call, range, &[output]) }
        })
        .collect();
    worker.reply(&answers);
    for each in waiting {
        assert_eq!(values(each).await.len(), 256);
    }
    let last = infer_now(&engine, &[3, 3]).await;
    assert_eq!(worker.call().await.area.length, 1024, "one row of the two that the call had");
    drop(last);
}

#[tokio::test]
async fn a_queued_request_leaves_at_once_and_a_running_one_is_marked() {
    let (engine, mut worker) = serving(dynamic(json!({})));
    let running = infer_now(&engine, &[1, 1]).await;
    let sent = infer_now(&engine, &[2, 2]).await;
    let queued = infer_now(&engine, &[3, 3]).await;
    let call = worker.call().await;
    assert_eq!(engine.admission.running(), 3);
    queued.abort();
    settle().await;
    assert_eq!(engine.admission.running(), 2, "the queued one is gone");
    assert!(!worker.is_cancelled(&call));
    running.abort();
    settle().await;
    assert!(worker.is_cancelled(&call));
    worker.reply(&[Record { status: 8, ..record(&call, Vec::new()) }]);
    let second = worker.call().await;
    assert!(!worker.is_cancelled(&second));
    worker.reply(&[worker.echo(&second)]);
    assert_eq!(values(sent).await, [2, 2]);
    worker.assert_silent().await;
    assert_eq!(count(&engine), (1, 1, 1, 2));
}
