//! The metrics: every counter of the statistics and a few of the server, as text for Prometheus.

pub mod custom;
pub mod families;
mod gpu;
mod machine;
pub mod text;

use families::{OWN, Row, TRITON};
pub use gpu::Gpus;
pub use machine::Machine;
use text::{Kind, Labels, Text};

use crate::server::Shared;

/// What a scrape reads; empty where metrics are off.
pub(crate) fn scrape(shared: &Shared) -> String {
    let mut text = Text::default();
    let Some(options) = &shared.options.metrics else { return text.finish() };
    let models = shared.engine.registry().models();
    let access = shared.gate.access();
    let rows: Vec<_> = models
        .iter()
        .map(|model| {
            let spec = &model.spec;
            let labels = Labels::default().with("model", &spec.name).with("version", &spec.version.to_string());
            let labels =
                spec.metric_tags.iter().fold(labels, |labels, (tag, value)| labels.with(&format!("_{tag}"), value));
            let service = access.public_names().get(&spec.name).unwrap_or(&spec.name);
            let own = labels.with("service", service);
            (Row { model, stats: model.statistics.snapshot(&spec.name, spec.version), labels }, own)
        })
        .collect();
    for family in TRITON.iter().filter(|family| family.switch.is_on(options)) {
        family.write(&mut text, rows.iter().map(|(row, _)| (row, &row.labels)));
    }
    for family in OWN {
        family.write(&mut text, rows.iter().map(|(row, own)| (row, own)));
    }
    custom::write(&mut text, &models, &shared.log);
    server(&mut text, shared);
    shared.machine.write(&mut text, &options.machine);
    shared.gpus.write(&mut text);
    text.finish()
}

/// Families that speak of the server as a whole.
fn server(text: &mut Text, shared: &Shared) {
    let mut one = |name, kind, help, labels: &Labels, value: u64| {
        text.family(name, kind, help);
        text.sample(name, labels.text(), value);
    };
    let none = Labels::default();
    let (used, limit) = shared.engine.request_bytes();
    one("naiad_request_bytes", Kind::Gauge, "Bytes of queued and running requests", &none, used);
    one("naiad_request_bytes_limit", Kind::Gauge, "Bytes that they may have at most", &none, limit);
    let dropped = shared.log.dropped();
    one("naiad_log_records_dropped_total", Kind::Counter, "Log records that the log could not take", &none, dropped);
    let pool = [
        ("nv_pinned_memory_pool_total_bytes", "Always 0: there is no such pool"),
        ("nv_pinned_memory_pool_used_bytes", "Always 0: there is no such pool"),
    ];
    for (name, help) in pool {
        one(name, Kind::Gauge, help, &none, 0);
    }
    let build = none.with("version", &shared.options.server_version);
    one("naiad_build_info", Kind::Gauge, "Always 1; the label tells the version", &build, 1);
}
