//! The metrics listener over real sockets: what it shows and what it does not answer.

use std::collections::BTreeMap;
use std::thread;

use super::*;
use crate::metrics::families::{OWN, TRITON};

const BODY: &str = r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"INT32","data":[1,2,3,4]}]}"#;

fn measured(change: &Value) -> Site {
    let mut metrics = json!({"listener": {"address": "127.0.0.1", "port": 0}});
    metrics.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    Site::new(&json!({ "metrics": metrics }))
}

/// Samples by name and labels as they stand in the text.
fn scrape(site: &Site) -> BTreeMap<String, f64> {
    let reply = Site::ask_at(&site.metrics, "GET", "/metrics", "", "");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    let text = reply.text();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    samples.map(sample).collect()
}

#[test]
fn a_request_is_counted_once_everywhere() {
    let site = measured(&json!({}));
    let runtime = runtime();
    let _context = runtime.enter();
    let mut worker = site.publish("m", &json!({"metric_tags": {"team": "a\"b"}, "load_us": 1_500_000}));
    let address = site.address.clone();
    let client = thread::spawn(move || Site::ask_at(&address, "POST", "/v2/models/m/infer", "", BODY).status);
    runtime.block_on(async {
        let call = worker.call().await;
        worker.reply(&[worker.echo(&call)]);
    });
    assert_eq!(client.join().unwrap(), 200);
    let seen = scrape(&site);
    let labels = r#"model="m",version="1",_team="a\"b""#;
    let value = |name: &str| seen.get(&format!("{name}{{{labels}}}")).copied();
    assert_eq!(value("nv_inference_request_success"), Some(1.0));
    assert_eq!(value("nv_inference_count"), Some(2.0));
    assert_eq!(value("nv_inference_exec_count"), Some(1.0));
    assert_eq!(value("nv_inference_pending_request_count"), Some(0.0));
    assert_eq!(value("nv_model_load_duration_secs"), Some(1.5));
    for reason in ["REJECTED", "CANCELED", "BACKEND", "OTHER"] {
        let name = format!(r#"nv_inference_request_failure{{{labels},reason="{reason}"}}"#);
        assert_eq!(seen.get(&name), Some(&0.0), "{name} among {seen:?}");
    }
    let own = format!(r#"{labels},service="m""#);
    let of = |name: &str, more: &str| seen.get(&format!("{name}{{{own}{more}}}")).copied();
    assert_eq!(of("naiad_requests_total", r#",key="none""#), Some(1.0));
    assert_eq!(of("naiad_unbatched_requests_total", r#",reason="no_batching""#), Some(1.0));
    assert_eq!(of("naiad_batch_size_bucket", r#",le="1""#), Some(0.0));
    assert_eq!(of("naiad_batch_size_bucket", r#",le="2""#), Some(1.0));
    for name in ["request", "queue", "compute"] {
        assert_eq!(of(&format!("naiad_{name}_duration_seconds_count"), ""), Some(1.0));
    }
    assert_eq!(of("naiad_requests_in_flight", ""), Some(0.0));
}

#[test]
fn metrics_have_their_own_port() {
    let site = measured(&json!({}));
    assert_eq!(site.get("/metrics").status, 404);
    for path in ["/", "/v2", "/v2/health/live", "/metrics/"] {
        assert_eq!(Site::ask_at(&site.metrics, "GET", path, "", "").status, 404, "{path}");
    }
    let head = {
        let mut client = Site::connect_to(&site.metrics);
        client.send(request("HEAD", "/metrics", "", "").as_bytes());
        client.reply(true)
    };
    assert_eq!(head.status, 200);
    assert_eq!(Site::ask_at(&site.metrics, "POST", "/metrics", "", "").status, 405);
    let foreign = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let mut client = Site::connect_to(&site.metrics);
    client.send(foreign.as_bytes());
    assert_eq!(client.reply(false).status, 421);
}

#[test]
fn families_can_be_switched() {
    let names = |change: &Value| {
        let site = measured(change);
        let text = Site::ask_at(&site.metrics, "GET", "/metrics", "", "").text();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let usual = names(&json!({}));
    let mut unique = usual.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), usual.len(), "a family stands twice: {usual:?}");
    assert!(usual.contains(&"nv_cpu_utilization".to_owned()));
    assert!(!usual.contains(&"nv_inference_first_response_histogram_ms".to_owned()));
    let all = names(&json!({"histogram_latencies": true}));
    for family in TRITON.iter().chain(OWN) {
        assert!(all.contains(&family.name.to_owned()), "{} is missing", family.name);
    }
    let few = names(&json!({"counter_latencies": false, "machine": {"cpu": false}}));
    assert!(few.contains(&"nv_inference_request_success".to_owned()));
    assert!(!few.iter().any(|name| name.ends_with("_duration_us") || name.starts_with("nv_cpu")), "{few:?}");
}
