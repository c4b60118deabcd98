//! The repository index, load and unload; Python does the work (W49, W66 to W72).

use std::collections::BTreeMap;

use super::error::GrpcError;
use super::messages::inference::model_repository_parameter::ParameterChoice;
use super::messages::inference::repository_index_response::ModelIndex;
use super::messages::inference::{
    ModelRepositoryParameter, RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
};
use super::{Answer, Call, reply};
use crate::auth::Scope;
use crate::base64;
use crate::operations::names::{is_name, refusal};
use crate::operations::repository::{self, Overrides, Row};

/// `RepositoryIndex`
pub async fn index(call: &mut Call) -> Answer {
    let caller = call.caller()?;
    let message: RepositoryIndexRequest = call.read().await?;
    if !message.repository_name.is_empty() {
        return Err(GrpcError::unimplemented("'repository_name' specification is not supported"));
    }
    let rows = repository::index(call.shared(), &caller, message.ready);
    let models = rows.into_iter().map(|Row { name, version, state, reason }| ModelIndex {
        name,
        version: version.unwrap_or_default(),
        state: state.unwrap_or_default(),
        reason: reason.unwrap_or_default(),
    });
    Ok(reply(&RepositoryIndexResponse { models: models.collect() }))
}

/// `RepositoryModelLoad`
pub async fn load(call: &mut Call) -> Answer {
    let message: RepositoryModelLoadRequest = call.read().await?;
    let (caller, _) = call.model(Scope::Manage, &message.model_name)?;
    repository::check_control(call.shared(), !message.repository_name.is_empty())?;
    check_name(&message.model_name)?;
    let overrides = load_parameters(message.parameters)?;
    repository::load(call.shared(), &caller, &message.model_name, overrides).await?;
    Ok(reply(&RepositoryModelLoadResponse {}))
}

/// `RepositoryModelUnload`
pub async fn unload(call: &mut Call) -> Answer {
    let message: RepositoryModelUnloadRequest = call.read().await?;
    call.model(Scope::Manage, &message.model_name)?;
    repository::check_control(call.shared(), !message.repository_name.is_empty())?;
    check_name(&message.model_name)?;
    let unload_dependents = match message.parameters.get("unload_dependents") {
        None => false,
        Some(ModelRepositoryParameter { parameter_choice: Some(ParameterChoice::BoolParam(unload)) }) => *unload,
        Some(_) => return Err(wrong_type("unload", "unload_dependents", "bool_param")),
    };
    repository::unload(call.shared(), &message.model_name, unload_dependents).await?;
    Ok(reply(&RepositoryModelUnloadResponse {}))
}

fn check_name(name: &str) -> Result<(), GrpcError> {
    if is_name(name) { Ok(()) } else { Err(GrpcError::invalid(refusal(name))) }
}

/// `config` and `file:<path>`, whose content is bytes here (W67, W68).
fn load_parameters(parameters: BTreeMap<String, ModelRepositoryParameter>) -> Result<Overrides, GrpcError> {
    let mut overrides = Overrides::default();
    for (name, value) in parameters {
        match (name.strip_prefix("file:"), value.parameter_choice) {
            (Some(path), Some(ParameterChoice::BytesParam(content))) => {
                overrides.files.insert(path.to_owned(), base64::encode(&content));
            }
            (Some(_), _) => return Err(wrong_type("load", &name, "bytes_param")),
            (None, Some(ParameterChoice::StringParam(config))) if name == "config" => overrides.config = Some(config),
            (None, _) if name == "config" => return Err(wrong_type("load", &name, "string_param")),
            (None, _) => return Err(GrpcError::invalid(format!("unrecognized load parameter '{name}'."))),
        }
    }
    Ok(overrides)
}

fn wrong_type(what: &str, name: &str, expected: &str) -> GrpcError {
    GrpcError::invalid(format!("invalid value type for {what} parameter '{name}', expected {expected}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(choice: ParameterChoice) -> ModelRepositoryParameter {
        ModelRepositoryParameter { parameter_choice: Some(choice) }
    }

    fn read(parameters: &[(&str, ParameterChoice)]) -> Result<Overrides, String> {
        let map = parameters.iter().map(|(name, value)| ((*name).to_owned(), parameter(value.clone())));
        load_parameters(map.collect()).map_err(|error| error.text().to_owned())
    }

    #[test]
    fn w67_load_takes_a_configuration_and_files_only() {
        let string = |text: &str| ParameterChoice::StringParam(text.to_owned());
        let content = ParameterChoice::BytesParam("hi".into());
        let read_both = read(&[("config", string("{}")), ("file:1/model.pt", content.clone())]).unwrap();
        assert_eq!((read_both.config.as_deref(), read_both.files["1/model.pt"].as_str()), (Some("{}"), "aGk="));
        let refused = |name, value| read(&[(name, value)]).unwrap_err();
        assert_eq!(refused("x", string("")), "unrecognized load parameter 'x'.");
        assert_eq!(
            refused("config", content),
            "invalid value type for load parameter 'config', expected string_param."
        );
        assert!(refused("file:1/m", string("aGk=")).contains("expected bytes_param"));
    }
}
