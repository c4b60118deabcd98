use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::grpc::messages::inference::InferTensorContents;
use crate::options::parse;

fn model() -> ModelSpec {
    let tensor = |name: &str, datatype: &str| {
        format!(
            r#"{{"name":"{name}","datatype":"{datatype}","dims":[2],"reshape":null,"optional":false,"labels":["a","b"]}}"#
        )
    };
    let document = format!(
        r#"{{"name":"m","version":1,"platform":"p","max_batch_size":8,"scheduler":{{"kind":"direct"}},"max_queue_size":10,
        "config":"{{}}","workers":[],"default_version":true,"inputs":[{},{}],"outputs":[{}]}}"#,
        tensor("I", "FP32"),
        tensor("J", "INT8"),
        tensor("O", "FP32")
    );
    parse("spec", document.as_bytes()).unwrap()
}

fn input(name: &str, datatype: &str, contents: Option<InferTensorContents>) -> InferInputTensor {
    let (name, datatype) = (name.to_owned(), datatype.to_owned());
    InferInputTensor { name, datatype, shape: vec![1, 2], parameters: BTreeMap::new(), contents }
}

fn read(message: ModelInferRequest) -> Result<(InferRequest, ResponseForm), InferError> {
    decode(&model(), "m".into(), None, message)
}

fn refusal(message: ModelInferRequest) -> String {
    read(message).unwrap_err().to_string()
}

fn with_parameter(name: &str, choice: Option<ParameterChoice>) -> ModelInferRequest {
    let parameters = BTreeMap::from([(name.to_owned(), InferParameter { parameter_choice: choice })]);
    ModelInferRequest { parameters, ..ModelInferRequest::default() }
}

