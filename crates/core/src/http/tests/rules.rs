//! What a listener asks beyond the gate: restricted categories, forwarded headers, pages of listed origins.

use super::infer::BODY;
use super::*;
use crate::auth::restricted::Category;
use crate::http::routes::{ROUTES, Verb};

fn listener(change: &Value) -> Value {
    let mut http = json!({"address": "127.0.0.1", "port": 0});
    http.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"http": http})
}

#[test]
fn restricted_categories_ask_for_their_header() {
    let digest = blake3::hash(b"secret").to_hex().to_string();
    let categories = ["inference", "model-config", "health", "model-repository", "shared-memory"];
    let rows = json!([{"categories": categories, "key": "Admin-Key", "digest": digest}]);
    let site = Site::new(&listener(&json!({"restricted": rows})));
    let text = "This API is restricted, expecting header 'admin-key'";
    for route in ROUTES {
        let method = if route.verb == Verb::Get { "GET" } else { "POST" };
        let path = route.pattern.replace("{version}", "1").replace(['{', '}'], "");
        let name = serde_json::to_value(route.category).unwrap();
        let restricted = categories.contains(&name.as_str().unwrap());
        if route.verb == Verb::Put || path.ends_with("load") && !restricted || path.ends_with("inspect") {
            continue;
        }
        let reply = site.ask(method, &path, "", "");
        assert_eq!(reply.status == 403, restricted, "{path}");
        assert_eq!(reply.text().contains(text), restricted, "{path}");
        let wrong = site.ask(method, &path, "Admin-Key: other\r\n", "");
        assert_eq!(wrong.status == 403, restricted, "{path}");
        if !path.ends_with("load") {
            assert_ne!(site.ask(method, &path, "admin-key: secret\r\n", "").status, 403, "{path}");
        }
    }
    assert!(
        ROUTES.iter().filter(|route| route.pattern.starts_with("/v2")).all(|route| route.category != Category::Admin)
    );
}

/// E-reserved-header.
#[test]
fn headers_that_fit_are_forwarded_and_reserved_ones_refused() {
    let site = Site::new(&listener(&json!({"forward": "my_.*|timeout"})));
    let runtime = runtime();
    let mut worker = {
        let _context = runtime.enter();
        site.publish("m", &json!({}))
    };
    let reserved = site.ask("POST", "/v2/models/m/infer", "timeout: 5\r\n", BODY);
    let text = "Header 'timeout' is reserved for Triton usage and cannot be forwarded.";
    assert_eq!((reserved.status, reserved.error().as_str()), (400, text));
    let mut client = site.connect();
    client.send(request("POST", "/v2/models/m/infer", "My_Header: a\r\nOther: b\r\n", BODY).as_bytes());
    runtime.block_on(async {
        let call = worker.call().await;
        worker.reply(&[worker.echo(&call)]);
    });
    assert_eq!(client.reply(false).status, 200);
}

#[test]
fn a_pattern_that_is_none_stops_the_start() {
    let options = json!({
        "server_version": "9", "require_key": false, "model_control": "none", "byte_budget": 1,
        "http": {"address": "127.0.0.1", "port": 0, "forward": "("}, "log": {"file": "/dev/null"},
    });
    let server = Server::new(CoreOptions::from_json(options.to_string().as_bytes()).unwrap()).unwrap();
    assert!(server.start().unwrap_err().to_string().contains("header forward pattern"));
    server.stop();
}

#[test]
fn w3_options_is_answered_to_listed_pages_only() {
    let site = Site::new(&json!({"cors_origins": ["https://page.test"]}));
    let asked = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type, x-api-key\r\n";
    let ask = |origin: &str| site.ask("OPTIONS", "/v2/models/m/infer", &format!("Origin: {origin}\r\n{asked}"), "");
    let reply = ask("https://page.test");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some("https://page.test")));
    assert_eq!(reply.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(reply.header("access-control-allow-headers"), Some("content-type, x-api-key"));
    assert_eq!(ask("https://evil.test").status, 403);
    assert_eq!(site.ask("OPTIONS", "/v2/models/m/infer", "", "").status, 405);
    let listed = "Origin: https://page.test\r\nSec-Fetch-Site: cross-site\r\n";
    let reply = site.ask("POST", "/v2/repository/index", listed, "");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some("https://page.test")));
    let reply = site.ask("POST", "/v2/models/nope/infer", listed, "{}");
    assert_eq!((reply.status, reply.header("vary")), (404, Some("origin")));
    let foreign = "Origin: https://evil.test\r\n";
    let reply = site.ask("GET", "/v2/health/live", foreign, "");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, None));
    let none = Site::new(&json!({}));
    let origin = format!("Origin: http://localhost\r\n{asked}");
    assert_eq!(none.ask("OPTIONS", "/v2/models/m/infer", &origin, "").status, 405);
}

/// A client says how long it waits; a model with several responses has no single answer (E-decoupled).
#[test]
fn waiting_has_an_end_and_a_decoupled_model_is_refused() {
    let site = Site::new(&json!({}));
    let runtime = runtime();
    {
        let _context = runtime.enter();
        let _stuck = site.publish("m", &json!({}));
        let _stream = site.publish("n", &json!({"decoupled": true}));
    }
    let late = site.ask("POST", "/v2/models/m/infer", "X-Request-Timeout: 0.05\r\n", BODY);
    assert_eq!((late.status, late.error().as_str()), (503, "[request id: 7] Request timeout expired"));
    let wrong = site.ask("POST", "/v2/models/m/infer", "X-Request-Timeout: soon\r\n", BODY);
    let text = "header 'X-Request-Timeout': expected seconds above 0 such as 2.5, got 'soon'";
    assert_eq!((wrong.status, wrong.error().as_str()), (400, text));
    let refused = site.post("/v2/models/n/infer", BODY);
    let text = "HTTP end point doesn't support models with decoupled transaction policy";
    assert_eq!((refused.status, refused.error().as_str()), (501, text));
}
