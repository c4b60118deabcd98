//! The trace settings (W79): global or of one model; where traces go is no one of them (F3).

use std::str::FromStr;

use serde::Serialize;

use super::Named;
use crate::error::InferError;
use crate::server::Shared;
use crate::trace::{Left, Level, Overrides};

/// What every answer holds: texts only.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) trace_level: Vec<String>,
    pub(crate) trace_rate: String,
    pub(crate) trace_count: String,
    pub(crate) log_frequency: String,
    pub(crate) trace_file: String,
    pub(crate) trace_mode: &'static str,
}

/// One setting with its new value; none = as one level above.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Level(Option<Level>),
    Rate(Option<u32>),
    Count(Option<i32>),
    LogFrequency(Option<u32>),
}

impl Change {
    /// A setting by its name; `values` is empty to clear it.
    pub(crate) fn read(name: &str, values: &[String]) -> Result<Self, InferError> {
        match name {
            "trace_file" => Err(InferError::Unsupported(
                "trace file location can not be updated through network protocol".to_owned(),
            )),
            "trace_mode" => {
                Err(InferError::Unsupported("trace mode can not be updated through network protocol".to_owned()))
            }
            "trace_level" if values.is_empty() => Ok(Self::Level(None)),
            "trace_level" => match Level::read(values) {
                None => Err(unparsable(name, &values.join(","))),
                level => Ok(Self::Level(level)),
            },
            "trace_rate" => one(name, values).map(Self::Rate),
            "trace_count" => {
                let count: Option<i32> = one(name, values)?;
                match count {
                    Some(count) if count < -1 => Err(unparsable(name, &count.to_string())),
                    count => Ok(Self::Count(count)),
                }
            }
            "log_frequency" => one(name, values).map(Self::LogFrequency),
            _ => Err(InferError::InvalidArgument(format!("unknown trace setting '{name}'"))),
        }
    }

    fn make(&self, overrides: &mut Overrides) {
        match self {
            Self::Level(level) => overrides.level = *level,
            Self::Rate(rate) => overrides.rate = *rate,
            Self::Count(count) => overrides.count = count.map(Left::new),
            Self::LogFrequency(frequency) => overrides.log_frequency = *frequency,
        }
    }
}

fn one<T: FromStr>(name: &str, values: &[String]) -> Result<Option<T>, InferError> {
    match values {
        [] => Ok(None),
        [value] => value.parse().map(Some).map_err(|_| unparsable(name, value)),
        several => Err(InferError::InvalidArgument(format!("'{name}' takes one value, got {}", several.len()))),
    }
}

fn unparsable(name: &str, got: &str) -> InferError {
    InferError::InvalidArgument(format!("Unable to parse '{name}', got: {got}"))
}

/// The settings of a model, or the global ones.
pub(crate) fn read(shared: &Shared, model: Option<Named<'_>>) -> Result<Shown, InferError> {
    let model = model.map(|model| known(shared, model)).transpose()?;
    let settings = shared.trace.settings().of(model);
    let options = &shared.options.trace;
    Ok(Shown {
        trace_level: settings.level.names(),
        trace_rate: settings.rate.to_string(),
        trace_count: settings.count.get().to_string(),
        log_frequency: settings.log_frequency.to_string(),
        trace_file: options.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default(),
        trace_mode: if options.opentelemetry.is_some() { "opentelemetry" } else { "triton" },
    })
}

/// Makes all of the changes, if there are any, and answers the settings.
pub(crate) fn update(shared: &Shared, model: Option<Named<'_>>, changes: &[Change]) -> Result<Shown, InferError> {
    let name = model.map(|model| known(shared, model)).transpose()?;
    if changes.is_empty() {
        return read(shared, model);
    }
    shared.trace.settings().update(name, |overrides| changes.iter().for_each(|change| change.make(overrides)))?;
    read(shared, model)
}

/// The settings go by the name that clients use.
fn known<'a>(shared: &Shared, model: Named<'a>) -> Result<&'a str, InferError> {
    let target = model.target(shared);
    match shared.engine.registry().find(&target, None) {
        Ok(_) => Ok(model.name),
        Err(_) => Err(InferError::InvalidArgument(format!("Request for unknown model : {}", model.name))),
    }
}
