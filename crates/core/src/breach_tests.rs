//! Workers that break the protocol or ask for too much lose their channel, and nobody else does.

use naiad_tensor::DataType;
use serde_json::json;

use super::tests::{engine, infer_now, open, outcome, serving, spec, values};
use super::*;
use crate::error::Code;
use crate::instance::fake_worker::{FakeWorker, record};
use crate::instance::frame::other_side;
use crate::instance::frame::{Call, Range, Record, TensorEntry, WHOLE};

#[tokio::test]
async fn a_worker_that_asks_for_room_without_end_is_closed() {
    for (bytes, why) in [(0, "NEED of no bytes"), (64, "256 frames wait for a worker that asks for more")] {
        let (engine, mut worker) = serving(json!({}));
        let mut events = engine.take_events().unwrap();
        let waiting = infer_now(&engine, &[1, 2]).await;
        let call = worker.call().await;
        worker.start(&call);
        worker.pester(&other_side::need(call.call, bytes)).await;
        assert_eq!(outcome(waiting).await.unwrap_err().code(), Code::Unavailable);
        let Some(Event::WorkerLost { reason, .. }) = events.recv().await else { panic!("nobody is told") };
        assert!(reason.contains(why), "{reason}");
    }
}

/// Sends `spoil`'s frame after a call and expects that only this worker is closed.
async fn closes_only_that_worker(spoil: impl Fn(&FakeWorker, &Call) -> Vec<u8>) -> String {
    let engine = engine();
    let mut events = engine.take_events().unwrap();
    let (mut bad, mut good) = (open(&engine), open(&engine));
    engine.publish(spec(&[&bad, &good], json!({}))).unwrap();
    let one = infer_now(&engine, &[1, 1]).await;
    let call = bad.call().await;
    bad.start(&call);
    let two = infer_now(&engine, &[2, 2]).await;
    bad.send(&spoil(&bad, &call));
    assert!(bad.frame().await.is_none(), "its channel is closed");
    assert!(matches!(outcome(one).await, Err(InferError::WorkerLost { .. })));
    let call = good.call().await;
    good.reply(&[good.echo(&call)]);
    assert_eq!(values(two).await, [2, 2]);
    let Event::WorkerLost { worker, reason, .. } = events.recv().await.unwrap();
    assert_eq!(worker, bad.id);
    reason
}

#[tokio::test]
async fn a_worker_that_breaks_the_protocol_loses_its_channel() {
    let reason = closes_only_that_worker(|_, _| vec![9; 20]).await;
    assert_eq!(reason, "frame of version 9, expected 1");
    let other = |_: &FakeWorker, call: &Call| other_side::reply(&[Record { call: 99, ..record(call, vec![]) }]);
    assert_eq!(closes_only_that_worker(other).await, "reply to call 99: not in flight");
    let member = |_: &FakeWorker, call: &Call| other_side::reply(&[Record { request: 1, ..record(call, vec![]) }]);
    assert_eq!(closes_only_that_worker(member).await, "reply to request 1 of call 1: not in flight");
    let entry = |range, dims| TensorEntry { tensor: 0, datatype: DataType::Int32, request: WHOLE, range, dims };
    let range = |offset, length| Range { segment: 0, offset, length };
    let outside =
        |_: &FakeWorker, call: &Call| other_side::reply(&[record(call, vec![entry(range(0, 8), vec![1, 2])])]);
    assert_eq!(closes_only_that_worker(outside).await, "8 bytes at 0 lie outside the call's area");
    let wrap = |_: &FakeWorker, call: &Call| {
        other_side::reply(&[record(call, vec![entry(range(u64::MAX - 3, 8), vec![1, 2])])])
    };
    assert!(closes_only_that_worker(wrap).await.contains("outside the call's area"));
    let short = |_: &FakeWorker, call: &Call| {
        other_side::reply(&[record(call, vec![entry(range(call.area.offset, 4), vec![1, 2])])])
    };
    assert_eq!(closes_only_that_worker(short).await, "output 'y' of shape [1,2] holds 4 bytes");
    let long = |_: &FakeWorker, call: &Call| {
        other_side::reply(&[record(call, vec![entry(range(call.area.offset, 128), vec![1, 32])])])
    };
    assert!(closes_only_that_worker(long).await.contains("outside the call's area"));
    let negative = |_: &FakeWorker, call: &Call| {
        other_side::reply(&[record(call, vec![entry(range(call.area.offset, 8), vec![-1, -2])])])
    };
    assert_eq!(closes_only_that_worker(negative).await, "output 'y' of shape [-1,-2] holds 8 bytes");
}
