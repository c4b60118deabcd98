//! Metadata of the server and of a model, and a model's configuration (W62, W63).

use hyper::Response;
use serde_json::{Value, json};

use super::body::Chunks;
use super::{Answer, Call, json as ok};
use crate::server::Shared;
use crate::spec::{ModelSpec, TensorSpec};

/// The protocol extensions that Triton reports, in its order; `perf_analyzer` looks for names.
const EXTENSIONS: [&str; 13] = [
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
];

/// `GET /v2`.
pub(super) fn server(shared: &Shared) -> Response<Chunks> {
    let options = &shared.options;
    ok(json!({"name": options.server_id, "version": options.server_version, "extensions": EXTENSIONS}).to_string())
}

/// `GET /v2/models/{model}`: shapes start with -1 where the model batches (W62).
pub(super) fn model(shared: &Shared, call: &Call) -> Answer {
    let names = call.model();
    let registry = shared.engine.registry();
    let model = registry.find(&names.model, call.version)?;
    let spec = &model.spec;
    let versions: Vec<String> = registry.versions(&names.model).iter().map(u64::to_string).collect();
    let tensors = |tensors: &[TensorSpec]| -> Vec<Value> { tensors.iter().map(|t| tensor(spec, t)).collect() };
    Ok(ok(json!({
        "name": names.public.as_ref(),
        "versions": versions,
        "platform": spec.platform,
        "inputs": tensors(&spec.inputs),
        "outputs": tensors(&spec.outputs),
    })
    .to_string()))
}

fn tensor(spec: &ModelSpec, tensor: &TensorSpec) -> Value {
    let batch = (spec.max_batch_size > 0).then_some(-1);
    let shape: Vec<i64> = batch.into_iter().chain(tensor.dims.iter().copied()).collect();
    json!({"name": tensor.name, "datatype": tensor.datatype.name(), "shape": shape})
}

/// `GET /v2/models/{model}/config`: the text that Python made, whole (W63).
pub(super) fn config(shared: &Shared, call: &Call) -> Answer {
    let model = shared.engine.registry().find(&call.model().model, call.version)?;
    Ok(ok(model.spec.config.clone()))
}
