//! What the server and its models are: metadata and configuration (W62, W63).

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Named;
use crate::error::InferError;
use crate::model::Model;
use crate::server::Shared;
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

/// The server's name, version and extensions.
#[derive(Debug, Serialize)]
pub(crate) struct ServerMetadata<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) extensions: [&'static str; 13],
}

/// What the server is.
pub(crate) fn server(shared: &Shared) -> ServerMetadata<'_> {
    let options = &shared.options;
    ServerMetadata { name: &options.server_id, version: &options.server_version, extensions: EXTENSIONS }
}

/// A model's versions, inputs and outputs.
#[derive(Debug, Serialize)]
pub(crate) struct ModelMetadata {
    pub(crate) name: String,
    pub(crate) versions: Vec<String>,
    pub(crate) platform: String,
    pub(crate) inputs: Vec<TensorMetadata>,
    pub(crate) outputs: Vec<TensorMetadata>,
}

/// One input or output; its shape has the batch dimension.
#[derive(Debug, Serialize)]
pub(crate) struct TensorMetadata {
    pub(crate) name: String,
    pub(crate) datatype: &'static str,
    pub(crate) shape: Vec<i64>,
}

impl TensorMetadata {
    fn of(tensor: &TensorSpec, model: &ModelSpec) -> Self {
        let batch = (model.max_batch_size > 0).then_some(-1);
        let shape = batch.into_iter().chain(tensor.dims.iter().copied()).collect();
        Self { name: tensor.name.clone(), datatype: tensor.datatype.name(), shape }
    }
}

/// What a model is.
pub(crate) fn model(shared: &Shared, named: Named<'_>) -> Result<ModelMetadata, InferError> {
    let (model, target) = find(shared, named)?;
    let spec = &model.spec;
    let versions = match named.version {
        Some(version) => vec![version],
        None => shared.engine.registry().versions(&target),
    };
    Ok(ModelMetadata {
        name: named.name.to_string(),
        versions: versions.iter().map(u64::to_string).collect(),
        platform: spec.platform.clone(),
        inputs: spec.inputs.iter().map(|tensor| TensorMetadata::of(tensor, spec)).collect(),
        outputs: spec.outputs.iter().map(|tensor| TensorMetadata::of(tensor, spec)).collect(),
    })
}

/// A model's configuration as JSON text, under the name that the client used.
pub(crate) fn config(shared: &Shared, named: Named<'_>) -> Result<String, InferError> {
    let (model, target) = find(shared, named)?;
    let text = &model.spec.config;
    if target == *named.name {
        return Ok(text.clone());
    }
    let broken = |_| InferError::Internal("internal error; the server's log says more".to_owned());
    let config: Renamed = serde_json::from_str(text).map_err(broken)?;
    serde_json::to_string(&Renamed { name: Some(named.name.to_string()), ..config }).map_err(broken)
}

/// The same as an encoded `inference.ModelConfig`. Of a field that stands twice the last one counts.
pub(crate) fn config_message(shared: &Shared, named: Named<'_>) -> Result<Bytes, InferError> {
    let (model, target) = find(shared, named)?;
    let message = &model.spec.config_message;
    if target == *named.name {
        return Ok(message.clone());
    }
    let mut renamed = BytesMut::from(&message[..]);
    prost::encoding::string::encode(1, &named.name.to_string(), &mut renamed);
    Ok(renamed.freeze())
}

fn find(shared: &Shared, named: Named<'_>) -> Result<(Arc<Model>, Arc<str>), InferError> {
    let target = named.target(shared);
    let found = shared.engine.registry().find(&target, named.version);
    found.map(|model| (model, Arc::clone(&target))).map_err(|error| named.refuse(error, &target))
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
