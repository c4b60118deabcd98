//! What the server and its models are: metadata and configuration (W62, W63).

use std::fmt;
use std::sync::Arc;

use hyper::Response;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::body::ResponseBody;
use super::error::{HttpError, json, json_text};
use super::{Answer, Call};
use crate::model::Model;
use crate::spec::{ModelSpec, TensorSpec};

/// Reported in this order (features §3).
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

#[derive(Serialize)]
struct ServerMetadata<'a> {
    name: &'a str,
    version: &'a str,
    extensions: [&'static str; 13],
}

/// `GET /v2`
pub fn server(call: &Call) -> Response<ResponseBody> {
    let options = &call.shared.options;
    json(&ServerMetadata { name: &options.server_id, version: &options.server_version, extensions: EXTENSIONS })
}

#[derive(Serialize)]
struct ModelMetadata<'a> {
    name: &'a str,
    versions: Vec<String>,
    platform: &'a str,
    inputs: Vec<TensorMetadata<'a>>,
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Serialize)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<i64>,
}

impl<'a> TensorMetadata<'a> {
    fn of(tensor: &'a TensorSpec, model: &ModelSpec) -> Self {
        let batch = (model.max_batch_size > 0).then_some(-1);
        let shape = batch.into_iter().chain(tensor.dims.iter().copied()).collect();
        Self { name: &tensor.name, datatype: tensor.datatype.name(), shape }
    }
}

/// `GET /v2/models/{model}[/versions/{version}]`
pub fn model(call: &Call) -> Answer {
    let (model, target) = find(call)?;
    let spec = &model.spec;
    let versions = match call.entry.version {
        Some(version) => vec![version],
        None => call.shared.engine.registry().versions(&target),
    };
    Ok(json(&ModelMetadata {
        name: call.model(),
        versions: versions.iter().map(u64::to_string).collect(),
        platform: &spec.platform,
        inputs: spec.inputs.iter().map(|tensor| TensorMetadata::of(tensor, spec)).collect(),
        outputs: spec.outputs.iter().map(|tensor| TensorMetadata::of(tensor, spec)).collect(),
    }))
}

/// `GET /v2/models/{model}[/versions/{version}]/config`
pub fn config(call: &Call) -> Answer {
    let (model, target) = find(call)?;
    let text = &model.spec.config;
    if target == *call.model() {
        return Ok(json_text(text.clone().into()));
    }
    let config: Renamed = serde_json::from_str(text).map_err(|_| HttpError::internal())?;
    Ok(json(&Renamed { name: Some(call.model().to_string()), ..config }))
}

fn find(call: &Call) -> Result<(Arc<Model>, Arc<str>), HttpError> {
    let target = call.target();
    let found = call.shared.engine.registry().find(&target, call.entry.version);
    found.map(|model| (model, Arc::clone(&target))).map_err(|error| call.refuse(error, &target))
}

/// A configuration that keeps its text and its order but for the name.
struct Renamed {
    fields: Vec<(String, Box<RawValue>)>,
    name: Option<String>,
}

impl<'de> Deserialize<'de> for Renamed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Renamed;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a model configuration")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Renamed, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Renamed { fields, name: None })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl Serialize for Renamed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for (field, value) in &self.fields {
            match &self.name {
                Some(name) if field == "name" => map.serialize_entry(field, name)?,
                _ => map.serialize_entry(field, value)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_changes_its_name_only() {
        let text = r#"{"platform":"","name":"m.v1","priority":18446744073709551615,"nested":{"name":"m.v1"}}"#;
        let config: Renamed = serde_json::from_str(text).unwrap();
        let renamed = serde_json::to_string(&Renamed { name: Some("m".to_owned()), ..config }).unwrap();
        assert_eq!(renamed, text.replacen("m.v1", "m", 1));
    }
}
