//! Flat objects both ways (W58, W61).

use std::sync::Arc;

use naiad_tensor::DataType;

use super::*;
use crate::request::{OutputTensor, Timing};

fn model(max_batch_size: u32, inputs: &[(&str, &str, &str)]) -> ModelSpec {
    let inputs = inputs.iter().map(|(name, datatype, dims)| {
        format!(
            r#"{{"name":"{name}","datatype":"{datatype}","dims":{dims},"reshape":null,"optional":false,"labels":[]}}"#
        )
    });
    let inputs: Vec<_> = inputs.collect();
    let text = format!(
        r#"{{"name":"m","version":1,"platform":"identity","max_batch_size":{max_batch_size},"inputs":[{}],"outputs":[],
        "scheduler":{{"kind":"direct"}},"max_queue_size":10,"config":"{{}}","workers":[],"default_version":true}}"#,
        inputs.join(",")
    );
    serde_json::from_str(&text).unwrap()
}

fn ask(model: &ModelSpec, body: &str) -> Result<InferRequest, String> {
    let target = Target { model: Arc::from("m"), version: None, json_length: None };
    let options = DecodeOptions { max_input_size: 1000 };
    decode_generate(model, target, body.as_bytes(), options).map_err(|error| error.to_string())
}

fn shape(batch: u32, dims: &str, value: &str) -> Result<Vec<i64>, String> {
    let model = model(batch, &[("IN", "INT32", dims)]);
    Ok(ask(&model, &format!(r#"{{"IN":{value}}}"#))?.inputs[0].shape.clone())
}

#[test]
fn w61_keys_are_inputs_or_parameters() {
    let model = model(0, &[("text", "BYTES", "[1]"), ("n", "INT32", "[-1]")]);
    let body = r#"{"id":"7","text":"hi","stream":true,"parameters":{"n":[1,2],"x":1.5,"timeout":9},"y":"z"}"#;
    let request = ask(&model, body).unwrap();
    assert_eq!((request.id.as_str(), request.timeout_us), ("7", 9));
    let inputs: Vec<_> =
        request.inputs.iter().map(|input| (input.name.as_str(), &input.shape[..], input.data.to_vec())).collect();
    let numbers = [1, 0, 0, 0, 2, 0, 0, 0];
    assert_eq!(inputs, [("text", &[1][..], b"\x02\0\0\0hi".to_vec()), ("n", &[2][..], numbers.to_vec())]);
    let names: Vec<_> = request.parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["stream", "x", "y"]);
}

#[test]
fn w61_the_innermost_variable_dim_takes_the_rest() {
    assert_eq!(shape(0, "[-1]", "5"), Ok(vec![1]));
    assert_eq!(shape(8, "[1]", "5"), Ok(vec![1, 1]));
    assert_eq!(shape(8, "[3]", "[1,2,3]"), Ok(vec![1, 3]));
    assert_eq!(shape(8, "[-1,2]", "[1,2,3,4]"), Ok(vec![1, 2, 2]));
    assert_eq!(shape(0, "[-1,-1,2]", "[1,2,3,4]"), Ok(vec![1, 2, 2]));
    assert_eq!(shape(8, "[2]", "[1,2,3,4]"), Ok(vec![2, 2]));
    let refused = Err("The schema can not convert input 'IN' to tensor with proper shape".to_owned());
    assert_eq!(shape(0, "[2]", "[1,2,3]"), refused);
    assert_eq!(shape(0, "[-1,2]", "[1,2,3]"), refused);
    assert_eq!(shape(0, "[2]", "1"), refused);
}

#[test]
fn what_is_wrong_is_said() {
    let model = model(0, &[("IN", "FP32", "[-1]")]);
    for (body, text) in [
        ("", "failed to parse the request JSON buffer: The document is empty. at 0"),
        (r#"{"IN":1"#, "failed to parse the request JSON buffer: Missing a comma or '}' after an object member. at 7"),
        ("[1]", "failed to get generate request: attempt to get members for non-object"),
        (r#"{"id":7}"#, "Unable to parse 'id': attempt to access JSON non-string as string"),
        (r#"{"IN":"x"}"#, "Unable to parse 'data': attempt to access JSON non-number as double"),
        (r#"{"IN":{"a":1}}"#, "Unable to parse 'data': attempt to access JSON non-number as double"),
        (r#"{"IN":1,"IN":2}"#, "[request id: <id_unknown>] input 'IN' already exists in request"),
        (r#"{"x":[1]}"#, "parameter 'x' has invalid type. It should be either 'int', 'bool', or 'string'."),
        (
            r#"{"parameters":{"triton_x":1}}"#,
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.",
        ),
    ] {
        assert_eq!(ask(&model, body).map(|_| ()).unwrap_err(), text, "{body}");
    }
    assert!(ask(&model, r#"{"parameters":5}"#).is_ok(), "a parameter of that name");
}

#[test]
fn w58_one_object_with_keys_in_the_order_of_their_bytes() {
    let output = |name: &str, datatype, shape: &[i64], data: Vec<u8>| OutputTensor {
        name: name.into(),
        datatype,
        shape: shape.to_vec(),
        data: data.into(),
    };
    let floats = [1.0_f32, 2.5].iter().flat_map(|value| value.to_le_bytes()).collect();
    let response = InferResponse {
        model: "m.v1".into(),
        version: 3,
        id: "7".to_owned(),
        parameters: Arc::new(vec![
            ("finish".to_owned(), Parameter::String("a\"".to_owned())),
            ("id".to_owned(), Parameter::Int(1)),
        ]),
        outputs: vec![
            output("text", DataType::Bytes, &[1, 1], b"\x02\0\0\0hi".to_vec()),
            output("OUTPUT0", DataType::Fp32, &[2], floats),
            output("none", DataType::Int32, &[0], Vec::new()),
        ],
        timing: Timing::default(),
    };
    let text = encode_generate(&response, "m");
    assert_eq!(
        String::from_utf8_lossy(&text),
        r#"{"OUTPUT0":[1.0,2.5],"finish":"a\"","id":1,"model_name":"m","model_version":"3","none":[],"text":"hi"}"#
    );
}
