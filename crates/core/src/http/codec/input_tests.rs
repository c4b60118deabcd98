//! Binary tensors of a body that came in several pieces.

use std::sync::Arc;

use bytes::Bytes;

use super::super::{DecodeOptions, Target, decode};
use super::*;
use crate::model::walk_strings;

#[test]
fn w27_a_body_reads_the_same_in_any_pieces() {
    let tensor = |name: &str, datatype: &str| {
        format!(
            r#"{{"name":"{name}","datatype":"{datatype}","dims":[-1],"reshape":null,"optional":false,"labels":[]}}"#
        )
    };
    let model = format!(
        r#"{{"name":"m","version":1,"platform":"p","max_batch_size":0,"scheduler":{{"kind":"direct"}},
        "max_queue_size":10,"config":"{{}}","workers":[],"default_version":true,"inputs":[{},{}],"outputs":[]}}"#,
        tensor("A", "FP32"),
        tensor("S", "BYTES")
    );
    let model: ModelSpec = serde_json::from_str(&model).unwrap();
    let json = r#"{"inputs":[{"name":"A","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}},
        {"name":"S","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":13}}]}"#;
    let body = [json.as_bytes(), b"12345678", b"\x03\0\0\0abc\x02\0\0\0de"].concat();
    let length = json.len().to_string();
    for size in 1..=body.len() {
        let mut rope = Rope::default();
        for piece in body.chunks(size) {
            rope.push(Bytes::copy_from_slice(piece));
        }
        let target = Target { model: Arc::from("m"), version: None, json_length: Some(length.as_bytes()) };
        let (request, _) = decode(&model, target, rope, DecodeOptions { max_input_size: 1 << 20 }).unwrap();
        assert_eq!(request.inputs[0].data.to_vec(), b"12345678");
        // Strings are read from element to element.
        assert!(request.inputs[1].data.is_whole());
        assert_eq!(walk_strings(&request.inputs[1].data.contiguous(), 2), Ok(2));
    }
}
