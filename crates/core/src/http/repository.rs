//! The model repository extension: index, load, unload (W66-W72). Python does the loading; this room asks it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::Response;
use serde_json::{Map, Value, json};

use super::body::Chunks;
use super::error::{HttpError, RoutedStatus};
use super::limits::{self, BodyLimits};
use super::{Answer, Call, Inbound, forbidden, json as ok};
use crate::error::InferError;
use crate::options::ModelControl;
use crate::server::Shared;
use crate::server::commands::Request;
use crate::spec::IndexRow;

/// `POST /v2/repository/index`: one row a version; `{"ready":true}` filters.
pub(super) async fn index(shared: &Arc<Shared>, call: &Call, inbound: Inbound) -> Answer {
    let object = read_object(shared, inbound).await?;
    let only_ready = match object.get("ready") {
        None => false,
        Some(Value::Bool(ready)) => *ready,
        Some(_) => {
            let text = "Invalid value for 'ready': expected a boolean".to_owned();
            return Err(InferError::InvalidArgument(text).into());
        }
    };
    let index = shared.engine.registry().index();
    let rows: Vec<Value> = index
        .iter()
        .filter(|row| !only_ready || row.state.as_deref() == Some("READY"))
        .filter_map(|row| shown(shared, call, row))
        .collect();
    Ok(ok(Value::Array(rows).to_string()))
}

fn shown(shared: &Shared, call: &Call, row: &IndexRow) -> Option<Value> {
    let public = shared.gate.public_name(&row.name);
    if !call.caller.sees(public.as_deref().unwrap_or(&row.name)) {
        return None;
    }
    let name = public.as_deref().filter(|_| !call.caller.manages()).unwrap_or(&row.name);
    let mut shown = Map::new();
    shown.insert("name".to_owned(), name.into());
    if let Some(version) = row.version {
        shown.insert("version".to_owned(), version.to_string().into());
    }
    for (key, value) in [("state", &row.state), ("reason", &row.reason)] {
        if let Some(value) = value {
            shown.insert(key.to_owned(), value.as_str().into());
        }
    }
    Some(Value::Object(shown))
}

/// `POST …/models/{model}/load`: answers when the model is READY or has failed (W70).
pub(super) async fn load(shared: &Arc<Shared>, call: &Call, inbound: Inbound) -> Answer {
    let object = read_object(shared, inbound).await?;
    explicit_only(shared, call)?;
    let (config, files) = load_parameters(&object)?;
    if !files.is_empty() && shared.gate.is_keyless() && !shared.options.allow_file_override {
        return Err(forbidden(
            "'file:' content needs an API key with the scope 'manage', or --allow-file-override=true",
        ));
    }
    let model = call.model().model.to_string();
    finish(shared.commands.ask(Request::Load { model, config, files }).await)
}

/// `POST …/models/{model}/unload`: unknown or unloaded is fine (W8).
pub(super) async fn unload(shared: &Arc<Shared>, call: &Call, inbound: Inbound) -> Answer {
    let object = read_object(shared, inbound).await?;
    explicit_only(shared, call)?;
    let dependents = object.get("parameters").and_then(|parameters| parameters.get("unload_dependents"));
    let unload_dependents = match dependents {
        None => false,
        Some(Value::Bool(value)) => *value,
        Some(_) => {
            let text = "Invalid value for 'unload_dependents': expected a boolean".to_owned();
            return Err(InferError::InvalidArgument(text).into());
        }
    };
    let model = call.model().model.to_string();
    finish(shared.commands.ask(Request::Unload { model, unload_dependents }).await)
}

fn explicit_only(shared: &Shared, call: &Call) -> Result<(), HttpError> {
    if call.repository {
        return Err(InferError::Unsupported("'repository_name' specification is not supported".to_owned()).into());
    }
    if shared.options.model_control == ModelControl::Explicit {
        return Ok(());
    }
    let text = "explicit model load / unload is not allowed if polling is enabled".to_owned();
    Err(InferError::Unavailable(text).into())
}

/// `config` and `file:*` of a load call (W67, W68); files stay base64 for Python.
fn load_parameters(object: &Map<String, Value>) -> Result<(Option<String>, BTreeMap<String, String>), HttpError> {
    let internal = |text: String| HttpError::Routed(RoutedStatus::Internal, text);
    let (mut config, mut files) = (None, BTreeMap::new());
    let parameters = match object.get("parameters") {
        None => return Ok((config, files)),
        Some(Value::Object(parameters)) => parameters,
        Some(_) => return Err(internal("attempt to access JSON non-object as object".to_owned())),
    };
    for (name, value) in parameters {
        let Value::String(text) = value else {
            return Err(internal("attempt to access JSON non-string as string".to_owned()));
        };
        if name == "config" {
            config = Some(text.clone());
        } else if let Some(path) = name.strip_prefix("file:") {
            files.insert(path.to_owned(), text.clone());
        } else {
            return Err(internal(format!("unrecognized load parameter '{name}'.")));
        }
    }
    if config.is_none() && !files.is_empty() {
        let text = "failed to load: override model directory requires a 'config' parameter".to_owned();
        return Err(InferError::InvalidArgument(text).into());
    }
    Ok((config, files))
}

/// W7: success has an empty body.
fn finish(result: Result<Value, InferError>) -> Answer {
    result.map(|_| Response::new(Chunks::default())).map_err(HttpError::from)
}

/// The request's JSON object; an empty body is an empty object.
pub(super) async fn read_object(shared: &Shared, inbound: Inbound) -> Result<Map<String, Value>, HttpError> {
    let limit = shared.options.max_input_size;
    let body = limits::read(inbound.body, BodyLimits { json: limit, whole: limit }).await?;
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&body).map_err(|error| {
        let text = format!("failed to parse the request JSON buffer: {error}");
        InferError::InvalidArgument(text).into()
    })
}

/// `POST /naiad/v1/inspect` and its kin: what Python answers, as it is.
pub(super) async fn ask(shared: &Shared, request: Request) -> Answer {
    let body = shared.commands.ask(request).await?;
    Ok(ok(json!(body).to_string()))
}
