//! What a worker learns of the trace that its request belongs to.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use super::infer::BODY;
use super::*;

const CALLER: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";

/// The body of the next message that a receiver of spans gets.
fn receive(listener: &TcpListener) -> Value {
    let (mut stream, _) = listener.accept().unwrap();
    let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let size = stream.read(&mut buffer).unwrap();
        got.extend_from_slice(&buffer[..size]);
        let text = String::from_utf8_lossy(&got);
        let Some((_, body)) = text.split_once("\r\n\r\n") else { continue };
        if let Ok(message) = serde_json::from_str(body) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            return message;
        }
        assert!(size > 0, "{text}");
    }
}

#[test]
fn a_worker_sees_the_span_of_its_model_and_nothing_of_what_is_not_traced() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let export = json!({"url": url, "resource": [], "queue_size": 9, "batch_size": 3, "delay_millis": 60_000});
    let site = Site::new(&json!({"trace": {"level": ["TIMESTAMPS"], "rate": 0, "opentelemetry": export}}));
    let runtime = runtime();
    let mut worker = {
        let _context = runtime.enter();
        site.publish("m", &json!({"reads_requests": true}))
    };
    let working = thread::spawn(move || {
        runtime.block_on(async {
            let mut metas = Vec::new();
            for _ in 0..2 {
                let call = worker.call().await;
                metas.push(serde_json::from_slice::<Value>(&worker.read(call.requests[0].meta)).unwrap());
                worker.reply(&[worker.echo(&call)]);
            }
            while worker.frame().await.is_some() {}
            metas
        })
    });
    for headers in ["", CALLER] {
        assert_eq!(site.ask("POST", "/v2/models/m/infer", headers, BODY).status, 200);
    }
    let message = receive(&listener);
    drop(site);
    let metas = working.join().unwrap();
    assert_eq!(metas[0], json!({"id": "7", "parameters": {}}));
    let spans = message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    let model = spans.iter().find(|span| span["name"] == "m").unwrap();
    let id = model["spanId"].as_str().unwrap();
    assert_eq!(metas[1]["traceparent"], format!("00-0af7651916cd43dd8448eb211c80319c-{id}-01"));
    assert_eq!(spans[0]["parentSpanId"], "b7ad6b7169203331");
}
