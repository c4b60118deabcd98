//! The trace settings over gRPC (W50, W79).

use std::collections::BTreeMap;

use super::messages::inference::trace_setting_response::SettingValue;
use super::messages::inference::{TraceSettingRequest, TraceSettingResponse};
use super::{Answer, Call, reply};
use crate::auth::Scope;
use crate::operations::Named;
use crate::operations::trace::{self, Change, Shown};

/// `TraceSetting`: all of the changes or none; without one it reads. Without a name it is about the global settings.
pub async fn setting(call: &mut Call) -> Answer {
    let message: TraceSettingRequest = call.read().await?;
    let name = match message.model_name.as_str() {
        "" => call.caller().map(|_| None)?,
        name => Some(call.model(Scope::Manage, name)?.1),
    };
    let model = name.as_ref().map(|name| Named { name, version: None });
    let changes = message.settings.into_iter().map(|(name, setting)| Change::read(&name, &setting.value));
    let changes: Vec<_> = changes.collect::<Result<_, _>>()?;
    let shown = trace::update(call.shared(), model, &changes)?;
    Ok(reply(&TraceSettingResponse { settings: settings(shown) }))
}

fn settings(shown: Shown) -> BTreeMap<String, SettingValue> {
    let rows = [
        ("trace_level", shown.trace_level),
        ("trace_rate", vec![shown.trace_rate]),
        ("trace_count", vec![shown.trace_count]),
        ("log_frequency", vec![shown.log_frequency]),
        ("trace_file", vec![shown.trace_file]),
        ("trace_mode", vec![shown.trace_mode.to_owned()]),
    ];
    rows.into_iter().map(|(name, value)| (name.to_owned(), SettingValue { value })).collect()
}
