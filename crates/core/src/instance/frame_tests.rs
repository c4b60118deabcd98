//! The golden frames, which the worker's tests read too.

use naiad_tensor::DataType;
use serde_json::Value;

use super::other_side::{self, FromCore};
use super::*;

fn golden() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/frames.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(frame: &Value) -> Vec<u8> {
    let hex = frame["hex"].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value, key: &str) -> T {
    T::try_from(value[key].as_u64().unwrap()).unwrap()
}

fn list<'a, T>(value: &'a Value, key: &str, read: impl Fn(&'a Value) -> T) -> Vec<T> {
    value[key].as_array().unwrap().iter().map(read).collect()
}

fn range(value: &Value) -> Range {
    Range { segment: number(value, "segment"), offset: number(value, "offset"), length: number(value, "length") }
}

fn entry(value: &Value) -> TensorEntry {
    TensorEntry {
        tensor: number(value, "tensor"),
        datatype: DataType::from_code(number(value, "datatype")).unwrap(),
        request: number(value, "request"),
        range: range(&value["range"]),
        dims: list(value, "dims", |dim| dim.as_i64().unwrap()),
    }
}

fn call(value: &Value) -> Call {
    let request = |value| RequestSlot {
        slot: number(value, "slot"),
        tag: number(value, "tag"),
        rows: number(value, "rows"),
        meta: range(&value["meta"]),
    };
    Call {
        call: number(value, "call"),
        listed: number::<u8>(value, "mode") == 1,
        rows: number(value, "rows"),
        area: range(&value["area"]),
        requests: list(value, "requests", request),
        entries: list(value, "entries", entry),
    }
}

fn record(value: &Value) -> Record {
    Record {
        call: number(value, "call"),
        request: number(value, "request"),
        status: number(value, "status"),
        last: value["final"].as_bool().unwrap(),
        released: value["released"].as_bool().unwrap_or_default(),
        bare: value["bare"].as_bool().unwrap_or_default(),
        times: list(value, "times", |time| time.as_u64().unwrap()).try_into().unwrap(),
        entries: list(value, "entries", entry),
        text: value["text"].as_str().unwrap().as_bytes().to_vec(),
    }
}

#[test]
fn golden_frames_encode_and_decode_on_both_sides() {
    let mut seen = 0;
    for frame in golden().iter().filter(|frame| frame["kind"] != "MALFORMED") {
        let (fields, wire) = (&frame["fields"], bytes(frame));
        let name = frame["name"].as_str().unwrap();
        match frame["kind"].as_str().unwrap() {
            "EXECUTE" => {
                let calls = list(fields, "calls", call);
                let mut execute = Execute::new();
                for call in &calls {
                    execute.push(call).unwrap();
                }
                assert_eq!(execute.finish(), wire, "{name}");
                assert_eq!(other_side::decode(&wire), Ok(FromCore::Execute(calls)), "{name}");
            }
            "REPLY" => {
                let records = list(fields, "records", record);
                assert_eq!(other_side::reply(&records), wire, "{name}");
                assert_eq!(decode(&wire), Ok(FromWorker::Reply(records)), "{name}");
            }
            "NEED" => {
                let (call, wanted) = (number(fields, "call"), number(fields, "bytes"));
                assert_eq!(other_side::need(call, wanted), wire, "{name}");
                assert_eq!(decode(&wire), Ok(FromWorker::Need { call, bytes: wanted }), "{name}");
            }
            "GRANT" => {
                let granted = range(&fields["range"]);
                let ok = fields["status"] == 0;
                assert_eq!(grant(number(fields, "call"), ok.then_some(granted)), wire, "{name}");
            }
            "SEGMENT" => assert_eq!(segment(number(fields, "segment"), number(fields, "size")), wire, "{name}"),
            kind => panic!("{name}: unknown kind {kind}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 13, "frames of the golden file");
}

#[test]
fn malformed_frames_are_refused() {
    for frame in golden().iter().filter(|frame| frame["kind"] == "MALFORMED") {
        let refused = match frame["direction"].as_str().unwrap() {
            "worker_to_core" => decode(&bytes(frame)).is_err(),
            _ => other_side::decode(&bytes(frame)).is_err(),
        };
        assert!(refused, "{}", frame["name"]);
    }
}

#[test]
fn a_cut_or_flipped_frame_never_panics() {
    for frame in golden() {
        let wire = bytes(&frame);
        for length in 0..wire.len() {
            assert!(decode(&wire[..length]).is_err());
            let mut flipped = wire.clone();
            flipped[length] ^= 0xff;
            let _ = decode(&flipped);
        }
    }
}

#[test]
fn a_call_that_does_not_fit_leaves_the_frame_as_it_was() {
    let slot = RequestSlot { slot: 0, tag: 1, rows: 1, meta: Range::default() };
    let call =
        |requests| Call { call: 1, listed: false, rows: 1, area: Range::default(), requests, entries: Vec::new() };
    let mut execute = Execute::new();
    execute.push(&call(vec![slot])).unwrap();
    assert!(matches!(execute.push(&call(vec![slot; 3000])), Err(FrameError::TooLong(_))));
    assert_eq!(other_side::decode(&execute.finish()), Ok(FromCore::Execute(vec![call(vec![slot])])));
}
