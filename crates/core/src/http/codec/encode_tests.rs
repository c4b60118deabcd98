//! Responses to the byte.

use std::sync::Arc;

use super::*;
use crate::classify::Classification;
use crate::request::Timing;

fn output(name: &str, datatype: DataType, shape: &[i64], data: impl Into<Vec<u8>>) -> OutputTensor {
    OutputTensor { name: name.into(), datatype, shape: shape.to_vec(), data: Bytes::from(data.into()) }
}

fn response(outputs: Vec<OutputTensor>) -> InferResponse {
    InferResponse {
        model: "m.v1".into(),
        version: 3,
        id: String::new(),
        parameters: Arc::default(),
        outputs,
        timing: Timing::default(),
    }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn text(outputs: Vec<OutputTensor>, form: &ResponseForm) -> Result<String, String> {
    let encoded = encode(&response(outputs), "m", form).map_err(|error| error.to_string())?;
    assert_eq!(encoded.json_length, None);
    Ok(String::from_utf8(encoded.body.concat()).unwrap())
}

fn data(datatype: DataType, bytes: impl Into<Vec<u8>>) -> String {
    let text = text(vec![output("O", datatype, &[1], bytes)], &ResponseForm::default()).unwrap();
    let start = text.find("\"data\":").unwrap() + 7;
    text[start..text.len() - 3].to_owned()
}

#[test]
fn w24_keys_come_in_triton_s_order() {
    let mut answer = response(vec![
        output("A", DataType::Fp32, &[1, 2], floats(&[0.1, 2.0])),
        output("B", DataType::Int64, &[1], i64::MIN.to_le_bytes()),
    ]);
    let bare = encode(&answer, "shown", &ResponseForm::default()).unwrap().body.concat();
    let outputs = r#""outputs":[{"name":"A","datatype":"FP32","shape":[1,2],"data":[0.1,2.0]},{"name":"B","datatype":"INT64","shape":[1],"data":[-9223372036854775808]}]}"#;
    let start = r#""model_name":"shown","model_version":"3","#;
    assert_eq!(String::from_utf8(bare).unwrap(), format!("{{{start}{outputs}"));
    answer.id = "a\"\u{7}é".into();
    answer.parameters = Arc::new(vec![
        ("x".into(), Parameter::Bool(true)),
        ("y".into(), Parameter::Uint(u64::MAX)),
        ("z".into(), Parameter::String("\\".into())),
        ("d".into(), Parameter::Double(0.5)),
    ]);
    let full = encode(&answer, "shown", &ResponseForm::default()).unwrap().body.concat();
    let parameters = r#""parameters":{"x":true,"y":18446744073709551615,"z":"\\","d":0.5},"#;
    assert_eq!(String::from_utf8(full).unwrap(), format!("{{\"id\":\"a\\\"\\u0007é\",{start}{parameters}{outputs}"));
}

#[test]
fn w16_w17_w25_numbers_are_short_and_exact() {
    let special = floats(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.1, -0.0, 100_000_000.0, 1e-7]);
    assert_eq!(data(DataType::Fp32, special), "[NaN,Infinity,-Infinity,0.1,-0.0,100000000.0,1e-7]");
    assert_eq!(data(DataType::Fp64, 0.1f64.to_le_bytes()), "[0.1]");
    assert_eq!(data(DataType::Uint64, u64::MAX.to_le_bytes()), "[18446744073709551615]");
    assert_eq!(data(DataType::Int8, [200, 1]), "[-56,1]");
    assert_eq!(data(DataType::Bool, [1, 0]), "[true,false]");
    assert_eq!(data(DataType::Fp16, 0x2e66u16.to_le_bytes()), "[0.1]");
    assert_eq!(data(DataType::Bf16, [0x80, 0x3f, 0xc0, 0x7f]), "[1.0,NaN]");
    assert_eq!(data(DataType::Fp32, []), "[]");
}

#[test]
fn every_f32_text_reads_back() {
    for bits in (0..u32::MAX).step_by(65_521) {
        let value = f32::from_bits(bits);
        if value.is_finite() {
            let text = data(DataType::Fp32, value.to_le_bytes());
            let text = text.trim_matches(['[', ']']);
            assert_eq!(text.parse::<f32>().unwrap().to_bits(), bits, "{text}");
            assert!(text.contains(['.', 'e']), "{text}");
        }
    }
}

