//! The log settings over gRPC (W50, W80).

use std::collections::BTreeMap;

use super::error::GrpcError;
use super::messages::inference::log_settings_request::setting_value::ParameterChoice as Asked;
use super::messages::inference::log_settings_response::SettingValue;
use super::messages::inference::log_settings_response::setting_value::ParameterChoice;
use super::messages::inference::{LogSettingsRequest, LogSettingsResponse};
use super::{Answer, Call, reply};
use crate::operations::logging::{self, Change, Shown};

/// `LogSettings`: all of the changes or none; without one it reads.
pub async fn settings(call: &mut Call) -> Answer {
    call.caller()?;
    let message: LogSettingsRequest = call.read().await?;
    let changes = message.settings.into_iter().map(|(name, setting)| change(&name, setting.parameter_choice));
    let changes: Vec<_> = changes.collect::<Result<_, _>>()?;
    logging::update(call.shared(), changes);
    Ok(reply(&LogSettingsResponse { settings: shown(logging::read(call.shared())) }))
}

fn change(name: &str, value: Option<Asked>) -> Result<Change, GrpcError> {
    let wrong = |expected: &str| Err(GrpcError::invalid(format!("Invalid value for '{name}': expected {expected}")));
    match (name, value) {
        ("log_file", _) => Err(logging::file_refusal().into()),
        ("log_verbose_level", Some(Asked::Uint32Param(level))) => Ok(Change::Verbose(level)),
        ("log_verbose_level", _) => wrong("uint32_param"),
        ("log_format", Some(Asked::StringParam(format))) => Ok(Change::format(&format)?),
        ("log_format", _) => wrong("string_param"),
        (name, value) => {
            let on = if let Some(Asked::BoolParam(on)) = value { Some(on) } else { None };
            match Change::switch(name, on.unwrap_or_default()) {
                None => Err(GrpcError::invalid(format!("unknown log setting '{name}'"))),
                Some(_) if on.is_none() => wrong("bool_param"),
                Some(change) => Ok(change),
            }
        }
    }
}

fn shown(shown: Shown) -> BTreeMap<String, SettingValue> {
    let rows = [
        ("log_file", ParameterChoice::StringParam(shown.file)),
        ("log_info", ParameterChoice::BoolParam(shown.info)),
        ("log_warning", ParameterChoice::BoolParam(shown.warning)),
        ("log_error", ParameterChoice::BoolParam(shown.error)),
        ("log_verbose_level", ParameterChoice::Uint32Param(shown.verbose_level)),
        ("log_format", ParameterChoice::StringParam(shown.format.to_owned())),
    ];
    let value = |choice| SettingValue { parameter_choice: Some(choice) };
    rows.into_iter().map(|(name, choice)| (name.to_owned(), value(choice))).collect()
}