fn with_inputs(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> ModelInferRequest {
    let raw_input_contents = raw.iter().map(|data| Bytes::from_static(data)).collect();
    ModelInferRequest { id: "7".to_owned(), inputs, raw_input_contents, ..ModelInferRequest::default() }
}

fn ints(values: &[i32]) -> InferTensorContents {
    InferTensorContents { int_contents: values.to_vec(), ..InferTensorContents::default() }
}

#[test]
fn w41_raw_entries_belong_to_inputs_in_order() {
    let message =
        with_inputs(vec![input("I", "FP32", None), input("J", "INT8", None)], &[b"12345678", b"ab", b"extra"]);
    let (request, _) = read(message).unwrap();
    assert_eq!(
        (request.id.as_str(), request.inputs[0].data.to_vec(), request.inputs[1].data.to_vec()),
        ("7", b"12345678".to_vec(), b"ab".to_vec())
    );
    assert_eq!(request.inputs[0].shape, [1, 2]);
}

#[test]
fn w41_an_input_has_one_source() {
    let both = with_inputs(vec![input("I", "FP32", Some(ints(&[1])))], &[b"12345678"]);
    assert_eq!(
        refusal(both),
        "contents field must not be specified when using raw_input_contents for 'I' for model 'm'"
    );
    let neither = "unable to find data for input tensor 'J' for model 'm' in request.";
    assert_eq!(refusal(with_inputs(vec![input("J", "INT8", None)], &[])), neither);
    assert_eq!(refusal(with_inputs(vec![input("I", "FP32", None), input("J", "INT8", None)], &[b"12345678"])), neither);
    assert_eq!(
        refusal(with_inputs(vec![input("I", "FP32", Some(ints(&[1])))], &[])),
        "unexpected explicit tensor data for input tensor 'I' for model 'm' of type 'INT32', expected datatype 'FP32'"
    );
}

#[test]
fn w42_typed_contents_become_bytes() {
    let tensor = |datatype, contents: InferTensorContents| {
        let (request, _) = read(with_inputs(vec![input("I", datatype, Some(contents))], &[])).unwrap();
        request.inputs[0].data.to_vec()
    };
    let none = InferTensorContents::default;
    assert_eq!(tensor("BOOL", InferTensorContents { bool_contents: vec![true, false], ..none() }), [1, 0]);
    assert_eq!(tensor("INT8", InferTensorContents { int_contents: vec![200, -1], ..none() }), [200, 255]);
    assert_eq!(tensor("INT16", InferTensorContents { int_contents: vec![-2], ..none() }), [254, 255]);
    assert_eq!(tensor("INT32", InferTensorContents { int_contents: vec![1], ..none() }), [1, 0, 0, 0]);
    assert_eq!(tensor("INT64", InferTensorContents { int64_contents: vec![-1], ..none() }), [255; 8]);
    assert_eq!(tensor("UINT8", InferTensorContents { uint_contents: vec![257], ..none() }), [1]);
    assert_eq!(tensor("UINT16", InferTensorContents { uint_contents: vec![65537], ..none() }), [1, 0]);
    assert_eq!(tensor("UINT32", InferTensorContents { uint_contents: vec![2], ..none() }), [2, 0, 0, 0]);
    assert_eq!(tensor("UINT64", InferTensorContents { uint64_contents: vec![3], ..none() }), [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(tensor("FP32", InferTensorContents { fp32_contents: vec![1.0], ..none() }), [0, 0, 128, 63]);
    assert_eq!(tensor("FP64", InferTensorContents { fp64_contents: vec![1.0], ..none() }), [0, 0, 0, 0, 0, 0, 240, 63]);
    let elements = vec![Bytes::from_static(b"ab"), Bytes::new()];
    let strings = tensor("BYTES", InferTensorContents { bytes_contents: elements, ..none() });
    assert_eq!(strings, b"\x02\0\0\0ab\0\0\0\0");
    let fp16 =
        with_inputs(vec![input("I", "FP16", Some(InferTensorContents { fp32_contents: vec![1.0], ..none() }))], &[]);
    assert!(refusal(fp16).ends_with("of type 'FP32', expected datatype 'FP16'"));
}

#[test]
fn w43_parameters_have_their_types() {
    use ParameterChoice::{BoolParam, DoubleParam, Int64Param, StringParam, Uint64Param};
    let (request, _) = read(with_parameter("priority", Some(Uint64Param(u64::MAX)))).unwrap();
    assert_eq!(request.priority, u64::MAX);
    assert_eq!(read(with_parameter("timeout", Some(Int64Param(5)))).unwrap().0.timeout_us, 5);
    let (_, form) = read(with_parameter("triton_enable_empty_final_response", Some(BoolParam(true)))).unwrap();
    assert!(form.empty_final);
    for (name, choice, value) in [
        ("sequence_id", Int64Param(5), Parameter::Int(5)),
        ("sequence_id", StringParam("s".to_owned()), Parameter::String("s".to_owned())),
        ("sequence_start", BoolParam(true), Parameter::Bool(true)),
        ("own", DoubleParam(0.5), Parameter::Double(0.5)),
        ("binary_data_output", BoolParam(true), Parameter::Bool(true)),
    ] {
        assert_eq!(read(with_parameter(name, Some(choice))).unwrap().0.parameters, [(name.to_owned(), value)]);
    }
    for (name, choice) in [
        ("sequence_id", Some(Uint64Param(5))),
        ("sequence_start", Some(Int64Param(1))),
        ("priority", Some(Int64Param(-1))),
        ("priority", Some(StringParam(String::new()))),
        ("timeout", Some(Uint64Param(5))),
        ("triton_x", Some(BoolParam(true))),
        ("triton_enable_empty_final_response", Some(Int64Param(1))),
        ("own", Some(Uint64Param(5))),
        ("own", None),
    ] {
        assert_eq!(read(with_parameter(name, choice)).unwrap_err().code(), crate::Code::InvalidArg, "{name}");
    }
    assert_eq!(
        refusal(with_parameter("own", None)),
        "invalid value type for 'own' parameter, expected int64_param, bool_param, or string_param."
    );
}

#[test]
fn w44_classification_is_a_positive_integer() {
    let wanted = |choice| {
        let parameters =
            BTreeMap::from([("classification".to_owned(), InferParameter { parameter_choice: Some(choice) })]);
        let outputs = vec![InferRequestedOutputTensor { name: "O".to_owned(), parameters }];
        read(ModelInferRequest { outputs, ..ModelInferRequest::default() })
    };
    let (request, form) = wanted(ParameterChoice::Int64Param(2)).unwrap();
    assert_eq!(
        (request.outputs, form.classes[0].1.count, form.classes[0].1.labels.len()),
        (vec!["O".to_owned()], 2, 2)
    );
    assert!(wanted(ParameterChoice::Int64Param(0)).is_err());
    assert!(wanted(ParameterChoice::StringParam("2".to_owned())).is_err());
}

#[test]
fn unknown_datatypes_and_floods_of_inputs_are_refused() {
    let text = refusal(with_inputs(vec![input("I", "STRING", None)], &[b""]));
    assert_eq!(text, "[request id: 7] inference input 'I' data-type is '<invalid>', but model 'm' expects 'FP32'");
    let many = (0..=2 + SPARE_INPUTS).map(|_| input("I", "FP32", None)).collect();
    assert!(refusal(with_inputs(many, &[])).contains("but got more than 18 inputs"));
}

#[test]
fn w76_windows_are_kept_for_whoever_knows_the_regions() {
    let choice = |choice| InferParameter { parameter_choice: Some(choice) };
    let string = |text: &str| choice(ParameterChoice::StringParam(text.to_owned()));
    let number = |value| choice(ParameterChoice::Int64Param(value));
    let given = |more: &[(&str, InferParameter)]| {
        let all = [("shared_memory_region", string("r"))];
        all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<BTreeMap<_, _>>()
    };
    let size = ("shared_memory_byte_size", number(8));
    let asked = |parameters: BTreeMap<_, _>| {
        let outputs = vec![InferRequestedOutputTensor { name: "O".to_owned(), parameters: parameters.clone() }];
        let shared = InferInputTensor { parameters, ..input("I", "FP32", None) };
        ModelInferRequest { outputs, ..with_inputs(vec![shared, input("J", "INT8", None)], &[b"ab"]) }
    };
    let (request, form) = read(asked(given(&[size.clone(), ("shared_memory_offset", number(4))]))).unwrap();
    let window = Window { region: "r".to_owned(), offset: 4, byte_size: 8 };
    assert_eq!(
        (&form.windows.inputs, &form.windows.outputs),
        (&vec![(0, window.clone())], &vec![("O".to_owned(), window)])
    );
    assert_eq!((request.inputs[0].data.to_vec(), request.inputs[1].data.to_vec()), (Vec::new(), b"ab".to_vec()));
    let (_, form) = read(asked(given(&[size.clone(), ("shared_memory_offset", number(-1))]))).unwrap();
    assert_eq!(form.windows.inputs[0].1.offset, u64::MAX);
    for (more, text) in [
        (
            vec![],
            "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor 'I'",
        ),
        (
            vec![("shared_memory_byte_size", string("8"))],
            "invalid value type for 'shared_memory_byte_size' parameter for tensor 'I', expected int64_param.",
        ),
        (
            vec![("shared_memory_region", number(1)), size.clone()],
            "invalid value type for 'shared_memory_region' parameter for tensor 'I', expected string_param.",
        ),
    ] {
        assert_eq!(refusal(asked(given(&more))), text);
    }
    let mut both = asked(given(std::slice::from_ref(&size)));
    both.outputs[0].parameters.insert("classification".to_owned(), number(1));
    assert_eq!(refusal(both), "output can't set both 'shared_memory_region' and 'classification'");
    let mut twice = asked(given(&[size]));
    twice.inputs[0].contents = Some(ints(&[1]));
    let text = "unexpected 'content' provided when using shared memory for input tensor 'I' for model 'm'";
    assert_eq!(refusal(twice), text);
}
