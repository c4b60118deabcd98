//! What the targets share: models to decode for, and what must hold of whatever was decoded.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use naiad_core::InferError;
use naiad_core::grpc;
use naiad_core::grpc::message::Inference;
use naiad_core::grpc::messages::inference::ModelInferRequest;
use naiad_core::http::codec::{self, DecodeOptions, Target};
use naiad_core::request::{InferRequest, InferResponse, OutputTensor, Timing};
use naiad_core::rope::Rope;
use naiad_core::spec::ModelSpec;

/// Bytes that a body may make of itself.
const LIMIT: u64 = 1 << 20;

/// A model with an input and an output of every kind that the codec treats in its own way.
pub static MODEL: LazyLock<ModelSpec> = LazyLock::new(|| {
    let tensor = |name: &str, datatype: &str, dims: &[i64]| serde_json::json!({"name": name, "datatype": datatype, "dims": dims, "reshape": null, "optional": true, "labels": ["a"]});
    let kinds = [
        ("F", "FP32"),
        ("D", "FP64"),
        ("H", "FP16"),
        ("B", "BF16"),
        ("S", "BYTES"),
        ("T", "BOOL"),
        ("I", "INT64"),
        ("U", "UINT64"),
        ("C", "INT8"),
        ("E", "UINT8"),
        ("J", "INT16"),
        ("K", "INT32"),
        ("L", "UINT32"),
    ];
    let tensors: Vec<_> = kinds.iter().map(|(name, datatype)| tensor(name, datatype, &[-1])).collect();
    let spec = serde_json::json!({
        "name": "m", "version": 1, "platform": "identity", "max_batch_size": 0, "inputs": tensors, "outputs": tensors,
        "scheduler": {"kind": "direct"}, "max_queue_size": 1, "config": "{}", "workers": [], "default_version": true
    });
    serde_json::from_value(spec).expect("the document follows spec.rs")
});

/// Decodes a body and, where it is a request, prints it back as the answer of a model that repeats its inputs.
pub fn round(body: &[u8], json_length: Option<&[u8]>) {
    let target = Target { model: Arc::from("m"), version: None, json_length };
    let options = DecodeOptions { max_input_size: LIMIT };
    let decoded = codec::decode(&MODEL, target, Bytes::copy_from_slice(body).into(), options);
    match decoded {
        Err(error) => check(&error),
        Ok((request, form)) => {
            let held: usize = request.inputs.iter().map(|input| input.data.len()).sum();
            assert!(held <= body.len() + LIMIT as usize * request.inputs.len(), "{held} bytes of {}", body.len());
            match codec::encode(&answer(&request), "m", &form) {
                Err(error) => check(&error),
                Ok(encoded) => {
                    let text = &encoded.body[0];
                    let json = &text[..encoded.json_length.unwrap_or(text.len())];
                    assert!(std::str::from_utf8(json).is_ok(), "the answer is no text");
                }
            }
        }
    }
}

/// The same for a message of gRPC.
pub fn round_grpc(message: &[u8]) {
    let decoded = grpc::message::decode::<ModelInferRequest>(Bytes::copy_from_slice(message));
    check_pieces(message, decoded.as_ref().ok());
    let decoded = match decoded {
        Err(error) => return assert!(!error.text().is_empty()),
        Ok(decoded) => decoded,
    };
    match grpc::codec::decode(&MODEL, Arc::from("m"), None, decoded) {
        Err(error) => check(&error),
        Ok((request, form)) => {
            let held: usize = request.inputs.iter().map(|input| input.data.len()).sum();
            // The widest element of the contents becomes eight bytes, and takes one at least.
            assert!(held <= message.len() * 8, "{held} bytes of {}", message.len());
            match grpc::codec::encode(&answer(&request), "m", &form, Some(true)) {
                Err(error) => check(&error),
                Ok(encoded) => assert!(encoded.finish(true).is_some(), "a small answer is never too long"),
            }
        }
    }
}

/// A message in two pieces says what it says in one.
fn check_pieces(message: &[u8], whole: Option<&ModelInferRequest>) {
    let (front, back) = message.split_at(message.len() / 2);
    let mut rope = Rope::default();
    rope.push(Bytes::copy_from_slice(front));
    rope.push(Bytes::copy_from_slice(back));
    let pieces = grpc::message::inference(rope).ok().map(|Inference { mut message, raw }| {
        message.raw_input_contents.extend(raw.into_iter().map(Rope::into_bytes));
        message
    });
    // As text, for a number that is none equals nothing.
    assert_eq!(format!("{:?}", pieces.as_ref()), format!("{whole:?}"));
}

/// A refusal names something and fits into a header-sized answer whatever was sent.
fn check(error: &InferError) {
    assert!(!error.to_string().is_empty());
}

fn answer(request: &InferRequest) -> InferResponse {
    // The engine checks sizes before a model sees them; only what fits its shape is answered.
    let fits = |input: &&naiad_core::request::InputTensor| {
        let size = naiad_core::model::byte_size(input.datatype, &input.shape);
        size.is_some_and(|size| size == input.data.len() as u64)
    };
    let outputs = request.inputs.iter().filter(fits).map(|input| OutputTensor {
        name: Arc::from(input.name.as_str()),
        datatype: input.datatype,
        shape: input.shape.clone(),
        data: input.data.clone().into_bytes(),
    });
    InferResponse {
        model: Arc::clone(&request.model),
        version: 1,
        id: request.id.clone(),
        parameters: Arc::new(request.parameters.clone()),
        outputs: outputs.collect(),
        timing: Timing::default(),
    }
}
