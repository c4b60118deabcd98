//! Spans as OpenTelemetry's protocol has them in JSON: ids in hex, 64-bit numbers as strings, enums as numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::context::hex;
use super::record::{Event, Front, Trace};
use crate::statistics::monotonic_ns;

const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const ERROR: u8 = 2;

/// Spans of one trace, at most.
pub const SPANS: usize = 3;

/// An `ExportTraceServiceRequest`.
pub fn message(resource: &[(String, String)], traces: &[Trace]) -> Vec<u8> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let offset = wall.saturating_sub(monotonic_ns());
    let spans: Vec<_> = traces.iter().flat_map(|trace| spans(trace, offset)).collect();
    let attributes: Vec<_> = resource.iter().map(|(name, value)| text(name, value)).collect();
    let scope = json!({"name": "naiad", "version": env!("CARGO_PKG_VERSION")});
    let message = json!({"resourceSpans": [{
        "resource": {"attributes": attributes},
        "scopeSpans": [{"scope": scope, "spans": spans}],
    }]});
    message.to_string().into_bytes()
}

/// The request as a whole, below it the model's part, below that the worker's; Triton's names.
fn spans(trace: &Trace, offset: u64) -> Vec<Value> {
    let Some(ids) = &trace.spans else { return Vec::new() };
    let root = Span {
        name: "InferRequest",
        kind: SERVER,
        id: ids.root,
        parent: ids.parent.map(|parent| parent.span),
        events: |event| {
            use Event::{
                GrpcSendEnd, GrpcSendStart, GrpcWaitreadEnd, GrpcWaitreadStart, HttpRecvEnd, HttpRecvStart,
                HttpSendEnd, HttpSendStart, InferResponseComplete,
            };
            matches!(
                event,
                HttpRecvStart
                    | HttpRecvEnd
                    | HttpSendStart
                    | HttpSendEnd
                    | InferResponseComplete
                    | GrpcWaitreadStart
                    | GrpcWaitreadEnd
                    | GrpcSendStart
                    | GrpcSendEnd
            )
        },
    };
    let model = Span {
        name: &trace.model,
        kind: INTERNAL,
        id: ids.model,
        parent: Some(ids.root),
        events: |event| matches!(event, Event::RequestStart | Event::QueueStart | Event::RequestEnd),
    };
    let compute = Span {
        name: "compute",
        kind: INTERNAL,
        id: ids.compute,
        parent: Some(ids.model),
        events: |event| {
            use Event::{ComputeEnd, ComputeInputEnd, ComputeOutputStart, ComputeStart};
            matches!(event, ComputeStart | ComputeInputEnd | ComputeOutputStart | ComputeEnd)
        },
    };
    let mut common = vec![text("triton.model_name", &trace.model), number("triton.model_version", trace.version)];
    if !trace.request_id.is_empty() {
        common.push(text("triton.request_id", &trace.request_id));
    }
    let of_root = match trace.front {
        Front::Http => text("http.request.method", "POST"),
        Front::Grpc => text("rpc.system", "grpc"),
    };
    let of_model = number("triton.trace_id", trace.id);
    let of_compute = number("naiad.batch_size", u64::from(trace.batch.max(1)));
    let with = |more: Value| common.iter().cloned().chain([more]).collect::<Vec<_>>();
    let told = [
        root.told(trace, offset, &with(of_root)),
        model.told(trace, offset, &with(of_model)),
        compute.told(trace, offset, &with(of_compute)),
    ];
    told.into_iter().flatten().collect()
}

struct Span<'a> {
    name: &'a str,
    kind: u8,
    id: [u8; 8],
    parent: Option<[u8; 8]>,
    /// Which events are its own.
    events: fn(Event) -> bool,
}

impl Span<'_> {
    /// From its first event to its last; none where it has none.
    fn told(&self, trace: &Trace, offset: u64, attributes: &[Value]) -> Option<Value> {
        let ids = trace.spans.as_ref()?;
        let own: Vec<_> = trace.events.iter().filter(|(event, _)| (self.events)(*event)).collect();
        let ((_, start), (_, end)) = (own.first()?, own.last()?);
        // The request lasts as long as anything in it.
        let end = if self.kind == SERVER { trace.events.last().map_or(end, |(_, at)| at) } else { end };
        let at = |ns: u64| (ns + offset).to_string();
        let events: Vec<_> =
            own.iter().map(|(event, ns)| json!({"timeUnixNano": at(*ns), "name": event.name()})).collect();
        let mut span = json!({
            "traceId": hex(&ids.trace),
            "spanId": hex(&self.id),
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": at(*start),
            "endTimeUnixNano": at(*end),
            "attributes": attributes,
            "events": events,
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = Value::from(hex(&parent));
        }
        if let Some(fault) = &trace.fault {
            span["status"] = json!({"code": ERROR, "message": fault});
        }
        Some(span)
    }
}

fn text(name: &str, value: &str) -> Value {
    json!({"key": name, "value": {"stringValue": value}})
}

fn number(name: &str, value: u64) -> Value {
    json!({"key": name, "value": {"intValue": value.to_string()}})
}
