//! Routing, health, keep-alive, pipelining, HEAD, `Expect`, hosts.

use super::*;

#[test]
fn statuses_and_bodies_of_routes() {
    let site = Site::new(&json!({}));
    for (method, path, status, body) in [
        ("GET", "/v2/health/live", 200, r#"{"live":true}"#),
        ("GET", "/v2/health/live?x=1", 200, r#"{"live":true}"#),
        ("GET", "/v2/health/ready", 400, r#"{"ready":false}"#),
        ("GET", "/v2/", 404, r#"{"error":"Not Found"}"#),
        ("GET", "/v2/models/m/versions/x", 404, r#"{"error":"Not Found"}"#),
        ("DELETE", "/v2", 405, r#"{"error":"Method Not Allowed"}"#),
        ("GET", "/v2/models/nope", 404, r#"{"error":"Request for unknown model: 'nope' is not found"}"#),
        ("GET", "/v2/models/nope/ready", 404, r#"{"error":"Request for unknown model: 'nope' is not found"}"#),
        ("GET", "/v2/models/nope/stats", 400, r#"{"error":"requested model 'nope' is not available"}"#),
        ("GET", "/v2/models/stats", 200, r#"{"model_stats":[]}"#),
        ("GET", "/v2/systemsharedmemory/status", 200, "[]"),
        ("POST", "/v2/models/m/generate", 404, r#"{"error":"Request for unknown model: 'm' is not found"}"#),
    ] {
        let reply = site.ask(method, path, "", "");
        assert_eq!((reply.status, reply.text().as_str()), (status, body), "{method} {path}");
        assert_eq!(reply.header("content-type"), Some("application/json"), "{path}");
    }
    assert_eq!(site.ask("PATCH", "/v2/models/m/infer", "", "").header("allow"), Some("POST"));
    site.server.set_ready(true);
    assert_eq!(site.get("/v2/health/ready").text(), r#"{"ready":true}"#);
    let server = site.get("/v2").json();
    assert_eq!((&server["name"], &server["version"]), (&json!("naiad"), &json!("9.9")));
    assert_eq!(server["extensions"].as_array().unwrap().len(), 13);
}

#[test]
fn names_are_decoded_and_checked() {
    let site = Site::new(&json!({}));
    for name in ["..", "%2e%2e", "%2e%2e%2fx", "a%00b", "a%0ab", "%5c", ";id"] {
        let reply = site.get(&format!("/v2/models/{name}/config"));
        assert_eq!(reply.status, 400, "{name}");
        assert!(reply.error().ends_with("must not contain path traversal characters"), "{}", reply.error());
    }
    assert_eq!(site.get("/v2/models/a%20b").error(), "Request for unknown model: 'a b' is not found");
    assert_eq!(site.get("/v2/models/m/versions/99999999999999999999").status, 400);
}

#[test]
fn head_has_the_length_and_no_body() {
    let site = Site::new(&json!({}));
    let mut client = site.connect();
    client.send(request("HEAD", "/v2/health/live", "", "").as_bytes());
    let reply = client.reply(true);
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("13")));
    client.send(request("GET", "/v2/health/live", "", "").as_bytes());
    assert_eq!(client.reply(false).text(), r#"{"live":true}"#);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = Site::new(&json!({}));
    let mut client = site.connect();
    let paths = ["/v2/health/live", "/nope", "/v2/models/stats", "/v2/health/ready"];
    let all: String = paths.iter().map(|path| request("GET", path, "", "")).collect();
    client.send(all.as_bytes());
    assert_eq!(paths.map(|_| client.reply(false).status), [200, 404, 200, 400]);
}

#[test]
fn chunked_bodies_and_bodies_of_refused_requests_keep_the_connection() {
    let site = Site::new(&json!({}));
    let mut client = site.connect();
    let head = "POST /v2/repository/index HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\n{{\"rea\r\nd\r\ndy\":\"maybe\"}} \r\n0\r\n\r\n").as_bytes());
    assert_eq!(client.reply(false).error(), "Invalid value for 'ready': expected a boolean");
    client.send(request("POST", "/nope", "", &"x".repeat(300_000)).as_bytes());
    assert_eq!(client.reply(false).status, 404);
    client.send(request("GET", "/v2/health/live", "", "").as_bytes());
    assert_eq!(client.reply(false).status, 200);
}

#[test]
fn a_client_that_expects_100_is_asked_only_where_its_body_is_wanted() {
    let site = Site::new(&json!({}));
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 14\r\n\r\n")
    };
    let mut client = site.connect();
    client.send(head("/v2/repository/index").as_bytes());
    assert!(client.head().starts_with("HTTP/1.1 100"));
    client.send(br#"{"ready":true}"#);
    assert_eq!(client.reply(false).text(), "[]");

    let mut client = site.connect();
    client.send(head("/v2/models/nope/infer").as_bytes());
    assert_eq!(client.reply(false).status, 404);
}

#[test]
fn foreign_hosts_and_pages_are_refused() {
    let site = Site::new(&json!({"allowed_hosts": ["gpu.lab"]}));
    let status = |host: &str, more: &str| {
        let mut client = site.connect();
        let length = "Content-Length: 0";
        client.send(format!("POST /v2/repository/index HTTP/1.1\r\n{host}{more}{length}\r\n\r\n").as_bytes());
        client.reply(false).status
    };
    assert_eq!(status("Host: gpu.lab:80\r\n", ""), 200);
    assert_eq!(status("Host: evil.test\r\n", ""), 421);
    assert_eq!(status("Host: a/health?x=\r\n", ""), 400);
    assert_eq!(status("Host: localhost\r\n", "Sec-Fetch-Site: cross-site\r\n"), 403);
    assert_eq!(status("Host: localhost\r\n", "Origin: http://evil.test\r\n"), 403);
}

#[test]
fn a_server_that_goes_down_says_so_and_closes() {
    let site = Site::new(&json!({}));
    let mut client = site.connect();
    client.send(request("GET", "/v2/health/live", "", "").as_bytes());
    assert_eq!(client.reply(false).status, 200);
    assert!(site.server.drain(Duration::from_secs(10)));
    client.send(request("GET", "/v2/health/live", "", "").as_bytes());
    let reply = client.reply(false);
    assert_eq!((reply.status, reply.error().as_str()), (503, "Server exiting"));
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(client.is_closed());
    site.server.stop();
    assert!(std::net::TcpStream::connect(&site.address).is_err());
}

#[test]
fn an_occupied_port_is_named() {
    let site = Site::new(&json!({}));
    let port: u16 = site.address.rsplit(':').next().unwrap().parse().unwrap();
    let options = json!({
        "server_version": "9", "require_key": false, "model_control": "none", "byte_budget": 1,
        "http": {"address": "127.0.0.1", "port": port}, "log": {"file": "/dev/null"},
    });
    let second = Server::new(CoreOptions::from_json(options.to_string().as_bytes()).unwrap()).unwrap();
    let text = second.start().unwrap_err().to_string();
    assert!(text.contains(&site.address) && text.contains("in use"), "{text}");
    second.stop();
}
