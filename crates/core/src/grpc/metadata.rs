//! What the server and its models are: metadata and configuration (W51, W62).

use super::messages::inference::model_metadata_response::TensorMetadata;
use super::messages::inference::{
    ModelConfigRequest, ModelConfigResponse, ModelMetadataRequest, ModelMetadataResponse, ServerMetadataRequest,
    ServerMetadataResponse,
};
use super::{Answer, Call, reply, version};
use crate::auth::Scope;
use crate::operations::{Named, metadata};

/// `ServerMetadata`
pub async fn server(call: &mut Call) -> Answer {
    call.caller()?;
    call.read::<ServerMetadataRequest>().await?;
    let server = metadata::server(call.shared());
    Ok(reply(&ServerMetadataResponse {
        name: server.name.to_owned(),
        version: server.version.to_owned(),
        extensions: server.extensions.map(str::to_owned).to_vec(),
    }))
}

/// `ModelMetadata`
pub async fn model(call: &mut Call) -> Answer {
    let message: ModelMetadataRequest = call.read().await?;
    let (_, name) = call.model(Scope::Infer, &message.name)?;
    let model = metadata::model(call.shared(), Named { name: &name, version: version(&message.version)? })?;
    let tensors = |tensors: Vec<metadata::TensorMetadata>| {
        let tensor = |tensor: metadata::TensorMetadata| TensorMetadata {
            name: tensor.name,
            datatype: tensor.datatype.to_owned(),
            shape: tensor.shape,
        };
        tensors.into_iter().map(tensor).collect()
    };
    Ok(reply(&ModelMetadataResponse {
        name: model.name,
        versions: model.versions,
        platform: model.platform,
        inputs: tensors(model.inputs),
        outputs: tensors(model.outputs),
    }))
}

/// `ModelConfig`
pub async fn config(call: &mut Call) -> Answer {
    let message: ModelConfigRequest = call.read().await?;
    let (_, name) = call.model(Scope::Infer, &message.name)?;
    let config = metadata::config_message(call.shared(), Named { name: &name, version: version(&message.version)? })?;
    Ok(reply(&ModelConfigResponse { config }))
}
