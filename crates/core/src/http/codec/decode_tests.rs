//! Bodies as clients send them, and what is wrong with them; the texts were taken from a running Triton.

use std::sync::Arc;

use super::*;
use crate::request::InputTensor;
use crate::shared_memory::Window;

const MAX: u64 = 1 << 20;

fn model(inputs: &str, max_batch_size: u32) -> ModelSpec {
    let text = format!(
        r#"{{"name":"m","version":1,"platform":"identity","max_batch_size":{max_batch_size},"inputs":[{inputs}],
        "outputs":[{{"name":"OUT","datatype":"FP32","dims":[-1],"reshape":null,"optional":false,"labels":["a","b"]}}],
        "scheduler":{{"kind":"direct"}},"max_queue_size":10,"config":"{{}}","workers":[],"default_version":true}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn input(name: &str, datatype: &str, dims: &str) -> String {
    format!(r#"{{"name":"{name}","datatype":"{datatype}","dims":{dims},"reshape":null,"optional":false,"labels":[]}}"#)
}

fn one(datatype: &str) -> ModelSpec {
    model(&input("IN", datatype, "[-1]"), 0)
}

fn ask(model: &ModelSpec, header: Option<&str>, body: &[u8]) -> Result<(InferRequest, ResponseForm), String> {
    let target = Target { model: Arc::from("m"), version: None, json_length: header.map(str::as_bytes) };
    decode(model, target, body.to_vec().into(), DecodeOptions { max_input_size: MAX })
        .map_err(|error| error.to_string())
}

fn json(body: &str) -> Result<(InferRequest, ResponseForm), String> {
    ask(&one("FP32"), None, body.as_bytes())
}

fn refused(body: &str) -> String {
    json(body).map(|_| ()).unwrap_err()
}

fn floats(input: &InputTensor) -> Vec<f32> {
    input.data.contiguous().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

const SYNTAX: &[(&str, &str)] = &[
    (r#"{"inputs":[}"#, "Invalid value. at 11"),
    (r#"{"inputs":tru}"#, "Invalid value. at 13"),
    (r#"{"a":"x"#, "Missing a closing quotation mark in string. at 7"),
    (r#"{"a":1"#, "Missing a comma or '}' after an object member. at 6"),
    (r#"{"a":[1,]}"#, "Invalid value. at 8"),
    (r#"{"a":[1 2]}"#, "Missing a comma or ']' after an array element. at 8"),
    (r#"{"a":1e}"#, "Miss exponent in number. at 7"),
    (r#"{"a":1.}"#, "Miss fraction part in number. at 7"),
    (r#"{"a":01}"#, "Missing a comma or '}' after an object member. at 6"),
    (r#"{"a":-}"#, "Invalid value. at 6"),
    (r#"{"a":"\x"}"#, "Invalid escape character in string. at 6"),
    (r#"{"a":"\u12g"}"#, "Incorrect hex digit after \\u escape in string. at 6"),
    (r#"{"a":"\ud800"}"#, "The surrogate pair in string is invalid. at 6"),
    (r#"{"a":1e999}"#, "Number too big to be stored in double. at 5"),
    ("{a:1}", "Missing a name for object member. at 1"),
    (r#"{"a" 1}"#, "Missing a colon after a name of object member. at 5"),
    ("{} x", "The document root must not be followed by other values. at 3"),
    ("  ", "The document is empty. at 2"),
    ("{\"a\":\"\u{1}\"}", "Invalid escape character in string. at 6"),
    (r#"{"a":nul}"#, "Invalid value. at 8"),
    (r#"{"a":falsy}"#, "Invalid value. at 9"),
    (r#"{"a":Inx}"#, "Invalid value. at 7"),
    (r#"{"a":,}"#, "Invalid value. at 5"),
    (r#"{"inputs":["#, "Invalid value. at 11"),
    (r#"{"id":5,"inputs":[}"#, "Invalid value. at 18"),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32","data":[1.,2]}]}"#,
        "Miss fraction part in number. at 64",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32","data":[1 2]}]}"#,
        "Missing a comma or ']' after an array element. at 64",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32","data":[1,1e999]}]}"#,
        "Number too big to be stored in double. at 64",
    ),
];

#[test]
fn w13_syntax_faults_have_their_text_and_offset() {
    for (body, text) in SYNTAX {
        assert_eq!(refused(body), format!("failed to parse the request JSON buffer: {text}"), "{body}");
    }
}

/// `$` stands for a good `data` member.
const WRONG: &[(&str, &str)] = &[
    ("[1]", "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'"),
    ("{}", "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'"),
    (r#"{"id":5,"inputs":[]}"#, "Unable to parse 'id': attempt to access JSON non-string as string"),
    (r#"{"inputs":{}}"#, "Unable to parse 'inputs': attempt to access JSON non-array as array"),
    (r#"{"inputs":[1]}"#, "NONE"),
    (
        r#"{"inputs":[{"name":5,"shape":[2],"datatype":"FP32",$}]}"#,
        "Unable to parse 'name': attempt to access JSON non-string as string",
    ),
    (
        r#"{"inputs":[{"shape":[2],"datatype":"FP32",$}]}"#,
        "Unable to parse 'name': attempt to access non-existing object member 'name'",
    ),
    (
        r#"{"inputs":[{"name":"IN","datatype":"FP32",$}]}"#,
        "Unable to parse 'shape': attempt to access non-existing object member 'shape'",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],$}]}"#,
        "Unable to parse 'datatype': attempt to access non-existing object member 'datatype'",
    ),
    (r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32"}]}"#, "NONE"),
    (r#"{"inputs":[{"name":"IN","shape":[0],"datatype":"FP32"}]}"#, "NONE"),
    (r#"{"inputs":[{"name":"IN","shape":[-1],"datatype":"FP32",$}]}"#, "SHAPE"),
    (r#"{"inputs":[{"name":"IN","shape":[1.5],"datatype":"FP32",$}]}"#, "SHAPE"),
    (r#"{"inputs":[{"name":"IN","shape":[2e0],"datatype":"FP32",$}]}"#, "SHAPE"),
    (r#"{"inputs":[{"name":"IN","shape":[-0],"datatype":"FP32",$}]}"#, "SHAPE"),
    (r#"{"inputs":[{"name":"IN","shape":["2"],"datatype":"FP32",$}]}"#, "SHAPE"),
    (
        r#"{"inputs":[{"name":"IN","shape":"x","datatype":"FP32",$}]}"#,
        "Unable to parse 'shape': attempt to access JSON non-array as array",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[9223372036854775808],"datatype":"FP32",$}]}"#,
        "Unable to parse 'shape': dimension 9223372036854775808 exceeds the maximum of 9223372036854775807",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[9223372036854775807],"datatype":"FP32",$}]}"#,
        "byte size overflow for input 'IN': shape [9223372036854775807] of datatype FP32 exceeds maximum size of \
      9223372036854775807 bytes",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[2147483648,2147483648,2147483648],"datatype":"FP32",$}]}"#,
        "invalid shape for input 'IN': shape [2147483648,2147483648,2147483648] causes total element count to exceed \
      maximum size of 9223372036854775807",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[262145],"datatype":"FP32",$}]}"#,
        "JSON input 'IN' has a byte_size (1048580 bytes) that exceeds the maximum allowed value of 1048576 bytes. \
      Use --http-max-input-size to increase the limit.",
    ),
    (r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"STRING",$}]}"#, "invalid datatype for input IN"),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"STRING","parameters":{"binary_data_size":0}}],"id":"q"}"#,
        "[request id: q] inference input 'IN' data-type is '<invalid>', but model 'm' expects 'FP32'",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[1],"datatype":"FP32",$}]}"#,
        "Unable to parse 'data': Shape does not match true shape of 'data' field",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[3],"datatype":"FP32",$}]}"#,
        "Failed to parse 'data' field: shape does not match true shape",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32","data":[1,true]}]}"#,
        "Unable to parse 'data': attempt to access JSON non-number as double",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32","data":{}}]}"#,
        "Unable to parse 'data': attempt to access JSON non-array as array",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"BYTES","data":["a",1]}]}"#,
        "Unable to parse JSON bytes array: attempt to access JSON non-string as string",
    ),
    (r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8},$}]}"#, "BOTH"),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}"#,
        "unexpected size for input 'IN', expecting 8 additional bytes for model 'm'",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":-8}}]}"#,
        "Unable to parse 'binary_data_size': attempt to access JSON non-unsigned-integer as unsigned-integer",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}]}"#,
        "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor 'IN'",
    ),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32",$,$}]}"#,
        "Unable to parse 'data': the object has more than one member 'data'",
    ),
    (
        r#"{"inputs":[{"name":"IN","name":"X","shape":[2],"datatype":"FP32",$}]}"#,
        "Unable to parse 'name': the object has more than one member 'name'",
    ),
    (r#"{"inputs":[],"inputs":[]}"#, "Unable to parse 'inputs': the object has more than one member 'inputs'"),
    (
        r#"{"inputs":[{"name":"IN","shape":[2],"datatype":"FP32",$},{"name":"IN","shape":[2],"datatype":"FP32",$}]}"#,
        "[request id: <id_unknown>] input 'IN' already exists in request",
    ),
];

