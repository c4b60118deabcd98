//! Every refusal of a request, with its text to the letter (protocol §6).

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::*;
use crate::admission::Permit;
use crate::instance::WorkerHandle;
use crate::scheduler::{Pending, Responses};

#[derive(Debug)]
struct NoScheduler;

impl Scheduler for NoScheduler {
    fn schedule(&self, _: InferRequest, _: Permit) -> Pending {
        unreachable!("these tests check only")
    }
    fn stream(&self, _: InferRequest, _: Permit) -> Result<Responses, InferError> {
        unreachable!("these tests check only")
    }
    fn attach(&self, _: WorkerHandle) {}
    fn queued(&self) -> usize {
        0
    }

    fn workers(&self) -> usize {
        0
    }
    fn retire(&self, _: Instant) -> oneshot::Receiver<bool> {
        oneshot::channel().1
    }
}

fn tensor(name: &str, datatype: &str, dims: Value, optional: bool) -> Value {
    let mut tensor = json!({"name": name, "datatype": datatype, "reshape": null, "optional": optional, "labels": []});
    tensor["dims"] = dims;
    tensor
}

fn model(max_batch_size: u32, inputs: Vec<Value>) -> Model {
    let mut spec = json!({
        "name": "m", "version": 1, "platform": "identity", "max_batch_size": max_batch_size,
        "outputs": [tensor("OUTPUT0", "FP32", json!([2]), false)], "scheduler": {"kind": "direct"},
        "max_queue_size": 1, "config": "{}", "workers": [], "default_version": true,
    });
    spec["inputs"] = inputs.into();
    let served = Served::new(serde_json::from_value(spec).unwrap());
    Model {
        spec: Arc::clone(&served.spec),
        statistics: Arc::clone(&served.statistics),
        voice: Arc::clone(&served.voice),
        scheduler: Arc::new(NoScheduler),
    }
}

fn input(name: &str, datatype: DataType, shape: &[i64], data: &[u8]) -> InputTensor {
    InputTensor { name: name.into(), datatype, shape: shape.to_vec(), data: data.to_vec().into() }
}

fn request(inputs: Vec<InputTensor>, outputs: &[&str]) -> InferRequest {
    InferRequest {
        model: "m".into(),
        version: None,
        id: "abc".into(),
        parameters: Vec::new(),
        timeout_us: 0,
        deadline: None,
        priority: 0,
        inputs,
        outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
        reserved: 0,
        traceparent: None,
    }
}

fn refusal(model: &Model, inputs: Vec<InputTensor>) -> String {
    model.check(&request(inputs, &[])).unwrap_err().to_string()
}

fn two() -> Model {
    model(8, vec![tensor("INPUT0", "FP32", json!([2]), false), tensor("INPUT1", "FP32", json!([-1]), false)])
}

fn fp32(name: &str, shape: &[i64]) -> InputTensor {
    let elements = element_count(shape).unwrap() as usize;
    input(name, DataType::Fp32, shape, &vec![0; elements * 4])
}

#[test]
fn good_requests_pass() {
    let good = request(vec![fp32("INPUT1", &[3, 7]), fp32("INPUT0", &[3, 2])], &["OUTPUT0"]);
    two().check(&good).unwrap();
    let empty = request(vec![fp32("INPUT1", &[3, 0]), fp32("INPUT0", &[3, 2])], &[]);
    two().check(&empty).unwrap();
    let scalar = model(0, vec![tensor("INPUT0", "FP32", json!([]), false)]);
    scalar.check(&request(vec![fp32("INPUT0", &[])], &[])).unwrap();
}

#[test]
fn names_are_checked() {
    assert_eq!(
        refusal(&two(), vec![fp32("INPUT0", &[1, 2])]),
        "[request id: abc] expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['INPUT0'], but missing \
         required input(s) ['INPUT1']. Please provide all required input(s)."
    );
    let optional =
        model(0, vec![tensor("INPUT0", "FP32", json!([2]), false), tensor("INPUT1", "FP32", json!([2]), true)]);
    optional.check(&request(vec![fp32("INPUT0", &[2])], &[])).unwrap();
    assert_eq!(
        refusal(&optional, vec![]),
        "[request id: abc] expected number of inputs between 1 and 2 but got 0 inputs for model 'm'. Got input(s) [], \
         but missing required input(s) ['INPUT0']. Please provide all required input(s)."
    );
    assert!(refusal(&optional, vec![fp32("INPUT1", &[2])]).contains("missing required input(s) ['INPUT0']"));
    let unknown = vec![fp32("INPUT0", &[1, 2]), fp32("X", &[1, 2])];
    assert_eq!(refusal(&two(), unknown), "unexpected inference input 'X' for model 'm'");
    let twice = vec![fp32("INPUT0", &[1, 2]), fp32("INPUT0", &[1, 2])];
    assert_eq!(refusal(&two(), twice), "[request id: abc] input 'INPUT0' already exists in request");
    let inputs = || vec![fp32("INPUT0", &[1, 2]), fp32("INPUT1", &[1, 2])];
    let outputs = |names: &[&str]| two().check(&request(inputs(), names)).unwrap_err().to_string();
    assert_eq!(outputs(&["X"]), "unexpected inference output 'X' for model 'm'");
    assert_eq!(outputs(&["OUTPUT0", "OUTPUT0"]), "[request id: abc] output 'OUTPUT0' already exists in request");
}

