//! Hostile bytes meet caps (security B1, B10, W6, W23).

use super::*;

#[test]
fn a_declared_length_above_the_limit_is_refused_with_tritons_text() {
    let site = Site::new(&json!({"max_input_size": 1000, "max_binary_size": 5000}));
    let runtime = runtime();
    let _context = runtime.enter();
    let _worker = site.publish("m", &json!({}));
    let post = |headers: &str, size| site.ask("POST", "/v2/models/m/infer", headers, &" ".repeat(size));
    let reply = post("", 1001);
    let text = "request JSON size of 1001 bytes exceeds the maximum allowed input size of 1000 bytes. \
                Use --http-max-input-size to increase the limit.";
    assert_eq!((reply.status, reply.error().as_str()), (400, text));
    let reply = post("Inference-Header-Content-Length: 0\r\n", 1001);
    assert!(reply.status == 400 && reply.error().starts_with("Raw input has a byte_size (1001 bytes)"));
    let reply = post("Inference-Header-Content-Length: 10\r\n", 5001);
    assert!(reply.status == 400 && reply.error().contains("--http-max-binary-size"), "{}", reply.error());
    assert!(post("", 1000).error().contains("parse"));
}

#[test]
fn a_chunked_body_above_the_limit_is_refused() {
    let site = Site::new(&json!({"max_input_size": 1000}));
    let mut client = site.connect();
    client.send(b"POST /v2/repository/index HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        client.send(format!("190\r\n{}\r\n", " ".repeat(400)).as_bytes());
    }
    client.send(b"0\r\n\r\n");
    let reply = client.reply(false);
    assert!(reply.status == 400 && reply.error().starts_with("request JSON size of 1200 bytes"), "{}", reply.text());
}

#[test]
fn a_million_tiny_chunks_are_refused() {
    let site = Site::new(&json!({}));
    let mut client = site.connect();
    client.send(b"POST /v2/repository/index HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    let thousand = "1\r\n \r\n".repeat(1000);
    for _ in 0..1000 {
        client.send(thousand.as_bytes());
    }
    client.send(b"0\r\n\r\n");
    let reply = client.reply(false);
    assert!(reply.status == 400 && reply.error().contains("65536 chunks"), "{}", reply.text());
    assert!(client.is_closed());
}

#[test]
fn as_many_chunks_as_triton_takes_are_taken() {
    let site = Site::new(&json!({}));
    let mut client = site.connect();
    client.send(b"POST /v2/repository/index HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("1\r\n \r\n".repeat(65_000).as_bytes());
    client.send(b"0\r\n\r\n");
    assert_eq!(client.reply(false).status, 200);
}

#[test]
fn large_headers_are_431() {
    let site = Site::new(&json!({}));
    let status = |headers: String| {
        let mut client = site.connect();
        let _ = client.stream.write_all(request("GET", "/v2", &headers, "").as_bytes());
        client.reply(false).status
    };
    assert_eq!(status(format!("X: {}\r\n", "a".repeat(1 << 20))), 431);
    assert_eq!(status("X: 1\r\n".repeat(101)), 431);
    assert_eq!(status(format!("X: {}\r\n", "a".repeat(15_000))), 200);
    assert_eq!(status("X: 1\r\n".repeat(98)), 200);
}

#[test]
fn slow_clients_are_given_up() {
    let site = Site::looking(Duration::from_millis(10), &json!({}));
    let body = "POST /v2/repository/index HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{";
    let mut silent = site.connect();
    silent.send(body.as_bytes());
    let reply = silent.reply(false);
    assert_eq!((reply.status, reply.error().as_str()), (408, "the request body stopped coming"));
    assert!(silent.is_closed());
    let mut endless = site.connect();
    endless.send(b"GET /v2 HTTP/1.1\r\nHost: local");
    assert!(endless.is_closed());
    assert!(site.connect().is_closed());
}

#[test]
fn garbage_and_broken_bodies_end_one_connection_only() {
    let site = Site::new(&json!({}));
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v2/repository/index HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v2/repository/index HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/repository/index HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ] {
        let mut client = site.connect();
        client.send(bytes);
        let reply = client.reply(false);
        assert_eq!(reply.status, 400, "{}", String::from_utf8_lossy(bytes));
        assert!(client.is_closed());
    }
    // A body that breaks off.
    let mut client = site.connect();
    client.send(b"POST /v2/repository/index HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{");
    drop(client);
    assert_eq!(site.get("/v2/health/live").status, 200);
}