#[test]
fn w15_w19_w20_what_is_wrong_is_named() {
    let fields = "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', \
                  'shared_memory_region' in 'parameters'. But ";
    for (body, text) in WRONG {
        let expected = match *text {
            "NONE" => format!("{fields}no field is set"),
            "BOTH" => format!("{fields}set 'data' 'binary_data_size'"),
            "SHAPE" => {
                "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer".to_owned()
            }
            text => text.to_owned(),
        };
        assert_eq!(refused(&body.replace('$', r#""data":[1,2]"#)), expected, "{body}");
    }
}

const GOOD: &str = r#""inputs":[{"name":"IN","shape":[2],"datatype":"FP32","data":[1,2]}]"#;

#[test]
fn w21_parameters_are_scalars() {
    let (request, form) = json(&format!(
        r#"{{{GOOD},"id":"q","parameters":{{"a":1,"b":true,"c":"x","d":1.5,"timeout":7,"priority":2,
        "binary_data_output":true,"sequence_id":"s"}}}}"#
    ))
    .unwrap();
    assert_eq!((request.id.as_str(), request.timeout_us, request.priority, form.binary), ("q", 7, 2, true));
    let expected = [
        ("a", Parameter::Int(1)),
        ("b", Parameter::Bool(true)),
        ("c", Parameter::String("x".into())),
        ("d", Parameter::Double(1.5)),
        ("sequence_id", Parameter::String("s".into())),
    ];
    let got: Vec<(&str, Parameter)> =
        request.parameters.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    assert_eq!(got, expected);
    let type_error = "parameter 'a' has invalid type. It should be either 'int', 'bool', or 'string'.";
    for (parameters, text) in [
        (r#"{"a":{}}"#, type_error),
        (r#"{"a":[1]}"#, type_error),
        (r#"{"a":null}"#, type_error),
        ("5", "failed to get request params.: attempt to get members for non-object"),
        (
            r#"{"triton_x":1}"#,
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.",
        ),
        (
            r#"{"timeout":-1}"#,
            "Unable to parse 'timeout': attempt to access JSON non-unsigned-integer as unsigned-integer",
        ),
        (
            r#"{"priority":"x"}"#,
            "Unable to parse 'priority': attempt to access JSON non-unsigned-integer as unsigned-integer",
        ),
        (
            r#"{"binary_data_output":5}"#,
            "Unable to parse 'binary_data_output': attempt to access JSON non-boolean as boolean",
        ),
        (r#"{"sequence_id":1.5}"#, "Unable to parse 'sequence_id': attempt to access JSON non-string as string"),
        (r#"{"sequence_start":1}"#, "Unable to parse 'sequence_start': attempt to access JSON non-boolean as boolean"),
    ] {
        assert_eq!(refused(&format!(r#"{{{GOOD},"parameters":{parameters}}}"#)), text, "{parameters}");
    }
}

#[test]
fn w22_outputs_are_known_and_named_once() {
    for (outputs, text) in [
        ("5", "Unable to parse 'outputs': attempt to access JSON non-array as array"),
        ("[5]", "Unable to parse 'name': attempt to access non-existing object member 'name'"),
        (r#"[{"name":"NOPE"}]"#, "unexpected inference output 'NOPE' for model 'm'"),
        (r#"[{"name":"OUT"},{"name":"OUT"}]"#, "[request id: q] output 'OUT' already exists in request"),
        (
            r#"[{"name":"OUT","parameters":{"binary_data":1}}]"#,
            "Unable to parse 'binary_data': attempt to access JSON non-boolean as boolean",
        ),
        (
            r#"[{"name":"OUT","parameters":{"classification":"1"}}]"#,
            "Unable to set 'classification': attempt to access JSON non-unsigned-integer as unsigned-integer",
        ),
        (
            r#"[{"name":"OUT","parameters":{"shared_memory_region":"r"}}]"#,
            "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor 'OUT'",
        ),
        (
            r#"[{"name":"OUT","parameters":{"classification":1,"shared_memory_region":"r"}}]"#,
            "Output can't set both 'shared_memory_region' and 'classification'",
        ),
    ] {
        assert_eq!(refused(&format!(r#"{{{GOOD},"outputs":{outputs},"id":"q"}}"#)), text, "{outputs}");
    }
    let (request, _) = json(&format!(r#"{{{GOOD},"outputs":[]}}"#)).unwrap();
    assert!(request.outputs.is_empty());
    let (request, form) = json(&format!(
        r#"{{{GOOD},"outputs":[{{"name":"OUT","parameters":{{"binary_data":true,"classification":3}}}}]}}"#
    ))
    .unwrap();
    assert_eq!(request.outputs, ["OUT"]);
    let classes = form.outputs[0].classification.as_ref().unwrap();
    assert_eq!((form.outputs[0].binary, classes.count, classes.labels.len()), (true, 3, 2));
}

#[test]
fn w76_windows_are_kept_for_whoever_knows_the_regions() {
    let there = r#""parameters":{"shared_memory_region":"r","shared_memory_byte_size":8}"#;
    let body = format!(
        r#"{{"inputs":[{{"name":"IN","shape":[2],"datatype":"FP32",{there}}}],"outputs":[{{"name":"OUT",{there}}}]}}"#
    );
    let (request, form) = json(&body).unwrap();
    let window = Window { region: "r".to_owned(), offset: 0, byte_size: 8 };
    assert!(request.inputs[0].data.is_empty() && form.outputs[0].shared);
    assert_eq!(form.windows.inputs, [(0, window.clone())]);
    assert_eq!(form.windows.outputs, [("OUT".to_owned(), window)]);
}

#[test]
fn members_may_come_in_any_order_and_unknown_ones_are_ignored() {
    let body = r#" { "x":{"y":[[1],{"inputs":5}]}, "model_name":7, "inputs" : [ { "data":[[1.5],[-2]], "z":[null],
        "datatype":"FP32", "parameters":{"content_type":"np"}, "name":"IN", "shape":[2] } ] , "id":"a\u00e9" } "#;
    let (request, _) = json(body).unwrap();
    assert_eq!(request.id, "aé");
    assert_eq!((request.inputs[0].shape.as_slice(), floats(&request.inputs[0])), (&[2][..], vec![1.5, -2.0]));
}

#[test]
fn w23_the_json_part_is_bounded() {
    let body = format!(r#"{{{GOOD},"x":"{}"}}"#, "y".repeat(MAX as usize));
    let size = body.len();
    assert_eq!(
        refused(&body),
        format!(
            "request JSON size of {size} bytes exceeds the maximum allowed input size of {MAX} bytes. Use \
             --http-max-input-size to increase the limit."
        )
    );
}

#[test]
fn w27_binary_inputs_are_slices_of_the_body_in_their_order() {
    let model = model(&[input("A", "FP32", "[-1]"), input("B", "INT8", "[-1]")].join(","), 0);
    let json = r#"{"inputs":[{"name":"B","shape":[3],"datatype":"INT8","parameters":{"binary_data_size":3}},
        {"name":"C","shape":[1],"datatype":"FP32","data":[7]},
        {"name":"A","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}]}"#;
    let mut body = json.as_bytes().to_vec();
    body.extend_from_slice(&[1, 2, 3, 0, 0, 128, 63]);
    let bytes = bytes::Bytes::from(body.clone());
    let length = json.len().to_string();
    let target = Target { model: Arc::from("m"), version: None, json_length: Some(length.as_bytes()) };
    let (request, _) = decode(&model, target, bytes.clone().into(), DecodeOptions { max_input_size: MAX }).unwrap();
    assert_eq!(request.inputs[0].data.to_vec(), [1, 2, 3]);
    assert_eq!(floats(&request.inputs[1]), [7.0]);
    assert_eq!(request.inputs[2].data.contiguous().as_ptr(), bytes[json.len() + 3..].as_ptr());
    let refused = |header: Option<&str>, body: &[u8]| ask(&model, header, body).map(|_| ()).unwrap_err();
    let cut = &body[..body.len() - 1];
    assert_eq!(
        refused(Some(&length), cut),
        "unexpected size for input 'A', expecting 1 additional bytes for model 'm'"
    );
    body.push(0);
    assert_eq!(refused(Some(&length), &body), "unexpected additional input data for model 'm'");
}

#[test]
fn w28_the_header_is_a_length_within_the_body() {
    for (header, text) in [
        ("99999", "inference header size should be in range (0, 2), got: 99999"),
        ("-1", "inference header size should be in range (0, 2), got: -1"),
        ("x", "Unable to parse Inference-Header-Content-Length, got: x"),
        ("", "Unable to parse Inference-Header-Content-Length, got: "),
        ("1e3", "Unable to parse Inference-Header-Content-Length, got: 1e3"),
        (
            "99999999999",
            "Unable to parse Inference-Header-Content-Length, value is out of range [ -2147483648, 2147483647 ], got: \
             99999999999",
        ),
    ] {
        assert_eq!(ask(&one("FP32"), Some(header), b"{}").map(|_| ()).unwrap_err(), text);
    }
    assert!(ask(&one("FP32"), Some("\u{fffd}"), b"{}").is_err());
}

#[test]
fn w31_a_raw_body_is_the_only_input() {
    let shape = |model: &ModelSpec, body: &[u8]| {
        let (request, form) = ask(model, Some("0"), body)?;
        assert!(form.binary);
        Ok::<_, String>(request.inputs[0].shape.clone())
    };
    assert_eq!(shape(&one("FP32"), &[0; 8]), Ok(vec![2]));
    assert_eq!(shape(&model(&input("IN", "FP32", "[4]"), 8), &[0; 16]), Ok(vec![1, 4]));
    assert_eq!(shape(&one("FP32"), b""), Ok(vec![0]));
    assert_eq!(ask(&one("FP32"), None, b"").unwrap().0.inputs[0].shape, [0]);
    let (request, _) = ask(&one("BYTES"), Some("0"), b"abc").unwrap();
    assert_eq!((&request.inputs[0].shape[..], request.inputs[0].data.to_vec()), (&[1][..], b"\x03\0\0\0abc".to_vec()));
    for (model, text) in [
        (
            model(&input("IN", "FP32", "[-1,-1]"), 0),
            "The shape of the raw input 'IN' can not be deduced because there are more than one variable-sized dimension",
        ),
        (
            model(&[input("A", "FP32", "[1]"), input("B", "FP32", "[1]")].join(","), 0),
            "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'm' model configuration",
        ),
        (
            model(&input("IN", "BYTES", "[2]"), 0),
            "For BYTE datatype raw input 'IN', the model must have input shape [1]",
        ),
    ] {
        assert_eq!(shape(&model, &[0; 8]), Err(format!("[request id: <id_unknown>] {text}")));
    }
}

#[test]
fn b6_lists_cannot_grow_without_bound() {
    let many = |count: usize| {
        let inputs: Vec<String> =
            (0..count).map(|at| format!(r#"{{"name":"X{at}","shape":[0],"datatype":"FP32","data":[]}}"#)).collect();
        refused(&format!(r#"{{"inputs":[{}]}}"#, inputs.join(",")))
    };
    assert_eq!(many(1000), "[request id: <id_unknown>] expected 1 inputs but got more than 17 inputs for model 'm'.");
    let dims = vec!["1"; 65].join(",");
    let body = format!(r#"{{"inputs":[{{"name":"IN","shape":[{dims}],"datatype":"FP32","data":[1]}}]}}"#);
    assert_eq!(refused(&body), "Unable to parse 'shape': more than 64 dimensions");
}

#[test]
fn no_cut_and_no_changed_byte_panics() {
    let body = format!(
        r#"{{"id":"é\n","parameters":{{"a":-1.5e-3}},{GOOD},"outputs":[{{"name":"OUT","parameters":{{"classification":1}}}}]}}"#
    );
    let model = one("FP32");
    for end in 0..body.len() {
        assert_eq!(ask(&model, None, &body.as_bytes()[..end]).is_ok(), end == 0, "{end}");
    }
    let mut bytes = body.into_bytes();
    for at in 0..bytes.len() {
        let kept = bytes[at];
        for byte in [0, b'"', b'\\', b'[', b'{', b'}', b',', b'-', b'9', b'e', 0x80, 0xff] {
            bytes[at] = byte;
            let _ = ask(&model, None, &bytes);
            let _ = ask(&model, Some("60"), &bytes);
        }
        bytes[at] = kept;
    }
}

#[test]
#[ignore = "a measurement, for release builds: cargo test --release -- --ignored --nocapture codec"]
#[expect(clippy::print_stdout, reason = "it prints what it measured")]
fn measure_1024_floats() {
    let mut state = 1u64;
    let texts: Vec<String> = (0..1024)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{}", (state >> 40) as f32 / 16_777_216.0)
        })
        .collect();
    let body = bytes::Bytes::from(format!(
        r#"{{"inputs":[{{"name":"IN","shape":[1024],"datatype":"FP32","data":[{}]}}]}}"#,
        texts.join(",")
    ));
    let model = one("FP32");
    let best = |work: &dyn Fn()| {
        let runs = (0..200).map(|_| {
            let start = std::time::Instant::now();
            for _ in 0..20 {
                work();
            }
            start.elapsed() / 20
        });
        runs.min().unwrap()
    };
    let ours = best(&|| {
        let target = Target { model: Arc::from("m"), version: None, json_length: None };
        let options = DecodeOptions { max_input_size: MAX };
        std::hint::black_box(decode(&model, target, body.clone().into(), options).unwrap());
    });
    let list = format!("[{}]", texts.join(","));
    let serde = best(&|| {
        std::hint::black_box(serde_json::from_str::<Vec<f32>>(&list).unwrap());
    });
    let (request, _) = json(std::str::from_utf8(&body).unwrap()).unwrap();
    let output = crate::request::OutputTensor {
        name: "OUT".into(),
        datatype: naiad_tensor::DataType::Fp32,
        shape: vec![1024],
        data: request.inputs[0].data.clone().into_bytes(),
    };
    let response = crate::request::InferResponse {
        model: "m".into(),
        version: 1,
        id: String::new(),
        parameters: Arc::default(),
        outputs: vec![output],
        timing: crate::request::Timing::default(),
    };
    let encoding = best(&|| {
        std::hint::black_box(super::super::encode(&response, "m", &ResponseForm::default()).unwrap());
    });
    println!("1,024 floats: decode {ours:?} (serde_json into a vector {serde:?}), encode {encoding:?}");
}
