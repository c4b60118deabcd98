use std::sync::Arc;

use naiad_tensor::DataType;
use prost::Message;

use super::*;
use crate::classify::Classification;
use crate::grpc::messages::inference::infer_parameter::ParameterChoice;
use crate::grpc::messages::inference::{ModelInferResponse, ModelStreamInferResponse};
use crate::request::{Parameters, Timing};

fn output(name: &str, datatype: DataType, shape: &[i64], data: Vec<u8>) -> OutputTensor {
    OutputTensor { name: name.into(), datatype, shape: shape.to_vec(), data: data.into() }
}

fn response(parameters: Parameters, outputs: Vec<OutputTensor>) -> InferResponse {
    InferResponse {
        model: "m.v1".into(),
        version: 12,
        id: "a".to_owned(),
        parameters: Arc::new(parameters),
        outputs,
        timing: Timing::default(),
    }
}

/// What a client gets, without its prefix.
fn sent(response: &InferResponse, form: &ResponseForm, finality: Option<bool>, in_stream: bool) -> Vec<u8> {
    let pieces = encode(response, "m", form, finality).unwrap().finish(in_stream).unwrap();
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    let whole: Vec<u8> = pieces.into_iter().flatten().collect();
    assert_eq!(whole[..5], [&[0][..], &(whole.len() as u32 - 5).to_be_bytes()].concat());
    whole[5..].to_vec()
}

#[test]
fn w40_each_output_has_its_raw_entry_small_or_large() {
    for size in [8, SMALL + 8] {
        let outputs = vec![
            output("A", DataType::Fp32, &[1, -1], vec![7; size]),
            output("B", DataType::Bytes, &[0], vec![]),
            output("C", DataType::Int8, &[], vec![1]),
        ];
        let message =
            ModelInferResponse::decode(&sent(&response(vec![], outputs), &ResponseForm::default(), None, false)[..]);
        let message = message.unwrap();
        assert_eq!(
            (message.model_name.as_str(), message.model_version.as_str(), message.id.as_str()),
            ("m", "12", "a")
        );
        let lengths: Vec<usize> = message.raw_output_contents.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [size, 0, 1]);
        assert_eq!((message.outputs[0].datatype.as_str(), &message.outputs[0].shape), ("FP32", &vec![1, -1]));
        assert_eq!((message.outputs[2].name.as_str(), message.outputs[2].shape.len()), ("C", 0));
    }
}

#[test]
fn parameters_keep_their_types() {
    let values = [
        ("b", Parameter::Bool(false), ParameterChoice::BoolParam(false)),
        ("i", Parameter::Int(-1), ParameterChoice::Int64Param(-1)),
        ("u", Parameter::Uint(u64::MAX), ParameterChoice::Uint64Param(u64::MAX)),
        ("d", Parameter::Double(0.5), ParameterChoice::DoubleParam(0.5)),
        ("s", Parameter::String(String::new()), ParameterChoice::StringParam(String::new())),
    ];
    let given = values.iter().map(|(name, value, _)| ((*name).to_owned(), value.clone())).collect();
    let bytes = sent(&response(given, vec![]), &ResponseForm::default(), Some(true), false);
    let message = ModelInferResponse::decode(&bytes[..]).unwrap();
    for (name, _, choice) in values {
        assert_eq!(message.parameters[name].parameter_choice, Some(choice));
    }
    assert_eq!(message.parameters["triton_final_response"].parameter_choice, Some(ParameterChoice::BoolParam(true)));
}

#[test]
fn a_stream_wraps_the_response() {
    for size in [1, 100, SMALL * 2] {
        let outputs = vec![output("A", DataType::Uint8, &[1], vec![1; size])];
        let bytes = sent(&response(vec![], outputs), &ResponseForm::default(), Some(false), true);
        let message = ModelStreamInferResponse::decode(&bytes[..]).unwrap();
        assert!(message.error_message.is_empty());
        assert_eq!(message.infer_response.unwrap().raw_output_contents[0].len(), size);
    }
}

#[test]
fn w44_classes_are_bytes() {
    let classes = Classification { count: 1, labels: vec!["cat".to_owned(), "dog".to_owned()] };
    let form = ResponseForm { classes: vec![("A".to_owned(), classes)], batched: true, ..ResponseForm::default() };
    let data = [1.0_f32, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let bytes = sent(&response(vec![], vec![output("A", DataType::Fp32, &[1, 2], data)]), &form, None, false);
    let message = ModelInferResponse::decode(&bytes[..]).unwrap();
    assert_eq!((message.outputs[0].datatype.as_str(), &message.outputs[0].shape), ("BYTES", &vec![1, 1]));
    assert_eq!(&message.raw_output_contents[0][..], b"\x0e\0\0\x002.000000:1:dog");
}