#[test]
fn w26_strings_are_valid_json_whatever_the_bytes() {
    let bytes = b"\x03\0\0\0a\"\n\x02\0\0\0\xff!\0\0\0\0";
    assert_eq!(data(DataType::Bytes, *bytes), "[\"a\\\"\\n\",\"\u{fffd}!\",\"\"]");
}

#[test]
fn w32_w33_w34_binary_outputs_follow_the_json() {
    let listed = |name: &str, binary| OutputForm { name: name.into(), binary, classification: None, shared: false };
    let pair = || vec![output("A", DataType::Fp32, &[1], floats(&[1.0])), output("B", DataType::Uint8, &[2], [7, 8])];
    let whole = ResponseForm { binary: true, ..ResponseForm::default() };
    let encoded = encode(&response(pair()), "m", &whole).unwrap();
    let body = encoded.body.concat();
    let json = r#"{"model_name":"m","model_version":"3","outputs":[{"name":"A","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}},{"name":"B","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}}]}"#;
    assert_eq!(encoded.json_length, Some(json.len()));
    assert_eq!(body, [json.as_bytes(), &[0, 0, 128, 63, 7, 8]].concat());
    // Where outputs are listed, only what they say counts.
    let outputs = vec![listed("A", false), listed("B", true)];
    let form = ResponseForm { outputs, binary: true, ..ResponseForm::default() };
    let encoded = encode(&response(pair()), "m", &form).unwrap();
    let body = String::from_utf8(encoded.body.concat()).unwrap();
    assert!(body.contains("\"data\":[1.0]") && body.ends_with("}]}\u{7}\u{8}"), "{body}");
    // No binary byte: plain JSON.
    let empty = vec![output("A", DataType::Fp32, &[0], [])];
    assert!(text(empty, &whole).unwrap().ends_with("\"parameters\":{\"binary_data_size\":0}}]}"));
}

#[test]
fn w77_an_output_in_a_region_is_name_datatype_and_shape() {
    let shared = OutputForm { name: "A".into(), binary: false, classification: None, shared: true };
    let form = ResponseForm { outputs: vec![shared], ..ResponseForm::default() };
    let text = text(vec![output("A", DataType::Fp32, &[2], [])], &form).unwrap();
    assert!(text.ends_with(r#""outputs":[{"name":"A","datatype":"FP32","shape":[2]}]}"#), "{text}");
}

#[test]
fn large_blobs_are_not_copied() {
    let blob = output("A", DataType::Uint8, &[9000], vec![1; 9000]);
    let start = blob.data.as_ptr();
    let whole = ResponseForm { binary: true, ..ResponseForm::default() };
    let encoded = encode(&response(vec![blob]), "m", &whole).unwrap();
    assert_eq!(encoded.body.len(), 2);
    assert_eq!(encoded.body[1].as_ptr(), start);
}

#[test]
fn w44_classification_gives_the_top_values() {
    let form = |count, batched| ResponseForm {
        outputs: vec![OutputForm {
            name: "A".into(),
            binary: false,
            classification: Some(Classification { count, labels: vec!["zero".into(), "one".into()] }),
            shared: false,
        }],
        batched,
        ..ResponseForm::default()
    };
    let rows = || output("A", DataType::Fp32, &[2, 3], floats(&[1.0, 3.0, 2.0, f32::NAN, -1.0, -2.0]));
    let got = text(vec![rows()], &form(2, true)).unwrap();
    assert!(
        got.contains(
            r#""datatype":"BYTES","shape":[2,2],"data":["3.000000:1:one","2.000000:2","-1.000000:1:one","-2.000000:2"]"#
        ),
        "{got}"
    );
    let big = [u64::MAX - 1, u64::MAX].iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let got = text(vec![output("A", DataType::Uint64, &[2], big)], &form(9, false)).unwrap();
    assert!(
        got.contains(r#""shape":[2],"data":["18446744073709551615:1:one","18446744073709551614:0:zero"]"#),
        "{got}"
    );
    for datatype in [DataType::Bytes, DataType::Bool, DataType::Fp16, DataType::Bf16] {
        let refused = text(vec![output("A", datatype, &[1], [0; 4])], &form(1, false)).unwrap_err();
        assert!(refused.contains(datatype.name()), "{refused}");
    }
    let large = output("A", DataType::Int8, &[1_000_001], vec![0; 1_000_001]);
    assert!(text(vec![large], &form(1, false)).unwrap_err().contains("1000001 elements"));
    let none = output("A", DataType::Fp32, &[0, 3], []);
    assert!(text(vec![none], &form(1, true)).unwrap().contains("\"data\":[]"));
}
