//! What happened to requests so far (W64): of one model or of all that the caller sees.

use super::messages::inference as wire;
use super::{Answer, Call, reply, version};
use crate::auth::Scope;
use crate::operations::{Named, statistics};
use crate::statistics::{
    BatchStatistics, DurationStatistics, InferenceStatistics, MemoryUsage, ModelStatistics, ResponseStatistics,
};

/// `ModelStatistics`: without a name of all models.
pub async fn statistics(call: &mut Call) -> Answer {
    let caller = call.caller()?;
    let message: wire::ModelStatisticsRequest = call.read().await?;
    let version = version(&message.version)?;
    let rows = if message.name.is_empty() {
        statistics::of_all(call.shared(), &caller)?
    } else {
        let (_, name) = call.model(Scope::Infer, &message.name)?;
        statistics::of_one(call.shared(), Named { name: &name, version })?
    };
    Ok(reply(&wire::ModelStatisticsResponse { model_stats: rows.into_iter().map(model).collect() }))
}

fn model(row: ModelStatistics) -> wire::ModelStatistics {
    wire::ModelStatistics {
        name: row.name,
        version: row.version,
        last_inference: row.last_inference,
        inference_count: row.inference_count,
        execution_count: row.execution_count,
        inference_stats: Some(inference(&row.inference_stats)),
        batch_stats: row.batch_stats.iter().map(batch).collect(),
        memory_usage: row.memory_usage.into_iter().map(memory).collect(),
        response_stats: row.response_stats.iter().map(|(index, row)| (index.clone(), response(row))).collect(),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a message field may be absent, and every one of these is there")]
fn duration(row: DurationStatistics) -> Option<wire::StatisticDuration> {
    Some(wire::StatisticDuration { count: row.count, ns: row.ns })
}

fn inference(row: &InferenceStatistics) -> wire::InferStatistics {
    wire::InferStatistics {
        success: duration(row.success),
        fail: duration(row.fail),
        queue: duration(row.queue),
        compute_input: duration(row.compute_input),
        compute_infer: duration(row.compute_infer),
        compute_output: duration(row.compute_output),
        cache_hit: duration(row.cache_hit),
        cache_miss: duration(row.cache_miss),
    }
}

fn batch(row: &BatchStatistics) -> wire::InferBatchStatistics {
    wire::InferBatchStatistics {
        batch_size: row.batch_size,
        compute_input: duration(row.compute_input),
        compute_infer: duration(row.compute_infer),
        compute_output: duration(row.compute_output),
    }
}

fn response(row: &ResponseStatistics) -> wire::InferResponseStatistics {
    wire::InferResponseStatistics {
        compute_infer: duration(row.compute_infer),
        compute_output: duration(row.compute_output),
        success: duration(row.success),
        fail: duration(row.fail),
        empty_response: duration(row.empty_response),
        cancel: duration(row.cancel),
    }
}

fn memory(row: MemoryUsage) -> wire::MemoryUsage {
    wire::MemoryUsage { r#type: row.kind, id: row.id, byte_size: row.byte_size }
}
