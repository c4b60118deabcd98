//! Whether the server and its models can be asked (W9, W11, W12).

use std::sync::Arc;

use tokio::sync::mpsc;

use super::body::{Part, ResponseBody, frame};
use super::error::GrpcError;
use super::messages::health::health_check_response::ServingStatus;
use super::messages::health::{HealthCheckRequest, HealthCheckResponse};
use super::messages::inference::{
    ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerReadyRequest,
    ServerReadyResponse,
};
use super::stream::Open;
use super::{Answer, Call, reply, version};
use crate::auth::Scope;
use crate::operations::{Named, health};
use crate::server::Shared;

/// `ServerLive`
pub async fn live(call: &mut Call) -> Answer {
    call.read::<ServerLiveRequest>().await?;
    Ok(reply(&ServerLiveResponse { live: health::live(call.shared())? }))
}

/// `ServerReady`
pub async fn ready(call: &mut Call) -> Answer {
    call.read::<ServerReadyRequest>().await?;
    Ok(reply(&ServerReadyResponse { ready: health::ready(call.shared())? }))
}

/// `ModelReady`: whatever keeps a model from being ready, the answer is no and no failure (W11).
pub async fn model_ready(call: &mut Call) -> Answer {
    let message: ModelReadyRequest = call.read().await?;
    let (_, name) = call.model(Scope::Infer, &message.name)?;
    let named = Named { name: &name, version: version(&message.version)? };
    Ok(reply(&ModelReadyResponse { ready: health::model_ready(call.shared(), named).await.unwrap_or(false) }))
}

/// `grpc.health.v1.Health/Check`: the server's readiness, whatever the service (W12).
pub async fn check(call: &mut Call) -> Answer {
    call.read::<HealthCheckRequest>().await?;
    Ok(reply(&status(call.shared())))
}

/// `grpc.health.v1.Health/Watch`: the same, now and at each change, until the server goes down.
pub async fn watch(mut call: Call) -> Answer {
    call.read::<HealthCheckRequest>().await?;
    let open = Open::new(&call.front)?;
    let (sender, parts) = mpsc::channel(1);
    let shared = Arc::clone(call.shared());
    tokio::spawn(async move {
        let _open = open;
        let mut changes = shared.changes();
        let mut told = None;
        loop {
            let now = status(&shared);
            if told.replace(now) != Some(now) && sender.send(Part::Message(frame(&now))).await.is_err() {
                return;
            }
            if let Err(exiting) = health::live(&shared) {
                let _ = sender.send(Part::Trailers(GrpcError::from(exiting).headers())).await;
                return;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sender.closed() => return,
            }
        }
    });
    Ok(ResponseBody::stream(parts))
}

fn status(shared: &Shared) -> HealthCheckResponse {
    let ready = health::ready(shared).unwrap_or(false);
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}
