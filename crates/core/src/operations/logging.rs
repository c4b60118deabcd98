//! The log settings that can be read and changed while the server runs (W80); where the log goes is no one of them (F3).

use serde::Serialize;

use crate::error::InferError;
use crate::log::Settings;
use crate::options::LogFormat;
use crate::server::Shared;

/// What every answer holds.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    #[serde(rename = "log_file")]
    pub(crate) file: String,
    #[serde(rename = "log_info")]
    pub(crate) info: bool,
    #[serde(rename = "log_warning")]
    pub(crate) warning: bool,
    #[serde(rename = "log_error")]
    pub(crate) error: bool,
    #[serde(rename = "log_verbose_level")]
    pub(crate) verbose_level: u32,
    #[serde(rename = "log_format")]
    pub(crate) format: &'static str,
}

/// One setting with its new value.
#[derive(Debug)]
pub(crate) enum Change {
    Info(bool),
    Warning(bool),
    Error(bool),
    Verbose(u32),
    Format(LogFormat),
}

impl Change {
    /// A switch by the name of its setting; none if there is no such switch.
    pub(crate) fn switch(name: &str, on: bool) -> Option<Self> {
        match name {
            "log_info" => Some(Self::Info(on)),
            "log_warning" => Some(Self::Warning(on)),
            "log_error" => Some(Self::Error(on)),
            _ => None,
        }
    }

    /// A format by its name. On HTTP its refusal is 503 all the same (W80).
    pub(crate) fn format(name: &str) -> Result<Self, InferError> {
        let format = match name {
            "default" => LogFormat::Default,
            "ISO8601" => LogFormat::Iso8601,
            "json" => LogFormat::Json,
            _ => {
                return Err(InferError::InvalidArgument(format!("invalid argument for --log_format, got: {name}")));
            }
        };
        Ok(Self::Format(format))
    }
}

/// F3: destinations are start-up options.
pub(crate) fn file_refusal() -> InferError {
    InferError::Unsupported("log file location can not be updated through network protocol".to_owned())
}

/// The settings as they are.
pub(crate) fn read(shared: &Shared) -> Shown {
    let Settings { levels, format } = *shared.log.settings();
    let file = &shared.options.log.file;
    Shown {
        file: file.as_ref().map(|file| file.display().to_string()).unwrap_or_default(),
        info: levels.info,
        warning: levels.warning,
        error: levels.error,
        verbose_level: levels.verbose,
        format: match format {
            LogFormat::Default => "default",
            LogFormat::Iso8601 => "ISO8601",
            LogFormat::Json => "json",
        },
    }
}

/// Makes all of the changes.
pub(crate) fn update(shared: &Shared, changes: impl IntoIterator<Item = Change>) {
    let mut settings = *shared.log.settings();
    for change in changes {
        match change {
            Change::Info(on) => settings.levels.info = on,
            Change::Warning(on) => settings.levels.warning = on,
            Change::Error(on) => settings.levels.error = on,
            Change::Verbose(level) => settings.levels.verbose = level,
            Change::Format(format) => settings.format = format,
        }
    }
    shared.log.set(settings);
}
