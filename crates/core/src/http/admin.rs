//! What the control plane does to a server: access, dry runs, the table of routes.

use hyper::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use super::body::ResponseBody;
use super::error::{empty, json, json_text};
use super::repository::syntax_fault;
use super::routes::{ROUTES, Route};
use super::{Answer, Call};
use crate::grpc::routes as grpc;
use crate::server::commands::Command;

/// `PUT /naiad/v1/access`
pub async fn set_access(call: &mut Call) -> Answer {
    let document = call.read().await?;
    Ok(json_text(call.shared.set_access(&document)?.into()))
}

/// `POST /naiad/v1/inspect`: a dry run, made by Python in a restricted worker.
pub async fn inspect(call: &mut Call) -> Answer {
    let body = call.read().await?;
    let parameters: Box<RawValue> = serde_json::from_slice(&body).map_err(|fault| syntax_fault(&body, &fault))?;
    let answer = call.shared.commands.ask(Command::Inspect { parameters }).await?;
    Ok(answer.map_or_else(empty, |body| json(&body)))
}

/// `GET /naiad/v1/routes`: those of HTTP and the methods of gRPC.
pub fn routes() -> Response<ResponseBody> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Row {
        Http(&'static Route),
        Grpc(&'static grpc::Route),
    }
    let rows: Vec<Row> = ROUTES.iter().map(Row::Http).chain(grpc::ROUTES.iter().map(Row::Grpc)).collect();
    json(&rows)
}