#[test]
fn datatypes_shapes_and_batches_are_checked() {
    let second = || fp32("INPUT1", &[1, 2]);
    let integers = input("INPUT0", DataType::Int32, &[1, 2], &[0; 8]);
    assert_eq!(
        refusal(&two(), vec![integers, second()]),
        "[request id: abc] inference input 'INPUT0' data-type is 'INT32', but model 'm' expects 'FP32'"
    );
    assert_eq!(
        refusal(&two(), vec![fp32("INPUT0", &[1, 3]), second()]),
        "[request id: abc] unexpected shape for input 'INPUT0' for model 'm'. Expected [-1,2], got [1,3]. NOTE: Setting \
         a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each input shape. \
         If you want to specify the full shape including the batch dim in your input dims config, try setting \
         max_batch_size to zero. See the model configuration docs for more info on max_batch_size."
    );
    let exact = model(0, vec![tensor("INPUT0", "FP32", json!([-1, 2]), false)]);
    assert_eq!(
        refusal(&exact, vec![fp32("INPUT0", &[1])]),
        "[request id: abc] unexpected shape for input 'INPUT0' for model 'm'. Expected [-1,2], got [1]. "
    );
    assert_eq!(
        refusal(&exact, vec![input("INPUT0", DataType::Fp32, &[-1], &[])]),
        "[request id: abc] All input dimensions should be specified for input 'INPUT0' for model 'm', got [-1]"
    );
    assert_eq!(
        refusal(&two(), vec![fp32("INPUT0", &[9, 2]), fp32("INPUT1", &[9, 2])]),
        "[request id: abc] inference request batch-size must be <= 8 for 'm'"
    );
    assert_eq!(
        refusal(&two(), vec![fp32("INPUT0", &[2, 2]), second()]),
        "[request id: abc] input 'INPUT1' batch size does not match other inputs for 'm'"
    );
    assert_eq!(
        refusal(&two(), vec![fp32("INPUT0", &[]), second()]),
        "[request id: abc] input 'INPUT0' has no shape but model requires batch dimension for 'm'"
    );
}

#[test]
fn sizes_are_checked_without_overflow() {
    let exact = model(0, vec![tensor("INPUT0", "FP32", json!([-1, -1]), false)]);
    let sized = |shape: &[i64], data: &[u8]| refusal(&exact, vec![input("INPUT0", DataType::Fp32, shape, data)]);
    assert_eq!(
        sized(&[2, 2], &[0; 12]),
        "[request id: abc] input byte size mismatch for input 'INPUT0' for model 'm'. Expected 16, got 12"
    );
    assert_eq!(
        sized(&[i64::MAX, 2], &[]),
        "invalid shape for input 'INPUT0': shape [9223372036854775807,2] causes total element count to exceed maximum \
         size of 9223372036854775807"
    );
    assert!(sized(&[1 << 62, 0], &[]).starts_with("invalid shape for input 'INPUT0': shape [4611686018427387904,0]"));
    exact.check(&request(vec![input("INPUT0", DataType::Fp32, &[1 << 40, 0], &[])], &[])).unwrap();
    assert!(sized(&[i64::MAX, 1], &[]).starts_with("byte size overflow for input 'INPUT0': "));
    assert_eq!(element_count(&[i64::MAX, i64::MAX, 0]), Some(0));
    assert_eq!(element_count(&[-1, 0]), None);
}

#[test]
fn strings_are_counted() {
    let texts = model(0, vec![tensor("I", "BYTES", json!([-1]), false)]);
    let counted = |data: &[u8]| refusal(&texts, vec![input("I", DataType::Bytes, &[2], data)]);
    let element = b"\x01\0\0\0a";
    texts.check(&request(vec![input("I", DataType::Bytes, &[2], &[*element; 2].concat())], &[])).unwrap();
    let prefix = "[request id: abc] ";
    assert_eq!(
        counted(element),
        format!("{prefix}expected 2 string elements for inference input 'I' for model 'm', got 1")
    );
    assert_eq!(
        counted(&[*element; 3].concat()),
        format!("{prefix}unexpected number of string elements 3 for inference input 'I' for model 'm', expecting 2")
    );
    assert_eq!(
        counted(&[&element[..], b"\x01\0"].concat()),
        format!(
            "{prefix}incomplete string length indicator for inference input 'I' for model 'm', expecting 4 bytes but \
             only 2 bytes available. Please make sure the string length indicator is in one buffer."
        )
    );
    assert!(counted(b"\xff\xff\xff\xffa").contains("expecting string of length 4294967295 but only 1 bytes available"));
}

#[test]
fn parameters_have_a_limit() {
    let mut long = request(vec![fp32("INPUT0", &[1, 2]), fp32("INPUT1", &[1, 2])], &[]);
    long.parameters = vec![("k".into(), Parameter::String("x".repeat(3 << 20)))];
    assert!(two().check(&long).unwrap_err().to_string().contains("exceed the limit of 2097152 bytes"));
}
