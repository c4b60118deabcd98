//! The repository index, load and unload; Python does the work (W66 to W72).

use std::collections::HashMap;

use serde::Serialize;

use super::Failure;
use crate::auth::{Caller, Refusal};
use crate::error::InferError;
use crate::options::ModelControl;
use crate::server::Shared;
use crate::server::commands::Command;
use crate::spec::IndexRow;

/// One version of the index under the name that the caller sees; what is absent is not shown.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl Row {
    fn of(row: &IndexRow, name: &str) -> Self {
        let version = row.version.map(|version| version.to_string());
        let reason = row.reason.clone().filter(|reason| !reason.is_empty());
        Self { name: name.to_owned(), version, state: row.state.clone(), reason }
    }
}

/// The rows of the index that the caller sees; who manages sees both names of a service.
pub(crate) fn index(shared: &Shared, caller: &Caller, only_ready: bool) -> Vec<Row> {
    let index = shared.engine.registry().index();
    let access = shared.gate.access();
    let manages = caller.manages();
    let mut rows = Vec::with_capacity(index.len());
    for row in index.iter().filter(|row| !only_ready || row.state.as_deref() == Some("READY")) {
        let public = access.public_names().get(&row.name).map(String::as_str);
        if manages {
            rows.push(Row::of(row, &row.name));
        }
        let name = public.unwrap_or(&row.name);
        if !manages && caller.sees(name) || manages && public.is_some() {
            rows.push(Row::of(row, name));
        }
    }
    rows
}

/// Whether models can be loaded and unloaded at all; asked before a request's parameters are read.
pub(crate) fn check_control(shared: &Shared, names_repository: bool) -> Result<(), InferError> {
    if names_repository {
        return Err(InferError::Unsupported("'repository_name' specification is not supported".to_owned()));
    }
    if shared.options.model_control != ModelControl::Explicit {
        let text = "explicit model load / unload is not allowed if polling is enabled";
        return Err(InferError::Unavailable(text.to_owned()));
    }
    Ok(())
}

/// What a load request brings along.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    /// A configuration instead of the stored one.
    pub(crate) config: Option<String>,
    /// Path → base64 of a file's content.
    pub(crate) files: HashMap<String, String>,
}

/// Loads or reloads a model; answers once it is ready or has failed (W70).
pub(crate) async fn load(shared: &Shared, caller: &Caller, model: &str, overrides: Overrides) -> Result<(), Failure> {
    let Overrides { config, files } = overrides;
    if config.is_none() && !files.is_empty() {
        let text = "'file:' content needs a model configuration in the parameter 'config'";
        return Err(InferError::InvalidArgument(text.to_owned()).into());
    }
    if !files.is_empty() && !caller.has_managing_key() && !shared.options.allow_file_override {
        let text = "'file:' content in a load request needs an API key with the scope 'manage'";
        return Err(Refusal::Forbidden(text.to_owned()).into());
    }
    shared.commands.ask(Command::Load { model: model.to_owned(), config, files }).await?;
    Ok(())
}

/// Takes a model out of service; answers once that has begun (W70).
pub(crate) async fn unload(shared: &Shared, model: &str, unload_dependents: bool) -> Result<(), InferError> {
    shared.commands.ask(Command::Unload { model: model.to_owned(), unload_dependents }).await?;
    Ok(())
}
