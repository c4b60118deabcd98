//! Generate over the wire, with a worker that the test drives (W38, W58, W60, W61).

use std::time::Instant;

use super::infer::echoing;
use super::*;

const BODY: &str = r#"{"x":[3,4],"id":"7"}"#;

#[test]
fn w58_one_flat_object_of_no_known_length() {
    let (site, echo) = echoing("m", 2);
    let mut client = site.connect();
    for path in ["/v2/models/m/generate", "/v2/models/m/versions/1/generate"] {
        client.send(request("POST", path, "Accept-Encoding: gzip\r\n", BODY).as_bytes());
        let reply = client.reply(false);
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
        assert_eq!((reply.header("transfer-encoding"), reply.header("content-encoding")), (Some("chunked"), None));
        assert_eq!(reply.text(), r#"{"id":"7","model_name":"m","model_version":"1","y":[3,4]}"#);
    }
    drop(site);
    echo.join().unwrap();
}

#[test]
fn w60_a_stream_of_one_event() {
    let (site, echo) = echoing("m", 1);
    let reply = site.post("/v2/models/m/generate_stream", BODY);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream; charset=utf-8")));
    assert_eq!(reply.text(), "data: {\"id\":\"7\",\"model_name\":\"m\",\"model_version\":\"1\",\"y\":[3,4]}\n\n");
    drop(site);
    echo.join().unwrap();
}

#[test]
fn refusals_come_before_the_engine() {
    let (site, echo) = echoing("m", 0);
    for path in ["/v2/models/m/generate", "/v2/models/m/generate_stream"] {
        for encoding in ["gzip", "br"] {
            let reply = site.ask("POST", path, &format!("Content-Encoding: {encoding}\r\n"), BODY);
            let text = "Unsupported content-encoding, only 'identity' is supported.";
            assert_eq!((reply.status, reply.error().as_str()), (400, text), "W38");
        }
        let reply = site.post(path, r#"{"x":[3,4,5]}"#);
        let text = "The schema can not convert input 'x' to tensor with proper shape";
        assert_eq!((reply.status, reply.error().as_str()), (400, text), "W61");
        let reply = site.ask("POST", path, "X-Request-Timeout: soon\r\n", BODY);
        assert_eq!((reply.status, reply.error().contains("X-Request-Timeout")), (400, true));
    }
    assert_eq!(site.post("/v2/models/m/generate", "{}").status, 400);
    drop(site);
    echo.join().unwrap();
}

#[test]
fn w60_an_error_that_comes_first_sets_the_status_and_is_an_event() {
    let site = Site::new(&json!({}));
    let runtime = runtime();
    let _worker = {
        let _context = runtime.enter();
        site.publish("m", &json!({}))
    };
    // The worker says nothing: the client's deadline is the first answer.
    let reply = site.ask("POST", "/v2/models/m/generate_stream", "X-Request-Timeout: 0.05\r\n", BODY);
    assert_eq!((reply.status, reply.header("content-type")), (503, Some("text/event-stream; charset=utf-8")));
    assert_eq!(reply.text(), "data: {\"error\":\"[request id: 7] Request timeout expired\"}\n\n");
    let reply = site.ask("POST", "/v2/models/m/infer", "X-Request-Timeout: 0.05\r\n", super::infer::BODY);
    assert_eq!((reply.status, reply.error().as_str()), (503, "[request id: 7] Request timeout expired"));
}

#[test]
fn a_client_that_goes_away_cancels_its_request() {
    let site = Site::new(&json!({}));
    let runtime = runtime();
    let mut worker = {
        let _context = runtime.enter();
        site.publish("m", &json!({}))
    };
    for path in ["/v2/models/m/generate", "/v2/models/m/generate_stream"] {
        let mut client = site.connect();
        client.send(request("POST", path, "", BODY).as_bytes());
        runtime.block_on(async {
            let call = worker.call().await;
            drop(client);
            let deadline = Instant::now() + Duration::from_secs(20);
            while !worker.is_cancelled(&call) {
                assert!(Instant::now() < deadline, "the core did not cancel the request");
                tokio::task::yield_now().await;
            }
            worker.reply(&[worker.echo(&call)]);
        });
    }
}
